"""Splitters for cross-validation in which each fold has all groups."""

import heapq
import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _num_samples

from skfair.utils import Groups, SmallGroupWarning, encode_groups
from skfair.utils._labels import describe_rows, encode_labels
from skfair.utils._random_state import check_random_state
from skfair.utils._rows import check_rows
from skfair.utils._shown import plain, shown

_CELLS_SHOWN = 10


class _GroupStratified(BaseCrossValidator):
    """Common parts of both splitters: arguments, strata and requests."""

    # Routed to `split` without `set_split_request`, as GroupsConsumerMixin does for `groups`.
    __metadata_request__split = {"groups": UNUSED, "sensitive_features": True}

    # Declared for mypy, which believes that nothing can be assigned after the check for Integral.
    n_splits: int
    random_state: Any

    def split(
        self, X: Any, y: Any = None, groups: Any = None, *, sensitive_features: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Split the rows into training and test parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training data; only the number of rows is used.
        y : array-like of shape (n_samples,), default=None
            Class labels of any type. Required.
        groups : object, default=None
            Must be None. In scikit-learn's other splitters it means rows that stay together, which
            these splitters do not support.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
                default=None
            Group labels: array, Series, DataFrame or dict of columns (intersections). Required.

        Returns
        -------
        iterator of (train, test)
            Both ndarray of int64, row numbers in ascending order.

        Raises
        ------
        ValueError
            `sensitive_features` or `y` is not given, has another length, has an index in another
            order, is continuous or has missing values; there is one group only, or a group with too
            few rows; `groups` is given.

        Warns
        -----
        SmallGroupWarning
            A class has too few rows in a group and was merged with another class.
        """
        name = type(self).__name__
        if groups is not None:
            raise ValueError(
                f"groups is given, but {name} does not use it: in scikit-learn it means rows that "
                "must stay together. Pass the group labels to stratify on as sensitive_features."
            )
        if sensitive_features is None:
            raise ValueError(
                f"{name} needs sensitive_features, the group labels to stratify on, and got none. "
                "In a search, enable metadata routing and pass them to fit:\n"
                "    with sklearn.config_context(enable_metadata_routing=True):\n"
                "        search.fit(X, y, sensitive_features=sensitive_features)\n"
                "(to cross_validate and similar functions as params={'sensitive_features': ...}). "
                "Without routing, give the splits themselves:\n"
                "    cv=list(splitter.split(X, y, sensitive_features=sensitive_features))"
            )
        if y is None:
            raise ValueError(f"{name} needs y, the class labels to stratify on, and got none.")
        check_rows(X=X, y=y, sensitive_features=sensitive_features)
        n_samples = _num_samples(X)
        classes, labels = encode_labels(
            y,
            name="y",
            hint=f"{name} stratifies on classes. For a regression, bin the target, for instance "
            "with pandas.cut, and give the bins as y to split.",
        )
        if len(classes) != n_samples:
            raise ValueError(
                f"y has {len(classes)} labels for the {n_samples} samples of X. Give one label for "
                "each sample, in the order of the samples."
            )
        if (classes < 0).any():
            raise ValueError(
                f"y is missing for {describe_rows(classes < 0)}. Drop these samples, or give them "
                "a label."
            )
        encoded = encode_groups(sensitive_features, n_samples=n_samples, missing="keep")
        if (encoded.codes < 0).any():
            raise ValueError(
                f"sensitive_features is missing for {describe_rows(encoded.codes < 0)}. Every part "
                "needs known groups. Drop these samples; or, in a search, keep them for training "
                "only, and score on samples whose groups are all known: "
                "cv=sklearn.model_selection.PredefinedSplit(...) with -1 for the others."
            )
        stratum = self._stratify(classes, labels, encoded)
        return self._iter_parts(stratum, encoded.codes * len(labels) + classes)

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: Any = None, *, sensitive_features: Any = None
    ) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups, sensitive_features : object, default=None
            Not used.

        Returns
        -------
        int
            The parameter `n_splits`.
        """
        return self.n_splits

    def _stratify(self, classes: np.ndarray, labels: list, groups: Groups) -> np.ndarray:
        """Number the strata, group by group; each stratum has at least the required rows."""
        least, wanted = self._least()
        n_groups = len(groups.labels)
        if n_groups < 2:
            raise ValueError(
                f"sensitive_features holds one group only ({_name_group(groups, 0)}), so there is "
                "nothing to stratify on except y. Use scikit-learn's Stratified splitters, or "
                "check that sensitive_features is the right column."
            )
        cell = groups.codes * len(labels) + classes
        counts = np.bincount(cell, minlength=n_groups * len(labels)).reshape(n_groups, -1)
        sizes = counts.sum(axis=1)
        if (sizes < least).any():
            small = ", ".join(
                f"{_name_group(groups, i)} ({_rows(sizes[i])})"
                for i in np.flatnonzero(sizes < least).tolist()
            )
            raise ValueError(
                f"sensitive_features has groups with fewer rows than {wanted}: {small}. A part of "
                "a split would miss them. "
                + ("Use fewer splits, merge" if least > 2 else "Merge")
                + " them with another group, or drop their rows."
            )
        number = np.empty(counts.shape, dtype=np.int64)
        n_strata = 0
        for group, count in enumerate(counts):
            strata = [(int(count[i]), [int(i)]) for i in np.flatnonzero(count)]
            heapq.heapify(strata)
            while strata[0][0] < least:
                (n, smaller), (n_next, larger) = heapq.heappop(strata), heapq.heappop(strata)
                heapq.heappush(strata, (n + n_next, smaller + larger))
            for members in sorted(sorted(members) for _, members in strata):
                number[group, members] = n_strata
                n_strata += 1
        rare = [(i, j) for i, j in np.argwhere((counts > 0) & (counts < least)).tolist()]
        if rare:
            rare.sort(key=lambda at: counts[at])
            named = [
                f"class {shown(labels[j])} in group {_name_group(groups, i)} "
                f"({_rows(counts[i, j])})"
                for i, j in rare[:_CELLS_SHOWN]
            ]
            if len(rare) > _CELLS_SHOWN:
                named.append(f"{len(rare) - _CELLS_SHOWN} more")
            warnings.warn(
                f"Some classes have fewer rows in a group than {wanted}: {', '.join(named)}. Each "
                "class was merged with the next larger class of its group, so that no part misses "
                "the group. But a part may have no row of that class in that group; a rate within "
                "the class (true positive rate, false positive rate) is then undefined.",
                SmallGroupWarning,
            )
        return number.ravel()[cell]


class GroupStratifiedKFold(_GroupStratified):
    """K folds that are stratified on class and sensitive features.

    Each combination of class and group has nearly the same share in each fold. Therefore no test
    fold and no training part misses a group, and group metrics are defined on all folds.

    A combination with fewer rows than `n_splits` is merged with the next larger combination of its
    group until there are enough rows, with a warning. The rows of a merged combination are in
    different folds. No fold misses a group also in this case.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, 2 or more.
    shuffle : bool, default=False
        Whether to shuffle the rows of each combination first. If False, consecutive rows are in
        the same fold as far as possible.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling; only with ``shuffle=True``. Successive halving requires an int.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type or value.

    See Also
    --------
    GroupStratifiedShuffleSplit : Independent random splits.

    Notes
    -----
    Folds differ by at most one row in size, in the number of rows of each group and in the
    number of rows of each combination.

    Successive halving over ``resource="n_samples"`` draws a random part of each fold, which may
    miss a small group. Take another resource, or a large `min_resources`.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair.model_selection import GroupStratifiedKFold
    >>> y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> sex = np.array(list("ffmmffmm"))
    >>> splitter = GroupStratifiedKFold(n_splits=2)
    >>> for train, test in splitter.split(np.zeros((8, 1)), y, sensitive_features=sex):
    ...     print(test, y[test], sex[test])
    [0 2 4 6] [0 0 1 1] ['f' 'm' 'f' 'm']
    [1 3 5 7] [0 0 1 1] ['f' 'm' 'f' 'm']
    """

    shuffle: bool

    def __init__(self, n_splits: int = 5, *, shuffle: bool = False, random_state: Any = None):
        if not isinstance(n_splits, Integral) or n_splits < 2:
            raise ValueError(f"n_splits must be an integer of at least 2, got {n_splits!r}.")
        if not isinstance(shuffle, bool | np.bool_):
            raise TypeError(f"shuffle must be True or False, got {shuffle!r}.")
        if not shuffle and random_state is not None:
            raise ValueError(
                f"random_state={random_state!r} has no effect without shuffling. Set shuffle=True, "
                "or leave out random_state."
            )
        check_random_state(random_state)
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def _least(self) -> tuple[int, str]:
        return self.n_splits, f"n_splits={self.n_splits}"

    def _iter_parts(
        self, stratum: np.ndarray, cell: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n_samples = len(cell)
        order = np.arange(n_samples)
        if self.shuffle:
            order = check_random_state(self.random_state).permutation(n_samples)
        order = order[np.lexsort((cell[order], stratum[order]))]
        # Rows are dealt like cards: rows that are neighbours in this order, of a combination, a
        # stratum or a group, are spread evenly over the folds. (StratifiedKFold deals in the order
        # in which the classes appear, so that the rows of a group are not neighbours.)
        turn = np.arange(n_samples) % self.n_splits
        # Within a combination, consecutive rows go to the same fold.
        turn = turn[np.lexsort((turn, cell[order], stratum[order]))]
        fold = np.empty(n_samples, dtype=np.int64)
        fold[order] = turn
        for i in range(self.n_splits):
            yield np.flatnonzero(fold != i), np.flatnonzero(fold == i)


class GroupStratifiedShuffleSplit(_GroupStratified):
    """Random splits that are stratified on class and sensitive features.

    Each combination of class and group has the same share in the test part, up to one row, and at
    least one row in both parts. Therefore neither part misses a group.

    A combination with one row only is merged with the next larger combination of its group, with a
    warning. Neither part misses a group also in this case.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits, 1 or more.
    test_size : float or int, default=0.2
        Share of the rows in the test part, between 0 and 1, or their number. Each combination has a
        row in both parts. With many small combinations, the test part is therefore a little larger
        or smaller than requested.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. Successive halving requires an int.

    Raises
    ------
    ValueError
        An argument has a wrong type or value.

    See Also
    --------
    GroupStratifiedKFold : Test parts that do not overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair.model_selection import GroupStratifiedShuffleSplit
    >>> y = np.repeat([0, 1], 20)
    >>> sex = np.tile(list("ffffm"), 8)
    >>> splitter = GroupStratifiedShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
    >>> ((train, test),) = splitter.split(np.zeros((40, 1)), y, sensitive_features=sex)
    >>> np.unique(sex[test], return_counts=True)
    (array(['f', 'm'], dtype='<U1'), array([8, 2]))
    """

    test_size: float

    def __init__(
        self, n_splits: int = 10, *, test_size: float | int = 0.2, random_state: Any = None
    ):
        if not isinstance(n_splits, Integral) or isinstance(n_splits, bool) or n_splits < 1:
            raise ValueError(f"n_splits must be an integer of at least 1, got {n_splits!r}.")
        if isinstance(test_size, Integral) and not isinstance(test_size, bool):
            valid = test_size >= 1
        else:
            valid = isinstance(test_size, Real) and 0 < test_size < 1
        if not valid:
            raise ValueError(
                "test_size must be a share of the rows strictly between 0 and 1 or their number, "
                f"an integer of at least 1; got {test_size!r}."
            )
        check_random_state(random_state)
        self.n_splits = n_splits
        self.test_size = test_size
        self.random_state = random_state

    def _least(self) -> tuple[int, str]:
        return 2, "the two that a split needs"

    def _iter_parts(
        self, stratum: np.ndarray, cell: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n_samples = len(stratum)
        size = self.test_size
        if size >= n_samples:
            raise ValueError(
                f"test_size={size} leaves none of {n_samples} samples for training. Give a smaller "
                "number, or a share."
            )
        return self._draw(stratum, size * n_samples if size < 1 else size)

    def _draw(self, stratum: np.ndarray, n_test: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n_samples = len(stratum)
        sizes = np.bincount(stratum)
        exact = n_test * sizes / n_samples
        quota = np.clip(np.floor(exact), 1, sizes - 1).astype(np.int64)
        can_grow = quota < np.clip(np.ceil(exact), 1, sizes - 1)
        n_more = max(round(n_test) - quota.sum(), 0)
        rng = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            # Strata furthest below their share get one more row; ties are broken at random.
            by_need = np.lexsort((rng.permutation(len(sizes)), quota - exact))
            taken = quota.copy()
            taken[by_need[can_grow[by_need]][:n_more]] += 1
            order = rng.permutation(n_samples)
            order = order[np.argsort(stratum[order], kind="stable")]
            rank = np.arange(n_samples) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            test = rank < np.repeat(taken, sizes)
            yield np.sort(order[~test]), np.sort(order[test])


def _name_group(groups: Groups, i: int) -> str:
    if len(groups.names) == 1:
        return shown(groups.labels[i])
    return ", ".join(
        f"{plain(name)}={shown(value)}"
        for name, value in zip(groups.names, groups.labels[i], strict=True)
    )


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"
