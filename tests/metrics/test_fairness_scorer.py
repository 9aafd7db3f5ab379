"""Fairness scorers against fairlearn, against slow loops and by hand."""

import copy
import pickle
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
from fairlearn.metrics import (
    MetricFrame,
    accuracy_score_group_min,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_negative_rate,
    false_positive_rate,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    fbeta_score,
    log_loss,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    zero_one_loss,
)
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_validate

from skfair.metrics import FairnessScorer, make_fairness_scorer
from skfair.metrics._rates import COUNT_METRICS
from skfair.model_selection import GroupStratifiedKFold

AGGREGATES = ["group_min", "group_max", "difference", "ratio", "overall"]

N = 300


def make_data():
    rng = np.random.default_rng(0)
    sex = np.array(["f", "m"])[rng.integers(2, size=N)]
    age = rng.integers(3, size=N)
    X = rng.normal(size=(N, 3)) + (sex == "m")[:, None]
    y = (X[:, 0] + rng.normal(size=N) > 0.5).astype(int)
    return X, y, sex, age, rng.random(N) + 0.1


X, Y, SEX, AGE, WEIGHT = make_data()
MODEL = LogisticRegression().fit(X[:, :2], Y)
MODEL_X = X[:, :2]


class Given(BaseEstimator):
    """Predicts what it is given."""

    def predict(self, X):
        return np.asarray(X)


def value(scorer, y, prediction, groups, weight=None):
    arguments = {} if weight is None else {"sample_weight": weight}
    return scorer(Given(), prediction, y, sensitive_features=groups, **arguments)


def masks(groups):
    """Rows of each group, from columns or from one."""
    columns = groups if isinstance(groups, dict) else {"": groups}
    keys = list(zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True))
    return {key: np.array([other == key for other in keys]) for key in sorted(set(keys))}


def slow(aggregate, values):
    low, high = min(values), max(values)
    return {"group_min": low, "group_max": high, "difference": high - low, "ratio": low / high}[
        aggregate
    ]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# ---------------------------------------------------------------- count metrics


LABELS = {
    "0/1": ([0, 1], None),
    "-1/1": ([-1, 1], None),
    "booleans": ([False, True], None),
    "strings": (["no", "yes"], "yes"),
    "strings, the first positive": (["zero", "yes"], "yes"),
    "the zero positive": ([1, 0], 0),
}
# Whether a group has what the rate is a share of.
DEFINED = {
    recall_score: lambda y, p: y.any(),
    precision_score: lambda y, p: p.any(),
    f1_score: lambda y, p: (y | p).any(),
    true_positive_rate: lambda y, p: y.any(),
    false_negative_rate: lambda y, p: y.any(),
    true_negative_rate: lambda y, p: not y.all(),
    false_positive_rate: lambda y, p: not y.all(),
}


def defined(metric, y, prediction):
    return metric not in DEFINED or bool(DEFINED[metric](y.astype(bool), prediction.astype(bool)))


@st.composite
def samples(draw, n_classes=2):
    """Codes of labels and predictions, one to three columns with rare groups, weights."""
    n = draw(st.integers(4, 60))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y, prediction = numbers.integers(n_classes, size=(2, n))
    columns = {}
    for i in range(draw(st.integers(1, 3))):
        shares = numbers.dirichlet(np.full(draw(st.integers(2, 4)), draw(st.sampled_from([1, 20]))))
        codes = numbers.choice(len(shares), n, p=shares)
        codes[:2] = [0, 1]  # two groups there are
        columns[f"c{i}"] = np.array(["w", "x", "y", "z"])[codes] if i % 2 else codes
    weight = numbers.random(n) + 1e-3 if draw(st.booleans()) else None
    return y, prediction, columns, weight


def compare_with_metric_frame(metric, codes, prediction, columns, weight, labels, pos_label):
    labels = np.array(labels)
    frame = MetricFrame(
        metrics=metric,
        y_true=codes,
        y_pred=prediction,
        sensitive_features=columns,
        sample_params=None if weight is None else {"sample_weight": weight},
    )
    expected = {
        "group_min": frame.group_min(),
        "group_max": frame.group_max(),
        "difference": frame.difference(),
        "ratio": frame.ratio(),
        "overall": frame.overall,
    }
    everywhere = all(defined(metric, codes[m], prediction[m]) for m in masks(columns).values())
    for aggregate in AGGREGATES:
        scorer = make_fairness_scorer(
            metric, aggregate, pos_label=pos_label, greater_is_better=True
        )
        arguments = (labels[codes], labels[prediction], columns, weight)
        if not (defined(metric, codes, prediction) if aggregate == "overall" else everywhere):
            with pytest.raises(ValueError, match="is undefined for group"):
                value(scorer, *arguments)
        elif aggregate == "ratio" and expected["group_max"] == 0:
            with pytest.raises(ValueError, match=r"aggregate=ratio is nan for .* \[0\.0, 0\.0"):
                value(scorer, *arguments)
        else:
            got = value(scorer, *arguments)
            assert got == pytest.approx(expected[aggregate], abs=1e-12)


