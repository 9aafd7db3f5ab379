"""Groups: the one place where ``sensitive_features`` become integer codes and labels."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from skfair.utils._arrays import as_numpy, evaluation
from skfair.utils._shown import shown, shown_all

_MISSING_LABEL = "missing"
_ROWS_SHOWN = 5
_MANY_NUMBERS = 30  # distinct ones in a column, above which it is taken for a measurement
_BIN = (
    "Bin them first, for instance with pandas.cut, or convert them to strings if each value is "
    "meant as a label."
)


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each sample.

    Attributes
    ----------
    codes : ndarray of shape (n_samples,), int64
        Position of the sample's group in `labels`; -1 where it is missing and was kept so.
    labels : tuple
        Labels of the groups that occur, sorted. With several columns each label is a tuple
        with one value a column: the groups are the intersections.
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
        """Give each label as a tuple, also where there is one column.

        Returns
        -------
        list of tuple
            A tuple a group, with one value a column.
        """
        return label_rows(self.labels, self.names)

    def features(self) -> Any:
        """Give each label as functions of ``sensitive_features`` want them.

        Returns
        -------
        ndarray of shape (n_groups,) or DataFrame of shape (n_groups, n_columns)
            A row a group, which ``codes`` number.
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
        Samples that agree in all columns are in the same group.
    n_samples : int
        Number of samples that there must be.
    missing : {"error", "group", "keep"}, default="error"
        What None, NaN, NaT and ``pandas.NA`` mean: an error; in their column a label of
        their own, ``"missing"``; or a sample of no group, code -1.
    name : str, default="sensitive_features"
        Name of the argument in messages.

    Returns
    -------
    Groups
        Codes, sorted labels and names of the columns.

    Raises
    ------
    TypeError
        There is nothing that could be group labels.
    ValueError
        None, another number of samples, no samples, no columns, continuous values or more than 30
        different numbers in a column, or, under ``missing="error"``, missing values.

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
                "a sample, in the order of the samples"
                + (
                    "; in a search or cross-validation as a DataFrame, since scikit-learn does "
                    "not cut a dict into folds."
                    if isinstance(sensitive_features, Mapping)
                    else ", and with several features a column for each, numpy.column_stack("
                    f"{name})."
                    if len(columns) == n_samples
                    else "."
                )
            )
        if len(labels) > _MANY_NUMBERS and all(type(label) is int for label in labels):
            raise ValueError(
                f"{where} has {len(labels)} different numbers, from {shown(labels[0])} to "
                f"{shown(labels[-1])}, "
                f"where labels of groups were expected. {_BIN}"
            )
        absent = codes < 0
        if absent.any():
            if missing == "error":
                raise ValueError(
                    f"{where} is missing for {describe_rows(absent)}. Drop these samples, or make "
                    "them a group of their own, for instance with .fillna('unknown')."
                )
            if missing == "group":
                label = _MISSING_LABEL
                while label in labels:
                    label = f"({label})"
                codes = np.where(absent, len(labels), codes)
                # Sorted in, so that a part of the samples orders its labels as all of them do.
                codes, labels = _sort(codes, [*labels, label])
        encoded.append((codes, labels))

    codes, labels = encoded[0]
    if len(encoded) > 1:
        codes, labels = _intersect(encoded)
    return Groups(codes=codes, labels=tuple(labels), names=tuple(columns))


