"""FairnessMonitor: windows, alarms, and what it refuses."""

import datetime

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from skfair.metrics import count_groups, fairness_report
from skfair.monitoring import FairnessMonitor
from skfair.monitoring._alarm import estimate

RULE = "min(accuracy) >= 0.7"
GAP = "difference(selection_rate) <= 0.1"


def _week(n_right, n, group="f"):
    """Labels, predictions and groups of n samples; n_right are predicted correctly."""
    y = np.ones(n, dtype=int)
    return y, np.where(np.arange(n) < n_right, 1, 0), {"sex": [group] * n}


def _update(monitor, n_right, n, window, group="f"):
    y_true, y_pred, sex = _week(n_right, n, group)
    return monitor.update(y_true, y_pred, sensitive_features=sex, window=window)


def _same(first, second):
    for name in ("cells", "size", "weight"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.groups, first.predicted) == (second.groups, second.predicted)


def test_counts_of_a_window_add_up_and_windows_have_an_order():
    monitor = FairnessMonitor(RULE)
    for n_right, n, window, group in (
        (9, 10, "2026-W10", "f"),
        (8, 10, "2026-W9", "m"),
        (1, 2, "2026-W10", "m"),  # late labels
    ):
        _update(monitor, n_right, n, window, group)
    assert monitor.windows == ("2026-W9", "2026-W10")
    table = monitor.by_window()
    assert table.loc[("2026-W10", "f"), ["value", "count"]].tolist() == [0.9, 10]
    assert table.loc[("2026-W10", "m"), ["value", "count"]].tolist() == [0.5, 2]
    assert ("2026-W9", "f") not in table.index
    # Wilson's interval of 9 of 10.
    assert table.loc[("2026-W10", "f"), "low"] == pytest.approx(0.5958, abs=1e-4)


def test_the_report_is_that_of_all_samples():
    rng = np.random.default_rng(0)
    y, pred = rng.integers(2, size=(2, 90))
    sex = rng.choice(["f", "m"], size=90)
    monitor = FairnessMonitor(RULE)
    for week, rows in enumerate(np.split(np.arange(90), 3)):
        monitor.update(y[rows], pred[rows], sensitive_features={"sex": sex[rows]}, window=week)
    whole = fairness_report(y, pred, sensitive_features={"sex": sex})
    pd.testing.assert_frame_equal(monitor.report().by_feature, whole.by_feature)
    last = fairness_report(y[30:], pred[30:], sensitive_features={"sex": sex[30:]})
    pd.testing.assert_frame_equal(monitor.report([1, 2]).disparities, last.disparities)
    assert monitor.counts(2).size.sum() == 30


def test_an_alarm_says_which_group_and_since_when():
    monitor = FairnessMonitor([RULE, GAP])
    raised = []
    for week in range(1, 21):
        _update(monitor, 9, 10, week, "m")
        raised += _update(monitor, 85 if week <= 10 else 50, 100, week, "f")
    (alarm,) = raised
    assert (str(alarm.rule), alarm.groups, alarm.since) == (RULE, ("f",), 11)
    assert 11 < alarm.window <= 14
    assert alarm.estimate == 0.5
    assert alarm.low < 0.5 < alarm.high
    assert alarm.n_samples == (100 * (alarm.window - 10),)
    assert monitor.alarms_ == raised  # one alarm a group, although the violation lasts
    assert "f has 0.5" in str(alarm)


def test_a_difference_names_the_higher_group_first():
    monitor = FairnessMonitor(GAP)
    rng = np.random.default_rng(0)
    sex = np.array(["f", "m", "x"] * 100)
    raised = []
    for week in range(20):
        selected = rng.random(300) < np.where(sex == "m", 0.8, 0.4)
        raised += monitor.update(np.ones(300, bool), selected, sensitive_features=sex, window=week)
    assert {alarm.groups for alarm in raised} == {("m", "f"), ("m", "x")}
    assert all(alarm.low < 0.4 < alarm.high for alarm in raised)


def test_a_ratio_and_an_overall_rule():
    monitor = FairnessMonitor(["ratio(selection_rate) >= 0.8", "overall(accuracy) >= 0.8"])
    rng = np.random.default_rng(0)
    sex = np.array(["f", "m"] * 150)
    raised = []
    for week in range(20):
        selected = rng.random(300) < np.where(sex == "m", 0.8, 0.4)
        raised += monitor.update(np.ones(300, bool), selected, sensitive_features=sex, window=week)
    found = {alarm.rule.statistic: alarm for alarm in raised}
    assert found["ratio"].groups == ("m", "f")
    assert found["ratio"].low < 0.5 < found["ratio"].high
    assert found["overall"].groups == ()
    assert found["overall"].low < found["overall"].estimate < found["overall"].high < 0.8


