"""Runs the frozen encoder: a torch module, an ONNX file or a callable, behind one interface.

:class:`BatchEncoder` takes a batch of samples as a NumPy array, checks the encoder's output and
returns the pooled features.
"""

import copy
import difflib
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skfair.base._networks import (
    ROUGH,
    are_alike,
    check_initialised,
    copied,
    floating_dtype,
    rounding,
)
from skfair.featurize._fingerprint import check_module, module_digest
from skfair.featurize._onnx_model import OnnxModel, open_onnx
from skfair.featurize._outputs import check_axes, check_output, pool
from skfair.utils._device import resolve_device
from skfair.utils._shown import shown, shown_all

_ROOM = 80  # characters of a layer's name in a message
_MOST_NAMES = 1000  # of layers that are compared with a name that does not exist


def encoder_kind(encoder: Any, *, layer: str | None, amp: bool) -> str:
    """Tell the kind of an encoder, and refuse settings that this kind does not support.

    Parameters
    ----------
    encoder : torch.nn.Module, path-like, OnnxModel or callable
    layer : str or None
    amp : bool

    Returns
    -------
    {"module", "onnx", "callable"}

    Raises
    ------
    TypeError
        `encoder` is a class.
    ValueError
        The file has no ``.onnx`` suffix, `layer` does not exist, or this kind of encoder does
        not support `layer` or `amp`.
    """
    if inspect.isclass(encoder):
        raise TypeError(
            f"encoder is the class {encoder.__name__}, not an encoder. "
            f"Pass an instance: encoder={encoder.__name__}(...)."
        )
    if isinstance(encoder, (str, os.PathLike)):
        if Path(encoder).suffix.lower() != ".onnx":
            raise ValueError(
                f"encoder={os.fspath(encoder)!r} is not the path of an .onnx file. Load other "
                "formats yourself and pass the torch module or a callable."
            )
        kind = "onnx"
    elif isinstance(encoder, OnnxModel):
        kind = "onnx"
    elif isinstance(encoder, torch.nn.Module):
        check_initialised(encoder, "encoder")
        if layer is not None:
            _check_layer(layer, dict(encoder.named_modules()))
            if isinstance(_submodule(encoder, layer), torch.jit.ScriptModule):
                raise ValueError(
                    f"layer={shown(layer, _ROOM)} is a layer of TorchScript, which returns its "
                    "last output only. Pass the module that was scripted or traced, or layer=None."
                )
        kind = "module"
    else:
        kind = "callable"
        if layer is not None:
            raise ValueError(
                f"layer={shown(layer, _ROOM)} needs an encoder with layers; a callable has none. "
                "Pass layer=None."
            )
    if amp and kind != "module":
        raise ValueError("amp=True needs a torch.nn.Module as encoder. Pass amp=False.")
    return kind


class _OnTheirWay(NamedTuple):
    """Features on their way from a CUDA device, and the event of their arrival."""

    features: torch.Tensor
    there: torch.cuda.Event


