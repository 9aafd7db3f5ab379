"""The trade-off display: what is drawn where, for numbers and for fitted debiasers."""

import sys
from itertools import combinations
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from fairlearn.metrics import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_difference,
)
from matplotlib import pyplot as plt
from scipy.stats import binomtest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, zero_one_loss
from sklearn.model_selection import GridSearchCV

from skfair.intraprocessing import RandomPerturbationDebiaser, ThresholdDebiaser
from skfair.metrics import (
    TradeoffDisplay,
    fairness_report,
    make_fairness_scorer,
    worst_group_accuracy_score,
)
from skfair.model_selection import GroupStratifiedKFold, constrained_refit


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def position(display, name):
    return tuple(float(v[0]) for v in display.marked_[name].get_data())


def debiaser(best_trial, **parameters):
    """What the display reads of a debiaser that has tried three networks."""
    trials = pd.DataFrame(
        {
            "candidate": ["original", "threshold", "perturbed", "perturbed", "perturbed"],
            "performance": [0.82, 0.6, 0.71, 0.75, 0.78],
            "bias": [-0.31, -0.03, 0.02, -0.04, 0.08],
        }
    )
    defaults = {
        "constraint": "equal_opportunity",
        "performance": "balanced_accuracy",
        "epsilon": 0.05,
    }
    return SimpleNamespace(trials_=trials, best_trial_=best_trial, **(defaults | parameters))


def test_points_band_and_marks():
    display = TradeoffDisplay(
        [0.8, 0.7, 0.6], [-0.3, 0.2, 0.0], max_disparity=0.1, marked={"before": 0, "after": 2}
    )
    assert display.plot() is display
    offsets = np.asarray(display.candidates_.get_offsets())
    np.testing.assert_allclose(offsets, [[0.3, 0.8], [0.2, 0.7], [0.0, 0.6]])
    assert position(display, "before") == (0.3, 0.8)
    assert position(display, "after") == (0.0, 0.6)
    extent = display.band_.get_extents().transformed(display.ax_.transData.inverted())
    assert (extent.x0, extent.x1) == pytest.approx((0, 0.1))
    assert labels(display) == ["within 0.1", "3 candidates", "Pareto front", "before", "after"]
    assert display.ax_.get_xlabel() == "disparity"
    assert display.ax_.get_ylabel() == "performance"
    assert display.figure_ is display.ax_.figure


def test_all_in_sight():
    display = TradeoffDisplay([0.8, 0.7], [0.01, 0.02], max_disparity=0.1).plot()
    left, right = display.ax_.get_xlim()
    assert left == 0
    assert right > 0.1
    display = TradeoffDisplay([0.8, 0.7], [0.01, 0.7]).plot()
    assert display.band_ is None
    assert display.ax_.get_xlim()[1] > 0.7


def test_marks_differ_in_shape_and_colour():
    display = TradeoffDisplay(
        np.arange(5) / 5, np.arange(5) / 10, marked={f"mark {i}": i for i in range(5)}
    ).plot()
    looks = {(mark.get_marker(), mark.get_color()) for mark in display.marked_.values()}
    assert len({marker for marker, _ in looks}) == len({color for _, color in looks}) == 5


