"""Biased and balanced subsets: as many of each cell as asked for, none twice, the same by seed."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.datasets import make_balanced_subset, make_biased_subset

SEX = np.repeat(["man", "woman"], [60, 40])
GLASSES = np.array([True] * 20 + [False] * 40 + [True] * 5 + [False] * 35)
PAPER = {
    ("man", True): 0,
    ("man", False): 30,
    ("woman", True): 5,
    ("woman", False): 10,
}


def count(indices, *columns):
    """Count the cells of a subset."""
    return Counter(tuple(np.asarray(c)[i].item() for c in columns) for i in indices)


@st.composite
def problems(draw):
    """Classes and one or two sensitive columns, with a possible number for each cell."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_labels = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    columns = [rng.integers(k, size=n) for k in n_labels]
    there = Counter(zip(*(c.tolist() for c in columns), strict=True))
    counts = {key: draw(st.integers(0, number)) for key, number in there.items()}
    key = draw(st.sampled_from(sorted(there)))
    counts[key] = max(counts[key], 1)
    return columns, counts, draw(st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=80)
@given(problems())
def test_counts_are_exact(problem):
    (y, *features), counts, seed = problem
    features = {f"feature {i}": feature for i, feature in enumerate(features)}
    indices = make_biased_subset(y, features, counts=counts, random_state=seed)
    assert count(indices, y, *features.values()) == {k: n for k, n in counts.items() if n}
    assert indices.dtype == np.int64
    assert (np.diff(indices) > 0).all()  # ascending, and so none twice
    assert indices[0] >= 0
    assert indices[-1] < len(y)
    again = make_biased_subset(y, features, counts=counts, random_state=seed)
    np.testing.assert_array_equal(indices, again)


@settings(deadline=None, max_examples=80)
@given(problems())
def test_balanced_is_balanced(problem):
    (y, *features), _, seed = problem
    features = pd.DataFrame({f"feature {i}": feature for i, feature in enumerate(features)})
    table = pd.crosstab(y, [features[name] for name in features]).to_numpy()
    if table.min() == 0:
        with pytest.raises(ValueError, match="There is no sample of"):
            make_balanced_subset(y, features, random_state=seed)
        return
    indices = make_balanced_subset(y, features, random_state=seed)
    found = pd.crosstab(y[indices], [features[name].iloc[indices] for name in features])
    assert found.shape == table.shape
    assert (found == table.min()).all(axis=None)
    assert (np.diff(indices) > 0).all()


def test_proportions_of_the_paper():
    indices = make_biased_subset(SEX, GLASSES, counts=PAPER, random_state=0)
    assert count(indices, SEX, GLASSES) == {key: n for key, n in PAPER.items() if n}


def test_cells_that_are_not_named_are_left_out():
    named = {key: n for key, n in PAPER.items() if n}
    np.testing.assert_array_equal(
        make_biased_subset(SEX, GLASSES, counts=named, random_state=0),
        make_biased_subset(SEX, GLASSES, counts=PAPER, random_state=0),
    )
    # None of a cell that does not occur is what there is.
    with_absent = named | {("woman", "monocle"): 0}
    indices = make_biased_subset(SEX, GLASSES, counts=with_absent, random_state=0)
    assert len(indices) == sum(PAPER.values())


