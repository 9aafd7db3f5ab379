"""FairnessMonitorDisplay: panels, gaps, the limit and alarms."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt

from skfair.monitoring import FairnessMonitor, FairnessMonitorDisplay


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def monitor():
    monitor = FairnessMonitor("min(accuracy) >= 0.7")
    for week in range(10):
        groups = [g for g in range(15) if not (g == 1 and 3 <= week < 6)]
        y = np.ones(40 * len(groups), int)
        sex = np.repeat([f"g{g:02d}" for g in groups], 40)
        right = np.tile(np.arange(40), len(groups)) < np.where((sex == "g02") & (week > 4), 10, 34)
        monitor.update(y, right.astype(int), sensitive_features={"sex": sex}, window=week)
    return monitor


def test_groups_with_alarms_come_first_and_the_rest_is_counted(monitor):
    display = FairnessMonitorDisplay.from_monitor(monitor)
    assert len(display.axes_) == 12
    assert display.shown_[0] == "g02"
    (legend,) = display.figure_.legends
    assert legend.get_title().get_text() == "12 of 15 groups, worst first"
    assert {"alarm", "limit 0.7"} <= {text.get_text() for text in legend.get_texts()}


def test_a_window_without_a_group_is_a_gap(monitor):
    display = FairnessMonitorDisplay.from_monitor(monitor, groups=["g01", "g02"])
    assert display.shown_ == ["g01", "g02"]
    line = next(line for line in display.axes_[0].lines if line.get_marker() == ".")
    assert np.flatnonzero(np.isnan(line.get_ydata())).tolist() == [3, 4, 5]
    assert line.get_ydata()[0] == 34 / 40


def test_the_alarm_is_marked_in_its_window(monitor):
    (alarm,) = monitor.alarms_
    ax = FairnessMonitorDisplay.from_monitor(monitor, groups=["g02"]).axes_[0]
    mark = next(line for line in ax.lines if line.get_marker() == "v")
    assert list(mark.get_xdata()) == [alarm.window]
    assert alarm.since == 5


def test_other_metrics_have_no_limit_and_no_alarms(monitor):
    display = FairnessMonitorDisplay.from_monitor(monitor, metric="selection_rate")
    assert display.limit is None
    assert display.alarms == []
    assert display.metric_name == "selection rate"


def test_long_names_are_wrapped_and_hostile_names_escaped():
    values = np.full((2, 2), 0.5)
    names = ["x" * 70, "a\x1b[2J$\\frac"]
    display = FairnessMonitorDisplay(values, values, values, names, [1, 2]).plot(names)
    titles = [ax.get_title(loc="left") for ax in display.axes_]
    assert titles[0].replace("\n", "") == "x" * 70
    assert max(map(len, titles[0].split("\n"))) <= 30
    assert "\x1b" not in titles[1]
    display.figure_.draw_without_rendering()


def test_bad_arguments(monitor):
    with pytest.raises(TypeError, match="monitor is a int"):
        FairnessMonitorDisplay.from_monitor(3)
    with pytest.raises(ValueError, match="groups has 'z', expected some of"):
        FairnessMonitorDisplay.from_monitor(monitor, groups=["z"])
    with pytest.raises(ValueError, match="groups has no labels"):
        FairnessMonitorDisplay.from_monitor(monitor, groups=[])
    with pytest.raises(ValueError, match="max_groups=0"):
        FairnessMonitorDisplay.from_monitor(monitor, max_groups=0)
    with pytest.raises(ValueError, match="share of samples"):
        FairnessMonitorDisplay.from_monitor(monitor, metric="f1")
    with pytest.raises(ValueError, match="no windows"):
        FairnessMonitorDisplay.from_monitor(FairnessMonitor("min(accuracy) >= 0.7"))
    with pytest.raises(ValueError, match=r"low has shape \(1,\)"):
        FairnessMonitorDisplay([[1]], [1], [[1]], ["a"], [1])
