"""Promises about the networks that an estimator gets, and the networks that it trains."""

import copy
import pickle
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.overrides import TorchFunctionMode

from skfair.base import TorchClassifier
from skfair.base._estimator import TorchEstimator
from skfair.base._networks import floating_dtype
from skfair.estimator_checks._case import (
    Case,
    find_module,
    fit_on,
    has_parameters,
    make_case,
    make_network,
    network_parameters,
)
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    assert_close,
    assert_identical,
    fitted_attributes,
    network_state,
    outputs,
)


def _mark(module: nn.Module) -> nn.Module:
    """Set modes, gradients and hooks that a careless method would lose."""
    module.train()
    next(module.children(), module).eval()
    parameters = list(module.parameters())
    parameters[-1].requires_grad_(False)
    parameters[0].grad = torch.ones_like(parameters[0])
    module.register_forward_hook(lambda *_: None)
    return module


def _module_in(value: Any) -> nn.Module:
    module = find_module(value)
    assert module is not None, f"{value!r} holds no network."
    return module


def _use(fitted: Any, case: Case) -> None:
    outputs(fitted, case.X)
    if hasattr(fitted, "to_module"):
        fitted.to_module()


@promise(network_parameters)
def check_network_is_left_alone(name: str, estimator: Any) -> None:
    """The given network never changes: weights, modes, gradients, hooks and device."""
    case = make_case(estimator)
    for parameter in network_parameters(estimator):
        value = case.estimator.get_params(deep=False)[parameter]
        given = copy.deepcopy(value) if find_module(value) is not None else make_network(parameter)
        module = _mark(_module_in(given))
        before = network_state(module)
        fresh = clone(case.estimator)
        setattr(fresh, parameter, given)  # clone would copy the network
        fitted = fit_on(fresh, case)
        _use(fitted, case)
        assert getattr(fitted, parameter) is given, f"fit of {name} replaces {parameter}."
        assert_identical(before, network_state(module), f"the network in {parameter}")


class _Mixed(nn.Module):
    """A network whose rows depend on the others of their batch, or on chance."""

    def __init__(self, network: nn.Module, by_chance: bool):
        super().__init__()
        self.network = network
        self.by_chance = by_chance

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        output = self.network(X)
        if self.by_chance:
            return nn.functional.dropout(output, 0.5, training=True)
        return output - output.mean(0, keepdim=True)


# These networks are not trained. A trained one may normalise by the batch.
_USED_AS_THEY_ARE = {"estimator", "encoder"}


@promise(lambda estimator: bool(_USED_AS_THEY_ARE & set(network_parameters(estimator))))
def check_batch_independence(name: str, estimator: Any) -> None:
    """A network whose rows depend on their batch or on chance is refused by its parameter."""
    case = make_case(estimator)
    for parameter in sorted(_USED_AS_THEY_ARE & set(network_parameters(estimator))):
        module = find_module(case.estimator.get_params(deep=False)[parameter])
        network = copy.deepcopy(module) if module is not None else make_network(parameter)
        for by_chance in (False, True):
            fresh = clone(case.estimator)
            setattr(fresh, parameter, _Mixed(network, by_chance))
            said = None
            try:
                fit_on(fresh, case)
            except ValueError as error:
                said = str(error)
            kind = "draws at random" if by_chance else "mixes the rows of a batch"
            assert said is not None, f"{name} accepts a network in {parameter} that {kind}."
            assert parameter in said, f"The error must name {parameter}, which {kind}: {said}"


class _Given(TorchClassifier):
    """A classifier of skfair that holds a network with one output per class."""

    def __init__(self, device="cpu"):
        self.device = device


def _containers(case: Case, module: nn.Module) -> dict[str, Any]:
    """Return the network alone and in each container."""
    net = skorch.NeuralNetClassifier(lambda: copy.deepcopy(module), criterion=nn.CrossEntropyLoss)
    net.set_params(train_split=None, verbose=0).initialize()
    net.classes_inferred_ = np.unique(case.y)
    classifier = _Given()
    classifier.module_, classifier.classes_ = copy.deepcopy(module), np.unique(case.y)
    classifier.n_features_in_ = case.X.shape[1]
    held = {"a module": copy.deepcopy(module), "a skorch net": net, "a classifier": classifier}
    return {**held, **{f"{what}, frozen": FrozenEstimator(v) for what, v in held.items()}}


