"""Intra-processing in closed form: measure predictions, and choose a candidate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from skfair.intraprocessing._choice import Choice, Rule, apply_rule
from skfair.intraprocessing._gaps import (
    SURE,
    Statistic,
    gap_interval,
    measure_gap,
    power_to_certify,
    table_of_pairs,
)
from skfair.metrics._rate_tests import RateCounts, table_rates
from skfair.utils._shown import tell_apart

# The corrections bring the rate of a group of few rows only a part of the way to the others. If all
# its positive rows are predicted positive, no correction changes its counted rate. Then the bias of
# all of them may be measured just above epsilon, and a much worse candidate just below it.
_RULE = Rule(measured=False)


class Question(NamedTuple):
    """The constraint and the performance, with the classes and groups that they compare.

    Attributes
    ----------
    constraint, epsilon, performance, confidence, margin
        As in the debiaser.
    classes, groups : list
        Labels of all classes, and of the groups that are compared.
    compared : ndarray of int
        Positions of these groups.
    positive : int or None
        Position of the class whose rates are compared; None for all classes.
    """

    constraint: str
    epsilon: float
    performance: str
    confidence: float | str | None
    margin: float
    classes: list
    groups: list
    compared: np.ndarray
    positive: int | None

    def rates(self, table: np.ndarray) -> list[RateCounts]:
        """Count the rates that the constraint compares.

        Parameters
        ----------
        table : ndarray of shape (n_groups, n_classes, n_classes)
            Rows by group, class and predicted class.

        Returns
        -------
        list of RateCounts
            Without the rates of labels that do not occur.
        """
        table = table[self.compared]
        found = table_rates(self.constraint, table, self.classes, self.positive)
        return [rate for rate in found if rate.sizes.any()]


class Judge:
    """Rows on which candidates are judged by their out-of-fold predictions.

    Parameters
    ----------
    codes, groups, fold : ndarray of shape (n_samples,), int
        Class, group and fold of each row.
    n_groups : int
        Number of groups, with those that are not compared.
    question : Question
        The constraint and the performance.
    """

    def __init__(
        self,
        codes: np.ndarray,
        groups: np.ndarray,
        fold: np.ndarray,
        n_groups: int,
        question: Question,
    ):
        n_classes = len(question.classes)
        self.question = question
        self._shape = int(fold.max()) + 1, n_groups, n_classes, n_classes
        self._place = ((fold * n_groups + groups) * n_classes + codes) * n_classes
        self._columns: list[dict[str, Any]] = []
        self._tables: list[np.ndarray] = []

    def add(self, predicted: np.ndarray, **columns: Any) -> None:
        """Add a candidate.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), int
            Its predictions.
        **columns
            Values of further columns of :meth:`trials`.
        """
        counts = np.bincount(self._place + predicted, minlength=int(np.prod(self._shape)))
        self._tables.append(counts.reshape(self._shape))
        self._columns.append(columns)

    def best(self) -> int:
        """Find the best candidate; a constant prediction only if there is no other.

        Returns
        -------
        int
            Its position.
        """
        return self._measure().best()

    def table(self, candidate: int) -> np.ndarray:
        """Count the predictions of a candidate.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_classes)
        """
        return self._tables[candidate].sum(0)

    def chosen_table(self) -> np.ndarray:
        """Count, over all folds, the predictions of the candidate chosen on the other folds.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_classes)
        """
        total = np.zeros(self._shape[1:], dtype=np.int64)
        for k in range(self._shape[0]):
            total += self._tables[self._measure(without=k).best()][k]
        return total

    def trials(self) -> pd.DataFrame:
        """List all candidates and their measures.

        Returns
        -------
        DataFrame
        """
        choice = self._measure()
        shown = ("bias", "performance", "probability", "objective", "feasible")
        measures = pd.DataFrame({name: getattr(choice, name) for name in shown})
        return pd.concat([pd.DataFrame(self._columns), measures], axis=1).rename_axis("trial")

    def by_power(self, sizes: Sequence[np.ndarray], delta: float) -> list[int]:
        """Sort the candidates that are not constant by the probability of a certificate.

        Parameters
        ----------
        sizes : list of ndarray of shape (n_groups,)
            Calibration rows behind each rate.
        delta : float
            Risk of a false certificate.

        Returns
        -------
        list of int
            Positions, the most probable certificate first.
        """
        epsilon, power = self.question.epsilon, {}
        for i in np.flatnonzero(~self._measure().constant).tolist():
            statistics = _statistics(self.table(i), self.question)
            power[i] = float(power_to_certify(statistics, sizes, epsilon, delta))
        return sorted(power, key=lambda i: -power[i])

    def _measure(self, without: int | None = None) -> Choice:
        """Measure all candidates, on all folds or without one."""
        tables = (
            table.sum(0) if without is None else table.sum(0) - table[without]
            for table in self._tables
        )
        return Choice.join([measure(table, self.question) for table in tables])


def measure(table: np.ndarray, question: Question) -> Choice:
    """Measure predictions.

    Parameters
    ----------
    table : ndarray of shape (n_groups, n_classes, n_classes)
        Rows by group, class and predicted class.
    question : Question
        The constraint and the performance.

    Returns
    -------
    Choice
        Of length 1.
    """
    confusion = table.sum(0)
    totals, right = confusion.sum(1), np.diagonal(confusion)
    occurs = totals > 0
    if question.performance == "accuracy":
        performance, chance = right.sum() / totals.sum(), totals.max() / totals.sum()
    else:
        performance, chance = (right[occurs] / totals[occurs]).mean(), 1 / occurs.sum()
    return apply_rule(
        _RULE,
        [(mean[None], variance[None]) for mean, variance in _statistics(table, question)],
        np.array([performance]),
        np.array([(confusion.sum(0) > 0).sum() == 1]),
        threshold=np.array([np.nan]),
        chance=float(chance),
        epsilon=question.epsilon,
        margin=question.margin,
        confidence=question.confidence,
    )


def report(
    table: np.ndarray,
    question: Question,
    n_folds: int | None = None,
    chosen: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compute the fitted attributes about the chosen predictions.

    Parameters
    ----------
    table : ndarray of shape (n_groups, n_classes, n_classes)
        Rows by group, class and predicted class.
    question : Question
        The constraint and the performance.
    n_folds : int, optional
        Number of folds, if the predictions are out-of-fold.
    chosen : ndarray of the same shape, optional
        The out-of-fold predictions of candidates that were chosen on the other folds.

    Returns
    -------
    dict of str to object
        Names and values of fitted attributes.
    """
    measured, epsilon = measure(table, question), question.epsilon
    bias = float(measured.bias[0])
    statistics = _statistics(table, question)
    if n_folds is not None:
        # A fit to a part of the rows varies more than a fit to all. The mean over the folds does
        # not show this: a row shifts the predictions of its own fold and of the others in
        # opposite directions.
        more = n_folds / (n_folds - 1)
        if chosen is not None:
            # Where the cross-validated choice has another bias, the choice depends on chance, and
            # the bias in the population may lie there.
            gap, other = measure_gap(statistics, epsilon), measure(chosen, question).bias[0]
            apart = (float(gap.bias) - other) / 2
            more *= 1 + (apart / max(float(gap.error), 1e-9)) ** 2
        statistics = [(mean, more * variance) for mean, variance in statistics]
    names = [rate.name for rate in question.rates(table)]
    labels = list(tell_apart(question.groups).values())
    return {
        "bias_": bias,
        "bias_interval_": _interval(statistics, bias, epsilon),
        "pairs_": table_of_pairs(names, labels, statistics, epsilon),
        "performance_": float(measured.performance[0]),
        "feasible_": float(measure_gap(statistics, epsilon).probability) >= SURE,
    }


