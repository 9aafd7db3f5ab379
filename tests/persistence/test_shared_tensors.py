"""Tensors with the same bytes are in the file once, and have memory of their own once loaded."""

import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from saved_models import (
    X,
    assert_same_outputs,
    fitted,
    forge,
    make_encoder,
    make_network,
    parts,
    put,
)
from torch import nn

import skfair
from skfair.discovery import all_estimators
from skfair.persistence import InvalidModelError
from skfair.persistence._values import ValueReader, ValueWriter

# Small data and short fits. Other tests check their warnings.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")


def make_wide():
    return nn.Sequential(nn.Linear(4, 3000), nn.ReLU(), nn.Linear(3000, 1))


def make_wide_on_meta():
    with torch.device("meta"):
        return make_wide()


def weights_of(estimator):
    return {name: tensor.clone() for name, tensor in estimator.state_dict().items()}


def assert_equal_weights(network, expected):
    found = network.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# Debiasers -------------------------------------------------------------------------------------


def test_weights_that_did_not_change_are_in_the_file_once(tmp_path):
    # 3,000 x 4 and 3,000 numbers, then 3,000 and 1, of four bytes each.
    n_bytes = 4 * (3000 * 4 + 3000 + 3000 + 1)
    debiaser, _ = fitted("ThresholdDebiaser", estimator=make_wide())
    skfair.save(debiaser, tmp_path / "model")
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert n_bytes < size < n_bytes + 15_000
    assert sum(tensor.nbytes for tensor in parts(tmp_path / "model")[1].values()) < n_bytes + 100


def test_only_the_layer_that_changed_is_in_the_file_twice(tmp_path):
    debiaser, _ = fitted("ThresholdDebiaser", estimator=make_wide())
    with torch.no_grad():
        debiaser.module_[0][2].weight[0, 0] += 1
    skfair.save(debiaser, tmp_path / "model")
    _, tensors = parts(tmp_path / "model")
    shapes = [tuple(tensor.shape) for tensor in tensors.values() if tensor.dtype == torch.float32]
    assert sorted(shapes) == [(1,), (1, 3000), (1, 3000), (3000,), (3000, 4)]
    loaded = skfair.load(tmp_path / "model", factories=make_wide)
    assert_equal_weights(loaded.module_, weights_of(debiaser.module_))
    assert_equal_weights(loaded.estimator, weights_of(debiaser.estimator))


@pytest.mark.parametrize("factory", [make_wide, make_wide_on_meta])
@pytest.mark.parametrize("name", ["ThresholdDebiaser", "RandomPerturbationDebiaser"])
def test_training_one_network_leaves_the_other(name, factory, tmp_path):
    debiaser, _ = fitted(name, estimator=make_wide())
    skfair.save(debiaser, tmp_path / "model")
    original, debiased = weights_of(debiaser.estimator), weights_of(debiaser.module_)
    for trained, left, expected in [
        ("module_", "estimator", original),
        ("estimator", "module_", debiased),
    ]:
        loaded = skfair.load(tmp_path / "model", factories=factory)
        assert_same_outputs(debiaser, loaded, X)
        with torch.no_grad():
            for weight in getattr(loaded, trained).parameters():
                weight.fill_(7)
        assert_equal_weights(getattr(loaded, left), expected)