class BatchEncoder:
    """An encoder with its pooling, prepared at its first batch.

    Parameters
    ----------
    encoder, layer, pooling, preprocess, device, amp
        As in ``FrozenEncoderFeaturizer``.
    width : int or None
        Expected number of features. None takes the number from the first batch, and checks on
        that batch that pooling uses the right axes and that each row depends on its image alone.
    batch_size : int
        Size of the largest batch.
    once_more : bool
        Whether a callable may be run once more, on one sample.
    """

    def __init__(
        self,
        encoder: torch.nn.Module | str | os.PathLike | OnnxModel | Callable,
        *,
        layer: str | None,
        pooling: str,
        preprocess: Callable | None,
        device: str | torch.device,
        amp: bool,
        width: int | None,
        batch_size: int = 64,
        once_more: bool = False,
    ):
        self.encoder = encoder
        self.layer = layer
        self.pooling = pooling
        self.preprocess = preprocess
        self.device = device
        self.amp = amp
        self.width = width
        self.batch_size = batch_size
        self.once_more = once_more
        self.n_batches = 0
        self._open_session: Callable | None = None

    def freeze(self, fitted: str | None = None) -> bytes:
        """Fix the current contents of a module or an ONNX file for all later batches.

        Parameters
        ----------
        fitted : str, default=None
            Expected digest of an ONNX file.

        Returns
        -------
        bytes
            Digest of these contents.

        Raises
        ------
        UnknownEncoder
            A module holds contents that the fingerprint cannot cover.
        FileNotFoundError, ValueError
            An ONNX file does not exist, or has another digest.
        """
        if isinstance(self.encoder, torch.nn.Module):
            check_module(self.encoder)  # unknown code may copy itself in an unknown way
            self.encoder = copied(self.encoder, weight_of=lambda t: t.detach().clone())
            return module_digest(self.encoder)
        encoder: Any = self.encoder
        digest, self._open_session = open_onnx(encoder, self.device, fitted)
        return digest.encode()

    @functools.cached_property
    def _run(self) -> Callable[[np.ndarray], Any]:
        # Not in the constructor: a call that finds all rows in the store needs no encoder.
        encoder: Any = self.encoder
        kind = encoder_kind(encoder, layer=self.layer, amp=self.amp)
        if kind == "module":
            device = module_device(encoder, self.device)
            return _module_run(encoder, self.layer, self.preprocess, device, self.amp)
        if kind == "onnx":
            assert self._open_session is not None  # `freeze` came first
            return _onnx_run(self._open_session(), encoder, self.layer, self.preprocess)
        return lambda batch: encoder(_preprocess(batch, self.preprocess))

    def launch(self, batch: np.ndarray) -> Any:
        """Start to encode a batch; an accelerator may still run when this method returns."""
        self.n_batches += 1
        run = self._run  # outside of `try`: an error here is not about the batch
        try:
            output = run(batch)
        except Exception as error:
            kind = "tensor" if isinstance(self.encoder, torch.nn.Module) else "NumPy array"
            error.add_note(
                f"encoder or preprocess raised this error for a batch of shape {batch.shape}, "
                f"{batch.dtype}, passed as a {kind}. If they take another shape or dtype, set "
                "image_shape, data_format or preprocess."
            )
            if isinstance(error, torch.OutOfMemoryError):
                error.add_note("The batch does not fit into memory: lower batch_size.")
            raise
        if self.width is None and self.n_batches == 1:
            self._check_first(batch, output)
        if not (isinstance(output, torch.Tensor) and output.is_cuda):
            return output
        # Start the transfer now. A GPU works in order: a later transfer would wait for the next
        # batch, and the GPU would be idle while the host reads that batch.
        with torch.inference_mode():
            pooled = pool(check_output(output, len(batch)), self.pooling).float()
            features = pooled.to("cpu", non_blocking=True)
        there = torch.cuda.Event()
        there.record(torch.cuda.current_stream(output.device))
        return _OnTheirWay(features, there)

    def _check_first(self, batch: np.ndarray, output: Any) -> None:
        """Check on the first batch of a fit for errors that would silently spoil all features."""
        kind = encoder_kind(self.encoder, layer=self.layer, amp=self.amp)
        free = kind != "callable"  # a call may cost money
        shape = tuple(check_output(output, len(batch)).shape)
        check_axes(shape, batch, self.pooling, self._run if free else None)
        among = self._first_row(output, len(batch))
        if free:
            samples = batch[:1]
            if self.batch_size > 1:
                samples = np.concatenate([samples, _opposite(samples)])
            # The encoder may not take the made-up sample, for instance an unknown token number.
            with suppress(Exception):
                among = self._first_row(self._run(samples), len(samples))
        elif len(batch) == 1 or not self.once_more:
            return
        try:
            alone = self._first_row(self._run(batch[:1]), 1)
        except Exception as error:
            raise ValueError(
                f"encoder runs on {len(batch)} images, but not on one alone ({type(error).__name__}"
                f": {error}). Pass an encoder that takes any number of images, each "
                "by itself."
            ) from error
        tolerance = self._tolerance()
        if alone.shape != among.shape:
            self.width = len(among)
            self.check_width(len(alone), "encoder returned")
        found = (
            f"encoder returned for one image features that differ by up to "
            f"{float((among - alone).abs().max()):.2g}, and reach {float(alone.abs().max()):.2g}"
        )
        if free and not are_alike(alone, self._first_row(self._run(batch[:1]), 1), tolerance):
            raise ValueError(
                f"{found}, in two runs: encoder or preprocess draws at random, for instance by "
                "functional dropout with training=True. Remove the random draws."
            )
        if not are_alike(among, alone, tolerance):
            raise ValueError(
                f"{found}, in a batch and alone: it uses the other images, as BatchNorm with "
                "track_running_stats=False does, and attention without batch_first=True"
                f"{'' if free else ', or draws at random'}. Fix the encoder, or set batch_size=1 "
                "to encode each image alone."
            )

    def _first_row(self, output: Any, n_rows: int) -> torch.Tensor:
        return pool(check_output(output, n_rows), self.pooling)[0].detach().double().cpu()

    def _tolerance(self) -> float:
        encoder: Any = self.encoder
        if not isinstance(encoder, torch.nn.Module):
            return ROUGH  # its precision is unknown
        place = torch.empty(0, device=module_device(encoder, self.device))
        return ROUGH if self.amp else rounding(encoder, place)

    def collect(self, output: Any, n_rows: int) -> np.ndarray:
        """Check and pool what :meth:`launch` returned.

        Returns
        -------
        ndarray of shape (n_rows, n_features) and type float32
        """
        if isinstance(output, _OnTheirWay):
            output.there.synchronize()
            features = output.features.numpy()
        else:
            with torch.inference_mode():
                pooled = pool(check_output(output, n_rows), self.pooling)
                features = pooled.to("cpu", torch.float32).numpy()
        self.check_width(features.shape[1], "encoder returned")
        finite = np.isfinite(features)
        if not finite.all():
            n_bad = int((~finite.all(axis=1)).sum())
            hint = " amp=True computes in fewer bits: try amp=False." if self.amp else ""
            raise ValueError(
                f"encoder returned NaN or infinity for {n_bad} of {n_rows} samples. Check its "
                f"weights, and that preprocess matches its training.{hint}"
            )
        return features

    def check_width(self, width: int, what: str) -> None:
        """Raise unless all rows have the same number of features."""
        if self.width is None:
            self.width = width
        elif width != self.width:
            raise ValueError(
                f"{what} {width} features a sample; it was {self.width} before. One encoder "
                "(and one encoder_id) has one number of features. Pool its output; after a change "
                "of the encoder fit again, with another encoder_id."
            )


