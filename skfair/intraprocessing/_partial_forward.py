"""Intra-processing, layerwise: rerun only the part of a network that depends on changes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from skfair.base._trace import trace
from skfair.intraprocessing._inputs import Batch, Inputs

# Most bytes of kept activations, once for all changes and once for the current change. The rest
# is computed in each run.
_KEPT_BYTES = 1 << 29
_PROBE_ROWS = 2  # all activations of these are held at once


class PartialForward:
    """Run a network many times on the same rows while few of its parameters change.

    Values that do not depend on these parameters are computed once and kept. A network that cannot
    be traced runs as a whole each time, with the same outputs.

    Parameters
    ----------
    network : torch.nn.Module
        Maps a batch to one tensor, row by row; in eval mode.
    X : tensor of shape (n_samples, ...), or Inputs
        The rows; at least one.
    names : sequence of str
        All parameters that may change, in place; all others must stay constant.
    batch_size : int, default=8192
        Rows in a batch.
    """

    @torch.no_grad()
    def __init__(
        self,
        network: nn.Module,
        X: torch.Tensor | Inputs,
        names: Sequence[str],
        *,
        batch_size: int = 8192,
    ):
        self._network = network
        # Batches of nearly equal sizes: a batch of one row would have another memory layout.
        ends = [len(part) for part in torch.empty(len(X)).tensor_split(-(-len(X) // batch_size))]
        ends = np.cumsum(ends).tolist()
        self._X = X
        self._slices = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        self._steps = None
        # Kept values refer to the batches.
        if isinstance(X, torch.Tensor) or X.held:
            self._steps = _follow(network, X[:_PROBE_ROWS])
        if self._steps is not None:
            # Run here what does not depend on any change, if the values fit in memory.
            self._rest = self._steps.all()
            self._start: list[list[Any]] = [[X[part]] for part in self._slices]
            once, rest = self._steps.split(self._rest, self._parameters(names))
            start = [values for values in self._run(once) if values is not None]
            if len(start) == len(self._slices):
                self._start, self._rest = start, rest

    @torch.no_grad()
    def changing(self, names: Sequence[str]) -> Callable[[], torch.Tensor]:
        """Prepare runs in which some of the parameters change and the others stay constant.

        Parameters
        ----------
        names : sequence of str
            Names of the parameters.

        Returns
        -------
        callable
            Without arguments; returns the outputs for all rows, a tensor of shape
            (n_samples, ...), by the parameters at the time of the call.
        """
        kept: list[list[Any] | None] = [None] * len(self._slices)
        again: Callable = self._network
        if self._steps is not None:
            once, rest = self._steps.split(self._rest, self._parameters(names))
            kept, again = self._run(once), self._steps.network(rest)

        @torch.no_grad()
        def run() -> torch.Tensor:
            return torch.cat(
                [
                    # A copy, since a network may change its input in place.
                    self._network(_cloned(self._X[part])) if values is None else again(*values)
                    for part, values in zip(self._slices, kept, strict=True)
                ]
            )

        return run

    def _parameters(self, names: Sequence[str]) -> list[nn.Parameter]:
        return [self._network.get_parameter(name) for name in names]

    def _run(self, once: nn.Module) -> list[list[Any] | None]:
        """Run the steps that do not depend on the change; None for batches beyond the memory."""
        room = _KEPT_BYTES
        results: list[list[Any] | None] = [None] * len(self._slices)
        for i, (part, start) in enumerate(zip(self._slices, self._start, strict=True)):
            batch: Any = self._X[part]
            values = [_without_the_rest(value, batch) for value in once(*start)]
            room -= _n_bytes(values, batch)
            if room < 0:
                break
            results[i] = values
        return results


def _cloned(batch: Any) -> Any:
    return map_aggregate(batch, torch.clone)  # type: ignore[arg-type]


@torch.no_grad()
def _follow(network: nn.Module, rows: Batch) -> "_Steps | None":
    """Trace a network; None if it cannot be traced or writes into its input or its weights."""
    if not isinstance(rows, torch.Tensor):
        return None
    try:
        steps = _Steps(trace(network))
        output = steps.run(rows.clone())
        steps.env.clear()
        # A trace follows one branch only; the rows may take another one.
        same = torch.allclose(output, network(rows.clone()), equal_nan=True)
    except Exception:  # of any kind: the network is the user's
        return None
    return steps if same and not steps.writes_outside() else None


class _Part(NamedTuple):
    """Some steps of a network, in order; `outputs` is None if the last step is one of them."""

    inputs: list[fx.Node]
    nodes: list[fx.Node]
    outputs: list[fx.Node] | None


class _Steps(fx.Interpreter):
    """The steps of a traced network; a run records the memory that each step reads and writes."""

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced, garbage_collect_values=False)
        self.lies_in: dict[fx.Node, set[int]] = {}
        self.written_by: dict[int, list[fx.Node]] = {}

    def run_node(self, n: fx.Node) -> Any:
        read = {id(t): t for node in n.all_input_nodes for t in _tensors(self.env[node])}
        versions = {key: t._version for key, t in read.items()}
        value = super().run_node(n)
        for key, tensor in read.items():
            if tensor._version != versions[key]:
                self.written_by.setdefault(_memory(tensor), []).append(n)
        self.lies_in[n] = {_memory(tensor) for tensor in _tensors(value)}
        return value

    def writes_outside(self) -> bool:
        """Whether the network writes into its input, its parameters or its buffers."""
        outside = (n for n in self.graph.nodes if n.op in ("placeholder", "get_attr"))
        return any(self.lies_in[node] & self.written_by.keys() for node in outside)

    def all(self) -> "_Part":
        """The whole network.

        Returns
        -------
        _Part
        """
        nodes = list(self.graph.nodes)
        inputs = [n for n in nodes if n.op == "placeholder"]
        return _Part(inputs, [n for n in nodes if n.op != "placeholder"], None)

    def split(self, part: "_Part", changed: list[nn.Parameter]) -> tuple[nn.Module, "_Part"]:
        """Split off the steps that do not depend on some parameters.

        Returns
        -------
        once : GraphModule
            Takes the inputs of `part` and returns the inputs of `again`.
        again : _Part
            The steps that depend on the parameters.
        """
        dirty = self._dirty(changed)
        kept = [
            n
            for n in self.graph.nodes
            if n not in dirty and n.op != "get_attr" and any(user in dirty for user in n.users)
        ]
        once = _Part(part.inputs, [n for n in part.nodes if n not in dirty], kept)
        rest = [n for n in part.nodes if n in dirty or n.op == "get_attr"]
        return self.network(once), _Part(kept, rest, None)

    def network(self, part: "_Part") -> fx.GraphModule:
        """Make a network from a part.

        Returns
        -------
        GraphModule
        """
        graph = fx.Graph()
        copies = {node: graph.placeholder(node.name) for node in part.inputs}
        for node in part.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        if part.outputs is not None:
            graph.output(tuple(copies[node] for node in part.outputs))
        return fx.GraphModule(self.module, graph)

    def _dirty(self, changed: list[nn.Parameter]) -> set[fx.Node]:
        """Find the steps to rerun after a change of these parameters; the last step is one."""
        nodes = list(self.graph.nodes)
        position = {node: i for i, node in enumerate(nodes)}
        dirty = {node for node in nodes if node.op == "output" or self._uses(node, changed)}
        count = 0
        while len(dirty) > count:
            count = len(dirty)
            dirty.update(n for n in nodes if any(i in dirty for i in n.all_input_nodes))
            for memory, writers in self.written_by.items():
                # Memory that a dirty step writes, or reads before another step writes it, has
                # other values in the next run: the steps that make it have to rerun, too.
                readers = (
                    position[node]
                    for node in dirty
                    if any(memory in self.lies_in[i] for i in node.all_input_nodes)
                )
                first = min(readers, default=len(nodes))
                if any(w in dirty or position[w] > first for w in writers):
                    dirty.update(n for n in nodes if memory in self.lies_in[n])
        return dirty

    def _uses(self, node: fx.Node, changed: list[nn.Parameter]) -> bool:
        # By identity: a parameter may be part of several modules.
        if node.op == "call_module":
            used = self.submodules[node.target].parameters()
        elif node.op == "get_attr":
            used = [self.fetch_attr(str(node.target))]
        else:
            return False
        return any(u is c for u in used for c in changed)


def _tensors(value: Any) -> list[torch.Tensor]:
    found = []
    map_aggregate(value, lambda v: found.append(v) if isinstance(v, torch.Tensor) else None)
    return found


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _without_the_rest(value: Any, batch: torch.Tensor) -> Any:
    """Copy a small view of a large tensor, so that the large tensor can be freed."""

    def copy(v: Any) -> Any:
        if not isinstance(v, torch.Tensor) or _memory(v) == _memory(batch):
            return v
        return v.clone() if v.nbytes < v.untyped_storage().nbytes() else v

    return map_aggregate(value, copy)


def _n_bytes(values: list[Any], batch: torch.Tensor) -> int:
    """Count the bytes of values without the batch itself."""
    storages = {_memory(t): t.untyped_storage().nbytes() for v in values for t in _tensors(v)}
    storages.pop(_memory(batch), None)
    return sum(storages.values())
