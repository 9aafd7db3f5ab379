"""Normalize: torchvision's arithmetic on tensors and arrays, known by its numbers."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer, Normalize

IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 3, 4, 2), dtype=np.uint8)
NUMBERS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MEAN, STD = (np.array(part)[None, :, None, None] for part in NUMBERS.values())
EXPECTED = (IMAGES / 255 - MEAN) / STD


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_bytes_and_floats(convert):
    normalize = Normalize(**NUMBERS)
    made = normalize(convert(IMAGES))
    assert type(made) is type(convert(IMAGES))
    assert np.asarray(made).dtype == np.float32
    np.testing.assert_allclose(made, EXPECTED, rtol=1e-5, atol=1e-5)
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-5), (np.float16, 1e-2)):
        floats = (IMAGES / 255).astype(dtype)
        made = np.asarray(normalize(convert(floats)))
        assert made.dtype == dtype
        np.testing.assert_allclose(made, EXPECTED, rtol=rtol, atol=rtol)
        np.testing.assert_array_equal(floats, (IMAGES / 255).astype(dtype))


@pytest.mark.parametrize("encoder", [nn.Flatten(), lambda batch: batch.reshape(len(batch), -1)])
def test_as_preprocessing(encoder):
    featurizer = FrozenEncoderFeaturizer(encoder, preprocess=Normalize(**NUMBERS))
    features = featurizer.fit_transform(IMAGES)
    np.testing.assert_allclose(features, EXPECTED.reshape(5, -1), rtol=1e-5, atol=1e-5)
    assert clone(featurizer).preprocess == featurizer.preprocess


def test_it_is_its_numbers():
    normalize = Normalize(*map(list, NUMBERS.values()))
    assert dataclasses.asdict(normalize) == NUMBERS
    assert normalize == Normalize(
        np.array(NUMBERS["mean"]), torch.tensor(NUMBERS["std"], dtype=torch.float64)
    )
    assert pickle.loads(pickle.dumps(normalize)) == normalize
    assert len({normalize, Normalize(**NUMBERS), Normalize((0.5,), (1,))}) == 2
    assert repr(normalize) == f"Normalize(mean={NUMBERS['mean']}, std={NUMBERS['std']})"
    with pytest.raises(dataclasses.FrozenInstanceError):
        normalize.mean = (0.0,)


@pytest.mark.parametrize(
    "numbers, error, match",
    [
        ({"mean": 0.5}, TypeError, r"mean=0\.5; expected a tuple of numbers"),
        ({"mean": "abc"}, TypeError, "mean='abc'; expected a tuple of numbers"),
        ({"std": (True, 1, 1)}, TypeError, "std=.*; expected a tuple of numbers"),
        ({"std": [[1, 1, 1]]}, TypeError, "std=.*; expected a tuple of numbers"),
        ({"mean": (0, 0, float("nan"))}, ValueError, "mean=.*; expected finite numbers"),
        ({"mean": (), "std": ()}, ValueError, r"mean=\(\); expected finite numbers"),
        ({"mean": (0.0,)}, ValueError, "mean has 1 numbers and std has 3"),
        ({"std": (1, 0, 1)}, ValueError, r"std=\(1\.0, 0\.0, 1\.0\) must be above 0"),
        ({"std": (1, -1, 1)}, ValueError, "must be above 0"),
    ],
)
def test_numbers_that_are_none(numbers, error, match):
    with pytest.raises(error, match=match):
        Normalize(**NUMBERS | numbers)


@pytest.mark.parametrize("shape", [(5, 4, 2, 3), (5, 24), (5, 1, 4, 2)])
def test_batches_of_other_channels(shape):
    batch = np.zeros(shape, dtype=np.uint8)
    for convert in (np.asarray, torch.from_numpy):
        with pytest.raises(
            ValueError, match=r"with 3 numbers got a batch of shape \(5, .*expected"
        ):
            Normalize(**NUMBERS)(convert(batch))


def test_a_replaced_call_is_not_known_by_its_numbers(tmp_path, monkeypatch):
    parameters = {"preprocess": Normalize(**NUMBERS), "memory": tmp_path / "store"}
    FrozenEncoderFeaturizer(nn.Flatten(), **parameters).fit(IMAGES)
    monkeypatch.setattr(Normalize, "__call__", lambda self, batch: batch * 1.0)
    with pytest.raises(ValueError, match=r"all that preprocess=.* depends on\. Pass encoder_id"):
        FrozenEncoderFeaturizer(nn.Flatten(), **parameters).fit(IMAGES)
    sub = type("Sub", (Normalize,), {})(**NUMBERS)
    with pytest.raises(ValueError, match="Pass encoder_id"):
        FrozenEncoderFeaturizer(nn.Flatten(), preprocess=sub, memory=tmp_path / "store").fit(IMAGES)


def test_its_numbers_count_under_a_name_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(4, 3, 6, 6), dtype=np.uint8)

    def embed(batch):
        return batch.mean((2, 3))

    found = [
        FrozenEncoderFeaturizer(
            embed, preprocess=preprocess, memory=tmp_path / "s.sqlite", encoder_id="mean"
        ).fit_transform(images)
        for preprocess in (
            None,
            Normalize((0.5,) * 3, (0.5,) * 3),
            Normalize((0.0,) * 3, (1.0,) * 3),
        )
    ]
    expected = images.astype(np.float32).mean((2, 3)) / 255
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1], 2 * expected - 1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[2], expected, rtol=1e-5)