def test_samples_of_one_group_say_nothing_about_a_difference():
    monitor = FairnessMonitor(GAP)
    for week in range(5):
        assert not _update(monitor, 100, 100, week, "f")
        assert not _update(monitor, 0, 100, week, "m")
    assert "0 pairs of groups" in str(monitor)


def test_a_group_that_appears_later_can_raise_an_alarm():
    monitor = FairnessMonitor(RULE)
    for week in range(5):
        _update(monitor, 90, 100, week, "f")
    assert _update(monitor, 10, 100, 5, "new")[0].groups == ("new",)


def test_models_and_control_levels_are_watched_apart():
    y = np.ones(100, int)
    monitor = FairnessMonitor(RULE)
    (alarm,) = monitor.update(
        y,
        {"old": y, "new": np.where(np.arange(100) < 50, 0, 1)},
        sensitive_features={"sex": ["f"] * 100},
        control_features={"city": ["A"] * 50 + ["B"] * 50},
        window=1,
    )
    assert (alarm.model, alarm.control, alarm.n_samples) == ("new", "A", (50,))
    assert monitor.by_window(model="new")["value"].tolist() == [0.5]
    assert "of new" in str(alarm)
    assert "in A" in str(alarm)


def test_counts_do_the_same_as_samples():
    y, pred, sex = _week(10, 50)
    first, second = FairnessMonitor(RULE), FairnessMonitor(RULE)
    one = first.update(y, pred, sensitive_features=sex, window=1)
    other = second.add(count_groups(y, pred, sensitive_features=sex), window=1)
    assert one == other
    _same(first.counts(), second.counts())


def test_a_window_without_positives_is_no_error():
    monitor = FairnessMonitor("max(false_positive_rate) <= 0.1", pos_label="yes")
    sex = ["f"] * 4
    monitor.update(["no"] * 4, ["no"] * 4, sensitive_features=sex, window=1)
    monitor.update(["no"] * 4, ["no", "no", "no", "yes"], sensitive_features=sex, window=2)
    assert monitor.by_window()["value"].tolist() == [0, 0.25]


def test_one_of_three_classes_is_positive():
    monitor = FairnessMonitor("max(selection_rate) <= 0.5", pos_label="b")
    monitor.update(["a", "b", "c", "a"], list("bbca"), sensitive_features=[7, 7, 7, 8], window=0.5)
    assert monitor.by_window()["value"].tolist() == [2 / 3, 0]


@pytest.mark.parametrize(
    ("window", "name"),
    [
        (datetime.date(2026, 11, 28), "2026-11-28"),
        (datetime.datetime(2026, 11, 28), "2026-11-28"),
        (pd.Timestamp("2026-11-28 10:00"), "2026-11-28T10:00:00"),
        (np.datetime64("2026-11-28"), "2026-11-28"),
        (pd.Period("2026-11", "M"), "2026-11"),
        (np.str_("März"), "März"),
        (np.int32(3), 3),
    ],
)
def test_names_of_windows(window, name):
    monitor = FairnessMonitor(RULE)
    _update(monitor, 1, 1, window)
    assert monitor.windows == (name,)


@pytest.mark.parametrize("window", [None, True, ["a"], b"a", pd.NaT, 1j])
def test_what_is_no_name_of_a_window(window):
    with pytest.raises(TypeError, match=r"window is .*Give text such as '2026-W48'"):
        _update(FairnessMonitor(RULE), 1, 1, window)


@pytest.mark.parametrize("window", ["", " ", "a" * 201, float("nan"), float("inf"), 2**60])
def test_bad_names_of_windows(window):
    with pytest.raises(ValueError, match=r"window .*Give text such as '2026-W48'"):
        _update(FairnessMonitor(RULE), 1, 1, window)


def test_windows_of_two_kinds_have_no_order():
    monitor = FairnessMonitor(RULE)
    _update(monitor, 1, 1, "2026-W01")
    with pytest.raises(TypeError, match=r"window=2, but earlier windows are '2026-W01'"):
        _update(monitor, 1, 1, 2)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("min(acuracy) >= 0.7", "accuracy"),
        ("min(f1) >= 0.7", "'f1' cannot be monitored"),
        ("change(accuracy) >= -0.02", "difference, ratio, min, max and overall, not 'change'"),
        ("ratio(accuracy) >= 0", "limit 0,.*from 0.01 to 1"),
        ("min(balanced_accuracy) >= 0.7", "share of samples"),
        ("min(accuracy) >= 1", "limit 1,.*from 1e-09 to 0.999999999"),
        ("max(accuracy) <= 0", "limit 0,.*from 1e-09 to 0.999999999"),
        ([], "0 rules"),
        (3, "a int"),
        ([RULE, RULE], "twice"),
    ],
)
def test_rules_that_cannot_be_monitored(rules, words):
    with pytest.raises(ValueError, match=words):
        FairnessMonitor(rules)