def test_seeds():
    def draw(random_state):
        return make_biased_subset(SEX, GLASSES, counts=PAPER, random_state=random_state)

    np.testing.assert_array_equal(draw(3), draw(np.random.RandomState(3)))
    assert not np.array_equal(draw(3), draw(4))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw(3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_samples_of_a_cell_are_equally_likely():
    counts = {("man", True): 5}
    drawn = np.zeros(len(SEX))
    rng = np.random.RandomState(0)
    for _ in range(400):
        drawn[make_biased_subset(SEX, GLASSES, counts=counts, random_state=rng)] += 1
    # 20 samples, each drawn 400 * 5 / 20 = 100 times, with a standard deviation of 9.
    assert drawn[:20].sum() == drawn.sum() == 2000
    assert (np.abs(drawn[:20] - 100) < 40).all()


def test_more_adds_to_fewer():
    few = make_biased_subset(SEX, GLASSES, counts=PAPER, random_state=1)
    more = make_biased_subset(
        SEX, GLASSES, counts=PAPER | {("man", True): 7, ("man", False): 35}, random_state=1
    )
    assert set(few) < set(more)
    balanced = [
        make_balanced_subset(SEX, GLASSES, n_samples=n, random_state=1) for n in (4, 12, 20, None)
    ]
    assert [len(indices) for indices in balanced] == [4, 12, 20, 20]
    assert set(balanced[0]) < set(balanced[1]) < set(balanced[2])
    np.testing.assert_array_equal(balanced[2], balanced[3])


@pytest.mark.parametrize(
    "kind",
    [
        lambda labels: pd.Series(labels, index=np.arange(len(labels))[::-1]),
        lambda labels: pd.Categorical(labels),
        lambda labels: np.unique(labels, return_inverse=True)[1],
        # Sorted the other way round: what is drawn does not hang on the names.
        lambda labels: -np.unique(labels, return_inverse=True)[1],
        lambda labels: (labels == labels[0]).tolist(),
        lambda labels: (labels == labels[0]).astype(float),
        lambda labels: [f"label {label}" for label in labels],
    ],
)
def test_types_of_labels_do_not_matter(kind):
    expected = make_biased_subset(SEX, GLASSES, counts=PAPER, random_state=0)
    sex, glasses = kind(SEX), kind(GLASSES)
    name = dict(zip([*SEX, *GLASSES], [*sex, *glasses], strict=True))
    counts = {tuple(name[part] for part in key): n for key, n in PAPER.items()}
    np.testing.assert_array_equal(
        make_biased_subset(sex, glasses, counts=counts, random_state=0), expected
    )
    np.testing.assert_array_equal(
        make_balanced_subset(sex, glasses, random_state=0),
        make_balanced_subset(SEX, GLASSES, random_state=0),
    )


def test_several_features():
    hat = np.arange(len(SEX)) % 2
    counts = {("man", True, 0): 3, ("woman", False, 1): 4}
    features = pd.DataFrame({"glasses": GLASSES, "hat": hat})
    indices = make_biased_subset(SEX, features, counts=counts, random_state=0)
    assert count(indices, SEX, GLASSES, hat) == counts


def test_takes_from_arrays_frames_and_memory_maps(tmp_path):
    indices = make_balanced_subset(SEX, GLASSES, random_state=0)
    stored = np.lib.format.open_memmap(
        tmp_path / "X.npy", mode="w+", dtype=np.int64, shape=(len(SEX), 2)
    )
    stored[:] = np.arange(len(SEX))[:, None]
    np.testing.assert_array_equal(stored[indices, 0], indices)
    frame = pd.DataFrame({"sex": SEX}, index=[f"row {i}" for i in range(len(SEX))])
    assert frame.iloc[indices]["sex"].tolist() == SEX[indices].tolist()


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (
            {("man", True): 21},
            ValueError,
            r"21 of \('man', True\), the data have 20.*Ask for at most",
        ),
        ({("man", "hat"): 1}, ValueError, r"1 of \('man', 'hat'\), the data have 0"),
        ({("man", "True"): 1}, ValueError, r"the data have 0.*\('man', True\): 20"),
        ({("man", True): -1}, ValueError, r"-1 for \('man', True\)"),
        ({("man", True): 0}, ValueError, "asks for no samples"),
        ({}, ValueError, "asks for no samples"),
        ({("man", True): 0.5}, TypeError, r"0\.5 for \('man', True\).*Give integers"),
        ({("man", True): True}, TypeError, "Give integers"),
        ({"man": 3}, TypeError, r"the key 'man'; expected a tuple \(class, sensitive feature\)"),
        ({("man", True, 0): 3}, TypeError, "expected a tuple"),
        ([3, 4], TypeError, "counts is list; expected a dict"),
    ],
)
def test_impossible_counts(counts, error, message):
    with pytest.raises(error, match=message):
        make_biased_subset(SEX, GLASSES, counts=counts)


@pytest.mark.parametrize(
    ("n_samples", "message"),
    [
        (
            21,
            r"=21 .*multiple of 4, .*up to 20.*\('woman', True\) has 5 samples.* instance 20",
        ),
        (24, "Pass for instance 20"),
        (11, "Pass for instance 8"),
        (3, "Pass for instance 4"),
        (0, "n_samples"),
        (8.0, "n_samples"),
    ],
)
def test_impossible_sizes(n_samples, message):
    with pytest.raises(ValueError, match=message):
        make_balanced_subset(SEX, GLASSES, n_samples=n_samples)


def test_cell_that_is_not_there():
    with pytest.raises(ValueError, match=r"no sample of \('woman', True\), so .*Leave out"):
        make_balanced_subset(SEX[:64], np.where(SEX[:64] == "man", GLASSES[:64], False))


@pytest.mark.parametrize(
    "make", [lambda *args: make_biased_subset(*args, counts=PAPER), make_balanced_subset]
)
def test_bad_labels(make):
    with pytest.raises(ValueError, match="sensitive_features has 99 values for 100 samples"):
        make(SEX, GLASSES[1:])
    with pytest.raises(ValueError, match=r"sensitive_features is missing for 1 of 100.*row.* 7"):
        make(SEX, [None if i == 7 else glasses for i, glasses in enumerate(GLASSES)])
    with pytest.raises(ValueError, match=r"y is missing for 1 of 100.*Drop"):
        make([None, *SEX[1:]], GLASSES)
    with pytest.raises(ValueError, match="y holds continuous values"):
        make(np.linspace(0.1, 0.9, len(SEX)), GLASSES)
    with pytest.raises(ValueError, match="y is empty"):
        make([], [])


def test_bad_seed():
    with pytest.raises(ValueError, match="random_state"):
        make_biased_subset(SEX, GLASSES, counts=PAPER, random_state="seed")
    with pytest.raises(ValueError, match="random_state"):
        make_balanced_subset(SEX, GLASSES, random_state=-1)