def _opposite(samples: np.ndarray) -> np.ndarray:
    """Samples with other statistics; a row that depends on its batch changes beside them."""
    return (255 if samples.dtype == np.uint8 else 1) - samples


def module_device(module: torch.nn.Module, device: str | torch.device) -> torch.device:
    """Resolve ``device`` for a module; "auto" keeps a module on its accelerator."""
    first = next(module.parameters(), None)
    if device == "auto" and first is not None and first.device.type != "cpu":
        return first.device
    # With its index, as tensors have it: torch.device("cuda") != torch.device("cuda:0").
    return torch.empty(0, device=resolve_device(device)).device


def _preprocess(batch: Any, preprocess: Callable | None) -> Any:
    """Apply `preprocess`, or turn 8-bit values into numbers from 0 to 1; arrays and tensors."""
    if preprocess is not None:
        return preprocess(batch)
    if isinstance(batch, torch.Tensor):
        return batch.float().div_(255) if batch.dtype == torch.uint8 else batch
    return np.divide(batch, 255, dtype=np.float32) if batch.dtype == np.uint8 else batch


def _module_run(module, layer, preprocess, device, amp):
    frozen = _frozen_view(module, device)
    dtype = floating_dtype(frozen) or torch.float32
    captured = []

    def capture(_module, _inputs, output):
        # A copy: a later layer may change the output in place, as ReLU(inplace=True) does.
        captured.append(output.clone() if isinstance(output, torch.Tensor) else output)

    if layer is not None:
        _submodule(frozen, layer).register_forward_hook(capture)

    def run(batch: np.ndarray) -> Any:
        captured.clear()  # an earlier run may have ended in an error
        with torch.inference_mode(), torch.autocast(device.type, enabled=amp):
            samples = torch.from_numpy(batch)
            if device.type == "cuda":
                samples = samples.pin_memory()  # only then the transfer does not block
            samples = samples.to(device, non_blocking=True)
            samples = _preprocess(samples, preprocess)
            if samples.dtype == torch.float32 and not amp:
                samples = samples.to(dtype)  # weights in double or half precision take no float32
            output = frozen(samples)
        if layer is None:
            return output
        if len(captured) != 1:
            raise ValueError(
                f"layer={layer!r} ran {len(captured)} times for one batch; its output is only "
                "defined for a layer that runs once. A compiled or exported module never runs its "
                "layers: pass the original module."
            )
        return captured.pop()

    return run


