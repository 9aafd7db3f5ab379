"""Traces networks as graphs, without disturbing networks that other threads run."""

from typing import Any

import torch
from torch import fx, nn


def trace(network: nn.Module) -> fx.GraphModule:
    """Trace a network as a graph, like ``torch.fx.symbolic_trace``.

    ``torch.fx.symbolic_trace`` replaces ``torch.nn.Module.__call__`` for the whole process while it
    runs, so that networks in other threads fail. This function instead runs stand-ins of the
    network's parts, which record the operations.

    Parameters
    ----------
    network : torch.nn.Module
        A network of one tensor. This function neither changes nor runs it; the graph shares its
        weights.

    Returns
    -------
    torch.fx.GraphModule
        The graph calls layers of torch as modules; it lists the operations of all other parts.

    Raises
    ------
    Exception
        Of any type, if the network cannot be traced: its operations depend on values, or it
        creates tensors.

    Examples
    --------
    >>> graph = trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    >>> graph(torch.zeros(1, 3)).shape
    torch.Size([1, 2])
    """
    recorder = _Recorder(network)
    X = recorder.create_proxy("placeholder", "X", (), {})
    output = recorder.stand_in(network, "")(X)
    recorder.create_node("output", "output", (recorder.create_arg(output),), {})
    for node in recorder.graph.nodes:
        if node.op == "get_attr" and not node.users:
            recorder.graph.erase_node(node)
    return fx.GraphModule(network, recorder.graph)


def of_torch_alone(network: nn.Module) -> nn.Module:
    """Replace the parts of a network with classes of skfair by graphs.

    Parameters
    ----------
    network : torch.nn.Module
        A part of skfair, or a network that contains some. This function changes it in place.

    Returns
    -------
    torch.nn.Module
        A pickle of it loads without skfair, if a pickle of the user's own network does.
    """
    write_out = getattr(network, "written_out", None)
    if write_out is not None:
        return write_out()
    if type(network).__module__.startswith("skfair."):
        return trace(network)
    for name, part in list(network.named_children()):
        made = of_torch_alone(part)
        if made is not part:
            setattr(network, name, made)
    return network


class _Recorder(fx.Tracer):
    """Records calls of stand-ins, and functions of their outputs, as nodes of a graph."""

    def __init__(self, root: nn.Module):
        super().__init__()
        self.root = root
        self.graph = fx.Graph()
        self.tensor_attrs = {}
        for prefix, module in root.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, torch.Tensor):
                    self.tensor_attrs[value] = _path(prefix, name)
        self._known = {id(t) for t in (*root.parameters(), *root.buffers(), *self.tensor_attrs)}
        self._stand_ins: dict[int, nn.Module] = {}

    def create_arg(self, a: Any) -> Any:
        # A tensor that the network creates may depend on weights that change later.
        if isinstance(a, torch.Tensor) and id(a) not in self._known:
            raise NameError("The network makes a tensor of its own.")
        return super().create_arg(a)

    def stand_in(self, module: nn.Module, path: str) -> nn.Module:
        """Make a module of the same class whose tensors, and those of its layers, are proxies."""
        if id(module) in self._stand_ins:
            return self._stand_ins[id(module)]
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("The network has compiled parts.")
        kind: type[nn.Module] = type(module)
        if path and self.is_leaf_module(module, path):
            kind = type(kind.__name__, (kind,), {"__call__": self._call_of(path)})
        elif module._forward_hooks or module._forward_pre_hooks:
            raise TypeError("The network has hooks, which would get proxies.")
        new = self._stand_ins[id(module)] = kind.__new__(kind)
        parts = {
            "_parameters": {n: self._attribute(t, path, n) for n, t in module._parameters.items()},
            "_buffers": {n: self._attribute(t, path, n) for n, t in module._buffers.items()},
            "_modules": {
                name: part and self.stand_in(part, _path(path, name))
                for name, part in module._modules.items()
            },
        }
        new.__dict__.update(vars(module) | parts)
        return new

    def _attribute(self, tensor: torch.Tensor | None, path: str, name: str) -> fx.Proxy | None:
        if tensor is None:
            return None
        return self.create_proxy("get_attr", _path(path, name), (), {})

    def _call_of(self, path: str) -> Any:
        def call(_: nn.Module, *args: Any, **kwargs: Any) -> fx.Proxy:
            return self.create_proxy("call_module", path, args, kwargs)

        return call


def _path(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