def test_no_two_tensors_of_a_loaded_estimator_share_memory(tmp_path):
    inner, _ = fitted("ThresholdDebiaser", estimator=make_wide())
    outer, _ = fitted("ThresholdDebiaser", estimator=inner, output="auto")
    for i, factory in enumerate((make_wide, make_wide_on_meta)):
        skfair.save(outer, tmp_path / str(i))
        loaded = skfair.load(tmp_path / str(i), factories=factory)
        networks = (loaded.module_, loaded.estimator.module_, loaded.estimator.estimator)
        places = [p.untyped_storage().data_ptr() for n in networks for p in n.parameters()]
        assert len(set(places)) == len(places) == 12
        assert_same_outputs(outer, loaded, X)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.last = nn.Linear(4, 1)
        self.register_buffer("zeros", torch.zeros(4, 4))
        self.register_buffer("also", self.zeros)

    def forward(self, X):
        return self.last(self.second(self.first(X).relu()) + self.zeros[0] + self.also[0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_that_a_network_ties_stay_tied(device, tmp_path):
    def make():
        with torch.device(device):
            return Tied()

    debiaser, _ = fitted("ThresholdDebiaser", estimator=Tied())
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=make)
    assert_same_outputs(debiaser, loaded, X)
    for network in (loaded.estimator, loaded.module_[0]):
        assert network.first.weight is network.second.weight
    assert loaded.module_[0].first.weight is not loaded.estimator.first.weight


class WithConstant(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.last = nn.Linear(4, 1)
        if persistent is None:
            self.factor = torch.full((4,), 2.0)
        else:
            self.register_buffer("factor", torch.full((4,), 2.0), persistent=persistent)

    def forward(self, X):
        return self.last(X * self.factor)


@pytest.mark.parametrize(
    "persistent, message",
    [(False, "factor is on the device 'meta'"), (None, "computes other values"), (True, None)],
)
def test_a_network_on_meta_needs_all_its_tensors_in_the_file(persistent, message, tmp_path):
    def make():
        with torch.device("meta"):
            return WithConstant(persistent)

    debiaser, _ = fitted("ThresholdDebiaser", estimator=WithConstant(persistent))
    skfair.save(debiaser, tmp_path / "model")
    if message is None:
        assert_same_outputs(debiaser, skfair.load(tmp_path / "model", factories=make), X)
        return
    with pytest.raises(InvalidModelError, match=message):
        skfair.load(tmp_path / "model", factories=make)


def test_a_network_in_channels_last_keeps_its_format(tmp_path):
    def make():
        network = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 2, 1), nn.Flatten())
        return nn.Sequential(network, nn.Linear(2, 1)).to(memory_format=torch.channels_last)

    debiaser, _ = fitted("ThresholdDebiaser", estimator=make())
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=make)
    assert_same_outputs(debiaser, loaded, X)
    for network in (loaded.module_, loaded.estimator):
        conv = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
        assert conv.weight.stride() == debiaser.module_[0][0][1].weight.stride()


@pytest.mark.parametrize("n_columns", [1, 2])
def test_outputs_that_nearly_cancel_are_compared_in_the_precision_of_predictions(
    n_columns, tmp_path
):
    # In float32 the last unit of 1e7 is 1, while the outputs differ by less than that.
    network = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, n_columns))
    with torch.no_grad():
        network[0].weight.zero_()[:, 0] = torch.tensor([0.5, 0.25])
        network[0].bias.fill_(1e7 / 3)
        network[1].weight.fill_(1)[0, 1] = -1
        network[1].bias.zero_()
    made = fitted("ThresholdDebiaser", estimator=network, epsilon=0.9)[0]
    skfair.save(made, tmp_path / "model")
    loaded = skfair.load(
        tmp_path / "model",
        factories=lambda: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, n_columns)),
    )
    assert_same_outputs(made, loaded, X)


# Values ----------------------------------------------------------------------------------------


def refuse(*arguments):
    raise AssertionError(arguments)


def through_json(values):
    writer = ValueWriter(refuse)
    written = json.loads(json.dumps([writer.write(v, f"v{i}") for i, v in enumerate(values)]))
    return writer.tensors, written, ValueReader(dict(writer.tensors), refuse)


ZEROS = torch.zeros(6, dtype=torch.int32)


@pytest.mark.parametrize(
    "one, two",
    [
        (ZEROS, torch.zeros(6)),  # the same bytes of another type
        (ZEROS, torch.zeros(2, 3, dtype=torch.int32)),
        (torch.zeros(6), torch.full((6,), -0.0)),  # equal numbers of other bytes
        (torch.zeros(0), torch.zeros(0, 3)),
        (torch.zeros(40, dtype=torch.bool), torch.zeros(40, dtype=torch.uint8)),
    ],
)
def test_tensors_that_differ_in_type_shape_or_bytes_are_kept_apart(one, two):
    tensors, written, reader = through_json([one, two])
    assert len(tensors) == 2
    for value, item in zip((one, two), written, strict=True):
        found = reader.read(item, "")
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert torch.equal(found.view(torch.uint8), value.view(torch.uint8))


