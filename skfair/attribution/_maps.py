"""Patch attribution, stage 3: maps of the confidence, and the pixels and boxes found in them."""

import numpy as np
import torch
from scipy import ndimage

from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._grid import PatchGrid


def mean_confidence(
    probabilities: list[np.ndarray], codes: np.ndarray, positive: np.ndarray, confidence: str
) -> np.ndarray:
    """Average the confidence over images at each position, for the general map.

    Parameters
    ----------
    probabilities : list of ndarray of shape (n_samples, n_classes, n_rows, n_cols)
        Probabilities of each attribute, on held-out images.
    codes : ndarray of shape (n_samples, n_attributes), int64
        Class of each image.
    positive : ndarray of shape (n_attributes,), int64
        Class that means "the attribute is here"; -1 if there is none.
    confidence : str
        One of :data:`~skfair.attribution._confidence.CONFIDENCES`.

    Returns
    -------
    ndarray of shape (n_attributes, n_rows, n_cols), float32
    """
    measure, means = CONFIDENCES[confidence], []
    for proba, code, there in zip(probabilities, codes.T, positive.tolist(), strict=True):
        if confidence != "probability":
            means.append(measure(torch.from_numpy(proba)).numpy().mean(0))
            continue
        # Each class has the images that show it. Other images would lower every position alike.
        of_class = np.stack([proba[code == c, c].mean(0) for c in range(proba.shape[1])])
        shown = None if there < 0 else there
        means.append(measure(torch.from_numpy(of_class[None]), shown).numpy()[0])
    return np.stack(means)


def scale_maps(maps: np.ndarray, confidence: str) -> np.ndarray:
    """Bring maps to the range from 0 to 1.

    Parameters
    ----------
    maps : ndarray of shape (..., height, width)
        Mean confidences.
    confidence : str
        One of :data:`~skfair.attribution._confidence.CONFIDENCES`. Maps of the "probability" are
        in this range already. Each other map is shifted and scaled by its own lowest and highest
        value; a constant map becomes zero.

    Returns
    -------
    ndarray of the shape of `maps`
    """
    if confidence == "probability":
        return np.clip(maps, 0, 1)  # rounding can bring a mean of ones above one
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


def found_pixels(
    probability: torch.Tensor, grid: PatchGrid, threshold: torch.Tensor
) -> torch.Tensor:
    """Mark the pixels in which each attribute is found.

    Parameters
    ----------
    probability : tensor of shape (n, n_attributes, n_rows, n_cols)
        The confidence "probability" at all positions.
    grid : PatchGrid
        Positions of the patches on these images.
    threshold : tensor of shape (n_attributes,)
        Score from which on the attribute is found in an image.

    Returns
    -------
    tensor of shape (n, n_attributes, height, width), bool
        True where the pixel map is above the middle between the image's median and its highest
        value. All False for an image whose highest probability is below the threshold.
    """
    maps = grid.pixel_map(probability)
    flat = maps.flatten(2)
    level = (flat.median(2).values + flat.amax(2)) / 2
    is_found = probability.flatten(2).amax(2) >= threshold
    return (maps > level[..., None, None]) & is_found[..., None, None]


def boxes_around(mask: np.ndarray) -> np.ndarray:
    """Find the boxes around the connected parts of a mask.

    Parameters
    ----------
    mask : ndarray of shape (height, width), bool

    Returns
    -------
    ndarray of shape (n_boxes, 4), int64
        Column and row of the upper left pixel, width and height, in the order of the rows.
    """
    labelled, _ = ndimage.label(mask)
    found = [
        (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for rows, columns in ndimage.find_objects(labelled)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 4)