def test_draws_into_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    display = TradeoffDisplay([0.5], [0.1]).plot(right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


def test_scatter_settings_win():
    display = TradeoffDisplay([0.5], [0.1]).plot(scatter_kw={"alpha": 1, "label": "networks"})
    assert display.candidates_.get_alpha() == 1
    assert labels(display) == ["networks"]


def test_of_a_debiaser():
    display = TradeoffDisplay.from_estimator(debiaser(3))
    assert position(display, "original network") == (0.31, 0.82)
    assert position(display, "threshold only") == (0.03, 0.6)
    assert position(display, "chosen") == (0.04, 0.75)
    assert display.max_disparity == 0.05
    assert display.ax_.get_xlabel() == "|bias|, equal opportunity"
    assert display.ax_.get_ylabel() == "balanced accuracy"


def test_of_a_debiaser_that_chose_another_threshold_only():
    display = TradeoffDisplay.from_estimator(debiaser(1))
    assert set(display.marked) == {"original network", "chosen: threshold only"}
    assert position(display, "chosen: threshold only") == (0.03, 0.6)


def test_names_of_callables():
    def worst_gap(y_true, y_pred, *, sensitive_features):
        return 0.0

    display = TradeoffDisplay.from_estimator(debiaser(3, constraint=worst_gap))
    assert display.ax_.get_xlabel() == "|bias|, worst gap"


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [(ThresholdDebiaser, {}), (RandomPerturbationDebiaser, {"n_trials": 5, "random_state": 0})],
)
def test_fitted_debiasers(kind, parameters):
    rng = np.random.default_rng(0)
    group, y = rng.integers(2, size=(2, 300))
    X = np.column_stack([y + rng.normal(size=300), group]).astype(np.float32)
    network = torch.nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 1.0]]))
        network.bias.fill_(-1.0)
    fitted = kind(network, output="logits", **parameters)
    fitted.fit(X, y, sensitive_features=group)
    figure, ax = plt.subplots()
    display = TradeoffDisplay.from_estimator(fitted, ax=ax)
    assert display.figure_ is figure
    chosen = next(name for name in display.marked_ if name.startswith("chosen"))
    assert position(display, chosen) == pytest.approx((abs(fitted.bias_), fitted.performance_))
    figure.canvas.draw()


RESULTS = {
    "params": [{}] * 5,
    "mean_test_accuracy": np.array([0.9, 0.8, np.nan, 0.85, 0.9]),
    "split0_test_accuracy": np.array([0.91, 0.8, np.nan, 0.88, 0.94]),
    "split1_test_accuracy": np.array([0.89, 0.8, np.nan, 0.82, 0.86]),
    "mean_test_parity": np.array([-0.3, -0.04, -0.01, -0.1, -0.2]),
    "split0_test_parity": np.array([-0.3, -0.04, -0.01, -0.06, -0.2]),
    "split1_test_parity": np.array([-0.3, -0.04, -0.01, -0.14, -0.2]),
}
NAMES = {"performance": "accuracy", "disparity": "parity"}


def search_of(best_index, results=RESULTS, max_disparity=0.1):
    """What the display reads of a fitted search."""
    refit = constrained_refit(**NAMES, max_disparity=max_disparity)
    return SimpleNamespace(cv_results_=results, refit=refit, scoring=None, best_index_=best_index)


def test_front():
    display = TradeoffDisplay([0.5, 0.9, 0.8, 0.7], [0.1, 0.4, 0.2, 0.3]).plot()
    corners = [(0.1, 0.5), (0.2, 0.5), (0.2, 0.8), (0.4, 0.8), (0.4, 0.9)]
    xy = display.front_.get_xydata()
    steps = [
        tuple(point) for i, point in enumerate(xy) if i == 0 or tuple(point) != tuple(xy[i - 1])
    ]
    assert steps == corners
    assert display.front_.get_drawstyle() == "default"
    assert labels(display) == ["4 candidates", "Pareto front"]


@pytest.mark.parametrize(
    "numbers",
    [([0.5, 0.9], [0.1, 0.4]), ([0.5, 0.9, 0.4], [0.1, 0.05, 0.2]), ([0.5] * 3, [0.1] * 3)],
)
def test_no_front_of_two_or_of_one_that_beats_all(numbers):
    display = TradeoffDisplay(*numbers).plot()
    assert display.front_ is None
    assert labels(display) == [f"{len(numbers[0])} candidates"]