# scikit-learn and fairlearn make 0 of 0 / 0, and say so.
of_metric_frame = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning"),
    pytest.mark.filterwarnings("ignore:A single label was found:UserWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]


def metric_frame(test):
    for mark in of_metric_frame:
        test = mark(test)
    return test


@metric_frame
@pytest.mark.parametrize("metric", COUNT_METRICS, ids=lambda metric: metric.__name__)
@settings(deadline=None, max_examples=25)
@given(samples(), st.sampled_from(list(LABELS)))
def test_count_metrics_equal_metric_frame(metric, data, kind):
    codes, prediction, columns, weight = data
    labels, pos_label = LABELS[kind]
    if not COUNT_METRICS[metric].needs_positive:
        pos_label = None  # these have no such parameter
    elif not {labels[code] for code in (*codes, *prediction)} >= {pos_label, None} - {None}:
        return  # nothing of the positive class: an error, tested below
    compare_with_metric_frame(metric, codes, prediction, columns, weight, labels, pos_label)


@metric_frame
@pytest.mark.parametrize("metric", [accuracy_score, zero_one_loss, balanced_accuracy_score])
@settings(deadline=None, max_examples=25)
@given(samples(n_classes=3), st.sampled_from([[0, 1, 2], ["cat", "dog", "eel"]]))
def test_count_metrics_of_three_classes(metric, data, labels):
    compare_with_metric_frame(metric, *data, labels, None)


# ---------------------------------------------------------------- ready-made metrics


FAIRLEARN = {
    "demographic_parity": (demographic_parity_difference, []),
    "equal_opportunity": (equal_opportunity_difference, [1]),
    "equalized_odds": (equalized_odds_difference, [0, 1]),
}


@metric_frame
@pytest.mark.parametrize("name", FAIRLEARN)
@settings(deadline=None, max_examples=40)
@given(samples(), st.sampled_from(["0/1", "-1/1", "booleans"]))
def test_ready_made_metrics_equal_fairlearn(name, data, kind):
    codes, prediction, columns, weight = data
    function, needed = FAIRLEARN[name]
    labels = np.array(LABELS[kind][0])
    arguments = (labels[codes], labels[prediction], columns, weight)
    if not all(label in codes[m] for m in masks(columns).values() for label in needed):
        with pytest.raises(ValueError, match=r"rate is undefined for group .*: \d+"):
            value(make_fairness_scorer(name), *arguments)
        return
    expected = function(codes, prediction, sensitive_features=columns, sample_weight=weight)
    assert value(make_fairness_scorer(name), *arguments) == pytest.approx(-expected, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(samples())
def test_average_odds_and_worst_group_by_a_slow_loop(data):
    y, prediction, columns, weight = data
    weight = np.ones(len(y)) if weight is None else weight
    odds, accuracies = [], []
    for m in masks(columns).values():
        parts = [m & (y == label) for label in (0, 1)]
        rates = [
            np.sum(weight[part] * prediction[part]) / np.sum(weight[part]) if part.any() else None
            for part in parts
        ]
        odds.append(None if None in rates else sum(rates) / 2)
        accuracies += [
            np.sum(weight[part] * (prediction == y)[part]) / np.sum(weight[part])
            for part in parts
            if part.any()
        ]
    worst = value(make_fairness_scorer("worst_group_accuracy"), y, prediction, columns, weight)
    assert worst == pytest.approx(min(accuracies), abs=1e-12)
    scorer = make_fairness_scorer("average_odds")
    if None in odds:
        with pytest.raises(ValueError, match="is undefined for group"):
            value(scorer, y, prediction, columns, weight)
    else:
        got = value(scorer, y, prediction, columns, weight)
        assert got == pytest.approx(min(odds) - max(odds), abs=1e-12)


def test_by_hand():
    #          f: 1 of 2 found, 1 of 2 false       m: 2 of 2 found, 0 of 3 false
    y = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0])
    prediction = np.array([1, 0, 1, 0, 1, 1, 0, 0, 0])
    sex = list("ffffmmmmm")
    expected = {
        "demographic_parity": -(2 / 4 - 2 / 5),
        "equal_opportunity": -(1 - 1 / 2),
        "equalized_odds": -0.5,
        "average_odds": 0.0,  # half of 1/2 + 1/2 and half of 1 + 0: one makes up for the other
        "worst_group_accuracy": 1 / 2,
    }
    for name, number in expected.items():
        scorer = make_fairness_scorer(name)
        assert value(scorer, y, prediction, sex) == pytest.approx(number, abs=1e-15)
        text = np.array(["a", "b"])  # and of strings
        pos_label = None if name == "worst_group_accuracy" else "b"
        scorer = make_fairness_scorer(name, pos_label=pos_label)
        assert value(scorer, text[y], text[prediction], sex) == pytest.approx(number, abs=1e-15)


def test_positive_class_of_several():
    """One class against all others."""
    y, prediction = np.array(list("abcabc")), np.array(list("abbcbc"))
    scorer = make_fairness_scorer("demographic_parity", pos_label="b")
    assert value(scorer, y, prediction, list("fffmmm")) == pytest.approx(1 / 3 - 2 / 3)
    scorer = make_fairness_scorer(true_positive_rate, "group_min", pos_label="c")
    assert value(scorer, y, prediction, list("fffmmm")) == 0


def test_rows_without_weight_do_not_count():
    y, prediction = [1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 0]
    weight = [1, 0, 1, 2, 1, 1]
    scorer = make_fairness_scorer("equal_opportunity")
    assert value(scorer, y, prediction, list("fffmmm"), weight) == pytest.approx(2 / 3 - 1)
    with pytest.raises(ValueError, match=r"undefined for group 'f' \(3 samples\): 0 weight of"):
        value(scorer, y, prediction, list("fffmmm"), [0, 0, 1, 2, 1, 1])


# ---------------------------------------------------------------- any other metric


def share_of_errors(y_true, y_pred):
    return float(np.mean(np.asarray(y_true) != np.asarray(y_pred)))


