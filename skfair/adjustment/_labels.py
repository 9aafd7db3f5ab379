"""Logit adjustment: which samples to label, and which labelled samples are a random sample."""

import numpy as np
from sklearn.utils import gen_batches

from skfair.base._blocks import BlockRows

# The random order depends on the rows alone. Therefore another fit on the same samples, in another
# order, in a fold or in another process, recognises the samples that were suggested at random.
_SEED = 1_609_459_200
_TURN = 0x9E3779B97F4A7C15
_SPREAD = (30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)
_BLOCK = 1024  # rows that are hashed at once
# Least share of labelled samples in the random part: some of the suggested samples stay unlabelled.
_LABELLED_SHARE = 0.8
_LEAST_RANDOM = 5
# If a larger share of the samples beyond the random part is labelled, all labels were chosen in
# another way.
_SPARSE = 0.4


def random_order(X: np.ndarray | BlockRows) -> np.ndarray:
    """Order samples by a hash of their features, which serves as a random order.

    Parameters
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        The samples.

    Returns
    -------
    ndarray of shape (n_samples,), int
        Positions.

    Examples
    --------
    A part of the samples has the same order as in all samples.

    >>> import numpy as np
    >>> X = np.arange(10, dtype=np.float32)[:, None]
    >>> whole, part = X[random_order(X)], X[:5][random_order(X[:5])]
    >>> bool((whole[whole < 5] == part.ravel()).all())
    True
    """
    factors = np.random.default_rng(_SEED).integers(1 << 63, size=X.shape[1], dtype=np.uint64)
    keys = np.empty(len(X), dtype=np.uint64)
    for rows in gen_batches(len(X), _BLOCK):
        bits = (X[rows] + np.float32(0)).view(np.uint32)  # minus zero is zero
        keys[rows] = bits.astype(np.uint64) @ (2 * factors + 1)
    # Equal rows get different keys, by the number of equal rows before them.
    order = np.argsort(keys, kind="stable")
    first = np.r_[True, np.diff(keys[order]) != 0]
    turn = np.arange(len(X)) - np.maximum.accumulate(np.where(first, np.arange(len(X)), 0))
    keys[order] += turn.astype(np.uint64) * np.uint64(_TURN)
    # Similar rows have similar keys: the finalizer of SplitMix64 spreads the keys.
    for shift, factor in _SPREAD:
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(keys ^ (keys >> np.uint64(31)), kind="stable")


def random_part(labelled: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Mark the labelled samples that can be taken for a random sample.

    Parameters
    ----------
    labelled : ndarray of shape (n_samples,), bool
        True for samples with a label.
    order : ndarray of shape (n_samples,), int
        The samples in random order.

    Returns
    -------
    ndarray of shape (n_samples,), bool
        True for the labelled samples in the longest first part of the order in which at least
        four fifths are labelled. True for all labelled samples if that part has fewer than five,
        or if more than two fifths of the samples beyond it are labelled: then the labels were
        chosen in another way, and all of them are taken for a random sample.
    """
    share = labelled[order].cumsum() / np.arange(1, len(order) + 1)
    reach = np.flatnonzero(share >= _LABELLED_SHARE)
    first = order[: reach[-1] + 1] if len(reach) else order[:0]
    beyond = labelled[order[len(first) :]]
    part = np.zeros(len(labelled), dtype=bool)
    part[first] = labelled[first]
    if part.sum() < _LEAST_RANDOM or beyond.sum() > _SPARSE * len(beyond):
        return labelled.copy()
    return part


def conspicuous_order(surprise: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Order samples by how conspicuous they are; the classes take turns.

    Parameters
    ----------
    surprise : ndarray of shape (n_samples,)
        The larger, the more conspicuous is the sample in its class.
    codes : ndarray of shape (n_samples,), int
        Class of each sample.

    Returns
    -------
    ndarray of shape (n_samples,), int
        The most conspicuous sample of each class, then the second of each, and so on.
    """
    order = np.argsort(-surprise, kind="stable")
    turn = np.zeros(len(codes), dtype=int)
    for code in np.unique(codes):
        mine = order[codes[order] == code]
        turn[mine] = np.arange(len(mine))
    return order[np.argsort(turn[order], kind="stable")]
