"""Certificates: sizes by enumeration, p-values by brute force, verdicts, bad input, faces."""

import json
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm

from skfair.metrics import FairnessCertificate, fairness_certificate, fairness_report
from skfair.metrics._binomial_tests import exact_p_value, score, wald_p_value
from skfair.metrics._certify import certify
from skfair.metrics._rate_tests import (
    RateCounts,
    holds,
    least_rows,
    power,
    rate_counts,
    rows_for,
    table_rates,
)
from skfair.utils import SmallGroupWarning

EPSILON, DELTA = 0.05, 0.05


def _p_values(n1, n2, epsilon, delta, two_sided):
    """P-value of each outcome, (n1 + 1, n2 + 1)."""
    return np.array(
        [
            [exact_p_value(a, n1, b, n2, epsilon, delta, two_sided) for b in range(n2 + 1)]
            for a in range(n1 + 1)
        ]
    )


def _size(rejected, n1, n2, epsilon):
    """Largest probability to reject where r1 - r2 is epsilon or more."""
    r2 = np.linspace(0, 1 - epsilon, 1501)
    largest = 0.0
    for r1 in (r2 + epsilon, np.minimum(r2 + 1.4 * epsilon, 1), np.ones_like(r2)):
        mass1 = binom.pmf(np.arange(n1 + 1), n1, r1[:, None])
        mass2 = binom.pmf(np.arange(n2 + 1), n2, r2[:, None])
        largest = max(largest, np.einsum("ga,ab,gb->g", mass1, rejected, mass2).max())
    return largest


@pytest.mark.parametrize(
    "n1, n2, epsilon, delta",
    [(12, 17, 0.3, 0.05), (30, 30, 0.2, 0.05), (9, 40, 0.3, 0.1), (25, 25, 0.4, 0.01)],
)
def test_one_sided_test_has_its_size_everywhere(n1, n2, epsilon, delta):
    rejected = (_p_values(n1, n2, epsilon, delta, False) <= delta).astype(float)
    size = _size(rejected, n1, n2, epsilon)
    assert 0.85 * delta < size <= delta


@pytest.mark.parametrize("sizes", [(12, 17), (30, 30), (9, 40)])
def test_both_sides_have_their_size(sizes):
    """An outcome is a certificate if both tests reject it, for gaps of either sign."""
    n1, n2 = sizes
    rejected = (_p_values(n1, n2, 0.3, 0.05, True) <= 0.05).astype(float)
    assert rejected.any()
    assert _size(rejected, n1, n2, 0.3) <= 0.05
    assert _size(rejected.T, n2, n1, 0.3) <= 0.05


def test_score_is_that_of_restricted_maximum_likelihood():
    x1, n1, x2, n2, epsilon = 7, 20, 11, 30, 0.15
    r2 = np.linspace(1e-6, 1 - epsilon - 1e-6, 200_001)
    likelihood = binom.logpmf(x1, n1, r2 + epsilon) + binom.logpmf(x2, n2, r2)
    r2 = r2[likelihood.argmax()]
    r1 = r2 + epsilon
    error = np.sqrt(r1 * (1 - r1) / n1 + r2 * (1 - r2) / n2)
    assert score(x1, n1, x2, n2, epsilon) == pytest.approx(
        (x1 / n1 - x2 / n2 - epsilon) / error, rel=1e-4
    )


@pytest.mark.parametrize("n1, n2, epsilon", [(8, 13, 0.3), (15, 15, 0.2), (20, 6, 0.25)])
def test_score_falls_and_rises_with_the_counts(n1, n2, epsilon):
    """So that the size is largest on the boundary of the hypothesis."""
    x1, x2 = np.arange(n1 + 1)[:, None], np.arange(n2 + 1)
    values = score(x1, n1, x2, n2, epsilon)
    assert np.all(np.diff(values, axis=0) > 0)
    assert np.all(np.diff(values, axis=1) < 0)