def test_standard_errors():
    display = TradeoffDisplay(
        [0.5, 0.9], [0.1, 0.4], performance_error=[0.02, np.nan], disparity_error=[0.01, 0.03]
    ).plot()
    across, upright = display.errors_.lines[2]
    np.testing.assert_allclose(across.get_segments()[0], [[0.09, 0.5], [0.11, 0.5]])
    np.testing.assert_allclose(across.get_segments()[1], [[0.37, 0.9], [0.43, 0.9]])
    np.testing.assert_allclose(upright.get_segments()[0], [[0.1, 0.48], [0.1, 0.52]])
    assert labels(display) == ["2 candidates ± standard error"]
    assert TradeoffDisplay([0.5], [0.1]).plot().errors_ is None


def test_candidates_without_numbers_are_left_out_and_keep_their_place():
    display = TradeoffDisplay(
        [0.8, np.nan, 0.6, 0.7], [0.3, 0.1, np.inf, 0.2], marked={"last": 3}
    ).plot()
    np.testing.assert_array_equal(display.candidates_.get_offsets(), [[0.3, 0.8], [0.2, 0.7]])
    assert position(display, "last") == (0.2, 0.7)
    assert labels(display) == ["2 of 4 candidates", "last"]


def test_of_results():
    display = TradeoffDisplay.from_cv_results(RESULTS, **NAMES, max_disparity=0.1, chosen=3)
    np.testing.assert_array_equal(
        display.candidates_.get_offsets(), [[0.3, 0.9], [0.04, 0.8], [0.1, 0.85], [0.2, 0.9]]
    )
    assert position(display, "chosen") == (0.1, 0.85)
    assert display.marked_["chosen"].get_marker() == "*"
    # By hand: the spread of two folds, d apart, is d / sqrt(2), divided by sqrt(2).
    np.testing.assert_allclose(display.performance_error, [0.01, 0, np.nan, 0.03, 0.04])
    np.testing.assert_allclose(display.disparity_error, [0, 0, np.nan, 0.04, 0], atol=1e-15)
    assert labels(display) == [
        "within 0.1",
        "4 of 5 candidates ± standard error",
        "Pareto front",
        "chosen",
    ]
    assert display.ax_.get_xlabel() == "disparity, parity"
    assert display.ax_.get_ylabel() == "accuracy"
    display = TradeoffDisplay.from_cv_results(pd.DataFrame(RESULTS), **NAMES)
    assert display.marked == {}
    assert display.band_ is None


def test_of_results_without_folds():
    means = {key: value for key, value in RESULTS.items() if not key.startswith("split")}
    assert TradeoffDisplay.from_cv_results(means, **NAMES).errors_ is None


def test_of_a_search():
    display = TradeoffDisplay.from_estimator(search_of(3))
    # Of the two most accurate ones, the less disparate.
    assert display.marked == {"best performance": 4, "chosen": 3}
    assert display.max_disparity == 0.1
    display = TradeoffDisplay.from_estimator(search_of(0, max_disparity=0.5))
    assert display.marked == {"chosen": 0}


def test_of_a_fitted_search():
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, 200))
    X = np.column_stack([y + group + rng.normal(size=200), rng.normal(size=200)])
    search = GridSearchCV(
        LogisticRegression(),
        {"C": [1e-4, 1e-2, 1.0]},
        scoring={"accuracy": "accuracy", "parity": make_fairness_scorer("demographic_parity")},
        refit=constrained_refit(**NAMES, max_disparity=0.9),
        cv=GroupStratifiedKFold(3),
    )
    with sklearn.config_context(enable_metadata_routing=True):
        search.fit(X, y, sensitive_features=group)
    figure, ax = plt.subplots()
    display = TradeoffDisplay.from_estimator(search, ax=ax, scatter_kw={"s": 50})
    assert display.figure_ is figure
    assert position(display, "chosen") == (
        -search.cv_results_["mean_test_parity"][search.best_index_],
        search.cv_results_["mean_test_accuracy"][search.best_index_],
    )
    assert display.candidates_.get_sizes() == [50]


