"""The verdict on one rule: the tests of all groups or pairs, and the groups that decide."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from skfair.metrics._binomial_tests import exact_p_value, score, upper_bound
from skfair.metrics._bounds import Changes, Shares
from skfair.metrics._rate_tests import RateCounts, estimates, rows_for
from skfair.metrics._rules import FairnessRule

Status = Literal["passes", "fails", "cannot tell"]
_POWER = 0.8  # probability of a verdict with the number of samples that is called enough
_MOST_SAMPLES = 10**9
_NEAR = 1e-4  # tolerance of the lower bound on a difference


class Verdict(NamedTuple):
    """The verdict on one rule, and positions of what decides it."""

    status: Status
    value: float
    low: float
    high: float
    control: int
    groups: tuple[int, ...]


def each_group(
    shares: Shares | Changes, used: np.ndarray, rule: FairnessRule, level: float
) -> Verdict:
    """Check a limit on every group.

    "passes" needs all groups to reject, and therefore no correction. "fails" needs one group of
    many, and therefore shares its error among the groups.
    """
    n_tested = max(1, int((used & (shares.behind > 0)).sum()))
    if isinstance(shares, Changes) and shares.gains is None:
        n_tested = used.size  # which groups are used depends on the predictions of both models
    low, high = shares.bounds(level)
    strict_low, strict_high = shares.bounds(level / n_tested)
    if rule.comparison == ">=":
        margin, broken, high = low - rule.value, strict_high - rule.value, strict_high
    else:
        margin, broken, low = rule.value - high, rule.value - strict_low, strict_low
    status: Status
    if np.any(used & (broken < 0)):
        status, least = "fails", np.where(used, broken, np.inf)
    else:
        status = "passes" if np.all(margin[used] >= 0) else "cannot tell"
        least = np.where(used, margin, np.inf)
    c, g = (int(i) for i in np.unravel_index(np.argmin(least), least.shape))
    value = float(shares.values()[c, g])
    return Verdict(status, value, float(low[c, g]), float(high[c, g]), c, (g,))


def bounded_gap(
    shares: Shares, used: np.ndarray, rule: FairnessRule, level: float
) -> Verdict | None:
    """Check a limit on the difference or ratio of all two groups, by bounds on both groups.

    "passes": each ordered pair is bounded by two bounds, which share the error. "fails": the bounds
    of all groups hold at once, so that any pair may be looked at.
    """
    is_ratio = rule.statistic == "ratio"
    n_tested = max(1, int((used & (shares.behind > 0)).sum()))
    low, high = shares.bounds(level / 2)
    strict_low, strict_high = shares.bounds(level / 2 / n_tested)
    values = shares.values()

    def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Compare each group (row) with each other group (column)."""
        one, other = first[:, :, None], second[:, None, :]
        if not is_ratio:
            return one - other
        ratio = np.full(np.broadcast_shapes(one.shape, other.shape), np.nan)
        return np.divide(other, one, out=ratio, where=one > 0)

    # Row: the group with the higher value. A ratio is lower divided by higher.
    pair = used[:, :, None] & used[:, None, :] & ~np.eye(used.shape[1], dtype=bool)
    if not pair.any():
        return None
    if is_ratio:
        worst, mildest = apart(high, low), apart(strict_low, strict_high)
        margin, broken = worst - rule.value, mildest - rule.value
        bounds = worst, np.where(np.isnan(mildest), np.inf, mildest)
    else:
        worst, mildest = apart(high, low), apart(strict_low, strict_high)
        margin, broken = rule.value - worst, rule.value - mildest
        bounds = np.maximum(mildest, 0), worst
    broken = np.where(pair & ~np.isnan(broken), broken, np.inf)
    status: Status
    if np.any(broken < 0):
        status, least = "fails", broken
    else:
        status = "passes" if np.all(margin[pair] >= 0) else "cannot tell"
        least = np.where(pair, margin, np.inf)
    c, g, h = (int(i) for i in np.unravel_index(np.argmin(least), least.shape))
    value = float(apart(values, values)[c, g, h])
    return Verdict(status, value, float(bounds[0][c, g, h]), float(bounds[1][c, g, h]), c, (g, h))


