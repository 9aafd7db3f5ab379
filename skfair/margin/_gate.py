"""Cluster margins, the gate: do the known group labels speak for the method?

Margins pull the classifier away from the rule that the amplifier has learned. If the amplifier has
learned the bias, it gets bias-conflicting samples wrong, and the margins help. If it has learned
the classes, it gets conflicting samples right as often as other samples, and the margins do harm
(section "When not to use it" of the guide). The gap between the two accuracies, estimated from a
few labels, decides. With labels for all samples, a hold-out decides before the gap does. If
neither can tell, the method is not used. The paper has no such gate.
"""

import numpy as np
from scipy.special import expit
from sklearn.model_selection import train_test_split

# Shares among the suggested labels: the amplifier's errors; of the errors, the sure ones; of the
# samples that the amplifier gets right, the unsure ones.
_ERRORS, _SURE_ERRORS, _UNSURE_RIGHT = 0.4, 1 / 2, 1 / 3
# The share of a class's errors that counts as sure, and of its right samples that counts as unsure.
_QUARTER = 0.25
# Gain and loss balance at a gap that grows with the scale; the guide tells how it was found.
GAP_PER_SCALE = 0.05
# The middle share of a posterior that decides.
_LEVEL = 0.8
_N_DRAWS = 1000
# Whether ordinary training and the method are right, by outcome: neither, the method alone,
# ordinary training alone, both.
_RIGHT = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
# A sample's log odds of being conflicting are linear in the amplifier's standardised log odds. The
# prior of the intercept and of the slope has these standard deviations. A wider prior found a gap
# somewhat more often, both where there is a gap and where there is none.
_PRIOR_STD = np.array([4.5, 2.0])
# A hold-out of this share is used if it has this many labelled samples of each group.
_HOLDOUT_SHARE = 0.2
_HOLDOUT_GROUP_SIZE = 10


