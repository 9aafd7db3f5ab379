"""Patch attribution, stage 4: choose which pixels to hide, by the maps and by the leakage."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import highest_probability
from skfair.attribution._leakage import Leakage, measure_leakage

_N_DONORS = 32
# On development faces the agreement was 0.97 for a ruler, 0.49 to 0.80 for marks in a corner, 0.3
# and 0.5 for smiles and glasses, and 0.12 for small marks at random places. Large marks at random
# places cover the middle more often than the border, and agree more.
_NO_PLACE, _MOSTLY, _ONE_PLACE = 0.1, 0.4, 0.9
# The heights from which on pixels are hidden with quantile="auto", from 0, the median of a map, to
# 1, its highest value. They are tried from the smallest area to the largest. The second is taken
# where no network can tell. The smallest quantile is tried too, as a map that is flat at the top
# has no small area.
_LEVELS, _SAFE_LEVEL = (0.9, 0.75, 0.5), 1
_SMALLEST = 0.95


class Hiding(NamedTuple):
    """A choice of the pixels to hide.

    Attributes
    ----------
    scope : {"general", "specific"}
        Whether one map serves all images, or each image has its own.
    quantile : float
        Share of the pixels that is kept, before the margin.
    """

    scope: str
    quantile: float


def donor_maps(
    probabilities: list[np.ndarray],
    codes: np.ndarray,
    positive: np.ndarray,
    threshold: np.ndarray,
    confidence: str,
) -> np.ndarray:
    """Keep the confidences of some images that have the attribute, as holes for other images.

    Parameters
    ----------
    probabilities : list of ndarray of shape (n_samples, n_classes, n_rows, n_cols)
        Probabilities of each attribute, on held-out images.
    codes : ndarray of shape (n_samples, n_attributes), int64
        Class of each image.
    positive : ndarray of shape (n_attributes,), int64
        Class that means "the attribute is here"; -1 if there is none.
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


def map_agreement(
    probabilities: list[np.ndarray], codes: np.ndarray, positive: np.ndarray, threshold: np.ndarray
) -> float:
    """Compute the mean correlation of an image's map with the mean map of the other images.

    Parameters
    ----------
    probabilities, codes, positive, threshold
        As in :func:`donor_maps`.

    Returns
    -------
    float
        About 0 if the attribute is at another place in each image, 1 if it is at one place. With
        several attributes the lowest, with more than two values the mean.
    """
    lowest = 1.0
    for proba, code, there, least in zip(probabilities, codes.T, positive, threshold, strict=True):
        agreements = []
        for c in range(proba.shape[1]) if there < 0 else [there]:
            maps = proba[code == c, c]
            found = maps.max((1, 2)) >= least
            maps = maps[found] if there >= 0 and found.sum() > 1 else maps
            flat = maps.reshape(len(maps), -1).astype(np.float64)
            if len(flat) < 2:
                continue
            others = (flat.sum(0) - flat) / (len(flat) - 1)
            flat, others = (m - m.mean(1, keepdims=True) for m in (flat, others))
            size = np.sqrt((flat**2).sum(1) * (others**2).sum(1))
            agreements.append(((flat * others).sum(1) / np.maximum(size, 1e-12)).mean())
        lowest = min(lowest, float(np.mean(agreements)) if agreements else 0.0)
    return lowest


def likely_scopes(agreement: float) -> list[str]:
    """Order the scopes by the agreement of the maps, without a scope that cannot be right.

    Parameters
    ----------
    agreement : float
        From :func:`map_agreement`.

    Returns
    -------
    list of {"general", "specific"}
    """
    if agreement > _ONE_PLACE:
        return ["general"]
    if agreement < _NO_PLACE:
        return ["specific"]
    return ["general", "specific"] if agreement > _MOSTLY else ["specific", "general"]


def quantiles_of_levels(maps: np.ndarray, levels: Sequence[float]) -> list[float]:
    """Compute the share of the pixels below some heights of their map.

    Parameters
    ----------
    maps : ndarray of shape (n_attributes, n_maps, height, width)
        Maps of pixels or of positions.
    levels : sequence of float
        Heights, from 0, the median of a map, to 1, its highest value.

    Returns
    -------
    list of float
        Median over the maps for each level, for the attribute with the largest areas; from 0.5 to
        0.995.
    """
    flat = maps.reshape(*maps.shape[:2], -1)
    low, high = np.median(flat, 2, keepdims=True), flat.max(2, keepdims=True)
    shares = []
    for level in levels:
        below = (flat <= low + level * (high - low)).mean(2)
        shares.append(float(np.clip(np.median(below, 1).min(), 0.5, 0.995)))
    return shares


