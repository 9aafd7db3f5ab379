"""Intra-processing, all methods: the rule that chooses among networks and thresholds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skfair.intraprocessing._gaps import SURE, Statistic, measure_gap, power_to_certify


class Choice(NamedTuple):
    """Candidates (a network and its threshold) and their measures; arrays of shape (n,).

    Attributes
    ----------
    threshold : ndarray
        Rows with a score above the threshold are predicted positive. NaN where no threshold made
        the predictions.
    bias : ndarray
        With two groups and one statistic, the statistic of the first group minus that of the
        second; otherwise the largest difference between two groups.
    error : ndarray
        Standard error of the bias.
    performance : ndarray
        The performance.
    probability : ndarray
        Probability that the constraint holds on new rows, twice as many as were measured.
    objective : ndarray
        The value to maximise; zero for a candidate that is not eligible.
    bound : ndarray
        The value to minimise among equal objectives: the size of the bias.
    eligible : ndarray of bool
        Whether the measured bias lies within the bound of the constraint. A candidate that is not
        eligible comes after all that are.
    constant : ndarray of bool
        Whether all rows get the same prediction.
    power : ndarray
        Approximate probability of a certificate; zero without one.
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
        """Whether the constraint is likely enough to hold on new rows."""
        return self.probability >= SURE

    @classmethod
    def join(cls, parts: "Sequence[Choice]") -> "Choice":
        """Join the candidates of all parts, in order.

        Returns
        -------
        Choice
        """
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def ranking(self) -> np.ndarray:
        """Sort the candidates, best first; constant predictions come after all others.

        Returns
        -------
        ndarray of int
            Positions.
        """
        return np.lexsort((self.bound, -self.objective, ~self.eligible, self.constant))

    def best(self) -> int:
        """Find the best candidate; a constant prediction only if there is nothing else.

        Returns
        -------
        int
            Its position.
        """
        return int(self.ranking()[0])

    def best_of_each(self, network: np.ndarray) -> np.ndarray:
        """Find the best candidate of each network, as :meth:`best` does.

        Parameters
        ----------
        network : ndarray of int
            Network of each candidate, in ascending order.

        Returns
        -------
        ndarray of int
            Positions.
        """
        starts = np.flatnonzero(np.diff(network, prepend=-1))
        other = ~np.logical_and.reduceat(self.constant, starts)[network]
        objective = np.where(self.eligible, self.objective, np.finfo(float).min)
        objective = np.where(self.constant & other, -np.inf, objective)
        best = objective == np.maximum.reduceat(objective, starts)[network]
        bound = np.where(best, self.bound, np.inf)
        found = np.flatnonzero(bound == np.minimum.reduceat(bound, starts)[network])
        return found[np.unique(network[found], return_index=True)[1]]

    def take(self, index: slice | np.ndarray) -> "Choice":
        """Take the candidates at some positions.

        Returns
        -------
        Choice
        """
        return Choice(*(values[index] for values in self))


class Certify(NamedTuple):
    """How much performance a probable certificate is worth.

    Attributes
    ----------
    worth : float
        Performance to give up, at most, for a certificate of probability one.
    sizes : list of ndarray of shape (n_groups,)
        Calibration rows behind each statistic of the constraint.
    delta : float
        Risk of a false certificate.
    """

    worth: float
    sizes: list[np.ndarray]
    delta: float


class Rule(NamedTuple):
    """Settings of the choice.

    Attributes
    ----------
    room : float
        Share of epsilon that stays free as a safety margin.
    certify : Certify or None
        Worth of a certificate; None to ignore certificates.
    enough : float
        Probability of the constraint above which a higher one is worth no more.
    measured : bool
        Whether the measured bias has to meet the constraint, too.
    """

    room: float = 0.0
    certify: Certify | None = None
    enough: float = 1.0
    measured: bool = True


PLAIN = Rule()


def apply_rule(
    rule: Rule,
    statistics: Sequence[Statistic],
    performance: np.ndarray,
    constant: np.ndarray,
    *,
    threshold: np.ndarray,
    chance: float,
    epsilon: float,
    margin: float,
    confidence: float | str | None,
    likely: bool = True,
) -> Choice:
    """Measure candidates and say what each is worth.

    With ``confidence=None`` this is the objective of Savani et al. 2020, arXiv 2006.08564: the
    performance of a candidate whose bias is below epsilon, and zero for all others. Otherwise it
    takes the error of the bias into account: (performance - chance) times the probability that
    the constraint holds on new rows.

    Parameters
    ----------
    rule : Rule
        Settings of the choice.
    statistics : list of (mean, variance)
        Statistics of the constraint by group, each of shape (n, n_groups).
    performance, constant, threshold : ndarray of shape (n,)
        As in :class:`Choice`.
    chance : float
        Best performance of a constant prediction.
    epsilon, margin, confidence
        As in the debiasers.
    likely : bool, default=True
        Whether to compute the probability where it takes long, see :func:`measure_gap`.

    Returns
    -------
    Choice
    """
    room = epsilon * rule.room
    bias, error, probability, excess = measure_gap(statistics, epsilon, room, likely=likely)
    # A callable may return NaN, for instance the precision where nothing is predicted positive.
    defined = np.isfinite(bias) & np.isfinite(performance)
    size = np.where(defined, np.abs(bias), np.inf)
    gain = np.maximum(performance - chance, 0)
    power = np.zeros(len(performance))
    if confidence is None:
        eligible, objective = size < epsilon - margin, performance
    elif statistics[0][0].shape[-1] > 2:
        # The probability that all of many differences hold is close to zero for any candidate:
        # the expected excess over epsilon tells candidates apart.
        eligible, objective = defined, gain - 2 * excess
    else:
        eligible = size < epsilon - room if rule.measured else defined
        objective = gain * np.minimum(probability, rule.enough)
    if rule.certify is not None:
        power = power_to_certify(statistics, rule.certify.sizes, epsilon, rule.certify.delta)
        # The power contains the probability of the constraint, which must not count twice.
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
