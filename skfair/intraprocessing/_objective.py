"""Intra-processing, all methods: how biased a network is at each threshold, and which to take."""

from collections.abc import Callable, Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from sklearn.utils import _safe_indexing

from skfair.metrics._rates import CONSTRAINTS, RATES, group_statistic

PERFORMANCES: dict[str, Callable] = {
    "balanced_accuracy": lambda tp, fp, p, n: 0.5 * (tp / p + 1 - fp / n),
    "accuracy": lambda tp, fp, p, n: (tp + n - fp) / (p + n),
    "f1": lambda tp, fp, p, n: 2 * tp / (tp + fp + p),
}

# A callable is asked once for each threshold, so that it gets this many and not all of them.
_CALLABLE_THRESHOLDS = 49
_N_BOOTSTRAP = 50
# A bias measured on n rows and met again on 2 n: the sum of both sampling variances, in the first.
_NEW_VARIANCE = 1.5
_CHUNK = 1 << 22  # counts held at once, which bounds the memory of a search
# Of the probability that more than two normal variables lie within epsilon: the step of the
# integral, in smallest deviations, and at most how many times smaller than the largest these are.
_STEP, _LARGEST_TO_SMALLEST = 0.6, 64
_CERTAIN = 6  # deviations


class Choice(NamedTuple):
    """The threshold of each network and what it gives; all arrays of shape (n_networks,).

    Attributes
    ----------
    threshold : ndarray
        Rows with a score above it are predicted positive.
    bias : ndarray
        With two groups the statistic of the first less that of the second; with more, or for
        "equalized_odds", the largest difference.
    error : ndarray
        Standard error of the bias.
    performance : ndarray
        The performance.
    probability : ndarray
        That the constraint holds on new rows, twice as many as it was measured on.
    objective : ndarray
        What is maximised.
    bound : ndarray
        What is minimised where the objective says nothing.
    feasible : ndarray of bool
        Whether the constraint holds as it was asked for.
    constant : ndarray of bool
        Whether all rows get the same prediction.
    """

    threshold: np.ndarray
    bias: np.ndarray
    error: np.ndarray
    performance: np.ndarray
    probability: np.ndarray
    objective: np.ndarray
    bound: np.ndarray
    feasible: np.ndarray
    constant: np.ndarray

    @classmethod
    def join(cls, parts: "Sequence[Choice]") -> "Choice":
        """The choices of all parts, in order.

        Returns
        -------
        Choice
        """
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def best(self) -> int:
        """Position of the one to take; a constant prediction only if there is nothing else.

        Returns
        -------
        int
        """
        return int(np.lexsort((self.bound, -self.objective, ~self.feasible, self.constant))[0])

    def take(self, index: slice | np.ndarray) -> "Choice":
        """The choices at some positions.

        Returns
        -------
        Choice
        """
        return Choice(*(values[index] for values in self))