def propose_hidings(
    scopes: Sequence[str], quantile: float | None, maps: Mapping[str, np.ndarray]
) -> tuple[Hiding, list[Hiding]]:
    """List the hidings to try, by the area that they hide.

    Parameters
    ----------
    scopes : sequence of {"general", "specific"}
        The likelier one first.
    quantile : float or None
        The parameter; None to try several.
    maps : mapping of str to ndarray of shape (n_attributes, n_maps, height, width)
        Pixel maps of each scope.

    Returns
    -------
    safe : Hiding
        The one to take where leakage cannot be measured.
    tries : list of Hiding
        The smallest area first, and for each area the likelier scope first.
    """
    if quantile is not None:
        return Hiding(scopes[0], quantile), [Hiding(scope, quantile) for scope in scopes]
    levels = [quantiles_of_levels(maps[scope], _LEVELS) for scope in scopes]
    quantiles = [sorted([_SMALLEST, *each], reverse=True) for each in levels]
    tries = [
        Hiding(scope, q)
        for each in zip(*quantiles, strict=True)
        for scope, q in zip(scopes, each, strict=True)
    ]
    return Hiding(scopes[0], levels[0][_SAFE_LEVEL]), tries


def choose_hiding(
    safe: Hiding,
    tries: Sequence[Hiding],
    measure: Callable[[Hiding], Leakage],
    before: Leakage,
) -> tuple[Hiding, Leakage]:
    """Choose the first hiding after which no network tells the attribute, or else the best one.

    Parameters
    ----------
    safe, tries
        From :func:`propose_hidings`.
    measure : callable
        From a hiding to the leakage that is left.
    before : Leakage
        Leakage of the untouched images. If no network tells the attribute from them, nothing can
        be learned from the others: `safe` is taken.

    Returns
    -------
    hiding : Hiding
    after : Leakage
        Leakage that this hiding leaves.
    """
    tried = []
    for hiding in tries if before.low > before.chance else [safe]:
        tried.append((hiding, measure(hiding)))
        if not tried[-1][1].low > before.chance:
            return tried[-1]
    return min(tried, key=lambda one: one[1].accuracy)


def some_of_each(cell: np.ndarray, strata: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw images so that all rare combinations of class and attribute are among them.

    Parameters
    ----------
    cell, strata : ndarray of shape (n_samples,), int64
        Attribute and class of each image.
    most : int
        Highest number of images to draw.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of int64
        Rows, sorted; all rows, if there are at most `most`.
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
    """Measure the leakage of each attribute, and return that of the attribute that leaks most.

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


def describe_leakage(before: Leakage, after: Leakage, *, swapped: bool) -> str | None:
    """Say that the attribute is not hidden, or that it is not known whether it is.

    Parameters
    ----------
    before, after : Leakage
        Leakage of the untouched images, and of the perturbed ones.
    swapped : bool
        Whether ``perturbation="swap"``.

    Returns
    -------
    str or None
        The text of a warning; None if there is nothing to warn of.
    """
    if np.isnan(after.accuracy):
        remedy = (
            "" if swapped else " Where both coincide, only perturbation='swap' can separate them."
        )
        return (
            "No class of y has at least four images with each value of the attribute, so that the "
            "check cannot distinguish a network that tells the attribute from one that tells the "
            f"class: leakage_ is NaN.{remedy}"
        )
    if after.low > after.chance:
        left = (after.accuracy - after.chance) / max(before.accuracy - after.chance, 1e-12)
        return (
            f"A network still tells the attribute from the perturbed images, with a balanced "
            f"accuracy of {after.accuracy:.2f} ({after.low:.2f} to {after.high:.2f}). Guessing "
            f"gets {after.chance:.2f}, and untouched images get {before.accuracy:.2f}: "
            f"{min(left, 1):.0%} of the leak is left. Hide more (quantile, margin), compare "
            "scope='general' and 'specific', or pass perturbation='swap'. Without y, anything "
            "correlated with the attribute counts as a leak, so pass y."
        )
    if not before.low > before.chance:
        return (
            f"Networks do not tell the attribute from untouched images either (balanced accuracy "
            f"{before.accuracy:.2f}), so that leakage_ does not show whether it is hidden. Fit on "
            "more images."
        )
    return None
