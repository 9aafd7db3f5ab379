"""Labels: one column of classes, groups or attribute values as integer codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from skfair.utils._arrays import as_numpy
from skfair.utils._shown import shown

_ROWS_SHOWN = 5
# Advice for a column of continuous values.
BIN = (
    "Bin the values first, for example with pandas.cut, or convert them to strings if each value "
    "is a label."
)

_CUT_AT_NUL = len(pd.factorize(np.array(["a", "a\0b"], dtype=object))[1]) < 2


def encode_labels(values: Any, *, name: str, hint: str = BIN) -> tuple[np.ndarray, list]:
    """Encode one column of labels of any type; missing values get code -1.

    Parameters
    ----------
    values : array-like of shape (n_samples,) or (n_samples, 1)
        The labels.
    name : str
        Name of the argument in messages.
    hint : str
        Advice in the error if `values` are continuous.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int64
        Position of each label in `labels`, or -1.
    labels : list
        The distinct labels as Python objects, sorted.

    Raises
    ------
    TypeError
        A label cannot be hashed.
    ValueError
        `values` is empty, has more than one column, or holds continuous numbers.

    Examples
    --------
    >>> encode_labels([3, None, 1], name="y")
    (array([ 1, -1,  0]), [1, 3])
    """
    values = _only_column(bare(values))
    if isinstance(values, list | tuple) and any(hasattr(value, "detach") for value in values):
        values = [as_numpy(value).tolist() for value in values]  # tensors without dimensions
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        array = values
    else:
        # NumPy would cast a list of mixed types to strings, and None would become 'None'.
        array = as_objects(values) if isinstance(values, list | tuple) else np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"{name} has shape {array.shape}. Expected one label per sample, shape "
                "(n_samples,)."
            )
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind in "mM":  # dates: tolist of NumPy would return integers
            array = pd.Index(array)
    if len(array) == 0:
        raise ValueError(f"{name} is empty. Give at least one sample.")
    try:
        if isinstance(array, np.ndarray) and array.dtype.kind == "U":
            codes, uniques = _factorize_text(array)
        else:
            codes, uniques = _factorize(array)
    except TypeError as error:
        raise TypeError(
            f"{name} holds labels that cannot be hashed, such as lists or arrays. Give one "
            "string, number or other plain label per sample."
        ) from error
    return sort_labels(codes, [_plain(label, name, hint) for label in uniques.tolist()])


def sort_labels(codes: np.ndarray, labels: list) -> tuple[np.ndarray, list]:
    """Sort labels and renumber their codes.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int64
        Position of each sample's label in `labels`; -1 for a missing label.
    labels : list
        Distinct labels.

    Returns
    -------
    codes : ndarray of shape (n_samples,), int64
        Position of each sample's label in the sorted labels; -1 stays -1.
    labels : list
        The sorted labels. Labels of types that cannot be compared are sorted by the name of their
        type, then as text.
    """
    try:
        order = sorted(range(len(labels)), key=labels.__getitem__)
    except TypeError:  # mixed types, for example 1 and "a"
        order = sorted(range(len(labels)), key=lambda i: (type(labels[i]).__name__, str(labels[i])))
    rank = np.empty(len(labels) + 1, dtype=np.int64)
    rank[order] = np.arange(len(labels))
    rank[-1] = -1
    return rank[codes], [labels[i] for i in order]


def bare(values: Any) -> Any:
    """Convert a tensor to an array, and masked values to None.

    Parameters
    ----------
    values : object

    Returns
    -------
    object
        An array for a tensor or a masked array; any other value unchanged.
    """
    if hasattr(values, "detach"):
        return as_numpy(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.array(None), values.data.astype(object))
    return values


def as_objects(values: Any) -> np.ndarray:
    """Make a 1-D object array whose elements are the values, of any type.

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


def describe_rows(mask: np.ndarray) -> str:
    """Describe the rows that a mask marks: their number, and the first of them.

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


def _only_column(values: Any) -> Any:
    """Return the only column of a table, as scikit-learn's ``column_or_1d`` does."""
    if isinstance(values, pd.DataFrame):  # by position: a column name may be any object
        return values.iloc[:, 0] if values.shape[1] == 1 else values
    if not isinstance(values, Mapping) and len(getattr(values, "columns", ())) == 1:
        return values[next(iter(getattr(values, "column_names", values.columns)))]
    if isinstance(values, list) and all(isinstance(row, list) and len(row) == 1 for row in values):
        return [label for row in values for label in row]
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values


def _plain(label: Any, name: str, hint: str) -> Any:
    """Refuse a continuous value, and convert a whole float to an int."""
    if not isinstance(label, float | np.floating):
        return label.item() if isinstance(label, np.generic) else label
    if not float(label).is_integer():
        raise ValueError(
            f"{name} holds continuous values, such as {shown(label)}. Expected labels. {hint}"
        )
    return int(label)  # pandas stores integers with gaps as floats


def _factorize(array: Any) -> tuple[np.ndarray, Any]:
    """Do the same as ``pandas.factorize``, also for text with a NUL character.

    pandas 2 reads text up to the first NUL, and takes "a" and "a\\0b" for one label.
    """
    if _CUT_AT_NUL and array.dtype.kind in "OU":  # also a Series, or an array of pandas
        values = array.tolist()
        if all(isinstance(value, str) for value in values) and any("\0" in x for x in values):
            position: dict[str, int] = {}
            codes = [position.setdefault(value, len(position)) for value in values]
            return np.array(codes, dtype=np.int64), as_objects(list(position))
    return pd.factorize(array)


def _factorize_text(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Do the same as ``pandas.factorize``, without a Python string for each element."""
    n, width = len(text), text.dtype.itemsize // 4
    if width > 16 or n >= 1 << 21 or text.dtype.byteorder == ">":
        return _factorize(text)
    characters = np.ascontiguousarray(text).view(np.uint32).reshape(n, width)
    codes = np.zeros(n, dtype=np.int64)
    for i in range(0, width, 2):  # two characters take 42 bits, the codes so far less than 21 bits
        two = characters[:, i].astype(np.int64)
        if i + 1 < width:
            two |= characters[:, i + 1].astype(np.int64) << 21
        codes = pd.factorize(codes << 42 | two)[0]
    first = np.empty(codes.max(initial=-1) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(n)[::-1]
    return codes, text[first]