def test_searches_that_cannot_be_shown():
    with pytest.raises(TypeError, match=r"GridSearchCV that is not fitted"):
        TradeoffDisplay.from_estimator(GridSearchCV(DummyClassifier(), {}))
    search = GridSearchCV(DummyClassifier(), {}, cv=2).fit([[0]] * 4, [0, 1, 0, 1])
    with pytest.raises(TypeError, match=r"refit=True.*from_cv_results\(search.cv_results_"):
        TradeoffDisplay.from_estimator(search)


def test_results_that_cannot_be_shown():
    with pytest.raises(TypeError, match="cv_results is a list"):
        TradeoffDisplay.from_cv_results([], **NAMES)
    with pytest.raises(
        ValueError, match=r"disparity='odds' is not one of .*\['accuracy', 'parity'\]"
    ):
        TradeoffDisplay.from_cv_results(RESULTS, performance="accuracy", disparity="odds")
    with pytest.raises(ValueError, match=r"performance='f1' is not one of"):
        TradeoffDisplay.from_cv_results(RESULTS, performance="f1", disparity="parity")
    with pytest.raises(ValueError, match=r"'accuracy' scored 0.94, above zero.*-0\.1"):
        TradeoffDisplay.from_cv_results(RESULTS, performance="parity", disparity="accuracy")
    with pytest.raises(ValueError, match=r"without a finite .*\{'chosen': 2\}"):
        TradeoffDisplay.from_cv_results(RESULTS, **NAMES, chosen=2)
    with pytest.raises(ValueError, match=r"no candidate has: \{'chosen': 5\}"):
        TradeoffDisplay.from_cv_results(RESULTS, **NAMES, chosen=5)
    nothing = RESULTS | {"mean_test_parity": np.full(5, np.nan)}
    with pytest.raises(ValueError, match="None of 5 candidates has a finite"):
        TradeoffDisplay.from_cv_results(nothing, **NAMES)
    assert plt.get_fignums() == []


