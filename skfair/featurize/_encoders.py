"""Runs the frozen encoder: a torch module, an ONNX file or a callable, behind one interface.

:class:`BatchEncoder` takes a batch of samples, as a NumPy array or a list of items, checks the
encoder's output and returns the pooled features.
"""

import functools
import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skfair._images._items import own_copy
from skfair.base._networks import ROUGH, are_alike, rounding
from skfair.featurize._module_run import (
    ModuleRun,
    has_convolutions,
    is_faster_channels_last,
    module_device,
    module_of,
    with_module,
)
from skfair.featurize._onnx_model import OnnxModel, open_onnx
from skfair.featurize._onnx_run import onnx_run
from skfair.featurize._outputs import UnknownLayer, check_axes, check_output, pool
from skfair.featurize._preprocess import preprocessed
from skfair.featurize._remembered import frozen_copy
from skfair.utils._shown import shown

_ROOM = 80  # characters of a layer's name in a message
_MOST_IMAGES = 64  # of a batch with batch_size="auto"
# A convolution on the CPU is fastest on small batches: large activations do not fit in the caches,
# and the C library returns them to the system after each layer.
_PIXELS_ON_THE_CPU = 4 * 224 * 224


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
        A bound method of a torch module runs as this module.

    Raises
    ------
    TypeError
        `encoder` is a class.
    ValueError
        The file has no ``.onnx`` suffix, or this kind of encoder does not support `layer` or
        `amp`.
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
    elif (module := module_of(encoder)) is not None:
        # A name that is not that of a layer may be that of an output, known after the first batch.
        part = None if layer is None else dict(module.named_modules()).get(layer)
        if isinstance(part, torch.jit.ScriptModule):
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
    batch_size : int or "auto"
        Size of the largest batch.
    shape : tuple of int
        Shape of one sample, for `batch_size` "auto".
    once_more : bool
        Whether a callable may be run once more, on one sample.
    channels_last : bool
        Whether batches of a module may be channels last in memory. False avoids a run that is
        known to fail.
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
        batch_size: int | str = "auto",
        shape: tuple[int, ...] = (),
        once_more: bool = False,
        channels_last: bool = True,
    ):
        self.encoder = encoder
        self.layer = layer
        self.pooling = pooling
        self.preprocess = preprocess
        self.device = device
        self.amp = amp
        self.width = width
        self.shape = shape
        self.once_more = once_more
        self.channels_last = channels_last
        self.n_batches = 0
        self._open_session: Callable | None = None
        self._batch_size = batch_size

    @functools.cached_property
    def batch_size(self) -> int:
        """Number of images in a batch."""
        # Not in the constructor: a call that finds all rows in the store needs no device.
        if isinstance(self._batch_size, str):
            return _automatic_batch_size(self.encoder, self.device, self.shape)
        return self._batch_size

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
        module = module_of(self.encoder)
        if module is not None:
            copy, contents = frozen_copy(module)
            self.encoder = with_module(self.encoder, copy)
            return contents
        encoder: Any = self.encoder
        digest, self._open_session = open_onnx(encoder, self.device, fitted)
        return digest.encode()

    @functools.cached_property
    def _run(self) -> Callable[[Any], Any]:
        # Not in the constructor: a call that finds all rows in the store needs no encoder.
        encoder: Any = self.encoder
        kind = encoder_kind(encoder, layer=self.layer, amp=self.amp)
        module = module_of(encoder)
        if module is not None:
            device = module_device(module, self.device)
            return ModuleRun(
                encoder,
                self.layer,
                self.pooling,
                self.preprocess,
                device,
                self.amp,
                self.channels_last and is_faster_channels_last(module, device),
            )
        if kind == "onnx":
            assert self._open_session is not None  # `freeze` came first
            return onnx_run(self._open_session(), encoder, self.layer, self.preprocess)
        return lambda batch: encoder(preprocessed(batch, self.preprocess))

    @property
    def failed_channels_last(self) -> bool:
        """Whether a module failed on a batch that was channels last in memory."""
        run = vars(self).get("_run")  # only if there was a batch
        return isinstance(run, ModuleRun) and run.failed

    def launch(self, batch: np.ndarray | list) -> Any:
        """Start to encode a batch; an accelerator may still run when this method returns."""
        self.n_batches += 1
        run = self._run  # outside of `try`: an error here is not about the batch
        is_first = self.width is None and self.n_batches == 1
        first = _copied(batch[:1]) if is_first else None  # the encoder may write to the batch
        try:
            output = run(batch)
        except UnknownLayer:
            raise  # the batch has no part in it
        except Exception as error:
            error.add_note(_about(batch, self.encoder, self.preprocess))
            if isinstance(error, torch.OutOfMemoryError):
                error.add_note("The batch does not fit into memory: lower batch_size.")
            raise
        on_cuda = isinstance(output, torch.Tensor) and output.is_cuda
        # Copies: the next run may write to the same memory, if the encoder keeps its output.
        with torch.inference_mode():
            if first is not None:
                output = check_output(output, len(batch)).clone()
            elif not on_cuda:
                output = pool(check_output(output, len(batch)), self.pooling).clone()
        if first is not None:
            self._check_first(first, output)
        if not on_cuda:
            return output
        # Start the transfer now. A GPU works in order: a later transfer would wait for the next
        # batch, and the GPU would be idle while the host reads that batch.
        with torch.inference_mode():
            pooled = pool(check_output(output, len(batch)), self.pooling).float()
            features = pooled.to("cpu", non_blocking=True)
        there = torch.cuda.Event()
        there.record(torch.cuda.current_stream(output.device))
        return _OnTheirWay(features, there)

    def _check_first(self, first: Any, output: torch.Tensor) -> None:
        """Check on the first batch of a fit for errors that would silently spoil all features.

        Each run gets a copy of the sample, since the encoder may write to it.
        """
        kind = encoder_kind(self.encoder, layer=self.layer, amp=self.amp)
        free = kind != "callable"  # a call may cost money
        is_image = isinstance(first, np.ndarray)
        unit = "image" if is_image else "item"
        some = first if is_image else np.empty(1)  # items have no sides to compare with
        run_again = self._run if free and is_image else None
        check_axes(tuple(output.shape), some, self.pooling, run_again)
        among = self._first_row(output, len(output))
        if free and is_image and first.ndim == 4 and (first == first[:, :, :1, :1]).all():
            # Features of equal pixels may be rounding errors only, as after InstanceNorm. But the
            # encoder may not take a made-up sample.
            with suppress(Exception):
                among = self._first_row(self._run(_varied(first)), 1)
                first = _varied(first)
        if free and is_image:
            samples = first.copy()
            if self.batch_size > 1:
                samples = np.concatenate([samples, _opposite(samples)])
            with suppress(Exception):  # for instance for an unknown token number
                among = self._first_row(self._run(samples), len(samples))
        elif not free and (len(output) == 1 or not self.once_more):
            return
        try:
            alone = self._first_row(self._run(_copied(first)), 1)
        except Exception as error:
            raise ValueError(
                f"encoder runs on {len(output)} {unit}s, but not on one alone "
                f"({type(error).__name__}: {error}). Pass an encoder that takes any number of "
                f"{unit}s, each by itself."
            ) from error
        tolerance = self._tolerance()
        if alone.shape != among.shape:
            self.width = len(among)
            self.check_width(len(alone), "encoder returned")
        found = (
            f"encoder returned for one {unit} features that differ by up to "
            f"{float((among - alone).abs().max()):.2g}, and reach {float(alone.abs().max()):.2g}"
        )
        if free and not are_alike(alone, self._first_row(self._run(_copied(first)), 1), tolerance):
            raise ValueError(
                f"{found}, in two runs: encoder or preprocess draws at random, for instance by "
                "functional dropout with training=True. Remove the random draws."
            )
        if not are_alike(among, alone, tolerance):
            raise ValueError(
                f"{found}, in a batch and alone: it uses the other {unit}s, as BatchNorm with "
                "track_running_stats=False does, attention without batch_first=True, and a mean "
                "over the tokens that fill up short texts"
                f"{'' if free else ', or draws at random'}. Fix the encoder, or set batch_size=1 "
                f"to encode each {unit} alone."
            )
        run = self._run
        if not (isinstance(run, ModuleRun) and run.channels_last):
            return
        pairs = [(alone, self._first_row(run(_copied(first), as_it_is=True), 1))]
        with suppress(Exception):  # as above
            last, plain = (
                self._first_row(run(_varied(first), as_it_is=as_it_is), 1)
                for as_it_is in (False, True)
            )
            pairs.append((last, plain))
        for last, plain in pairs:
            # The layouts differ by other rounding than two runs; misread pixels differ by far more.
            if not are_alike(last, plain, max(tolerance, ROUGH)):
                raise ValueError(
                    f"encoder returned for one image features that differ by up to "
                    f"{float((plain - last).abs().max()):.2g}, and reach "
                    f"{float(last.abs().max()):.2g}, in two layouts of memory, channels first and "
                    "channels last: it reads memory without regard to strides, for instance by "
                    "as_strided. Call .contiguous() on the tensor before."
                )

    def _first_row(self, output: Any, n_rows: int) -> torch.Tensor:
        row = pool(check_output(output, n_rows), self.pooling)[0]
        # A copy: the next run may write to the same memory.
        return row.detach().cpu().double().clone()

    def _tolerance(self) -> float:
        module = module_of(self.encoder)
        if module is None:
            return ROUGH  # its precision is unknown
        place = torch.empty(0, device=module_device(module, self.device))
        return ROUGH if self.amp else rounding(module, place)

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


