"""Intra-processing in closed form: one network of network, group head and correction."""

import copy
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import torch
from torch import fx, nn

from skfair.base._trace import of_torch_alone, trace
from skfair.intraprocessing._inputs import Batch, call, read_answer
from skfair.intraprocessing._layers import read_layers
from skfair.intraprocessing._network import Output, as_logits, as_outputs
from skfair.intraprocessing._output_head import find_linear_output, put_head
from skfair.intraprocessing._posteriors import Linear

_TINY = 1e-30  # its logarithm exists in float32


class Correction(NamedTuple):
    """The arrays that correct the outputs of the network by the outputs of the head.

    Attributes
    ----------
    labels : Linear
        Maps centred logits to logits of the label's posterior.
    of_logits : ndarray of shape (n_columns, n_cells)
        Weights of the head for the network's logits.
    weights : ndarray of shape (n_cells, n_classes)
        Cost of each class by posterior of each cell.
    values : ndarray of shape (n_classes,)
        Value of a right prediction of each class.
    """

    labels: Linear
    of_logits: np.ndarray
    weights: np.ndarray
    values: np.ndarray

    @classmethod
    def blank(cls, n_columns: int, n_cells: int, n_classes: int) -> "Correction":
        """Make a correction of zeros with these shapes, to load weights into."""
        return cls(
            Linear(np.zeros((n_columns, n_classes)), np.zeros(n_classes)),
            np.zeros((n_columns, n_cells)),
            np.zeros((n_cells, n_classes)),
            np.ones(n_classes),
        )


def class_logits(raw: torch.Tensor, output: Output) -> torch.Tensor:
    """Convert outputs of a network to logits; the logits of several classes have mean zero.

    Parameters
    ----------
    raw : tensor of shape (n_samples, n_columns)
    output : Output
        Their kind.

    Returns
    -------
    tensor of shape (n_samples, n_columns)
    """
    logits = as_logits(raw, output)
    return logits if output.n_columns == 1 else logits - logits.mean(1, keepdim=True)


class _Corrected(nn.Module):
    """Correct outputs of the network by outputs of the head; the result is of the same kind.

    The score of a class is ``log(value * q - cost)``. The costs of a row are shifted so that the
    highest is zero. All scores are then defined, the best class has the largest score, and without
    costs the scores are those of the calibrated network.
    """

    def __init__(self, output: Output, flat: bool, correction: Correction, dtype: torch.dtype):
        super().__init__()
        self.output, self.flat = output, flat
        arrays = {
            "scale": correction.labels.weight,
            "shift": correction.labels.bias,
            "of_logits": correction.of_logits,
            "weights": correction.weights,
            "log_values": np.log(np.maximum(correction.values, _TINY)),
        }
        single = torch.float64 if dtype == torch.float64 else torch.float32
        for name, array in arrays.items():
            # In one memory layout: the same weights then give the same bits after loading.
            array = np.ascontiguousarray(array)
            self.register_buffer(name, torch.tensor(array, dtype=single))
        self.register_buffer("like", torch.zeros(1, dtype=dtype))  # unused; saved models have it

    def forward(self, wide):
        n, wide = self.output.n_columns, wide.type_as(self.scale)
        logits = class_logits(wide[:, :n], self.output)
        posterior = torch.softmax(wide[:, n:] + logits @ self.of_logits, dim=1)
        cost = posterior @ self.weights
        spare = cost.amax(1, keepdim=True) - cost
        log_q = torch.log_softmax(logits @ self.scale + self.shift, dim=1)
        score = torch.logaddexp(log_q + self.log_values, spare.clamp_min(_TINY).log())
        if n == 1:
            score = score[:, 1:] - score[:, :1]
        score = as_outputs(score, self.output)
        # Not in half precision, in which near classes would have equal scores.
        return score.reshape(-1) if self.flat else score


# Inputs of the hooked layer in the current call. A context variable keeps threads apart.
_SEEN: ContextVar[list[torch.Tensor]] = ContextVar("skfair_seen")


