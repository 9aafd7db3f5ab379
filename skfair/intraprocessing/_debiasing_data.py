"""Intra-processing, all methods: labels and groups of the debiasing rows, checked and encoded."""

import warnings
from collections.abc import Callable
from itertools import combinations, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.stats import mannwhitneyu, rankdata

from skfair.intraprocessing._network import at_least_single
from skfair.utils import Groups, LabelOrderWarning, SmallGroupWarning, encode_groups
from skfair.utils._shown import shown, shown_all

MOST_COUNTS = 2**28  # by group, label and threshold: 2 GiB
_SMALL = 10  # a rate of fewer samples has a standard error of up to .16
_ORDER_LEVEL = 1e-3  # of the test that a network is worse than guessing


def classes_in_output_order(
    found: list, *, learned: list | None, classes: ArrayLike | None, multi_class: bool
) -> list:
    """Order the labels in y as the outputs of the network are ordered.

    Parameters
    ----------
    found : list
        The labels in y, each once, sorted.
    learned : list or None
        The labels that the network was trained for, in the order of its outputs, if known.
    classes : array-like or None
        The parameter `classes`.
    multi_class : bool
        Whether the debiaser takes more than two classes.

    Returns
    -------
    list
        The labels in `found`, in the order of the outputs.

    Raises
    ------
    ValueError
        `classes` does not name each label in y once, or contradicts `learned`.
    """
    if classes is None:
        if learned is None or not set(found) <= set(learned):
            return found
        labels = learned
    else:
        named = np.asarray(classes)
        labels = named.tolist() if named.ndim == 1 else []
        once = len(set(labels)) == len(labels) and set(found) <= set(labels)
        if not once or (len(labels) > 2 and not multi_class):
            raise ValueError(
                f"classes={shown(named.tolist())} does not name each of the classes in y, "
                f"[{shown_all(found)}], once. Give these labels, of the same type, in the "
                "order of the network's outputs. If the network has a single output, the label "
                "of a large output comes second."
            )
        if learned is not None and learned != labels:
            raise ValueError(
                f"classes=[{shown_all(labels)}] differs from the classes that the network in "
                f"estimator was trained for, [{shown_all(learned)}], or is in another order. "
                "Leave classes out, or give these."
            )
    return [label for label in labels if label in found]


def warn_of_order(raw: torch.Tensor, codes: np.ndarray, labels: list, *, given_by: str) -> None:
    """Warn about a network that ranks the rows of two classes the wrong way round.

    Parameters
    ----------
    raw : tensor of shape (n_samples, ...)
        The outputs of the network.
    codes : ndarray of shape (n_samples,), int
        Position of each row's label in `labels`.
    labels : list
        The classes, in the order of the outputs.
    given_by : str
        Who said that this is the order; empty where nobody did.
    """
    scores = at_least_single(raw).double().reshape(len(raw), -1).numpy()
    if scores.shape[1] == 1:
        scores = np.hstack([-scores, scores])
    pairs = list(combinations(np.unique(codes).tolist(), 2))
    worst, level = None, _ORDER_LEVEL / len(pairs)
    for one, two in pairs:
        less = scores[:, two] - scores[:, one]
        rows = [less[codes == code] for code in (two, one)]
        n = len(rows[0])
        area = (rankdata(np.concatenate(rows))[:n].sum() / n - (n + 1) / 2) / len(rows[1])
        # Of many classes, most pairs are ranked well, and the test takes long.
        if area < 0.5 and mannwhitneyu(*rows, alternative="less").pvalue < level:
            worst = min(worst or (area, one, two), (area, one, two))
    if worst is None:
        return
    area, one, two = worst
    # The outputs that speak most for the rows of each class.
    means = [
        scores[codes == code].mean(0) if (codes == code).any() else np.zeros(len(labels))
        for code in range(len(labels))
    ]
    place = linear_sum_assignment(np.array(means) - np.mean(means, axis=0), maximize=True)[1]
    other = [labels[code] for code in np.argsort(place)]
    order, guess = shown_all(labels), shown_all(other)
    if given_by:
        advice = (
            f"That order is given by {given_by}. If it is right, look for errors in y, and for "
            "rows of another kind than the network was trained on."
        )
    else:
        advice = (
            "That order is the one of the sorted labels. If the network was trained for the other "
            f"one, set classes=[{guess}]; if not, set classes=[{order}], and look for errors in y."
        )
    warnings.warn(
        f"The network in estimator is worse than guessing: given one row of class "
        f"{shown(labels[two])} and one of {shown(labels[one])}, it ranks {100 * area:.0f} % of "
        f"such pairs correctly. The outputs were assumed to be in the order [{order}]; they fit "
        f"the order [{guess}]. {advice}",
        LabelOrderWarning,
        stacklevel=7,
    )