CALLED = {
    "partial": (partial(recall_score, pos_label=0), {}, "predict"),
    "keywords": (fbeta_score, {"beta": 2}, "predict"),
    "a count metric with keywords": (recall_score, {"average": "macro"}, "predict"),
    "own": (share_of_errors, {}, "predict"),
    "lambda": (lambda y_true, y_pred: np.mean(y_true * (1 - y_pred)), {}, "predict"),
    "roc_auc of probabilities": (roc_auc_score, {}, "predict_proba"),
    "roc_auc of decisions": (roc_auc_score, {}, "decision_function"),
    "log_loss": (log_loss, {"labels": [0, 1]}, "predict_proba"),
    "brier": (brier_score_loss, {}, "predict_proba"),
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", CALLED)
def test_other_metrics_equal_a_slow_loop(kind, weighted, several, aggregate):
    metric, parameters, method = CALLED[kind]
    if weighted and kind in ("own", "lambda"):
        return  # they have no weights, which is an error, tested below
    groups = {"sex": SEX, "age": AGE} if several else SEX
    prediction = getattr(MODEL, method)(MODEL_X)
    if method == "predict_proba":
        prediction = prediction[:, 1]

    def compute(rows):
        more = {"sample_weight": WEIGHT[rows]} if weighted else {}
        return metric(Y[rows], prediction[rows], **parameters, **more)

    if aggregate == "overall":
        expected = compute(np.arange(N))
    else:
        expected = slow(aggregate, [compute(m) for m in masks(groups).values()])
    scorer = make_fairness_scorer(
        metric, aggregate, response_method=method, greater_is_better=True, **parameters
    )
    more = {"sample_weight": list(WEIGHT)} if weighted else {}
    got = scorer(MODEL, MODEL_X, Y, sensitive_features=groups, **more)
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("container", [list, pd.Series, lambda y: pd.Series(y, index=-AGE)])
def test_labels_in_any_container(container):
    for metric in (recall_score, partial(recall_score, pos_label=1)):
        scorer = make_fairness_scorer(metric, "group_min")
        expected = scorer(MODEL, MODEL_X, Y, sensitive_features=SEX)
        assert scorer(MODEL, MODEL_X, container(Y), sensitive_features=container(SEX)) == expected


def test_probabilities_of_several_classes():
    y = np.where(X[:, 1] > 1, "c", np.where(Y == 1, "b", "a"))
    model = LogisticRegression().fit(X, y)
    probabilities = model.predict_proba(X)
    for metric, parameters in (
        (log_loss, {"labels": list("abc")}),
        (roc_auc_score, {"multi_class": "ovr", "labels": list("abc")}),
    ):
        by_group = [metric(y[m], probabilities[m], **parameters) for m in masks(SEX).values()]
        scorer = make_fairness_scorer(
            metric, "difference", response_method="predict_proba", **parameters
        )
        assert scorer(model, X, y, sensitive_features=SEX) == pytest.approx(
            min(by_group) - max(by_group), abs=1e-12
        )


def test_regression():
    y = X[:, 0] + (SEX == "m") * X[:, 1]
    model = LinearRegression().fit(X, y)
    error = np.abs(model.predict(X) - y)
    errors = [error[sex == SEX].mean() for sex in "fm"]
    expected = {"group_max": -max(errors), "difference": min(errors) - max(errors)}
    for aggregate, number in expected.items():
        scorer = make_fairness_scorer(mean_absolute_error, aggregate)
        got = scorer(model, X, y, sensitive_features=SEX)
        assert got == pytest.approx(number, abs=1e-12)
    scorer = make_fairness_scorer(r2_score, "group_min")
    assert scorer(model, X, y, sensitive_features=SEX) == pytest.approx(
        min(r2_score(y[sex == SEX], model.predict(X[sex == SEX])) for sex in "fm"), abs=1e-12
    )


def test_metrics_that_compare_groups_by_themselves():
    prediction = MODEL.predict(MODEL_X)
    for method in ("between_groups", "to_overall"):
        scorer = make_fairness_scorer(
            demographic_parity_difference, greater_is_better=False, method=method
        )
        expected = demographic_parity_difference(
            Y, prediction, sensitive_features=AGE, sample_weight=WEIGHT, method=method
        )
        got = scorer(MODEL, MODEL_X, Y, sensitive_features=AGE, sample_weight=WEIGHT)
        assert got == pytest.approx(-expected, abs=1e-12)


def test_fairlearns_derived_metrics():
    """They take weights among arguments that they hand on."""
    prediction = MODEL.predict(MODEL_X)
    arguments = {"sensitive_features": AGE, "sample_weight": WEIGHT}
    scorer = make_fairness_scorer(accuracy_score_group_min, greater_is_better=True)
    expected = accuracy_score_group_min(Y, prediction, **arguments)
    assert scorer(MODEL, MODEL_X, Y, **arguments) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- the positive class


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
@pytest.mark.parametrize("pos_label", ["no", "yes"])
@pytest.mark.parametrize("pass_groups", [False, True])
def test_scores_are_those_of_the_positive_class(method, pos_label, pass_groups, routing):
    text = np.array(["no", "yes"])[Y]
    model = (GivenGroups() if pass_groups else LogisticRegression()).fit(MODEL_X, text)

    def strength(y_true, y_score, pos_label=None):
        return np.mean(np.where(y_true == pos_label, 1, -1) * y_score)

    decision = model.model_.decision_function(MODEL_X) if pass_groups else None
    if decision is None:
        decision = model.decision_function(MODEL_X)
    score = 1 / (1 + np.exp(-decision)) if method == "predict_proba" else decision
    if pos_label == "no":
        score = 1 - score if method == "predict_proba" else -score
    expected = [np.mean((np.where(text == pos_label, 1, -1) * score)[sex == SEX]) for sex in "fm"]
    scorer = make_fairness_scorer(
        strength, "group_min", response_method=method, pos_label=pos_label
    )
    got = scorer(model, MODEL_X, text, sensitive_features=SEX)
    assert got == pytest.approx(min(expected), abs=1e-12)


class GivenGroups(ClassifierMixin, BaseEstimator):
    """Needs the groups to predict, of which it makes nothing."""

    __metadata_request__predict_proba = {"sensitive_features": True}
    __metadata_request__decision_function = {"sensitive_features": True}

    def fit(self, X, y):
        self.model_ = LogisticRegression().fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X, *, sensitive_features):
        return self.model_.predict_proba(X)

    def decision_function(self, X, *, sensitive_features):
        return self.model_.decision_function(X)


