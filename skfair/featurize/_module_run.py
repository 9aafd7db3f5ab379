"""Runs a frozen torch module, or a method of one, on batches, without a change to the module."""

import copy
import inspect
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from skfair.base._networks import copied, floating_dtype, written_parameters
from skfair.featurize._outputs import choose_output, pool_tokens
from skfair.featurize._preprocess import (
    as_inputs,
    is_image_processor,
    preprocessed,
    takes_pillow,
)
from skfair.utils._device import resolve_device

# Measured on the CPU: only here channels last is never slower. Depthwise convolutions in double
# precision take twice as long.
_FAST_WITH_CHANNELS_LAST = torch.float32, torch.bfloat16


def module_of(encoder: Any) -> torch.nn.Module | None:
    """Return the module that runs: the encoder, or the module whose bound method it is.

    Parameters
    ----------
    encoder : object

    Returns
    -------
    torch.nn.Module or None
        None for all other encoders.
    """
    owner = encoder.__self__ if inspect.ismethod(encoder) else encoder
    return owner if isinstance(owner, torch.nn.Module) else None


def with_module(encoder: Any, module: torch.nn.Module) -> Any:
    """Return the encoder with a copy of its module in place of it."""
    return types.MethodType(encoder.__func__, module) if inspect.ismethod(encoder) else module


def module_device(module: torch.nn.Module, device: str | torch.device) -> torch.device:
    """Resolve ``device`` for a module; "auto" keeps a module on its accelerator."""
    first = next(module.parameters(), None)
    if device == "auto" and first is not None and first.device.type != "cpu":
        return first.device
    # With its index, as tensors have it: torch.device("cuda") != torch.device("cuda:0").
    return torch.empty(0, device=resolve_device(device)).device


class ModuleRun:
    """Runs a module or one of its methods.

    Parameters
    ----------
    encoder : torch.nn.Module or bound method of one
    layer : str or None
        Name of a submodule, or of one of the outputs of an encoder that names its outputs.
    pooling, preprocess, amp
        As in ``FrozenEncoderFeaturizer``.
    device : torch.device
    channels_last : bool
        Whether batches may be channels last in memory.

    Attributes
    ----------
    channels_last : bool
        Whether batches are channels last in memory. It becomes False at the first batch on which
        the module runs in the other layout only.
    failed : bool
        Whether there was such a batch.
    """

    def __init__(
        self,
        encoder: Any,
        layer: str | None,
        pooling: str,
        preprocess: Callable | None,
        device: torch.device,
        amp: bool,
        channels_last: bool,
    ):
        module = module_of(encoder)
        assert module is not None
        frozen = _frozen_view(module, device)
        self._encoder = with_module(encoder, frozen)
        self._is_method = encoder is not module
        self._layers = dict(frozen.named_modules())  # TorchScript has no get_submodule
        self._layer = layer
        self._pooling = pooling
        self._preprocess = preprocess
        self._on_host = takes_pillow(preprocess) or is_image_processor(preprocess)
        self._device = device
        self._amp = amp
        # Autocast chooses the types itself.
        self._dtype = None if amp else floating_dtype(frozen) or torch.float32
        self._captured: list[Any] = []
        if layer in self._layers:
            self._layers[layer].register_forward_hook(self._capture)
        self.channels_last = channels_last
        self.failed = False
        if channels_last:
            _let_the_heap_keep_activations()

    def _capture(self, _module: Any, _inputs: Any, output: Any) -> None:
        # A copy: a later layer may change the output in place, as ReLU(inplace=True) does.
        self._captured.append(output.clone() if isinstance(output, torch.Tensor) else output)

    def __call__(self, batch: np.ndarray | list, *, as_it_is: bool = False) -> Any:
        """Run the module; `as_it_is` leaves the layout in memory as `preprocess` returns it."""
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=self._amp):
            inputs = as_inputs(self._prepared(batch), self._device, self._dtype)
            if as_it_is or not self.channels_last:
                return self._output(inputs)
            with suppress(Exception):
                return self._output(_with_channels_last(inputs))
            # For instance view(len(x), -1) needs the memory in the order of the axes.
            output = self._output(inputs)
            # Not before: an error in both layouts has another cause.
            self.channels_last, self.failed = False, True
            return output

    def _prepared(self, batch: np.ndarray | list) -> Any:
        if isinstance(batch, list) or self._on_host:
            return preprocessed(batch, self._preprocess)
        samples = torch.from_numpy(batch)
        if self._device.type == "cuda":
            samples = samples.pin_memory()  # only then the transfer does not block
        return preprocessed(samples.to(self._device, non_blocking=True), self._preprocess)

    def _output(self, inputs: Any) -> Any:
        self._captured.clear()  # an earlier run may have ended in an error
        if isinstance(inputs, Mapping) and _takes_names(self._encoder, inputs):
            output = self._encoder(**inputs)
        else:
            output = self._encoder(inputs)
        if self._layer in self._layers:
            if len(self._captured) != 1:
                raise ValueError(
                    f"layer={self._layer!r} ran {len(self._captured)} times for one batch; its "
                    "output is only defined for a layer that runs once. A compiled or exported "
                    "module never runs its layers: pass the original module."
                )
            output = self._captured.pop()
            if isinstance(output, tuple) and len(output) == 1:  # as layers of transformers return
                output = output[0]
            output = choose_output(output)
        else:
            output = choose_output(
                output, self._layer, layers=self._layers, of_method=self._is_method
            )
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        if isinstance(mask, torch.Tensor) and isinstance(output, torch.Tensor):
            return pool_tokens(output, mask, self._pooling)
        return output