@pytest.fixture
def models():
    """Labels, predictions of eight models, and groups."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=300), rng.choice(["f", "m"], 300)
    right = np.linspace(0.6, 0.9, 8)
    names = ["logistic regression", "random forest", "gradient boosting", "reweighted"]
    names += ["ThresholdOptimizer", "ExponentiatedGradient", "adversarial", "group DRO"]
    predictions = {}
    for i, (name, share) in enumerate(zip(names, right, strict=True)):
        y_pred = np.where(rng.random(300) < share, y, 1 - y)
        favoured = (group == "m") & (rng.random(300) < i / 15)
        predictions[name] = np.where(favoured, 1, y_pred)
    return y, predictions, group


def test_of_predictions(models):
    y, predictions, group = models
    predictions = {name: predictions[name] for name in list(predictions)[:5]}
    display = TradeoffDisplay.from_predictions(
        y, predictions, sensitive_features=group, max_disparity=0.1
    )
    for name, y_pred in predictions.items():
        parity = demographic_parity_difference(y, y_pred, sensitive_features=group)
        assert position(display, name) == pytest.approx((parity, accuracy_score(y, y_pred)))
    assert labels(display) == ["within 0.1", "Pareto front", *predictions]
    assert len({mark.get_marker() for mark in display.marked_.values()}) == 5
    assert display.ax_.get_xlabel() == "demographic parity difference"
    assert display.ax_.get_ylabel() == "accuracy"


@pytest.mark.parametrize("performance", ["worst_group_accuracy", worst_group_accuracy_score])
def test_of_predictions_by_other_metrics(models, performance):
    y, predictions, group = models
    display = TradeoffDisplay.from_predictions(
        y,
        predictions,
        sensitive_features=group,
        performance=performance,
        disparity=equalized_odds_difference,
    )
    for name, y_pred in predictions.items():
        odds = equalized_odds_difference(y, y_pred, sensitive_features=group)
        worst = min(
            np.mean(y_pred[(y == c) & (group == g)] == c) for c in (0, 1) for g in ("f", "m")
        )
        assert position(display, name) == pytest.approx((odds, worst))
    assert display.ax_.get_xlabel() == "equalized odds difference"
    assert display.ax_.get_ylabel() == "worst group accuracy"


def test_positive_label_goes_where_there_is_one(models):
    y, predictions, group = models
    words = np.array(["no", "yes"])
    named = {name: words[y_pred] for name, y_pred in predictions.items()}
    arguments = {"sensitive_features": group, "pos_label": "no"}
    display = TradeoffDisplay.from_predictions(words[y], named, **arguments)
    parity = demographic_parity_difference(y, predictions["reweighted"], sensitive_features=group)
    assert position(display, "reweighted")[0] == pytest.approx(parity)
    display = TradeoffDisplay.from_predictions(words[y], named, performance=f1_score, **arguments)
    wanted = f1_score(y, predictions["reweighted"], pos_label=0)
    assert position(display, "reweighted")[1] == pytest.approx(wanted)

    def gap(y_true, y_pred, *, sensitive_features):
        return abs(np.mean(y_pred[group == "f"] == "no") - np.mean(y_pred[group == "m"] == "no"))

    display = TradeoffDisplay.from_predictions(words[y], named, disparity=gap, **arguments)
    assert position(display, "reweighted")[0] == pytest.approx(parity)


def test_many_models_have_their_names_beside_them(models):
    y, predictions, group = models
    display = TradeoffDisplay.from_predictions(y, predictions, sensitive_features=group)
    assert labels(display) == ["Pareto front"]
    assert [label.get_text() for label in display.labels_] == list(predictions)
    display.figure_.canvas.draw()
    boxes = [matplotlib.text.Text.get_window_extent(label) for label in display.labels_]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = display.ax_.get_window_extent()
    for label, box, name in zip(display.labels_, boxes, predictions, strict=True):
        assert label.xy == pytest.approx(position(display, name))
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
    points = display.ax_.transData.transform([label.xy for label in display.labels_])
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_names_of_a_dense_cluster_have_lines_to_their_points():
    rng = np.random.default_rng(0)
    display = TradeoffDisplay(
        [*(0.8 + 0.001 * rng.random(7)), 0.5],
        [*np.full(7, 0.1), 0.8],
        marked={f"a long name {i}": i for i in range(8)},
    ).plot()
    shown = [label.arrow_patch.get_visible() for label in display.labels_]
    assert any(shown)
    assert not shown[-1]
    boxes = [matplotlib.text.Text.get_window_extent(label) for label in display.labels_]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_names_fit_a_subfigure_and_settings_stay(models):
    y, predictions, group = models
    before = dict(plt.rcParams)
    part = plt.figure(figsize=(12, 4)).subfigures(1, 2)[1]
    display = TradeoffDisplay.from_predictions(
        y, predictions, sensitive_features=group, ax=part.subplots()
    )
    assert display.figure_ is part
    assert len(display.labels_) == 8
    assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"performance": "accuracy"}, TypeError, "performance='accuracy' is neither"),
        ({"performance": zero_one_loss}, ValueError, "zero_one_loss is a loss"),
        ({"performance": log_loss}, ValueError, "log_loss is a loss"),
        (
            {"disparity": "parity"},
            TypeError,
            r"disparity='parity' is neither.*'demographic_parity'",
        ),
        ({"disparity": "worst_group_accuracy"}, TypeError, "is neither"),
        ({"disparity": accuracy_score}, TypeError, "takes sensitive_features"),
        ({"disparity": demographic_parity_ratio}, ValueError, "is 1 if groups are equal"),
        (
            {"disparity": lambda *y, **groups: demographic_parity_ratio(*y, **groups)},
            ValueError,
            "is 1 if groups are equal",
        ),
        ({"predictions": np.zeros(300)}, TypeError, "predictions is a ndarray, expected a dict"),
        ({"predictions": {}}, ValueError, "predictions is empty"),
        ({"sensitive_features": np.zeros(300, int)}, ValueError, "one group"),
        ({"predictions": {"a": np.zeros(3, int)}}, ValueError, "has 3 values, y_true has 300"),
    ],
)
def test_predictions_that_cannot_be_shown(models, arguments, error, words):
    y, predictions, group = models
    arguments = {"predictions": predictions, "sensitive_features": group} | arguments
    with pytest.raises(error, match=words):
        TradeoffDisplay.from_predictions(y, **arguments)
    assert plt.get_fignums() == []


def test_of_a_report(models):
    y, predictions, group = models
    predictions = {name: predictions[name] for name in list(predictions)[:3]}
    report = fairness_report(y, predictions, sensitive_features=group)
    display = TradeoffDisplay.from_report(report, max_disparity=0.1)
    table = report.disparities
    for i, (name, y_pred) in enumerate(predictions.items()):
        parity = demographic_parity_difference(y, y_pred, sensitive_features=group)
        assert position(display, name) == pytest.approx((parity, accuracy_score(y, y_pred)))
        across, upright = (lines.get_segments()[i] for lines in display.errors_.lines[2])
        gap = table.loc[("selection_rate", "difference")]
        np.testing.assert_allclose(across[:, 0], [gap[name, "low"], gap[name, "high"]])
        np.testing.assert_allclose(across[:, 1], accuracy_score(y, y_pred))
        hits = int((y == y_pred).sum())
        ends = binomtest(hits, len(y)).proportion_ci(method="wilson")
        np.testing.assert_allclose(upright[:, 1], [ends.low, ends.high])
    assert labels(display) == ["within 0.1", "Pareto front", "95 % interval", *predictions]
    assert display.ax_.get_xlabel() == "selection rate difference"
    display = TradeoffDisplay.from_report(report, disparity="true_positive_rate")
    assert display.ax_.get_xlabel() == "true positive rate difference"


def test_of_a_report_without_small_groups(models):
    y, predictions, _ = models
    y_pred = predictions["reweighted"]
    group = np.repeat(["few", "a", "b"], [5, 145, 150])
    report = fairness_report(y, {"m": y_pred}, sensitive_features=group, n_boot=0)
    display = TradeoffDisplay.from_report(report)
    assert display.disparity == pytest.approx(abs(y_pred[5:150].mean() - y_pred[150:].mean()))
    group = np.repeat(["few", "all"], [5, 295])
    report = fairness_report(y, {"m": y_pred}, sensitive_features=group, n_boot=0)
    with pytest.raises(ValueError, match="None of 1 candidates has a finite"):
        TradeoffDisplay.from_report(report)


def test_reports_that_cannot_be_shown(models):
    y, predictions, group = models
    arguments = {"sensitive_features": group, "n_boot": 0}
    with pytest.raises(TypeError, match=r"report is a dict.*from_predictions"):
        TradeoffDisplay.from_report(predictions)
    report = fairness_report(y, predictions, **arguments)
    for key in ("performance", "disparity"):
        with pytest.raises(ValueError, match=rf"{key}='f1' is not in the report.*'accuracy'"):
            TradeoffDisplay.from_report(report, **{key: "f1"})
    with pytest.raises(ValueError, match="'false_positive_rate' is a loss or an error"):
        TradeoffDisplay.from_report(report, performance="false_positive_rate")
    report = fairness_report(y, predictions, control_features={"region": group[::-1]}, **arguments)
    with pytest.raises(ValueError, match=r"control features \['region'\]"):
        TradeoffDisplay.from_report(report)
    assert plt.get_fignums() == []


def test_names_on_demand():
    display = TradeoffDisplay(
        [0.5, 0.9, np.nan, 0.7], [0.1, 0.4, 0.2, 0.3], marked={"chosen": 3}
    ).plot(annotate=True)
    told = {label.get_text(): label.xy for label in display.labels_}
    assert list(told) == ["chosen", "0", "1"]
    np.testing.assert_allclose(list(told.values()), [(0.3, 0.7), (0.1, 0.5), (0.4, 0.9)])
    assert TradeoffDisplay([0.5], [0.1]).plot().labels_ == []


def test_the_better_corner_is_marked():
    display = TradeoffDisplay([0.5, 0.9], [0.1, 0.4]).plot()
    assert display.better_.get_text() == "better"
    (tip_x, tip_y), (x, y) = display.better_.xy, display.better_.xyann
    assert tip_x < x
    assert tip_y > y


def contrast_to_white(color):
    """Contrast as the Web Content Accessibility Guidelines 2.1 define it."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_points_have_a_contrast_of_three_to_one():
    assert contrast_to_white("white") == pytest.approx(1)
    assert contrast_to_white("black") == pytest.approx(21)
    display = TradeoffDisplay(
        np.arange(6) / 6, np.arange(6) / 10, marked={f"mark {i}": i for i in range(5)}
    ).plot()
    colors = [mark.get_color() for mark in display.marked_.values()]
    ((red, green, blue, alpha),) = display.candidates_.get_facecolors()
    colors.append(1 - alpha * (1 - np.array([red, green, blue])))
    assert min(map(contrast_to_white, colors)) >= 3