def _note_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Record the input of a layer. The hook stays in the network, and is pickled with it."""
    seen = _SEEN.get(None)
    if seen is not None:
        seen.append(inputs[0])


class _Beside(nn.Module):
    """A network and a head on the input of one of its layers, or of the network, side by side.

    Parameters
    ----------
    network : torch.nn.Module
        Its layer gets a hook.
    layer : str or None
        Name of the layer; None for the input of the network.
    head : torch.nn.Linear
    n_columns : int
        Number of columns of the network's outputs.
    """

    def __init__(self, network: nn.Module, layer: str | None, head: nn.Linear, n_columns: int):
        super().__init__()
        self.network, self.head = network, head
        self.layer, self.n_columns = layer, n_columns
        if layer is not None:
            network.get_submodule(layer).register_forward_pre_hook(_note_input)

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        token = _SEEN.set(seen)
        try:
            raw = read_answer(self.network(*args, **kwargs))
        finally:
            _SEEN.reset(token)
        rows = args[0].flatten(1) if self.layer is None else seen[0]
        scores = self.head(rows.type_as(self.head.weight))
        return torch.cat([raw.reshape(-1, self.n_columns), scores], dim=1)

    def written_out(self) -> nn.Module:
        """Write the module as a graph, without hooks and without skfair."""
        if self.layer is None:
            return _beside_input(self.network, self.head, self.n_columns)
        hooks = self.network.get_submodule(self.layer)._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if hook is _note_input]:
            del hooks[key]
        return _beside_layer(self.network, self.layer, self.head, self.n_columns)


def _beside_input(network: nn.Module, head: nn.Linear, n_columns: int) -> nn.Module:
    """A network and a head on its input, side by side; a tracer would be pickled, too."""
    graph = fx.Graph()
    X = graph.placeholder("X")
    raw = graph.call_method("reshape", (graph.call_module("network", (X,)), -1, n_columns))
    rows = graph.call_method("flatten", (X, 1))
    rows = graph.call_method("type_as", (rows, graph.get_attr("head.weight")))
    scores = graph.call_module("head", (rows,))
    graph.output(graph.call_function(torch.cat, ([raw, scores],), {"dim": 1}))
    parts = {"network": of_torch_alone(network), "head": head}
    return fx.GraphModule(nn.ModuleDict(parts), graph)


def _beside_layer(network: nn.Module, layer: str, head: nn.Linear, n_columns: int) -> nn.Module:
    """A network and a head on the input of a layer, side by side, by a trace of the network."""
    traced = trace(network)
    name = "group_head"
    while hasattr(traced, name):
        name += "_"
    traced.add_submodule(name, head)
    graph = traced.graph
    found = [n for n in graph.nodes if n.op == "call_module" and n.target == layer]
    (end,) = (n for n in graph.nodes if n.op == "output")
    (into,), raw = found, end.args[0]
    with graph.inserting_before(end):
        weight = graph.get_attr(f"{name}.weight")
        hidden = graph.call_method("type_as", (into.args[0], weight))
        scores = graph.call_module(name, (hidden,))
        columns = graph.call_method("reshape", (raw, -1, n_columns))
        end.args = (graph.call_function(torch.cat, ([columns, scores],), {"dim": 1}),)
    traced.recompile()
    return traced


class Parts(NamedTuple):
    """The structure of a corrected network.

    Attributes
    ----------
    output : Output
        Kind of the network's outputs.
    flat : bool
        Whether the network returns an array of one dimension.
    layer : str or None
        Name of the layer whose input is the input of the head; None for the input of the network.
    within : bool
        Whether the head is in the place of the layer, together with it, and not beside the network.
    """

    output: Output
    flat: bool
    layer: str | None
    within: bool = False

    def build(self, network: nn.Module, head: Linear, correction: Correction) -> nn.Sequential:
        """Build a corrected network.

        Parameters
        ----------
        network : torch.nn.Module
            The result contains it, not a copy.
        head : Linear
        correction : Correction

        Returns
        -------
        torch.nn.Sequential
        """
        tensors = [p for p in network.parameters() if p.is_floating_point()]
        dtype = tensors[0].dtype if tensors else torch.float32
        device = tensors[0].device if tensors else None
        single = torch.float64 if dtype == torch.float64 else torch.float32
        weight = torch.tensor(np.ascontiguousarray(head.weight.T), dtype=single, device=device)
        n_cells, n_features = weight.shape
        # On the meta device torch draws no weights.
        linear = nn.Linear(n_features, n_cells, device="meta")
        bias = torch.tensor(head.bias, dtype=single, device=device)
        linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        wide: nn.Module
        if self.within and self.layer:
            put_head(network, self.layer, linear)
            wide = network
        else:
            wide = _Beside(network, self.layer, linear, self.output.n_columns)
        corrected = _Corrected(self.output, self.flat, correction, dtype)
        return nn.Sequential(wide, corrected.to(device)).eval()

    def build_like(
        self, network: nn.Module, n_features: int, weights: Mapping[str, torch.Tensor]
    ) -> nn.Sequential:
        """Build a corrected network into which saved weights fit.

        Returns
        -------
        torch.nn.Sequential

        Raises
        ------
        ValueError
            The weights have other shapes. This is checked before memory is allocated for them.
        """
        n_cells, n_classes = weights["1.weights"].shape
        n_columns = self.output.n_columns
        there = {tuple(tensor.shape) for tensor in weights.values()}
        wanted = {(n_columns, n_classes), (n_columns, n_cells), (n_cells, n_features)}
        if not wanted <= there:
            raise ValueError(f"no weights of the shapes {sorted(wanted - there)}")
        blank = Linear(np.zeros((n_features, n_cells)), np.zeros(n_cells))
        return self.build(network, blank, Correction.blank(n_columns, n_cells, n_classes))


def find_feature_layer(network: nn.Module, X: Batch) -> tuple[str, bool] | None:
    """Find the last linear layer of a network, and where a head on its input can be.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    X : tensor, dict of tensors or tuple of tensors
        A few rows to run it on.

    Returns
    -------
    layer : str
        Name of the last linear layer that a run calls once, with one row of features for each
        sample, in a network that can be traced. In a network that cannot be: name of the linear
        layer that computes the output.
    within : bool
        Whether the network cannot be traced, so that the head is in the place of the layer.

    None is returned if there is no such layer.
    """
    name = None
    if isinstance(X, torch.Tensor):  # a trace has one input
        name = _find_traced_layer(network, X)
    if name is not None:
        return name, False
    name = find_linear_output(network, X)
    return None if name is None else (name, True)


def _find_traced_layer(network: nn.Module, X: Batch) -> str | None:
    names = {part: name for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    with torch.no_grad(), read_layers(names) as calls:
        raw = call(network, X)
    n_calls = Counter(layer for layer, _ in calls)
    found = [
        (names[layer], x.shape[1])
        for layer, x in calls
        if x.ndim == 2 and len(x) == len(raw) and n_calls[layer] == 1
    ]
    if not found:
        return None
    name, n_features = found[-1]
    blank = Linear(np.zeros((n_features, 2)), np.zeros(2))
    n_columns = raw.shape[1] if raw.ndim == 2 else 1
    parts = Parts(Output("logits", n_columns), raw.ndim == 1, name)
    correction = Correction.blank(n_columns, 2, max(2, n_columns))
    try:
        with torch.no_grad():
            wide = of_torch_alone(parts.build(copy.deepcopy(network), blank, correction)[0])(X)
    except Exception:  # of any kind: the network is the user's
        return None
    same = torch.allclose(wide[:, :n_columns], raw.reshape(-1, n_columns).to(wide.dtype))
    return name if same and not wide[:, n_columns:].any() else None