def encode_compared_groups(
    sensitive_features: Any,
    y: np.ndarray,
    labels: list,
    *,
    positions: list[int | None],
    constraint: str | Callable,
    small_groups: str,
) -> tuple[Groups, np.ndarray]:
    """Encode the groups, and find the groups that the constraint compares.

    Parameters
    ----------
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group of each row.
    y : ndarray of shape (n_samples,), int
        Position of each row's label in `labels`.
    labels : list
        The classes.
    positions : list of int or None
        Positions in `labels` of the classes whose samples the constraint compares; None is all
        samples.
    constraint : str or callable
        The parameter `constraint`.
    small_groups : {"shrink", "exclude", "error"}
        The parameter `small_groups`.

    Returns
    -------
    groups : Groups
    compared : ndarray of int
        Positions of the compared groups.

    Raises
    ------
    ValueError
        Fewer than two groups, too many groups to count, or groups too small for the constraint.
    """
    groups = encode_groups(sensitive_features, n_samples=len(y))
    if len(groups.labels) < 2:
        raise ValueError(
            f"sensitive_features holds one group only ({shown(groups.labels[0])}); a "
            "constraint compares at least two. Take more samples, or another feature."
        )
    n_counts = 2 * len(groups.labels) * (len(y) + 1)
    if n_counts > MOST_COUNTS:
        raise ValueError(
            f"sensitive_features has {len(groups.labels):,} groups in {len(y):,} samples. To "
            f"judge all thresholds takes {n_counts:,} counts, more than {MOST_COUNTS:,}. "
            "Give labels that many samples share, or merge rare ones."
        )
    cell = len(labels) * groups.codes + y
    counts = np.bincount(cell, minlength=len(labels) * len(groups.labels))
    counts = counts.reshape(-1, len(labels))
    fewest = np.full(len(groups.labels), np.inf)
    for position in positions:
        what, of = "", counts.sum(1)
        if position is not None:
            what, of = f" of class {shown(labels[position])}", counts[:, position]
        fewest = np.minimum(fewest, of)
        sizes = dict(zip(groups.labels, of, strict=True))
        empty = [label for label, size in sizes.items() if size == 0]
        if empty and small_groups != "exclude":
            raise ValueError(
                f"constraint={constraint!r} compares predictions for samples{what}, and "
                f"sensitive_features has groups without any in y: [{shown_all(empty)}]. "
                "Merge these groups "
                "with others, take more samples, or use constraint='demographic_parity' or "
                "small_groups='exclude'."
            )
        small = {label: int(size) for label, size in sizes.items() if size < _SMALL}
        if small:
            _warn_of_small(small, what, small_groups)
    compared = np.arange(len(groups.labels))
    if small_groups == "exclude" and isinstance(constraint, str):
        compared = np.flatnonzero(fewest >= _SMALL)
        if len(compared) < 2:
            raise ValueError(
                f"small_groups='exclude' leaves {len(compared)} of {len(groups.labels)} groups "
                f"with {_SMALL} samples or more, and a constraint compares at least two. "
                "Merge groups, or take more samples."
            )
    return groups, compared


def _warn_of_small(small: dict[Any, int], what: str, small_groups: str) -> None:
    """Name the groups whose rates cannot be estimated well, or refuse them."""
    named = ", ".join(f"{shown(label)}: {n}" for label, n in islice(small.items(), 10))
    more = ", ..." if len(small) > 10 else ""
    found = f"Groups with fewer than {_SMALL} samples{what}: {{{named}{more}}}. "
    if small_groups == "error":
        raise ValueError(
            f"sensitive_features has small groups, and small_groups='error'. {found}Merge "
            "them with others, take more samples, or set small_groups to 'shrink' or 'exclude'."
        )
    done = "The rates of these groups are uncertain, and so is the constraint about them."
    if small_groups == "exclude":
        done = "Their rates cannot be estimated, and the constraint leaves these groups out."
    warnings.warn(
        f"{found}{done} Merge them with others or take more samples.",
        SmallGroupWarning,
        stacklevel=7,
    )
