"""What a featurizer sees of a changed encoder without reading all weights, and what it does not."""

import copy
import gc
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from skfair.featurize import FrozenEncoderFeaturizer
from skfair.featurize import _remembered as remembered
from skfair.featurize._fingerprint import module_digest
from skfair.featurize._remembered import frozen_copy, remembered_digest

X = np.random.default_rng(0).integers(1, 200, (12, 3, 6, 6), dtype=np.uint8)


class Sub(nn.ReLU):
    pass


def make_net(bias=True):
    """Layers with large tensors (25,600 and 102,400 values) and with small ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 320, 5, bias=bias),
            nn.BatchNorm2d(320),
            nn.ReLU(),
            nn.Conv2d(320, 320, 1, bias=bias),
        )
    net[2].scales = {"a": [1, 2]}
    net[2].shift = torch.zeros(3)
    return net.eval()


def step(optimizer, **options):
    def change(net):
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer(net.parameters(), lr=0.1, **options).step()
        net.zero_grad()

    return change


def without_gradients(change):
    return lambda net: torch.no_grad()(change)(net)


def put(change):
    """A change of the large weight of the last layer, of shape (320, 320, 1, 1)."""

    def apply(net):
        weight = net[3].weight.requires_grad_(False)  # torch refuses integers with gradients
        weight.data = change(weight.data)

    return apply


def inference(net):
    with torch.inference_mode():
        net[3].weight.mul_(2)


def rename(net):
    state = vars(net[2])
    state["other"] = state.pop("shift")


def to_another_memory_and_back(net):
    """New values that may be at the address of the old ones."""
    weight = net[3].weight
    values = weight.detach().clone()
    values.view(-1)[1000] += 1  # not in the sample
    weight.data = torch.zeros(1)
    weight.data = values.clone()


def hook(net):
    net[2].register_forward_hook(lambda module, inputs, output: output)


def statistics(net):
    F.batch_norm(torch.ones(2, 320, 1, 1), net[1].running_mean, net[1].running_var, training=True)


SEEN = {
    "operation in place": without_gradients(lambda net: net[3].weight.mul_(2)),
    "one value": without_gradients(lambda net: net[3].weight.view(-1)[1000].add_(1)),
    "one value of a detached tensor": lambda net: net[3].weight.detach().view(-1)[1000].add_(1),
    "operation in inference mode": inference,
    "SGD": step(torch.optim.SGD),
    "Adam": step(torch.optim.Adam, foreach=True),
    "fused SGD": step(torch.optim.SGD, fused=True),
    "fused Adam": step(torch.optim.Adam, fused=True),
    "load_state_dict": lambda net: net.load_state_dict(copy.deepcopy(net.state_dict())),
    "load_state_dict that assigns": lambda net: net.load_state_dict(
        copy.deepcopy(net.state_dict()), assign=True
    ),
    "vector_to_parameters": lambda net: nn.utils.vector_to_parameters(
        torch.zeros(sum(weight.numel() for weight in net.parameters())), net.parameters()
    ),
    "initialisation": lambda net: nn.init.normal_(net[3].weight),
    "all values through data": lambda net: net[3].weight.data.mul_(2),
    "copy through data": lambda net: net[0].weight.data.copy_(torch.zeros(320, 3, 5, 5)),
    "all values through NumPy": lambda net: net[3].weight.detach().numpy().fill(1),
    "all values through the storage": lambda net: net[3].weight.untyped_storage().fill_(1),
    "one value of a small tensor through data": lambda net: net[3].bias.data[7].add_(1),
    "one value of a small tensor through NumPy": lambda net: net[2].shift.numpy().put(1, 4),
    "statistics of a batch": statistics,
    "transposed": put(lambda weight: weight.transpose(0, 1)),
    "another shape": put(lambda weight: weight.view(160, 640, 1, 1)),
    "another dtype of the same memory": put(lambda weight: weight.view(torch.int32)),
    "sign": put(torch._neg_view),
    "sign of a small tensor": lambda net: setattr(
        net[3].bias, "data", torch._neg_view(net[3].bias.data)
    ),
    "another dtype": lambda net: net.double(),
    "new memory": put(torch.clone),
    "memory in turn": to_another_memory_and_back,
    "new parameter": lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.detach())),
    "no parameter": lambda net: setattr(net[0], "bias", None),
    "setting": lambda net: setattr(net[0], "padding", (1, 1)),
    "item in a container": lambda net: net[2].scales["a"].append(3),
    "key of a container": lambda net: net[2].scales.update(b=net[2].scales.pop("a")),
    "new attribute": lambda net: setattr(net[2], "gain", None),
    "no attribute": lambda net: delattr(net[2], "scales"),
    "renamed attribute": rename,
    "another layer": lambda net: setattr(net, "2", nn.Tanh()),
    "order of the layers": lambda net: net.insert(3, net.pop(2)),
    "one layer more": lambda net: net.append(nn.ReLU()),
    "class of a layer": lambda net: setattr(net[2], "__class__", Sub),
    "class of the module": lambda net: setattr(net, "__class__", nn.ModuleList),
    "forward of a layer": lambda net: setattr(net[2], "forward", torch.tanh),
    "hook": hook,
}


@pytest.mark.parametrize("name", SEEN)
def test_a_change_that_is_seen(name):
    net = make_net()
    _, digest = frozen_copy(net)
    assert remembered_digest(net) == digest == module_digest(net)
    SEEN[name](net)
    assert remembered_digest(net) is None


def test_new_values_at_the_address_of_old_ones_are_seen():
    """The allocator gives the memory of freed weights to the next ones, often at once."""
    net = make_net()
    for _ in range(20):
        frozen_copy(net)
        to_another_memory_and_back(net)
        assert remembered_digest(net) is None


def test_modes_and_hooks_of_all_modules_and_the_default_dtype_are_seen():
    net = make_net()
    _, digest = frozen_copy(net)
    torch.set_default_dtype(torch.float64)
    try:
        assert remembered_digest(net) is None
    finally:
        torch.set_default_dtype(torch.float32)
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert remembered_digest(net) is None
    finally:
        handle.remove()
    with TorchDispatchMode():
        assert remembered_digest(net) is None
    assert remembered_digest(net) == digest


def test_runs_and_copies_change_nothing():
    net = make_net()
    _, digest = frozen_copy(net)
    net.requires_grad_(False)
    net.eval()
    net(torch.zeros(2, 3, 6, 6))
    net.state_dict()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert remembered_digest(other) is None  # each module is read once
        assert frozen_copy(other)[1] == digest
    assert remembered_digest(net) == digest
    net.train()
    net.eval()
    assert remembered_digest(net) == digest


def encoder_that_says_when_it_is_read(monkeypatch):
    """A net, and a list that gets an item each time when all weights are read."""
    reads = []

    def read(module):
        reads.append(module)
        return module_digest(module)

    monkeypatch.setattr(remembered, "module_digest", read)
    return make_net(), reads


def test_rows_that_are_found_do_not_cost_a_reading(tmp_path, monkeypatch):
    net, reads = encoder_that_says_when_it_is_read(monkeypatch)
    model = FrozenEncoderFeaturizer(net, memory=tmp_path / "store", batch_size=4).fit(X)
    model.transform(X)
    expected = FrozenEncoderFeaturizer(net, batch_size=4).fit_transform(X)
    reads.clear()
    for rows in (X, X[::-1], X[3:5]):
        model.transform(rows)
    np.testing.assert_array_equal(model.transform(X), expected)
    assert not reads
    fresh = np.concatenate([X[:7], 255 - X])
    model.transform(fresh)
    assert len(reads) == 1
    model.fit(X)
    assert len(reads) == 2
    with torch.no_grad():
        net[3].weight.mul_(2)
    model.transform(X)
    assert len(reads) == 3
    model.transform(X)
    assert len(reads) == 3


def test_a_change_that_is_not_seen_keeps_the_store_right(tmp_path):
    """A single weight, through ``data``: rows of two encoders never meet in one call or store."""
    net = make_net()
    parameters = {"encoder": net, "memory": tmp_path / "store", "batch_size": 4}
    model = FrozenEncoderFeaturizer(**parameters).fit(X)
    before = model.transform(X[:6])
    net[3].weight.data.view(-1)[1000] += 1
    plain = FrozenEncoderFeaturizer(net, batch_size=4).fit_transform(X)
    assert not np.array_equal(plain[:6], before)
    # As documented: all rows are found, so that the weights are not read.
    np.testing.assert_array_equal(model.transform(X[:6]), before)
    # The first row that is missing shows the change, to the rows that were found before it too.
    np.testing.assert_array_equal(model.transform(X), plain)
    np.testing.assert_array_equal(model.transform(X[:6]), plain[:6])
    net[3].weight.data.view(-1)[1000] -= 1
    again = FrozenEncoderFeaturizer(**parameters).fit(X).transform(X[:6])
    np.testing.assert_allclose(again, before, rtol=1e-5, atol=1e-5)


def test_fit_sees_every_change(tmp_path):
    net = make_net()
    model = FrozenEncoderFeaturizer(net, memory=tmp_path / "store", batch_size=6).fit(X)
    before = model.transform(X)
    net[3].weight.data.view(-1)[1000] += 1
    plain = FrozenEncoderFeaturizer(net, batch_size=6).fit_transform(X)
    np.testing.assert_array_equal(model.fit(X).transform(X), plain)
    assert not np.array_equal(plain, before)


def test_the_encoder_may_become_unknown_between_calls(tmp_path):
    net = make_net()
    model = FrozenEncoderFeaturizer(net, memory=tmp_path / "store").fit(X)
    model.transform(X)
    net[2] = Sub()
    with pytest.raises(ValueError, match=r"encoder\.2 is a test_remembered\.Sub.*encoder_id="):
        model.transform(X)
    net[2] = nn.LazyConv2d(2, 1)
    with pytest.raises(ValueError, match="Run the module on a batch"):
        model.transform(X)


def test_replaced_code_of_torch_does_not_encode(tmp_path, monkeypatch):
    net = make_net()
    model = FrozenEncoderFeaturizer(net, memory=tmp_path / "store").fit(X)
    expected = model.transform(X[:6])
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: 3 * x)
    np.testing.assert_array_equal(model.transform(X[:6]), expected)  # they are of torch's own code
    with pytest.raises(ValueError, match=r"torch's relu has been replaced.*encoder_id="):
        model.transform(X)
    with pytest.raises(ValueError, match=r"torch's relu has been replaced.*encoder_id="):
        model.fit(X)


def test_an_encoder_that_changes_in_a_call_which_found_rows(tmp_path):
    """The call ends with the rows of one state: that at the first row that was missing."""
    net = make_net()
    parameters = {"memory": tmp_path / "store", "batch_size": 2}
    model = FrozenEncoderFeaturizer(net, **parameters).fit(X)
    model.transform(X[:6])

    class Training(torch.utils.data.Dataset):
        trained = False

        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            if row == 4 and not self.trained:
                self.trained = True
                with torch.no_grad():
                    net[3].weight.add_(0.01)
            return X[row]

    result = model.transform(Training())
    after = FrozenEncoderFeaturizer(net, batch_size=2).fit_transform(X)
    np.testing.assert_array_equal(result, after)


def shared(net):
    net.share_memory()


def without_version(net):
    with torch.inference_mode():
        net[2].shift = torch.ones(3)


def complex_numbers(net):
    net[2].shift = torch.ones(3, dtype=torch.complex64)


def negated(net):
    net[2].shift = torch._neg_view(torch.ones(3))


def gaps(net):
    net[3].weight = nn.Parameter(torch.ones(320, 640, 1, 1)[:, ::2])


def itself(net):
    net[2].inner = net


@pytest.mark.parametrize("make", [shared, without_version, complex_numbers, negated, gaps, itself])
def test_encoders_whose_changes_do_not_show_are_read_in_each_call(make):
    net = make_net()
    make(net)
    if make is not itself:
        assert frozen_copy(net)[1] == module_digest(net)
    else:
        frozen_copy(net)
    assert remembered_digest(net) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: net.half(),
        lambda net: net.bfloat16(),
        lambda net: setattr(net[2], "shift", torch.zeros(0)),
        lambda net: setattr(net[2], "shift", torch.zeros(100_000)[5:8]),
        lambda net: setattr(net[2], "shift", torch.tensor(True)),
        lambda net: net.append(nn.LSTM(3, 4)),
        lambda net: net.append(net[3]),
        lambda net: setattr(net[0], "bias", None),
        lambda net: [weight.detach_() for weight in net.parameters()],
    ],
)
def test_other_encoders_are_remembered_too(change):
    net = make_net()
    change(net)
    _, digest = frozen_copy(net)
    assert remembered_digest(net) == digest
    net[3].weight.data.mul_(2)
    assert remembered_digest(net) is None


def test_an_encoder_and_its_replaced_weights_are_not_kept():
    net = make_net()
    frozen_copy(net)
    memory = StorageWeakRef(net[3].weight.untyped_storage())
    net[3].weight.data = net[3].weight.data.clone()
    assert memory.expired()
    gc.collect()  # encoders of other tests
    n_kept = len(remembered._remembered)
    del net
    gc.collect()
    assert len(remembered._remembered) == n_kept - 1


def test_modules_without_a_hash_are_not_remembered():
    class Equal(nn.Module):
        def __eq__(self, other):
            return True

    assert remembered_digest(Equal()) is None


def test_a_pickle_holds_nothing_of_it(tmp_path):
    model = FrozenEncoderFeaturizer(nn.Conv2d(3, 2, 3), memory=tmp_path / "store").fit(X)
    size = len(pickle.dumps(model))
    model.transform(X)
    assert len(pickle.dumps(model)) == size
