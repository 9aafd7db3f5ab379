"""Groups: ``sensitive_features``, in any accepted container, as integer codes and labels."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from skfair.utils._arrays import evaluation
from skfair.utils._labels import BIN, as_objects, bare, describe_rows, encode_labels, sort_labels
from skfair.utils._shown import shown, shown_all

_MISSING_LABEL = "missing"
MANY_NUMBERS = 30  # a column with more distinct numbers is probably a measurement


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each sample.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,), int64
        Position of the sample's group in `labels`; -1 for a missing group under
        ``missing="keep"``.
    labels : tuple
        Sorted labels of the groups that occur. With several columns, each label is a tuple
        with one value per column: the groups are the intersections.
    names : tuple of str
        Names of the columns.

    Examples
    --------
    >>> groups = encode_groups({"sex": ["f", "m", "f"]}, n_samples=3)
    >>> groups.codes, groups.labels, groups.rows()
    (array([0, 1, 0]), ('f', 'm'), [('f',), ('m',)])
    """

    codes: np.ndarray
    labels: tuple
    names: tuple[str, ...]

    def rows(self) -> list[tuple]:
        """Return each label as a tuple, also for a single column.

        Returns
        -------
        list of tuple
            One tuple per group, with one value per column.
        """
        return label_rows(self.labels, self.names)

    def features(self) -> Any:
        """Return the labels in the form in which metric functions take ``sensitive_features``.

        Returns
        -------
        ndarray of shape (n_groups,) or DataFrame of shape (n_groups, n_columns)
            One row per group. Indexed by ``codes``, it gives the group of each sample.
        """
        columns = zip(self.names, zip(*self.rows(), strict=True), strict=True)
        table = pd.DataFrame({name: as_objects(values) for name, values in columns})
        return table if table.shape[1] > 1 else table.iloc[:, 0].to_numpy()


def encode_groups(
    sensitive_features: Any,
    *,
    n_samples: int,
    missing: Literal["error", "group", "keep"] = "error",
    name: str = "sensitive_features",
) -> Groups:
    """Encode group labels as integers.

    Parameters
    ----------
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Strings, integers, booleans, categories or any other labels that can be hashed: a
        list, array, tensor, Series, a DataFrame (pandas, polars, ...) or a dict of columns.
        Samples with the same value in each column are in the same group.
    n_samples : int
        Expected number of samples.
    missing : {"error", "group", "keep"}, default="error"
        How None, NaN, NaT and ``pandas.NA`` are handled: "error" raises an error, "group" gives
        them the label ``"missing"`` in their column, "keep" gives the sample code -1.
    name : str, default="sensitive_features"
        Name of the argument in messages.

    Returns
    -------
    Groups
        Codes, sorted labels and names of the columns.

    Raises
    ------
    TypeError
        `sensitive_features` has a type that cannot hold one label per sample.
    ValueError
        `sensitive_features` is None. The number of samples differs from `n_samples`. There are
        no samples or no columns. A column has continuous values or more than 30 different
        numbers. Or values are missing under ``missing="error"``.

    Examples
    --------
    >>> groups = encode_groups(["f", "m", "f"], n_samples=3)
    >>> groups.labels, groups.codes
    (('f', 'm'), array([0, 1, 0]))
    >>> encode_groups({"sex": ["f", "m"], "old": [True, False]}, n_samples=2).labels
    (('f', True), ('m', False))
    """
    if missing not in ("error", "group", "keep"):
        raise ValueError(f"missing={missing!r} is not one of 'error', 'group' and 'keep'.")
    columns = _split_columns(sensitive_features, name)
    encoded = []
    for column_name, column in columns.items():
        where = name if len(columns) == 1 else f"column {shown(column_name)} of {name}"
        codes, labels = encode_labels(column, name=where)
        if len(codes) != n_samples:
            raise ValueError(
                f"{where} has {len(codes)} values for {n_samples} samples. Give one group label "
                "per sample, in the order of the samples."
                + (
                    " In a search or cross-validation, give a DataFrame: scikit-learn does not "
                    "split a dict into folds."
                    if isinstance(sensitive_features, Mapping)
                    else " If there are several features, give one column for each, for example "
                    f"numpy.column_stack({name})."
                    if len(columns) == n_samples
                    else ""
                )
            )
        if len(labels) > MANY_NUMBERS and all(type(label) is int for label in labels):
            raise ValueError(
                f"{where} has {len(labels)} different numbers, from {shown(labels[0])} to "
                f"{shown(labels[-1])}. Expected labels of groups. {BIN}"
            )
        absent = codes < 0
        if absent.any():
            if missing == "error":
                raise ValueError(
                    f"{where} is missing for {describe_rows(absent)}. Drop these samples, or give "
                    "them a group of their own, for example with .fillna('unknown')."
                )
            if missing == "group":
                label = _MISSING_LABEL
                while label in labels:
                    label = f"({label})"
                codes = np.where(absent, len(labels), codes)
                # Sorted among the others, so that a subset of the samples has the same order.
                codes, labels = sort_labels(codes, [*labels, label])
        encoded.append((codes, labels))

    codes, labels = encoded[0]
    if len(encoded) > 1:
        codes, labels = _intersect(encoded)
    return Groups(codes=codes, labels=tuple(labels), names=tuple(columns))


