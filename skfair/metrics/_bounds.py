"""Exact bounds on the metrics of groups, on which the verdict of a rule rests.

Given the number of samples behind a share, its hits are binomial: the samples are independent draws
of a population. Every bound here holds for every population and every number of samples.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from skfair.metrics._counts import GroupCounts
from skfair.metrics._rates import CountMetric
from skfair.metrics._reporting._functions import ReportMetric


class Shares(NamedTuple):
    """A metric of each control level and group as shares of samples.

    Attributes
    ----------
    hits, sizes : ndarray of shape (n_controls, n_groups, n_parts), int64
        The metric is the mean of the shares ``hits / sizes``: one part for a share, one part for
        each class for the balanced accuracy.
    is_f1 : bool
        True if the metric is ``2 s / (1 + s)`` of the share s: F1, where s is the share of true
        positives among the samples that are positive or predicted positive.
    """

    hits: np.ndarray
    sizes: np.ndarray
    is_f1: bool

    @property
    def behind(self) -> np.ndarray:
        """Number of samples behind each value, (n_controls, n_groups)."""
        return self.sizes.sum(-1)

    @property
    def is_single(self) -> bool:
        """Whether each value is one binomial share."""
        return self.hits.shape[-1] == 1 and not self.is_f1

    def values(self) -> np.ndarray:
        """Compute the metric; parts without samples are left out, and NaN if there are none."""
        some = self.sizes > 0
        share = np.divide(self.hits, self.sizes, out=np.zeros(self.hits.shape), where=some)
        n_parts = some.sum(-1)
        mean = np.divide(
            share.sum(-1), n_parts, out=np.full(n_parts.shape, np.nan), where=n_parts > 0
        )
        return self._transform(mean)

    def bounds(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Bound the metric from below and from above.

        Parameters
        ----------
        error : float
            Probability with which the lower bound may exceed the true value, and the same for the
            upper bound.

        Returns
        -------
        low, high : ndarray of shape (n_controls, n_groups), float64
            A part without samples has the bounds 0 and 1.
        """
        low, high = _share_bounds(self.hits, self.sizes, error / self.hits.shape[-1])
        return self._transform(low.mean(-1)), self._transform(high.mean(-1))

    def _transform(self, share: np.ndarray) -> np.ndarray:
        return 2 * share / (1 + share) if self.is_f1 else share


def count_shares(counts: GroupCounts, metric: ReportMetric, model: str) -> Shares:
    """Count the samples behind a metric.

    Parameters
    ----------
    counts : GroupCounts
        Counts with equal weights.
    metric : ReportMetric
        A metric that is computed from counts.
    model : str
        Name of the model.

    Returns
    -------
    Shares
    """
    counted = _counted(metric)
    table = counts.tables(model, counts.size.astype(np.float64))
    if _is_balanced(counted):
        hits, sizes = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1)
        return Shares(_whole(hits), _whole(sizes), False)
    hits, sizes = counted.fraction(table, metric.positive)
    is_f1 = not counted.is_share
    if is_f1:  # 2 tp / (2 tp + fp + fn) is a function of the share tp / (tp + fp + fn)
        hits = hits / 2
        sizes = sizes - hits
    return Shares(_whole(hits)[..., None], _whole(sizes)[..., None], is_f1)


