"""Patch attribution, the attribute: from ``sensitive_features`` to what is predicted."""

from typing import Any, NamedTuple

import numpy as np

from skfair.utils import encode_groups
from skfair.utils._groups import as_objects, encode_labels
from skfair.utils._shown import plain, shown


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
        What to call each attribute.
    """

    codes: np.ndarray
    cell: np.ndarray
    classes: list[np.ndarray]
    names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Attributes":
        """The attributes of some images.

        Returns
        -------
        Attributes
        """
        return self._replace(codes=self.codes[rows], cell=self.cell[rows])


def encode_attributes(sensitive_features: Any, *, n_samples: int, combine: bool) -> Attributes:
    """Encode attributes.

    Parameters
    ----------
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        One value, or one a column, for each image.
    n_samples : int
        Number of images.
    combine : bool
        Whether several columns are one attribute, with their combinations as classes.

    Returns
    -------
    Attributes

    Raises
    ------
    ValueError, TypeError
        There is no attribute, it is missing for some images, or it has only one class.
    """
    if sensitive_features is None:
        raise ValueError(
            "sensitive_features is None, where the attribute of each image was wanted: it is what "
            "is looked for. Pass fit(X, sensitive_features=...); in a pipeline or search, under "
            "sklearn.config_context(enable_metadata_routing=True)."
        )
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
                "each. Give an attribute that several images share, not what tells them apart."
            )
        codes.append(code[groups.codes])
        classes.append(as_objects(values) if isinstance(values[0], tuple) else np.array(values))
    return Attributes(np.stack(codes, 1), groups.codes, classes, names)


def balanced_weight(cell: np.ndarray) -> np.ndarray:
    """Weights under which all cells count the same.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64

    Returns
    -------
    ndarray of shape (n_samples,), float64
        Their sum is one.
    """
    _, cell, counts = np.unique(cell, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[cell])
