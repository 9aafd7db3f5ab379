"""Counts of samples by group, class and prediction, from which group metrics are computed."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import sparse
from sklearn.utils import gen_batches

from skfair.metrics._partitions import count_partitions, is_partitioned
from skfair.metrics._samples import check_table, class_accuracy, encode_samples
from skfair.utils._groups import Groups, encode_groups
from skfair.utils._labels import encode_labels
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown, shown_all

_ROWS_AT_ONCE = 1 << 18  # that are sorted, which takes several times their memory


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Counts of samples by group, true class and predicted label of one or several models.

    :func:`count_groups` makes them. Counts of different samples can be added: ``counts + others``
    equals the result of one call on all samples. A report can therefore be made of data that come
    in batches, or that are stored on several machines.

    Attributes
    ----------
    cells : ndarray of shape (n_cells, 3 + n_models), int64
        One row for each combination that occurs: positions of the control level, of the group, of
        the class and of the predicted label of each model, in the attributes below. Samples with
        the same combination and the same weight form one cell. Sorted.
    size : ndarray of shape (n_cells,), int64
        Number of samples in each cell.
    weight : ndarray of shape (n_cells,), float64
        Weight of each sample in a cell; 1 if no weights were given.
    models : tuple of str
        Names of the models.
    groups : tuple
        Label of each group of the sensitive features.
    group_names : tuple of str
        Names of the sensitive features.
    controls : tuple
        Label of each level of the control features; one empty tuple if there are none.
    control_names : tuple of str
        Names of the control features.
    classes : tuple
        True labels that occur.
    predicted : tuple
        All labels that occur: first the classes, then the labels that are only predicted.
    left_out : tuple
        Combinations without a cell because all their samples have weight zero: for each, a tuple
        of the labels of control level, group and class.

    Examples
    --------
    >>> counts = count_groups([0, 1, 1], [0, 1, 0], sensitive_features=["f", "f", "m"])
    >>> counts.table()[1]  # group m: no sample of class 0, one of class 1 predicted as 0
    array([[0., 0.],
           [1., 0.]])
    >>> sum([counts, counts, counts]).size.sum()
    np.int64(9)
    """

    cells: np.ndarray
    size: np.ndarray
    weight: np.ndarray
    models: tuple[str, ...]
    groups: tuple
    group_names: tuple[str, ...]
    controls: tuple
    control_names: tuple[str, ...]
    classes: tuple
    predicted: tuple
    left_out: tuple = ()

    def table(self, model: str | None = None) -> np.ndarray:
        """Count the samples by group, true class and predicted label.

        Parameters
        ----------
        model : str, default=None
            Name of the model; None for the first.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_predicted), float64
            Numbers of samples, or their total weights.

        Raises
        ------
        ValueError
            The table would have more than 2**26 numbers.
        """
        return self.tables(model, self.size * self.weight).sum(axis=0)

    def tables(self, model: str | None, amount: np.ndarray) -> np.ndarray:
        """Sum amounts of the cells by control level, group, class and predicted label.

        Parameters
        ----------
        model : str or None
            Name of the model; None for the first.
        amount : ndarray of shape (n_cells,) or (n_draws, n_cells)
            Amount of each cell: ``size * weight`` gives totals, resampled sizes a bootstrap.

        Returns
        -------
        ndarray of shape (n_controls, n_groups, n_classes, n_predicted), float64
            With a first axis of n_draws if `amount` has one.

        Raises
        ------
        ValueError
            The table would have more than 2**26 numbers.
        """
        check_table(
            len(self.groups), len(self.classes), len(self.predicted), n_controls=len(self.controls)
        )
        position = 0 if model is None else self.models.index(model)
        shape = (len(self.controls), len(self.groups), len(self.classes), len(self.predicted))
        key = np.ravel_multi_index((*self.cells[:, :3].T, self.cells[:, 3 + position]), shape)
        n_cells, n_keys = len(key), int(np.prod(shape))
        if amount.ndim == 1:
            return np.bincount(key, weights=amount, minlength=n_keys).reshape(shape)
        where = sparse.csr_array((np.ones(n_cells), (np.arange(n_cells), key)), (n_cells, n_keys))
        return (amount @ where).reshape(len(amount), *shape)

    def totals(self) -> np.ndarray:
        """Count the samples of each group and class.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
            Numbers of samples, or their total weights.
        """
        return self.table().sum(axis=2)

    def correct(self, model: str | None = None) -> np.ndarray:
        """Count the correctly predicted samples of each group and class.

        Parameters
        ----------
        model : str, default=None
            Name of the model; None for the first.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
            Numbers of samples, or their total weights.
        """
        return np.diagonal(self.table(model), axis1=1, axis2=2)

    def accuracy(self, model: str | None = None) -> np.ndarray:
        """Compute the accuracy of each group and class; NaN where there is no sample.

        Parameters
        ----------
        model : str, default=None
            Name of the model; None for the first.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
            From 0 to 1.
        """
        return class_accuracy(self.table(model))

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        """Add counts of other samples; the result has the labels of both."""
        if not isinstance(other, GroupCounts):
            return NotImplemented
        for name in ("models", "group_names", "control_names"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                raise ValueError(
                    f"Counts with {name} ({shown_all(mine)}) cannot be added to counts with {name} "
                    f"({shown_all(others)}). Count the same models by the same features, in the "
                    "same order and under the same names (a dict or a DataFrame names its columns)."
                )
        parts = (self, other)
        groups, group_codes = _merge_groups([part.groups for part in parts], self.group_names)
        controls, control_codes = ((),), np.zeros(2, dtype=np.int64)
        if self.control_names:
            controls, control_codes = _merge_groups(
                [part.controls for part in parts], self.control_names
            )
        classes = _merge_labels([part.classes for part in parts])
        known = set(classes)
        extra = [label for part in parts for label in part.predicted if label not in known]
        predicted = (*classes, *_merge_labels([extra]))
        position = {label: i for i, label in enumerate(predicted)}
        renumbered: list[np.ndarray] = []
        n_groups = n_controls = 0
        for part in parts:
            columns = part.cells.copy()
            columns[:, 0] = control_codes[n_controls + part.cells[:, 0]]
            columns[:, 1] = group_codes[n_groups + part.cells[:, 1]]
            columns[:, 2] = np.array([position[label] for label in part.classes])[part.cells[:, 2]]
            columns[:, 3:] = np.array([position[label] for label in part.predicted])[
                part.cells[:, 3:]
            ]
            renumbered.append(columns)
            n_groups, n_controls = len(part.groups), len(part.controls)
        found = {row for part in parts for row in occurring(part)}
        left_out = [row for part in parts for row in part.left_out]
        cells, size, weight = _gather(
            np.concatenate(renumbered),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.weight for part in parts]),
        )
        return GroupCounts(
            cells,
            size,
            weight,
            self.models,
            groups,
            self.group_names,
            controls,
            self.control_names,
            classes,
            predicted,
            tuple(dict.fromkeys(row for row in left_out if row not in found)),
        )

    def __radd__(self, other: int) -> "GroupCounts":
        """Make ``sum`` work, which starts with zero."""
        return self if isinstance(other, int) and other == 0 else NotImplemented