def exact_difference(
    shares: Shares, used: np.ndarray, limit: float, level: float
) -> Verdict | None:
    """Check a limit on the difference in a share of all two groups, by the certificate's test.

    "passes": the test of each pair rejects a difference of `limit` or more. "fails": the test of a
    pair rejects a difference of at most `limit`; each ordered pair has the same part of the error.
    """
    hits, sizes = shares.hits[..., 0], shares.sizes[..., 0]
    filled = used & (sizes > 0)
    per_level = filled.sum(1)
    n_ordered = max(1, int((per_level * (per_level - 1)).sum()))
    pairs = []
    for c in np.flatnonzero(per_level > 1):
        some = np.flatnonzero(filled[c])
        first, second = (some[i] for i in np.triu_indices(len(some), 1))
        swap = hits[c, first] / sizes[c, first] < hits[c, second] / sizes[c, second]
        pairs.append(
            np.stack(
                [
                    np.full(len(first), c),
                    np.where(swap, second, first),
                    np.where(swap, first, second),
                ]
            )
        )
    empty = np.argwhere(used & (sizes == 0) & (used.sum(1, keepdims=True) > 1))
    if not pairs:
        if not len(empty):
            return None
        return _unknown(empty[0])
    control, higher, lower = np.concatenate(pairs, axis=1)
    x1, n1, x2, n2 = (array[control, group] for group in (higher, lower) for array in (hits, sizes))
    far = score(x1, n1, x2, n2, min(limit, 1 - 1e-9))
    order = np.argsort(-far, kind="stable")

    def counted(i: int) -> tuple[int, int, int, int]:
        return int(x1[i]), int(n1[i]), int(x2[i]), int(n2[i])

    def apart(i: int, epsilon: float) -> float:
        """P-value of a difference of at most epsilon."""
        a, m, b, n = counted(i)
        return exact_p_value(b, n, a, m, -epsilon, level / n_ordered, two_sided=False)

    def close(i: int, epsilon: float) -> float:
        """P-value of a difference of epsilon or more."""
        return (
            exact_p_value(*counted(i), epsilon, level) if 0 < epsilon < 1 else float(epsilon <= 0)
        )

    i = int(order[0])
    status: Status
    if far[i] > 0 and apart(i, limit) <= level / n_ordered:
        status = "fails"
    else:
        open_ = next((int(i) for i in order if far[i] >= 0 or close(int(i), limit) > level), None)
        status = "passes" if open_ is None and not len(empty) else "cannot tell"
        if open_ is None and len(empty):
            return _unknown(empty[0])
        i = i if open_ is None else open_
    value = int(x1[i]) / int(n1[i]) - int(x2[i]) / int(n2[i])
    pair = RateCounts("", np.array([x1[i], x2[i]]), np.array([n1[i], n2[i]]))
    error = float(np.sqrt(estimates(pair, pair.sizes)[1].sum()))
    tested = (limit, close(i, limit) if limit > value else 1.0)
    high = upper_bound(lambda epsilon: close(i, epsilon), level, value, error, tested)
    low = _lower_bound(lambda e: apart(i, e), level / n_ordered, value, limit, status == "fails")
    groups = (int(higher[i]), int(lower[i]))
    return Verdict(status, value, low, high, int(control[i]), groups)


def _unknown(position: np.ndarray) -> Verdict:
    """Nothing is known of a group without samples behind its share."""
    control, group = position.tolist()
    return Verdict("cannot tell", float("nan"), 0.0, 1.0, control, (group,))


def _lower_bound(
    p_value: Callable[[float], float], error: float, value: float, limit: float, fails: bool
) -> float:
    """Largest epsilon that a test of "at most epsilon" rejects, or somewhat less; at least 0."""
    low, high = (limit, value) if fails else (0.0, min(limit, value))
    if not fails and (high <= 0 or p_value(0.0) > error):
        return 0.0
    while high - low > _NEAR:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if p_value(middle) <= error else (low, middle)
    return low


def enough_samples(
    shares: Shares, c: int, groups: tuple[int, ...], rule: FairnessRule, level: float
) -> tuple[int, ...] | None:
    """Number of samples of the deciding groups with which the rule would probably pass."""
    hits, sizes = (array[c, list(groups), 0] for array in (shares.hits, shares.sizes))
    if rule.statistic == "difference":
        if not 0 < rule.value < 1:
            return None
        found = rows_for([RateCounts("", hits, sizes)], rule.value, level)
        return None if found is None else tuple(map(int, found[0]))
    if rule.statistic == "ratio":
        return None
    share = float(hits[0] / sizes[0])
    if (share <= rule.value) if rule.comparison == ">=" else (share >= rule.value):
        return None
    sign = 1 if rule.comparison == ">=" else -1

    def passes(n: int) -> bool:
        unlucky = share * n - sign * float(ndtri(_POWER)) * np.sqrt(n * share * (1 - share))
        x = int(np.clip(np.floor(unlucky) if sign > 0 else np.ceil(unlucky), 0, n))
        low, high = Shares(np.array([[[x]]]), np.array([[[n]]]), False).bounds(level)
        return bool(low[0, 0] >= rule.value if sign > 0 else high[0, 0] <= rule.value)

    low, high = 0, 1
    while not passes(high):
        low, high = high, 2 * high
        if high > _MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return (high,)
