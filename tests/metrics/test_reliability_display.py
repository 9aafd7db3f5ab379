"""The reliability diagram: what is drawn where, for one model and for several."""

import sys

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy.stats import binom, binomtest
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skfair.metrics import ReliabilityDisplay, expected_calibration_error
from skfair.metrics._intervals import exact_interval

# Bins of 0.2: one of two right at 0.5, three of four at 0.9.
Y = [0, 1, 0, 0, 0, 1]
P = [0.5, 0.5, 0.1, 0.1, 0.1, 0.1]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def display():
    return ReliabilityDisplay.from_predictions(Y, P, n_bins=5, name="model")


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def simulate(seed, sharpness, n_classes=2, n=3000):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (proba.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return y, proba**sharpness / (proba**sharpness).sum(axis=1, keepdims=True)


def test_numbers(display):
    np.testing.assert_allclose(display.accuracy, [np.nan, np.nan, 0.5, np.nan, 0.75])
    np.testing.assert_allclose(display.confidence, [np.nan, np.nan, 0.5, np.nan, 0.9])
    np.testing.assert_allclose(display.share, [0, 0, 1 / 3, 0, 2 / 3])
    error = expected_calibration_error(Y, P, n_bins=5)
    assert display.expected_calibration_error == pytest.approx(error)
    assert error == pytest.approx(2 / 3 * 0.15)


def test_points_gaps_and_shares(display):
    np.testing.assert_allclose(display.line_.get_xydata(), [[0.5, 0.5], [0.9, 0.75]])
    np.testing.assert_allclose(
        display.gaps_.get_segments(), [[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.9], [0.9, 0.75]]]
    )
    shares, edges, _ = display.bars_.get_data()
    np.testing.assert_allclose(shares, display.share)
    np.testing.assert_allclose(edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    diagonal = next(line for line in display.ax_.lines if line is not display.line_)
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    assert [text.get_text() for text in display.share_ax_.texts] == ["share of samples, up to 67%"]
    assert display.ax_.get_xlabel() == "confidence"
    assert display.ax_.get_ylabel() == "accuracy"


def test_legend_tells_the_error(display):
    assert labels(display) == ["model (ECE 0.100)"]
    assert labels(ReliabilityDisplay.from_predictions(Y, P, n_bins=5)) == ["ECE 0.100"]
    assert labels(display.plot(name="other")) == ["other (ECE 0.100)"]


@pytest.mark.parametrize(
    ("y", "proba", "low"),
    [
        ([0, 1, 1, 1], [0.05, 0.95, 0.9, 0.6], 0.5),
        ([0, 1, 0, 0], [0.05, 0.95, 0.9, 0.6], 0.0),
        ([0, 1, 2], [[0.4, 0.3, 0.3]] * 3, 0.3),
    ],
)
def test_everything_is_in_sight(y, proba, low):
    display = ReliabilityDisplay.from_predictions(y, proba)
    display.figure_.canvas.draw()
    assert display.ax_.get_xlim() == (low, 1.01)
    # Accuracy begins where the strip for the shares ends.
    top_of_strip = display.share_ax_.get_position().y1
    to_figure = display.figure_.transFigure.inverted()
    start = to_figure.transform(display.ax_.transData.transform((low, low)))
    np.testing.assert_allclose(start[1], top_of_strip, atol=1e-6)
    assert min(display.ax_.get_yticks()) >= low
    # The strip is under the points, not beside them: both have the same confidences.
    assert display.share_ax_.get_xlim() == display.ax_.get_xlim()
    assert display.share_ax_.get_ylim()[1] > display.share.max()


def test_two_models_in_one_picture():
    y, proba = simulate(0, 1)
    one = ReliabilityDisplay.from_predictions(y, proba, name="one")
    # Less sure, and of more classes: the picture has to begin further down.
    two = ReliabilityDisplay.from_predictions(
        *simulate(1, 0.6, n_classes=5), name="two", ax=one.ax_
    )
    assert two.ax_ is one.ax_
    assert two.share_ax_ is one.share_ax_
    assert len(one.ax_.child_axes) == 1
    assert [text.split()[0] for text in labels(two)] == ["one", "two"]
    assert len(one.ax_.lines) == 3  # a single diagonal
    assert one.line_.get_color() != two.line_.get_color()
    assert one.line_.get_marker() != two.line_.get_marker()
    assert one.ax_.get_xlim()[0] <= two.confidence[two.share > 0].min()
    highest = max(one.share.max(), two.share.max())
    assert one.share_ax_.texts[0].get_text() == f"share of samples, up to {highest:.0%}"
    # In the other order it is the same picture.
    other = ReliabilityDisplay(two.accuracy, two.confidence, two.share).plot()
    ReliabilityDisplay(one.accuracy, one.confidence, one.share).plot(other.ax_)
    assert other.ax_.get_xlim() == one.ax_.get_xlim()
    assert other.ax_.get_ylim() == one.ax_.get_ylim()
    assert other.share_ax_.get_ylim() == one.share_ax_.get_ylim()


def test_five_models_differ_in_shape_and_colour():
    _, ax = plt.subplots()
    lines = [ReliabilityDisplay([0.5], [0.6], [1]).plot(ax).line_ for _ in range(5)]
    assert len({line.get_color() for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5


def test_draws_into_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    display = ReliabilityDisplay.from_predictions(Y, P, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("layout", ["constrained", "tight", None])
def test_nothing_sticks_out(layout):
    figure, ax = plt.subplots(figsize=(3, 2.4), layout=layout)
    display = ReliabilityDisplay.from_predictions(*simulate(0, 2), name="a model", ax=ax)
    figure.canvas.draw()
    inside = display.share_ax_.get_window_extent()
    assert ax.get_window_extent().padded(1).containsx(inside.x0)
    assert ax.get_window_extent().padded(1).containsy(inside.y0)
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 > inside.y1
    points = ax.transData.transform(display.line_.get_xydata())
    assert not any(legend.contains(*point) for point in points)


def test_line_settings_win():
    display = ReliabilityDisplay.from_predictions(
        Y, P, line_kw={"color": "black", "marker": "x", "label": "mine"}
    )
    assert display.line_.get_marker() == "x"
    assert labels(display) == ["mine"]
    assert display.gaps_.get_color()[0][:3].tolist() == [0, 0, 0]
    assert display.bars_.get_facecolor() == (0, 0, 0, 0.3)


def test_weights_and_labels_are_passed_on():
    display = ReliabilityDisplay.from_predictions(
        ["b", "b"], [0.9, 0.6], n_bins=5, labels=["a", "b"], sample_weight=[3, 1]
    )
    np.testing.assert_allclose(display.share, [0, 0, 0.25, 0, 0.75])
    assert display.expected_calibration_error == pytest.approx(0.75 * 0.1 + 0.25 * 0.4)


def test_of_an_estimator():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = np.array(["no", "maybe", "yes"])[(X[:, 0] + rng.normal(size=300) > [[-1], [1]]).sum(0)]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    some = y != "yes"  # a class that does not occur is one of the model's still
    weight = rng.random(300)
    display = ReliabilityDisplay.from_estimator(
        model, X[some], y[some], n_bins=10, sample_weight=weight[some]
    )
    expected = expected_calibration_error(
        y[some],
        model.predict_proba(X[some]),
        n_bins=10,
        labels=["maybe", "no", "yes"],
        sample_weight=weight[some],
    )
    assert display.expected_calibration_error == pytest.approx(expected)
    assert labels(display) == [f"Pipeline (ECE {expected:.3f})"]
    _, ax = plt.subplots()
    assert ReliabilityDisplay.from_estimator(model, X, y, name="own", ax=ax).ax_ is ax
    assert labels(ReliabilityDisplay.from_estimator(model, X, y, name="own"))[0].startswith("own (")


def test_estimators_that_will_not_do():
    with pytest.raises(TypeError, match=r"LinearSVC, which has no predict_proba.*Calibrated"):
        ReliabilityDisplay.from_estimator(LinearSVC(), [[0]], [0])
    with pytest.raises(NotFittedError):
        ReliabilityDisplay.from_estimator(DummyClassifier(), [[0]], [0])


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="do not sum to one"):
        ReliabilityDisplay.from_predictions([0, 1], [[0.5, 0.6], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"n_bins=0"):
        ReliabilityDisplay.from_predictions([0, 1], [0.5, 0.5], n_bins=0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (([0.5, 0.6], [0.5], [1]), r"shapes \[\(2,\), \(1,\), \(1,\)\].*n_bins"),
        ((0.5, 0.5, 1), "one number a bin"),
        (([0.5, 0.5], [0.5, 0.5], [20, 20]), r"share is \[20\.0, 20\.0\].*Divide"),
        (([0.5, 0.5], [0.5, 0.5], [2, -1]), "share is"),
        (([], [], []), "share is"),
        (([50, 60], [0.5, 0.5], [0.5, 0.5]), r"accuracy is \[50\.0, 60\.0\].*not percents"),
        (([0.5, 0.5], [0.5, np.nan], [0.5, 0.5]), "confidence is"),
    ],
)
def test_numbers_that_do_not_fit(numbers, message):
    with pytest.raises(ValueError, match=message):
        ReliabilityDisplay(*numbers)


def test_groups():
    group = ["m", "f", "m", "m", "m", "f"]
    display = ReliabilityDisplay.from_predictions(Y, P, n_bins=5, sensitive_features=group)
    assert list(display.by_group) == ["f", "m"]
    for label, part in display.by_group.items():
        of = [i for i, g in enumerate(group) if g == label]
        alone = ReliabilityDisplay.from_predictions(
            [Y[i] for i in of], [P[i] for i in of], n_bins=5, labels=[0, 1]
        )
        for key in ("accuracy", "confidence", "share", "count", "low", "high"):
            np.testing.assert_allclose(getattr(part, key), getattr(alone, key))
        assert part.ax_ is display.ax_
    # By hand: of f, one right at 0.5 and one wrong at 0.9; of m, one wrong and three right.
    np.testing.assert_allclose(display.by_group["f"].line_.get_xydata(), [[0.5, 0], [0.9, 0]])
    np.testing.assert_allclose(display.by_group["m"].line_.get_xydata(), [[0.5, 1], [0.9, 1]])
    assert [text.get_text() for text in display.by_group["m"].counts_] == ["1", "3"]
    assert labels(display) == ["m (n=4, ECE 0.200)", "f (n=2, ECE 0.700)", "95 % interval"]
    assert display.share_ax_.texts[0].get_text() == "number of samples"
    # The model as a whole is still there as numbers.
    np.testing.assert_allclose(display.accuracy, [np.nan, np.nan, 0.5, np.nan, 0.75])


def test_intervals_of_a_bin_are_exact():
    y, proba = simulate(0, 1, n=300)
    display = ReliabilityDisplay.from_predictions(
        y, proba, n_bins=10, sensitive_features=np.arange(300) % 2
    )
    for part in display.by_group.values():
        (lines,) = part.intervals_.lines[2]
        filled = np.flatnonzero(part.share > 0)
        for i, segment in zip(filled, lines.get_segments(), strict=True):
            hits, n = round(part.accuracy[i] * part.count[i]), int(part.count[i])
            ends = binomtest(hits, n).proportion_ci(method="exact")
            np.testing.assert_allclose((part.low[i], part.high[i]), (ends.low, ends.high))
            np.testing.assert_allclose(segment[:, 1], (ends.low, ends.high))
        assert np.isnan(part.low[part.share == 0]).all()


@pytest.mark.parametrize("n", [1, 2, 5, 17, 60])
def test_intervals_keep_their_level(n):
    hits = np.arange(n + 1)
    low, high = exact_interval(hits, np.full(n + 1, n))
    for rate in np.linspace(0.005, 0.995, 199):
        covered = binom.pmf(hits, n, rate)[(low <= rate) & (rate <= high)].sum()
        assert covered >= 0.95 - 1e-9


def test_weights_have_no_intervals():
    display = ReliabilityDisplay.from_predictions(
        Y, P, n_bins=5, sensitive_features=[*"fmfmfm"], sample_weight=[1, 1, 1, 0, 1, 0]
    )
    part = display.by_group["m"]
    assert part.count is part.low is part.intervals_ is None
    assert [text.get_text() for text in part.counts_] == ["100"]
    assert display.share_ax_.texts[0].get_text() == "share of samples, %"
    alone = ReliabilityDisplay.from_predictions(
        Y, P, n_bins=5, sensitive_features=[*"fffffm"], sample_weight=[1, 1, 1, 1, 1, 0]
    )
    assert list(alone.by_group) == ["f"]  # a group without weight is left out


def test_six_groups_at_most():
    y, proba = simulate(0, 1, n=360)
    group = np.repeat(np.arange(8), np.arange(10, 90, 10))
    display = ReliabilityDisplay.from_predictions(y, proba, sensitive_features=group)
    told = labels(display)
    assert [text.partition(" (")[0] for text in told[:6]] == [*"765432"]
    assert told[6:] == ["95 % interval", "and 2 smaller groups"]
    drawn = [part.line_ for part in display.by_group.values() if hasattr(part, "line_")]
    assert len({line.get_color() for line in drawn}) == 6
    assert len({line.get_marker() for line in drawn}) == 6
    display.figure_.canvas.draw()
    strip = display.share_ax_.get_window_extent()
    for part in list(display.by_group.values())[2:]:
        for text in part.counts_:
            box = text.get_window_extent()
            assert strip.x0 <= box.x0
            assert box.x1 <= strip.x1
            assert strip.y0 <= box.y0
            assert box.y1 <= strip.y1


def test_groups_of_an_estimator():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    y, sex = np.where(X[:, 0] > 0, "yes", "no"), rng.choice(["f", "m"], 200)
    model = LogisticRegression().fit(X, y)
    display = ReliabilityDisplay.from_estimator(model, X, y, sensitive_features={"sex": sex})
    assert sum(part.count.sum() for part in display.by_group.values()) == 200
    assert display.ax_.get_ylabel() == "accuracy of LogisticRegression"
    with pytest.raises(ValueError, match="ax already has a reliability diagram"):
        display.plot(display.ax_)
    with pytest.raises(ValueError, match=r"sensitive_features has 3 values"):
        ReliabilityDisplay.from_estimator(model, X, y, sensitive_features=[1, 2, 3])


@pytest.mark.parametrize("count", [[1], [0, 4], [4, 0]])
def test_counts_that_do_not_fit(count):
    with pytest.raises(ValueError, match=r"count is .*samples in the same bins"):
        ReliabilityDisplay([0.5, 0.5], [0.5, 0.5], [0.5, 0.5], count=count)


def test_groups_with_other_bins():
    part = ReliabilityDisplay([0.5], [0.5], [1])
    with pytest.raises(ValueError, match=r"by_group\['f'\] has 1 bins, and the model has 2"):
        ReliabilityDisplay([0.5, 0.5], [0.5, 0.5], [0.5, 0.5], by_group={"f": part})


def test_without_matplotlib(monkeypatch):
    display = ReliabilityDisplay([0.5], [0.5], [1])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"ReliabilityDisplay needs .*skfair-debias\[plot\]"):
        display.plot()