def strata(codes: np.ndarray, surprise: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sort the samples into four strata, by whether the amplifier is right and how sure it is.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class of each sample.
    surprise : ndarray of shape (n_samples,)
        Cross-entropy of each sample under the amplifier.
    right : ndarray of shape (n_samples,), bool
        Whether the amplifier predicts the class of the sample.

    Returns
    -------
    ndarray of shape (n_samples,), int
        0 and 1 for the errors of the amplifier, 2 and 3 for the samples that it gets right.
        Within each class, 0 is the quarter of the errors with the least probability of the
        sample's own class, and 2 is the quarter of the right samples with the least probability
        of it. A quarter is rounded up.
    """
    stratum = np.where(right, 3, 1)
    for code in np.unique(codes):
        for side in (1, 3):
            rows = np.flatnonzero((codes == code) & (stratum == side))
            rows = rows[np.argsort(-surprise[rows], kind="stable")]
            stratum[rows[: int(np.ceil(_QUARTER * len(rows)))]] = side - 1
    return stratum


def label_orders(
    stratum: np.ndarray, codes: np.ndarray, known: np.ndarray, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Order the samples without a label, errors and right samples apart, for labelling.

    Parameters
    ----------
    stratum, codes : ndarray of shape (n_samples,), int
        See :func:`strata`.
    known : ndarray of shape (n_samples,), bool
        True for the samples that have a label.
    random_state : RandomState
        Shuffles the samples.

    Returns
    -------
    errors, right : ndarray of int
        Positions. In every first part of `errors`, half are sure errors; in every first part of
        `right`, a third are unsure. Both hold as long as such samples are left, and the classes
        are evenly mixed.
    """
    orders = [
        balanced_order(np.flatnonzero((stratum == k) & ~known), codes, random_state)
        for k in range(4)
    ]
    return (
        _interleave(orders[0], orders[1], _SURE_ERRORS),
        _interleave(orders[2], orders[3], _UNSURE_RIGHT),
    )


def _interleave(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Merge two orders so that `share` of every first part is from the order `first`."""
    turn = np.concatenate(
        [(np.arange(len(first)) + 0.5) / share, (np.arange(len(second)) + 0.5) / (1 - share)]
    )
    return np.concatenate([first, second])[np.argsort(turn, kind="stable")]


def suggest(errors: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    """Take `n` positions from two orders, more from one if the other is used up."""
    errors = errors[: max(round(_ERRORS * n), n - len(right))]
    return np.concatenate([errors, right[: n - len(errors)]])


def balanced_order(
    rows: np.ndarray, codes: np.ndarray, random_state: np.random.RandomState
) -> np.ndarray:
    """Shuffle rows so that every first part spreads evenly over the classes.

    Parameters
    ----------
    rows : ndarray of int
        Positions of samples.
    codes : ndarray of shape (n_samples,), int
        Class of every sample.
    random_state : RandomState
        Shuffles the rows.

    Returns
    -------
    ndarray of int
        The rows in their new order.
    """
    rows = random_state.permutation(rows)
    turn = np.zeros(len(rows), dtype=int)
    for code in np.unique(codes[rows]):
        of_class = codes[rows] == code
        turn[of_class] = np.arange(of_class.sum())
    return rows[np.lexsort((random_state.random_sample(len(rows)), turn))]


def find_conflicting(codes: np.ndarray, groups: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Mark the labelled samples that are bias-conflicting.

    A sample is bias-conflicting if its group is rarer in its class than in all classes together,
    P(group | class) < P(group). Both shares are estimated from the labelled samples. Most labels
    are of samples on which the amplifier errs. Therefore each labelled sample represents all
    samples of its class and stratum.

    Parameters
    ----------
    codes, stratum : ndarray of shape (n_samples,), int
        Class and stratum of each sample.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.

    Returns
    -------
    ndarray of shape (n_labelled,), bool
        One value for each sample with a known group, in the order of the samples.
    """
    labelled = groups >= 0
    n_classes = codes.max() + 1
    cell = codes * 4 + stratum
    size = np.bincount(cell, minlength=4 * n_classes)
    per_label = size / np.maximum(np.bincount(cell[labelled], minlength=4 * n_classes), 1)
    joint = np.zeros((n_classes, groups.max() + 1))
    np.add.at(joint, (codes[labelled], groups[labelled]), per_label[cell[labelled]])
    class_total = np.maximum(joint.sum(axis=1, keepdims=True), 1e-9)  # a class without labels
    # A group that is as frequent in the class as in all classes conflicts with no class.
    rarer = joint / class_total < joint.sum(axis=0) / joint.sum() - 1e-9
    return rarer[codes[labelled], groups[labelled]]


def _posterior_draws(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Draw intercepts and slopes of a logistic regression; the posterior mode comes first."""
    design = np.column_stack([np.ones(len(x)), x])
    precision = np.diag(_PRIOR_STD**-2)
    mode = np.zeros(2)
    for _ in range(50):  # Newton's method; the posterior has one maximum
        share = expit(design @ mode)
        curvature = (design.T * (share * (1 - share))) @ design + precision
        step = np.linalg.solve(curvature, design.T @ (share - truth) + precision @ mode)
        mode = mode - step.clip(-2, 2)
    draws = np.random.RandomState(0).standard_normal((_N_DRAWS, 2))
    return np.vstack([mode, mode + draws @ np.linalg.cholesky(np.linalg.inv(curvature)).T])


def _expected(draws: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Estimate how many of the samples at `x` are conflicting and aligned, for each draw."""
    if not len(x):
        return np.zeros((2, len(draws)))
    # A hundred quantiles stand for any number of samples.
    points = np.quantile(x, (np.arange(100) + 0.5) / 100)
    share = expit(draws[:, :1] + draws[:, 1:] * points).mean(axis=1)
    return len(x) * np.array([share, 1 - share])


def accuracy_gap(
    codes: np.ndarray, surprise: np.ndarray, groups: np.ndarray, stratum: np.ndarray
) -> dict[str, float]:
    """Estimate how much better the amplifier is on aligned than on conflicting samples.

    A logistic regression gives the probability that a sample is conflicting, from the log odds
    that the amplifier gives to the sample's class. It is fitted to the labelled samples, however
    these were chosen, with a weak prior that favours no relation. The sums of the probabilities
    over all samples that the amplifier gets right, and over all that it gets wrong, give the two
    accuracies. Draws from the posterior (Laplace's approximation) give the interval.

    Parameters
    ----------
    codes, surprise, stratum
        See :func:`strata`.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.

    Returns
    -------
    dict
        "conflicting_accuracy" and "aligned_accuracy" of the amplifier; "accuracy_gap_low" and
        "accuracy_gap_high", the ends of the 80 % interval of the aligned less the conflicting
        accuracy; "n_compared", the number of labelled samples, and "n_conflicting", the number
        of conflicting samples among them. The first four are NaN if all labelled samples are
        conflicting or all are aligned.
    """
    labelled = groups >= 0
    conflicting = find_conflicting(codes, groups, stratum)
    n_labels, n_conflicting = int(labelled.sum()), int(conflicting.sum())
    evidence = {
        **dict.fromkeys(("conflicting_accuracy", "aligned_accuracy"), np.nan),
        **dict.fromkeys(("accuracy_gap_low", "accuracy_gap_high"), np.nan),
        "n_compared": n_labels,
        "n_conflicting": n_conflicting,
    }
    if n_conflicting in (0, n_labels):
        return evidence
    # log(p / (1 - p)) of the sample's class from -log p
    log_odds = -np.log(np.expm1(surprise.clip(1e-9, 500)))
    x = ((log_odds - log_odds.mean()) / (log_odds.std() or 1)).clip(-4, 4)
    draws = _posterior_draws(x[labelled], conflicting)
    right = _expected(draws, x[stratum >= 2])
    conflicting_accuracy, aligned_accuracy = right / (right + _expected(draws, x[stratum < 2]))
    gap = (aligned_accuracy - conflicting_accuracy)[1:]
    low, high = np.quantile(gap, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return evidence | {
        "conflicting_accuracy": float(conflicting_accuracy[0]),
        "aligned_accuracy": float(aligned_accuracy[0]),
        "accuracy_gap_low": float(low),
        "accuracy_gap_high": float(high),
    }


def judge_by_gap(evidence: dict[str, float], needed: float) -> tuple[str, str]:
    """Judge the method by the accuracy gap.

    Parameters
    ----------
    evidence : dict
        Result of :func:`accuracy_gap`.
    needed : float
        The gap from which the method helps.

    Returns
    -------
    decision : {"method", "ordinary", "cannot tell"}
        Whether the whole interval is above `needed`, or below it, or neither.
    reason : str
        The evidence as a sentence, for a message.
    """
    low, high = evidence["accuracy_gap_low"], evidence["accuracy_gap_high"]
    n_labels, n_conflicting = evidence["n_compared"], evidence["n_conflicting"]
    counts = f"of {n_labels} labelled samples {n_conflicting} are bias-conflicting"
    if n_conflicting in (0, n_labels):
        return "cannot tell", f"{counts}, and both kinds, conflicting and aligned, are needed."
    reason = (
        f"{counts}. According to the labels, the amplifier gets "
        f"{evidence['conflicting_accuracy']:.0%} of the conflicting samples right and "
        f"{evidence['aligned_accuracy']:.0%} of the others, a gap of {low:.2f} to {high:.2f} "
        f"({_LEVEL:.0%} interval), where a gap of {needed:.2f} is needed."
    )
    if low > needed:
        return "method", reason
    return "ordinary" if high < needed else "cannot tell", reason


def hold_out(codes: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray | None:
    """Draw a hold-out that has enough labelled samples of each group.

    Parameters
    ----------
    codes, groups : ndarray of shape (n_samples,), int
        Class and group of each sample; group -1 where it is not known.
    seed : int
        Seed of the draw, which is stratified by class and group.

    Returns
    -------
    ndarray of int, or None
        Positions of the held-out samples. None if the smallest group has too few labels.
    """
    labelled = np.flatnonzero(groups >= 0)
    _, cells, sizes = np.unique(
        np.column_stack([codes, groups])[labelled], axis=0, return_inverse=True, return_counts=True
    )
    if not len(labelled) or _HOLDOUT_SHARE * sizes.min() < _HOLDOUT_GROUP_SIZE:
        return None
    return train_test_split(
        labelled, test_size=_HOLDOUT_SHARE, stratify=cells.ravel(), random_state=seed
    )[1]


def judge_by_worst_group(
    codes: np.ndarray, predicted: dict[str, np.ndarray], groups: np.ndarray
) -> tuple[dict, str, str]:
    """Judge the method by its worst group on a hold-out.

    Parameters
    ----------
    codes, groups : ndarray of shape (n_held_out,), int
        Class and group of each held-out sample.
    predicted : dict of str to ndarray of shape (n_held_out,), int
        Predicted classes by the name of the loss: first of ordinary training, then of the method.

    Returns
    -------
    evidence : dict
        "holdout_worst_group", the accuracy in the worst group by loss; "holdout_gain_low" and
        "holdout_gain_high", the ends of the 80 % interval of the method's gain in the worst
        group. The two accuracies of a group are drawn together, from a Dirichlet posterior of
        the shares of samples that both classifiers, one of them, or neither get right.
    decision : {"method", "ordinary", "cannot tell"}
        Whether the whole interval is above zero, or below it, or neither.
    reason : str
        The evidence as a sentence, for a message.
    """
    ordinary, method = (codes == other for other in predicted.values())
    outcome = 2 * ordinary + method  # a row of _RIGHT
    _, cells = np.unique(np.column_stack([codes, groups]), axis=0, return_inverse=True)
    generator = np.random.RandomState(0)
    worst, drawn = np.ones(2), np.ones((_N_DRAWS, 2))
    for cell in range(cells.max() + 1):
        counts = np.bincount(outcome[cells.ravel() == cell], minlength=4)
        shares = generator.dirichlet(counts + 0.25, size=_N_DRAWS)
        worst = np.minimum(worst, counts @ _RIGHT / counts.sum())
        drawn = np.minimum(drawn, shares @ _RIGHT)
    low, high = np.quantile(drawn[:, 1] - drawn[:, 0], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    evidence = {
        "holdout_worst_group": dict(zip(predicted, worst.tolist(), strict=True)),
        "holdout_gain_low": float(low),
        "holdout_gain_high": float(high),
    }
    reason = (
        f"in the worst group of {len(codes)} labelled samples held out, the accuracy of the "
        f"method is {worst[1]:.2f} and the accuracy of ordinary training is {worst[0]:.2f}, a "
        f"gain of {low:+.2f} to {high:+.2f} ({_LEVEL:.0%} interval)."
    )
    if low > 0:
        return evidence, "method", reason
    return evidence, "ordinary" if high < 0 else "cannot tell", reason