def test_the_chosen_one_is_visible_in_a_dark_style():
    with plt.style.context("dark_background"):
        display = TradeoffDisplay([0.5], [0.1], marked={"chosen": 0}).plot()
    assert contrast_to_white(display.marked_["chosen"].get_color()) == pytest.approx(1)


def test_names_of_strangers():
    names = ["_hidden", "$x$", "n" * 70]
    display = TradeoffDisplay(
        [0.5, 0.6, 0.7], [0.1, 0.2, 0.3], marked={name: i for i, name in enumerate(names)}
    ).plot()
    display.figure_.canvas.draw()
    told = labels(display)[-3:]
    assert told[:2] == ["_hidden", r"\$x\$"]
    assert told[2].replace("\n", "") == names[2]
    assert display.ax_.get_legend().get_window_extent().x1 <= display.figure_.bbox.x1


def test_intervals_that_do_not_fit():
    for name in ("performance_interval", "disparity_interval"):
        for interval in ([[0.1, 0.2]], [[0.3, 0.3], [0.2, 0.4]]):
            with pytest.raises(ValueError, match=rf"{name} has shape.*low ends"):
                TradeoffDisplay([0.5, 0.6], [0.1, 0.2], **{name: interval})
    with pytest.raises(ValueError, match="Standard errors and intervals"):
        TradeoffDisplay([0.5], [0.1], performance_error=[0.1], disparity_interval=[[0.1], [0.2]])