@pytest.mark.parametrize(
    "x1, n1, x2, n2, epsilon", [(3, 14, 6, 19, 0.2), (0, 12, 1, 30, 0.25), (20, 25, 21, 24, 0.3)]
)
def test_p_value_equals_brute_force(x1, n1, x2, n2, epsilon):
    delta = 0.1
    expected = []
    for a, m1, b, m2 in ((x1, n1, x2, n2), (x2, n2, x1, n1)):
        tail = 0.02 * delta / 4
        # Clopper-Pearson by their definition: rates under which the count is no surprise.
        rates = np.linspace(0, 1 - epsilon, 40_001)
        allowed = np.ones(len(rates), dtype=bool)
        for x, n, r in ((a, m1, rates + epsilon), (b, m2, rates)):
            allowed &= (binom.sf(x - 1, n, r) >= tail) & (binom.cdf(x, n, r) >= tail)
        rates = rates[allowed]
        grid = np.meshgrid(np.arange(m1 + 1), np.arange(m2 + 1), indexing="ij")
        extreme = score(grid[0], m1, grid[1], m2, epsilon) <= score(a, m1, b, m2, epsilon) + 1e-9
        mass1 = binom.pmf(np.arange(m1 + 1), m1, rates[:, None] + epsilon)
        mass2 = binom.pmf(np.arange(m2 + 1), m2, rates[:, None])
        size = np.einsum("ga,ab,gb->g", mass1, extreme.astype(float), mass2)
        expected.append(size.max() + 0.02 * delta)
    assert exact_p_value(x1, n1, x2, n2, epsilon, delta) == pytest.approx(max(expected), abs=2e-5)


@pytest.mark.parametrize("n", [10, 1000, 10**6])
def test_symmetric_in_groups_and_in_what_counts(n):
    x1, x2 = int(0.32 * n), int(0.3 * n)
    p = exact_p_value(x1, n, x2, 2 * n, 0.35, DELTA)
    assert exact_p_value(x2, 2 * n, x1, n, 0.35, DELTA) == p
    assert exact_p_value(n - x1, n, 2 * n - x2, 2 * n, 0.35, DELTA) == pytest.approx(p, rel=1e-3)


def test_half_and_half_of_a_thousand_loses_less_than_four_points():
    assert exact_p_value(500, 1000, 488, 1000, EPSILON, DELTA) <= DELTA
    assert exact_p_value(500, 1000, 486, 1000, EPSILON, DELTA) > DELTA


def test_large_groups_agree_with_the_normal_test():
    n1, n2 = 200_000, 50_000
    for gap in (0.0455, 0.046, 0.0465):
        x1, x2 = int(n1 * (0.3 + gap)), int(n2 * 0.3)
        p = exact_p_value(x1, n1, x2, n2, EPSILON, DELTA)
        error = np.sqrt(0.35 * 0.65 / n1 + 0.3 * 0.7 / n2)
        assert p == pytest.approx(0.001 + norm.cdf((gap - EPSILON) / error), abs=0.003)


@pytest.mark.parametrize("n", [25, 40])
def test_mean_of_two_rates_has_about_its_size(n):
    """Also where rates are 0 or 1: all outcomes are enumerated."""
    epsilon = 0.1
    x = np.arange(n + 1)
    grid = np.stack(np.meshgrid(x, x, x, x, indexing="ij"))
    sign = np.array([1, -1, 1, -1])[:, None, None, None, None]
    rates = (grid + 0.5) / (n + 1)
    variance = (rates * (1 - rates) / (n + 1)).sum(0) / 4
    gap = np.abs((sign * rates).sum(0)) / 2 + 1 / (2 * n)
    plain = np.abs((sign * grid).sum(0)) / (2 * n)
    p = np.where(plain >= epsilon - 1e-12, 1, norm.cdf((gap - epsilon) / np.sqrt(variance)))
    for hits in ([3, 2, 4, 4], [0, 0, 0, 0], [20, 18, 2, 2], [20, 16, 3, 0]):
        counts, sizes = np.array(hits).reshape(2, 2), np.full((2, 2), n)
        assert wald_p_value(counts, sizes, epsilon) == pytest.approx(p[tuple(hits)])
    rejected = (p <= DELTA).astype(float)
    for truth in (
        [0.2, 0, 0, 0],
        [0.1, 0, 0.1, 0],
        [1, 0.8, 0, 0],
        [1, 0.9, 0.1, 0],
        [0.6, 0.5, 0.3, 0.2],
        [0.9, 0.75, 0.15, 0.1],
    ):
        mass = rejected
        for rate in truth[::-1]:
            mass = mass @ binom.pmf(x, n, rate)
        assert mass <= 1.2 * DELTA


