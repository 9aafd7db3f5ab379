"""Copies of networks that are kept between predictions: always of the present network."""

import dataclasses
import enum
import functools
import gc
import multiprocessing
import pickle
import sys
import threading
import weakref
from collections import OrderedDict
from copy import deepcopy
from itertools import product
from operator import is_

import joblib
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from skfair.base import TorchClassifier
from skfair.base import _kept_copy as kept_copy
from skfair.base._kept_copy import converted
from skfair.base._net import forward_batches
from skfair.base._networks import copied
from skfair.utils._random import seeded

CPU, X = torch.device("cpu"), np.array([[1.0], [3.0]])


def run(network, rows=X, dtype=torch.float64):
    with converted(network, CPU, dtype, n_rows=len(rows)) as copy:
        out = forward_batches(copy, rows, batch_size=2, device=CPU, dtype=dtype or torch.float32)
    return out[:, 0].tolist()


def copies(network):
    return kept_copy._KEPT.get(network, [])


def filled(layer, weight=2.0, bias=1.0):
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


class Line(nn.Linear):
    """A layer of a user's own class: ``factor * (weight * x + bias)``."""

    def __init__(self):
        super().__init__(1, 1)
        filled(self)
        self.factor, self.factors = 1.0, {"more": [1.0]}
        self.offset = torch.zeros(1)

    def forward(self, rows):
        return super().forward(rows) * self.factor * self.factors["more"][0] + self.offset


# Of width 1024, the copy holds the weights of one layer at a time.
def wide():
    """Two layers of 1024 units: 1024 equal units of 2 x + 1, then their mean."""
    first, second = filled(nn.Linear(1, 1024)), nn.Linear(1024, 1024, bias=False)
    last = filled(nn.Linear(1024, 1), 1 / 1024, 0.0)
    with torch.no_grad():
        second.weight.copy_(torch.eye(1024))
    return nn.Sequential(first, nn.ReLU(), second, nn.Dropout(0.5), last)