def _takes_names(encoder: Any, inputs: Mapping) -> bool:
    """Whether the inputs go to arguments of these names, and not as one dict to a single one."""
    forward = encoder.forward if isinstance(encoder, torch.nn.Module) else encoder
    try:
        arguments = inspect.signature(forward).parameters.values()
    except ValueError:  # code that is not in Python
        return True
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    required = [a.name for a in arguments if a.default is a.empty and a.kind not in optional]
    return len(required) != 1 or required[0] in inputs


def is_faster_channels_last(module: torch.nn.Module, device: torch.device) -> bool:
    """Whether convolutions of oneDNN run, which are faster with channels last in memory."""
    on_the_cpu = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_the_cpu and has_convolutions(module)


def has_convolutions(module: torch.nn.Module) -> bool:
    """Whether a module has weights like those of a convolution over images."""
    return any(w.ndim == 4 and w.is_floating_point() for w in module.parameters())


def _let_the_heap_keep_activations() -> None:
    """Free an unused block of almost 32 MiB, as every process does that frees such an array.

    glibc adapts to the largest freed block up to 32 MiB: it keeps freed blocks of this size for the
    next request. Without this, and depending on what the process allocated before, it may return
    activations to the system after each layer, and a third of the time goes into page faults.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def _with_channels_last(samples: Any) -> Any:
    """Copy images to memory with channels last, also those of one channel, which torch leaves."""
    if isinstance(samples, dict):
        return {name: _with_channels_last(value) for name, value in samples.items()}
    if not isinstance(samples, torch.Tensor):
        return samples
    if samples.ndim != 4 or samples.dtype not in _FAST_WITH_CHANNELS_LAST:
        return samples
    return torch.empty_like(samples, memory_format=torch.channels_last).copy_(samples)


def _frozen_view(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Copy a module's structure, in eval mode and on a device, around the same weights.

    This function never changes the user's module, since another thread may use it. The copy
    shares weights that are on `device`, except those that a part writes itself, but no buffers,
    since a forward may write to buffers.
    """
    if isinstance(module, torch.jit.ScriptModule):  # copy cannot share the weights of TorchScript
        with torch.no_grad():
            return copy.deepcopy(module).to(device).eval()
    try:
        written = written_parameters(module)

        def weight_of(weight: torch.Tensor) -> torch.Tensor:
            return weight.detach().to(device, copy=id(weight) in written)

        # `to` is for classes whose own __deepcopy__ ignores the memo.
        frozen = copied(module, weight_of=weight_of, device=device)
        return frozen.to(device).eval()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"encoder, a {type(module).__name__}, cannot be copied: {error}. scikit-learn's clone "
            "also copies it. Pass a function that calls the module."
        ) from error