def test_certificate_by_hand():
    y = np.array([0, 1] * 1000)
    group = np.array(["f"] * 800 + ["m"] * 1200)
    prediction = np.zeros(2000, dtype=int)
    prediction[:240] = 1  # .3 of f
    prediction[800:1172] = 1  # .31 of m
    certificate = fairness_certificate(y, prediction, sensitive_features=group, epsilon=0.06)
    pair = certificate.pairs.iloc[0]
    assert pair[["rate", "group_1", "group_2"]].tolist() == ["selection rate", "f", "m"]
    assert pair[["n_1", "n_2"]].tolist() == [800, 1200]
    assert pair[["rate_1", "rate_2"]].tolist() == [0.3, 0.31]
    assert pair["difference"] == pytest.approx(-0.01)
    error = np.sqrt(0.3 * 0.7 / 800 + 0.31 * 0.69 / 1200)
    assert pair["bound"] == pytest.approx(0.01 + 1.645 * error, abs=0.0015)
    assert pair["p_value"] == exact_p_value(240, 800, 372, 1200, 0.06, 0.05)
    assert certificate.holds is bool(pair["holds"]) is True
    assert certificate.group_sizes.loc["f", "selection rate"] == 800
    assert (certificate.delta, certificate.confidence) == (0.05, 0.95)
    assert certificate.rows_needed is None
    assert certificate.rows_at_parity is None


def _rows(rates, sizes, seed=0):
    """Labels, predictions and groups with these numbers of rows, exactly."""
    y, prediction, group = [], [], []
    for g, (pair, counts) in enumerate(zip(rates, sizes, strict=True)):
        for label, (rate, n) in enumerate(zip(pair, counts, strict=True)):
            hits = round(rate * n)
            y += [label] * n
            prediction += [1] * hits + [0] * (n - hits)
            group += [g] * n
    return np.array(y), np.array(prediction), np.array(group)


@pytest.mark.parametrize(
    "constraint", ["demographic_parity", "equal_opportunity", "equalized_odds", "average_odds"]
)
def test_bound_says_where_it_would_hold(constraint):
    y, prediction, group = _rows(
        [(0.2, 0.8), (0.22, 0.81), (0.19, 0.79)], [(300, 260), (700, 800), (500, 500)]
    )
    arguments = {"sensitive_features": group, "constraint": constraint}
    first = fairness_certificate(y, prediction, epsilon=0.1, **arguments)
    bound = first.pairs["bound"].max()
    assert first.holds == (bound <= 0.1)
    for epsilon in (bound - 0.004, bound - 0.001, bound + 0.0005, bound + 0.02):
        certificate = fairness_certificate(y, prediction, epsilon=epsilon, **arguments)
        assert certificate.holds == (epsilon >= bound)
        assert certificate.pairs["bound"].max() == pytest.approx(bound, abs=5e-4)
        assert (certificate.pairs["p_value"] <= 0.05).tolist() == certificate.pairs[
            "holds"
        ].tolist()
    stricter = fairness_certificate(y, prediction, confidence=0.99, **arguments)
    assert np.all(stricter.pairs["bound"] > first.pairs["bound"])


def test_order_of_groups_does_not_matter():
    y, prediction, group = _rows([(0.2, 0.8), (0.25, 0.85)], [(400, 500), (300, 700)])
    first = fairness_certificate(
        y, prediction, sensitive_features=group, constraint="equalized_odds"
    )
    other = fairness_certificate(
        y, prediction, sensitive_features=1 - group, constraint="equalized_odds"
    )
    np.testing.assert_array_equal(first.pairs["p_value"], other.pairs["p_value"])
    np.testing.assert_array_equal(first.pairs["bound"], other.pairs["bound"])
    np.testing.assert_array_equal(first.pairs["difference"], -other.pairs["difference"])