def _takes_a_network(estimator: Any) -> bool:
    given = estimator.get_params(deep=False).get("estimator")
    return find_module(given) is not None


@promise(_takes_a_network)
def check_network_containers(name: str, estimator: Any) -> None:
    """A module, skorch net or skfair classifier, frozen or not, gives the same results."""
    case = make_case(estimator)
    module = _two_outputs(case)
    expected = None
    for what, given in _containers(case, module).items():
        inner = _module_in(given.estimator if isinstance(given, FrozenEstimator) else given)
        before = network_state(inner)
        fresh = clone(case.estimator)
        fresh.estimator = given
        fitted = fit_on(fresh, case)
        _use(fitted, case)
        assert_identical(before, network_state(inner), f"the network of {what}")
        found = outputs(fitted, case.X)
        expected = expected or found
        assert_identical(expected, found, f"outputs of {name} with {what}")


def _modules_behind(network: nn.Module) -> set[str]:
    """Return the names of the Python modules that define the classes of a network."""
    return {type(part).__module__ for part in network.modules()}


def _two_outputs(case: Case) -> nn.Module:
    """Return the network of the estimator with one output per class, for the containers."""
    module = copy.deepcopy(_module_in(case.estimator.estimator))
    with torch.no_grad():
        rows = torch.as_tensor(case.X[:2])
    rows = rows.to(floating_dtype(module) or rows.dtype)
    width = module.eval()(rows).reshape(2, -1).shape[1]
    return module if width == 2 else nn.Sequential(module, _Pair())


class _Pair(nn.Module):
    """Turn one logit into one logit per class."""

    def forward(self, logit):
        logit = logit.reshape(-1, 1)
        return torch.cat([torch.zeros_like(logit), logit], 1)


def _modules_of(fitted: Any) -> dict[str, nn.Module]:
    return {k: v for k, v in fitted_attributes(fitted).items() if isinstance(v, nn.Module)}


def _fits_a_network(estimator: Any) -> bool:
    return isinstance(estimator, TorchEstimator)


@promise(_fits_a_network)
def check_predicting_changes_no_network(name: str, estimator: Any) -> None:
    """Predicting leaves the trained networks unchanged, even a network in training mode."""
    case = make_case(estimator)
    fitted = case.fit()
    modules = _modules_of(fitted)
    assert modules, f"{name} has no fitted network."
    for module in modules.values():
        module.train()
    before = {key: network_state(module) for key, module in modules.items()}
    _use(fitted, case)
    for key, module in modules.items():
        assert getattr(fitted, key) is module, f"Predicting with {name} replaces {key}."
        assert_identical(before[key], network_state(module), key)


@promise(_fits_a_network)
def check_networks_travel_on_the_cpu(name: str, estimator: Any) -> None:
    """Pickles hold all networks on the CPU, and the networks in use stay on their device."""
    case = make_case(estimator)
    fitted = case.fit()
    modules = _modules_of(fitted)
    assert modules, f"{name} has no fitted network."
    given = fitted.get_params(deep=False)
    modules |= {key: value for key, value in given.items() if isinstance(value, nn.Module)}
    for key, module in modules.items():
        setattr(fitted, key, _elsewhere(module))
    with _MovesToTheCpu() as moves:
        pickled = copy.deepcopy(fitted.__getstate__())  # as pickling and unpickling would do
    for key in modules:
        module = getattr(fitted, key)
        tensors = [*module.parameters(), *module.buffers()]
        moved = pickled[key].where == "cpu" or all(t.data_ptr() in moves.seen for t in tensors)
        assert moved, f"A pickle of {name} holds {key} on its device."
        assert module.where == "accelerator", f"Pickling {name} moves {key}."
    if hasattr(fitted, "to_module"):
        assert getattr(fitted.to_module(), "where", "cpu") == "cpu"
        assert fitted.module_.where == "accelerator", f"{name}.to_module moves the network."


