"""Intra-processing, all methods: how biased a network is at each threshold, and which to take."""

import copy
from collections.abc import Callable, Sequence
from itertools import combinations
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from skfair.intraprocessing._gaps import (
    SURE,
    Statistic,
    gap_interval,
    measure_gap,
    normal_interval,
    power_to_certify,
    table_of_pairs,
)
from skfair.metrics._group_metric import unwrap
from skfair.metrics._rates import CONSTRAINTS, RATES, group_statistic
from skfair.utils._shown import shown

# A callable is asked once for each threshold, so that it gets this many and not all of them.
_CALLABLE_THRESHOLDS = 49
# Where judging takes more than counting, no more thresholds than tell networks apart.
_FEW_THRESHOLDS = 400
_N_BOOTSTRAP = 50
_CAUTION = 1
_CHUNK = 1 << 22  # counts held at once, which bounds the memory of a search
# Rows of a group and label are put together by the score of the original network: so many to a
# stratum, of which so many are in either part of the rows, and so many strata at most.
_STRATUM, _FEWEST, _MOST_STRATA = 20, 4, 20
_POSITIVE = np.array([0, 1])  # of both labels
_TINY = 1e-9


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
    eligible : ndarray of bool
        Whether it may be chosen while others may not.
    constant : ndarray of bool
        Whether all rows get the same prediction.
    power : ndarray
        About how likely a certificate is; zero where none is asked for.
    """

    threshold: np.ndarray
    bias: np.ndarray
    error: np.ndarray
    performance: np.ndarray
    probability: np.ndarray
    objective: np.ndarray
    bound: np.ndarray
    eligible: np.ndarray
    constant: np.ndarray
    power: np.ndarray

    @property
    def feasible(self) -> np.ndarray:
        """Whether the constraint is sure enough to hold on new rows."""
        return self.probability >= SURE

    @classmethod
    def join(cls, parts: "Sequence[Choice]") -> "Choice":
        """The choices of all parts, in order.

        Returns
        -------
        Choice
        """
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def ranking(self) -> np.ndarray:
        """Positions, the best first; constant predictions come after all others.

        Returns
        -------
        ndarray of int
        """
        return np.lexsort((self.bound, -self.objective, ~self.eligible, self.constant))

    def best(self) -> int:
        """Position of the one to take; a constant prediction only if there is nothing else.

        Returns
        -------
        int
        """
        return int(self.ranking()[0])

    def take(self, index: slice | np.ndarray) -> "Choice":
        """The choices at some positions.

        Returns
        -------
        Choice
        """
        return Choice(*(values[index] for values in self))


class Certify(NamedTuple):
    """What it is worth that a certificate is likely.

    Attributes
    ----------
    worth : float
        How much performance may be given up for a sure one.
    sizes : list of ndarray of shape (n_groups,)
        Calibration rows behind each statistic of the constraint.
    delta : float
        The risk of a false certificate.
    """

    worth: float
    sizes: list[np.ndarray]
    delta: float


class Rule(NamedTuple):
    """What is taken for the best.

    Attributes
    ----------
    room : float
        Share of epsilon that is kept free.
    certify : Certify or None
        What a certificate is worth; None for nothing.
    enough : float
        Probability to hold above which more of it is worth nothing.
    """

    room: float = 0.0
    certify: Certify | None = None
    enough: float = 1.0


PLAIN = Rule()


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
    compared : ndarray of int, optional
        The groups that the constraint is about; all if not given.
    stratum : ndarray of shape (n_samples,), int, optional
        Stratum of each row within its group and label, from :func:`find_strata`.
    population : ndarray of shape (2 * n_groups, n_strata), optional
        Rows of each cell of group and label, and stratum, among those that these rows stand
        for; these rows themselves if not given.
    tuned : Objective, optional
        On rows that tuned the networks, of the same population and strata: what they say is heard
        in the choice as far as the rows of this one say the same.
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
        compared: np.ndarray | None = None,
        stratum: np.ndarray | None = None,
        population: np.ndarray | None = None,
        tuned: "Objective | None" = None,
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
        self.compared = np.arange(n_groups) if compared is None else compared
        self.cell = 2 * codes + y
        self.tuned = tuned
        self.uncertainty = 1.0  # a factor of the variances
        if population is None:  # each row for itself
            self.stratum = np.zeros_like(codes)
            self.sizes = self.population = np.bincount(self.cell, minlength=2 * n_groups)[:, None]
        else:
            assert stratum is not None
            self.stratum, self.population = stratum, population
            self.sizes = _count(self.cell, stratum, population.shape)
        self._stands_for = self.population / np.maximum(self.sizes, 1)
        self.totals = self.population.sum(1).reshape(n_groups, 2).astype(np.float64)
        self.signed = len(self.compared) == 2 and constraint != "equalized_odds"
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

    def stand_for(
        self, rows: np.ndarray, population: np.ndarray, stratum: np.ndarray
    ) -> "Objective":
        """The same question, asked of some of the rows as a sample of others.

        The original network knows nothing of the labels and groups of any of these rows, so that
        its scores may tell which rows are alike. How many rows there are of which kind is then
        known from all of them, and only how each kind is predicted from the sample
        (post-stratification): where a network stays close to the original one, a part of the
        rows says nearly what all of them would.

        Parameters
        ----------
        rows : ndarray of int
            The sample.
        population : ndarray of int
            What it stands for.
        stratum : ndarray of shape (n_samples,), int
            From :func:`find_strata`.

        Returns
        -------
        Objective
        """
        shape = 2 * self.n_groups, int(stratum.max()) + 1
        counts = _count(self.cell[population], stratum[population], shape)
        return self.take(rows)._ask(stratum=stratum[rows], population=counts)

    def part(self, rows: np.ndarray) -> "Objective":
        """The same question, asked of some of the rows as a sample of what all stand for.

        Returns
        -------
        Objective
        """
        if self.population is self.sizes:
            return self.take(rows)
        return self.take(rows)._ask(
            stratum=self.stratum[rows], population=self.population, tuned=self.tuned
        )

    def hearing(self, tuned: "Objective") -> "Objective":
        """The same question, with what is seen on rows that tuned the networks beside it.

        Returns
        -------
        Objective
        """
        result = copy.copy(self)
        result.tuned = tuned
        return result

    def unconstrained(self) -> "Objective":
        """The performance alone.

        Returns
        -------
        Objective
        """
        # No two rates differ by as much.
        return self._ask(constraint="demographic_parity", epsilon=2.0, confidence=None, margin=0.0)

    def _ask(self, **changes: Any) -> "Objective":
        names = ("y", "codes", "n_groups", "constraint", "performance", "epsilon", "confidence")
        kept = {name: getattr(self, name) for name in (*names, "margin", "features", "compared")}
        return Objective(**kept | changes)

    def choose(self, scores: np.ndarray, rules: Sequence[Rule] = (PLAIN,)) -> list[Choice]:
        """Find the best of all distinct thresholds of each network.

        The scores are sorted once and the counts cumulated, which gives the predictions of
        every threshold: O(n log n) a network.

        Parameters
        ----------
        scores : ndarray of shape (n_networks, n_samples)
            Larger for the positive class. Those of the rows of `tuned` come after the others.
        rules : sequence of Rule, optional
            What is taken for the best.

        Returns
        -------
        list of Choice
            One for each rule, with a threshold for each network, halfway between two of its
            scores.
        """
        callables = callable(self.constraint) or callable(self.performance)
        counts = self.cell.size * self.sizes.size
        at_once = 1 if callables else max(1, _CHUNK // counts)
        parts = [
            self._choose(scores[start : start + at_once], callables, rules)
            for start in range(0, len(scores), at_once)
        ]
        return [Choice.join(each) for each in zip(*parts, strict=True)]

    def check_defined(
        self, choice: Choice, where: str = "every threshold of the original network"
    ) -> None:
        """Refuse a callable that is NaN at the best threshold, and so at all of them.

        Parameters
        ----------
        choice : Choice
            Of length 1, from :meth:`choose`.
        where : str
            What it was called for.
        """
        for parameter, found in (("constraint", choice.bias), ("performance", choice.performance)):
            function = getattr(self, parameter)
            if callable(function) and np.isnan(found[0]):
                raise ValueError(
                    f"{_named(parameter, function)} returned nan at {where}, where a number was "
                    "wanted. Give a function that is defined for these labels and groups."
                )

    def measure(self, scores: np.ndarray, threshold: float, rule: Rule = PLAIN) -> Choice:
        """Measure one network at one threshold.

        Parameters
        ----------
        scores : ndarray of shape (n_samples,)
        threshold : float
        rule : Rule, optional
            What is taken for good.

        Returns
        -------
        Choice
            Of length 1.
        """
        predicted = scores > threshold
        at = np.array([threshold], dtype=np.float64)
        return self._evaluate(at, self.count(predicted)[None], predicted[None], [rule])[0]

    def count(self, predicted: np.ndarray) -> np.ndarray:
        """Count the rows predicted positive, by cell and stratum.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), bool

        Returns
        -------
        ndarray of shape (2 * n_groups, n_strata), float64
        """
        counts = _count(self.cell[predicted], self.stratum[predicted], self.sizes.shape)
        return counts.astype(np.float64)

    def interval(self, choice: Choice, predicted: np.ndarray) -> tuple[float, float]:
        """A 95 % interval for the bias in the population.

        Parameters
        ----------
        choice : Choice
            Of length 1.
        predicted : ndarray of shape (n_samples,), bool
            What it predicts positive.

        Returns
        -------
        low, high : float
            Not below zero for a bias without a sign.
        """
        if callable(self.constraint):
            return normal_interval(float(choice.bias[0]), float(choice.error[0]), signed=True)
        return gap_interval(self._rates(self.count(predicted)), self.epsilon)

    def pairs(self, labels: Sequence, predicted: np.ndarray) -> pd.DataFrame:
        """The difference of each two groups, as :func:`table_of_pairs` has it.

        Parameters
        ----------
        labels : sequence
            Of all groups.
        predicted : ndarray of shape (n_samples,), bool
            What is predicted positive.

        Returns
        -------
        DataFrame
        """
        compared = [labels[int(group)] for group in self.compared]
        if callable(self.constraint):
            return table_of_pairs([], compared, [], self.epsilon)
        names = [" and ".join(rates) for rates in self.statistics]
        return table_of_pairs(names, compared, self._rates(self.count(predicted)), self.epsilon)

    def rows_of_statistics(self) -> list[np.ndarray]:
        """Count the rows behind each statistic of the constraint, by group.

        Returns
        -------
        list of ndarray of shape (n_groups,)
            Of a mean of rates the number that one rate of the same variance would have; zero
            where one of them has none.
        """
        negatives, positives = self.totals.T
        sizes = []
        for rates in self.statistics:
            of = [RATES[rate](0, 0, positives, negatives)[1] for rate in rates]
            one = len(rates) ** 2 / sum(1 / np.maximum(size, 1) for size in of)
            sizes.append(np.where(np.min(of, axis=0) > 0, one, 0)[self.compared])
        return sizes

    def optimism(self, predicted: np.ndarray, on_tuned: np.ndarray) -> float:
        """How much the bias on rows that tuned a network differs from this one.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), bool
            Predictions for these rows, which tuned nothing.
        on_tuned : ndarray of bool
            Predictions for the rows of `tuned`.

        Returns
        -------
        float
            In standard errors; the largest of all statistics and pairs of groups.
        """
        assert self.tuned is not None
        largest = 0.0
        here, there = self.count(predicted), self.tuned.count(on_tuned)
        for rates in self.statistics:
            one, variance, _, _ = self._parts(rates, here)
            two, its_variance, _, _ = self.tuned._parts(rates, there)
            moved, variance = one - two, variance + its_variance
            for g, h in combinations(range(len(moved)), 2):
                error = np.sqrt(max(variance[g] + variance[h], 1e-12))
                largest = max(largest, abs(moved[g] - moved[h]) / error)
        return float(largest)

    def _choose(self, scores: np.ndarray, callables: bool, rules: Sequence[Rule]) -> list[Choice]:
        n_networks, n = len(scores), len(self.y)
        scores, on_tuned = scores[:, :n], scores[:, n:]
        ordered, counts = self._cumulate(scores)
        # Threshold k predicts the k largest scores positive; there is none between equal ones.
        threshold = np.empty((n_networks, n + 1))
        threshold[:, 1:-1] = ordered[:, 1:] + 0.5 * (ordered[:, :-1] - ordered[:, 1:])
        threshold[:, 0], threshold[:, -1] = ordered[:, 0] + 1, ordered[:, -1] - 1
        distinct = np.ones((n_networks, n + 1), dtype=bool)
        distinct[:, 1:-1] = (ordered[:, :-1] > threshold[:, 1:-1]) & (
            threshold[:, 1:-1] >= ordered[:, 1:]
        )
        if callables:
            pass
        elif len(self.compared) > 2 or self.tuned is not None:
            distinct = _thin(distinct, _FEW_THRESHOLDS)
        else:
            allowed = distinct & self._within_constraint(counts)
            distinct &= allowed | ~allowed.any(1, keepdims=True)
        network, k = np.nonzero(distinct)
        predicted = None
        if callables:  # of one network
            k = k[np.unique(np.linspace(0, len(k) - 1, _CALLABLE_THRESHOLDS + 2).astype(int))]
            network = np.zeros_like(k)
            predicted = scores > threshold[0, k][:, None]
        counts = np.moveaxis(counts[:, :, network, k], -1, 0)
        tuned = None
        if self.tuned is not None and not callables:
            tuned = self.tuned._count_above(on_tuned, network, threshold[network, k])
        at = threshold[network, k]
        found = []
        for rule, every in zip(
            rules, self._evaluate(at, counts, predicted, rules, tuned, likely=False), strict=True
        ):
            best = _best_of_each(network, every)
            choice = every.take(best)
            if np.isnan(choice.probability).any():
                parts = [None if part is None else part[best] for part in (predicted, tuned)]
                (choice,) = self._evaluate(at[best], counts[best], parts[0], [rule], parts[1])
            found.append(choice)
        return found

    def _cumulate(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sort the scores, the largest first, and count the rows of the k largest for each k.

        Returns scores, (n_networks, n), and counts, (n_cells, n_strata, n_networks, n + 1).
        """
        order = np.argsort(-scores, axis=1)
        ordered = np.take_along_axis(scores, order, axis=1).astype(np.float64)
        n_cells, n_strata = self.sizes.shape
        counts = np.zeros((n_cells * n_strata, len(scores), scores.shape[1] + 1))
        place = (self.cell * n_strata + self.stratum)[order]
        for one in np.flatnonzero(self.sizes):
            np.cumsum(place == one, axis=1, out=counts[one, :, 1:])
        return ordered, counts.reshape(n_cells, n_strata, *counts.shape[1:])

    def _count_above(
        self, scores: np.ndarray, network: np.ndarray, threshold: np.ndarray
    ) -> np.ndarray:
        """Count positive predictions at some thresholds, (n_thresholds, n_cells, n_strata)."""
        ordered, counts = self._cumulate(scores)
        k = np.empty(len(network), dtype=np.int64)
        for one, row in enumerate(ordered):
            k[network == one] = np.searchsorted(-row, -threshold[network == one])
        return np.moveaxis(counts[:, :, network, k], -1, 0)

    def _within_constraint(self, counts: np.ndarray) -> np.ndarray:
        """Where the measured bias meets the constraint and predictions are not constant.

        Only these can be chosen, if there are any. They are few, and the bias is quick to see,
        which saves the most of the judging. For counts of shape (n_cells, n_strata, ...).
        """
        predicted = counts.sum((0, 1))
        allowed = (predicted > 0) & (predicted < len(self.y))
        stands_for = self._stands_for.reshape(*self.sizes.shape, *[1] * (counts.ndim - 2))
        whole = (counts * stands_for).sum(1)
        false, true = np.moveaxis(whole.reshape(self.n_groups, 2, *whole.shape[1:]), 1, 0)
        negatives, positives = self.totals.T[..., None, None]
        margin = self.margin if self.confidence is None else 0.0
        for rates in self.statistics:
            with np.errstate(invalid="ignore"):  # a group without rows allows for nothing
                mean = group_statistic(rates, true, false, positives, negatives)[self.compared]
            allowed &= mean.max(0) - mean.min(0) < self.epsilon - margin
        return allowed

    def _evaluate(
        self,
        threshold: np.ndarray,
        counts: np.ndarray,
        predicted: np.ndarray | None,
        rules: Sequence[Rule] = (PLAIN,),
        tuned: np.ndarray | None = None,
        *,
        likely: bool = True,
    ) -> list[Choice]:
        """Judge thresholds by their counts of positive predictions, (n, n_cells, n_strata)."""
        whole = (counts * self._stands_for).sum(-1).reshape(len(counts), self.n_groups, 2)
        performance = self._performance(whole, predicted)
        constant = np.isin(counts.sum((1, 2)), [0, len(self.y)])
        if callable(self.constraint):
            assert predicted is not None  # as with all callables
            bias, error = self._called(predicted, performance)
            # As the one rate of a group, beside another one that is zero.
            rates = [(np.stack([bias, 0 * bias], -1), np.stack([error**2, 0 * error], -1))]
        else:
            rates = self._rates(counts, tuned)
        found = threshold, performance, rates, constant
        return [self._rule(*found, rule, likely) for rule in rules]

    def _rule(
        self,
        threshold: np.ndarray,
        performance: np.ndarray,
        rates: list[Statistic],
        constant: np.ndarray,
        rule: Rule,
        likely: bool,
    ) -> Choice:
        epsilon, room = self.epsilon, self.epsilon * rule.room
        bias, error, probability, excess = measure_gap(rates, epsilon, room, likely=likely)
        # A callable may say NaN, for instance of the precision where nothing is positive.
        defined = np.isfinite(bias) & np.isfinite(performance)
        size = np.where(defined, np.abs(bias), np.inf)
        gain = np.maximum(performance - self.chance, 0)
        power = np.zeros(len(threshold))
        if self.confidence is None:
            eligible, objective = size < epsilon - self.margin, performance
        elif rates[0][0].shape[-1] > 2:
            # That all of many differences hold is hardly ever likely: what is over counts.
            eligible, objective = defined, gain - 2 * excess
        else:
            eligible = size < epsilon - room
            objective = gain * np.minimum(probability, rule.enough)
        if rule.certify is not None:
            power = power_to_certify(rates, rule.certify.sizes, epsilon, rule.certify.delta)
            # That it holds is in the power, so that no more performance is given up for it.
            objective = gain + rule.certify.worth * power
        return Choice(
            threshold,
            bias,
            error,
            performance,
            np.where(defined, probability, 0),
            np.where(eligible, objective, 0),
            size,
            eligible,
            constant,
            power,
        )

    def _performance(self, counts: np.ndarray, predicted: np.ndarray | None) -> np.ndarray:
        if callable(self.performance):
            assert predicted is not None
            rows = np.broadcast_to(predicted, (len(predicted), len(self.y))).astype(np.int64)
            return np.array([_call("performance", self.performance, self.y, row) for row in rows])
        n, p = np.maximum(self.totals.sum(0), 1)  # a fold may be without one of the labels
        fp, tp = np.moveaxis(counts.sum(1), -1, 0)
        return group_statistic([self.performance], tp, fp, p, n)

    def _rates(self, counts: np.ndarray, tuned: np.ndarray | None = None) -> list[Statistic]:
        """What the constraint wants to be alike, of the groups that it compares."""
        found = []
        for rates in self.statistics:
            mean, inside, between, least = self._parts(rates, counts)
            if tuned is not None:
                assert self.tuned is not None
                other, its_inside, _, _ = self.tuned._parts(rates, tuned)
                mean, inside = _heard(mean, inside, other, its_inside)
            variance = self.uncertainty * np.maximum(inside + between, least)
            found.append((mean, variance))
        return found

    def _parts(self, rates: list[str], counts: np.ndarray) -> tuple[np.ndarray, ...]:
        """The mean of some rates by group, and its variance, from counts (..., n_cells, n_strata).

        The variance has two parts: rows of a stratum that are predicted differently, of which the
        sample says the share; and strata that are, of which all rows say how many they hold. The
        last of what is returned is the least that the two are together.
        """
        share = counts / np.maximum(self.sizes, 1)
        mean = inside = between = least = np.zeros((*counts.shape[:-2], len(self.compared)))
        for rate in rates:
            # Which cells of a group the rate is about: both labels, the positive or the negative.
            about = RATES[rate](0, 0, _POSITIVE, 1 - _POSITIVE)[1] > 0
            cells = (2 * self.compared[:, None] + np.flatnonzero(about)).astype(int)
            shape = (*counts.shape[:-2], len(self.compared), -1)
            p = share[..., cells, :].reshape(shape)
            rows = self.population[cells].reshape(shape[-2:])
            sample = self.sizes[cells].reshape(shape[-2:])
            of, measured = np.maximum(rows.sum(-1), 1), sample.sum(-1)
            known = measured > 0
            weight = rows / of[:, None]
            value = (weight * p).sum(-1)
            # Of a group without rows, as in a fold, nothing is known but what is of the others.
            pooled = (of * known * value).sum(-1, keepdims=True) / max((of * known).sum(), 1)
            value = np.where(known, value, pooled)
            # An unbiased estimate, where there are strata; it has nothing to say of single rows.
            freedom = np.maximum(sample - (self.sizes.shape[1] > 1), 1)
            part = 1 / len(rates) ** 2
            mean = mean + value / len(rates)
            apart = (weight**2 * p * (1 - p) / freedom).sum(-1)
            # Few rows are not certain of many, even if each stratum is predicted as one.
            half = 0.5 / np.maximum(measured, 1)
            unseen = half * (1 - half) / np.maximum(measured, 1) * (1 - measured / of)
            inside = inside + part * np.maximum(apart, unseen)
            spread = ((weight * p**2).sum(-1) - value**2).clip(min=0)
            between = between + part * spread / of
            # A rate of 0 or 1 among a few rows is not certain.
            inner = np.clip(value, half, 1 - half)
            least = least + part * inner * (1 - inner) / np.where(known, of, 1)
        return mean, inside, between, least

    def _called(
        self, predicted: np.ndarray, performance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bias by a callable, and its standard error, which is found once by resampling."""
        predicted = predicted.astype(np.int64)
        bias = np.array([self._call(row, slice(None)) for row in predicted])
        if self._resampled_error is None:
            # The first network to come is the original one; its best threshold stands for all.
            known = np.where(np.isnan(bias), -np.inf, np.nan_to_num(performance))
            row, n = predicted[known.argmax()], len(self.y)
            rng = np.random.RandomState(0)
            resampled = [self._call(row, rng.randint(n, size=n)) for _ in range(_N_BOOTSTRAP)]
            defined = [bias for bias in resampled if np.isfinite(bias)]
            if len(defined) < 2 and not np.isnan(bias).all():
                assert not isinstance(self.constraint, str)
                raise ValueError(
                    f"{_named('constraint', self.constraint)} returned nan for all of "
                    f"{_N_BOOTSTRAP} resamples of the rows, which say how sure its values are. "
                    "Give a function that is defined for these labels and groups, or more rows."
                )
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


def _named(parameter: str, function: Callable) -> str:
    return f"{parameter}={getattr(function, '__name__', repr(function))}"


def _call(parameter: str, function: Callable, *arguments: Any, **keywords: Any) -> float:
    """Call a function of the user's, and say which it was where it does not give a number."""
    called = (
        f"{_named(parameter, function)}, called as "
        f"({', '.join(['y_true', 'y_pred', *keywords])}) with labels 0 and 1,"
    )
    try:
        value = function(*arguments, **keywords)
    except Exception as error:
        raise ValueError(
            f"{called} raised {type(error).__name__}: {error}. Give a function that takes these, "
            "also where all predictions are the same."
        ) from error
    number = unwrap(value)
    # A truth is no number: it says that a bias is small, or that it is one.
    if isinstance(number, bool | np.bool_) or not isinstance(number, Real):
        raise ValueError(f"{called} returned {shown(value)}, where one number was wanted.")
    number = float(number)
    if np.isinf(number):
        raise ValueError(
            f"{called} returned {number}, where a finite number was wanted. Return NaN where it is "
            "not defined."
        )
    return number


def find_strata(cell: np.ndarray, scores: np.ndarray, part: float = 0.5) -> np.ndarray:
    """Put rows of a group and label together that have about the same score.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64
        Group and label of each row.
    scores : ndarray of shape (n_samples,)
        Of a network that knows nothing of the labels and groups of these rows.
    part : float, default=0.5
        Share of the rows in the smaller of the parts that are to stand for all. Single rows of
        strata would say nothing of how much they vary.

    Returns
    -------
    ndarray of shape (n_samples,), int64
        Stratum within the cell, counted from zero.
    """
    order = np.lexsort((scores, cell))
    sizes = np.bincount(cell)
    most = max(1, min(_MOST_STRATA, _CHUNK * 4 // (len(sizes) * len(cell))))
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    n_strata = np.clip(sizes // max(_STRATUM, int(np.ceil(_FEWEST / part))), 1, most)
    stratum = np.empty(len(cell), dtype=np.int64)
    stratum[order] = rank * n_strata[cell[order]] // sizes[cell[order]]
    return stratum


def _count(cell: np.ndarray, stratum: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of each cell and stratum."""
    return np.bincount(cell * shape[1] + stratum, minlength=shape[0] * shape[1]).reshape(shape)


def _thin(distinct: np.ndarray, most: int) -> np.ndarray:
    """Some of the true positions of each row, evenly, the first and the last among them."""
    result = np.zeros_like(distinct)
    for row, found in zip(result, distinct, strict=True):
        places = np.flatnonzero(found)
        row[places[np.unique(np.linspace(0, len(places) - 1, most).astype(int))]] = True
    return result


def _best_of_each(network: np.ndarray, choice: Choice) -> np.ndarray:
    """Positions as by Choice.best, for each network; those of a network follow each other."""
    starts = np.flatnonzero(np.diff(network, prepend=-1))
    other = ~np.logical_and.reduceat(choice.constant, starts)[network]
    objective = np.where(choice.eligible, choice.objective, np.finfo(float).min)
    objective = np.where(choice.constant & other, -np.inf, objective)
    best = objective == np.maximum.reduceat(objective, starts)[network]
    bound = np.where(best, choice.bound, np.inf)
    found = np.flatnonzero(bound == np.minimum.reduceat(bound, starts)[network])
    return found[np.unique(network[found], return_index=True)[1]]


def _heard(
    mean: np.ndarray, variance: np.ndarray, other: np.ndarray, its_variance: np.ndarray
) -> Statistic:
    """Rates of groups on held-out rows, and what rows that tuned the network add to them.

    How far tuned rows are from telling the truth is seen from how far they are from held-out
    ones, beyond chance; that counts as a variance of what they say.
    """
    apart = (other - mean) ** 2 - variance - its_variance
    its_variance = its_variance + np.maximum(apart.mean(-1, keepdims=True), 0) + _TINY
    variance = variance + _TINY
    weight = its_variance / (variance + its_variance)
    return weight * mean + (1 - weight) * other, weight * variance