def test_rates_of_each_constraint():
    counts = np.array([[10, 60], [20, 45]])  # false and true positives
    totals = np.array([[100, 80], [110, 50]])

    def flat(constraint):
        return [
            (rate.name, rate.hits.tolist(), rate.sizes.tolist())
            for rate in rate_counts(constraint, counts, totals)
        ]

    true = ("true positive rate", [60, 45], [80, 50])
    false = ("false positive rate", [10, 20], [100, 110])
    assert flat("demographic_parity") == [("selection rate", [70, 65], [180, 160])]
    assert flat("equal_opportunity") == [true]
    assert flat("equalized_odds") == [true, false]
    (mean,) = rate_counts("average_odds", counts, totals)
    assert mean.is_mean
    assert mean.hits.tolist() == [true[1], false[1]]
    assert mean.sizes.tolist() == [true[2], false[2]]


def test_verdict_of_holds_is_that_of_certify():
    rng = np.random.default_rng(0)
    seen = set()
    for constraint in ("demographic_parity", "equalized_odds", "average_odds"):
        for _ in range(12):
            totals = rng.integers(80, 900, (3, 2))
            counts = rng.binomial(totals, rng.uniform(0.1, 0.9, 2))
            rates = rate_counts(constraint, counts, totals)
            certificate = certify(rates, "abc", constraint=constraint, epsilon=0.1, confidence=0.95)
            assert holds(rates, 0.1, 0.05) == certificate.holds
            seen.add(certificate.holds)
    assert seen == {True, False}


def test_no_rows_are_no_proof():
    rates = rate_counts("equal_opportunity", np.zeros((2, 2)), np.array([[50, 0], [60, 90]]))
    assert not holds(rates, 0.5, 0.05)
    with pytest.warns(SmallGroupWarning, match="'a': 0"):
        certificate = certify(
            rates, "ab", constraint="equal_opportunity", epsilon=0.5, confidence=0.95
        )
    assert not certificate.holds
    assert certificate.pairs.loc[0, "bound"] == 1
    assert "nothing can be said" in str(certificate)
    assert json.loads(json.dumps(certificate.to_dict()))["pairs"]["rate_1"] == [None]


@pytest.mark.parametrize("constraint", ["demographic_parity", "average_odds"])
def test_power_is_how_often_it_holds(constraint):
    rng = np.random.default_rng(1)
    totals = np.full((2, 2), 1000)
    rate = np.array([[0.2, 0.7], [0.21, 0.71]])
    rates = rate_counts(constraint, rate * totals, totals)
    expected = power(rates, [r.sizes for r in rates], EPSILON, DELTA)
    found = np.mean(
        [
            holds(rate_counts(constraint, rng.binomial(totals, rate), totals), EPSILON, DELTA)
            for _ in range(400)
        ]
    )
    assert 0.1 < expected < 0.95
    assert found == pytest.approx(float(expected), abs=0.08)


def test_power_of_many_candidates_at_once():
    totals = np.array([[300, 200], [500, 600], [100, 90]])
    counts = np.random.default_rng(0).binomial(totals, 0.5, (7, 3, 2))
    counts[0], sizes = 0, np.array([1000, 2000, 3000])
    for constraint in ("demographic_parity", "average_odds"):
        rates = rate_counts(constraint, counts, totals)
        many = power(rates, [np.broadcast_to(sizes, rates[0].sizes.shape)], 0.1, DELTA)
        assert many.shape == (7,)
        assert many[0] > 0.99
        for candidate, one in zip(counts, many, strict=True):
            alone = rate_counts(constraint, candidate, totals)
            assert power(alone, [np.broadcast_to(sizes, alone[0].sizes.shape)], 0.1, DELTA) == (
                pytest.approx(one)
            )
    assert power(rates, [np.zeros((2, 3))], 0.1, DELTA).max() == 0


def test_rows_needed_would_do():
    y, prediction, group = _rows([(0.3, 0.3), (0.32, 0.32)], [(200, 200), (1000, 1000)])
    certificate = fairness_certificate(y, prediction, sensitive_features=group)
    assert not certificate.holds
    needed = certificate.rows_needed["selection rate"]
    parity = certificate.rows_at_parity["selection rate"]
    assert 400 < parity[0] < needed[0]
    assert parity[1] == 2000  # has enough
    rng = np.random.default_rng(0)
    for rows, rates in ((needed, (0.3, 0.32)), (parity, (380 / 1200, 380 / 1200))):
        n1, n2 = map(int, rows)
        found = np.mean(
            [
                exact_p_value(int(a), n1, int(b), n2, EPSILON, DELTA) <= DELTA
                for a, b in zip(
                    rng.binomial(n1, rates[0], 300), rng.binomial(n2, rates[1], 300), strict=True
                )
            ]
        )
        assert found == pytest.approx(0.8, abs=0.09)


