"""Holding out rows of each cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skfair.utils._split import split_cells

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