def test_scorers_of_both_classes_do_not_mix(routing):
    """scikit-learn keeps one column of probabilities for all scorers of a search."""
    options = {"response_method": "predict_proba"}
    scoring = {
        "first": make_fairness_scorer(brier_score_loss, "group_max", pos_label=0, **options),
        "auc": make_fairness_scorer(roc_auc_score, "group_min", **options),
        "second": make_fairness_scorer(brier_score_loss, "group_max", pos_label=1, **options),
        "sklearn": "roc_auc",
    }
    arguments = {"cv": 3, "params": {"sensitive_features": SEX}}
    together = cross_validate(LogisticRegression(), X, Y, scoring=scoring, **arguments)
    for name in ("first", "auc", "second"):
        alone = cross_validate(LogisticRegression(), X, Y, scoring=scoring[name], **arguments)
        np.testing.assert_array_equal(together[f"test_{name}"], alone["test_score"])
    np.testing.assert_allclose(together["test_first"], together["test_second"], atol=1e-12)


# ---------------------------------------------------------------- the sign


@pytest.mark.parametrize(
    "metric, aggregate, sign",
    [
        (recall_score, "group_min", 1),
        (recall_score, "group_max", -1),
        (recall_score, "difference", -1),
        (recall_score, "ratio", 1),
        (recall_score, "overall", 1),
        (zero_one_loss, "group_max", -1),
        (zero_one_loss, "difference", -1),
        (zero_one_loss, "ratio", 1),
    ],
)
def test_sign(metric, aggregate, sign):
    told, plain = (
        make_fairness_scorer(metric, aggregate, greater_is_better=g)(
            MODEL, MODEL_X, Y, sensitive_features=SEX
        )
        for g in (True, None)
    )
    assert told > 0
    assert plain == sign * told
    other = make_fairness_scorer(metric, aggregate, greater_is_better=False)
    assert other(MODEL, MODEL_X, Y, sensitive_features=SEX) == -told


@pytest.mark.parametrize(
    "metric, aggregate, what",
    [
        (recall_score, np.ptp, "ptp"),
        (demographic_parity_difference, None, "demographic_parity_difference"),
        (zero_one_loss, "overall", "zero_one_loss"),
        (mean_absolute_error, "group_min", "mean_absolute_error"),
        (partial(zero_one_loss, normalize=True), "overall", "zero_one_loss"),
    ],
)
def test_sign_that_must_be_told(metric, aggregate, what):
    with pytest.raises(
        TypeError, match=rf"not clear whether .*{what}.*Give greater_is_better=False"
    ):
        make_fairness_scorer(metric, aggregate)
    make_fairness_scorer(metric, aggregate, greater_is_better=False)


# ---------------------------------------------------------------- aggregates of one's own


def test_an_aggregate_is_given_a_series_by_group():
    given = []

    def aggregate(values):
        given.append(values)
        return values.loc["m"] - values.loc["f"]

    scorer = make_fairness_scorer(accuracy_score, aggregate, greater_is_better=True)
    got = scorer(MODEL, MODEL_X, Y, sensitive_features=pd.Series(SEX, name="sex"))
    right = MODEL.predict(MODEL_X) == Y
    expected = {sex: right[sex == SEX].mean() for sex in "fm"}
    assert got == pytest.approx(expected["m"] - expected["f"], abs=1e-15)
    pd.testing.assert_series_equal(
        given[0], pd.Series(expected, name="accuracy_score").rename_axis("sex")
    )


def test_an_aggregate_of_several_columns_is_given_a_multi_index():
    given = []

    def aggregate(values):
        given.append(values)
        return values.xs("f", level="sex").min()

    features = pd.DataFrame({"sex": SEX, "age": AGE})
    scorer = make_fairness_scorer(share_of_errors, aggregate, greater_is_better=False)
    got = scorer(MODEL, MODEL_X, Y, sensitive_features=features)
    wrong = MODEL.predict(MODEL_X) != Y
    by_group = {key: wrong[m].mean() for key, m in masks({"sex": SEX, "age": AGE}).items()}
    assert -got == pytest.approx(min(by_group["f", age] for age in range(3)), abs=1e-15)
    assert isinstance(given[0].index, pd.MultiIndex)
    assert list(given[0].index.names) == ["sex", "age"]
    assert given[0].to_dict() == pytest.approx(by_group)


def test_an_aggregate_that_asks_for_an_absent_group():
    scorer = make_fairness_scorer(
        accuracy_score, lambda values: values["x"], greater_is_better=True
    )
    with pytest.raises(KeyError) as raised:
        scorer(MODEL, MODEL_X, Y, sensitive_features=SEX)
    (note,) = raised.value.__notes__
    assert "accuracy_score of the groups ['f', 'm']" in note
    assert "GroupStratifiedKFold" in note


# ---------------------------------------------------------------- the object