def test_errors_name_the_model(models):
    y, predictions, group = models
    with pytest.raises(ValueError, match="has 2 values") as caught:
        TradeoffDisplay.from_predictions(
            y, predictions | {"late": [0, 1]}, sensitive_features=group
        )
    assert caught.value.__notes__ == ["Raised for predictions['late']."]


@pytest.mark.parametrize("error", [[0.1], [0.1, -0.1]])
def test_standard_errors_that_do_not_fit(error):
    for name in ("performance_error", "disparity_error"):
        with pytest.raises(ValueError, match=rf"{name} has shape.*of 0 or more"):
            TradeoffDisplay([0.5, 0.6], [0.1, 0.2], **{name: error})


def test_estimator_without_trials():
    with pytest.raises(TypeError, match=r"Threshold.* without .*trials_.*Fit it first"):
        TradeoffDisplay.from_estimator(ThresholdDebiaser(torch.nn.Linear(2, 1)))


def test_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match=r"performance has shape \(2,\).*\(1,\)"):
        TradeoffDisplay([0.5, 0.6], [0.1])
    with pytest.raises(ValueError, match="one number a candidate"):
        TradeoffDisplay([[0.5]], [[0.1]])
    for outside in (1, -1):
        with pytest.raises(ValueError, match="marked has positions"):
            TradeoffDisplay([0.5], [0.1], marked={"chosen": outside})


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    display = TradeoffDisplay([0.5], [0.1])
    with pytest.raises(ImportError, match=r"TradeoffDisplay needs .*skfair-debias\[plot\]"):
        display.plot()
