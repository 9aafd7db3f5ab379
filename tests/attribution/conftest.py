"""Images with a stamp on some of them, and maskers that find it in a fraction of a second."""

from typing import NamedTuple

import numpy as np
import pytest

from skfair.attribution import PatchAttributionMasker
from skfair.utils._split import split_cells


class Planted(NamedTuple):
    """Images (channels first, uint8), which of them have the stamp, and the pixels it covers."""

    X: np.ndarray
    has: np.ndarray
    inside: np.ndarray

    def share(self, maps, top=0.1):
        """Share of the stamp in the highest pixels of each map; chance is about a tenth."""
        maps = maps.reshape(-1, *self.inside.shape)
        highest = maps > np.quantile(maps, 1 - top, axis=(1, 2), keepdims=True)
        return (highest & self.inside).sum() / highest.sum()


def _planted(n=200, *, n_channels=3, share=0.5, at=(4, 6), shape=(12, 14), bright=100, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 128, size=(n, n_channels, *shape), dtype=np.uint8)
    has = np.arange(n) < round(share * n)
    rng.shuffle(has)
    inside = np.zeros(shape, dtype=bool)
    inside[at[0] : at[0] + 4, at[1] : at[1] + 4] = True
    X[np.ix_(has, np.arange(n_channels))] += (bright * inside).astype(np.uint8)
    return Planted(X, has, inside)


def _quick(**parameters):
    defaults = {"patch_size": 4, "stride": 2, "max_epochs": 4, "check_leakage": False}
    defaults |= {"quantile": 0.9, "validation_fraction": 0.1, "random_state": 0}
    return PatchAttributionMasker(**{**defaults, **parameters})


def _held_out(code, fraction=0.1, seed=0):
    drawn = int(np.random.RandomState(seed).randint(np.iinfo(np.int32).max))
    code = np.asarray(code, dtype=int)
    shares = np.maximum(fraction, np.minimum(16 / np.bincount(code), 0.4))
    return split_cells(code, shares, drawn)[1]


@pytest.fixture(scope="session")
def held_out():
    """Rows that `fit` holds out: a share of each value, or sixteen if these are at most 40 %."""
    return _held_out


@pytest.fixture(scope="session")
def planted():
    """Make images with a stamp of 4 x 4 pixels, a tenth of the image.

    The stamp is in the middle: at the border, all patches that contain a pixel may see the stamp.
    """
    return _planted


@pytest.fixture(scope="session")
def quick():
    """Make a masker with patches of the size of the stamp."""
    return _quick


@pytest.fixture(scope="session")
def data():
    return _planted()


@pytest.fixture(scope="session")
def fitted(data):
    """A fitted masker. Tests must not change it; a copy takes other parameters."""
    return _quick().fit(data.X, sensitive_features=data.has)


def _squares(n=240, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 100, size=(n, 1, 16, 16), dtype=np.uint8)
    has = np.arange(n) % 2 == 1
    inside = np.zeros((n, 16, 16), dtype=bool)
    for row, (y, x) in zip(np.flatnonzero(has), rng.integers(0, 13, (n, 2)), strict=False):
        X[row, :, y : y + 4, x : x + 4] = 255
        inside[row, y : y + 4, x : x + 4] = True
    return X, has, inside


@pytest.fixture(scope="session")
def squares():
    """Make images with a white square at a random place or none; which have it, and where."""
    return _squares


@pytest.fixture(scope="session")
def anywhere():
    """A masker fitted on such images, and these images. Tests must not change it."""
    X, has, inside = _squares()
    masker = _quick(stride=1, max_epochs=8, position_embedding=False)
    return masker.fit(X, sensitive_features=has), X, has, inside
