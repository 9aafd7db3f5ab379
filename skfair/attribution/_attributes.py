"""Patch attribution, the attribute: encode ``sensitive_features`` for training."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target

from skfair.utils import encode_groups
from skfair.utils._labels import as_objects, encode_labels
from skfair.utils._shown import plain, shown

_FEWEST = 4  # images of each value


class Attributes(NamedTuple):
    """The attributes of each image.

    Attributes
    ----------
    codes : ndarray of shape (n_samples, n_attributes), int64
        Position of each value among the classes of its attribute.
    cell : ndarray of shape (n_samples,), int64
        Combination of all attributes.
    classes : list of ndarray
        Values of each attribute, sorted.
    names : tuple of str
        Name of each attribute.
    """

    codes: np.ndarray
    cell: np.ndarray
    classes: list[np.ndarray]
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Attributes":
        """Select the attributes of some images.

        Returns
        -------
        Attributes
        """
        return self._replace(codes=self.codes[rows], cell=self.cell[rows])


def as_list(value: Any) -> list:
    """Give one entry an attribute: the list itself, or a list of the only attribute's entry."""
    return value if isinstance(value, list) else [value]


def one_or_all(entries: list) -> Any:
    """Give the list where there are several attributes, and else its only entry."""
    return entries if len(entries) > 1 else entries[0]


def one_or_all_maps(maps: np.ndarray) -> np.ndarray:
    """Drop the axis of the attributes, before the last two, where there is one attribute only."""
    return maps if maps.shape[-3] > 1 else maps[..., 0, :, :]


def encode_attributes(sensitive_features: Any, *, n_samples: int, combine: bool) -> Attributes:
    """Encode the attribute of each image, or the attributes.

    Parameters
    ----------
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        One value for each image, or one for each image and column.
    n_samples : int
        Number of images.
    combine : bool
        Whether several columns are one attribute whose classes are the combinations.

    Returns
    -------
    Attributes

    Raises
    ------
    ValueError, TypeError
        There is no attribute, some images have no value, an attribute has one class only or
        another value for each image, or a value has too few images.
    """
    groups = encode_groups(sensitive_features, n_samples=n_samples)
    names: tuple[str, ...] = ("sensitive_features",)
    columns: list[tuple] = [groups.labels]
    if not combine and len(groups.names) > 1:
        names, columns = groups.names, list(zip(*groups.labels, strict=True))
    codes, classes = [], []
    for name, column in zip(names, columns, strict=True):
        code, values = encode_labels(as_objects(column), name=name)
        if len(values) < 2:
            raise ValueError(
                f"{plain(name)} has one class only, {shown(values[0])}, in all {n_samples} "
                "images. Give images "
                "with the attribute and images without it."
            )
        if len(values) == n_samples > 2:
            raise ValueError(
                f"{plain(name)} has {n_samples} values in {n_samples} images, another one for "
                "each. Give an attribute whose values several images share, not an identifier."
            )
        check_enough(code[groups.codes], values, name)
        codes.append(code[groups.codes])
        classes.append(as_objects(values) if isinstance(values[0], tuple) else np.array(values))
    return Attributes(np.stack(codes, 1), groups.codes, classes, names)


def check_enough(code: np.ndarray, values: Any, name: str) -> None:
    """Raise if a value has too few images to learn from and to test on.

    Parameters
    ----------
    code : ndarray of shape (n_samples,), int64
        Position of each image's value.
    values : sequence
        The values.
    name : str
        Name of the attribute, for the message.
    """
    sizes = np.bincount(code)
    rarest = int(sizes.argmin())
    # From a handful of images in total nobody expects a map, so the limit is lower there.
    if sizes[rarest] < min(_FEWEST, len(code) / 10):
        raise ValueError(
            f"{plain(name)} has the value {shown(values[rarest])} in {sizes[rarest]} of "
            f"{len(code)} images, too few to learn where it shows. Give at least {_FEWEST} images "
            "of each value, better fifty, or leave out the images with this value."
        )


def positive_classes(attributes: Attributes, pos_label: Any) -> list[int | None]:
    """Find the class of each attribute that `pos_label` names.

    Parameters
    ----------
    attributes : Attributes
    pos_label : object
        The parameter; None to find the class out later.

    Returns
    -------
    list of int or None
        Position among the classes; None where `pos_label` does not say.

    Raises
    ------
    ValueError
        No attribute of two values has this value.
    """
    positive: list[int | None] = []
    for classes in attributes.classes:
        labels = classes.tolist()
        known = pos_label is not None and len(labels) == 2 and pos_label in labels
        positive.append(labels.index(pos_label) if known else None)
    if pos_label is not None and all(p is None for p in positive):
        values = shown([classes.tolist() for classes in attributes.classes])
        raise ValueError(
            f"pos_label={shown(pos_label)} is not a value of an attribute that has two values; "
            f"the values are {values}. Give the value that means that the attribute is present."
        )
    return positive


def encode_classes(y: Any, *, n_samples: int) -> np.ndarray:
    """Encode the classes within which leakage is measured.

    Parameters
    ----------
    y : array-like of shape (n_samples,), or None
        Classes of the images.
    n_samples : int
        Number of images.

    Returns
    -------
    ndarray of shape (n_samples,), int64
        All zeros if there are no classes: `y` is None, continuous, or has several columns.

    Raises
    ------
    ValueError
        The length of `y` is not the number of images.
    """
    if y is None:
        return np.zeros(n_samples, dtype=np.int64)
    y = np.atleast_1d(np.asarray(y))
    if len(y) != n_samples:
        raise ValueError(
            f"y has {len(y)} values and X {n_samples} images. Give the class of each image, or "
            "leave y out."
        )
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind not in ("binary", "multiclass"):
        return np.zeros(n_samples, dtype=np.int64)
    return np.unique(column_or_1d(y, warn=True), return_inverse=True)[1]


def balanced_weight(cell: np.ndarray) -> np.ndarray:
    """Compute weights of images under which all cells count the same.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64

    Returns
    -------
    ndarray of shape (n_samples,), float64
        Their sum is 1.
    """
    _, cell, counts = np.unique(cell, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[cell])
