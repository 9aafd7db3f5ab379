"""Splits in which every cell has its share: rows held out, and folds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfair.utils._split import draw_folds, split_cells

CELLS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(cell=CELLS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**31 - 2))
def test_every_cell_is_on_both_sides(cell, fraction, seed):
    kept, held_out = split_cells(cell, fraction, seed)
    for rows in (kept, held_out):
        assert (np.diff(rows) > 0).all()
    assert set(kept) | set(held_out) == set(range(len(cell)))
    for value in np.unique(cell):
        n = np.count_nonzero(cell == value)
        n_kept, n_out = ((cell[rows] == value).sum() for rows in (kept, held_out))
        if n == 1:
            assert n_kept == n_out == 1  # the only row is in both parts
        else:
            assert n_kept + n_out == n
            assert min(n_kept, n_out) >= 1
            # The requested share, rounded up, with at least one row in each part.
            assert abs(n_out - fraction * n) < 1 or n_kept == 1 or n_out == 1
    both = set(kept) & set(held_out)
    assert all(np.count_nonzero(cell == cell[row]) == 1 for row in both)


@pytest.mark.parametrize(
    "sizes, fraction, expected",
    [((10, 10), 0.2, [2, 2]), ((10, 3), 0.25, [3, 1]), ((2, 5), 0.9, [1, 4]), ((100,), 0.1, [10])],
)
def test_shares_by_hand(sizes, fraction, expected):
    cell = np.repeat(np.arange(len(sizes)), sizes)
    _, held_out = split_cells(cell, fraction, seed=0)
    assert np.bincount(cell[held_out]).tolist() == expected


def test_a_cell_that_does_not_occur():
    kept, held_out = split_cells(np.array([3, 3, 0, 0]), 0.5, seed=0)
    assert len(kept) == len(held_out) == 2


def test_the_seed_decides():
    cell = np.arange(300) % 3
    first = split_cells(cell, 0.3, seed=1)
    again, other = split_cells(cell, 0.3, seed=1), split_cells(cell, 0.3, seed=2)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert set(first[1]) != set(other[1])


def test_rows_are_held_out_equally_often():
    cell = np.repeat([0, 1], [30, 10])
    counts = np.zeros(40)
    for seed in range(400):
        counts[split_cells(cell, 0.2, seed)[1]] += 1
    # One in five rows; the standard deviation of a count is 8.
    assert counts.min() > 80 - 40
    assert counts.max() < 80 + 40


@given(cell=CELLS, n_folds=st.integers(1, 7), seed=st.integers(0, 2**31 - 2))
def test_folds_share_rows_and_cells_evenly(cell, n_folds, seed):
    fold = draw_folds(cell, n_folds, seed)
    assert fold.shape == cell.shape
    assert fold.dtype == np.int64
    assert set(fold) <= set(range(n_folds))
    for rows in (np.ones(len(cell), dtype=bool), *(cell == value for value in np.unique(cell))):
        counts = np.bincount(fold[rows], minlength=n_folds)
        assert counts.max() - counts.min() <= 1


def test_the_seed_decides_the_folds():
    cell = np.arange(300) % 3
    first = draw_folds(cell, 5, seed=1)
    np.testing.assert_array_equal(first, draw_folds(cell, 5, seed=1))
    # The folds of two independent draws agree in one row of five; the standard deviation is 7.
    assert (first == draw_folds(cell, 5, seed=2)).sum() < 60 + 35


def test_rows_meet_every_fold_equally_often():
    cell = np.repeat([0, 1], [7, 5])
    counts = np.zeros((12, 2))
    for seed in range(400):
        counts[np.arange(12), draw_folds(cell, 2, seed)] += 1
    # A cell of 7 has 4 rows in the first fold. The 5 that follow start with the second fold, and
    # have 3 there. The standard deviation of a count is 10.
    np.testing.assert_allclose(counts[:7, 0], 400 * 4 / 7, atol=50)
    np.testing.assert_allclose(counts[7:, 1], 400 * 3 / 5, atol=50)