class _MovesToTheCpu(TorchFunctionMode):
    """Records the addresses of tensors that are moved to the CPU, directly or as a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        # Key: address of the copy. Value: address of the original, and the copy, to keep it alive.
        self._copied: dict[int, tuple[int, Any]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        if func in (torch.Tensor.cpu, torch.Tensor.clone, torch.Tensor.__deepcopy__):
            address = args[0].data_ptr()
            address = self._copied.get(address, (address,))[0]
            if func is torch.Tensor.cpu:
                self.seen.add(address)
            else:
                self._copied[made.data_ptr()] = address, made
        return made


def _elsewhere(module: nn.Module) -> nn.Module:
    """Return a copy of a module that pretends to be on an accelerator and records its moves."""
    kind: Any = type(module)

    class Elsewhere(kind):
        where = "accelerator"

        def to(self, *args, **kwargs):
            device = torch._C._nn._parse_to(*args, **kwargs)[0]
            if device is not None:
                self.where = device.type
            return super().to(*args, **kwargs)

        def cpu(self):
            self.where = "cpu"
            return super().cpu()

    moved = copy.deepcopy(module)
    moved.__class__ = Elsewhere
    return moved


def _accelerators() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [kind for kind, available in there.items() if available]


@promise(lambda estimator: has_parameters(estimator, "device"))
def check_devices(name: str, estimator: Any) -> None:
    """A model fitted on one device predicts on another, and ``device`` is a name or an object."""
    case = make_case(estimator).with_parameters(device="cpu")
    fitted = case.fit()
    expected = outputs(fitted, case.X)
    given = case.with_parameters(device=torch.device("cpu")).fit()
    assert_identical(expected, outputs(given, case.X), f"outputs of {name} on torch.device('cpu')")
    for device in _accelerators():
        there = case.with_parameters(device=device).fit()
        back = pickle.loads(pickle.dumps(there)).set_params(device="cpu")
        _assert_near(outputs(there, case.X), outputs(back, case.X), f"{name} from {device} to CPU")
        moved = pickle.loads(pickle.dumps(fitted)).set_params(device=device)
        _assert_near(outputs(moved, case.X), expected, f"{name} from CPU to {device}")


def _assert_near(one: dict, two: dict, what: str) -> None:
    for method in one:
        for a, b in zip(np.atleast_1d(one[method]), np.atleast_1d(two[method]), strict=True):
            if np.asarray(a).dtype.kind == "f":
                assert_close(a, b, f"{what}: {method}", single=True)


@promise(lambda estimator: hasattr(estimator, "to_module"))
def check_threshold_is_in_the_module(name: str, estimator: Any) -> None:
    """``to_module`` returns a network of torch's own parts that decides as ``predict`` does."""
    case = make_case(estimator)
    fitted = case.fit()
    module = fitted.to_module()
    assert not any(part.training for part in module.modules()), "The module is in training mode."
    assert all(value.device.type == "cpu" for value in module.state_dict().values())
    given = find_module(case.estimator.get_params(deep=False).get("estimator"))
    kinds = _modules_behind(module) - (_modules_behind(given) if given is not None else set())
    ours = {kind for kind in kinds if kind.split(".")[0] == __name__.split(".")[0]}
    assert not ours, f"The module of {name} must not need skfair, but it uses {ours}."
    with torch.no_grad():
        rows = torch.as_tensor(case.X)
        raw = module(rows.to(floating_dtype(module) or rows.dtype)).numpy()
    raw = raw.reshape(len(case.X), -1)
    decision, proba = fitted.decision_function(case.X), fitted.predict_proba(case.X)
    if raw.shape[1] > 1:
        chosen = raw.argmax(1)
    else:
        is_probability = raw.min() >= 0 and raw.max() <= 1
        chosen = (raw[:, 0] > (0.5 if is_probability else 0)).astype(int)
    low, high = np.sort(proba, 1)[:, -2:].T
    sure = high - low > 1e-4  # the module computes in the type of its weights
    assert sure.any(), f"{name} predicts equal probabilities for all rows, so nothing is checked."
    predicted = np.searchsorted(fitted.classes_, fitted.predict(case.X))
    for what, codes in {
        "to_module": chosen,
        "decision_function": decision.argmax(1) if decision.ndim > 1 else decision > 0,
        "predict_proba": proba.argmax(1),
    }.items():
        np.testing.assert_array_equal(
            codes[sure], predicted[sure], err_msg=f"{what} of {name} and predict disagree."
        )
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.zero_()
    # The exported module is a copy: setting its weights to zero does not change the estimator.
    assert_identical(decision, fitted.decision_function(case.X), "decisions after to_module")
