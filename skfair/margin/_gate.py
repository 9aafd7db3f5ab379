"""Cluster margins, choosing: do the group labels there are speak for the method?

Margins pull the classifier away from what the amplifier has learned. That helps where the
amplifier has learned the bias, and gets bias-conflicting samples wrong for it, and does harm
where it has learned the classes, and gets conflicting samples right as often as others
(section "When not to use it" of the guide). The gap between the two accuracies, estimated from
a few labels, decides; with labels for everything, so does a hold-out. Where neither can tell,
the method is not used.
"""

import numpy as np
from scipy.special import expit
from sklearn.model_selection import train_test_split

from skfair.margin._amplifier import cross_entropies

# Of the labels that are suggested, the share among the amplifier's errors; of these, the share of
# which it is sure; of the others, the share of which it is least sure.
_ERRORS, _SURE_ERRORS, _UNSURE_RIGHT = 0.4, 1 / 2, 1 / 3
# The part of a class's errors that counts as sure, and of its right samples as not sure.
_QUARTER = 0.25
# The gap at which gain and loss balance grows with the scale; how it was found is in the guide.
GAP_PER_SCALE = 0.05
# The middle part of a posterior that decides.
_LEVEL = 0.8
_N_DRAWS = 1000
# Whether ordinary training and the method are right, by outcome: neither, the method alone,
# ordinary training alone, both.
_RIGHT = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
# Standard deviations of the prior of the intercept and of the slope of the log odds of being
# conflicting, by one standard deviation of the amplifier's log odds. Wider ones found the gap
# somewhat more often where there is one, and where there is none.
_PRIOR_STD = np.array([4.5, 2.0])
# With so many labelled samples of each group in a hold-out of this share, it is looked at.
_HOLDOUT_SHARE = 0.2
_HOLDOUT_GROUP_SIZE = 10


