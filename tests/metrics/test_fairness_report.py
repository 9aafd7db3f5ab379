"""The report: its numbers against fairlearn, scipy and counting by hand; bad input."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from skfair.metrics import (
    FairnessReport,
    average_group_accuracy_score,
    count_groups,
    fairness_report,
    worst_group_accuracy_score,
)
from skfair.metrics._intervals import wilson_interval


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
        by_group = report.by_group[model, "accuracy"]
        np.testing.assert_allclose(by_group, expected.by_group.astype(float), atol=1e-12)
        summary = report.summary[model]
        assert summary["overall_accuracy"] == pytest.approx(expected.overall, abs=1e-12)
        arguments = {"sensitive_features": features, "sample_weight": weight}
        assert summary["worst_group_accuracy"] == worst_group_accuracy_score(
            y, prediction, **arguments
        )
        assert summary["average_group_accuracy"] == pytest.approx(
            average_group_accuracy_score(y, prediction, **arguments), abs=1e-12
        )
    counts = pd.crosstab([y, features["fur"]], features["old"]).stack()
    assert counts.tolist() == report.by_group["", "count"].tolist()


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
    for table in ("by_group", "summary", "by_feature", "disparities"):
        pd.testing.assert_frame_equal(getattr(report, table), getattr(expected, table))


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


def test_to_frame_is_a_copy(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features)
    table = report.to_frame()
    table.loc[:, ("", "count")] = 0
    assert (report.by_group["", "count"] > 0).all()


def test_metrics_by_feature_and_disparities_by_hand():
    y, prediction, group = [0, 1, 0, 1, 1], [0, 1, 1, 1, 0], list("aabbb")
    metrics = {"selected": selection_rate, "recall": recall_score}
    report = fairness_report(
        y, prediction, sensitive_features=pd.Series(group, name="sex"), metrics=metrics
    )
    assert report.by_feature.index.names == ["metric", "sex"]
    assert report.by_feature["", "count"].tolist() == [2, 3, 2, 3]
    third = 1 / 3
    value = report.by_feature["model", "value"]
    assert value.to_dict() == {
        ("selected", "a"): 0.5,
        ("selected", "b"): pytest.approx(2 * third),
        ("recall", "a"): 1.0,
        ("recall", "b"): 0.5,
    }
    low, high = binomtest(2, 3).proportion_ci(0.95, "wilson")
    row = report.by_feature.loc[("selected", "b"), "model"]
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)
    assert report.disparities.index.names == ["metric", "statistic"]
    assert report.disparities["model", "value"].to_dict() == {
        ("selected", "overall"): pytest.approx(0.6),
        ("selected", "difference"): pytest.approx(third / 2),
        ("selected", "ratio"): pytest.approx(0.75),
        ("recall", "overall"): pytest.approx(2 * third),
        ("recall", "difference"): 0.5,
        ("recall", "ratio"): 0.5,
    }
    low, high = binomtest(2, 3).proportion_ci(0.95, "wilson")  # two of three positives
    row = report.disparities.loc[("recall", "overall"), "model"]
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)


def test_columns_of_several_models(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features, pos_label="dog")
    values = [(model, part) for model in predictions for part in ("value", "low", "high")]
    values += [("robust", part) for part in ("change", "change_low", "change_high")]
    assert report.by_feature.columns.tolist() == [("", "count"), *values]
    assert report.disparities.columns.tolist() == values
    assert report.by_group["robust"].columns.tolist() == [
        "accuracy",
        "low",
        "high",
        "change",
        "change_low",
        "change_high",
        "change_p",
    ]
    for table in (report.by_feature, report.disparities):
        change = table["robust", "value"] - table["plain", "value"]
        pd.testing.assert_series_equal(
            table["robust", "change"], change, check_names=False, rtol=0, atol=1e-15
        )
        changes = table["robust"][["change_low", "change", "change_high"]].dropna()
        assert len(changes) > 8
        assert changes["change_low"].le(changes["change_high"]).all()


def test_control_features_cut_up_the_metrics_only(data):
    y, predictions, features = data
    region = np.random.default_rng(4).choice(["north", "south"], len(y))
    plain = fairness_report(y, predictions, sensitive_features=features["fur"])
    report = fairness_report(
        y, predictions, sensitive_features=features["fur"], control_features={"region": region}
    )
    pd.testing.assert_frame_equal(
        report.by_group.drop(columns=[("robust", "change_low"), ("robust", "change_high")]),
        plain.by_group.drop(columns=[("robust", "change_low"), ("robust", "change_high")]),
    )
    pd.testing.assert_frame_equal(report.summary, plain.summary)
    north = fairness_report(
        y[region == "north"],
        {model: p[region == "north"] for model, p in predictions.items()},
        sensitive_features=features["fur"][region == "north"],
    )
    assert report.by_feature.index.names == ["metric", "region", "fur"]
    assert report.disparities.index.names == ["metric", "region", "statistic"]
    for name in ("by_feature", "disparities"):
        within = getattr(report, name).xs("north", level="region")
        for column in ("value", "change"):
            pd.testing.assert_series_equal(
                within["robust", column], getattr(north, name)["robust", column]
            )


def test_default_metrics_are_rates_where_the_positive_class_is_clear():
    rates = ["selection_rate", "true_positive_rate", "false_positive_rate"]
    for labels in ([0, 1], [-1, 1], [False, True], [0.0, 1.0]):
        report = fairness_report(labels, labels, sensitive_features=["f", "f"])
        assert report.by_feature.index.unique("metric").tolist() == ["accuracy", *rates]
    for labels in (["a", "b"], [1, 2], [0, 1, 2]):
        report = fairness_report(labels, labels, sensitive_features=["f"] * len(labels))
        assert report.by_feature.index.unique("metric").tolist() == ["accuracy"]
    report = fairness_report([1, 2], [2, 2], sensitive_features=["f", "f"], pos_label=2)
    assert report.by_feature["model", "value"].tolist() == [0.5, 1, 1, 1]


def test_undefined_is_nan_and_left_out():
    y, prediction = [0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1]
    report = fairness_report(
        y, prediction, sensitive_features=list("aabbcc"), metrics=[true_positive_rate]
    )
    value = report.by_feature["model", "value"]
    assert np.isnan(value.iloc[0])
    assert value.iloc[1:].tolist() == [0.5, 1.0]
    assert report.by_feature.iloc[0]["model"].isna().all()
    difference = report.disparities.loc[("true_positive_rate", "difference"), "model"]
    assert difference["value"] == 0.5  # to the group without positives it would be 1
    text = " ".join(str(report).split())
    assert "Undefined, so left out of differences and ratios: true positive rate in a." in text


def test_one_group_has_nothing_to_compare():
    report = fairness_report([0, 1, 1], [0, 1, 0], sensitive_features=["f", "f", "f"])
    statistics = report.disparities["model", "value"].unstack("statistic")
    assert statistics["overall"].notna().all()
    assert statistics[["difference", "ratio"]].isna().all(axis=None)
    assert "Only one group, so there is nothing to compare." in str(report)


def test_one_group_in_a_control_level():
    report = fairness_report(
        [0, 1, 1],
        [0, 1, 0],
        sensitive_features=["f", "m", "f"],
        control_features=["n", "n", "s"],
        metrics=[accuracy_score],
    )
    values = report.disparities["model", "value"].loc["accuracy_score"]
    names = ["metric", "control_feature_0", "sensitive_feature_0"]  # as fairlearn calls them
    assert report.by_feature.index.names == names
    assert values[("n", "difference")] == 0
    assert np.isnan(values[("s", "difference")])
    assert "nothing to compare, in: s." in str(report)


def test_functions_get_labels_weights_and_the_positive_class(data):
    y, predictions, features = data
    weight = np.random.default_rng(3).random(len(y))

    def precision(y_true, y_pred, pos_label, sample_weight):
        return precision_score(y_true, y_pred, pos_label=pos_label, sample_weight=sample_weight)

    def size(y_true, y_pred):
        return len(y_true)

    report = fairness_report(
        y,
        {"robust": predictions["robust"]},
        sensitive_features=features["fur"],
        metrics={
            "precision": precision,
            "size": size,
            "macro": partial(f1_score, average="macro"),
            "cat": partial(f1_score, pos_label="cat"),
        },
        sample_weight=weight,
        pos_label="dog",
    )
    black = (features["fur"] == "black").to_numpy()
    truth, guess, w = y[black], predictions["robust"][black], weight[black]
    value = report.by_feature["robust", "value"].xs("black", level="fur")
    assert value["precision"] == pytest.approx(precision(truth, guess, "dog", w))
    assert value["size"] == black.sum()
    assert value["macro"] == pytest.approx(f1_score(truth, guess, average="macro", sample_weight=w))
    assert value["cat"] == pytest.approx(f1_score(truth, guess, pos_label="cat", sample_weight=w))


def test_function_may_be_nan_for_a_group():
    def rare(y_true, y_pred):
        return np.nan if len(y_true) < 2 else np.float32(0.5)

    report = fairness_report(
        [0, 1, 1], [0, 1, 0], sensitive_features=["f", "m", "m"], metrics=[rare]
    )
    values = report.by_feature["model", "value"].loc["rare"]
    assert np.isnan(values["f"])
    assert values["m"] == 0.5
    assert "rare in f" in str(report)


def test_wilson_under_weights_uses_the_effective_number():
    weight = np.array([1.0, 2.0, 3.0, 4.0])
    report = fairness_report(
        [1, 1, 1, 0],
        [1, 0, 1, 1],
        sensitive_features=["f"] * 4,
        metrics=[recall_score],
        sample_weight=weight,
    )
    row = report.by_feature.loc[("recall_score", "f"), "model"]
    low, high = wilson_interval(np.array(4 / 6), np.array(6**2 / (1 + 4 + 9)))
    assert row["value"] == pytest.approx(4 / 6)
    assert (row["low"], row["high"]) == pytest.approx((float(low), float(high)))


def test_report_of_counts():
    counts = count_groups([0, 1], [0, 1], sensitive_features=["f", "m"])
    report = FairnessReport.from_counts(counts)
    assert report.counts is counts
    with pytest.raises(TypeError, match="counts is a list; give what count_groups returns"):
        FairnessReport.from_counts([0, 1])


def test_report_can_be_pickled(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features, n_boot=10)
    assert len(report.metric_frames) == 2
    again = pickle.loads(pickle.dumps(report))
    assert str(again) == str(report)
    pd.testing.assert_frame_equal(again.disparities, report.disparities)


def test_mixed_labels_and_missing_groups():
    report = fairness_report(
        [0, 0, 1],
        [0, 1, 1],
        sensitive_features={"old": [1, None, 1], "sex": ["f", "f", "f"]},
        missing="group",
        n_boot=0,
    )
    assert report.by_group.index.tolist() == [(0, 1, "f"), (0, "missing", "f"), (1, 1, "f")]
    frame = report.metric_frames["model"].by_group
    assert frame.loc[("missing", "f"), "accuracy"] == 0


def test_a_feature_called_class():
    report = fairness_report([0, 1], [0, 1], sensitive_features={"class": ["a", "b"]})
    assert report.by_group.index.names == ["true class", "class"]
    report = fairness_report(
        [0, 1], [0, 1], sensitive_features={"metric": ["a", "b"], "statistic": ["c", "d"]}
    )
    assert report.by_feature.index.names == ["the metric", "metric", "statistic"]
    assert report.disparities.index.names == ["the metric", "the statistic"]


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
        ({"control_features": {"y_true": [1, 2]}}, ValueError, "Rename the column"),
        (
            {"sensitive_features": {"a": [1, 2]}, "control_features": {"a": [1, 2]}},
            ValueError,
            "both have a column 'a'",
        ),
        ({"control_features": [1]}, ValueError, "control_features has 1 values for 2 samples"),
        ({"control_features": [None, None]}, ValueError, "control_features is missing"),
        ({"predictions": {1: [0, 1], "1": [0, 1]}}, ValueError, "models of the same name"),
        ({"sample_weight": [1]}, ValueError, "sample_weight has shape"),
        ({"missing": "keep"}, ValueError, "missing='keep' is neither 'error' nor 'group'"),
        ({"pos_label": 2}, ValueError, r"pos_label=2 does not occur; the labels are \[0, 1\]"),
        ({"pos_label": "1"}, ValueError, "pos_label='1' does not occur"),
        ({"n_boot": -1}, ValueError, "n_boot=-1 is not a number of draws"),
        ({"n_boot": "many"}, ValueError, "n_boot='many' is not a number"),
        ({"n_boot": True}, ValueError, "n_boot=True is not a number"),
        ({"n_boot": 10.0}, ValueError, "n_boot=10.0 is not a number"),
        ({"random_state": "x"}, ValueError, "random_state=.x. is not an int"),
        ({"metrics": {"m": 3}}, TypeError, r"metrics\['m'\] is 3, expected a function"),
        ({"metrics": accuracy_score}, TypeError, "metrics is a function; give a list"),
        ({"metrics": "accuracy"}, TypeError, "metrics is a str; give a list"),
        ({"metrics": []}, ValueError, "metrics is empty"),
        ({"metrics": ["accuracy"]}, TypeError, "sklearn.metrics.accuracy_score"),
        ({"metrics": {"m": "true_positive"}}, TypeError, "fairlearn.metrics.true_positive_rate"),
        ({"metrics": ["nothing"]}, TypeError, "give the function itself, for instance"),
        ({"metrics": [partial(f1_score)]}, TypeError, "has no name. Give a dict"),
        ({"metrics": [f1_score, f1_score]}, ValueError, "two functions named 'f1_score'"),
        (
            {"metrics": [confusion_matrix]},
            TypeError,
            r"'confusion_matrix' returned ndarray array\(.*",
        ),
        ({"metrics": {"m": lambda a, b: None}}, TypeError, "'m' returned NoneType None for all"),
        (
            {"metrics": {"m": lambda a, b: 1 if len(a) > 1 else "1"}},
            TypeError,
            "'m' returned str '1' for group 'f'",
        ),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"y_true": [0, 1], "predictions": [0, 1], "sensitive_features": ["f", "m"]}
    with pytest.raises(error, match=message):
        fairness_report(**arguments | change)


def test_metrics_of_one_class_need_to_know_which():
    arguments = ["a", "b"], ["a", "b"]
    with pytest.raises(ValueError, match=r"labels \['a', 'b'\] is the positive one"):
        fairness_report(*arguments, sensitive_features=["f", "m"], metrics=[selection_rate])
    report = fairness_report(
        *arguments, sensitive_features=["f", "m"], metrics=[selection_rate], pos_label="a"
    )
    assert report.by_feature["model", "value"].tolist() == [1, 0]


def test_what_a_function_raises_says_where():
    three = [0, 1, 2, 0]
    with pytest.raises(ValueError, match="multiclass") as caught:
        fairness_report(three, three, sensitive_features=list("abbb"), metrics=[recall_score])
    assert caught.value.__notes__ == ["Raised by metric 'recall_score' for all groups (4 rows)."]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_metric_that_is_infinite_is_refused(value):
    def odds(y_true, y_pred):
        return value if y_pred.mean() == 1 else 0.5

    arguments = {"sensitive_features": ["f", "f", "m", "m"], "metrics": [odds]}
    with pytest.raises(ValueError, match=rf"metric 'odds' is {value} for group 'm'.*Return NaN"):
        fairness_report([0, 1, 1, 1], [0, 1, 1, 1], **arguments)