def count_groups(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    control_features: Any = None,
    sample_weight: Any = None,
    missing: Literal["error", "group"] = "error",
) -> GroupCounts:
    """Count samples by group, true class and predicted class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_pred : array-like of shape (n_samples,) or dict of str to array-like
        Predicted labels of one model, or of several models by name. A label that does not occur
        in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    control_features : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
        Labels, such as a region. Groups are compared within each level of these labels.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; None counts each sample once. Samples of weight zero are left
        out.
    missing : {"error", "group"}, default="error"
        How missing labels of groups and of control levels are treated: as an error, or as a group
        of their own.

    Returns
    -------
    GroupCounts
        The counts and the labels along their axes.

    Raises
    ------
    TypeError
        True labels are text and predicted labels are not, or the reverse.
    ValueError
        Arguments have different lengths or an index in another order, labels are missing, values
        are continuous, or there are no samples or no models.

    Notes
    -----
    All arguments may be dask collections with the same partitions, such as columns of one dask
    frame (extra ``dask``). Each partition is counted where it is, and the counts are added.

    Examples
    --------
    >>> counts = count_groups([0, 1, 1], [0, 1, 0], sensitive_features=["f", "f", "m"])
    >>> counts.groups, counts.classes
    (('f', 'm'), (0, 1))
    >>> counts.accuracy()
    array([[ 1.,  1.],
           [nan,  0.]])
    >>> more = count_groups([1, 1], [1, 0], sensitive_features=["m", "x"])
    >>> (counts + more).groups, (counts + more).accuracy()[:, 1]
    (('f', 'm', 'x'), array([1. , 0.5, 0. ]))
    """
    return count_predictions(
        y_true,
        y_pred,
        sensitive_features=sensitive_features,
        control_features=control_features,
        sample_weight=sample_weight,
        missing=missing,
        name="y_pred",
    )