def _copied(samples: Any) -> Any:
    return list(map(own_copy, samples)) if isinstance(samples, list) else samples.copy()


def _opposite(samples: np.ndarray) -> np.ndarray:
    """Samples with other statistics; a row that depends on its batch changes beside them."""
    return (255 if samples.dtype == np.uint8 else 1) - samples


def _varied(samples: np.ndarray) -> np.ndarray:
    """Samples whose neighbours differ: equal pixels would look the same in each layout."""
    values = (101 * np.arange(samples.size) % 256).reshape(samples.shape)
    return (values if samples.dtype == np.uint8 else values / 255).astype(samples.dtype)


def _about(batch: np.ndarray | list, encoder: Any, preprocess: Any) -> str:
    """Say what the encoder got when it raised an error."""
    if isinstance(batch, list):
        kinds = sorted({type(item).__name__ for item in batch})
        advice = "If they take tensors, set preprocess, which gets the list. "
        if preprocess is not None or module_of(encoder) is None:
            advice = ""
        return (
            f"encoder or preprocess raised this error for a list of {len(batch)} items "
            f"({', '.join(kinds)}). {advice}Items are as in X, without any change."
        )
    kind = "NumPy array" if module_of(encoder) is None else "tensor"
    return (
        f"encoder or preprocess raised this error for a batch of shape {batch.shape}, "
        f"{batch.dtype}, passed as a {kind}. If they take another shape or dtype, set "
        "image_shape, data_format or preprocess."
    )


def _automatic_batch_size(encoder: Any, device: str | torch.device, shape: tuple[int, ...]) -> int:
    """Number of images in a batch: small for convolutions on the CPU, but one for each thread."""
    module = module_of(encoder)
    if (
        module is None
        or len(shape) != 3
        or not has_convolutions(module)
        or module_device(module, device).type != "cpu"
    ):
        return _MOST_IMAGES
    # At least two, so that the checks of `fit` see a row that depends on its batch.
    fast = max(2, torch.get_num_threads(), _PIXELS_ON_THE_CPU // (shape[1] * shape[2]))
    return min(_MOST_IMAGES, fast)
