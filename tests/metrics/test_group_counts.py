"""The count kernel against a slow count by hand and against fairlearn's MetricFrame."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    false_negative_rate,
    false_positive_rate,
    true_negative_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from skfair.metrics import (
    _counts,
    average_group_accuracy_score,
    count_groups,
    fairness_report,
    worst_group_accuracy_score,
)

LABELS = {
    "integers": [0, 1, 2],
    "strings": ["cat", "dog", "eel"],
    "booleans": [False, True],
}


@st.composite
def problems(draw):
    """Labels, predictions, one to three sensitive columns (rare groups) and weights."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.array(draw(st.sampled_from(list(LABELS.values()))))
    y = rng.choice(labels, n)
    prediction = rng.choice(labels, n)
    columns = {}
    for i in range(draw(st.integers(1, 3))):
        shares = rng.dirichlet(np.full(draw(st.integers(1, 4)), 0.5))
        codes = rng.choice(len(shares), n, p=shares)
        columns[f"c{i}"] = np.array(["w", "x", "y", "z"])[codes] if i % 2 else codes
    weight = rng.random(n) + 1e-3 if draw(st.booleans()) else None
    return y, prediction, columns, weight


@settings(deadline=None, max_examples=60)
@given(problems())
def test_equal_to_metric_frame(problem):
    y, prediction, columns, weight = problem
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=y,
        y_pred=prediction,
        sensitive_features={"class": y, **columns},
        sample_params=None if weight is None else {"sample_weight": weight},
    )
    expected = frame.by_group.dropna().astype(float)
    arguments = {"sensitive_features": columns, "sample_weight": weight}

    counts = count_groups(y, prediction, **arguments)
    accuracy = counts.accuracy()
    found = {}
    for g, group in enumerate(counts.groups):
        for c, label in enumerate(counts.classes):
            if not np.isnan(accuracy[g, c]):
                parts = group if len(columns) > 1 else (group,)
                found[(label, *parts)] = accuracy[g, c]
    assert set(found) == set(expected.index)
    for key, value in found.items():
        assert value == pytest.approx(expected[key], abs=1e-12)
    assert worst_group_accuracy_score(y, prediction, **arguments) == pytest.approx(
        expected.min(), abs=1e-12
    )
    assert average_group_accuracy_score(y, prediction, **arguments) == pytest.approx(
        expected.mean(), abs=1e-12
    )
    assert counts.correct().sum() / counts.table().sum() == pytest.approx(frame.overall, abs=1e-12)


def test_table_counted_by_hand():
    y = ["a", "a", "b", "b", "b"]
    prediction = ["a", "b", "b", "other", "a"]
    counts = count_groups(y, prediction, sensitive_features=[1, 1, 1, 0, 0])
    assert counts.groups == (0, 1)
    assert counts.classes == ("a", "b")
    assert counts.predicted == ("a", "b", "other")
    expected = [
        [[0, 0, 0], [1, 0, 1]],  # group 0: no a; two b, taken for a and for something else
        [[1, 1, 0], [0, 1, 0]],
    ]
    np.testing.assert_array_equal(counts.table(), expected)
    np.testing.assert_array_equal(counts.totals(), [[0, 2], [2, 1]])
    np.testing.assert_array_equal(counts.correct(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(counts.accuracy(), [[np.nan, 0], [0.5, 1]])


def test_weights_add_up_and_zero_removes_a_group():
    y, group, weight = [0, 0, 0, 1], ["f", "f", "m", "m"], [1, 3, 0, 2]
    counts = count_groups(y, [0, 1, 1, 1], sensitive_features=group, sample_weight=weight)
    np.testing.assert_array_equal(counts.totals(), [[4, 0], [0, 2]])
    arguments = {"sensitive_features": group, "sample_weight": weight}
    assert worst_group_accuracy_score(y, [0, 1, 1, 1], **arguments) == 0.25
    assert average_group_accuracy_score(y, [0, 1, 1, 1], **arguments) == 0.625


def test_groups_are_class_by_feature():
    # Both colours have accuracy 1/2, but one kind of red and one of blue is always wrong.
    y, color = [0, 1, 0, 1], ["red", "red", "blue", "blue"]
    assert worst_group_accuracy_score(y, [0, 0, 1, 1], sensitive_features=color) == 0
    assert average_group_accuracy_score(y, [0, 0, 1, 1], sensitive_features=color) == 0.5


def test_one_group_one_class():
    assert worst_group_accuracy_score([1, 1], [1, 0], sensitive_features=["f", "f"]) == 0.5


def test_predicted_labels_of_another_number_type_match():
    y = pd.Series([0, 1, 1], index=[5, 5, 2])
    assert worst_group_accuracy_score(y, [0.0, 1.0, 1.0], sensitive_features=[0, 0, 0]) == 1


def test_missing_groups_can_be_a_group():
    counts = count_groups([0, 0], [0, 1], sensitive_features=["f", None], missing="group")
    assert counts.groups == ("f", "missing")
    np.testing.assert_array_equal(counts.accuracy(), [[1], [0]])


@pytest.mark.parametrize("score", [worst_group_accuracy_score, average_group_accuracy_score])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"y_pred": [0, 1]}, ValueError, "y_pred has 2 values, y_true has 3"),
        ({"sensitive_features": ["f"]}, ValueError, "sensitive_features has 1 values for 3"),
        ({"y_true": [0, np.nan, 1]}, ValueError, r"y_true is missing .*1 of 3 samples \(rows 1\)"),
        ({"y_pred": [0, None, 1]}, ValueError, "y_pred is missing"),
        ({"y_true": [0.2, 0.4, 1]}, ValueError, "y_true holds continuous.*classification"),
        ({"y_pred": [0.2, 0.4, 1]}, ValueError, "y_pred holds continuous.*not probabilities"),
        ({"y_pred": [[0.2, 0.8]] * 3}, TypeError, "y_pred"),
        ({"y_pred": np.ones((3, 2))}, ValueError, r"y_pred has shape \(3, 2\)"),
        ({"y_pred": ["0", "1", "1"]}, TypeError, "text on one side only"),
        ({"y_true": ["0", "1", "1"]}, TypeError, "text on one side only"),
        ({"y_true": []}, ValueError, "y_true is empty"),
        ({"sensitive_features": [None] * 3}, ValueError, "missing for 3 of 3"),
        ({"sensitive_features": None}, ValueError, "sensitive_features is None"),
        ({"sample_weight": [1, 2]}, ValueError, r"sample_weight has shape \(2,\)"),
        ({"sample_weight": [1, -1, 1]}, ValueError, r"sample_weight is negative.*rows 1"),
        ({"sample_weight": [1, np.nan, 1]}, ValueError, "not finite"),
        ({"sample_weight": [0, 0, 0]}, ValueError, "zero for all samples"),
    ],
    ids=str,
)
def test_bad_input(score, change, error, message):
    arguments = {"y_true": [0, 1, 1], "y_pred": [0, 1, 0], "sensitive_features": ["f", "m", "m"]}
    with pytest.raises(error, match=message):
        score(**arguments | change)


