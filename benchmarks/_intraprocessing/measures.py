"""Bias and accuracy of predictions for two groups, and the best that group thresholds can do."""

import math

import numpy as np

EPSILON = 0.05
MEASURES = {
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
    "average_odds": "average odds",
}


def statistic(predicted, y, measure):
    """The rate of one group that `measure` compares between groups."""
    if measure == "demographic_parity":
        return predicted.mean()
    if measure == "equal_opportunity":
        return predicted[y == 1].mean()
    return 0.5 * (predicted[y == 1].mean() + predicted[y == 0].mean())


def bias(predicted, y, a, measure):
    """The statistic of the unprivileged group, 0, minus that of the privileged group, 1."""
    first, second = (statistic(predicted[a == g], y[a == g], measure) for g in (0, 1))
    return first - second


def balanced_accuracy(predicted, y):
    return 0.5 * (predicted[y == 1].mean() + (~predicted[y == 0]).mean())


def feasible_share(predicted, y, a, measure):
    """How often a rule fitted on as many rows can meet the constraint, if it is right on average.

    Its bias has a sampling error both on the rows that it was fitted on and on the test rows.
    """
    variance = 0.0
    for g in (0, 1):
        p, labels = predicted[a == g], y[a == g]
        parts = [p] if measure == "demographic_parity" else [p[labels == 1]]
        if measure == "average_odds":
            parts.append(p[labels == 0])
        variance += sum(q.mean() * (1 - q.mean()) / len(q) for q in parts) / len(parts) ** 2
    return math.erf(EPSILON / max(2 * math.sqrt(variance), 1e-12))


def group_thresholds(scores, y, a, measure):
    """Predictions of the most accurate pair of group thresholds that is feasible on these rows.

    The result is exact. Balanced accuracy is a sum over the groups, and the statistic of a group
    grows with the rows that are predicted positive. Therefore, for each threshold of one group, the
    allowed thresholds of the other group are consecutive, and the best of them is a range maximum.
    """
    positives, negatives = (y == 1).sum(), (y == 0).sum()
    ordered, gains, statistics = [], [], []
    for g in (0, 1):
        s, labels = scores[a == g], y[a == g]
        order = np.argsort(-s, kind="stable")
        s, labels = s[order], labels[order]
        tp, fp = (np.append(0, np.cumsum(labels == c)) for c in (1, 0))
        possible = np.append(True, np.append(s[1:] < s[:-1], True))  # none between equal scores
        rates = {"demographic_parity": (tp + fp) / len(s), "equal_opportunity": tp / tp[-1]}
        rates["average_odds"] = 0.5 * (tp / tp[-1] + fp / fp[-1])
        ordered.append(np.append(s, -np.inf)[possible])
        gains.append((tp / positives - fp / negatives)[possible])
        statistics.append(rates[measure][possible])
    width = EPSILON - 1e-12
    low = np.searchsorted(statistics[1], statistics[0] - width, side="left")
    high = np.searchsorted(statistics[1], statistics[0] + width, side="right")
    allowed = np.flatnonzero(high > low)
    partner = range_argmax(gains[1], low[allowed], high[allowed])
    best = np.argmax(gains[0][allowed] + gains[1][partner])
    # Rows above the score that follows the last one predicted positive.
    above = np.array([ordered[0][allowed[best]], ordered[1][partner[best]]])
    return scores > above[a]


def range_argmax(values, low, high):
    """Positions of the maxima of ``values[low:high]``, for arrays of bounds."""
    table = [np.arange(len(values))]  # of 1, 2, 4, ... values from each position on
    while 2 ** len(table) <= len(values):
        half = 2 ** (len(table) - 1)
        left, right = table[-1][:-half], table[-1][half:]
        table.append(np.where(values[left] >= values[right], left, right))
    level = np.floor(np.log2(high - low)).astype(int)
    found = np.empty(len(low), dtype=int)
    for k in np.unique(level):
        at = level == k
        left, right = table[k][low[at]], table[k][high[at] - 2**k]
        found[at] = np.where(values[left] >= values[right], left, right)
    return found
