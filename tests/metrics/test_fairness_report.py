"""The report: its numbers against fairlearn, scipy and counting by hand, and its faces."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from skfair.metrics import (
    FairnessReport,
    average_group_accuracy_score,
    fairness_report,
    worst_group_accuracy_score,
)
from skfair.metrics._report import wilson_interval


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    n = 300
    y = rng.choice(["cat", "dog"], n)
    features = pd.DataFrame({"fur": rng.choice(["black", "white"], n), "old": rng.random(n) < 0.2})
    plain = np.where(features["fur"] == "black", "cat", y)
    robust = np.where(rng.random(n) < 0.9, y, "dog")
    return y, {"plain": plain, "robust": robust}, features


def test_table_of_one_model_by_hand():
    report = fairness_report([0, 0, 0, 1], [0, 1, 0, 1], sensitive_features=["f", "f", "m", "m"])
    assert isinstance(report, FairnessReport)
    table = report.by_group
    assert table.index.tolist() == [(0, "f"), (0, "m"), (1, "m")]
    assert table.index.names == ["class", "sensitive_feature_0"]
    assert table["", "count"].tolist() == [2, 1, 1]
    assert table["model", "accuracy"].tolist() == [0.5, 1, 1]
    assert report.summary["model"].to_dict() == {
        "overall_accuracy": 0.75,
        "worst_group_accuracy": 0.5,
        "average_group_accuracy": pytest.approx(2.5 / 3),
    }
    assert report.feature_frames == {}


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_metric_frame(data, weighted):
    y, predictions, features = data
    weight = np.random.default_rng(1).random(len(y)) if weighted else None
    report = fairness_report(y, predictions, sensitive_features=features, sample_weight=weight)
    for model, prediction in predictions.items():
        expected = MetricFrame(
            metrics=accuracy_score,
            y_true=y,
            y_pred=prediction,
            sensitive_features=features.assign(label=y)[["label", "fur", "old"]],
            sample_params={"sample_weight": weight} if weighted else None,
        )
        for by_group in (
            report.by_group[model, "accuracy"],
            report.metric_frames[model].by_group["accuracy"],
        ):
            np.testing.assert_allclose(by_group, expected.by_group.astype(float), atol=1e-12)
        assert report.metric_frames[model].overall["accuracy"] == pytest.approx(expected.overall)
        summary = report.summary[model]
        assert summary["overall_accuracy"] == pytest.approx(expected.overall, abs=1e-12)
        arguments = {"sensitive_features": features, "sample_weight": weight}
        assert summary["worst_group_accuracy"] == worst_group_accuracy_score(
            y, prediction, **arguments
        )
        assert summary["average_group_accuracy"] == pytest.approx(
            average_group_accuracy_score(y, prediction, **arguments), abs=1e-12
        )
    counts = report.metric_frames["plain"].by_group["count"]
    assert counts.tolist() == report.by_group["", "count"].tolist()


def test_wilson_interval_equals_scipys():
    right, total = np.array([0, 1, 7, 10, 250]), np.array([10, 1, 9, 10, 1000])
    low, high = wilson_interval(right / total, total)
    for i in range(len(total)):
        expected = binomtest(int(right[i]), int(total[i])).proportion_ci(0.95, "wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_equal_weights_leave_the_interval_alone(data):
    y, predictions, features = data
    plain = fairness_report(y, predictions, sensitive_features=features)
    weighted = fairness_report(
        y, predictions, sensitive_features=features, sample_weight=np.full(len(y), 3.0)
    )
    pd.testing.assert_frame_equal(plain.by_group, weighted.by_group)


def test_samples_of_weight_zero_are_as_if_absent(data):
    y, predictions, features = data
    kept = np.random.default_rng(2).random(len(y)) < 0.5
    kept &= ~((y == "dog") & (features["fur"] == "white") & features["old"]).to_numpy()
    report = fairness_report(
        y, predictions, sensitive_features=features, sample_weight=kept.astype(float)
    )
    expected = fairness_report(
        y[kept],
        {model: prediction[kept] for model, prediction in predictions.items()},
        sensitive_features=features[kept],
    )
    assert len(report.by_group) == 7
    pd.testing.assert_frame_equal(report.by_group, expected.by_group)
    pd.testing.assert_frame_equal(report.summary, expected.summary)


def test_change_and_levelling_down():
    y, color = [0, 0, 0, 0, 1, 1], ["r", "r", "b", "b", "r", "b"]
    report = fairness_report(
        y,
        {"plain": [0, 0, 1, 1, 1, 1], "robust": [0, 1, 0, 0, 1, 1]},
        sensitive_features=pd.Series(color, name="color"),
    )
    assert report.by_group["robust", "change"].to_dict() == {
        (0, "b"): 1.0,
        (0, "r"): -0.5,
        (1, "b"): 0.0,
        (1, "r"): 0.0,
    }
    assert "change" not in report.by_group["plain"]
    text = str(report)
    assert "robust against plain: 1 group gained, 1 lost (levelled down: 0, r -50.0)." in text


def test_text(data):
    y, predictions, features = data
    text = str(fairness_report(y, predictions, sensitive_features=features))
    assert "300 samples, 8 groups (class x fur x old), 2 models" in text
    count = ((y == "cat") & (features["fur"] == "black") & ~features["old"]).sum()
    row = next(line for line in text.splitlines() if line.startswith("cat   black False"))
    assert row.split()[3:5] == [str(count), "100.0"]
    worst = next(line for line in text.splitlines() if line.startswith("worst group accuracy"))
    assert worst.split()[3] == "0.0"
    assert "levelled down" in text


class Tags(HTMLParser):
    """Fails on tags that do not match; keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_well_formed_and_escaped(data):
    y, predictions, features = data
    page = fairness_report(
        y,
        {"<b>": predictions["plain"], "a&b": predictions["robust"]},
        sensitive_features=features.rename(columns={"fur": "<script>"}),
    )._repr_html_()
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert "<script>" not in page
    assert "<script>" in parser.text