def encode_labels(values: Any, *, name: str, hint: str = _BIN) -> tuple[np.ndarray, list]:
    """Encode one column of labels of any type; missing values get code -1.

    Parameters
    ----------
    values : array-like of shape (n_samples,) or (n_samples, 1)
        The labels.
    name : str
        Name of the argument in messages.
    hint : str
        What to do where `values` turn out to be continuous.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int64
        Position of each label in `labels`, or -1.
    labels : list
        The distinct labels as Python objects, sorted.

    Raises
    ------
    TypeError
        `values` is no array, or its labels cannot be hashed.
    ValueError
        `values` is empty, has more than one column or holds continuous numbers.

    Examples
    --------
    >>> encode_labels([3, None, 1], name="y")
    (array([ 1, -1,  0]), [1, 3])
    """
    values = _only_column(_bare(values))
    if isinstance(values, list | tuple) and any(hasattr(value, "detach") for value in values):
        values = [as_numpy(value).tolist() for value in values]  # tensors without dimensions
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        array = values
    else:
        # A list of mixed types must not be cast to strings, where None would become 'None'.
        array = as_objects(values) if isinstance(values, list | tuple) else np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"{name} has shape {array.shape} where one label a sample, shape (n_samples,), "
                "was expected."
            )
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind in "mM":  # dates: NumPy would make plain integers of them
            array = pd.Index(array)
    if len(array) == 0:
        raise ValueError(f"{name} is empty. Give at least one sample.")
    try:
        if isinstance(array, np.ndarray) and array.dtype.kind == "U":
            codes, uniques = _factorize_text(array)
        else:
            codes, uniques = pd.factorize(array)
    except TypeError as error:
        raise TypeError(
            f"{name} holds labels that cannot be hashed, such as lists or arrays. Give one "
            "string, number or other plain label a sample."
        ) from error
    return _sort(codes, [_plain(label, name, hint) for label in uniques.tolist()])


def label_rows(labels: Sequence, names: Sequence[str]) -> list[tuple]:
    """Give each label of groups as a tuple, also where there is one column.

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


def describe_rows(mask: np.ndarray) -> str:
    """Say how many rows a mask marks and which come first.

    Parameters
    ----------
    mask : ndarray of shape (n_samples,), bool

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> describe_rows(np.array([False, True, True]))
    '2 of 3 samples (rows 1, 2)'
    """
    rows = np.flatnonzero(mask)
    first = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    more = ", ..." if len(rows) > _ROWS_SHOWN else ""
    return f"{len(rows)} of {len(mask)} samples (rows {first}{more})"


def as_objects(values: Any) -> np.ndarray:
    """Make a 1-D object array of the elements, whatever they are.

    Parameters
    ----------
    values : sequence

    Returns
    -------
    ndarray of shape (len(values),), object

    Examples
    --------
    >>> as_objects([1, "a", (2, 3)]).shape
    (3,)
    """
    return np.fromiter(values, dtype=object, count=len(values))


def _bare(values: Any) -> Any:
    """Let tensors become arrays, and what a mask hides None; all else stays."""
    if hasattr(values, "detach"):
        return as_numpy(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.array(None), values.data.astype(object))
    return values


def _only_column(values: Any) -> Any:
    """Take one column out of what holds no other, as scikit-learn's ``column_or_1d`` does."""
    if isinstance(values, pd.DataFrame):  # by position: a name may be anything
        return values.iloc[:, 0] if values.shape[1] == 1 else values
    if not isinstance(values, Mapping) and len(getattr(values, "columns", ())) == 1:
        return values[next(iter(getattr(values, "column_names", values.columns)))]
    if isinstance(values, list) and all(isinstance(row, list) and len(row) == 1 for row in values):
        return [label for row in values for label in row]
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values


