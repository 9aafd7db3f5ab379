"""The trade-off display: what is drawn where, for numbers and for fitted debiasers."""

import sys
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from skfair.intraprocessing import RandomPerturbationDebiaser, ThresholdDebiaser
from skfair.metrics import TradeoffDisplay


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
    assert labels(display) == ["within 0.1", "3 candidates", "before", "after"]
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
    with pytest.raises(ImportError, match=r"TradeoffDisplay needs .*skfair\[plot\]"):
        display.plot()