def test_too_large_a_gap_is_said():
    y, prediction, group = _rows([(0.3, 0.3), (0.5, 0.5)], [(300, 300), (300, 300)])
    certificate = fairness_certificate(y, prediction, sensitive_features=group)
    assert certificate.rows_needed is None
    assert certificate.rows_at_parity is not None
    assert "20.0 points" in str(certificate)
    rates = [RateCounts("", np.array([180, 300]), np.array([600, 600]))]
    assert rows_for(rates, EPSILON, DELTA) is None


@pytest.mark.parametrize("is_mean", [False, True])
def test_fewer_than_the_least_rows_prove_nothing(is_mean):
    epsilon = 0.3
    least = least_rows(epsilon, DELTA, is_mean)
    shape = (2, 2) if is_mean else (2,)
    none = RateCounts("", np.zeros(shape, int), np.full(shape, least), is_mean)
    assert holds([none], epsilon, DELTA)
    n = least - 1
    for hits in product(range(n + 1), repeat=4 if is_mean else 2):
        rate = RateCounts("", np.array(hits).reshape(shape), np.full(shape, n), is_mean)
        assert not holds([rate], epsilon, DELTA)


@pytest.mark.parametrize("epsilon, confidence", [(1e-300, 0.95), (1 - 1e-16, 0.99999), (0.5, 1e-9)])
def test_odd_levels_end(epsilon, confidence):
    good = _good()
    y, prediction = good.pop("y_true"), good.pop("y_pred")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallGroupWarning)
        certificate = fairness_certificate(
            y, prediction, epsilon=epsilon, confidence=confidence, **good
        )
    assert certificate.holds == (epsilon > 0.4)
    assert str(certificate)


def test_small_groups_are_named():
    y, prediction, group = _rows([(0.3, 0.3), (0.3, 0.3), (0, 0)], [(900, 900), (900, 900), (5, 5)])
    group = np.array(["a", "b", "few"])[group]
    with pytest.warns(SmallGroupWarning, match=r"it takes 59 rows .*\('few': 10\)"):
        certificate = fairness_certificate(y, prediction, sensitive_features=group)
    assert not certificate.holds
    assert certificate.pairs["holds"].tolist() == [True, False, False]
    assert certificate.least_rows == 59
    assert "few" in str(certificate)


def test_three_classes_each_by_itself():
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b", "c"], 3000)
    group = rng.choice(["f", "m"], 3000)
    prediction = np.where(rng.random(3000) < 0.7, y, "a")
    parity = fairness_certificate(y, prediction, sensitive_features=group)
    assert parity.pairs["rate"].tolist() == ["predicted a", "predicted b", "predicted c"]
    row = parity.pairs.iloc[1]
    assert row["rate_1"] == pytest.approx(np.mean(prediction[group == "f"] == "b"))
    odds = fairness_certificate(
        y, prediction, sensitive_features=group, constraint="equalized_odds", epsilon=0.2
    )
    assert len(odds.pairs) == 9
    row = odds.pairs.set_index("rate").loc["predicted a of c"]
    of = (group == "m") & (y == "c")
    assert row["n_2"] == of.sum()
    assert row["rate_2"] == pytest.approx(np.mean(prediction[of] == "a"))
    named = fairness_certificate(
        y, prediction, sensitive_features=group, constraint="equal_opportunity", pos_label="c"
    )
    assert named.pairs["rate"].tolist() == ["true positive rate"]
    assert named.pairs["rate_2"][0] == pytest.approx(np.mean(prediction[of] == "c"))
    with pytest.raises(ValueError, match="equal_opportunity is about one class"):
        fairness_certificate(
            y, prediction, sensitive_features=group, constraint="equal_opportunity"
        )


