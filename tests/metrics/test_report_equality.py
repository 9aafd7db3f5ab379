"""The report against fairlearn's MetricFrame, and the report of parts against that of the whole."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    false_negative_rate,
    false_positive_rate,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    fbeta_score,
    hamming_loss,
    precision_score,
    recall_score,
    zero_one_loss,
)

from skfair.metrics import FairnessReport, count_groups, fairness_report

ONE_CLASS = [
    selection_rate,
    true_positive_rate,
    false_positive_rate,
    true_negative_rate,
    false_negative_rate,
    recall_score,
    precision_score,
    f1_score,
]
OF_ALL = [accuracy_score, balanced_accuracy_score, zero_one_loss]
CALLED = {
    "hamming": hamming_loss,
    "macro F1": partial(f1_score, average="macro", zero_division=0.0),
    "mean": lambda y_true, y_pred: float(np.mean(y_true == y_pred)),
}
LABELS = {"0/1": [0, 1], "-1/1": [-1, 1], "bool": [False, True], "text": ["no", "yes"]}


@st.composite
def problems(draw, labels=None):
    """Labels, predictions of two models, sensitive and control columns, weights."""
    n = draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.array(labels or draw(st.sampled_from(list(LABELS.values()))))
    y = rng.choice(labels, n)
    y[0] = labels[-1]  # the positive class occurs
    predictions = {name: rng.choice(labels, n) for name in ("first", "second")}
    for prediction in predictions.values():
        prediction[rng.integers(n)] = y[0]  # a model without any label that occurs is refused

    def columns(prefix, n_columns):
        values = {}
        for i in range(n_columns):
            shares = rng.dirichlet(np.full(draw(st.integers(1, 4)), 0.5))
            codes = rng.choice(len(shares), n, p=shares)
            values[f"{prefix}{i}"] = np.array(["w", "x", "y", "z"])[codes] if i % 2 else codes
        return values

    features = columns("f", draw(st.integers(1, 2)))
    controls = columns("c", draw(st.integers(0, 2)))
    weight = rng.random(n) + 0.01 if draw(st.booleans()) else None
    return y, predictions, features, controls or None, weight


def _frames(problem, metrics, pos_label):
    """The MetricFrame of each model, as a user of fairlearn would make it."""
    y, predictions, features, controls, weight = problem
    functions = {}
    for name, metric in metrics.items():
        fixed = {"pos_label": pos_label} if metric in ONE_CLASS else {}
        if metric in (recall_score, precision_score, f1_score):
            fixed["zero_division"] = 0.0
        functions[name] = partial(metric, **fixed) if fixed else metric
    weights = {
        name: {} if weight is None or name == "mean" else {"sample_weight": weight}
        for name in metrics
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            model: MetricFrame(
                metrics=functions,
                y_true=y,
                y_pred=prediction,
                sensitive_features=pd.DataFrame(features),
                control_features=None if controls is None else pd.DataFrame(controls),
                sample_params=weights,
            )
            for model, prediction in predictions.items()
        }


def _agree(report, frames, problem, metrics):
    """Compare every number; where a rate has no denominator, fairlearn says 0 and we NaN."""
    _, predictions, _, controls, _ = problem
    n_controls = len(controls or {})
    for model in predictions:
        frame = frames[model]
        for name, metric in metrics.items():
            expected = frame.by_group[name].astype(float)
            found = report.by_feature[model, "value"].loc[[name]].droplevel(0)
            occurring = expected.dropna()  # fairlearn lists combinations that do not occur
            assert len(found) == len(occurring)
            occurring = occurring.loc[found.index]
            undefined = found.isna().to_numpy()
            if undefined.any():
                # Rates of nobody are 0 there, and their complement, computed from it, 0 as well.
                assert metric in ONE_CLASS
                assert (occurring[undefined] == 0).all()
            np.testing.assert_allclose(
                found[~undefined], occurring[~undefined], rtol=0, atol=1e-12, err_msg=name
            )
            disparities = report.disparities[model, "value"].loc[[name]].droplevel(0)
            levels = list(range(n_controls))
            groups = found.groupby(level=levels) if n_controls else [((), found)]
            for level, values in groups:
                level = level if isinstance(level, tuple) else (level,)
                overall = (
                    frame.overall[name]
                    if not n_controls
                    else frame.overall.loc[level if n_controls > 1 else level[0], name]
                )
                got = disparities.loc[(*level, "overall")]
                if np.isnan(got):
                    assert overall == 0
                else:
                    assert got == pytest.approx(overall, rel=0, abs=1e-12)
                difference, ratio = (
                    disparities.loc[(*level, which)] for which in ("difference", "ratio")
                )
                if values.notna().sum() < 2:
                    assert np.isnan(difference)
                    assert np.isnan(ratio)
                    continue
                assert difference == pytest.approx(values.max() - values.min(), abs=1e-12)
                if values.notna().all():
                    key = name if not n_controls else (level if n_controls > 1 else level[0])
                    theirs = frame.difference(), frame.ratio()
                    theirs = [t[key] if not n_controls else t.loc[key, name] for t in theirs]
                    assert difference == pytest.approx(theirs[0], rel=0, abs=1e-12)
                    assert ratio == pytest.approx(theirs[1], rel=0, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=15)
@given(problems())
def test_all_counted_metrics_equal_metric_frame(problem):
    y, predictions, features, controls, weight = problem
    positive = {"True": True, "1": 1, "yes": "yes"}[str(max(y.tolist()))]
    metrics = {metric.__name__: metric for metric in (*OF_ALL, *ONE_CLASS)}
    report = fairness_report(
        y,
        predictions,
        sensitive_features=features,
        control_features=controls,
        sample_weight=weight,
        metrics=list(metrics.values()),
        pos_label=positive,
        n_boot=0,
    )
    # fairlearn's rates cannot tell text in a group of one class: give it 0 and 1.
    coded = (
        (y == positive).astype(int),
        {model: (p == positive).astype(int) for model, p in predictions.items()},
        features,
        controls,
        weight,
    )
    _agree(report, _frames(coded, metrics, 1), problem, metrics)


@settings(deadline=None, max_examples=12)
@given(problems([0, 1, 2]) | problems(["a", "b", "c"]))
def test_three_classes_and_other_functions_equal_metric_frame(problem):
    y, predictions, features, controls, weight = problem
    metrics = {metric.__name__: metric for metric in OF_ALL} | CALLED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = fairness_report(
            y,
            predictions,
            sensitive_features=features,
            control_features=controls,
            sample_weight=weight,
            metrics=metrics,
            n_boot=0,
        )
    _agree(report, _frames(problem, metrics, None), problem, metrics)


@settings(deadline=None, max_examples=10)
@given(problems())
def test_metric_frames_are_those_that_fairlearn_makes(problem):
    y, predictions, features, controls, weight = problem
    positive = max(y.tolist())
    metrics = {"accuracy": accuracy_score, "recall": recall_score, "tpr": true_positive_rate}
    report = fairness_report(
        y,
        predictions,
        sensitive_features=features,
        control_features=controls,
        sample_weight=weight,
        metrics=metrics,
        pos_label=positive,
        n_boot=0,
    )
    coded = (y == positive).astype(int)
    frames = _frames(
        (
            coded,
            {model: (p == positive).astype(int) for model, p in predictions.items()},
            features,
            controls,
            weight,
        ),
        metrics,
        1,
    )
    for model, frame in frames.items():
        found = report.metric_frames[model]
        pd.testing.assert_frame_equal(found.by_group, frame.by_group, rtol=0, atol=1e-12)
        for part in ("overall", "difference", "ratio"):
            ours, theirs = getattr(found, part), getattr(frame, part)
            if part != "overall":
                ours, theirs = ours(), theirs()
            np.testing.assert_allclose(
                ours.to_numpy(float), theirs.to_numpy(float), rtol=0, atol=1e-12
            )


def _same(one, other):
    """Whether two reports agree in every bit."""
    for table in ("by_group", "summary", "by_feature", "disparities"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)
    assert str(one) == str(other)
    assert one._repr_html_() == other._repr_html_()


@settings(deadline=None, max_examples=20)
@given(problems(["a", "b", "c"]), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_report_of_parts_equals_that_of_all(problem, n_parts, seed, called):
    y, predictions, features, controls, weight = problem
    rng = np.random.default_rng(seed)
    if weight is not None:
        weight = np.round(weight, 1)  # some agree, some are zero
        weight[0] = 1.0
    predictions = {
        m: np.where(rng.random(len(y)) < 0.1, "never", p) for m, p in predictions.items()
    }
    for p in predictions.values():
        p[0] = y[0]  # as in problems
    features = pd.DataFrame(features).astype(object)
    features[rng.random(len(y)) < 0.1] = None
    controls = None if controls is None else pd.DataFrame(controls)
    metrics = {"accuracy": accuracy_score, "selected": selection_rate}
    metrics |= {"hamming": hamming_loss} if called else {}
    report = {"metrics": metrics, "pos_label": "c", "n_boot": 20}

    def count(rows):
        return count_groups(
            y[rows],
            {model: p[rows] for model, p in predictions.items()},
            sensitive_features=features[rows],
            control_features=None if controls is None else controls[rows],
            sample_weight=None if weight is None else weight[rows],
            missing="group",
        )

    part = rng.integers(0, n_parts, len(y))
    if weight is not None:  # a part of weight zero alone is refused
        part[weight == 0] = part[0]
    parts = [count(part == i) for i in rng.permutation(n_parts) if (part == i).any()]
    total = parts[0]
    for more in parts[1:]:
        total = total + more
    if called:  # from fairlearn's bootstrap, too slow to repeat so often
        report["n_boot"] = 0
    whole = fairness_report(
        y,
        predictions,
        sensitive_features=features,
        control_features=controls,
        sample_weight=weight,
        missing="group",
        **report,
    )
    _same(whole, FairnessReport.from_counts(total, **report))


def test_fairlearns_bootstrap_does_not_see_the_parts_either():
    rng = np.random.default_rng(0)
    y, p, group = rng.integers(0, 2, 80), rng.integers(0, 2, 80), rng.choice(["a", "b"], 80)
    options = {"metrics": [cohen_kappa_score, partial_beta], "n_boot": 5}
    parts = [
        count_groups(y[rows], p[rows], sensitive_features=group[rows])
        for rows in (slice(0, 30), slice(30, 80))
    ]
    _same(
        fairness_report(y, p, sensitive_features=group, **options),
        FairnessReport.from_counts(parts[1] + parts[0], **options),
    )


def partial_beta(y_true, y_pred):
    return fbeta_score(y_true, y_pred, beta=2)
