"""The monitor: counts by window, and alarms that stay valid however often one looks."""

import os
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from skfair.metrics import FairnessReport, GroupCounts, count_groups
from skfair.metrics._intervals import wilson_interval
from skfair.metrics._rates import CountMetric, positive_position
from skfair.metrics._rules import FairnessRule
from skfair.monitoring import _state
from skfair.monitoring._alarm import FairnessAlarm, estimate
from skfair.monitoring._watch import RuleWatch, share_metric
from skfair.monitoring._windows import window_name, window_order
from skfair.utils._shown import shown, shown_all
from skfair.utils._write import write_whole

_MOST_RULES = 100


class FairnessMonitor:
    """Watch fairness rules over time, with alarms that stay valid however often one looks.

    Give the monitor the labels and predictions of each window, for instance of each week. The
    counts of a window add up. After each update, the monitor tests each rule on each group, or on
    each pair of groups. The probability that the monitor ever names a group that keeps a rule, or
    a pair of groups that keeps it, is at most ``1 - confidence``: over all updates, rules, models
    and groups together. A group or a pair keeps a rule if it does so in every window.

    Parameters
    ----------
    rules : str, FairnessRule, or sequence of these
        What must hold in every window, as in :meth:`skfair.metrics.FairnessReport.check`:
        ``"difference(selection_rate) <= 0.05"``, ``"ratio(selection_rate) >= 0.8"``,
        ``"min(accuracy) >= 0.7"`` (of every group), ``"max(false_positive_rate) <= 0.1"`` or
        ``"overall(accuracy) >= 0.8"``. Metrics are those that are a share of samples: accuracy,
        zero-one loss, precision, selection rate, and true and false positive and negative rates.
    confidence : float, default=0.95
        One minus the probability of any false alarm ever.
    pos_label : label, default=None
        The positive class of rates. None means 1 if labels are 0 and 1, -1 and 1, or False and
        True.

    Attributes
    ----------
    rules : tuple of FairnessRule
        The rules.
    confidence : float
        As given.
    pos_label : label
        As given.
    alarms_ : list of FairnessAlarm
        All alarms so far, in the order in which they were raised. Each group or pair raises one
        alarm for each rule.

    Raises
    ------
    TypeError, ValueError
        A rule cannot be read or cannot be monitored, or `confidence` is not between 0 and 1.

    See Also
    --------
    FairnessMonitorDisplay : The rates of each group over the windows, as a picture.
    skfair.metrics.fairness_report : All metrics at one time, with intervals.

    Notes
    -----
    What the level needs: given the past, the samples of an update are independent of each other,
    and each sample occurs in one update only. The same person in two windows breaks this, unless
    the outcomes of that person are independent. The rates may drift between windows as long as
    they keep the rule, groups may appear or be absent at any time, and the number of samples of an
    update may depend on everything before that update.

    Alarms follow the order of the updates, not the order of the windows. Late labels of an old
    window are new evidence; they change the counts of the window, but no earlier alarm. For a
    difference or a ratio, an update says something only about groups that both occur in it,
    because rates of different times need not be comparable. Therefore give the samples of a window
    in one update, or in large parts, and not one by one. For all other rules, the sizes of the
    updates matter little.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> monitor = FairnessMonitor("difference(selection_rate) <= 0.05")
    >>> for week in range(1, 21):
    ...     sex = rng.choice(["f", "m"], size=400)
    ...     gap = 0.2 if week > 10 else 0.0
    ...     y_pred = rng.random(400) < np.where(sex == "m", 0.5 + gap, 0.5)
    ...     y_true = rng.random(400) < 0.5
    ...     for alarm in monitor.update(
    ...         y_true, y_pred, sensitive_features={"sex": sex}, window=f"2026-W{week:02d}"
    ...     ):
    ...         print(alarm.groups, alarm.since, alarm.window)
    ('m', 'f') 2026-W11 2026-W13
    >>> len(monitor.windows), monitor.report(["2026-W14"]).counts.size.sum()
    (20, np.int64(400))
    """

    def __init__(
        self,
        rules: str | FairnessRule | Sequence[str | FairnessRule],
        *,
        confidence: float = 0.95,
        pos_label: Any = None,
    ):
        self.rules = _parse(rules)
        self.confidence = _check_confidence(confidence)
        self.pos_label = pos_label
        self.alarms_: list[FairnessAlarm] = []
        self._watches = [RuleWatch(rule) for rule in self.rules]
        self._alarmed: set[tuple[int, int]] = set()  # positions of rule and unit
        self._windows: dict[str | int | float, GroupCounts] = {}  # in the order of arrival
        self._total: GroupCounts | None = None

    @property
    def windows(self) -> tuple:
        """Names of the windows in their order: numbers by value, text with its numbers by value.

        Returns
        -------
        tuple
        """
        return tuple(sorted(self._windows, key=window_order))

    def update(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sensitive_features: Any,
        window: Any,
        control_features: Any = None,
        missing: Literal["error", "group"] = "error",
    ) -> list[FairnessAlarm]:
        """Add samples to a window, and test the rules.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels of any type.
        y_pred : array-like of shape (n_samples,) or dict of str to array-like
            Predicted labels of one model, or of several models by name: in every update the same
            models.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
            Group labels: array, Series, DataFrame or dict of columns (intersections).
        window : str, int, float or date
            Name of the window: text, a number, a date or a ``pandas.Period``. In all updates of
            one kind. A window that was given before is continued.
        control_features : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
            Labels, such as a region. Groups are compared within each level of these labels.
        missing : {"error", "group"}, default="error"
            How missing labels of groups and of control levels are treated: as an error, or as a
            group of their own.

        Returns
        -------
        list of FairnessAlarm
            The alarms that these samples raised.

        Raises
        ------
        TypeError, ValueError
            See :meth:`add` and :func:`skfair.metrics.count_groups`.
        """
        counts = count_groups(
            y_true,
            y_pred,
            sensitive_features=sensitive_features,
            control_features=control_features,
            missing=missing,
        )
        return self.add(counts, window=window)

    def add(self, counts: GroupCounts, *, window: Any) -> list[FairnessAlarm]:
        """Add counts of new samples to a window, and test the rules.

        After an error, the monitor is as before.

        Parameters
        ----------
        counts : GroupCounts
            What :func:`skfair.metrics.count_groups` returns, without weights. Counts of samples
            that the monitor has not seen yet.
        window : str, int, float or date
            As in :meth:`update`.

        Returns
        -------
        list of FairnessAlarm
            The alarms that these samples raised.

        Raises
        ------
        TypeError
            `counts` is not a GroupCounts, or `window` is not a name.
        ValueError
            The samples have weights, models or features differ from those of earlier windows, the
            positive class is not clear, or a rule would compare more than 20,000 pairs of groups.
        """
        _check_counts(counts)
        name = window_name(window)
        if any(isinstance(name, str) != isinstance(old, str) for old in self._windows):
            raise TypeError(
                f"window={shown(name)}, but earlier windows are {shown_all(self.windows)}. Give "
                "all windows as text, or all as numbers, so that they have an order."
            )
        total = counts if self._total is None else self._total + counts
        steps = []
        for watch in self._watches:
            found = watch.count(counts, self._positive(watch.metric, counts, total))
            steps.append((watch, found, watch.compare(found)))
        # No error comes after this line.
        self._total = total
        old = self._windows.get(name)
        self._windows[name] = counts if old is None else old + counts
        number = list(self._windows).index(name)
        new = []
        threshold = np.log(len(self._watches)) - np.log1p(-self.confidence)
        for r, (watch, found, units) in enumerate(steps):
            values = watch.update(found, units, number)
            for i in np.flatnonzero(values >= threshold):
                position = watch.units[units[i]]
                if (r, position) not in self._alarmed:
                    self._alarmed.add((r, position))
                    new.append(self._alarm(watch, units[i], position, name))
        self.alarms_ += new
        return new

    def counts(self, windows: Iterable | None = None) -> GroupCounts:
        """Return the counts of some windows, added up.

        Parameters
        ----------
        windows : iterable of window names, default=None
            The windows; None means all.

        Returns
        -------
        GroupCounts
            The counts of one call of ``count_groups`` on all samples of these windows.

        Raises
        ------
        ValueError
            A window is not known, or there is none.
        """
        if windows is None:
            names = list(self.windows)
        elif isinstance(windows, str) or not isinstance(windows, Iterable):
            names = [window_name(windows)]
        else:
            names = list(dict.fromkeys(window_name(window) for window in windows))
        if unknown := [name for name in names if name not in self._windows]:
            raise ValueError(
                f"windows has {shown(unknown[0])}, which has no counts. Give some of "
                f"[{shown_all(self.windows)}]."
            )
        if not names:
            raise ValueError("There are no windows to count. Call update first, or name windows.")
        return sum(self._windows[name] for name in names)  # type: ignore[return-value]

    def report(self, windows: Iterable | None = None) -> FairnessReport:
        """Make the fairness report of some windows.

        Parameters
        ----------
        windows : iterable of window names, default=None
            The windows; None means all.

        Returns
        -------
        FairnessReport
            The same as of all their samples at once. For other metrics, give :meth:`counts` to
            :meth:`skfair.metrics.FairnessReport.from_counts`.

        Raises
        ------
        ValueError
            A window is not known, or there is none.
        """
        return FairnessReport.from_counts(self.counts(windows), pos_label=self.pos_label)

    def by_window(self, metric: str | None = None, *, model: str | None = None) -> pd.DataFrame:
        """Compute a metric of each group in each window, with Wilson's 95 % intervals.

        Parameters
        ----------
        metric : str, default=None
            A metric that a rule can name, such as ``"accuracy"``; None means the metric of the
            first rule.
        model : str, default=None
            Name of the model; None for the first.

        Returns
        -------
        DataFrame
            Index: window and group, in their order. Columns: ``value``, ``low``, ``high`` and
            ``count``, the number of samples in the denominator of the metric. A window without
            such samples of a group has no row for the group. Levels of control features are
            counted together.

        Raises
        ------
        ValueError
            The metric or the model is not known, or there are no counts.

        Examples
        --------
        >>> monitor = FairnessMonitor("min(accuracy) >= 0.7")
        >>> for week, sex in enumerate([["f", "f", "m"], ["m", "m", "m"]]):
        ...     alarms = monitor.update([1, 0, 1], [1, 1, 1], sensitive_features=sex, window=week)
        >>> monitor.by_window()["value"].round(2)
        window  group
        0       f        0.50
                m        1.00
        1       m        0.67
        Name: value, dtype: float64
        """
        found = share_metric(self.rules[0].metric if metric is None else metric)
        total = self.counts()
        if model is not None and model not in total.models:
            raise ValueError(
                f"model={shown(model)}, expected one of [{shown_all(total.models)}]. Give the name "
                "of a model in the counts."
            )
        rows, hits, size = [], [], []
        for name in self.windows:
            counts = self._windows[name]
            tables = counts.tables(model, counts.size).sum(axis=0)
            k, n = found.fraction(tables, self._positive(found, counts, total))
            for g in np.flatnonzero(n > 0):
                rows.append((name, counts.groups[g]))
                hits.append(k[g])
                size.append(n[g])
        share, n = np.array(hits) / np.array(size), np.array(size)
        low, high = wilson_interval(share, n)
        levels = [[row[i] for row in rows] for i in (0, 1)]
        index = pd.MultiIndex.from_arrays(
            [pd.Index(level, dtype=object, tupleize_cols=False) for level in levels],
            names=["window", "group"],
        )
        columns = {"value": share, "low": low, "high": high, "count": n.astype(np.int64)}
        return pd.DataFrame(columns, index=index)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the state to a JSON file. A monitor that is loaded from it continues as this one.

        The file is written completely or not at all, and then replaces an existing file. If two
        processes save to the same path, the file of the last one remains, whole. The same state
        gives the same bytes.

        Parameters
        ----------
        path : str or path-like
            Path of the file. Its folder must exist.

        Returns
        -------
        Path
            Path of the file.

        Raises
        ------
        TypeError
            A label is neither text, nor an integer, nor a truth value (nor a tuple of these).
        ValueError
            The state would take more than 64 MiB, or the path is a device or a pipe.
        OSError
            The file cannot be written; an existing file is unchanged.
        """
        return write_whole(path, _state.pack(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FairnessMonitor":
        """Load a monitor from a file of :meth:`save`.

        The file is data and is never run. Every value is checked. Whoever can write the file can
        also change counts and evidence in it within these bounds.

        Parameters
        ----------
        path : str or path-like
            Path of the file.

        Returns
        -------
        FairnessMonitor

        Raises
        ------
        FileNotFoundError
            The file does not exist.
        InvalidMonitorError
            The file is damaged, too large, of a later version, or not a monitor.
        """
        return _state.unpack(cls, _state.read(Path(path)))

    def __repr__(self) -> str:
        rules = ", ".join(str(rule) for rule in self.rules)
        return (
            f"<FairnessMonitor of {rules}: {len(self._windows)} windows, "
            f"{len(self.alarms_)} alarms>"
        )

    def __str__(self) -> str:
        n = 0 if self._total is None else int(self._total.size.sum())
        lines = [f"{len(self._windows)} windows, {n:,} samples, confidence {self.confidence:g}"]
        for r, watch in enumerate(self._watches):
            raised = sum(rule == r for rule, _ in self._alarmed)
            n_units = len({frozenset(unit) for unit in watch.units})  # both orders of a pair
            plural = "" if n_units == 1 else "s"
            what = f"pair{plural} of groups" if watch.paired else f"group{plural}"
            alarms = "alarm" if raised == 1 else "alarms"
            lines.append(f"{watch.rule}: {raised} {alarms} from {n_units:,} {what}")
        return "\n".join([*lines, *map(str, self.alarms_)])

    def _positive(self, metric: CountMetric, counts: GroupCounts, total: GroupCounts) -> int:
        """Find the position of the positive label in `counts`; after the last if it is absent."""
        if not metric.needs_positive:
            return len(counts.predicted)
        # An update of one label only, such as a window without positives, is no reason to doubt
        # the name of the other one.
        label = 1 if self.pos_label is None else self.pos_label
        if self.pos_label is None or len(total.predicted) > 1:
            positive_position(total.predicted, self.pos_label, metric.name)
        labels = counts.predicted
        return labels.index(label) if label in labels else len(labels)

    def _alarm(self, watch: RuleWatch, unit: tuple, position: int, window: Any) -> FairnessAlarm:
        names = list(self._windows)
        since = names[watch.evidence.began(position)]
        later = [name for name in names if window_order(name) >= window_order(since)]
        counts = self.counts(later)
        assert self._total is not None
        found = watch.count(counts, self._positive(watch.metric, counts, self._total))
        hits, size = zip(*(found[cell] for cell in unit), strict=True)
        statistic = watch.rule.statistic
        return FairnessAlarm(
            watch.rule,
            counts.models[unit[0].model],
            unit[0].control,
            () if statistic == "overall" else tuple(cell.group for cell in unit),
            window,
            since,
            *estimate(statistic, list(hits), list(size)),
            tuple(size),
        )


def _parse(rules: Any) -> tuple[FairnessRule, ...]:
    several = [rules] if isinstance(rules, str | FairnessRule) else rules
    if not isinstance(several, list | tuple) or not several or len(several) > _MOST_RULES:
        what = f"{len(several)} rules" if isinstance(several, list | tuple) else type(rules)
        raise ValueError(
            f"rules is {what if isinstance(what, str) else 'a ' + what.__name__}, expected a rule "
            f"or a list of 1 to {_MOST_RULES}, for example 'difference(selection_rate) <= 0.05'."
        )
    parsed = []
    for rule in several:
        if not isinstance(rule, str | FairnessRule):
            raise TypeError(
                f"rules has a {type(rule).__name__}, expected text or a FairnessRule, for example "
                "'difference(selection_rate) <= 0.05'."
            )
        parsed.append(FairnessRule.parse(rule) if isinstance(rule, str) else rule)
    if len(set(parsed)) < len(parsed):
        raise ValueError(f"rules has the same rule twice ({shown_all(parsed)}). Give it once.")
    return tuple(parsed)


def _check_confidence(confidence: Any) -> float:
    number = isinstance(confidence, Real) and not isinstance(confidence, bool)
    if not number or not 0 < confidence < 1:
        raise ValueError(
            f"confidence={shown(confidence)}, expected a number between 0 and 1, such as 0.95."
        )
    return float(confidence)


def _check_counts(counts: Any) -> None:
    if not isinstance(counts, GroupCounts):
        raise TypeError(
            f"counts is a {type(counts).__name__}; give what count_groups returns, or a sum of "
            "such results."
        )
    if counts.size.sum() == 0:
        raise ValueError("counts has no samples. Leave out a window without samples.")
    if (counts.weight != 1).any() or counts.left_out:
        raise ValueError(
            "counts has sample weights, and no alarm is valid for weighted samples. Count the "
            "samples without weights."
        )
