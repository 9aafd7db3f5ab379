"""Intra-processing, all methods: which debiasing rows do what."""

from numbers import Real
from typing import NamedTuple

import numpy as np

from skfair.intraprocessing._counting import find_strata
from skfair.intraprocessing._objective import Objective
from skfair.utils._split import split_cells


class Rows(NamedTuple):
    """Which debiasing rows do what.

    Attributes
    ----------
    tune : ndarray of int
        Rows that tune weights.
    select : ndarray of int
        Rows that judge candidates; the same ones where no weights are tuned.
    calibrate : ndarray of int
        Rows of a certificate, which nothing is decided on before.
    stratum : ndarray of shape (n_samples,), int
        Rows of a group and label that are alike to the original network; zero of those of
        `calibrate`.
    """

    tune: np.ndarray
    select: np.ndarray
    calibrate: np.ndarray
    stratum: np.ndarray

    @property
    def held_out(self) -> bool:
        """Whether candidates are judged on rows that tuned nothing."""
        return len(np.union1d(self.tune, self.select)) > len(self.select)

    @property
    def scored(self) -> np.ndarray:
        """Rows on which candidates are to be scored: those that judge, then those that tuned."""
        return np.concatenate([self.select, self.tune]) if self.held_out else self.select


def split_rows(
    objective: Objective,
    scores: np.ndarray | None,
    *,
    seed: int,
    validation_fraction: float | None,
    calibration_fraction: float,
) -> Rows:
    """Split the rows into those that tune weights, judge candidates, and certify the best one.

    Parameters
    ----------
    objective : Objective
        On all rows.
    scores : ndarray of shape (n_samples,) or None
        Logits of the original network, if it knows nothing of these rows; None if it does.
    seed : int
        Draws the split.
    validation_fraction : float or None
        Share of the rows that judge candidates; with None all rows do, and tune weights as well.
    calibration_fraction : float
        Share of the rows of a certificate, where a number as `confidence` asks for one.

    Returns
    -------
    Rows
    """
    everything = np.arange(len(objective.cell))
    calibrate = everything[:0]
    if isinstance(objective.confidence, Real):
        everything, calibrate = _hold_out_calibration(objective, calibration_fraction, seed)
    stratum = np.zeros_like(objective.cell)
    if scores is not None:  # calibration rows have no part in it
        fraction = validation_fraction
        part = 0.5 if fraction is None else min(fraction, 1 - fraction)
        cell, known = objective.cell[everything], scores[everything]
        stratum[everything] = find_strata(cell, known, part)
    tune = select = everything
    if validation_fraction is not None:
        # Of each group and label, so that no rate is without rows to be measured on, and alike
        # to the original network, so that the parts are alike.
        kind = objective.cell[everything] * (stratum.max() + 1) + stratum[everything]
        kind = np.unique(kind, return_inverse=True)[1]
        kept, held_out = split_cells(kind, validation_fraction, seed)
        tune, select = everything[kept], everything[held_out]
    return Rows(tune, select, calibrate, stratum)


def _hold_out_calibration(
    objective: Objective, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the rows of the certificate, at random among the rows that a rate counts.

    Only there the outcomes of the rows are independent draws, as the test of the certificate asks.
    """
    kinds = objective.codes if objective.constraint == "demographic_parity" else objective.cell
    rest, calibrate = split_cells(np.unique(kinds, return_inverse=True)[1], fraction, seed + 1)
    shared = np.intersect1d(rest, calibrate)  # the only row of its kind
    calibrate = np.setdiff1d(calibrate, shared)
    missing = {
        group
        for sizes in objective.take(calibrate).rows_of_statistics()
        for group in objective.compared[sizes < 1]
    }
    if missing:
        raise ValueError(
            f"confidence={objective.confidence:g} asks for a certificate. Of its calibration rows, "
            f"{len(calibrate)} of {len(objective.y)}, there are none for {len(missing)} of the "
            f"{objective.n_groups} groups that it compares. Take more samples, merge small "
            "groups, or set small_groups='exclude'."
        )
    return rest, calibrate
