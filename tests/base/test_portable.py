"""The state of estimators: what is pickled, and what others write of it."""

import copy
import functools
import io
import pickle
import weakref

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from torch import nn

from skfair.base._portable import PortableState, StandIns, TensorState
from skfair.featurize._pickling import _rebuild


class Holder(PortableState, BaseEstimator):
    def __init__(self, value):
        self.value = value


def pickled(value):
    return pickle.loads(pickle.dumps(Holder(value))).value


def called(stand_in):
    """Open a state as skops does: by calls of what `__reduce__` names, each object once."""
    made = {}

    def open_(value):
        if id(value) in made:
            return made[id(value)][1]
        if type(value).__module__ == TensorState.__module__ and not isinstance(value, type):
            kind, arguments = value.__reduce__()
            assert kind is type(value)
            opened = kind(*open_(arguments))
        elif isinstance(value, dict):
            opened = type(value)((key, open_(item)) for key, item in value.items())
        elif isinstance(value, list | tuple):
            opened = type(value)([open_(item) for item in value])
        else:
            opened = value
        made[id(value)] = value, opened  # kept, so that no other gets its id
        return opened

    return open_(stand_in)


def written(value):
    return called(Holder(value).__getstate__())["value"]


WAYS = pytest.mark.parametrize("way", [pickled, written, copy.deepcopy])

TENSORS = {
    "bfloat16": lambda: torch.randn(3, 2).bfloat16(),
    "float8": lambda: torch.randn(4).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(3, 2, dtype=torch.complex64),
    "bool": lambda: torch.tensor([True, False]),
    "one number": lambda: torch.tensor(2.5, dtype=torch.float64),
    "nothing": lambda: torch.empty(0, 3),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "turned": lambda: torch.randn(3, 5).T,
    "a part": lambda: torch.randn(6, 6)[1:4, ::2],
    "one value for all": lambda: torch.ones(1).expand(4, 3),
    "trained": lambda: torch.randn(3, requires_grad=True),
}


