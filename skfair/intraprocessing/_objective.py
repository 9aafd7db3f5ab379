"""Intra-processing, all methods: measure networks on rows, and choose their thresholds."""

import copy
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing

from skfair.intraprocessing._choice import PLAIN, Choice, Rule, apply_rule
from skfair.intraprocessing._counting import (
    CHUNK,
    RateParts,
    combine_tuned,
    count_rows,
    cumulate,
    rate_parts,
    thin,
    thresholds_between,
)
from skfair.intraprocessing._gaps import Statistic, gap_interval, normal_interval, table_of_pairs
from skfair.intraprocessing._user_functions import (
    bootstrap_error,
    call_constraint,
    call_performance,
    named,
)
from skfair.metrics._rates import CONSTRAINTS, constraint_rates, group_statistic, mean_rate

# A function of the user is called once for each threshold, so it gets this many and not all.
_CALLABLE_THRESHOLDS = 49
# Thresholds of each network where their measures take longer than counts.
_FEW_THRESHOLDS = 400


class Objective:
    """Rows on which networks are measured, with the constraint and the performance.

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
        Sensitive features for a callable `constraint`; `codes` if not given.
    compared : ndarray of int, optional
        Groups that the constraint compares; all if not given.
    stratum : ndarray of shape (n_samples,), int, optional
        Stratum of each row within its group and label, from
        :func:`~skfair.intraprocessing._counting.find_strata`.
    population : ndarray of shape (2 * n_groups, n_strata), optional
        Numbers of rows in the population that these rows represent, by cell and stratum; these
        rows are the population if not given.
    tuned : Objective, optional
        The rows that tuned the networks, of the same population and strata. The choice uses
        their rates as far as they agree with the rates on the rows of this objective.

    Attributes
    ----------
    cell : ndarray of shape (n_samples,), int
        Twice the group, plus the label.
    sizes : ndarray of shape (2 * n_groups, n_strata), int
        Rows of each cell and stratum.
    totals : ndarray of shape (n_groups, 2), float64
        Negatives and positives of each group in the population.
    signed : bool
        Whether the bias has a sign: the difference of two groups in one statistic.
    chance : float
        Best performance of a constant prediction.
    uncertainty : float
        Factor on the variances of all rates.
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
        self.uncertainty = 1.0
        if population is None:  # each row represents itself
            self.stratum = np.zeros_like(codes)
            self.sizes = self.population = np.bincount(self.cell, minlength=2 * n_groups)[:, None]
        else:
            assert stratum is not None
            self.stratum, self.population = stratum, population
            self.sizes = count_rows(self.cell, stratum, population.shape)
        self._rows_per_row = self.population / np.maximum(self.sizes, 1)
        self.totals = self.population.sum(1).reshape(n_groups, 2).astype(np.float64)
        self.signed = len(self.compared) == 2 and constraint != "equalized_odds"
        self._bootstrap_error: float | None = None
        constant = np.stack([np.zeros_like(self.totals), self.totals])
        chance = self._performance(constant, np.array([[False], [True]]))
        self.chance = float(np.nan_to_num(chance).max())

    @property
    def statistics(self) -> list[list[str]]:
        """Rates behind each statistic of a constraint by name, as in ``CONSTRAINTS``."""
        assert isinstance(self.constraint, str)
        return CONSTRAINTS[self.constraint]

    def take(self, rows: np.ndarray) -> "Objective":
        """Make the same objective on some of the rows.

        Returns
        -------
        Objective
        """
        return self._with(
            y=self.y[rows],
            codes=self.codes[rows],
            features=_safe_indexing(self.features, rows),
        )

    def stand_for(
        self, rows: np.ndarray, population: np.ndarray, stratum: np.ndarray
    ) -> "Objective":
        """Make the same objective on a sample of a population (post-stratification).

        All rows of the population tell the size of each stratum, and the sample tells how the
        network predicts the rows of a stratum. A network that stays close to the original one
        predicts most strata as a whole. Its rates on the sample are then nearly those on the
        population.

        Parameters
        ----------
        rows : ndarray of int
            The sample.
        population : ndarray of int
            The population.
        stratum : ndarray of shape (n_samples,), int
            From :func:`~skfair.intraprocessing._counting.find_strata`, by scores of the original
            network, which was trained without these rows.

        Returns
        -------
        Objective
        """
        shape = 2 * self.n_groups, int(stratum.max()) + 1
        counts = count_rows(self.cell[population], stratum[population], shape)
        return self.take(rows)._with(stratum=stratum[rows], population=counts)

    def part(self, rows: np.ndarray) -> "Objective":
        """Make the same objective on some of the rows, as a sample of the same population.

        Returns
        -------
        Objective
        """
        if self.population is self.sizes:
            return self.take(rows)
        return self.take(rows)._with(
            stratum=self.stratum[rows], population=self.population, tuned=self.tuned
        )

    def hearing(self, tuned: "Objective") -> "Objective":
        """Make the same objective that also uses the rates on the rows that tuned the networks.

        Returns
        -------
        Objective
        """
        result = copy.copy(self)
        result.tuned = tuned
        return result

    def unconstrained(self) -> "Objective":
        """Make the objective of the performance alone.

        Returns
        -------
        Objective
        """
        # The difference of two rates is at most 1.
        return self._with(constraint="demographic_parity", epsilon=2.0, confidence=None, margin=0.0)

    def _with(self, **changes: Any) -> "Objective":
        names = ("y", "codes", "n_groups", "constraint", "performance", "epsilon", "confidence")
        kept = {name: getattr(self, name) for name in (*names, "margin", "features", "compared")}
        return Objective(**kept | changes)

    def choose(self, scores: np.ndarray, rules: Sequence[Rule] = (PLAIN,)) -> list[Choice]:
        """Find the best threshold of each network among all distinct thresholds.

        The scores are sorted once and the counts cumulated, which gives the predictions of
        every threshold: O(n log n) for a network.

        Parameters
        ----------
        scores : ndarray of shape (n_networks, n_samples)
            Larger for the positive class. The scores of the rows of `tuned` follow the others.
        rules : sequence of Rule, optional
            Settings of the choice.

        Returns
        -------
        list of Choice
            One for each rule, with a threshold for each network, halfway between two of its
            scores.
        """
        callables = callable(self.constraint) or callable(self.performance)
        counts = self.cell.size * self.sizes.size
        at_once = 1 if callables else max(1, CHUNK // counts)
        parts = [
            self._choose(scores[start : start + at_once], callables, rules)
            for start in range(0, len(scores), at_once)
        ]
        return [Choice.join(each) for each in zip(*parts, strict=True)]

    def check_defined(
        self, choice: Choice, where: str = "every threshold of the original network"
    ) -> None:
        """Raise if a callable returned NaN at the best threshold, and so at all thresholds.

        Parameters
        ----------
        choice : Choice
            Of length 1, from :meth:`choose`.
        where : str
            The predictions that the callable got, for the message.
        """
        for parameter, found in (("constraint", choice.bias), ("performance", choice.performance)):
            function = getattr(self, parameter)
            if callable(function) and np.isnan(found[0]):
                raise ValueError(
                    f"{named(parameter, function)} returned nan at {where}, expected a number. "
                    "Give a function that is defined for these labels and groups."
                )

    def measure(self, scores: np.ndarray, threshold: float, rule: Rule = PLAIN) -> Choice:
        """Measure one network at one threshold.

        Parameters
        ----------
        scores : ndarray of shape (n_samples,)
        threshold : float
        rule : Rule, optional
            Settings of the choice.

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
        counts = count_rows(self.cell[predicted], self.stratum[predicted], self.sizes.shape)
        return counts.astype(np.float64)

    def interval(self, choice: Choice, predicted: np.ndarray) -> tuple[float, float]:
        """Compute a 95 % interval for the bias in the population.

        Parameters
        ----------
        choice : Choice
            Measures of the predictions, of length 1.
        predicted : ndarray of shape (n_samples,), bool
            Predictions.

        Returns
        -------
        low, high : float
            Not below zero for a bias without a sign.
        """
        if callable(self.constraint):
            return normal_interval(float(choice.bias[0]), float(choice.error[0]), signed=True)
        return gap_interval(self._rates(self.count(predicted)), self.epsilon)

    def pairs(self, labels: Sequence, predicted: np.ndarray) -> pd.DataFrame:
        """Compute the difference of each pair of groups.

        Parameters
        ----------
        labels : sequence
            Labels of all groups.
        predicted : ndarray of shape (n_samples,), bool
            Predictions.

        Returns
        -------
        DataFrame
            As :func:`~skfair.intraprocessing._gaps.table_of_pairs`; without rows for a callable
            constraint.
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
            For a mean of rates, the rows that one rate of the same variance would have; zero
            where a rate has no rows.
        """
        assert isinstance(self.constraint, str)
        negatives, positives = self.totals.T
        sizes = []
        for rates in constraint_rates(self.constraint, 0, 0, positives, negatives):
            of = [rate.size for rate in rates]
            one = len(rates) ** 2 / sum(1 / np.maximum(size, 1) for size in of)
            sizes.append(np.where(np.min(of, axis=0) > 0, one, 0)[self.compared])
        return sizes

    def optimism(self, predicted: np.ndarray, on_tuned: np.ndarray) -> float:
        """Compare the bias on the rows of `tuned` with the bias on these rows.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), bool
            Predictions for these rows, which tuned nothing.
        on_tuned : ndarray of bool
            Predictions for the rows of `tuned`.

        Returns
        -------
        float
            Largest difference over all statistics and pairs of groups, in standard errors.
        """
        assert self.tuned is not None
        largest = 0.0
        here, there = self.count(predicted), self.tuned.count(on_tuned)
        for rates in self.statistics:
            held_out, tuned = self._parts(rates, here), self.tuned._parts(rates, there)
            moved, variance = held_out.mean - tuned.mean, held_out.inside + tuned.inside
            for g, h in combinations(range(len(moved)), 2):
                error = np.sqrt(max(variance[g] + variance[h], 1e-12))
                largest = max(largest, abs(moved[g] - moved[h]) / error)
        return float(largest)

    def _choose(self, scores: np.ndarray, callables: bool, rules: Sequence[Rule]) -> list[Choice]:
        n = len(self.y)
        scores, on_tuned = scores[:, :n], scores[:, n:]
        ordered, counts = cumulate(scores, self.cell, self.stratum, self.sizes)
        threshold, distinct = thresholds_between(ordered)
        if callables:
            pass
        elif len(self.compared) > 2 or self.tuned is not None:
            distinct = thin(distinct, _FEW_THRESHOLDS)
        else:
            allowed = distinct & self._within_constraint(counts)
            distinct &= allowed | ~allowed.any(1, keepdims=True)
        network, k = np.nonzero(distinct)
        predicted = None
        if callables:  # there is one network
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
            best = every.best_of_each(network)
            choice = every.take(best)
            if np.isnan(choice.probability).any():
                parts = [None if part is None else part[best] for part in (predicted, tuned)]
                (choice,) = self._evaluate(at[best], counts[best], parts[0], [rule], parts[1])
            found.append(choice)
        return found

    def _count_above(
        self, scores: np.ndarray, network: np.ndarray, threshold: np.ndarray
    ) -> np.ndarray:
        """Count positive predictions at some thresholds, (n_thresholds, n_cells, n_strata)."""
        ordered, counts = cumulate(scores, self.cell, self.stratum, self.sizes)
        k = np.empty(len(network), dtype=np.int64)
        for one, row in enumerate(ordered):
            k[network == one] = np.searchsorted(-row, -threshold[network == one])
        return np.moveaxis(counts[:, :, network, k], -1, 0)

    def _within_constraint(self, counts: np.ndarray) -> np.ndarray:
        """Tell where the measured bias meets the constraint and predictions are not constant.

        If there are any such thresholds, the choice is one of them. They are few and their bias
        is quick to compute, which saves most of the evaluation. For counts of shape
        (n_cells, n_strata, ...).
        """
        predicted = counts.sum((0, 1))
        allowed = (predicted > 0) & (predicted < len(self.y))
        factor = self._rows_per_row.reshape(*self.sizes.shape, *[1] * (counts.ndim - 2))
        whole = (counts * factor).sum(1)
        false, true = np.moveaxis(whole.reshape(self.n_groups, 2, *whole.shape[1:]), 1, 0)
        negatives, positives = self.totals.T[..., None, None]
        margin = self.margin if self.confidence is None else 0.0
        assert isinstance(self.constraint, str)
        for rates in constraint_rates(self.constraint, true, false, positives, negatives):
            with np.errstate(invalid="ignore"):  # NaN for a group without rows is not allowed
                mean = mean_rate(rates)[self.compared]
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
        """Measure thresholds by their counts of positive predictions, (n, n_cells, n_strata)."""
        whole = (counts * self._rows_per_row).sum(-1).reshape(len(counts), self.n_groups, 2)
        performance = self._performance(whole, predicted)
        positive = counts.sum((1, 2))
        constant = (positive == 0) | (positive == len(self.y))
        if callable(self.constraint):
            assert predicted is not None  # as for all callables
            bias, error = self._user_bias(predicted, performance)
            # As the rate of one group, with the rate of another group being zero.
            rates = [(np.stack([bias, 0 * bias], -1), np.stack([error**2, 0 * error], -1))]
        else:
            rates = self._rates(counts, tuned)
        return [
            apply_rule(
                rule,
                rates,
                performance,
                constant,
                threshold=threshold,
                chance=self.chance,
                epsilon=self.epsilon,
                margin=self.margin,
                confidence=self.confidence,
                likely=likely,
            )
            for rule in rules
        ]

    def _performance(self, counts: np.ndarray, predicted: np.ndarray | None) -> np.ndarray:
        if callable(self.performance):
            assert predicted is not None
            rows = np.broadcast_to(predicted, (len(predicted), len(self.y))).astype(np.int64)
            return np.array([call_performance(self.performance, self.y, row) for row in rows])
        n, p = np.maximum(self.totals.sum(0), 1)  # a fold may lack one of the labels
        fp, tp = np.moveaxis(counts.sum(1), -1, 0)
        return group_statistic([self.performance], tp, fp, p, n)

    def _rates(self, counts: np.ndarray, tuned: np.ndarray | None = None) -> list[Statistic]:
        """Estimate the statistics of the constraint in the groups that it compares."""
        found = []
        for rates in self.statistics:
            mean, inside, between, least = self._parts(rates, counts)
            if tuned is not None:
                assert self.tuned is not None
                other = self.tuned._parts(rates, tuned)
                mean, inside = combine_tuned(mean, inside, other.mean, other.inside)
            variance = self.uncertainty * np.maximum(inside + between, least)
            found.append((mean, variance))
        return found

    def _parts(self, rates: list[str], counts: np.ndarray) -> RateParts:
        return rate_parts(rates, counts, self.sizes, self.population, self.compared)

    def _user_bias(
        self, predicted: np.ndarray, performance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the bias by a callable; its standard error is estimated once."""
        function, predicted = self.constraint, predicted.astype(np.int64)
        assert not isinstance(function, str)
        bias = np.array(
            [
                # A frame of its own, which the function may change.
                call_constraint(function, self.y, row, _safe_indexing(self.features, slice(None)))
                for row in predicted
            ]
        )
        if self._bootstrap_error is None:
            # The original network comes first; the error at its best threshold is used for all.
            known = np.where(np.isnan(bias), -np.inf, np.nan_to_num(performance))
            self._bootstrap_error = bootstrap_error(
                function,
                self.y,
                predicted[known.argmax()],
                self.features,
                defined=not np.isnan(bias).all(),
            )
        return bias, np.full(len(bias), self._bootstrap_error)