def _submodule(module: torch.nn.Module, name: str) -> torch.nn.Module:
    return dict(module.named_modules())[name]  # TorchScript has no get_submodule


def _frozen_view(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Copy a module's structure, in eval mode and on a device, around the same weights.

    This function never changes the user's module, since another thread may use it. The copy
    shares weights that are on `device`, but no buffers, since a forward may write to buffers.
    """
    if isinstance(module, torch.jit.ScriptModule):  # copy cannot share the weights of TorchScript
        with torch.no_grad():
            return copy.deepcopy(module).to(device).eval()
    try:
        # `to` is for classes whose own __deepcopy__ ignores the memo.
        frozen = copied(module, weight_of=lambda w: w.detach().to(device), device=device)
        return frozen.to(device).eval()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"encoder, a {type(module).__name__}, cannot be copied: {error}. scikit-learn's clone "
            "also copies it. Pass a function that calls the module."
        ) from error


def _onnx_run(session, encoder, layer, preprocess):
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1:
        name = encoder if isinstance(encoder, OnnxModel) else os.fspath(encoder)
        raise ValueError(
            f"encoder={name!r} has the inputs [{shown_all([i.name for i in inputs])}]; expected "
            "one. Pass a callable that fills in the other inputs."
        )
    name, size = inputs[0].name, inputs[0].shape[0] if inputs[0].shape else None
    if layer is not None:
        _check_layer(layer, outputs)
    wanted = [layer if layer is not None else outputs[0]]
    dtypes = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    dtype = dtypes.get(inputs[0].type)

    def run(batch: np.ndarray) -> np.ndarray:
        if inputs[0].type != "tensor(uint8)" or preprocess is not None:
            batch = _preprocess(batch, preprocess)
        if dtype is not None:
            batch = batch.astype(dtype)
        if not isinstance(size, int) or size == len(batch):
            return session.run(wanted, {name: batch})[0]
        # The model takes one fixed batch size: cut the batch into such parts, and fill the last.
        parts = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            parts.append(session.run(wanted, {name: filled})[0][: len(part)])
        return np.concatenate(parts)

    return run


def _check_layer(layer: str, names: Collection[str]) -> None:
    if layer not in names:
        # Cut, since an ONNX file from a stranger may have output names of any length.
        short = {name[:_ROOM]: name for name in itertools.islice(names, _MOST_NAMES) if name}
        near = difflib.get_close_matches(layer[:_ROOM], short, n=8, cutoff=0.3)
        listed = [shown(short[name], _ROOM) for name in near or list(short)[-8:]]
        raise ValueError(
            f"layer={shown(layer, _ROOM)} is not in encoder. Names near it: {', '.join(listed)}."
        )
