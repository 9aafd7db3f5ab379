"""Cluster margins, choosing: do the few group labels there are speak for the method?

Where the target is easier than the bias, the amplifier learns the target and the margins do
harm (section "When not to use it" of the guide). Its most confident errors tell: where it has
found the bias they are nearly all bias-conflicting, where it has found the target they are
the hard or mislabelled samples of every group. A few labels there, and as many among the
samples it gets right, decide.
"""

import numpy as np
from scipy.stats import fisher_exact
from sklearn.model_selection import train_test_split

from skfair.margin._amplifier import cross_entropies
from skfair.metrics import worst_group_accuracy_score

# Of the amplifier's errors in each class, the share that is looked at: the most confident.
_HARD_SHARE = 0.25
_HARD_AT_LEAST = 3
# Odds ratio from which the labels speak for the method; how it was found is in the guide. One
# hit among a handful can reach it by chance, so that Fisher's exact test has to agree.
_ODDS_RATIO = 8.0
_SIGNIFICANCE = 0.05
# With so many labelled samples of each group in a hold-out of this share, the worst group
# itself decides.
_HOLDOUT_SHARE = 0.2
_HOLDOUT_GROUP_SIZE = 10


def strata(codes: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mark the samples to compare: confident errors of the amplifier, and its right ones.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class of each sample.
    logits : ndarray of shape (n_samples, n_classes)
        Logits of the amplifier.

    Returns
    -------
    hard : ndarray of shape (n_samples,), bool
        In each class, the quarter of its errors (three at least, or as many as there are)
        to whose class the amplifier gives the least probability.
    easy : ndarray of shape (n_samples,), bool
        The samples that it classifies rightly.
    """
    surprise = cross_entropies(codes, logits)
    easy = logits.argmax(axis=1) == codes
    hard = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        errors = np.flatnonzero(~easy & (codes == code))
        n_hard = max(int(np.ceil(_HARD_SHARE * len(errors))), _HARD_AT_LEAST)
        hard[errors[np.argsort(-surprise[errors], kind="stable")[:n_hard]]] = True
    return hard, easy


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


def conflict_odds_ratio(
    codes: np.ndarray, groups: np.ndarray, hard: np.ndarray, easy: np.ndarray
) -> tuple[float, float, int]:
    """Compare how often confident errors and right samples are bias-conflicting.

    A sample is conflicting where its group is rarer in its class than in all classes
    together, P(group | class) < P(group). Both are estimated from the labelled samples, each
    standing for the samples of its class and stratum, because labels are mostly asked for
    where the amplifier errs.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class of each sample.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.
    hard, easy : ndarray of shape (n_samples,), bool
        See :func:`strata`.

    Returns
    -------
    odds_ratio : float
        Odds of being conflicting in the hard stratum over those in the easy one, with half a
        sample added to each cell (Haldane's correction), so that it is always finite. 1
        where one of the strata has no labelled sample.
    p_value : float
        Of Fisher's exact test that they are no higher in the hard stratum.
    n_compared : int
        Labelled samples in the smaller of the two strata.
    """
    n_classes = codes.max() + 1
    # Errors that are not hard stand with the hard ones of their class.
    cell = codes + n_classes * easy
    labelled = (groups >= 0) & (hard | easy)
    if not labelled.any():
        return 1.0, 1.0, 0
    per_label = np.bincount(cell, minlength=2 * n_classes) / np.maximum(
        np.bincount(cell[labelled], minlength=2 * n_classes), 1
    )
    joint = np.zeros((n_classes, groups.max() + 1))
    np.add.at(joint, (codes[labelled], groups[labelled]), per_label[cell[labelled]])
    class_total = np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    # Less by more than rounding: a group that is as frequent in every class conflicts with none.
    conflicting_cell = joint / class_total < joint.sum(axis=0) / joint.sum() - 1e-9
    conflicting = conflicting_cell[codes[labelled], groups[labelled]]

    is_hard = hard[labelled]
    hits, n_hard = conflicting[is_hard].sum(), is_hard.sum()
    base, n_easy = conflicting[~is_hard].sum(), (~is_hard).sum()
    if not (n_hard and n_easy):
        return 1.0, 1.0, 0  # half a sample against many would look like evidence
    odds_hard = (hits + 0.5) / (n_hard - hits + 0.5)
    odds_easy = (base + 0.5) / (n_easy - base + 0.5)
    test = fisher_exact([[hits, n_hard - hits], [base, n_easy - base]], alternative="greater")
    return float(odds_hard / odds_easy), float(test.pvalue), int(min(n_hard, n_easy))


def judge_by_odds(
    codes: np.ndarray, groups: np.ndarray, hard: np.ndarray, easy: np.ndarray
) -> tuple[dict, str | None]:
    """Judge the method by :func:`conflict_odds_ratio`.

    Returns
    -------
    evidence : dict
        "odds_ratio", "p_value" and "n_compared".
    reason : str or None
        Why not to use the method, if so.
    """
    ratio, p_value, n_compared = conflict_odds_ratio(codes, groups, hard, easy)
    evidence = {"odds_ratio": ratio, "p_value": p_value, "n_compared": n_compared}
    if ratio > _ODDS_RATIO and p_value < _SIGNIFICANCE:
        return evidence, None
    if not n_compared:
        return evidence, (
            "none of the amplifier's confident errors, or none of the samples that it gets right, "
            "has a group label, so that nothing speaks for it. Label the samples that "
            "suggest_labels() names and fit again."
        )
    return evidence, (
        "the odds of a bias-conflicting sample among the amplifier's confident errors are "
        f"{ratio:.1f} times those among the samples it gets right (p = {p_value:.2g}, {n_compared} "
        f"or more labelled samples of each); more than {_ODDS_RATIO:.0f} times with p below "
        f"{_SIGNIFICANCE} would speak for it. Labels of the samples that suggest_labels() names "
        "tell most."
    )


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
) -> tuple[dict, str | None]:
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
        "holdout_worst_group".
    reason : str or None
        Why not to use the method, if so.
    """
    worst = {
        loss: worst_group_accuracy_score(codes, z.argmax(axis=1), sensitive_features=groups)
        for loss, z in logits.items()
    }
    ordinary, method = worst.values()
    if method > ordinary:
        return {"holdout_worst_group": worst}, None
    return {"holdout_worst_group": worst}, (
        f"in the worst group of {len(codes)} labelled samples held out, its accuracy is "
        f"{method:.2f} and that of ordinary training {ordinary:.2f}."
    )
