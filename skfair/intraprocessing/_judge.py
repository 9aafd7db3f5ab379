"""Intra-processing in closed form: how biased predictions are, and which to take."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

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


class Question(NamedTuple):
    """What is wanted of predictions.

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
        """What the constraint compares, from rows by group, class and predicted class.

        Parameters
        ----------
        table : ndarray of shape (n_groups, n_classes, n_classes)

        Returns
        -------
        list of RateCounts
            Without rates of labels that do not occur.
        """
        table = table[self.compared]
        found = table_rates(self.constraint, table, self.classes, self.positive)
        return [rate for rate in found if rate.sizes.any()]


class Judge:
    """Rows to judge predictions on, none of which has had a part in making them.

    Parameters
    ----------
    codes, groups, fold : ndarray of shape (n_samples,), int
        Class, group and fold of each row.
    n_groups : int
        Number of groups, with those that are not compared.
    question : Question
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
        """Enter a candidate.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), int
            Its predictions.
        **columns
            What to note beside the measures.
        """
        counts = np.bincount(self._place + predicted, minlength=int(np.prod(self._shape)))
        self._tables.append(counts.reshape(self._shape))
        self._columns.append(columns)

    def best(self) -> int:
        """Position of the candidate to take; a constant prediction only if there is no other.

        Returns
        -------
        int
        """
        return self._best([table.sum(0) for table in self._tables])

    def table(self, candidate: int) -> np.ndarray:
        """Count the predictions of a candidate.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_classes)
        """
        return self._tables[candidate].sum(0)

    def chosen_table(self) -> np.ndarray:
        """Count the predictions of the candidates that are chosen without the fold they predict.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_classes)
        """
        total = np.zeros(self._shape[1:], dtype=np.int64)
        for k in range(self._shape[0]):
            best = self._best([table.sum(0) - table[k] for table in self._tables])
            total += self._tables[best][k]
        return total

    def trials(self) -> pd.DataFrame:
        """All candidates and their measures.

        Returns
        -------
        DataFrame
        """
        measured = [measure(table.sum(0), self.question) for table in self._tables]
        rows = [
            {**columns, **found} for columns, found in zip(self._columns, measured, strict=True)
        ]
        table = pd.DataFrame(rows).rename_axis("trial")
        return table.drop(columns=["eligible", "constant"])

    def by_power(self, sizes: Sequence[np.ndarray], delta: float) -> list[int]:
        """Candidates in the order of how likely a certificate is; none that is constant.

        Parameters
        ----------
        sizes : list of ndarray of shape (n_groups,)
            Calibration rows behind each rate.
        delta : float
            The risk of a false certificate.

        Returns
        -------
        list of int
        """
        epsilon, power = self.question.epsilon, {}
        for i, table in enumerate(self._tables):
            whole = table.sum(0)
            if not measure(whole, self.question)["constant"]:
                found = power_to_certify(_statistics(whole, self.question), sizes, epsilon, delta)
                power[i] = float(found)
        return sorted(power, key=lambda i: -power[i])

    def _best(self, tables: list[np.ndarray]) -> int:
        measured = [measure(table, self.question) for table in tables]
        order = [
            (each["constant"], not each["eligible"], -each["objective"], abs(each["bias"]))
            for each in measured
        ]
        return min(range(len(order)), key=order.__getitem__)


def measure(table: np.ndarray, question: Question) -> dict[str, Any]:
    """Measure predictions.

    Parameters
    ----------
    table : ndarray of shape (n_groups, n_classes, n_classes)
        Rows by group, class and predicted class.
    question : Question

    Returns
    -------
    dict
        "bias", "performance", "probability" of the constraint to hold on new rows, "objective",
        "feasible", whether it is "eligible" and whether it is "constant".
    """
    epsilon = question.epsilon
    gap = measure_gap(_statistics(table, question), epsilon)
    bias, probability, excess = float(gap.bias), float(gap.probability), float(gap.excess)
    confusion = table.sum(0)
    totals, right = confusion.sum(1), np.diagonal(confusion)
    occurs = totals > 0
    if question.performance == "accuracy":
        performance, chance = right.sum() / totals.sum(), totals.max() / totals.sum()
    else:
        performance, chance = (right[occurs] / totals[occurs]).mean(), 1 / occurs.sum()
    gain = max(float(performance - chance), 0.0)
    if question.confidence is None:
        eligible, objective = abs(bias) < epsilon - question.margin, float(performance)
    elif len(question.compared) > 2:
        # That all of many differences hold is hardly ever likely: what is over counts.
        eligible, objective = True, gain - 2 * excess
    else:
        eligible, objective = abs(bias) < epsilon, gain * probability
    return {
        "bias": bias,
        "performance": float(performance),
        "probability": probability,
        "objective": objective if eligible else 0.0,
        "feasible": probability >= SURE,
        "eligible": eligible,
        "constant": int((confusion.sum(0) > 0).sum()) == 1,
    }


def report(
    table: np.ndarray,
    question: Question,
    n_folds: int | None = None,
    chosen: np.ndarray | None = None,
) -> dict[str, Any]:
    """What a debiaser says of its predictions.

    Parameters
    ----------
    table : ndarray of shape (n_groups, n_classes, n_classes)
        Rows by group, class and predicted class.
    question : Question
    n_folds : int, optional
        Number of folds that were predicted by fits to the others, if they were.
    chosen : ndarray of the same shape, optional
        The same of what would have been chosen without the fold that it predicts.

    Returns
    -------
    dict of str to object
        Fitted attributes.
    """
    measured, epsilon = measure(table, question), question.epsilon
    statistics = _statistics(table, question)
    if n_folds is not None:
        # Fits to a part of the rows vary more; of that the mean over the folds shows nothing,
        # since what a row adds to its own fold it takes from the others.
        more = n_folds / (n_folds - 1)
        if chosen is not None:
            # Where it is biased otherwise, the choice is by luck, and the truth may be there.
            gap, other = measure_gap(statistics, epsilon), measure(chosen, question)["bias"]
            apart = (float(gap.bias) - other) / 2
            more *= 1 + (apart / max(float(gap.error), 1e-9)) ** 2
        statistics = [(mean, more * variance) for mean, variance in statistics]
    names = [rate.name for rate in question.rates(table)]
    labels = list(tell_apart(question.groups).values())
    return {
        "bias_": measured["bias"],
        "bias_interval_": _interval(statistics, measured["bias"], epsilon),
        "pairs_": table_of_pairs(names, labels, statistics, epsilon),
        "performance_": measured["performance"],
        "feasible_": float(measure_gap(statistics, epsilon).probability) >= SURE,
    }


def _interval(statistics: list[Statistic], bias: float, epsilon: float) -> tuple[float, float]:
    """A 95 % interval for the bias in the population.

    The largest of several differences is larger than in the population by chance alone: the upper
    end is that of the pair for which it is the highest, the lower one that of which all pairs
    together are as sure.
    """
    if len(statistics) == 1 and len(statistics[0][0]) == 2:
        return gap_interval(statistics, epsilon)
    # Nothing is shrunk: what a small group has in common with others is a guess.
    one, two = np.triu_indices(len(statistics[0][0]), 1)
    size = np.concatenate([np.abs(mean[one] - mean[two]) for mean, _ in statistics])
    error = np.sqrt(np.concatenate([var[one] + var[two] for _, var in statistics]))
    low = float((size - ndtri(1 - 0.025 / len(size)) * error).max())
    high = float((size + ndtri(0.975) * error).max())
    return min(max(low, 0.0), abs(bias)), min(max(high, abs(bias)), 1.0)


def _statistics(table: np.ndarray, question: Question) -> list[Statistic]:
    """Each compared rate by group, and its variance."""
    statistics = []
    for _, hits, sizes, _ in question.rates(table):
        of = np.maximum(sizes, 1)
        # Of a group without rows only what is known of all.
        mean = np.where(sizes > 0, hits / of, hits.sum() / sizes.sum())
        # A rate of 0 or 1 among a few rows is not certain.
        inner = np.clip(hits, 0.5, of - 0.5) / of
        statistics.append((mean, inner * (1 - inner) / of))
    return statistics