@pytest.mark.parametrize(
    "arguments, options, text",
    [
        (("demographic_parity",), {}, "'demographic_parity'"),
        (("equalized_odds",), {"pos_label": "b"}, "'equalized_odds', pos_label='b'"),
        ((recall_score, "group_min"), {}, "recall_score, 'group_min'"),
        (
            (fbeta_score, "difference"),
            {"beta": 2, "greater_is_better": False},
            "fbeta_score, 'difference', beta=2",
        ),
        (
            (zero_one_loss, "overall"),
            {"greater_is_better": False, "response_method": ("predict",)},
            "zero_one_loss, 'overall', greater_is_better=False, response_method=('predict',)",
        ),
        (
            (demographic_parity_difference,),
            {"greater_is_better": False},
            "demographic_parity_difference, greater_is_better=False",
        ),
        (
            (recall_score, np.ptp),
            {"greater_is_better": False},
            "recall_score, ptp, greater_is_better=False",
        ),
    ],
)
def test_repr(arguments, options, text):
    scorer = make_fairness_scorer(*arguments, **options)
    assert repr(scorer) == f"make_fairness_scorer({text})"


@pytest.mark.parametrize(
    "copied",
    [
        lambda scorer: pickle.loads(pickle.dumps(scorer)),
        copy.deepcopy,
        lambda scorer: clone(scorer, safe=False),
    ],
)
def test_copies_do_the_same(copied, routing):
    for scorer in (
        make_fairness_scorer("equalized_odds"),
        make_fairness_scorer(fbeta_score, "ratio", beta=2),
        make_fairness_scorer(accuracy_score_group_min, greater_is_better=True),
        make_fairness_scorer("demographic_parity").set_score_request(sample_weight=True),
    ):
        again = copied(scorer)
        assert isinstance(again, FairnessScorer)
        assert again is not scorer
        assert repr(again) == repr(scorer)
        assert again.get_metadata_routing().score.requests == (
            scorer.get_metadata_routing().score.requests
        )
        arguments = (MODEL, MODEL_X, Y)
        assert again(*arguments, sensitive_features=SEX) == scorer(
            *arguments, sensitive_features=SEX
        )


def test_requests(routing):
    scorer = make_fairness_scorer("demographic_parity")
    assert scorer.get_metadata_routing().score.requests["sensitive_features"] is True
    assert scorer.set_score_request(sample_weight=True) is scorer
    assert scorer.get_metadata_routing().score.requests == {
        "sensitive_features": True,
        "sample_weight": True,
    }
    scorer.set_score_request(sensitive_features="sex")
    assert scorer.get_metadata_routing().score.requests["sensitive_features"] == "sex"


def folds(k=3):
    return list(GroupStratifiedKFold(k).split(X, Y, sensitive_features=SEX))


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_in_a_search(weighted, routing):
    scorer = make_fairness_scorer("demographic_parity").set_score_request(sample_weight=weighted)
    model = LogisticRegression().set_fit_request(sample_weight=True)
    search = GridSearchCV(model, {"C": [0.01, 1]}, scoring=scorer, cv=folds())
    search.fit(X, Y, sensitive_features=SEX, sample_weight=WEIGHT)
    for i, C in enumerate([0.01, 1]):
        for k, (train, test) in enumerate(folds()):
            fitted = LogisticRegression(C=C).fit(X[train], Y[train], WEIGHT[train])
            expected = demographic_parity_difference(
                Y[test],
                fitted.predict(X[test]),
                sensitive_features=SEX[test],
                sample_weight=WEIGHT[test] if weighted else None,
            )
            got = search.cv_results_[f"split{k}_test_score"][i]
            assert got == pytest.approx(-expected, abs=1e-12)


def test_another_name_for_the_groups(routing):
    scorers = {
        name: make_fairness_scorer("demographic_parity").set_score_request(sensitive_features=name)
        for name in ("sex", "age")
    }
    result = cross_validate(
        LogisticRegression(), X, Y, cv=folds(), scoring=scorers, params={"sex": SEX, "age": AGE}
    )
    for name, groups in {"sex": SEX, "age": AGE}.items():
        for k, (train, test) in enumerate(folds()):
            predicted = LogisticRegression().fit(X[train], Y[train]).predict(X[test])
            expected = demographic_parity_difference(
                Y[test], predicted, sensitive_features=groups[test]
            )
            assert result[f"test_{name}"][k] == pytest.approx(-expected, abs=1e-12)


class Counting(LogisticRegression):
    """Counts over all of its copies how often it was asked."""

    calls = {"predict": 0, "predict_proba": 0}

    def predict(self, X):
        self.calls["predict"] += 1
        return super().predict(X)

    def predict_proba(self, X):
        self.calls["predict_proba"] += 1
        return super().predict_proba(X)


def test_the_scorers_of_a_search_share_predictions(routing):
    Counting.calls.update(predict=0, predict_proba=0)
    scoring = {
        "accuracy": "accuracy",
        "parity": make_fairness_scorer("demographic_parity"),
        "odds": make_fairness_scorer("equalized_odds"),
        "recall": make_fairness_scorer(recall_score, "group_min"),
        "auc": make_fairness_scorer(roc_auc_score, "group_min", response_method="predict_proba"),
        "loss": make_fairness_scorer(log_loss, "group_max", response_method="predict_proba"),
    }
    search = GridSearchCV(Counting(), {"C": [0.1, 1]}, scoring=scoring, refit=False, cv=folds())
    search.fit(X, Y, sensitive_features=SEX)
    assert Counting.calls == {"predict": 6, "predict_proba": 6}


@pytest.mark.parametrize("text", [False, True])
def test_a_threshold_is_tuned(text, routing):
    y = np.array(["no", "yes"])[Y] if text else Y
    pos_label = "yes" if text else 1
    model = LogisticRegression().fit(X, y)
    thresholds = np.linspace(0.1, 0.9, 41)
    probability = model.predict_proba(X)[:, 1]
    expected = [
        equalized_odds_difference(Y, (probability >= t).astype(int), sensitive_features=SEX)
        for t in thresholds
    ]
    tuned = TunedThresholdClassifierCV(
        model,
        scoring=make_fairness_scorer("equalized_odds", pos_label=pos_label if text else None),
        thresholds=thresholds,
        cv="prefit",
        refit=False,
        store_cv_results=True,
    ).fit(X, y, sensitive_features=SEX)
    np.testing.assert_allclose(tuned.cv_results_["scores"], -np.array(expected), atol=1e-12)
    assert tuned.best_threshold_ == thresholds[np.argmin(expected)]