def test_whatever_numpy_does_about_errors():
    y, prediction, group = _rows([(0.0, 0.3), (0.01, 0.32)], [(30, 900), (20_000, 20_000)])
    for constraint in ("equalized_odds", "average_odds"):
        arguments = {"sensitive_features": group, "constraint": constraint}
        with pytest.warns(SmallGroupWarning):
            expected = fairness_certificate(y, prediction, **arguments)
        with pytest.warns(SmallGroupWarning), np.errstate(all="raise"):
            assert str(fairness_certificate(y, prediction, **arguments)) == str(expected)


def test_five_groups_are_ten_pairs_and_all_must_hold():
    sizes = [(2000, 2000)] * 5
    even = _rows([(0.3, 0.3)] * 5, sizes)
    certificate = fairness_certificate(*even[:2], sensitive_features=even[2])
    assert len(certificate.pairs) == 10
    assert certificate.holds
    odd = _rows([(0.3, 0.3)] * 4 + [(0.34, 0.34)], sizes)
    certificate = fairness_certificate(*odd[:2], sensitive_features=odd[2])
    assert certificate.pairs["holds"].tolist() == [g != 4 for g in certificate.pairs["group_2"]]
    assert not certificate.holds


def test_table_may_have_candidates_in_front():
    table = np.arange(36).reshape(2, 3, 2, 3)
    for first, both in zip(
        table_rates("equalized_odds", table[0], "xyz", None),
        table_rates("equalized_odds", table, "xyz", None),
        strict=True,
    ):
        np.testing.assert_array_equal(first.hits, both.hits[0])
        np.testing.assert_array_equal(first.sizes, both.sizes[0])


@pytest.mark.parametrize("labels", [[3, 7], ["f", "m"], [("f", True), ("m", False)]])
def test_round_trip_by_json(labels):
    totals = np.array([[200, 300], [250, 350]])
    rates = rate_counts("equalized_odds", (0.3 * totals).astype(int), totals)
    certificate = certify(rates, labels, constraint="equalized_odds", epsilon=0.05, confidence=0.95)
    content = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    back = FairnessCertificate.from_dict(content)
    for name in ("group_sizes", "pairs", "rows_needed", "rows_at_parity"):
        pd.testing.assert_frame_equal(getattr(certificate, name), getattr(back, name))
    assert str(back) == str(certificate)
    assert repr(back) == repr(certificate)
    assert back.to_dict() == content