def _interval(statistics: list[Statistic], bias: float, epsilon: float) -> tuple[float, float]:
    """Compute a 95 % interval for the bias in the population.

    By chance alone, the largest of several measured differences is larger than in the population.
    The upper end is therefore the largest upper end of any single pair. The lower end is the
    largest lower end of any pair at a level that is corrected for the number of pairs
    (Bonferroni).
    """
    if len(statistics) == 1 and len(statistics[0][0]) == 2:
        return gap_interval(statistics, epsilon)
    # Rates are not shrunk: how similar a small group is to the others would be a guess.
    one, two = np.triu_indices(len(statistics[0][0]), 1)
    size = np.concatenate([np.abs(mean[one] - mean[two]) for mean, _ in statistics])
    error = np.sqrt(np.concatenate([var[one] + var[two] for _, var in statistics]))
    low = float((size - ndtri(1 - 0.025 / len(size)) * error).max())
    high = float((size + ndtri(0.975) * error).max())
    return min(max(low, 0.0), abs(bias)), min(max(high, abs(bias)), 1.0)


def _statistics(table: np.ndarray, question: Question) -> list[Statistic]:
    """Estimate each compared rate by group, and its variance."""
    statistics = []
    for _, hits, sizes, _ in question.rates(table):
        of = np.maximum(sizes, 1)
        # A group without rows gets the rate of all other groups.
        mean = np.where(sizes > 0, hits / of, hits.sum() / sizes.sum())
        # A rate of 0 or 1 among a few rows is not certain.
        inner = np.clip(hits, 0.5, of - 0.5) / of
        statistics.append((mean, inner * (1 - inner) / of))
    return statistics