# ---------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        (("equal_odds",), {}, ValueError, r"metric='equal_odds' is not one of \['worst_group"),
        ((["equalized_odds"],), {}, TypeError, "metric is a list, expected one of"),
        ((None,), {}, TypeError, "metric is a NoneType, expected one of"),
        (("equalized_odds", "ratio"), {}, TypeError, "aggregate='ratio' was given .* Leave it out"),
        (
            ("equalized_odds",),
            {"greater_is_better": True},
            TypeError,
            "greater_is_better=True was given with metric='equalized_odds'",
        ),
        (
            ("equalized_odds",),
            {"response_method": "predict_proba"},
            TypeError,
            "computed from predicted labels .* Leave them out",
        ),
        (("equalized_odds",), {"beta": 2}, TypeError, "takes no other arguments"),
        (
            ("worst_group_accuracy",),
            {"pos_label": 1},
            TypeError,
            "pos_label=1 was given with metric='worst_group_accuracy', which has no positive class",
        ),
        (
            (recall_score,),
            {},
            TypeError,
            "recall_score is a metric of one group.* Give aggregate, one of",
        ),
        ((recall_score, "min"), {}, ValueError, r"aggregate='min' is not one of \['group_min'"),
        ((recall_score, ["ratio"]), {}, ValueError, r"aggregate=\['ratio'\] is not one of"),
        (
            (demographic_parity_difference, "difference"),
            {},
            TypeError,
            "aggregate='difference' was given, but .* compares groups by itself",
        ),
        (
            (recall_score, "ratio"),
            {"response_method": "score"},
            ValueError,
            r"response_method='score' is not one of \['predict'",
        ),
        ((recall_score, "ratio"), {"response_method": []}, ValueError, "response_method="),
        (
            (accuracy_score, "ratio"),
            {"pos_label": 1},
            TypeError,
            "pos_label=1 was given, and accuracy_score has no such parameter. Leave it out",
        ),
    ],
)
def test_wrong_arguments(arguments, options, error, message):
    with pytest.raises(error, match=message):
        make_fairness_scorer(*arguments, **options)


# ---------------------------------------------------------------- bad input

EVERY_KIND = {
    "ready-made": make_fairness_scorer("demographic_parity"),
    "counted": make_fairness_scorer(accuracy_score, "group_min"),
    "called": make_fairness_scorer(share_of_errors, "difference"),
    "by itself": make_fairness_scorer(demographic_parity_difference, greater_is_better=False),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "groups, error, message",
    [
        (None, TypeError, r"did not reach the scorer.*enable_metadata_routing=True.*search\.fit"),
        (SEX[:-1], ValueError, "sensitive_features has 299 values for 300 samples. Give one group"),
        (
            pd.DataFrame({"a": SEX[:9], "b": SEX[:9]}),
            ValueError,
            "column 'a' of sensitive_features has 9 values for 300 samples",
        ),
        ([None] * N, ValueError, "sensitive_features is missing for 300 .*fillna"),
        (np.full(N, np.nan), ValueError, "sensitive_features is missing for 300 "),
        ([*SEX[:-1], None], ValueError, "sensitive_features is missing for 1 "),
        (
            ["f"] * N,
            ValueError,
            "sensitive_features has one group, 'f', in these 300 samples.*GroupStratifiedKFold",
        ),
        (X[:, 0], ValueError, "sensitive_features holds continuous values.*pandas.cut"),
        ("sex", TypeError, "sensitive_features must hold one group label per sample .*got str"),
    ],
)
def test_bad_groups(groups, error, message, kind):
    with pytest.raises(error, match=message):
        EVERY_KIND[kind](MODEL, MODEL_X, Y, sensitive_features=groups)


@pytest.mark.parametrize("kind", ["ready-made", "counted", "by itself", "called with weights"])
@pytest.mark.parametrize(
    "weight, message",
    [
        (WEIGHT[:-1], r"sample_weight has shape \(299,\), y_true has 300 values"),
        ([*WEIGHT, 1.0], r"sample_weight has shape \(301,\)"),
        (-WEIGHT, "sample_weight is negative or not finite for 300 "),
    ],
)
def test_bad_weights(weight, message, kind):
    called = make_fairness_scorer(fbeta_score, "difference", beta=2)
    scorer = {**EVERY_KIND, "called with weights": called}[kind]
    with pytest.raises(ValueError, match=message):
        scorer(MODEL, MODEL_X, Y, sensitive_features=SEX, sample_weight=weight)


def test_weights_for_a_metric_without():
    for scorer in (
        make_fairness_scorer(share_of_errors, "difference"),
        make_fairness_scorer(share_of_errors, "overall"),
    ):
        with pytest.raises(
            TypeError, match=r"share_of_errors has no parameter sample_weight.*Take"
        ):
            scorer(MODEL, MODEL_X, Y, sensitive_features=SEX, sample_weight=WEIGHT)


