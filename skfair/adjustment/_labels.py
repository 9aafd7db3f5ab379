"""Logit adjustment, which labels to ask for, and which of those given are a random sample."""

import numpy as np

# Any two fits on as many samples put them in the same random order. So a fit can tell by the
# positions which of its labels were asked for at random, in another process and after a clone too.
_ORDER_SEED = 1_609_459_200
_LABELLED_SHARE = 0.8  # of the first ones in that order: not everything that is asked is answered
_LEAST_RANDOM = 5


def random_order(n_samples: int) -> np.ndarray:
    """The order in which samples are asked for at random, the same for each fit."""
    return np.random.default_rng(_ORDER_SEED).permutation(n_samples)


def random_part(labelled: np.ndarray, takes_part: np.ndarray) -> np.ndarray:
    """Mark the labelled samples that can be taken for a random sample.

    Parameters
    ----------
    labelled : ndarray of shape (n_samples,), bool
        Samples with a label.
    takes_part : ndarray of shape (n_samples,), bool
        Samples with a weight.

    Returns
    -------
    ndarray of shape (n_samples,), bool
        The labelled ones among the first of the random order, as far as at least four fifths of
        these are labelled. All labelled ones where these are fewer than five: the labels come from
        elsewhere then, and are taken for a random sample.
    """
    order = random_order(len(labelled))
    order = order[takes_part[order]]
    share = labelled[order].cumsum() / np.arange(1, len(order) + 1)
    reach = np.flatnonzero(share >= _LABELLED_SHARE)
    first = order[: reach[-1] + 1] if len(reach) else order[:0]
    part = np.zeros(len(labelled), dtype=bool)
    part[first] = labelled[first]
    return part if part.sum() >= _LEAST_RANDOM else labelled.copy()


def conspicuous_order(surprise: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Order samples by how much they stick out, the classes taking turns.

    Parameters
    ----------
    surprise : ndarray of shape (n_samples,)
        The larger, the more a sample sticks out in its class.
    codes : ndarray of shape (n_samples,), int
        Classes.

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