class Objective:
    """Rows to measure a network on, and what is wanted of it there.

    Parameters
    ----------
    y : ndarray of shape (n_samples,), of 0 and 1
        Labels.
    codes : ndarray of shape (n_samples,), int
        Group of each row, from 0 to ``n_groups - 1``.
    n_groups : int
        Number of groups.
    constraint, performance, epsilon, confidence, margin
        As in the debiasers.
    features : DataFrame or ndarray, optional
        The sensitive features as a callable `constraint` wants them; `codes` if not given.
    """

    def __init__(
        self,
        y: np.ndarray,
        codes: np.ndarray,
        *,
        n_groups: int,
        constraint: str | Callable,
        performance: str | Callable,
        epsilon: float,
        confidence: float | str | None,
        margin: float,
        features: Any = None,
    ):
        self.y = y
        self.codes = codes
        self.n_groups = n_groups
        self.constraint = constraint
        self.performance = performance
        self.epsilon = epsilon
        self.confidence = confidence
        self.margin = margin
        self.features = codes if features is None else features
        self.cell = 2 * codes + y
        totals = np.bincount(self.cell, minlength=2 * n_groups).reshape(n_groups, 2)
        self.totals = totals.astype(np.float64)
        self.signed = n_groups == 2 and constraint != "equalized_odds"
        self._resampled_error: float | None = None
        constant = np.stack([np.zeros_like(self.totals), self.totals])
        chance = self._performance(constant, np.array([[False], [True]]))
        self.chance = float(np.nan_to_num(chance).max())

    @property
    def statistics(self) -> list[list[str]]:
        """What a constraint by name wants to be alike in the groups, as in ``CONSTRAINTS``."""
        assert isinstance(self.constraint, str)
        return CONSTRAINTS[self.constraint]

    def take(self, rows: np.ndarray) -> "Objective":
        """The same question, asked of some of the rows.

        Returns
        -------
        Objective
        """
        return self._ask(
            y=self.y[rows],
            codes=self.codes[rows],
            features=_safe_indexing(self.features, rows),
        )

    def unconstrained(self) -> "Objective":
        """The performance alone.

        Returns
        -------
        Objective
        """
        return self._ask(
            constraint="demographic_parity", epsilon=np.inf, confidence=None, margin=0.0
        )

    def _ask(self, **changes: Any) -> "Objective":
        names = ("y", "codes", "n_groups", "constraint", "performance", "epsilon", "confidence")
        kept = {name: getattr(self, name) for name in (*names, "margin", "features")}
        return Objective(**kept | changes)

    def choose(self, scores: np.ndarray) -> Choice:
        """Find the best of all distinct thresholds of each network.

        The scores are sorted once and the counts cumulated, which gives the predictions of
        every threshold: O(n log n) a network.

        Parameters
        ----------
        scores : ndarray of shape (n_networks, n_samples)
            Larger for the positive class.

        Returns
        -------
        Choice
            One threshold for each network, halfway between two of its scores.
        """
        callables = callable(self.constraint) or callable(self.performance)
        at_once = 1 if callables else max(1, _CHUNK // (self.cell.size * 2 * self.n_groups))
        parts = [
            self._choose(scores[start : start + at_once], callables)
            for start in range(0, len(scores), at_once)
        ]
        return Choice.join(parts)

    def measure(self, scores: np.ndarray, threshold: float) -> Choice:
        """Measure one network at one threshold.

        Parameters
        ----------
        scores : ndarray of shape (n_samples,)
        threshold : float

        Returns
        -------
        Choice
            Of length 1.
        """
        predicted = scores > threshold
        counts = np.bincount(self.cell[predicted], minlength=2 * self.n_groups)
        counts = counts.reshape(1, self.n_groups, 2).astype(np.float64)
        return self._evaluate(np.array([threshold], dtype=np.float64), counts, predicted[None])

    def interval(self, choice: Choice) -> tuple[float, float]:
        """A 95 % interval for the bias in the population, by normal approximation.

        Parameters
        ----------
        choice : Choice
            Of length 1.

        Returns
        -------
        low, high : float
            Not below zero for a bias without a sign.
        """
        half = ndtri(0.975) * choice.error[0]
        low, high = float(choice.bias[0] - half), float(choice.bias[0] + half)
        return (low if self.signed else max(low, 0.0)), high

    def rows_needed(self, choice: Choice) -> int:
        """Tell how many rows would show with `confidence` that a bias of zero holds.

        Parameters
        ----------
        choice : Choice
            Of length 1.

        Returns
        -------
        int
        """
        comparisons = 1
        if not callable(self.constraint):
            comparisons = len(self.statistics) * comb(self.n_groups, 2)
        assert not isinstance(self.confidence, str | None)  # asked for by a number only
        wanted = self.epsilon / (
            np.sqrt(_NEW_VARIANCE) * ndtri(1 - (1 - self.confidence) / comparisons / 2)
        )
        return int(np.ceil(len(self.y) * (choice.error[0] / wanted) ** 2))

    def _choose(self, scores: np.ndarray, callables: bool) -> Choice:
        n_networks, n = scores.shape
        order = np.argsort(-scores, axis=1)
        ordered = np.take_along_axis(scores, order, axis=1).astype(np.float64)
        # Threshold k predicts the k largest scores positive; there is none between equal ones.
        threshold = np.empty((n_networks, n + 1))
        threshold[:, 1:-1] = ordered[:, 1:] + 0.5 * (ordered[:, :-1] - ordered[:, 1:])
        threshold[:, 0], threshold[:, -1] = ordered[:, 0] + 1, ordered[:, -1] - 1
        distinct = np.ones((n_networks, n + 1), dtype=bool)
        distinct[:, 1:-1] = (ordered[:, :-1] > threshold[:, 1:-1]) & (
            threshold[:, 1:-1] >= ordered[:, 1:]
        )
        counts = np.zeros((2 * self.n_groups, n_networks, n + 1))
        ordered_cell = self.cell[order]
        for cell in range(2 * self.n_groups):
            np.cumsum(ordered_cell == cell, axis=1, out=counts[cell, :, 1:])

        if not callables and self.confidence in ("auto", None):
            within = distinct & self._within_constraint(counts)
            distinct &= within | ~within.any(1, keepdims=True)
        network, k = np.nonzero(distinct)
        predicted = None
        if callables:  # of one network
            k = k[np.unique(np.linspace(0, len(k) - 1, _CALLABLE_THRESHOLDS + 2).astype(int))]
            network = np.zeros_like(k)
            predicted = scores > threshold[0, k][:, None]
        counts = counts[:, network, k].T.reshape(-1, self.n_groups, 2)
        choice = self._evaluate(threshold[network, k], counts, predicted)
        # As in Choice.best, for each network; the rows of a network follow each other.
        starts = np.flatnonzero(np.diff(network, prepend=-1))
        other = ~np.logical_and.reduceat(choice.constant, starts)[network]
        objective = np.where(choice.feasible, choice.objective, np.finfo(float).min)
        objective = np.where(choice.constant & other, -np.inf, objective)
        best = objective == np.maximum.reduceat(objective, starts)[network]
        bound = np.where(best, choice.bound, np.inf)
        best = np.flatnonzero(bound == np.minimum.reduceat(bound, starts)[network])
        return choice.take(best[np.unique(network[best], return_index=True)[1]])

    def _within_constraint(self, counts: np.ndarray) -> np.ndarray:
        """Where the measured bias meets the constraint and predictions are not constant.

        Only these can be chosen, if there are any. They are few, and the bias is quick to see,
        which saves the most of the judging. For counts of shape (n_cells, ...).
        """
        false, true = np.moveaxis(counts.reshape(self.n_groups, 2, *counts.shape[1:]), 1, 0)
        negatives, positives = self.totals.T[..., None, None]
        predicted = counts.sum(0)
        within = (predicted > 0) & (predicted < len(self.y))
        for rates in self.statistics:
            mean = group_statistic(rates, true, false, positives, negatives)
            margin = self.margin if self.confidence is None else 0.0
            within &= mean.max(0) - mean.min(0) < self.epsilon - margin
        return within

    def _evaluate(
        self, threshold: np.ndarray, counts: np.ndarray, predicted: np.ndarray | None
    ) -> Choice:
        """Judge thresholds by their counts of positive predictions, (n, n_groups, 2)."""
        performance = self._performance(counts, predicted)
        if callable(self.constraint):
            assert predicted is not None  # as with all callables
            bias, error = self._called(predicted, performance)
            zero = np.zeros_like(bias)
            mean, variance = np.stack([bias, zero], -1), np.stack([error**2, zero], -1)
            probability = _within(mean, variance, self.epsilon)
        else:
            bias, error, probability = self._rated(counts)
        constant = np.isin(counts.sum((1, 2)), [0, len(self.y)])

        # A callable may say NaN, for instance of the precision where nothing is positive.
        size = np.where(np.isfinite(bias) & np.isfinite(performance), np.abs(bias), np.inf)
        if isinstance(self.confidence, str):
            feasible, bound = size < self.epsilon, size
            gain = np.maximum(performance - self.chance, 0)
            objective = np.where(feasible, gain * probability, 0)
        elif self.confidence is None:
            feasible, bound = size < self.epsilon - self.margin, size
            objective = np.where(feasible, performance, 0)
        else:
            feasible = (probability >= self.confidence) & np.isfinite(size)
            bound = size + np.sqrt(_NEW_VARIANCE) * ndtri((1 + self.confidence) / 2) * error
            objective = np.where(feasible, performance, 0)
        return Choice(
            threshold, bias, error, performance, probability, objective, bound, feasible, constant
        )

    def _performance(self, counts: np.ndarray, predicted: np.ndarray | None) -> np.ndarray:
        if callable(self.performance):
            assert predicted is not None
            rows = np.broadcast_to(predicted, (len(predicted), len(self.y))).astype(np.int64)
            return np.array([_call("performance", self.performance, self.y, row) for row in rows])
        n, p = self.totals.sum(0)
        fp, tp = np.moveaxis(counts.sum(1), -1, 0)
        return PERFORMANCES[self.performance](tp, fp, p, n)

    def _rated(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bias, its standard error and the probability to hold, of a constraint by name."""
        negatives, positives = self.totals.T
        probability = np.ones(len(counts))
        widest = None
        for rates in self.statistics:
            mean = variance = np.zeros(counts.shape[:-1])
            for rate in rates:
                hits, of = RATES[rate](counts[..., 1], counts[..., 0], positives, negatives)
                mean = mean + hits / of / len(rates)
                # A rate of 0 or 1 among a few rows is not certain.
                inner = np.clip(hits, 0.5, of - 0.5) / of
                variance = variance + inner * (1 - inner) / of / len(rates) ** 2
            probability = probability * _within(mean, variance, self.epsilon)
            if self.n_groups > 2:
                # The last lowest and the first highest: two groups, also where all are equal.
                low, high = self.n_groups - 1 - mean[..., ::-1].argmin(-1), mean.argmax(-1)
                pair = np.stack([high, low], -1)
                mean, variance = (np.take_along_axis(m, pair, -1) for m in (mean, variance))
            bias, error = mean[..., 0] - mean[..., 1], np.sqrt(variance.sum(-1))
            if widest is not None:
                larger = np.abs(bias) > np.abs(widest[0])
                bias, error = np.where(larger, bias, widest[0]), np.where(larger, error, widest[1])
            widest = bias, error
        return (bias if self.signed else np.abs(bias)), error, probability

    def _called(
        self, predicted: np.ndarray, performance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bias by a callable, and its standard error, which is found once by resampling."""
        predicted = predicted.astype(np.int64)
        bias = np.array([self._call(row, slice(None)) for row in predicted])
        if self._resampled_error is None:
            # The first network to come is the original one; its best threshold stands for all.
            row, n = predicted[np.nan_to_num(performance).argmax()], len(self.y)
            rng = np.random.RandomState(0)
            resampled = [self._call(row, rng.randint(n, size=n)) for _ in range(_N_BOOTSTRAP)]
            defined = [bias for bias in resampled if np.isfinite(bias)]
            self._resampled_error = float(np.std(defined)) if defined else 0.0
        return bias, np.full(len(bias), self._resampled_error)

    def _call(self, predicted: np.ndarray, rows: Any) -> float:
        assert not isinstance(self.constraint, str)
        features = _safe_indexing(self.features, rows)
        return _call(
            "constraint",
            self.constraint,
            self.y[rows],
            predicted[rows],
            sensitive_features=features,
        )


def _call(parameter: str, function: Callable, *arguments: Any, **keywords: Any) -> float:
    """Call a function of the user's, and say which it was where it does not give a number."""
    name = f"{parameter}={getattr(function, '__name__', repr(function))}"
    called = (
        f"{name}, called as ({', '.join(['y_true', 'y_pred', *keywords])}) with labels 0 and 1,"
    )
    try:
        value = function(*arguments, **keywords)
    except Exception as error:
        raise ValueError(
            f"{called} raised {type(error).__name__}: {error}. Give a function that takes these, "
            "also where all predictions are the same."
        ) from error
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{called} returned {value!r}, where one number was wanted.") from error


def _within(mean: np.ndarray, variance: np.ndarray, epsilon: float) -> np.ndarray:
    """Probability that independent normal variables lie within epsilon of each other.

    Those of statistics on new rows, given what was measured and its variance.
    """
    deviation = np.sqrt(_NEW_VARIANCE * variance)
    if mean.shape[-1] == 2:
        difference = mean[..., 0] - mean[..., 1]
        spread = np.hypot(deviation[..., 0], deviation[..., 1])
        spread = np.maximum(spread, np.finfo(float).tiny)
        return ndtr((epsilon - difference) / spread) - ndtr((-epsilon - difference) / spread)
    spread, widest = np.ptp(mean, axis=-1), deviation.max(-1)
    result = (spread < epsilon).astype(np.float64)
    uncertain = np.abs(spread - epsilon) < 2 * _CERTAIN * widest
    if not uncertain.any():
        return result
    mean, widest = mean[uncertain], widest[uncertain, None]
    deviation = np.maximum(deviation[uncertain], widest / _LARGEST_TO_SMALLEST)
    step = _STEP * deviation.min(-1, keepdims=True)
    # Where the lowest can be: none lies below it, and none more than epsilon above it.
    start = (mean - epsilon - _CERTAIN * deviation).max(-1, keepdims=True)
    end = (mean + _CERTAIN * deviation).min(-1, keepdims=True)
    total = np.zeros(len(mean))
    for node in range(int(np.ceil(((end - start) / step).max())) + 1):
        distance = (start + node * step - mean) / deviation
        density = np.exp(-(distance**2) / 2) / (np.sqrt(2 * np.pi) * deviation)
        above = ndtr(distance + epsilon / deviation) - ndtr(distance)
        for lowest in range(mean.shape[-1]):
            total += density[:, lowest] * np.delete(above, lowest, -1).prod(-1)
    result[uncertain] = np.minimum(total * step[:, 0], 1.0)
    return result