@pytest.mark.parametrize("aggregate", ["group_min", "overall"])
@pytest.mark.parametrize(
    "returned, error, message",
    [
        (np.array([0.5, 0.5]), TypeError, r"bad returned ndarray .*one number.*average='macro'"),
        (np.array([0.5]), TypeError, "bad returned ndarray"),
        (None, TypeError, "bad returned NoneType None"),
        ("0.5", TypeError, "bad returned str '0.5'"),
        (np.nan, ValueError, "bad is nan.*GroupStratifiedKFold"),
        (np.inf, ValueError, "bad is inf"),
    ],
)
def test_metrics_that_return_no_number(returned, error, message, aggregate):
    def bad(y_true, y_pred):
        return returned

    where = "" if aggregate == "overall" else " for group 'f'"
    with pytest.raises(error, match=message) as raised:
        value(make_fairness_scorer(bad, aggregate), Y, Y, SEX)
    assert where in str(raised.value)

    def bad(y_true, y_pred, *, sensitive_features):
        return returned

    with pytest.raises(error, match=message):
        value(make_fairness_scorer(bad, greater_is_better=True), Y, Y, SEX)


@pytest.mark.parametrize(
    "returned, error, message",
    [
        (None, TypeError, "returned NoneType None .*Give a function that returns a number"),
        (pd.Series([1.0]), TypeError, "returned Series"),
        (np.nan, ValueError, "is nan for accuracy_score of the groups"),
    ],
)
def test_aggregates_that_return_no_number(returned, error, message):
    def strange(values):
        return returned

    scorer = make_fairness_scorer(accuracy_score, strange, greater_is_better=True)
    with pytest.raises(error, match=message) as raised:
        value(scorer, Y, Y, SEX)
    assert "aggregate=strange" in str(raised.value)


@pytest.mark.parametrize(
    "number", [1, True, np.bool_(True), np.float32(1), np.array(1.0), Fraction(1)]
)
def test_numbers_of_any_type(number):
    scorer = make_fairness_scorer(lambda y, p: number, "group_min")
    got = value(scorer, Y, Y, SEX)
    assert type(got) is float
    assert got == 1


def test_an_error_of_the_metric_names_the_group():
    one_class = np.where(SEX == "f", 0, Y)
    scorer = make_fairness_scorer(
        partial(log_loss, normalize=True), "difference", response_method="predict_proba"
    )
    with pytest.raises(ValueError, match="y_true contains only one label") as raised:
        scorer(MODEL, MODEL_X, one_class, sensitive_features=SEX)
    (note,) = raised.value.__notes__
    assert "group 'f'" in note
    assert f"{np.sum(SEX == 'f')} samples" in note


def test_a_fold_without_positives_in_a_group(routing):
    y = Y.copy()
    y[(SEX == "f") & (np.arange(N) >= 100)] = 0
    last = [(np.arange(200), np.arange(200, N))]
    search = GridSearchCV(
        LogisticRegression(),
        {"C": [1]},
        scoring=make_fairness_scorer("equal_opportunity"),
        cv=last,
        error_score="raise",
    )
    members = int(np.sum(SEX[200:] == "f"))
    with pytest.raises(
        ValueError,
        match=rf"The true positive rate is undefined for group 'f' \({members} samples\): 0 "
        rf"samples of class 1, {members} of others.*GroupStratifiedKFold",
    ):
        search.fit(X, y, sensitive_features=SEX)
    search.set_params(cv=GroupStratifiedKFold(2, shuffle=True, random_state=0))
    assert search.fit(X, y, sensitive_features=SEX).best_score_ < 0