def count_predictions(
    y_true: Any,
    predictions: Any,
    *,
    sensitive_features: Any,
    control_features: Any,
    sample_weight: Any,
    missing: Literal["error", "group"],
    name: str,
) -> GroupCounts:
    """Do the work of :func:`count_groups`; messages call the predictions `name`.

    Returns
    -------
    GroupCounts
    """
    if is_partitioned(y_true, predictions, sensitive_features, control_features, sample_weight):
        return count_partitions(
            functools.partial(_count_part, name, missing),
            _left_out,
            {
                "y_true": y_true,
                name: predictions,
                "sensitive_features": sensitive_features,
                "control_features": control_features,
                "sample_weight": sample_weight,
            },
        )
    check_rows(
        y_true=y_true,
        **{name: predictions},
        sensitive_features=sensitive_features,
        control_features=control_features,
        sample_weight=sample_weight,
    )
    samples = encode_samples(y_true, sensitive_features, sample_weight, missing)
    n = len(samples.y)
    several = isinstance(predictions, Mapping)
    predictions = predictions if several else {"model": predictions}
    if not predictions:
        raise ValueError(f"{name} is empty. Give the predicted labels of at least one model.")
    models = tuple(str(model) for model in predictions)
    if len(set(models)) < len(models):
        raise ValueError(f"{name} has models of the same name, [{shown_all(models)}]. Rename them.")
    controls = Groups(np.zeros(n, dtype=np.int64), ((),), ())
    if control_features is not None:
        controls = encode_groups(
            control_features, n_samples=n, missing=missing, name="control_features"
        )
    encoded = [
        samples.encode_prediction(values, name=f"{name}[{shown(model)}]" if several else name)
        for model, values in predictions.items()
    ]
    classes = samples.classes
    extra = _merge_labels([labels[len(classes) :] for _, labels in encoded])
    position = {label: i for i, label in enumerate((*classes, *extra))}
    columns = [controls.codes, samples.groups.codes, samples.y]
    columns += [np.array([position[label] for label in labels])[codes] for codes, labels in encoded]
    blocks = [
        _gather(
            np.stack([column[rows] for column in columns], axis=1),
            np.ones(rows.stop - rows.start, dtype=np.int64),
            np.ones(rows.stop - rows.start) if samples.weight is None else samples.weight[rows],
        )
        for rows in gen_batches(n, _ROWS_AT_ONCE)
    ]
    cells, size, weight = map(np.concatenate, zip(*blocks, strict=True))
    del blocks  # before all of them are sorted together
    if n > _ROWS_AT_ONCE:
        cells, size, weight = _gather(cells, size, weight)
    counts = GroupCounts(
        cells=cells,
        size=size,
        weight=weight,
        models=models,
        groups=samples.groups.labels,
        group_names=samples.groups.names,
        controls=controls.labels,
        control_names=controls.names,
        classes=classes,
        predicted=(*classes, *extra),
    )
    if samples.weight is None or samples.weight.all():
        return counts
    everything = occurring(replace(counts, cells=np.stack(columns[:3], axis=1)))
    found = set(occurring(counts))
    return replace(counts, left_out=tuple(row for row in everything if row not in found))


def occurring(counts: GroupCounts) -> list[tuple]:
    """List the labels of control level, group and class of all combinations with cells.

    Returns
    -------
    list of tuple
    """
    return [
        (counts.controls[c], counts.groups[g], counts.classes[y])
        for c, g, y in np.unique(counts.cells[:, :3], axis=0).tolist()
    ]


def _count_part(
    name: str, missing: Literal["error", "group"], arguments: dict[str, Any]
) -> GroupCounts:
    """Count one partition, whose predictions are the argument `name`."""
    others = {key: value for key, value in arguments.items() if key != name}
    return count_predictions(predictions=arguments[name], missing=missing, name=name, **others)


def _left_out(counts: GroupCounts) -> GroupCounts:
    """Leave out all samples, as if their weight was zero; the labels stay."""
    return replace(
        counts,
        cells=counts.cells[:0],
        size=counts.size[:0],
        weight=counts.weight[:0],
        left_out=tuple(occurring(counts)),
    )


def _gather(
    cells: np.ndarray, size: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge equal rows with equal weight, sort them, and drop rows of weight zero."""
    used = weight > 0
    cells, size, weight = cells[used], size[used], weight[used]
    if not len(cells):  # of partitions whose samples all have weight zero
        return cells, size, weight
    key = np.zeros(len(cells), dtype=np.int64)
    if (weight != weight[0]).any():
        key = np.unique(weight, return_inverse=True)[1]
    for column in cells.T[::-1]:  # compressed at each step, against overflow
        key = _renumbered(column * (key.max() + 1) + key)
    one = np.empty(key.max() + 1, dtype=np.int64)
    one[key] = np.arange(len(key))  # a row of each; they are alike
    total = np.bincount(key, weights=size).astype(np.int64)
    return cells[one], total, weight[one]


def _renumbered(keys: np.ndarray) -> np.ndarray:
    """Replace the keys, from zero on, by their positions among those that occur."""
    highest = int(keys.max())
    if highest > len(keys):
        return np.unique(keys, return_inverse=True)[1]
    occurs = np.zeros(highest + 1, dtype=bool)  # marking them takes less time than sorting
    occurs[keys] = True
    return (occurs.cumsum() - 1)[keys]


def _merge_labels(parts: Sequence[Sequence]) -> tuple:
    """Sort the labels of all parts together."""
    labels = [label for part in parts for label in part]
    return tuple(encode_labels(labels, name="labels")[1]) if labels else ()


def _merge_groups(parts: Sequence[Sequence], names: Sequence[str]) -> tuple[tuple, np.ndarray]:
    """Sort the groups of all parts together; also return the new position of each group."""
    rows = [label for part in parts for label in part]
    columns = zip(*rows, strict=True) if len(names) > 1 else [rows]
    groups = encode_groups(dict(zip(names, map(list, columns), strict=True)), n_samples=len(rows))
    return groups.labels, groups.codes