def test_labels_that_json_has_not_become_texts():
    totals = np.array([[200, 300], [250, 350]])
    rates = rate_counts("demographic_parity", (0.3 * totals).astype(int), totals)
    labels = [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")]
    certificate = certify(
        rates, labels, constraint="demographic_parity", epsilon=0.1, confidence=0.95
    )
    content = json.loads(json.dumps(certificate.to_dict()))
    assert content["groups"] == ["2020-01-01 00:00:00", "2021-01-01 00:00:00"]
    assert str(FairnessCertificate.from_dict(content)) == str(certificate)


def test_faces():
    y, prediction, group = _rows([(0.3, 0.3)] * 5, [(100, 100)] * 5)
    group = np.array(["<b>", "b", "c", "d", "e\x1b[2J"])[group]
    certificate = fairness_certificate(
        y, prediction, sensitive_features=group, constraint="equalized_odds", epsilon=0.1
    )
    assert repr(certificate) == (
        "FairnessCertificate(equalized_odds within 0.1 at 95 %: not certified)"
    )
    text = " ".join(str(certificate).split())
    assert text.count("positive rate") >= 1
    assert "14 pairs with smaller bounds are left out" in text
    assert "exact" in text
    html = certificate._repr_html_()
    assert "&lt;b&gt;" in html
    for words in (text, html):
        assert "\x1b" not in words
    assert "<b>b" not in html


def test_report_prints_it():
    y, prediction, group = _rows([(0.3, 0.3), (0.3, 0.3)], [(1500, 1500)] * 2)
    certificate = fairness_certificate(y, prediction, sensitive_features=group)
    report = fairness_report(y, prediction, sensitive_features=group, certificate=certificate)
    claim = "Certificate: demographic_parity within 0.05 at 95 %: holds"
    card = report.to_model_card().render()
    for face in (str(report), report._repr_html_(), card.replace("\\_", "_")):
        assert claim in face
        assert "No two groups differ by more than 5 points" in face
    assert report.certificates == {"model": certificate}
    both = {"old": prediction, "new": prediction}
    report = fairness_report(y, both, sensitive_features=group, certificate={"new": certificate})
    assert "Certificate of new: demographic_parity" in str(report)
    assert fairness_report(y, both, sensitive_features=group).certificates == {}
    with pytest.raises(ValueError, match="one certificate and 2 models"):
        fairness_report(y, both, sensitive_features=group, certificate=certificate)
    with pytest.raises(ValueError, match="the model 'newer', expected one of"):
        fairness_report(y, both, sensitive_features=group, certificate={"newer": certificate})
    with pytest.raises(TypeError, match="certificate is a bool"):
        fairness_report(y, prediction, sensitive_features=group, certificate=True)


def _good():
    y, prediction, group = _rows([(0.3, 0.3), (0.3, 0.3)], [(100, 100)] * 2)
    return {"y_true": y, "y_pred": prediction, "sensitive_features": group}


@pytest.mark.parametrize(
    "bad, error, message",
    [
        (
            {"constraint": lambda y, p, sensitive_features: 0.0},
            TypeError,
            "is a function, and there is no test",
        ),
        ({"constraint": "demographic_parity_ratio"}, ValueError, "A ratio cannot be certified"),
        ({"constraint": "parity"}, ValueError, "'parity' is not one of"),
        ({"epsilon": 0.0}, ValueError, "epsilon=0.0 is not between"),
        ({"epsilon": 1}, ValueError, "epsilon=1 is not between"),
        ({"epsilon": np.nan}, ValueError, "epsilon=nan is not between"),
        ({"epsilon": "small"}, TypeError, "epsilon='small' is not a number"),
        ({"epsilon": True}, TypeError, "epsilon=True is not a number"),
        ({"confidence": 95}, ValueError, "confidence=95 is not between"),
        ({"confidence": 0.999999}, ValueError, "more than can be computed"),
        ({"confidence": "auto"}, TypeError, "confidence='auto' is not a number"),
        ({"pos_label": 2}, ValueError, "pos_label=2 does not occur"),
        ({"sensitive_features": ["f"] * 400}, ValueError, "one group, 'f'"),
        ({"sensitive_features": ["f"] * 10}, ValueError, "10 values for 400 samples"),
        ({"sensitive_features": [None] * 400}, ValueError, "missing"),
        ({"y_pred": np.full(400, np.nan)}, ValueError, "y_pred is missing"),
        ({"y_pred": np.full(400, 0.3)}, ValueError, "y_pred"),
        ({"y_pred": np.zeros(3)}, ValueError, "y_pred has 3 values"),
        ({"y_pred": {"model": np.zeros(400)}}, (TypeError, ValueError), "y_pred"),
        ({"y_true": np.full(400, np.nan)}, ValueError, "y_true is missing"),
    ],
)
def test_bad_input(bad, error, message):
    arguments = {**_good(), **bad}
    with pytest.raises(error, match=message):
        fairness_certificate(arguments.pop("y_true"), arguments.pop("y_pred"), **arguments)


def test_a_group_without_a_row_behind_a_rate_is_refused_by_name():
    y, prediction, group = _rows([(0.3, 0.3), (0.3, 0.3)], [(100, 0), (100, 100)])
    for constraint in ("equal_opportunity", "equalized_odds", "average_odds"):
        with pytest.raises(ValueError, match=r"no row behind the .*true positive.* of \[0\]"):
            fairness_certificate(y, prediction, sensitive_features=group, constraint=constraint)
    assert fairness_certificate(y, prediction, sensitive_features=group).pairs.shape == (1, 11)


def test_labels_that_do_not_say_which_is_positive():
    names = np.array(["no", "yes"])
    good = _good()
    y, prediction = names[good["y_true"]], names[good["y_pred"]]
    with pytest.raises(ValueError, match="pos_label='yes'"):
        fairness_certificate(y, prediction, sensitive_features=good["sensitive_features"])
    certificate = fairness_certificate(
        y, prediction, sensitive_features=good["sensitive_features"], pos_label="yes"
    )
    assert certificate.pairs["rate_1"].tolist() == [0.3]