def test_a_fold_of_one_group(routing):
    order = np.argsort(SEX, kind="stable")
    half = [(order[: N // 2 + 40], order[N // 2 + 40 :])]
    with pytest.raises(ValueError, match=r"has one group, 'm', in these 110 samples.*KFold"):
        cross_validate(
            LogisticRegression(),
            X,
            Y,
            cv=half,
            scoring=EVERY_KIND["called"],
            error_score="raise",
            params={"sensitive_features": SEX},
        )
    overall = make_fairness_scorer(accuracy_score, "overall")  # which compares nothing
    assert value(overall, [0, 1], [0, 0], ["f", "f"]) == 0.5


def test_groups_as_a_dict_are_not_cut_into_folds(routing):
    with pytest.raises(ValueError, match="give a DataFrame: scikit-learn does not split a dict"):
        cross_validate(
            LogisticRegression(),
            X,
            Y,
            cv=3,
            scoring=EVERY_KIND["counted"],
            error_score="raise",
            params={"sensitive_features": {"sex": SEX, "age": AGE}},
        )


@pytest.mark.parametrize("metric", [recall_score, precision_score, selection_rate])
def test_the_positive_class_must_be_known(metric):
    text = np.array(["no", "yes"])[Y]
    for scorer in (
        make_fairness_scorer(metric, "difference"),
        make_fairness_scorer("demographic_parity"),
    ):
        with pytest.raises(ValueError, match=r"\['no', 'yes'\].*for instance pos_label='yes'"):
            value(scorer, text, text, SEX)
    for scorer in (
        make_fairness_scorer(metric, "difference", pos_label="Yes"),
        make_fairness_scorer("demographic_parity", pos_label="Yes"),
    ):
        with pytest.raises(ValueError, match=r"pos_label='Yes' does not occur; .*\['no', 'yes'\]"):
            value(scorer, text, text, SEX)


def test_scores_where_labels_are_wanted():
    scorer = make_fairness_scorer(accuracy_score, "group_min", response_method="predict_proba")
    with pytest.raises(ValueError, match=r"y_pred holds continuous values.*from predict, and not"):
        scorer(MODEL, MODEL_X, Y, sensitive_features=SEX)


def test_a_method_that_the_estimator_lacks():
    scorer = make_fairness_scorer(roc_auc_score, "ratio", response_method="decision_function")
    with pytest.raises(AttributeError, match=r"Given has none of \['decision_function'\].*Choose"):
        scorer(Given(), Y, Y, sensitive_features=SEX)
    either = make_fairness_scorer(
        r2_score, "ratio", response_method=["decision_function", "predict"]
    )
    assert either(Given(), Y, Y, sensitive_features=SEX) == 1


@pytest.mark.parametrize(
    "metric", [roc_auc_score, log_loss, brier_score_loss, partial(roc_auc_score, average="micro")]
)
def test_a_metric_of_scores_is_not_given_labels(metric):
    arguments = {"aggregate": "group_min", "greater_is_better": True}
    with pytest.raises(TypeError, match=r"is a metric of scores.*response_method='predict_proba'"):
        make_fairness_scorer(metric, **arguments)
    make_fairness_scorer(metric, response_method="predict_proba", **arguments)


def test_groups_in_another_order_than_the_labels_are_refused():
    y, sex = pd.Series([0, 1, 0, 1]), pd.Series(["f", "f", "m", "m"])
    X = np.zeros((4, 1))
    model = DummyClassifier().fit(X, y)
    for scorer in (
        make_fairness_scorer("demographic_parity"),
        make_fairness_scorer(mean_absolute_error, "group_max"),
    ):
        for features in (sex[::-1], sex[::-1].to_frame()):
            with pytest.raises(ValueError, match=r"in another order.*sensitive_features.loc"):
                scorer(model, X, y, sensitive_features=features)
        value = scorer(model, X, y, sensitive_features=sex)
        # The same index, another one, or none: taken as they come.
        assert scorer(model, X, y, sensitive_features=sex.set_axis([5, 6, 7, 8])) == value
        assert (
            scorer(model, X, y.to_numpy(), sensitive_features=sex.set_axis([3, 2, 1, 0])) == value
        )


@pytest.mark.parametrize("as_frame", [False, True])
def test_a_category_that_a_fold_misses_is_an_error(as_frame):
    # Groups as strings cannot tell: the difference is that of the two groups that are there.
    group = pd.Series([*"ababab", *"cccccc"], name="group")
    X, y = np.zeros((12, 1)), np.array([0, 1] * 6)
    model = DummyClassifier().fit(X, y)
    parity = make_fairness_scorer("demographic_parity")
    assert parity(model, X[:6], y[:6], sensitive_features=group[:6]) == 0
    group = group.astype("category")
    features = group.to_frame().assign(other="x") if as_frame else group
    with pytest.raises(
        ValueError, match=r"no sample of \['c'\] among these 6.*GroupStratifiedKFold"
    ):
        parity(model, X[:6], y[:6], sensitive_features=features[:6])
    assert parity(model, X, y, sensitive_features=features) == 0


def test_groups_that_do_not_reach_a_tuned_threshold():
    tuned = TunedThresholdClassifierCV(
        LogisticRegression(), scoring=make_fairness_scorer("worst_group_accuracy"), cv=2
    )
    with pytest.raises(TypeError, match=r"did not reach the scorer.*enable_metadata_routing=True"):
        tuned.fit(np.arange(8.0)[:, None], [0, 1] * 4)


@pytest.mark.parametrize(
    "arguments, name",
    [
        (("demographic_parity",), "demographic_parity"),
        ((recall_score, "group_min"), "recall_score_group_min"),
        ((partial(recall_score, pos_label=1), "difference"), "recall_score_difference"),
        ((zero_one_loss, np.ptp), "zero_one_loss_ptp"),
        ((demographic_parity_difference,), "demographic_parity_difference"),
    ],
)
def test_scorers_have_names_that_clients_show(arguments, name):
    needed = {} if isinstance(arguments[0], str) else {"greater_is_better": False}
    scorer = make_fairness_scorer(*arguments, **needed)
    assert scorer.__name__ == scorer._score_func.__name__ == name
    assert pickle.loads(pickle.dumps(scorer)).__name__ == name


@pytest.mark.parametrize("as_frame", [False, True])
def test_bound_groups_of_all_rows_do_for_any_of_them(as_frame):
    rows = pd.Index([f"person {i}" for i in range(N)])
    X, y = pd.DataFrame(make_data()[0], index=rows), pd.Series(make_data()[1], index=rows)
    sex = pd.Series(make_data()[2], index=rows)
    model, parity = LogisticRegression().fit(X, y), make_fairness_scorer("demographic_parity")
    order = np.random.default_rng(0).permutation(N)
    shuffled = sex.iloc[order]
    bound = partial(parity, sensitive_features=shuffled.to_frame() if as_frame else shuffled)
    some = order[:100]
    expected = parity(model, X.iloc[some], y.iloc[some], sensitive_features=sex.to_numpy()[some])
    assert bound(model, X.iloc[some], y.iloc[some]) == expected
    refused = pytest.raises(ValueError, match=r"has [36]00 values for 100 samples")
    of_arrays = LogisticRegression().fit(X.to_numpy(), y)
    with refused:  # nothing says which rows these are
        bound(of_arrays, X.to_numpy()[some], y.iloc[some])
    for groups in (pd.concat([sex, sex]), sex.set_axis(rows + "!")):
        with refused:
            parity(model, X.iloc[some], y.iloc[some], sensitive_features=groups)


def test_functions_that_pass_nothing_on_take_a_scorer_with_its_groups():
    rng = np.random.default_rng(0)
    groups = np.arange(200) % 2
    X = np.column_stack([groups + 0.1 * rng.normal(size=200), rng.normal(size=200)])
    model = LogisticRegression().fit(X, groups)
    scorer = make_fairness_scorer("demographic_parity")
    with pytest.raises(TypeError, match=r"functools\.partial\(scorer, sensitive_features=\.\.\.\)"):
        permutation_importance(model, X, groups, scoring=scorer)
    scoring = partial(scorer, sensitive_features=groups)
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            found = permutation_importance(model, X, groups, scoring=scoring, random_state=0)
        # The prediction is the group, by the first column alone: shuffled, there is parity.
        assert found.importances_mean[0] < -0.8
        assert found.importances_mean[1] == 0