NETWORKS = {
    "of torch": lambda: nn.Sequential(filled(nn.Linear(1, 1)), nn.Dropout(0.5)),
    "of a user": lambda: nn.Sequential(Line()),
    "layer by layer": wide,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def by_data(layer):
    layer.weight.data.mul_(2)


def by_numpy(layer):
    layer.weight.detach().numpy()[:] = 4


def without_gradients(layer):
    with torch.no_grad():
        layer.weight.add_(2)


def by_other_data(layer):
    layer.weight.data = torch.full_like(layer.weight, 4)


def by_a_parameter(layer):
    layer.weight = nn.Parameter(torch.full_like(layer.weight, 4))


def by_loading(layer):
    layer.load_state_dict({"weight": torch.full_like(layer.weight, 4), "bias": layer.bias})


def by_assigning(layer):
    state = {"weight": torch.full_like(layer.weight, 4), "bias": layer.bias.clone()}
    layer.load_state_dict(state, assign=True)


def by_an_optimiser(layer):
    layer.weight.grad = torch.full_like(layer.weight, -2)
    torch.optim.SGD([layer.weight], lr=1.0).step()


@pytest.mark.parametrize(
    "change",
    [
        by_data,
        by_numpy,
        without_gradients,
        by_other_data,
        by_a_parameter,
        by_loading,
        by_assigning,
        by_an_optimiser,
    ],
)
def test_no_change_of_weights_is_missed(network, change):
    assert run(network) == run(network) == [3.0, 7.0]
    assert len(copies(network)) == 1
    change(network[0])
    assert run(network) == run(network) == [5.0, 13.0]


def test_dtypes_and_layouts_may_change(network):
    run(network)
    network.half()
    assert run(network) == [3.0, 7.0]
    network.double()
    network[0].weight.data = torch.full((len(network[0].weight), 2), 4.0).double()[:, :1]
    assert run(network) == [5.0, 13.0]


def double_the_output(layer, inputs, output):
    return 2 * output


def replace_the_layer(network):
    network[0] = filled(nn.Linear(1, network[0].out_features), 4.0, 2.0)


def append_a_layer(network):
    network.append(filled(nn.Linear(1, 1, dtype=network[0].weight.dtype), 2.0, 0.0))


def hook(network):
    network.register_forward_hook(double_the_output)


def hook_with_a_closure(network):
    factor = 2
    network.register_forward_hook(lambda layer, inputs, output: factor * output)


def other_class(network):
    class Doubled(nn.Sequential):
        def forward(self, rows):
            return 2 * super().forward(rows)

    network.__class__ = Doubled


@pytest.mark.parametrize(
    "change", [replace_the_layer, append_a_layer, hook, hook_with_a_closure, other_class]
)
def test_no_change_of_the_parts_is_missed(network, change):
    run(network)
    change(network)
    assert run(network) == run(network) == [6.0, 14.0]


def test_attributes_of_a_known_layer():
    network = nn.Sequential(filled(nn.Linear(1, 1), -1.0, 0.0), nn.LeakyReLU(0.5))
    assert run(network) == [-0.5, -1.5]
    network[1].negative_slope = 0.25
    assert run(network) == [-0.25, -0.75]
    network[1] = nn.ReLU()
    assert run(network) == [0.0, 0.0]


def set_factor(layer):
    layer.factor = 2.0


def set_in_a_list(layer):
    layer.factors["more"][0] = 2


def set_a_list(layer):
    layer.factors["more"] = [2.0]


def set_a_tensor(layer):
    layer.factor = torch.tensor(2.0)


@pytest.mark.parametrize("change", [set_factor, set_in_a_list, set_a_list, set_a_tensor])
def test_attributes_of_the_users_class(change):
    network = Line()
    assert run(network) == [3.0, 7.0]
    change(network)
    assert run(network) == run(network) == [6.0, 14.0]
    network.offset.data.add_(1)  # not a buffer
    assert run(network) == [7.0, 15.0]
    network.factor = 1  # equal numbers of another type are another attribute
    set_in_a_list(network)
    assert run(network) == [7.0, 15.0]


class Counts(Line):
    def forward(self, rows):
        self.factor += 1
        return super().forward(rows)


class CountsInABuffer(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        filled(self)
        self.register_buffer("calls", torch.ones(()))

    def forward(self, rows):
        self.calls += 1
        return super().forward(rows) * self.calls


class ChangesItsWeights(Line):
    def forward(self, rows):
        self.weight.data.mul_(2)
        self.bias.data = self.bias.data * 2
        return super().forward(rows)


@pytest.mark.parametrize("kind", [Counts, CountsInABuffer, ChangesItsWeights])
def test_networks_that_change_themselves_start_afresh(kind):
    network = kind()
    assert run(network) == run(network) == run(network) == [6.0, 14.0]
    assert network.weight.item() == 2
    assert getattr(network, "factor", 1) == 1


class Adapts(Line):
    """Uses its gradients, as networks that adapt to the rows of a test do."""

    def forward(self, rows):
        with torch.enable_grad():
            super().forward(rows).sum().backward()
        return rows * self.bias.grad


class SharesMemory(Line):
    def forward(self, rows):
        out = super().forward(rows)
        self.weight.data = self.bias.data[None]  # as networks that swap in averages do
        return out


TABLE = torch.ones(1, 1, dtype=torch.float64)


class UsesATable(Line):
    def forward(self, rows):
        self.weight.data = TABLE
        return super().forward(rows)


@pytest.mark.parametrize(
    "kind, expected",
    [(Adapts, [2.0, 6.0]), (SharesMemory, [3.0, 7.0]), (UsesATable, [2.0, 4.0])],
)
def test_gradients_and_memory_of_a_call_are_not_those_of_the_next(kind, expected):
    network = kind()
    assert run(network) == run(network) == run(network) == expected
    assert TABLE.item() == 1


class HidesAPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen, self.hidden = filled(nn.Linear(1, 1)), filled(nn.Linear(1, 1)).double()

    def named_modules(self, *args, **kwargs):
        found = super().named_modules(*args, **kwargs)
        return ((name, part) for name, part in found if part is not self.hidden)

    def forward(self, rows):
        return self.hidden(self.seen(rows))


def test_parts_that_a_network_hides():
    network = HidesAPart()
    assert run(network) == [7.0, 15.0]
    network.hidden.weight.data.mul_(2)
    assert run(network) == [13.0, 29.0]


def test_a_network_without_weights():
    assert run(nn.Identity()) == [1.0, 3.0]
    network = nn.Sequential(nn.ReLU())
    assert run(network) == run(network) == [1.0, 3.0]


class HoldsACircle(Line):
    def __init__(self):
        super().__init__()
        self.circle = {}
        self.circle["itself"] = [self.circle]


class HoldsTensorsAsKeys(Line):
    def __init__(self):
        super().__init__()
        self.held = {torch.ones(2): 1.0}


@pytest.mark.parametrize("kind", [HoldsACircle, HoldsTensorsAsKeys])
def test_unusual_collections(kind):
    network = kind()
    assert run(network) == run(network) == [3.0, 7.0]
    network.held = {torch.zeros(2): 1.0}
    assert run(network) == [3.0, 7.0]


class ReadsADict(Line):
    def __init__(self):
        super().__init__()
        self.held = OrderedDict({1: 0.0})
        self.held.factor = 1.0

    def forward(self, rows):
        is_truth = isinstance(next(iter(self.held)), bool)
        return super().forward(rows) * self.held.factor * (1 + is_truth)


def set_an_equal_key(network):
    del network.held[1]
    network.held[True] = 0.0


def set_an_attribute_of_a_dict(network):
    network.held.factor = 2.0


@pytest.mark.parametrize("change", [set_an_equal_key, set_an_attribute_of_a_dict])
def test_no_change_of_a_dict_is_missed(change):
    network = ReadsADict()
    assert run(network) == run(network) == [3.0, 7.0]
    assert len(copies(network)) == 1
    change(network)
    assert run(network) == [6.0, 14.0]


class Kind(enum.Enum):
    ONE, TWO = 1, 2


@dataclasses.dataclass
class Settings:
    factor: float = 1.0
    more: list = dataclasses.field(default_factory=lambda: [1.0])
    table: torch.Tensor = dataclasses.field(default_factory=lambda: torch.ones(1))
    inner: "Settings | None" = None
    kind: Kind = Kind.ONE


class Configured(Line):
    """Reads its settings as it runs."""

    def __init__(self):
        super().__init__()
        self.config = Settings(inner=Settings())

    def forward(self, rows):
        each = (self.config, self.config.inner)
        factors = [each.factor * each.more[0] * each.table * each.kind.value for each in each]
        return super().forward(rows) * factors[0] * factors[1]


def set_an_attribute(config):
    config.factor = 2.0


def set_in_its_dict(config):
    vars(config)["factor"] = 2.0


def set_in_its_list(config):
    config.more[0] = 2.0


def set_in_its_tensor(config):
    config.table.data.mul_(2)


def set_another_tensor(config):
    config.table = torch.full((1,), 2.0)


def set_an_enum(config):
    config.kind = Kind.TWO


class Twice(Settings):
    """Settings of another class, which double a factor."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        return 2 * value if name == "factor" else value


def set_its_class(config):
    config.__class__ = Twice


@pytest.mark.parametrize("dtype", [torch.float64, None])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        set_an_attribute,
        set_in_its_dict,
        set_in_its_list,
        set_in_its_tensor,
        set_another_tensor,
        set_an_enum,
        set_its_class,
    ],
)
def test_no_change_of_a_config_is_missed(change, inner, dtype):
    network = Configured()
    assert run(network, dtype=dtype) == run(network, dtype=dtype) == [3.0, 7.0]
    (copy,) = copies(network)
    assert run(network, dtype=dtype) == [3.0, 7.0]
    assert copies(network) == [copy]
    change(network.config.inner if inner else network.config)
    assert run(network, dtype=dtype) == run(network, dtype=dtype) == [6.0, 14.0]
    network.config = Settings(inner=Settings())
    assert run(network, dtype=dtype) == [3.0, 7.0]


def scaled(rows, factor=1.0):
    return rows * factor


class Calls(Line):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, rows):
        return self.function(super().forward(rows))


@pytest.mark.parametrize("function", [torch.relu, scaled, lambda rows: rows, nn.functional.relu])
def test_functions_are_kept_and_compared(function):
    network = Calls(function)
    assert run(network) == [3.0, 7.0]
    assert len(copies(network)) == 1
    network.function = functools.partial(scaled, factor=2.0)
    assert run(network) == [6.0, 14.0]
    assert len(copies(network)) == 1
    network.function.keywords["factor"] = 3.0
    assert run(network) == [9.0, 21.0]
    network.function.__setstate__((scaled, (), {"factor": 4.0}, {}))
    assert run(network) == [12.0, 28.0]


class CountsInItsConfig(Configured):
    def forward(self, rows):
        self.config.factor += 1
        return super().forward(rows)


@pytest.mark.parametrize("dtype", [torch.float64, None])
def test_a_config_that_changes_in_a_run_starts_afresh(dtype):
    network = CountsInItsConfig()
    assert run(network, dtype=dtype) == run(network, dtype=dtype) == [6.0, 14.0]
    assert network.config.factor == 1


class Drops(Line):
    def forward(self, rows):
        return nn.functional.dropout(super().forward(rows), 1.0, self.training)


@pytest.mark.parametrize("make, kept", [(Line, [True]), (Drops, [True]), (Counts, [])])
def test_a_copy_in_the_type_of_the_network_shares_its_parameters(make, kept):
    network = make()
    network.train()
    before = run(network, dtype=None)
    assert [copy.network.weight is network.weight for copy in copies(network)] == kept
    for change in (by_data, by_numpy, by_other_data, by_a_parameter, by_loading, by_assigning):
        filled(network)
        change(network)
        assert run(network, dtype=None) == run(make_with(make, 4.0), dtype=None) != before
    network.factor = 3.0
    assert run(network, dtype=None) != run(make_with(make, 4.0), dtype=None)
    assert network.training


def make_with(make, weight):
    return filled(make(), weight)


class Doubles(Line):
    def train(self, mode=True):
        self.weight.data.mul_(1 if mode else 2)
        return super().train(mode)


def doubling():
    line = Line()
    line.eval = functools.partial(doubled, line)
    return line


def doubled(line):
    line.weight.data.mul_(2)
    return nn.Module.eval(line)


@pytest.mark.parametrize("make", [Doubles, doubling])
def test_weights_that_are_written_where_a_mode_is_set_are_not_shared(make):
    network = make()
    assert run(network, dtype=None) == run(network, dtype=None) == [5.0, 13.0]
    assert network.weight.item() == 2.0


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_with_a_largest_norm_keep_their_weights(kind):
    network = nn.Sequential(kind(3, 2, max_norm=1.0)).eval()
    network[0].weight.data.fill_(3.0)
    with torch.no_grad(), converted(network, CPU, None, n_rows=1) as copy:
        assert copy(torch.tensor([[1]])).flatten().norm().item() == pytest.approx(1.0)
    assert network[0].weight.unique().tolist() == [3.0]


def test_buffers_of_a_copy_that_shares_parameters_are_its_own():
    network = CountsInABuffer()
    assert run(network, dtype=None) == run(network, dtype=None) == [6.0, 14.0]
    assert len(copies(network)) == 1
    network.calls.data.fill_(2)
    assert run(network, dtype=None) == [9.0, 21.0]
    assert network.calls.item() == 2


SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
TOKENS = torch.tensor([[1, 2, 3], [3, 1, 0]])


def bert():
    config = transformers.BertConfig(
        vocab_size=5, intermediate_size=8, max_position_embeddings=8, **SIZES
    )
    return transformers.BertForSequenceClassification(config)


def bert_with_lora():
    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    network = get_peft_model(bert(), lora)
    with torch.no_grad():  # peft starts with zeros, with which the adapter does nothing
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return network


def logits(network):
    with torch.no_grad(), converted(network, CPU, None, n_rows=2) as copy:
        answer = copy(input_ids=TOKENS)
    return type(answer), answer[0].tolist()


def of_the_network_itself(network):
    """Without any copy that was made before."""
    return logits(copied(network))


def set_weights(network):
    network.get_submodule("classifier").requires_grad_(True)
    for parameter in network.parameters():
        parameter.data.mul_(1.5)


def part(network, kind):
    return next(part for part in network.modules() if type(part).__name__.endswith(kind))


def set_a_buffer(network):
    part(network, "Embeddings").position_ids.data = torch.tensor([[1, 0, 2, 3, 4, 5, 6, 7]])


def set_the_config(network):
    network.config.return_dict = False


def set_another_config(network):
    config = deepcopy(network.config)
    config.return_dict = False
    part(network, "BertForSequenceClassification").config = config


def set_an_attribute_of_a_part(network):
    part(network, "LayerNorm").eps = 1.0


def set_the_scale_of_an_adapter(network):
    part(network, "Linear").scaling["default"] *= 5


def switch_the_adapter_off(network):
    network.base_model.disable_adapter_layers()


def merge_the_adapter(network):
    network.base_model.merge_adapter()
    part(network, "Linear").lora_B["default"].weight.data.zero_()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [bert, bert_with_lora])
def test_copies_of_transformers_are_kept(make):
    transformer = make().train()
    before = logits(transformer)
    (copy,) = copies(transformer)
    assert logits(transformer) == before == of_the_network_itself(transformer)
    assert copies(transformer) == [copy]
    assert transformer.training
    assert all(map(is_, copy.network.parameters(), transformer.parameters()))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [bert, bert_with_lora])
def test_copies_of_transformers_are_freed_with_them(make):
    network = make()
    logits(network)
    freed = [weakref.ref(network), *(weakref.ref(copy.network) for copy in copies(network))]
    del network
    gc.collect()
    assert [each() for each in freed] == [None, None]


OF_NETWORKS = [
    *(set_weights, set_a_buffer, set_the_config, set_another_config, set_an_attribute_of_a_part),
]
OF_ADAPTERS = [set_the_scale_of_an_adapter, switch_the_adapter_off, merge_the_adapter]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "make, change",
    [
        *product([bert, bert_with_lora], OF_NETWORKS),
        *product([bert_with_lora], OF_ADAPTERS),
    ],
)
def test_no_change_of_a_transformer_is_missed(make, change):
    with seeded(0):
        network = make()
    before = logits(network)
    change(network)
    after = logits(network)
    assert after == logits(network) == of_the_network_itself(network) != before


class Stores(Line):
    def forward(self, rows):
        self.rows = rows
        return super().forward(rows)


def test_stored_rows_are_not_kept():
    network, seen = Stores(), []
    with converted(network, CPU, torch.float64, n_rows=1) as copy:
        seen.append(weakref.ref(copy))
        copy(torch.ones(1, 1, dtype=torch.float64))
    del copy
    gc.collect()
    assert seen[0]() is None
    assert copies(network) == []


class Merges(nn.Linear):
    """Adds a difference to its weights when it is set to eval mode, as adapters of weights do."""

    def __init__(self):
        super().__init__(1, 1)
        filled(self)
        self.difference = nn.Parameter(torch.ones(1, 1))
        self.merged = False

    def train(self, mode=True):
        if not mode and not self.merged:
            self.weight.data += self.difference
            self.merged = True
        return super().train(mode)


class RemembersByIdentity(Line):
    @functools.lru_cache  # noqa: B019
    def squared(self):
        return self.weight**2

    def forward(self, rows):
        return rows * self.squared()


class RemembersInAProperty(Line):
    @property
    @functools.lru_cache  # noqa: B019
    def squared(self):
        return self.weight**2

    def forward(self, rows):
        return rows * self.squared


@functools.lru_cache
def squared(weight):
    return weight**2


class RemembersInAFunction(Line):
    def forward(self, rows):
        return rows * squared(self.weight)


CACHE = {}


def cached_sum(layer):
    return CACHE.setdefault(id(layer), layer.weight.sum().item())


def cached_in_a_helper(layer):
    return next(cached_sum(each) for each in [layer])


class RemembersInADict(Line):
    def forward(self, rows):
        return rows * cached_in_a_helper(self)


class RemembersInItsClass(Line):
    sums = weakref.WeakKeyDictionary()

    def forward(self, rows):
        return rows * self.sums.setdefault(self, self.weight.sum().item())


class RemembersInAClosure(Line):
    def forward(self, rows):
        return rows * remembering(self)


def with_a_memory(function):
    memory = {}

    @functools.wraps(function)
    def wrapped(layer):
        return memory.setdefault(id(layer), function(layer))

    return wrapped


remembering = with_a_memory(lambda layer: layer.weight.sum().item())


class Sum:
    def __init__(self):
        self.of = {}

    def __get__(self, layer, kind=None):
        return self.of.setdefault(id(layer), layer.weight.sum().item())


class RemembersInADescriptor(Line):
    total = Sum()

    def forward(self, rows):
        return rows * self.total


class RemembersInAModule(Line):
    def forward(self, rows):
        return rows * this_module.squared(self.weight)


this_module = sys.modules[__name__]


class HoldsViews(Line):
    def __init__(self):
        super().__init__()
        self.register_buffer("held", torch.ones(2, dtype=torch.int64))
        self.register_buffer("first", self.held[:1])

    def forward(self, rows):
        return super().forward(rows) * (self.held[0] + 10 * self.first[0])


class HoldsAGradient(Line):
    def __init__(self):
        super().__init__()
        self.held = torch.ones(1, requires_grad=True)
        self.held.grad = torch.ones(1)

    def forward(self, rows):
        return super().forward(rows) * self.held.grad


class HasAState(Line):
    """Holds an object that says itself what a copy of it has."""

    def __init__(self):
        super().__init__()
        self.held = Counted()

    def forward(self, rows):
        return super().forward(rows) * self.held.factor()


class Counted:
    def __init__(self):
        self.values = [1.0]

    def factor(self):
        return self.values[0]

    def __getstate__(self):
        return {"values": list(self.values)}


class InSlots:
    __slots__ = ("values",)

    def __init__(self):
        self.values = [1.0]


class HoldsSlots(Line):
    def __init__(self):
        super().__init__()
        self.held = InSlots()

    def forward(self, rows):
        return super().forward(rows) * self.held.values[0]


class CallsAClosure(Line):
    def __init__(self):
        super().__init__()
        self.held = InSlots()
        self.function = lambda rows: rows * self.held.values[0]

    def forward(self, rows):
        return self.function(super().forward(rows))


class Tables:
    def __init__(self):
        self.table = torch.ones(1)

    @functools.lru_cache  # noqa: B019
    def first(self):
        return self.table.item()


class HoldsWhatRemembers(Line):
    def __init__(self):
        super().__init__()
        self.held = Tables()

    def forward(self, rows):
        return super().forward(rows) * self.held.first()


class CallsAFunctionThatRemembers(Line):
    def __init__(self):
        super().__init__()
        self.function = of_the_square

    def forward(self, rows):
        return self.function(self, rows)


def of_the_square(layer, rows):
    return rows * squared(layer.weight)


class HoldsAnything(Line):
    def __init__(self):
        super().__init__()
        self.held = np.ones(1)

    def forward(self, rows):
        return super().forward(rows) * float(self.held[0])


@pytest.mark.parametrize(
    "make",
    [
        Merges,
        RemembersByIdentity,
        RemembersInAProperty,
        RemembersInAFunction,
        RemembersInADict,
        RemembersInItsClass,
        RemembersInAClosure,
        RemembersInADescriptor,
        RemembersInAModule,
        HoldsViews,
        HoldsAGradient,
        CallsAFunctionThatRemembers,
        HoldsWhatRemembers,
        HoldsAnything,
        HoldsSlots,
        HasAState,
        CallsAClosure,
        lambda: nn.utils.parametrizations.weight_norm(filled(nn.Linear(1, 1))),
        lambda: torch.fx.symbolic_trace(filled(nn.Linear(1, 1))),
    ],
)
def test_other_networks_are_copied_at_each_call(make):
    network = make()
    before = run(network)
    assert copies(network) == []
    for parameter in network.parameters():
        parameter.data.mul_(2)
    if isinstance(network, HoldsAnything):
        network.held[0] = 3
    if isinstance(network, HoldsViews):
        network.first.data = torch.tensor([3])
    if isinstance(network, HoldsAGradient):
        network.held.grad.fill_(3.0)
    CACHE.clear()  # of the network itself, which may have been given the place of another one
    if isinstance(network, HoldsSlots | HasAState | CallsAClosure):
        network.held.values[0] = 3.0
    after = run(network)
    assert after != before
    assert after == run(network)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_traced_networks_are_copied_at_each_call():
    network = torch.jit.trace(filled(nn.Linear(1, 1)), torch.ones(1, 1))
    assert run(network) == run(network) == [3.0, 7.0]
    assert copies(network) == []


def test_tied_weights_stay_tied():
    first, second = nn.Linear(1024, 1024), nn.Linear(1024, 1024)
    second.weight = first.weight
    with torch.no_grad():
        first.weight.copy_(torch.eye(1024) * 2)
        first.bias.zero_(), second.bias.fill_(1)
    network = nn.Sequential(filled(nn.Linear(1, 1024), 1.0, 0.0), first, second)
    assert run(network) == [5.0, 13.0]
    first.weight.data.mul_(0.5)
    assert run(network) == [2.0, 4.0]


def test_empty_dicts_of_a_copy_are_its_own():
    network = nn.Sequential(nn.Identity(), nn.Identity())
    network[0].seen = network[1].seen = {}
    copy = copied(network)
    copy[0].seen["rows"] = 1
    copy.register_forward_hook(lambda *_: 7)
    copy[1].weight = nn.Parameter(torch.ones(1))
    assert (copy(torch.zeros(1)), network(torch.zeros(1)).item()) == (7, 0)
    # Parts that share a dict go on sharing it.
    assert (copy[1].seen, network[1].seen) == ({"rows": 1}, {})
    assert not list(network.parameters())


def test_weights_of_one_layer_at_a_time_are_kept():
    network = wide()
    run(network)
    (copy,) = copies(network)
    of_the_largest = 8 * 1024 * 1024
    assert of_the_largest <= copy.n_bytes < 1.1 * of_the_largest


def test_no_copies_are_kept_after_many_rows_nor_of_a_large_network(monkeypatch):
    network = filled(nn.Linear(1, 1))
    run(network, np.ones((300, 1)))
    assert copies(network) == []
    run(network)
    run(network, np.ones((300, 1)))
    assert len(copies(network)) == 1
    large = Line()
    monkeypatch.setattr(kept_copy, "_MOST_BYTES", 20)  # 16 of weight and bias, 4 of the offset
    run(large)
    assert len(copies(large)) == 1
    monkeypatch.setattr(kept_copy, "_MOST_BYTES", 19)
    run(large)
    assert copies(large) == []


def test_an_error_keeps_no_copy():
    network = nn.Sequential(Line())
    run(network)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(network, np.ones((2, 3)))
    assert copies(network) == []
    assert run(network) == [3.0, 7.0]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_copies_are_freed_with_the_network(make):
    network = make()
    network.register_forward_hook(double_the_output)
    run(network)
    (copy,) = [weakref.ref(copy.network) for copy in copies(network)]
    freed = weakref.ref(network)
    del network
    gc.collect()
    assert freed() is None
    assert copy() is None


class Slow(Line):
    """Two calls of it run at once."""

    def forward(self, rows):
        MEETING.wait(timeout=60)
        return super().forward(rows)


MEETING = threading.Barrier(2)


def test_threads_have_copies_of_their_own():
    network, found = Slow(), {}
    threads = [
        threading.Thread(target=lambda value=value: found.update({value: run(network, value * X)}))
        for value in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: [3.0, 7.0], 2: [5.0, 13.0]}
    assert len(copies(network)) == 2


class Given(TorchClassifier):
    def __init__(self, network=None, device="cpu"):
        self.network, self.device = network, device

    def fit(self, X, y, sample_weight=None):
        self._validate_training_data(X, y, sample_weight)
        self.module_ = self.network
        return self


def given(network=None):
    two = network or nn.Linear(1, 2)
    with torch.no_grad():
        two.weight.copy_(torch.tensor([[0.0], [1.0]]))
        two.bias.copy_(torch.tensor([0.0, -2.0]))
    return Given(two).fit(X, [0, 1])


def test_a_prediction_leaves_no_trace_in_the_estimator():
    fitted = given()
    before, size = joblib.hash(fitted), len(pickle.dumps(fitted))
    assert fitted.predict(X).tolist() == [0, 1]
    assert len(copies(fitted.module_)) == 1
    assert joblib.hash(fitted) == before
    assert len(pickle.dumps(fitted)) == size
    assert copies(pickle.loads(pickle.dumps(fitted)).module_) == []


def test_a_refit_predicts_with_the_new_network():
    fitted = given()
    fitted.predict(X)
    fitted.network = nn.Linear(1, 2)
    with torch.no_grad():
        fitted.network.weight.zero_()
        fitted.network.bias.copy_(torch.tensor([0.0, 1.0]))
    assert fitted.fit(X, [0, 1]).predict(X).tolist() == [1, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")
def test_a_forked_process_predicts():
    fitted = given()
    fitted.predict(X)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(fitted.predict, [X]).get(timeout=60).tolist() == [0, 1]