def test_counts_add_up_with_sum_and_with_nothing_else():
    parts = [count_groups([0, 1], [0, i], sensitive_features={"sex": ["f", "m"]}) for i in range(3)]
    total = sum(parts)
    assert total.size.sum() == 6
    assert total.predicted == (0, 1, 2)
    np.testing.assert_array_equal(total.accuracy(), [[1, np.nan], [np.nan, 1 / 3]])
    for other in (1, "counts", None):
        with pytest.raises(TypeError):
            other + parts[0]
        with pytest.raises(TypeError):
            parts[0] + other
    with pytest.raises(ValueError, match=r"models .*a.* cannot be added to counts with models"):
        count_groups([0], {"a": [0]}, sensitive_features=[0]) + count_groups(
            [0], {"b": [0]}, sensitive_features=[0]
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_of_more_samples_than_are_sorted_at_once(weighted):
    n = 270_000
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(3, size=n) for name in ("group", "y", "predicted")}
    frame = pd.DataFrame({**columns, "weight": rng.integers(1, 4, n) / 2 if weighted else 1.0})
    counts = count_groups(
        frame["y"],
        frame["predicted"],
        sensitive_features=frame["group"],
        sample_weight=frame["weight"] if weighted else None,
    )
    wanted = frame.groupby(list(frame), as_index=False).size()
    np.testing.assert_array_equal(counts.cells[:, 1:], wanted[["group", "y", "predicted"]])
    np.testing.assert_array_equal(counts.size, wanted["size"])
    np.testing.assert_array_equal(counts.weight, wanted["weight"])


def test_rates_of_nobody_are_zero_and_of_nothing_undefined_under_any_weights():
    # A difference of sums of weights is seldom zero to the last digit, and must not be taken.
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 0, 1], 6)
    prediction = np.array([1] * 6 + [0, 1] * 3 + [0, 1] * 3 + [1] * 6)
    groups = np.repeat(["no true negatives", "no false negatives"], 12)
    rates = [true_positive_rate, false_positive_rate, true_negative_rate, false_negative_rate]

    def rate(report, name, group):
        return report.by_feature["model", "value"][name, group]

    for _ in range(50):
        arguments = {"sample_weight": rng.random(24), "n_boot": 0, "metrics": rates}
        report = fairness_report(y, prediction, sensitive_features={"g": groups}, **arguments)
        assert rate(report, "true_negative_rate", "no true negatives") == 0
        assert rate(report, "false_positive_rate", "no true negatives") == 1
        assert rate(report, "false_negative_rate", "no false negatives") == 0
        assert rate(report, "true_positive_rate", "no false negatives") == 1
        report = fairness_report(y, prediction, sensitive_features={"g": y}, **arguments)
        assert np.isnan(rate(report, "true_positive_rate", 0))
        assert np.isnan(rate(report, "false_positive_rate", 1))
        assert np.isnan(rate(report, "true_negative_rate", 1))
        assert np.isnan(rate(report, "false_negative_rate", 0))


@pytest.mark.parametrize("highest", [3, 10**6])
@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.5, 2.0]])
def test_equal_rows_are_merged_whatever_their_codes(highest, weights):
    rng = np.random.default_rng(0)
    cells = rng.integers(highest, size=(40, 3)).repeat(2, axis=0)
    size, weight = rng.integers(1, 9, size=80), rng.choice(weights, size=40).repeat(2)
    expected = Counter()
    for row, times, counts in zip(cells.tolist(), size.tolist(), weight.tolist(), strict=True):
        if counts > 0:
            expected[*row, counts] += times
    merged, total, left = _counts._gather(cells, size, weight)
    found = {(*row, w): n for row, n, w in zip(merged.tolist(), total.tolist(), left, strict=True)}
    assert found == expected
    assert list(found) == sorted(found)


def test_samples_of_few_cells_are_counted_without_sorting_them(monkeypatch):
    cells = np.random.default_rng(0).integers(4, size=(1000, 4))
    ones, unique, n_sorted = np.ones(1000), np.unique, []
    monkeypatch.setattr(np, "unique", lambda x, **kw: n_sorted.append(len(x)) or unique(x, **kw))
    merged, total, _ = _counts._gather(cells, ones.astype(int), ones)
    assert sum(n_sorted) == 0
    assert total.sum() == 1000
    assert len(merged) == len({tuple(row) for row in cells.tolist()})
