"""The count kernel: one pass over the samples, from which every group metric derives."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skfair.utils._groups import Groups, describe_rows, encode_groups, encode_labels


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """How many samples of each group and class were predicted as what.

    Attributes
    ----------
    table : ndarray of shape (n_groups, n_classes, n_classes + 1), float64
        Number (or total weight) of samples by group, true class and predicted class. The
        last predicted class stands for all labels that do not occur among the true ones.
    groups : tuple
        Label of each group of the sensitive features.
    classes : tuple
        Label of each class.
    """

    table: np.ndarray
    groups: tuple
    classes: tuple

    def totals(self) -> np.ndarray:
        """Count the samples of each group and class.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
        """
        return self.table.sum(axis=2)

    def correct(self) -> np.ndarray:
        """Count the rightly predicted samples of each group and class.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
        """
        return np.diagonal(self.table, axis1=1, axis2=2)

    def accuracy(self) -> np.ndarray:
        """Divide the right ones by all; NaN where a group has no sample of a class.

        Returns
        -------
        ndarray of shape (n_groups, n_classes), float64
        """
        totals = self.totals()
        undefined = np.full(totals.shape, np.nan)
        return np.divide(self.correct(), totals, out=undefined, where=totals > 0)


@dataclass(frozen=True, eq=False)
class Samples:
    """What does not depend on the model: checked labels, groups and weights as codes."""

    y: np.ndarray
    classes: tuple
    groups: Groups
    weight: np.ndarray | None

    def encode_prediction(self, y_pred: Any, *, name: str) -> tuple[np.ndarray, list]:
        """Encode predictions by their position in `classes`, others after these.

        Returns
        -------
        codes : ndarray of shape (n_samples,), int64
        labels : list
            What the codes stand for; begins with `classes`.
        """
        codes, predicted = _encode_complete(
            y_pred,
            name=name,
            hint="Give predicted labels, as from predict, and not probabilities or scores.",
        )
        if len(codes) != len(self.y):
            raise ValueError(
                f"{name} has {len(codes)} values, y_true has {len(self.y)}. Give one prediction "
                "for each true label."
            )
        text = {isinstance(label, str) for label in self.classes}
        if len(text) == 1 and text.isdisjoint(isinstance(label, str) for label in predicted):
            raise TypeError(
                f"{name} holds labels such as {predicted[0]!r}, y_true such as "
                f"{self.classes[0]!r}: text on one side only. Convert one to the other's type."
            )
        labels = list(self.classes)
        position = {label: i for i, label in enumerate(labels)}
        for label in predicted:
            if label not in position:
                position[label] = len(labels)
                labels.append(label)
        return np.array([position[label] for label in predicted])[codes], labels

    def count(self, y_pred: Any, *, name: str = "y_pred") -> GroupCounts:
        """Count the samples by group, class and predicted class.

        Returns
        -------
        GroupCounts
        """
        return self.count_codes(self.encode_prediction(y_pred, name=name)[0])

    def count_codes(self, prediction: np.ndarray) -> GroupCounts:
        """Count as :meth:`count` does, from predictions that are encoded already.

        Returns
        -------
        GroupCounts
        """
        n_classes = len(self.classes)
        shape = (len(self.groups.labels), n_classes, n_classes + 1)
        cell = (self.groups.codes * n_classes + self.y) * shape[2]
        cell += np.minimum(prediction, n_classes)
        table = np.bincount(cell, weights=self.weight, minlength=np.prod(shape))
        return GroupCounts(
            table=table.astype(np.float64).reshape(shape),
            groups=self.groups.labels,
            classes=self.classes,
        )


def encode_samples(
    y_true: Any,
    sensitive_features: Any,
    sample_weight: Any = None,
    missing: Literal["error", "group"] = "error",
) -> Samples:
    """Check and encode labels, groups and weights once for any number of models.

    Returns
    -------
    Samples
    """
    y, classes = _encode_complete(
        y_true, name="y_true", hint="Group metrics are for classification; give class labels."
    )
    if missing not in ("error", "group"):  # "keep" is for samples that a fit may leave out
        raise ValueError(f"missing={missing!r} is neither 'error' nor 'group'.")
    groups = encode_groups(sensitive_features, n_samples=len(y), missing=missing)
    return Samples(y, tuple(classes), groups, _check_weight(sample_weight, len(y)))


def count_groups(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    sample_weight: Any = None,
    missing: Literal["error", "group"] = "error",
) -> GroupCounts:
    """Count samples by group, true class and predicted class.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_pred : array-like of shape (n_samples,)
        Predicted labels. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; None counts each sample once.
    missing : {"error", "group"}, default="error"
        What missing group labels mean: an error, or a group of their own.

    Returns
    -------
    GroupCounts
        The counts and the labels along their axes.

    Raises
    ------
    TypeError
        True labels are text and predicted ones are not, or the reverse.
    ValueError
        Another number of predictions, groups or weights than of labels, missing labels,
        continuous values, or no samples.

    Examples
    --------
    >>> counts = count_groups([0, 1, 1], [0, 1, 0], sensitive_features=["f", "f", "m"])
    >>> counts.groups, counts.classes
    (('f', 'm'), (0, 1))
    >>> counts.accuracy()
    array([[ 1.,  1.],
           [nan,  0.]])
    """
    return encode_samples(y_true, sensitive_features, sample_weight, missing).count(y_pred)


def _encode_complete(values: Any, *, name: str, hint: str) -> tuple[np.ndarray, list]:
    """Encode labels of which none may be missing."""
    codes, labels = encode_labels(values, name=name, hint=hint)
    absent = codes < 0
    if absent.any():
        raise ValueError(
            f"{name} is missing (None or NaN) for {describe_rows(absent)}. Drop these samples "
            "from all arguments."
        )
    return codes, labels


def _check_weight(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}, y_true has {n_samples} values. Give one "
            "weight a sample."
        )
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        raise ValueError(
            f"sample_weight is negative or not finite for {describe_rows(bad)}. Give finite "
            "weights of zero or more."
        )
    if not weight.any():
        raise ValueError("sample_weight is zero for all samples. Give some a positive weight.")
    return weight