def strata(codes: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Sort the samples by how right the amplifier is, and how sure.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class of each sample.
    logits : ndarray of shape (n_samples, n_classes)
        Logits of the amplifier.

    Returns
    -------
    ndarray of shape (n_samples,), int
        0 for the quarter of the errors in each class to whose class the amplifier gives the
        least probability, 1 for its other errors; 2 for the quarter of the right samples in
        each class to whose class it gives the least, 3 for its other right samples. A quarter
        is rounded up.
    """
    surprise = cross_entropies(codes, logits)
    stratum = np.where(logits.argmax(axis=1) == codes, 3, 1)
    for code in np.unique(codes):
        for side in (1, 3):
            rows = np.flatnonzero((codes == code) & (stratum == side))
            rows = rows[np.argsort(-surprise[rows], kind="stable")]
            stratum[rows[: int(np.ceil(_QUARTER * len(rows)))]] = side - 1
    return stratum


def label_orders(
    stratum: np.ndarray, codes: np.ndarray, known: np.ndarray, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Put errors and right samples without a label in the order in which to label them.

    Parameters
    ----------
    stratum, codes : ndarray of shape (n_samples,), int
        See :func:`strata`.
    known : ndarray of shape (n_samples,), bool
        The samples that have a label.
    random_state : RandomState
        Draws.

    Returns
    -------
    errors, right : ndarray of int
        Positions. Of any number of the first ones, half of the errors are sure ones and a third
        of the right samples are unsure ones, as long as there are some, and the classes are
        as even.
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
    """Merge two orders so that `share` of any number of the first entries is from the first."""
    turn = np.concatenate(
        [(np.arange(len(first)) + 0.5) / share, (np.arange(len(second)) + 0.5) / (1 - share)]
    )
    return np.concatenate([first, second])[np.argsort(turn, kind="stable")]


def suggest(errors: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    """The first `n` of two orders, more of one where the other is used up."""
    errors = errors[: max(round(_ERRORS * n), n - len(right))]
    return np.concatenate([errors, right[: n - len(errors)]])


def balanced_order(
    rows: np.ndarray, codes: np.ndarray, random_state: np.random.RandomState
) -> np.ndarray:
    """Shuffle rows so that any number of the first ones spreads evenly over the classes.

    Parameters
    ----------
    rows : ndarray of int
        Rows.
    codes : ndarray of shape (n_samples,), int
        Class of every sample.
    random_state : RandomState
        Draws.

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

    They are those whose group is rarer in their class than in all classes together,
    P(group | class) < P(group). Both are estimated from the labelled samples, each standing for
    the samples of its class and stratum, because labels are mostly asked for where the
    amplifier errs.

    Parameters
    ----------
    codes, stratum : ndarray of shape (n_samples,), int
        Class and stratum of each sample.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.

    Returns
    -------
    ndarray of shape (n_labelled,), bool
        For each sample with a group, in their order.
    """
    labelled = groups >= 0
    n_classes = codes.max() + 1
    cell = codes * 4 + stratum
    size = np.bincount(cell, minlength=4 * n_classes)
    per_label = size / np.maximum(np.bincount(cell[labelled], minlength=4 * n_classes), 1)
    joint = np.zeros((n_classes, groups.max() + 1))
    np.add.at(joint, (codes[labelled], groups[labelled]), per_label[cell[labelled]])
    class_total = np.maximum(joint.sum(axis=1, keepdims=True), 1e-9)  # a class without labels
    # A group that is as frequent in its class as everywhere conflicts with none.
    rarer = joint / class_total < joint.sum(axis=0) / joint.sum() - 1e-9
    return rarer[codes[labelled], groups[labelled]]


def _posterior_draws(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intercepts and slopes of a logistic regression: the mode, then draws around it."""
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
    """How many of the samples at `x` are conflicting, and how many aligned, for each draw."""
    if not len(x):
        return np.zeros((2, len(draws)))
    # At a hundred quantiles, however many samples there are.
    points = np.quantile(x, (np.arange(100) + 0.5) / 100)
    share = expit(draws[:, :1] + draws[:, 1:] * points).mean(axis=1)
    return len(x) * np.array([share, 1 - share])


def accuracy_gap(
    codes: np.ndarray, logits: np.ndarray, groups: np.ndarray, stratum: np.ndarray
) -> dict[str, float]:
    """Estimate how much better the amplifier is on aligned than on conflicting samples.

    How likely a sample is to be conflicting is taken to rise or fall steadily with how sure the
    amplifier is of its class: a logistic regression on its log odds, fitted to the labelled
    samples, whichever they are, with a weak prior that favours no relation. Its sums over all
    samples that the amplifier gets right, and over all that it gets wrong, give the two
    accuracies, and draws from its posterior (Laplace's approximation) the interval.

    Parameters
    ----------
    codes, logits, stratum
        See :func:`strata`.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.

    Returns
    -------
    dict
        "conflicting_accuracy" and "aligned_accuracy" of the amplifier, "accuracy_gap_low" and
        "accuracy_gap_high", the ends of the 80 % interval of the second less the first,
        "n_compared", the labels, and "n_conflicting", those of them that are conflicting. NaN
        where none of the labelled samples is conflicting, or none is aligned.
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
    # log(p / (1 - p)) of the own class from -log p
    surprise = cross_entropies(codes, logits).clip(1e-9, 500)
    log_odds = -np.log(np.expm1(surprise))
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
    """Judge the method by :func:`accuracy_gap`.

    Parameters
    ----------
    evidence : dict
        What :func:`accuracy_gap` returns.
    needed : float
        The gap from which the method helps.

    Returns
    -------
    decision : {"method", "ordinary", "cannot tell"}
        Whether the whole interval is above `needed`, or below, or neither.
    reason : str
        What the labels say.
    """
    low, high = evidence["accuracy_gap_low"], evidence["accuracy_gap_high"]
    n_labels, n_conflicting = evidence["n_compared"], evidence["n_conflicting"]
    counts = f"of {n_labels} labelled samples {n_conflicting} are bias-conflicting"
    if n_conflicting in (0, n_labels):
        return "cannot tell", f"{counts}, and some of either kind are needed."
    reason = (
        f"{counts}. By them the amplifier gets {evidence['conflicting_accuracy']:.0%} of the "
        f"conflicting samples right and {evidence['aligned_accuracy']:.0%} of the others, a gap "
        f"of {low:.2f} to {high:.2f} ({_LEVEL:.0%} interval), where {needed:.2f} is needed."
    )
    if low > needed:
        return "method", reason
    return "ordinary" if high < needed else "cannot tell", reason


def hold_out(codes: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray | None:
    """Rows of a hold-out that has enough labelled samples of each group, if there is one.

    Parameters
    ----------
    codes, groups : ndarray of shape (n_samples,), int
        Class and group of each sample; group -1 where it is not known.
    seed : int
        Seed of the draw, which is stratified by class and group.
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
    codes: np.ndarray, logits: dict[str, np.ndarray], groups: np.ndarray
) -> tuple[dict, str, str]:
    """Judge the method by its worst group on a hold-out.

    Parameters
    ----------
    codes, groups : ndarray of shape (n_held_out,), int
        Class and group of each held-out sample.
    logits : dict of str to ndarray of shape (n_held_out, n_classes)
        Of ordinary training and of the method, in this order, by the name of the loss.

    Returns
    -------
    evidence : dict
        "holdout_worst_group", and "holdout_gain_low" and "holdout_gain_high", the ends of the
        80 % interval of what the method gains in the worst group: the two accuracies of a group
        are drawn together, from a Dirichlet posterior of how many samples both, one and none of
        the classifiers get right.
    decision : {"method", "ordinary", "cannot tell"}
        Whether the whole interval is above zero, or below, or neither.
    reason : str
        What the hold-out says.
    """
    ordinary, method = (z.argmax(axis=1) == codes for z in logits.values())
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
        "holdout_worst_group": dict(zip(logits, worst.tolist(), strict=True)),
        "holdout_gain_low": float(low),
        "holdout_gain_high": float(high),
    }
    reason = (
        f"in the worst group of {len(codes)} labelled samples held out, its accuracy is "
        f"{worst[1]:.2f} and that of ordinary training {worst[0]:.2f}, a gain of {low:+.2f} to "
        f"{high:+.2f} ({_LEVEL:.0%} interval)."
    )
    if low > 0:
        return evidence, "method", reason
    return evidence, "ordinary" if high < 0 else "cannot tell", reason
