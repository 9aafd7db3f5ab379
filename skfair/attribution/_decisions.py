"""Patch attribution, between finding and hiding: one place or many, and what is left."""

import warnings
from typing import Any

import numpy as np
import torch

from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import highest_probability
from skfair.attribution._grid import PatchGrid
from skfair.attribution._leakage import Leakage, measure_leakage
from skfair.utils import LeakageWarning

_N_DONORS = 32


def donor_maps(
    probabilities: list[np.ndarray],
    codes: np.ndarray,
    positive: np.ndarray,
    threshold: np.ndarray,
    confidence: str,
) -> np.ndarray:
    """Keep the confidences of some images that have the attribute, as holes for others.

    Parameters
    ----------
    probabilities : list of ndarray of shape (n_samples, n_classes, n_rows, n_cols)
        Of each attribute, on images that are held out.
    codes : ndarray of shape (n_samples, n_attributes), int64
        Class of each image.
    positive : ndarray of shape (n_attributes,), int64
        Class that means "it is here"; -1 if there is none.
    threshold : ndarray of shape (n_attributes,)
        Score from which on the attribute is found.
    confidence : str
        One of :data:`CONFIDENCES`.

    Returns
    -------
    ndarray of shape (n_attributes, n_donors, n_rows, n_cols), float32
    """
    kept = []
    for proba, code, there, least in zip(probabilities, codes.T, positive, threshold, strict=True):
        having = np.arange(len(code))
        if there >= 0:
            having = np.flatnonzero(code == there)
            found = having[highest_probability(proba)[having, there] >= least]
            having = found if len(found) else having
        some = np.resize(having, _N_DONORS)
        maps = CONFIDENCES[confidence](
            torch.from_numpy(proba[some]), None if there < 0 else int(there)
        )
        kept.append(maps.numpy())
    return np.stack(kept)


def share_inside(
    probabilities: list[np.ndarray],
    codes: np.ndarray,
    positive: np.ndarray,
    general: np.ndarray,
    grid: PatchGrid,
) -> float:
    """Share of the images with the attribute whose surest patch lies in the general region.

    Parameters
    ----------
    probabilities, codes, positive
        As in :func:`donor_maps`.
    general : ndarray of shape (height, width), bool
        The pixels that would be hidden in all images.
    grid : PatchGrid
        Positions of the patches.

    Returns
    -------
    float
        The lowest of all attributes.
    """
    shares = []
    half = (grid.patch_size - 1) // 2
    for proba, code, there in zip(probabilities, codes.T, positive, strict=True):
        sure = CONFIDENCES["probability"](
            torch.from_numpy(proba), None if there < 0 else int(there)
        ).numpy()
        if there >= 0:
            sure = sure[code == there]
        surest = torch.from_numpy(sure.reshape(len(sure), -1).argmax(1))
        rows, columns = (corner.numpy() + half for corner in grid.corners(surest))
        rows, columns = np.minimum(rows, grid.height - 1), np.minimum(columns, grid.width - 1)
        shares.append(general[rows, columns].mean())
    return float(min(shares))


def some_of_each(cell: np.ndarray, strata: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw images so that rare combinations of class and attribute are all there.

    Parameters
    ----------
    cell, strata : ndarray of shape (n_samples,), int64
        Attribute and class of each image.
    most : int
        How many to draw at most.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of int64
        Rows, sorted; all, if they are not more than `most`.
    """
    order = np.random.RandomState(seed).permutation(len(cell))
    if len(order) <= most:
        return np.arange(len(cell))
    both = np.unique(np.stack([cell, strata], 1), axis=0, return_inverse=True)[1].ravel()[order]
    by_cell = np.argsort(both, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    sizes = np.bincount(both)
    rank[by_cell] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(rank, kind="stable")[:most]])


def worst_leakage(
    images: torch.Tensor, codes: np.ndarray, strata: np.ndarray, **how: Any
) -> Leakage:
    """Measure the leakage of each attribute, and give that of the one that is told best.

    Parameters
    ----------
    images : tensor of shape (n_samples, n_channels, height, width)
    codes : ndarray of shape (n_samples, n_attributes), int64
    strata : ndarray of shape (n_samples,), int64
    **how
        As in :func:`measure_leakage`.

    Returns
    -------
    Leakage
    """
    each = [
        measure_leakage(images, code, strata, n_classes=int(code.max()) + 1, **how)
        for code in codes.T
    ]
    return max(each, key=lambda one: np.nan_to_num(one.low - one.chance, nan=np.inf))


def warn_of_leakage(before: Leakage, after: Leakage, *, swapped: bool) -> None:
    """Warn where the attribute is not hidden, or where it is not known whether it is.

    Parameters
    ----------
    before, after : Leakage
        From the untouched images, and from those in which it is hidden.
    swapped : bool
        Whether parts were swapped.
    """
    if np.isnan(after.accuracy):
        remedy = "" if swapped else " Where they coincide, only perturbation='swap' can part them."
        message = (
            "In no class are there images with each value of the attribute (at least "
            "four of each), so that a network that tells the attribute cannot be told from one "
            f"that tells the class: leakage_ is NaN.{remedy}"
        )
    elif after.low > after.chance:
        left = (after.accuracy - after.chance) / max(before.accuracy - after.chance, 1e-12)
        message = (
            f"A network still tells the attribute from the images in which it is hidden, with a "
            f"balanced accuracy of {after.accuracy:.2f} ({after.low:.2f} to {after.high:.2f}), "
            f"where guessing gets {after.chance:.2f} and untouched images {before.accuracy:.2f}: "
            f"{min(left, 1):.0%} of what told it is left. Hide more (quantile, margin), compare "
            "scope='general' and 'specific', or take perturbation='swap'; without y this may be "
            "what goes along with the attribute, so pass y."
        )
    elif not before.low > before.chance:
        message = (
            f"Networks do not tell the attribute from untouched images either (balanced accuracy "
            f"{before.accuracy:.2f}), so that leakage_ says nothing about what is hidden. Fit on "
            "more images."
        )
    else:
        return
    warnings.warn(message, LeakageWarning, stacklevel=7)
