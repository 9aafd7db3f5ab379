"""Images with a stamp on some of them, and maskers that find it in a fraction of a second."""

from typing import NamedTuple

import numpy as np
import pytest

from skfair.attribution import PatchAttributionMasker


class Planted(NamedTuple):
    """Images, channels first, uint8; which of them have the stamp; and the pixels it covers."""

    X: np.ndarray
    has: np.ndarray
    inside: np.ndarray

    def share(self, maps, top=0.1):
        """Share of the stamp in the highest pixels of each map; chance is about a tenth."""
        maps = maps.reshape(-1, *self.inside.shape)
        highest = maps > np.quantile(maps, 1 - top, axis=(1, 2), keepdims=True)
        return (highest & self.inside).sum() / highest.sum()


def _planted(n=200, *, n_channels=3, share=0.5, at=(2, 8), shape=(12, 14), bright=100, seed=0):
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
    defaults |= {"random_state": 0}
    return PatchAttributionMasker(**{**defaults, **parameters})


@pytest.fixture(scope="session")
def planted():
    """Make images with a stamp of 4 x 4 pixels, a tenth of the image."""
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
    """Not to be changed; a copy takes other parameters."""
    return _quick().fit(data.X, sensitive_features=data.has)