def test_to_frame_is_a_copy(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features)
    table = report.to_frame()
    table.loc[:, ("", "count")] = 0
    assert (report.by_group["", "count"] > 0).all()


def test_metrics_by_feature():
    y, prediction, group = [0, 1, 0, 1, 1], [0, 1, 1, 1, 0], list("aabbb")
    metrics = {"selected": selection_rate, "recall": recall_score}
    report = fairness_report(y, prediction, sensitive_features=group, metrics=metrics)
    table = report.feature_frames["model"].by_group
    assert table.loc["a"].tolist() == [0.5, 1.0]
    assert table.loc["b"].tolist() == [pytest.approx(2 / 3), 0.5]
    assert "selected" in str(report)
    assert "0.667" in str(report)


def test_metrics_get_the_labels_and_the_weights(data):
    y, predictions, features = data
    weight = np.random.default_rng(3).random(len(y))

    def precision(y_true, y_pred, sample_weight):
        return precision_score(y_true, y_pred, pos_label="dog", sample_weight=sample_weight)

    def size(y_true, y_pred):
        return len(y_true)

    report = fairness_report(
        y,
        {"robust": predictions["robust"]},
        sensitive_features=features["fur"],
        metrics={"precision": precision, "size": size},
        sample_weight=weight,
    )
    black = (features["fur"] == "black").to_numpy()
    row = report.feature_frames["robust"].by_group.loc["black"]
    assert row["precision"] == pytest.approx(
        precision(y[black], predictions["robust"][black], weight[black])
    )
    assert row["size"] == black.sum()


def test_mixed_labels_and_missing_groups():
    report = fairness_report(
        [0, 0, 1],
        [0, 1, 1],
        sensitive_features={"old": [1, None, 1], "sex": ["f", "f", "f"]},
        missing="group",
    )
    assert report.by_group.index.tolist() == [(0, 1, "f"), (0, "missing", "f"), (1, 1, "f")]
    frame = report.metric_frames["model"].by_group
    assert frame.loc[(0, "missing", "f"), "accuracy"] == 0


def test_a_feature_called_class():
    report = fairness_report([0, 1], [0, 1], sensitive_features={"class": ["a", "b"]})
    assert report.by_group.index.names == ["true class", "class"]


def test_unknown_labels_count_as_wrong():
    report = fairness_report(["a", "b"], ["a", "z"], sensitive_features=[0, 0])
    assert report.by_group["model", "accuracy"].tolist() == [1, 0]


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"predictions": {}}, ValueError, "predictions is empty"),
        ({"predictions": [0]}, ValueError, "predictions has 1 values, y_true has 2"),
        (
            {"predictions": {"a": [0, 1], "b": [0]}},
            ValueError,
            r"predictions\['b'\] has 1 values, y_true has 2",
        ),
        ({"sensitive_features": [1]}, ValueError, "sensitive_features has 1 values"),
        ({"sensitive_features": [0.1, 0.2]}, ValueError, "pandas.cut"),
        ({"sensitive_features": [None, None]}, ValueError, "2 of 2 samples"),
        ({"y_true": [0, None]}, ValueError, "y_true is missing"),
        ({"y_true": [], "predictions": []}, ValueError, "y_true is empty"),
        ({"sensitive_features": {"y_pred": [1, 2]}}, ValueError, "Rename the column"),
        ({"metrics": {"m": 3}}, TypeError, r"metrics\['m'\] is a int"),
    ],
    ids=str,
)
def test_bad_input(change, error, message):
    arguments = {"y_true": [0, 1], "predictions": [0, 1], "sensitive_features": ["f", "m"]}
    with pytest.raises(error, match=message):
        fairness_report(**arguments | change)


def test_arguments_of_the_wrong_kind_are_refused():
    groups = ["a", "b"]
    with pytest.raises(TypeError, match=r"metrics is a list; give a dict"):
        fairness_report([0, 1], [0, 1], sensitive_features=groups, metrics=[max])
    with pytest.raises(ValueError, match=r"missing='keep' is neither 'error' nor 'group'"):
        fairness_report([0, 1], [0, 1], sensitive_features=groups, missing="keep")
