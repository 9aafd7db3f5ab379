"""Labels, predictions, groups and weights as codes: the input of every group metric."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skfair.utils._groups import Groups, encode_groups
from skfair.utils._labels import describe_rows, encode_labels
from skfair.utils._shown import shown
from skfair.utils._validation import as_weight

_LEAST_WEIGHT = 1e-100  # smallest value of the largest weight
MOST_CELLS = 2**26  # numbers in a table of groups by classes by predicted labels: 512 MiB


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked labels, groups and weights as codes; all that does not depend on the model."""

    y: np.ndarray
    classes: tuple
    groups: Groups
    weight: np.ndarray | None

    def encode_prediction(self, y_pred: Any, *, name: str = "y_pred") -> tuple[np.ndarray, tuple]:
        """Encode predictions by their position in `classes`; other labels follow the classes.

        Returns
        -------
        codes : ndarray of shape (n_samples,), int64
        labels : tuple
            Label of each code; begins with `classes`.
        """
        codes, predicted = encode_complete(
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
                f"{name} holds labels such as {shown(predicted[0])}, y_true such as "
                f"{shown(self.classes[0])}: text on one side only. Convert one to the other's type."
            )
        labels = list(self.classes)
        position = {label: i for i, label in enumerate(labels)}
        for label in predicted:
            if label not in position:
                position[label] = len(labels)
                labels.append(label)
        return np.array([position[label] for label in predicted])[codes], tuple(labels)

    def table(self, prediction: np.ndarray, n_predicted: int) -> np.ndarray:
        """Count encoded predictions by group, class and predicted label, in one pass.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_predicted), float64
        """
        shape = (len(self.groups.labels), len(self.classes), n_predicted)
        check_table(*shape)
        cell = (self.groups.codes * shape[1] + self.y) * n_predicted + prediction
        table = np.bincount(cell, weights=self.weight, minlength=int(np.prod(shape)))
        return table.astype(np.float64).reshape(shape)


def check_table(n_groups: int, n_classes: int, n_predicted: int, n_controls: int = 1) -> None:
    """Raise an error if a table is too large, for instance if each sample has its own label."""
    n_cells = n_controls * n_groups * n_classes * n_predicted
    if n_cells > MOST_CELLS:
        within = f" in {n_controls:,} levels of control_features" if n_controls > 1 else ""
        raise ValueError(
            f"sensitive_features has {n_groups:,} groups{within}, y_true {n_classes:,} classes, "
            f"and with the predictions there are {n_predicted:,} labels: a table of them has "
            f"{n_cells:,} numbers, more than {MOST_CELLS:,}. Give labels that many samples share, "
            "or merge rare ones."
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
    y, classes = encode_complete(
        y_true, name="y_true", hint="Group metrics are for classification; give class labels."
    )
    if missing not in ("error", "group"):  # "keep" is only for estimators
        raise ValueError(f"missing={missing!r} is neither 'error' nor 'group'.")
    groups = encode_groups(sensitive_features, n_samples=len(y), missing=missing)
    return Samples(y, tuple(classes), groups, check_weight(sample_weight, len(y)))


def class_accuracy(table: np.ndarray) -> np.ndarray:
    """Compute the share of each class that is predicted correctly; NaN without samples.

    Parameters
    ----------
    table : ndarray of shape (..., n_classes, n_predicted)

    Returns
    -------
    ndarray of shape (..., n_classes), float64
    """
    totals = table.sum(-1)
    right = np.diagonal(table, axis1=-2, axis2=-1)
    return np.divide(right, totals, out=np.full(totals.shape, np.nan), where=totals > 0)


def encode_complete(values: Any, *, name: str, hint: str) -> tuple[np.ndarray, list]:
    """Encode labels; raise an error if a label is missing."""
    codes, labels = encode_labels(values, name=name, hint=hint)
    absent = codes < 0
    if absent.any():
        raise ValueError(
            f"{name} is missing (None or NaN) for {describe_rows(absent)}. Drop these samples "
            "from all arguments."
        )
    return codes, labels


def check_weight(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    weight = as_weight(sample_weight)
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
    if not _LEAST_WEIGHT <= weight.max() <= 1 / _LEAST_WEIGHT:
        raise ValueError(
            f"The largest value of sample_weight is {weight.max():g}, whose square is not a normal "
            "floating-point number. Divide sample_weight by its maximum."
        )
    return weight
