"""Seeds: torch code draws from its own generators, independent of other threads.

torch has one default generator for all threads. It is not enough to seed this generator and to
restore it afterwards: if another thread draws in the meantime, both threads get other numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class _Generators:
    """One generator for each device, created at its first use."""

    def __init__(self, seed: int):
        self.seed = seed
        self._made: dict[torch.device, torch.Generator | None] = {}

    def on(self, device: torch.device) -> torch.Generator | None:
        if device.index is None and device.type != "cpu":
            device = torch.empty(0, device=device).device  # adds the index of the current card
        if device not in self._made:
            made = None
            with suppress(NotImplementedError):  # some kinds of devices have no generators
                made = torch.Generator(device).manual_seed(self.seed)
            self._made[device] = made
        return self._made[device]


# A new thread starts without generators: each fit sets its own.
_CURRENT: ContextVar[_Generators | None] = ContextVar("skfair_generators", default=None)


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """Run a block with its own generators, which :func:`generator` returns.

    Parameters
    ----------
    seed : int
        Seed of the generators, one for each device.

    Yields
    ------
    None
        The block runs.
    """
    token = _CURRENT.set(_Generators(seed))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def generator(device: torch.device | None = None) -> torch.Generator | None:
    """Return the generator of the current :func:`own_generators` block.

    Parameters
    ----------
    device : torch.device, default=None
        Device of the generator. None means the CPU.

    Returns
    -------
    torch.Generator or None
        None outside such a block. torch then uses its default generator.
    """
    current = _CURRENT.get()
    return None if current is None else current.on(device or torch.device("cpu"))


def own_draws() -> AbstractContextManager:
    """Make all torch code in a block draw from the generators of :func:`own_generators`.

    Use it for code that takes no generator: initial weights of layers, dropout, and any other
    random operation of a network. It costs some microseconds for each operation of torch.

    Returns
    -------
    context manager
        Outside :func:`own_generators`, it does nothing.
    """
    current = _CURRENT.get()
    return nullcontext() if current is None else _OwnDraws(current)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block of torch code under a seed, independent of other threads.

    Everything that the block draws in this thread comes from the block's own generators. This
    includes code that takes no generator: initial weights, batches, dropout. The default generators
    of torch are neither read nor changed. On the CPU, the numbers are the same as after
    ``torch.manual_seed(seed)``.

    Parameters
    ----------
    seed : int
        Seed of the generators, one for each device.

    Yields
    ------
    None
        The block runs. Each operation of torch in the block takes some microseconds more.

    Notes
    -----
    Some operations still draw from the default generators: attention kernels and recurrent layers
    on CUDA, and ``torch.utils.checkpoint`` when it draws again in the backward pass.

    Examples
    --------
    >>> with seeded(0):
    ...     a = torch.nn.Linear(3, 2)
    >>> with seeded(0):
    ...     b = torch.nn.Linear(3, 2)
    >>> bool((a.weight == b.weight).all())
    True
    """
    with own_generators(seed), own_draws():
        yield


class _OwnDraws(TorchDispatchMode):
    """Passes a generator to all random operations. As every mode, it is active in one thread."""

    def __init__(self, generators: _Generators):
        super().__init__()
        self._generators = generators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        draw = _DRAWS.get(func)
        if draw is None:
            _DRAWS[func] = draw = _find_draw(func)
        return draw(self._generators, *args, **(kwargs or {}))


def _plain(func: Any) -> Callable:
    return lambda _, *args, **kwargs: func(*args, **kwargs)


def _with_generator(func: Any) -> Callable:
    """Pass a generator to the operation, unless the caller did."""

    def draw(generators: _Generators, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("generator") is None:
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            device = tensors[0].device if tensors else kwargs.get("device") or torch.device("cpu")
            if device.type == "meta":  # meta tensors hold no numbers
                return func(*args, **{k: v for k, v in kwargs.items() if k != "generator"})
            kwargs["generator"] = generators.on(device)
        return func(*args, **kwargs)

    return draw


def _native_dropout(
    generators: _Generators, x: torch.Tensor, p: float, train: bool | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same as ``native_dropout`` of accelerators, which takes no generator."""
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = torch.empty_like(x).bernoulli_(1 - p, generator=generators.on(x.device)).bool()
    return x * kept * (0.0 if p == 1 else 1 / (1 - p)), kept


def _arguments(func: Any) -> dict[str, str]:
    return {argument.name: str(argument.type) for argument in func._schema.arguments}


def _find_draw(func: Any) -> Callable:
    if func is aten.native_dropout.default:
        return _native_dropout
    arguments = _arguments(func)
    if "generator" in arguments:
        return _with_generator(func)
    if torch.Tag.nondeterministic_seeded in func.tags:
        # torch.rand and similar have overloads that take a generator and the same other arguments.
        packet = func.overloadpacket
        for other in (getattr(packet, name) for name in packet.overloads()):
            if _arguments(other) == {**arguments, "generator": "Optional[Generator]"}:
                return _with_generator(other)
    return _plain(func)


_DRAWS: dict[Any, Callable] = {}

# Layers of torch whose forward draws nothing, if the layer has no hooks.
_DRAW_NOTHING = {
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Unflatten,
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm,
    nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Softmax,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
}  # fmt: skip


def draws_nothing(network: nn.Module) -> bool:
    """Whether a network certainly draws nothing, so that :func:`own_draws` is not needed.

    Returns
    -------
    bool
        True only for networks that consist of well-known layers.
    """
    return all(
        # The networks of skfair itself use `generator`.
        (type(part) in _DRAW_NOTHING or type(part).__module__.startswith("skfair."))
        and not (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))
        for part in network.modules()
    )
