"""Fairness over time: counts by window, and alarms that stay valid however often one looks."""

from skfair.monitoring._alarm import FairnessAlarm
from skfair.monitoring._display import FairnessMonitorDisplay
from skfair.monitoring._monitor import FairnessMonitor
from skfair.monitoring._state import InvalidMonitorError

__all__ = ["FairnessAlarm", "FairnessMonitor", "FairnessMonitorDisplay", "InvalidMonitorError"]
