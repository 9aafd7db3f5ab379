"""Patch attribution, the units of the images: mean, standard deviation and range of values."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from skfair.utils._shown import shown


class ImageStatistics(NamedTuple):
    """Statistics of the values of images.

    Attributes
    ----------
    mean, std : ndarray of shape (n_channels,), float64
        Mean and standard deviation over all pixels. A constant channel has a standard deviation
        of 1.
    low, high : float
        Lowest and highest value.
    """

    mean: np.ndarray
    std: np.ndarray
    low: float
    high: float


def measure_images(batches: Iterable[np.ndarray]) -> ImageStatistics:
    """Measure images batch by batch.

    Parameters
    ----------
    batches : iterable of ndarray of shape (n, n_channels, height, width)

    Returns
    -------
    ImageStatistics

    Raises
    ------
    ValueError
        All images have the same constant colour.
    """
    n_pixels, total, squares = 0, np.zeros(1), np.zeros(1)
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    for batch in batches:
        values = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1).astype(np.float64)
        n_pixels += values.shape[1]
        total = total + values.sum(1)
        squares = squares + np.square(values).sum(1)
        low, high = np.minimum(low, values.min(1)), np.maximum(high, values.max(1))
    if (low == high).all():
        raise ValueError(
            "X holds images of one constant colour: each channel has the same value in every pixel "
            "of every image. Give images that show something."
        )
    mean = total / n_pixels
    variance = np.maximum(squares / n_pixels - mean**2, 0.0)
    std = np.where((low == high) | (variance == 0), 1.0, np.sqrt(variance))
    return ImageStatistics(mean, std, float(low.min()), float(high.max()))


class DataRange(NamedTuple):
    """Lowest and highest value that images can have.

    Attributes
    ----------
    low, high : float
        The range.
    is_given : bool
        Whether the parameter ``data_range`` or the type of the images says so. Otherwise it is
        the range of the images of ``fit``, and others may have values somewhat outside.
    """

    low: float
    high: float
    is_given: bool

    @property
    def allowed(self) -> tuple[float, float]:
        """Lowest and highest value that raises no error.

        Values may leave a measured range by its width: ``fit`` did not see all values, and images
        in other units are farther outside.
        """
        slack = 0.0 if self.is_given else self.high - self.low
        return self.low - slack, self.high + slack

    def check(self, batch: np.ndarray) -> None:
        """Raise where images are not in the expected units.

        Parameters
        ----------
        batch : ndarray
            Values of images.

        Raises
        ------
        ValueError
            A value is outside the range that is allowed.
        """
        found, (lowest, highest) = (float(batch.min()), float(batch.max())), self.allowed
        # In float32, as images are: the float32 number nearest to 0.1 is above 0.1.
        if found[0] < np.float32(lowest) or found[1] > np.float32(highest):
            source = "data_range says" if self.is_given else "fit saw"
            raise ValueError(
                f"X has values from {found[0]:g} to {found[1]:g}, where {source} {self.low:g} to "
                f"{self.high:g}. Bring the images to that scale, or fit with the data_range of "
                "these images."
            )


def given_range(data_range: Any, dtype: np.dtype) -> DataRange | None:
    """Turn the parameter ``data_range`` into a range.

    Parameters
    ----------
    data_range : "auto" or sequence of two float
        The parameter.
    dtype : numpy.dtype
        Type of the images.

    Returns
    -------
    DataRange or None
        None if the range has to be measured.

    Raises
    ------
    ValueError
        The parameter is not two numbers, the lower one first.
    """
    if isinstance(data_range, str):
        return DataRange(0.0, 255.0, is_given=True) if dtype == np.uint8 else None
    values = np.asarray(data_range, dtype=np.float64)
    if values.shape != (2,) or not values[0] < values[1]:
        raise ValueError(
            f"data_range={data_range!r} is not (lowest, highest), two numbers with lowest < "
            "highest. Pass (0, 1) or (0, 255), as the images are scaled, or 'auto'."
        )
    return DataRange(float(values[0]), float(values[1]), is_given=True)


def check_fill(
    fill: Any, mean: np.ndarray, data_range: DataRange, *, eight_bit: bool
) -> np.ndarray:
    """Turn the parameter ``fill`` into a colour.

    Parameters
    ----------
    fill : "mean", float or sequence of float
        The parameter.
    mean : ndarray of shape (n_channels,)
        Mean of each channel over the images of ``fit``.
    data_range : DataRange
        Range of the images.
    eight_bit : bool
        Whether the images are uint8.

    Returns
    -------
    ndarray of shape (n_channels,), float64

    Raises
    ------
    ValueError
        The colour has another number of channels than the images, or is outside the range.
    """
    if isinstance(fill, str):
        return mean
    n_channels = len(mean)
    try:
        colour = np.asarray(fill, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"fill={shown(fill)} is not a colour. Give one number, one for each of the "
            f"{n_channels} channels of the images, or 'mean'."
        ) from error
    if colour.shape not in ((), (n_channels,)):
        raise ValueError(
            f"fill={fill!r} has shape {colour.shape}. Give one number, one for each of the "
            f"{n_channels} channels of the images, or 'mean'."
        )
    lowest, highest = data_range.allowed
    if not ((lowest <= colour) & (colour <= highest)).all():
        raise ValueError(
            f"fill={fill!r} is outside the range of the images, {data_range.low:g} to "
            f"{data_range.high:g}. Give a colour in the units of the images, or the data_range "
            "of the images."
        )
    if eight_bit and 0 < colour.max() < 1:
        raise ValueError(
            f"fill={fill!r} is a colour on a scale from 0 to 1, and the images are uint8, from 0 "
            "to 255. Give a colour in the units of the images, or 'mean'."
        )
    return np.broadcast_to(colour, (n_channels,)).copy()