@pytest.mark.parametrize("confidence", [0, 1, 95, True, "0.95", float("nan")])
def test_bad_confidence(confidence):
    with pytest.raises(ValueError, match=r"confidence=.*such as 0\.95"):
        FairnessMonitor(RULE, confidence=confidence)


def _bad_updates():
    y, pred, sex = _week(3, 4)
    counts = count_groups(y, pred, sensitive_features=sex)
    other = count_groups(y, pred, sensitive_features={"age": ["f"] * 4})
    models = count_groups(y, {"new": pred}, sensitive_features=sex)
    weights = count_groups(y, pred, sensitive_features=sex, sample_weight=[1, 2, 1, 1])
    zero = count_groups(
        [0, 1], [0, 1], sensitive_features={"sex": ["f", "m"]}, sample_weight=[0, 1]
    )
    labels = count_groups([2, 1], [2, 1], sensitive_features={"sex": ["f", "m"]})
    return [
        (other, "group_names"),
        (models, "models"),
        (weights, "no alarm is valid for weighted samples"),
        (zero, "no alarm is valid for weighted samples"),
        (labels, "pos_label"),
        (counts.cells, "is a ndarray; give what count_groups returns"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_after_an_error_the_monitor_is_as_before(number, tmp_path):
    counts, words = _bad_updates()[number]
    monitor = FairnessMonitor([RULE, GAP])
    _update(monitor, 3, 4, 1)
    before = monitor.save(tmp_path / "before.json").read_bytes()
    with pytest.raises((TypeError, ValueError), match=words):
        monitor.add(counts, window=2)
    assert monitor.save(tmp_path / "after.json").read_bytes() == before


def test_an_empty_window():
    with pytest.raises(ValueError, match="empty"):
        FairnessMonitor(RULE).update([], [], sensitive_features=[], window=1)


def test_a_misspelt_positive_label():
    monitor = FairnessMonitor(GAP, pos_label="Yes")
    with pytest.raises(ValueError, match="pos_label='Yes' does not occur"):
        monitor.update(["yes", "no"], ["no", "no"], sensitive_features=["f", "m"], window=1)


def test_too_many_pairs_of_groups():
    groups = [f"g{i}" for i in range(150)]
    with pytest.raises(ValueError, match=r"more than 20,000 pairs of groups"):
        FairnessMonitor(GAP).update([1] * 150, [1] * 150, sensitive_features=groups, window=1)


def test_unknown_windows_models_and_metrics():
    monitor = FairnessMonitor(RULE)
    with pytest.raises(ValueError, match="no windows"):
        monitor.report()
    _update(monitor, 1, 1, 1)
    with pytest.raises(ValueError, match=r"windows has 7.*\[1\]"):
        monitor.report([7])
    with pytest.raises(ValueError, match="model='new'"):
        monitor.by_window(model="new")
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        monitor.by_window("acuracy")


def test_by_window_is_the_metric_of_scikit_learn():
    rng = np.random.default_rng(1)
    y, pred = rng.integers(3, size=(2, 40))
    monitor = FairnessMonitor(RULE)
    monitor.update(y, pred, sensitive_features=["f"] * 40, window=1)
    assert monitor.by_window()["value"].tolist() == [accuracy_score(y, pred)]


@pytest.mark.parametrize(
    ("statistic", "hits", "size", "low", "high"),
    [
        # Newcombe (1998), table II, examples (a) and (c), method 10.
        ("difference", [56, 48], [70, 80], 0.0524, 0.3339),
        ("difference", [6, 2], [7, 7], 0.0582, 0.8062),
        # Wilson's interval of 81 of 263 in Newcombe's other paper of 1998.
        ("min", [81], [263], 0.2553, 0.3662),
    ],
)
def test_intervals_are_the_published_ones(statistic, hits, size, low, high):
    found = estimate(statistic, hits, size)
    assert found[1:] == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.4), (0.9, 0.2)])
def test_the_interval_of_a_ratio_has_its_level(first, second):
    rng = np.random.default_rng(0)
    draws = rng.binomial(200, [first, second], size=(2000, 2))
    ends = np.array([estimate("ratio", list(k), [200, 200])[1:] for k in draws])
    covered = (ends[:, 0] <= second / first) & (second / first <= ends[:, 1])
    assert covered.mean() == pytest.approx(0.95, abs=0.02)


def test_ratios_without_hits():
    assert estimate("ratio", [10, 0], [10, 10])[:2] == (0, 0)
    assert estimate("ratio", [0, 0], [10, 10])[2] == float("inf")
