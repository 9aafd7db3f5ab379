"""What comes out of an encoder: axes, rows that depend on others or on chance, changed files."""

import os
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import clone
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer
from skfair.utils import seeded

IMAGES = np.random.default_rng(0).random((6, 3, 16, 24)).astype(np.float32)


def made(make):
    with seeded(0):
        return make().eval()


class ChannelsLast(nn.Module):
    """Maps of shape (n, height, width, features), as Swin transformers make them."""

    def __init__(self, n_features=5, stride=4):
        super().__init__()
        self.layer = nn.Conv2d(3, n_features, stride, stride)

    def forward(self, X):
        return self.layer(X).permute(0, 2, 3, 1)


class OneSize(ChannelsLast):
    """The same for images of one size only, and square maps."""

    def forward(self, X):
        assert X.shape[2:] == (16, 16)
        return super().forward(X)


class Tokens(ChannelsLast):
    """Shape (n, tokens, features)."""

    def forward(self, X):
        return self.layer(X).flatten(2).transpose(1, 2)


class FeaturesThenTokens(ChannelsLast):
    def forward(self, X):
        return self.layer(X).flatten(2)


@pytest.mark.parametrize(
    "make, images",
    [
        (ChannelsLast, IMAGES),
        (lambda: ChannelsLast(4), IMAGES),  # as many features as rows of the map
        (OneSize, IMAGES[..., :16]),
        (FeaturesThenTokens, IMAGES),
    ],
)
def test_outputs_whose_other_axes_would_be_pooled_are_refused(make, images):
    with pytest.raises(ValueError, match=r"encoder returned .*of shape .* Wrap the encoder"):
        FrozenEncoderFeaturizer(made(make)).fit(images)


def test_a_callable_is_refused_by_the_shape_of_its_maps():
    network = made(lambda: ChannelsLast(50))
    with pytest.raises(ValueError, match=r"maps of shape \(6, 4, 6, 50\)"):
        FrozenEncoderFeaturizer(lambda X: network(torch.from_numpy(X))).fit_transform(IMAGES)


@pytest.mark.parametrize("n_features", [4, 5, 6, 24])
def test_maps_with_features_first_and_tokens_are_pooled_over_positions(n_features):
    for make, axes in ((lambda: nn.Conv2d(3, n_features, 4, 4), (2, 3)), (Tokens, 1)):
        network = made(make)
        with torch.no_grad():
            expected = network(torch.from_numpy(IMAGES)).mean(axes)
        found = FrozenEncoderFeaturizer(network).fit_transform(IMAGES)
        np.testing.assert_allclose(found, expected, atol=1e-6)


class Drops(nn.Module):
    def forward(self, X):
        return nn.functional.dropout(X.flatten(1), training=True)


class CentresItsBatch(nn.Module):
    def forward(self, X):
        return X.flatten(1) - X.flatten(1).mean(0)


def batch_statistics():
    return nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten())


@pytest.mark.parametrize(
    "make, said",
    [
        (batch_statistics, "uses the other images"),
        (CentresItsBatch, "uses the other images"),
        (Drops, "draws at random"),
    ],
)
def test_rows_that_depend_on_their_batch_or_on_chance_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        FrozenEncoderFeaturizer(made(make)).fit(IMAGES)


def test_a_callable_whose_rows_depend_on_their_batch_is_found_out_by_one_more_image():
    sizes = []

    def encode(X):
        sizes.append(len(X))
        return X.reshape(len(X), -1) - X.reshape(len(X), -1).mean(0)

    with pytest.raises(ValueError, match="uses the other images"):
        FrozenEncoderFeaturizer(encode).fit_transform(IMAGES)
    assert sizes == [6, 1]


def test_images_one_by_one_do_not_see_each_other():
    images = FrozenEncoderFeaturizer(made(batch_statistics), batch_size=1).fit_transform(IMAGES)
    each = (IMAGES - IMAGES.mean((2, 3), keepdims=True)) / np.sqrt(
        IMAGES.var((2, 3), keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(images, each.reshape(6, -1), atol=1e-5)


# ONNX files behind a fitted featurizer --------------------------------------------------------


def write(path, seed, size=16 * 24 * 3):
    weights = np.random.default_rng(seed).normal(size=(size, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return IMAGES.reshape(6, -1) @ weights


@pytest.mark.parametrize("travel", [lambda f: f, lambda f: pickle.loads(pickle.dumps(f))])
def test_another_model_behind_a_fitted_featurizer_is_found(tmp_path, travel):
    path = tmp_path / "encoder.onnx"
    write(path, seed=0)
    featurizer = travel(FrozenEncoderFeaturizer(path).fit(IMAGES))
    expected = write(path, seed=1)
    with pytest.raises(ValueError, match=r"encoder=.* is another model now"):
        featurizer.transform(IMAGES)
    # A new fit takes the file as it is.
    for fresh in (clone(featurizer), featurizer):
        np.testing.assert_allclose(fresh.fit_transform(IMAGES), expected, rtol=1e-3, atol=1e-4)


def test_the_same_model_written_again_or_moved_is_the_same(tmp_path):
    path = tmp_path / "encoder.onnx"
    expected = write(path, seed=0)
    featurizer = FrozenEncoderFeaturizer(path).fit(IMAGES)
    write(path, seed=0)
    os.utime(path, (0, 0))
    np.testing.assert_allclose(featurizer.transform(IMAGES), expected, rtol=1e-3, atol=1e-4)
    moved = path.rename(tmp_path / "moved.onnx")
    featurizer.set_params(encoder=moved)
    np.testing.assert_allclose(featurizer.transform(IMAGES), expected, rtol=1e-3, atol=1e-4)