def label_rows(labels: Sequence, names: Sequence[str]) -> list[tuple]:
    """Return each label of groups as a tuple, also for a single column.

    Parameters
    ----------
    labels : sequence
        Labels as in :class:`Groups`.
    names : sequence of str
        Names of the columns.

    Returns
    -------
    list of tuple

    Examples
    --------
    >>> label_rows(("f", "m"), ["sex"])
    [('f',), ('m',)]
    """
    return list(labels) if len(names) > 1 else [(label,) for label in labels]


def _split_columns(features: Any, name: str) -> dict[str, Any]:
    """Split any accepted container into named columns."""
    if features is None:
        raise ValueError(
            f"{name} is None; expected the group of each sample. Pass {name} by keyword, as in "
            f"fit(X, y, {name}=...). A Pipeline or a search passes it on under "
            "sklearn.config_context(enable_metadata_routing=True)."
        )
    nothing = isinstance(features, str | bytes | int | float | set | frozenset)
    if nothing or callable(features):
        raise TypeError(
            f"{name} must hold one group label per sample (an array, Series, DataFrame or dict of "
            f"columns), got {type(features).__name__}."
        )
    _check_container(features, name)
    features = bare(features)
    if isinstance(features, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return {_column_name(getattr(features, "name", None), 0, name): features}
    if isinstance(features, pd.DataFrame):  # by position: names may occur twice
        keys, columns = list(features), [features.iloc[:, i] for i in range(features.shape[1])]
    elif isinstance(features, Mapping):
        keys, columns = list(features), list(features.values())
    elif hasattr(features, "columns"):  # polars and others, which use None for a missing value
        keys = getattr(features, "column_names", None) or list(features.columns)
        columns = [features[key] for key in keys]
    else:
        nested = isinstance(features, list | tuple) and any(
            isinstance(row, list | tuple | np.ndarray) for row in features
        )
        if isinstance(features, list | tuple) and not nested:
            return {_column_name(None, 0, name): features}
        array = np.asarray(features, dtype=object if nested else None)
        if array.ndim not in (1, 2):
            raise ValueError(
                f"{name} has shape {array.shape}; it must be 1-D, or 2-D with one column for "
                "each sensitive feature."
            )
        if array.ndim == 1:
            return {_column_name(getattr(features, "name", None), 0, name): array}
        keys, columns = [None] * array.shape[1], list(array.T)
    if not keys:
        raise ValueError(f"{name} has no columns. Give at least one sensitive feature.")
    names = [_column_name(key, i, name) for i, key in enumerate(keys)]
    if len(set(names)) < len(names):
        raise ValueError(f"{name} has columns of the same name ({shown_all(names)}). Rename them.")
    return dict(zip(names, columns, strict=True))


def _check_container(features: Any, name: str) -> None:
    """Refuse a container that does not hold labels sample by sample, and say what to give."""
    advice = ""
    if hasattr(features, "toarray"):
        advice = (
            f"is a sparse matrix. Give {name}.toarray(), whose columns are intersected to groups, "
            f"or for a one-hot encoding {name}.toarray().argmax(axis=1)"
        )
    elif lazy := evaluation(features, name):
        advice = f"is not computed yet. Give {lazy}"
    elif hasattr(features, "__iter__") and not hasattr(features, "__getitem__"):
        advice = f"can be read only once, or has no order. Give list({name})"
    elif isinstance(features, list | tuple) and any(map(_is_column, features)):
        advice = (
            f"holds {len(features)} columns without names. Give them as a dict, "
            "{'name': column, ...}, or as a DataFrame"
        )
    if advice:
        raise TypeError(f"{name} is a {type(features).__name__}, which {advice}.")


def _is_column(value: Any) -> bool:
    """Whether a value is a column of pandas, polars, pyarrow or torch, not a row of labels."""
    if hasattr(value, "detach"):
        return value.ndim > 0
    return not isinstance(value, np.ndarray) and (
        hasattr(value, "__len__") and hasattr(value, "to_numpy")
    )


def _column_name(key: Hashable, position: int, argument: str) -> str:
    """Return the name of a column. Without a name, use the name that MetricFrame would give."""
    return f"{argument.removesuffix('s')}_{position}" if key is None or key == "" else str(key)


def _intersect(encoded: list[tuple[np.ndarray, list]]) -> tuple[np.ndarray, list[tuple]]:
    """Combine columns into the groups that occur, sorted column by column."""
    joint, absent = np.zeros_like(encoded[0][0]), np.zeros(len(encoded[0][0]), dtype=bool)
    for codes, labels in encoded:  # renumbered at each step, so that no product overflows
        absent |= codes < 0
        joint = np.unique(joint * len(labels) + codes, return_inverse=True)[1]
    rows, inverse = np.unique(joint[~absent], return_index=True, return_inverse=True)[1:]
    rows = np.flatnonzero(~absent)[rows]
    joint[absent], joint[~absent] = -1, inverse
    return joint, [tuple(labels[codes[row]] for codes, labels in encoded) for row in rows]
