"""Groups that are too small for a value, gaps between the others, changes and reference groups."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import selection_rate, true_positive_rate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import matthews_corrcoef, precision_score

from skfair.metrics import FairnessReport, count_groups, fairness_report
from skfair.metrics._reporting._tests import share_limits


def _data(sizes, rates, seed=0):
    """Labels and predictions of groups a, b, ... with given sizes and selection rates."""
    rng = np.random.default_rng(seed)
    group = np.repeat([*"abcdefgh"][: len(sizes)], sizes)
    y = rng.integers(2, size=len(group))
    return y, (rng.random(len(group)) < np.repeat(rates, sizes)).astype(int), group


def test_small_groups_are_not_estimable_and_left_out_of_gaps():
    group = np.repeat([*"abc"], [20, 20, 9])
    selected = np.r_[np.arange(20) < 10, np.arange(20) < 14, np.zeros(9)].astype(int)
    y = np.ones(49, dtype=int)
    report = fairness_report(y, selected, sensitive_features=group, metrics=[selection_rate])
    assert report.estimable["model"].tolist() == [True, True, False]
    assert report.disparities.loc[("selection_rate", "difference"), ("model", "value")] == 0.7
    gap = report.gaps.loc[("selection_rate", "difference")]
    assert gap["model", "value"] == pytest.approx(0.2)
    assert (gap["model", "lowest"], gap["model", "highest"]) == ("a", "b")
    assert gap["", "left_out"] == 1
    assert report.gaps.loc[("selection_rate", "ratio"), ("model", "value")] == pytest.approx(5 / 7)


def test_samples_behind_a_share_are_those_in_its_denominator():
    group = np.repeat([*"ab"], 40)
    y = np.r_[np.ones(12), np.zeros(28), np.ones(8), np.zeros(32)].astype(int)
    chosen = np.r_[np.ones(9), np.zeros(31), np.ones(30), np.zeros(10)].astype(int)
    metrics = {"tpr": true_positive_rate, "precision": precision_score, "mcc": matthews_corrcoef}
    report = fairness_report(y, chosen, sensitive_features=group, metrics=metrics)
    expected = {"tpr": [True, False], "precision": [False, True], "mcc": [True, True]}
    for name, of in expected.items():
        assert report.estimable["model"].loc[name].tolist() == of
    everything = fairness_report(y, chosen, sensitive_features=group, metrics=metrics, min_count=0)
    assert everything.estimable.all(axis=None)
    with_weights = fairness_report(
        y, chosen, sensitive_features=group, metrics=metrics, sample_weight=np.full(80, 100.0)
    )
    pd.testing.assert_frame_equal(with_weights.estimable, report.estimable)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.booleans())
def test_gaps_are_the_disparities_of_a_report_without_the_small_groups(seed, min_count, controls):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, size=4)
    y, first, group = _data(sizes, rng.random(4), seed)
    y[:2], first[:2] = 1, 1
    second = rng.permutation(first)
    control = rng.integers(2, size=len(y)) if controls else None
    predictions = {"first": first, "second": second}
    report = fairness_report(
        y, predictions, sensitive_features=group, control_features=control,
        metrics=[selection_rate], min_count=min_count, n_boot=0,
    )  # fmt: skip
    for level in [None] if control is None else [0, 1]:
        rows = np.ones(len(y), dtype=bool) if level is None else control == level
        within = {name: int(np.sum(rows & (group == name))) for name in "abcd"}
        kept = rows & np.isin(group, [g for g, n in within.items() if n >= max(min_count, 1)])
        key = ("selection_rate",) if level is None else ("selection_rate", level)
        for model, predicted in predictions.items():
            rates = pd.Series(predicted[kept]).groupby(group[kept]).mean()
            found = report.gaps[model].loc[(*key, "difference")]
            if len(rates) < 2:
                assert np.isnan(found["value"])
                assert pd.isna(found["lowest"])
                continue
            assert found["value"] == pytest.approx(rates.max() - rates.min(), abs=1e-12)
            assert rates[found["lowest"]] == rates.min()
            assert rates[found["highest"]] == rates.max()
        n_groups = sum(n > 0 for n in within.values())
        n_kept = len(set(group[kept]))
        assert report.gaps.loc[(*key, "difference"), ("", "left_out")] == n_groups - n_kept


def test_gaps_equal_disparities_where_all_groups_are_estimable():
    y, first, group = _data([60, 80, 100], [0.2, 0.5, 0.7])
    predictions = {"first": first, "second": 1 - first}
    report = fairness_report(y, predictions, sensitive_features=group)
    extra = [("", "left_out")] + [(m, c) for m in predictions for c in ("lowest", "highest")]
    of_groups = report.gaps.drop(columns=extra).astype(float)
    pd.testing.assert_frame_equal(of_groups, report.disparities.loc[of_groups.index])
    assert (report.gaps["", "left_out"] == 0).all()


def test_the_bootstrap_of_gaps_leaves_small_groups_out_of_each_draw():
    y, first, group = _data([300, 300, 5], [0.4, 0.6, 0.5])
    predictions = {"first": first, "second": np.roll(first, 7)}
    report = fairness_report(y, predictions, sensitive_features=group, metrics=[selection_rate])
    gap = report.gaps.loc[("selection_rate", "difference")]
    everything = report.disparities.loc[("selection_rate", "difference")]
    # Two rates of 300 samples: a standard error of .04; five samples add far more.
    assert 0.1 < gap["first", "high"] - gap["first", "low"] < 0.2
    assert everything["first", "high"] - everything["first", "low"] > 0.2
    assert gap["second", "change_low"] <= gap["second", "change"] <= gap["second", "change_high"]


def test_the_report_of_a_sum_of_counts_is_that_of_all_samples():
    y, first, group = _data([30, 8, 50], [0.2, 0.5, 0.7])
    predictions = {"first": first, "second": np.roll(first, 3)}
    options = {"reference": "highest", "threshold": 0.8, "min_count": 9}
    whole = fairness_report(y, predictions, sensitive_features=group, **options)
    parts = [
        count_groups(
            y[rows], {m: p[rows] for m, p in predictions.items()}, sensitive_features=group[rows]
        )
        for rows in (np.arange(88) % 2 == 0, np.arange(88) % 2 == 1)
    ]
    summed = FairnessReport.from_counts(sum(parts), **options)
    for name in ("by_group", "gaps", "estimable", "by_reference"):
        pd.testing.assert_frame_equal(getattr(summed, name), getattr(whole, name))


def test_the_p_value_of_a_change_is_mcnemars_after_holm():
    # Groups by (only the first right, only the second right).
    discordant = {"a": (15, 2), "b": (9, 1), "c": (4, 6), "d": (0, 0)}
    rows = []
    for name, (lost, gained) in discordant.items():
        rows += [(name, 1, 0)] * lost + [(name, 0, 1)] * gained + [(name, 1, 1)] * 20
    group, first, second = map(np.array, zip(*rows, strict=True))
    report = fairness_report(
        np.ones(len(rows), dtype=int), {"first": first, "second": second},
        sensitive_features=group, n_boot=0,
    )  # fmt: skip
    exact = [stats.binomtest(min(n), sum(n)).pvalue for n in [(15, 2), (9, 1), (4, 6)]]
    assert exact == sorted(exact)
    holm = np.minimum(np.maximum.accumulate([3 * exact[0], 2 * exact[1], exact[2]]), 1)
    expected = pd.Series([*holm, 1.0], index=[*"abcd"])
    found = report.by_group["second", "change_p"].droplevel(0)
    np.testing.assert_allclose(found, expected.loc[found.index], rtol=1e-12)
    weighted = fairness_report(
        np.ones(len(rows), dtype=int), {"first": first, "second": second},
        sensitive_features=group, n_boot=0, sample_weight=np.full(len(rows), 3.0),
    )  # fmt: skip
    np.testing.assert_allclose(weighted.by_group["second", "change_p"], found, rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("weighted", [False, True])
def test_rarely_is_a_group_said_to_have_changed_when_none_did(weighted):
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(100):
        sizes = rng.integers(5, 200, size=12)
        group = np.repeat([*"abcdefghijkl"], sizes)
        n = len(group)
        differs, up = rng.random(n) < 0.2, rng.random(n) < 0.5
        first = np.where(differs, up, rng.random(n) < 0.7).astype(int)
        second = np.where(differs, 1 - first, first)
        weight = rng.exponential(size=n) + 0.01 if weighted else None
        report = fairness_report(
            np.ones(n, dtype=int), {"first": first, "second": second},
            sensitive_features=group, sample_weight=weight, n_boot=0,
        )  # fmt: skip
        named += (report.by_group["second", "change_p"] <= 0.05).any()
    assert named <= 11  # 5 % of 100 is 5; more than 11 has a probability of .004


def test_reference_group_by_hand():
    group = np.repeat([*"abc"], [100, 50, 5])
    chosen = np.r_[np.arange(100) < 50, np.arange(50) < 20, np.ones(5)].astype(int)
    report = fairness_report(
        np.ones(155, dtype=int), chosen, sensitive_features=group,
        metrics=[selection_rate], reference="a", threshold=0.8,
    )  # fmt: skip
    rows = report.by_reference.loc["selection_rate"]["model"]
    b = rows.loc["b"]
    assert b["difference"] == pytest.approx(-0.1)
    assert b["ratio"] == pytest.approx(0.8)
    low, high = stats.beta.ppf([0.0125, 0.9875], [20, 21], [31, 30])
    base_low, base_high = stats.beta.ppf([0.0125, 0.9875], [50, 51], [51, 50])
    assert b["ratio_low"] == pytest.approx(low / base_high)
    assert b["ratio_high"] == pytest.approx(high / base_low)
    assert b["difference_low"] == pytest.approx(low - base_high)
    assert b["meets"] == "cannot tell"
    assert rows.loc["a", "meets"] == "yes"
    assert rows.loc["c", "meets"] == "not estimable"
    assert set(rows["reference"]) == {"a"}


def test_the_four_fifths_rule_alone_takes_the_highest_estimable_group():
    y, chosen, group = _data([2000, 2000, 2000, 6], [0.5, 0.2, 0.47, 1.0])
    report = fairness_report(
        y, chosen, sensitive_features=group, metrics=[selection_rate], threshold=0.8
    )
    rows = report.by_reference.loc["selection_rate"]["model"]
    assert rows["meets"].to_dict() == {"a": "yes", "b": "no", "c": "yes", "d": "not estimable"}
    assert set(rows["reference"]) == {"a"}
    words = "selection rate: 1 of 4 groups below 0.8 of the reference, each by its own interval: b."
    text = " ".join(str(report).split())
    assert f"Threshold {words} 2 reach it, 0 cannot be told, 1 not estimable." in text
    assert fairness_report(y, chosen, sensitive_features=group).by_reference is None


@pytest.mark.thorough
@pytest.mark.parametrize("n_groups", [2, 8])
def test_ratio_intervals_to_the_highest_group_cover(n_groups):
    rng = np.random.default_rng(1)
    missed = wrong = 0
    for _ in range(150):
        sizes = rng.integers(10, 60, size=n_groups)
        rates = np.full(n_groups, rng.choice([0.05, 0.3, 0.9]))
        y, chosen, group = _data(sizes, rates, int(rng.integers(2**31)))
        report = fairness_report(
            y, chosen, sensitive_features=group, metrics=[selection_rate], threshold=0.8, n_boot=0
        ) if chosen.any() else None  # fmt: skip
        if report is None:
            continue
        rows = report.by_reference["model"]
        covered = ~(rows["ratio_low"] > 1) & ~(rows["ratio_high"] < 1)  # all rates are equal
        missed += not covered.iloc[0]
        wrong += (rows["meets"] == "no").iloc[0]
    assert missed <= 14  # 5 % of 150 is 7.5; more than 14 has a probability of .006
    assert wrong <= 14


def test_limits_of_a_share():
    low, high = share_limits(np.array([0.0, 1.0, 0.3, np.nan]), np.array([7, 7, 10, 3]), 0.025)
    np.testing.assert_allclose(low[:3], [0, 0.025 ** (1 / 7), stats.beta.ppf(0.025, 3, 8)])
    np.testing.assert_allclose(high[:3], [1 - 0.025 ** (1 / 7), 1, stats.beta.ppf(0.975, 4, 7)])
    assert np.isnan(low[3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_count": -1}, "min_count=-1 is not a number of samples"),
        ({"min_count": 2.5}, "min_count=2.5 is not a number of samples"),
        ({"min_count": True}, "min_count=True is not a number of samples"),
        ({"threshold": 0}, "threshold=0 is not a ratio above 0"),
        ({"threshold": 80}, "threshold=80 is not a ratio above 0"),
        ({"threshold": "0.8"}, "threshold='0.8' is not a ratio"),
        ({"threshold": float("nan")}, "threshold=nan is not a ratio"),
        ({"reference": "femal"}, r"reference='femal' is not a group of 'sex'.*such as 'female'"),
        ({"reference": 0}, "reference=0 is not a group of 'sex'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        fairness_report([0, 1], [0, 1], sensitive_features={"sex": ["female", "male"]}, **arguments)


def test_a_group_called_highest_is_refused_as_reference():
    groups = {"score": ["highest", "lowest"]}
    with pytest.raises(ValueError, match="Rename the group"):
        fairness_report([0, 1], [0, 1], sensitive_features=groups, reference="highest")
    fairness_report([0, 1], [0, 1], sensitive_features=groups, reference="lowest")


def test_a_reference_of_several_features_is_a_tuple():
    y, chosen, group = _data([50, 60], [0.3, 0.6])
    features = {"letter": group, "number": np.arange(110) % 2}
    report = fairness_report(
        y, chosen, sensitive_features=features, metrics=[selection_rate], reference=("a", 1)
    )
    assert set(report.by_reference["model", "reference"]) == {("a", 1)}
    assert report.by_reference.loc[("selection_rate", "a", 1), ("model", "ratio")] == 1


def test_labels_that_are_no_text_of_unicode():
    odd, y = "\ud800", [0, 1] * 20
    report = fairness_report(
        y, y, sensitive_features={odd: [odd, "b"] * 20}, control_features={"c": [odd] * 40},
        threshold=0.8,
    )  # fmt: skip
    assert odd in report.by_feature.index.get_level_values(odd)
    for text in (str(report), report.to_json(), report._repr_html_()):
        assert "\\ud800" in text
        text.encode()
    with pytest.raises(ValueError, match=r"The name of a model, .*half of a surrogate pair"):
        fairness_report(y, {odd: y}, sensitive_features={"g": [*"ab"] * 20})