def test_equal_values_in_any_layout():
    rows = np.arange(100.0).reshape(10, 10)
    rows[0, 0] = np.nan
    views = [rows, np.asfortranarray(rows.T), rows.copy()]
    tensors, written, reader = through_json(views)
    assert len(tensors) == 2  # the same bytes three times
    found = [reader.read(item, "") for item in written]
    for value, one in zip(views, found, strict=True):
        np.testing.assert_array_equal(one, value)
        assert one.strides == value.strides
        one[:] = 3  # changes no other array
    assert reader.unused == []


@pytest.mark.parametrize("n_equal, n_stored", [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_each_tensor_is_used_twice_at_most(n_equal, n_stored):
    weight = torch.arange(50.0)
    tensors, written, reader = through_json([{"w": weight + 0} for _ in range(n_equal)])
    assert len(tensors) == n_stored
    found = [reader.read(item, "")["w"] for item in written]
    assert all(torch.equal(one, weight) for one in found)
    assert len({one.data_ptr() for one in found}) == n_equal


# Forged ----------------------------------------------------------------------------------------


def test_a_small_file_does_not_take_much_memory(tmp_path):
    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "model")

    def thrice(body):
        weights = body["estimator"]["state"]["module_"]["weights"]
        weights["2.bias"] = weights["0.bias"] = weights["2.weight"]

    forge(tmp_path / "model", thrice)
    with pytest.raises(InvalidModelError, match="used more than 2 times"):
        skfair.load(tmp_path / "model", factories=make_network)


@pytest.mark.parametrize("name, other", [("0.weight", "2.weight"), ("0.bias", "0.weight")])
def test_a_weight_that_names_the_tensor_of_another_one(name, other, tmp_path):
    debiaser, _ = fitted("ThresholdDebiaser")
    with torch.no_grad():
        for weight in debiaser.module_.parameters():
            weight.add_(1)  # so that both networks have tensors of their own
    skfair.save(debiaser, tmp_path / "model")
    body, tensors = parts(tmp_path / "model")
    weights = body["estimator"]["state"]["module_"]["weights"]
    del tensors[weights[name]]
    made = body["estimator"]["parameters"]["estimator"]["made_by_caller"]
    weights[name] = made["weights"]["weights"][other]
    put(tmp_path / "model", body, tensors)
    with pytest.raises(InvalidModelError, match=r"module_ is not the network"):
        skfair.load(tmp_path / "model", factories=make_network)


def test_a_weight_that_names_an_array_of_another_type(saved):
    def change(body):
        state = body["estimator"]["state"]
        state["module_"]["weights"]["weight"] = state["cluster_centers_"]["array"]["tensor"]

    body, _ = parts(saved)
    assert "tensor" in body["estimator"]["state"]["cluster_centers_"]["array"]
    forge(saved, change)
    with pytest.raises(InvalidModelError):
        skfair.load(saved)


# Files of earlier versions ---------------------------------------------------------------------


def put_version_2(path, body, tensors):
    """Write a file as earlier versions did: each tensor once, and a digest of all bytes."""
    packed = safetensors.torch.save(tensors)
    (length,) = struct.unpack_from("<Q", packed)
    header, data = json.loads(packed[8 : 8 + length]), packed[8 + length :]
    config = json.dumps(body)
    digest = hashlib.sha256(json.dumps([config, header], sort_keys=True).encode() + data)
    metadata = {"format": "skfair", "schema_version": "2", "config": config}
    metadata["sha256"] = digest.hexdigest()
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("name", [name for name, _ in all_estimators()])
def test_files_of_schema_2_are_loaded(name, tmp_path):
    estimator, data = fitted(name)
    skfair.save(estimator, tmp_path / "model", training_rows=True)
    body, tensors = parts(tmp_path / "model")
    put_version_2(tmp_path / "model", body, tensors)
    needed = {"encoder": make_encoder, "estimator": make_network}
    factories = {name: needed[name] for name in body["made_by_caller"]}
    assert_same_outputs(estimator, skfair.load(tmp_path / "model", factories=factories), data)
    content = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidModelError, match="digest does not match"):
        skfair.load(tmp_path / "model", factories=factories)


def test_safetensors_reads_the_file(tmp_path):
    debiaser, _ = fitted("ThresholdDebiaser", estimator=make_wide().half(), output="logits")
    skfair.save(debiaser, tmp_path / "model")
    found = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    _, expected = parts(tmp_path / "model")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