class Changes(NamedTuple):
    """How a metric of each control level and group differs between two models.

    Attributes
    ----------
    old, new : Shares
        The metric of both models.
    gains, losses : ndarray of shape (n_controls, n_groups, n_parts), int64, or None
        Numbers of samples that are a hit of the new model only, and of the old model only. None
        if both models have other samples in the denominator (precision, F1).
    """

    old: Shares
    new: Shares
    gains: np.ndarray | None
    losses: np.ndarray | None

    def values(self) -> np.ndarray:
        """Compute the change, new minus old."""
        return self.new.values() - self.old.values()

    @property
    def behind(self) -> np.ndarray:
        """Number of samples behind each change, (n_controls, n_groups)."""
        return np.minimum(self.old.behind, self.new.behind)

    def bounds(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Bound the change from below and from above, each with the probability `error` of a miss.

        The bound of a difference is the difference of two bounds, each with half of the error. It
        therefore holds however the errors of both models depend on each other.

        Returns
        -------
        low, high : ndarray of shape (n_controls, n_groups), float64
        """
        if self.gains is None or self.losses is None:
            old_low, old_high = self.old.bounds(error / 2)
            new_low, new_high = self.new.bounds(error / 2)
            return new_low - old_high, new_high - old_low
        each = error / 2 / self.gains.shape[-1]
        gain_low, gain_high = _share_bounds(self.gains, self.old.sizes, each)
        loss_low, loss_high = _share_bounds(self.losses, self.old.sizes, each)
        return (gain_low - loss_high).mean(-1), (gain_high - loss_low).mean(-1)


def count_changes(counts: GroupCounts, metric: ReportMetric, model: str) -> Changes:
    """Count how the hits of a metric differ between the first model and another model.

    Parameters
    ----------
    counts : GroupCounts
        Counts with equal weights.
    metric : ReportMetric
        A metric that is computed from counts.
    model : str
        Name of the other model.

    Returns
    -------
    Changes
    """
    first = counts.models[0]
    old, new = (count_shares(counts, metric, name) for name in (first, model))
    counted = _counted(metric)
    control, group, label = counts.cells[:, :3].T
    columns = (3, 3 + counts.models.index(model))
    predicted = [counts.cells[:, column] for column in columns]
    if _is_balanced(counted):
        hits = [guess == label for guess in predicted]
        part, behind = label, np.ones(len(label), dtype=bool)
    else:
        if not np.array_equal(old.sizes, new.sizes) or not _same_denominator(counted):
            return Changes(old, new, None, None)
        # A metric sees only whether a label is the positive one, or whether both labels are equal.
        hits = []
        for guess in predicted:
            if counted.needs_positive:
                kind = 2 * (label == metric.positive) + (guess == metric.positive)
            else:
                kind = (guess != label).astype(int)
            hit, size = _kinds(counted)
            hits.append(hit[kind])
            behind = size[kind]
        part = np.zeros(len(label), dtype=np.int64)

    def total(which: np.ndarray) -> np.ndarray:
        key = np.ravel_multi_index((control, group, part), old.hits.shape)
        amount = counts.size * (which & behind)
        return _whole(
            np.bincount(key, weights=amount, minlength=old.hits.size).reshape(old.hits.shape)
        )

    return Changes(old, new, total(hits[1] & ~hits[0]), total(hits[0] & ~hits[1]))


def _counted(metric: ReportMetric) -> CountMetric:
    counted = metric.counted
    assert counted is not None
    return counted


def _is_balanced(counted: CountMetric) -> bool:
    return not counted.is_share and not counted.needs_positive


def _kinds(counted: CountMetric) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each kind of sample whether the sample is a hit, and whether it is counted at all.

    Returns
    -------
    hit, size : ndarray of bool
        Kinds are right and wrong; or, for a metric of the positive class, (label, prediction) =
        (negative, negative), (negative, positive), (positive, negative), (positive, positive).
    """
    shape = (4, 2, 2) if counted.needs_positive else (2, 1, 2)
    tables = np.eye(shape[0]).reshape(shape)
    hit, size = counted.fraction(tables, 1)
    return hit > 0, np.broadcast_to(size > 0, hit.shape)


def _same_denominator(counted: CountMetric) -> bool:
    """Tell whether the true labels alone decide which samples are in the denominator."""
    if not counted.is_share:
        return False
    _, size = _kinds(counted)
    return bool(np.array_equal(size[::2], size[1::2]))


def _whole(amount: np.ndarray) -> np.ndarray:
    return np.rint(amount).astype(np.int64)


def _share_bounds(
    hits: np.ndarray, sizes: np.ndarray, error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's one-sided bounds; 0 and 1 without samples."""
    inside = np.maximum(hits, 1), np.maximum(sizes - hits, 1)  # no warning where it is not used
    low = np.where(hits > 0, betaincinv(inside[0], sizes - hits + 1, error), 0.0)
    high = np.where(hits < sizes, betaincinv(hits + 1, inside[1], 1 - error), 1.0)
    return low, high
