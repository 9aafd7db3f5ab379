"""Whether a group changed, and how it compares with a reference group: exact where possible."""

import numpy as np
from scipy import stats
from scipy.special import betaincinv

from skfair.metrics._counts import GroupCounts

LEVEL = 0.05  # of the intervals and tests


def change_p_values(counts: GroupCounts, model: str) -> np.ndarray:
    """Test for each class and group whether its accuracy under two models is the same.

    Only the samples count that exactly one of the two models gets right. If both models are equally
    accurate, each of these samples is as likely a gain as a loss: McNemar's exact test. With
    unequal weights, the test is approximate: the larger p-value of a test with the effective number
    of samples and of a t-test with the standard error of the weighted sum.

    Parameters
    ----------
    counts : GroupCounts
        The counts.
    model : str
        The model that is compared with the first.

    Returns
    -------
    ndarray of shape (n_groups, n_classes), float64
        Two-sided p-values, adjusted for the number of groups with such samples (S. Holm, "A simple
        sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
        (1979), 65-70). 1 for a group without such samples.
    """
    shape = (len(counts.groups), len(counts.classes))
    _, group, label, first = counts.cells[:, :4].T
    second = counts.cells[:, 3 + counts.models.index(model)]
    gain = (second == label).astype(int) - (first == label)

    def sums(amount: np.ndarray) -> np.ndarray:
        key = np.ravel_multi_index((group, label), shape)
        return np.bincount(key, weights=amount, minlength=int(np.prod(shape)))

    weights, changed = counts.size * counts.weight, np.abs(gain)
    up, down = sums(weights * (gain > 0)), sums(weights * (gain < 0))
    if np.all(counts.weight == counts.weight[0]):
        n_up, n_down = sums(counts.size * (gain > 0)), sums(counts.size * (gain < 0))
        p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(n_up, n_down), n_up + n_down, 0.5))
    else:
        squares = sums(counts.size * counts.weight**2 * changed)
        some = squares > 0
        effective = np.divide((up + down) ** 2, squares, out=np.zeros_like(up), where=some)
        share = np.divide(up, up + down, out=np.full_like(up, 0.5), where=some)
        fewer = np.minimum(share, 1 - share) * effective
        # The binomial distribution function, continued between the integers.
        sign = np.minimum(1, 2 * stats.beta.sf(0.5, fewer + 1, np.maximum(effective - fewer, 1e-9)))
        z = np.divide(np.abs(up - down), np.sqrt(squares), out=np.zeros_like(up), where=some)
        p = np.maximum(sign, 2 * stats.t.sf(z, np.maximum(effective - 1, 1e-9)))
    tested = sums(changed) > 0
    p = np.where(tested, p, 1.0)
    order = np.argsort(p[tested], kind="stable")
    adjusted = np.maximum.accumulate(p[tested][order] * np.arange(len(order), 0, -1))
    holm = np.ones_like(p)
    holm[np.flatnonzero(tested)[order]] = np.minimum(adjusted, 1)
    return holm.reshape(shape)


def share_limits(share: np.ndarray, n: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's limits of a share.

    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 26 (1934), 404-413.

    Parameters
    ----------
    share : ndarray
        Observed shares; NaN gives NaN.
    n : ndarray
        Number of samples behind each share; with weights the effective number, and the limits are
        approximate.
    tail : float
        Largest probability that the lower limit is too high; the same for the upper limit.

    Returns
    -------
    low, high : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> low, high = share_limits(np.array([0.5]), np.array([10]), 0.025)
    >>> low.round(3), high.round(3)
    (array([0.187]), array([0.813]))
    """
    with np.errstate(invalid="ignore"):
        hits = share * n
        low = np.where(share > 0, betaincinv(np.maximum(hits, 1e-9), n - hits + 1, tail), 0.0)
        high = np.where(share < 1, betaincinv(hits + 1, np.maximum(n - hits, 1e-9), 1 - tail), 1.0)
    undefined = np.isnan(share) | ~(n > 0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