def bytes_of(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


@WAYS
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_back(name, way):
    tensor = TENSORS[name]()
    opened = way(tensor)
    assert bytes_of(opened) == bytes_of(tensor)
    assert (opened.dtype, opened.shape) == (tensor.dtype, tensor.shape)
    assert opened.requires_grad == tensor.requires_grad
    if name in ("channels last", "turned"):
        assert opened.stride() == tensor.stride()  # on which the last bits may depend
    with torch.no_grad():
        opened.zero_()  # of its own
    assert name == "nothing" or bool((tensor != 0).any())


class Tied(nn.Module):
    """A network with all that a network may hold."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.again = [self.first]
        self.recurrent = nn.LSTM(4, 3, batch_first=True)
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("passing", torch.ones(4), persistent=False)
        self.register_parameter("none", None)
        self.plain = {"scale": torch.tensor(2.0), "dtype": torch.float32}
        self.activation = torch.relu
        self.first.bias.requires_grad_(False)
        self.first.weight.note = "kept"
        self.eval()

    def forward(self, X):
        hidden = self.activation(self.second(self.first(X))) * self.plain["scale"] + self.passing
        return self.recurrent(hidden[:, None])[0][:, 0] + self.kept


@WAYS
@pytest.mark.parametrize("frozen", [False, True])
def test_networks_come_back(way, frozen):
    network = Tied()
    opened = way(FrozenEstimator(network) if frozen else network)
    opened = opened.estimator if frozen else opened
    assert type(opened) is Tied
    assert opened.second.weight is opened.first.weight
    assert opened.again[0] is opened.first
    assert opened.recurrent._flat_weights[0] is opened.recurrent.weight_ih_l0
    assert [p.requires_grad for p in opened.parameters()] == [
        p.requires_grad for p in network.parameters()
    ]
    assert opened.state_dict().keys() == network.state_dict().keys()
    if way is not copy.deepcopy:  # where torch leaves it out
        assert opened.first.weight.note == "kept"
    assert opened.plain["dtype"] is torch.float32
    assert not opened.training
    X = torch.randn(5, 4)
    assert torch.equal(opened(X), network(X))
    opened.load_state_dict(network.state_dict())
    opened.train()(X).sum().backward()
    assert network.first.weight.grad is None


def test_what_refers_to_itself_is_pickled():
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].root = [network]  # a list, since torch would take it for a child
    opened = pickled(network)
    assert opened[0].root[0] is opened


def test_what_attributes_share_is_written_once():
    network = nn.Linear(300, 300)
    holder = Holder({"one": network, "two": nn.Sequential(network), "three": network.weight})
    opened = pickle.loads(pickle.dumps(holder)).value
    assert opened["two"][0] is opened["one"]
    assert opened["three"] is opened["one"].weight
    assert len(pickle.dumps(holder)) < 1.1 * 4 * 300 * 301


def test_a_pickle_depends_on_the_values_alone():
    # Else joblib would never find a fitted step of a pipeline with a memory again.
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.load_state_dict(one.state_dict())
    assert joblib.hash(Holder(one)) == joblib.hash(Holder(two))
    with torch.no_grad():
        two.weight[0, 0] += 1
    assert joblib.hash(Holder(one)) != joblib.hash(Holder(two))


def test_a_file_that_cannot_be_written_to_opens(tmp_path):
    network = nn.Linear(3, 2)
    joblib.dump(Holder(network), tmp_path / "model")
    opened = joblib.load(tmp_path / "model", mmap_mode="r").value
    torch.optim.SGD(opened.parameters(), lr=1.0).zero_grad()
    with torch.no_grad():
        opened.weight.zero_()
    assert not torch.equal(joblib.load(tmp_path / "model").value.weight, opened.weight)


def test_a_pickle_that_is_opened_without_gradients_can_be_trained():
    data = pickle.dumps(Holder(nn.Linear(3, 1)))
    with torch.inference_mode():
        opened = pickle.loads(data).value
    opened(torch.ones(1, 3)).sum().backward()
    assert torch.equal(opened.bias.grad, torch.ones(1))


TABLES = {
    "numbers": pd.DataFrame({"loss": [0.5, np.nan], "n": [1, 2], "right": [True, False]}),
    "text": pd.DataFrame({"candidate": ["a", "b"], "layer": [np.nan, "0"]}),
    "a name": pd.DataFrame({"loss": [0.5, 0.25]}).rename_axis("epoch"),
    "no rows": pd.DataFrame({"loss": np.zeros(0), "name": pd.Series([], dtype=str)}),
    "names of rows": pd.DataFrame({"loss": [1.0, 2.0]}, index=["a", "b"]),
    "names that are numbers": pd.DataFrame({0: [1.0], 1: [2.0]}),
    "no columns": pd.DataFrame(index=pd.RangeIndex(3)),
}


@WAYS
@pytest.mark.parametrize("name", TABLES)
def test_tables_come_back(name, way):
    pd.testing.assert_frame_equal(way(TABLES[name]), TABLES[name], check_index_type="exact")


def test_a_state_holds_arrays():
    state = Holder({"network": Tied(), "history": [TABLES["text"]]}).__getstate__()
    kinds = set()

    class Look(pickle.Pickler):
        def reducer_override(self, value):
            kinds.add(type(value))
            return NotImplemented

    Look(io.BytesIO()).dump(state)
    assert np.ndarray in kinds
    assert not {torch.Tensor, nn.Parameter, pd.DataFrame} & kinds


def test_copies_keep_what_a_pickle_cannot_hold():
    network = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    network.weight_of = weakref.ref(network)
    holder = Holder(network)
    assert copy.copy(holder).value is network
    assert torch.equal(copy.deepcopy(holder).value.weight, network.weight)
    with pytest.raises(TypeError, match=r"holds a ParametrizedLinear.*parametrized modules"):
        pickle.dumps(holder)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("inside", [False, True])
def test_networks_of_torchscript_are_refused_in_words(inside):
    network = torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(TypeError, match="TorchScript has a format of its own"):
        pickle.dumps(Holder(nn.Sequential(network) if inside else network))


class Own(nn.Module):
    """A network with a way of its own."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def __reduce__(self):
        return functools.partial(Own, 3), ()


def test_networks_with_a_way_of_their_own_go_it():
    assert pickled(Own(2)).layer.in_features == 3


@pytest.mark.parametrize("device", ["cuda:99", "xpu:99"])
def test_a_tensor_from_a_device_that_is_not_here_opens_on_the_cpu(device, monkeypatch):
    # There may be cards, and fewer.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    weight = nn.Linear(3, 2).weight
    kind, parts = StandIns(on_cpu=False).of(weight).__reduce__()
    assert parts[4] == "cpu"
    opened = kind(*parts[:4], device, *parts[5:])
    assert opened.device.type == "cpu"
    assert isinstance(opened, nn.Parameter)
    assert torch.equal(opened, weight)


def test_pickles_of_former_versions_open():
    data = np.arange(6, dtype=np.float32).view(np.uint8)
    opened = _rebuild(data, "float32", (2, 3), "cpu", True, True)
    assert isinstance(opened, nn.Parameter)
    assert opened.tolist() == [[0, 1, 2], [3, 4, 5]]
    holder = Holder.__new__(Holder)
    holder.__setstate__({"value": nn.Linear(2, 1)})  # as it was: a network that is none but itself
    assert isinstance(holder.value, nn.Linear)