def _split_columns(features: Any, name: str) -> dict[str, Any]:
    """Take any accepted container apart into named columns."""
    if features is None:
        raise ValueError(
            f"{name} is None; expected the group of each sample. Pass it by name, as in "
            f"fit(X, y, {name}=...). A Pipeline and a search hand it on under "
            "sklearn.config_context(enable_metadata_routing=True)."
        )
    nothing = isinstance(features, str | bytes | int | float | set | frozenset)
    if nothing or callable(features):
        raise TypeError(
            f"{name} must hold one group label a sample (an array, Series, DataFrame or dict of "
            f"columns), got {type(features).__name__}."
        )
    _check_container(features, name)
    features = _bare(features)
    if isinstance(features, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return {_column_name(getattr(features, "name", None), 0, name): features}
    if isinstance(features, pd.DataFrame):  # by position: names may occur twice
        keys, columns = list(features), [features.iloc[:, i] for i in range(features.shape[1])]
    elif isinstance(features, Mapping):
        keys, columns = list(features), list(features.values())
    elif hasattr(features, "columns"):  # polars and others; None where a value is missing
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
    """Say what to give in place of what does not hold labels sample by sample."""
    advice = ""
    if hasattr(features, "toarray"):
        advice = (
            f"holds no labels but where they are. Give {name}.toarray(), whose columns are crossed "
            f"to groups, or of a one-hot encoding {name}.toarray().argmax(axis=1)"
        )
    elif lazy := evaluation(features, name):
        advice = f"is not computed yet. Give {lazy}"
    elif hasattr(features, "__iter__") and not hasattr(features, "__getitem__"):
        advice = f"can be read only once, or in no order. Give list({name})"
    elif isinstance(features, list | tuple) and any(map(_is_column, features)):
        advice = (
            f"holds {len(features)} columns without names. Give them as a dict, "
            "{'name': column, ...}, or as a DataFrame"
        )
    if advice:
        raise TypeError(f"{name} is a {type(features).__name__}, which {advice}.")


def _is_column(value: Any) -> bool:
    """Whether a value is a column of pandas, polars, pyarrow or torch, and no row of labels."""
    if hasattr(value, "detach"):
        return value.ndim > 0
    return not isinstance(value, np.ndarray) and (
        hasattr(value, "__len__") and hasattr(value, "to_numpy")
    )


def _column_name(key: Hashable, position: int, argument: str) -> str:
    """Name a column as fairlearn's MetricFrame does where it has no name."""
    return f"{argument.removesuffix('s')}_{position}" if key is None or key == "" else str(key)


def _plain(label: Any, name: str, hint: str) -> Any:
    """Refuse a continuous value; make an int of a float that stands for one."""
    if not isinstance(label, float | np.floating):
        return label.item() if isinstance(label, np.generic) else label
    if not float(label).is_integer():
        raise ValueError(
            f"{name} holds continuous values, such as {shown(label)}, where labels were "
            f"expected. {hint}"
        )
    return int(label)  # pandas stores integers with gaps as floats


def _factorize_text(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do as ``pandas.factorize``, without making a Python string of each element."""
    n, width = len(text), text.dtype.itemsize // 4
    if width > 16 or n >= 1 << 21 or text.dtype.byteorder == ">":
        return pd.factorize(text)
    characters = np.ascontiguousarray(text).view(np.uint32).reshape(n, width)
    codes = np.zeros(n, dtype=np.int64)
    for i in range(0, width, 2):  # two characters have 42 bits; the codes so far, less than 21
        two = characters[:, i].astype(np.int64)
        if i + 1 < width:
            two |= characters[:, i + 1].astype(np.int64) << 21
        codes = pd.factorize(codes << 42 | two)[0]
    first = np.empty(codes.max(initial=-1) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(n)[::-1]
    return codes, text[first]


def _sort(codes: np.ndarray, labels: list) -> tuple[np.ndarray, list]:
    """Sort labels, and renumber the codes; -1 stays."""
    try:
        order = sorted(range(len(labels)), key=labels.__getitem__)
    except TypeError:  # mixed types, say 1 and "a"
        order = sorted(range(len(labels)), key=lambda i: (type(labels[i]).__name__, str(labels[i])))
    rank = np.empty(len(labels) + 1, dtype=np.int64)
    rank[order] = np.arange(len(labels))
    rank[-1] = -1
    return rank[codes], [labels[i] for i in order]


def _intersect(encoded: list[tuple[np.ndarray, list]]) -> tuple[np.ndarray, list[tuple]]:
    """Combine columns into the groups that occur, sorted column by column."""
    joint, absent = np.zeros_like(encoded[0][0]), np.zeros(len(encoded[0][0]), dtype=bool)
    for codes, labels in encoded:  # compressed at each step, so that no product overflows
        absent |= codes < 0
        joint = np.unique(joint * len(labels) + codes, return_inverse=True)[1]
    rows, inverse = np.unique(joint[~absent], return_index=True, return_inverse=True)[1:]
    rows = np.flatnonzero(~absent)[rows]
    joint[absent], joint[~absent] = -1, inverse
    return joint, [tuple(labels[codes[row]] for codes, labels in encoded) for row in rows]
