"""Which encoders a feature store knows by their contents, and the fingerprint of all settings."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import torch

from skfair.featurize._fingerprint import (
    UnknownEncoder,
    check_module,
    fingerprint,
    is_as_written,
    module_digest,
)
from skfair.featurize._module_run import module_device, module_of
from skfair.featurize._normalize import Normalize


def check_known(
    encoder: Any,
    preprocess: Callable | None,
    kind: str,
    memory: str | os.PathLike | None,
    *,
    read: bool,
) -> None:
    """Refuse an encoder or preprocess without a complete key, before anything runs.

    Parameters
    ----------
    encoder, preprocess, memory
        As in ``FrozenEncoderFeaturizer``.
    kind : {"module", "onnx", "callable"}
    read : bool
        Whether to look at a module; False if it was read before.

    Raises
    ------
    ValueError
        The message asks for an ``encoder_id``.
    """
    named = (
        "Pass encoder_id='a name of your own' for encoder and preprocess together, and "
        "another name whenever one of them changes."
    )
    reason = f"encoder is a {type(encoder).__qualname__}" if kind == "callable" else ""
    module = module_of(encoder)
    if module is not None and read:
        try:
            check_module(module)
            if inspect.ismethod(encoder) and (
                getattr(type(module), encoder.__name__, None) is not encoder.__func__
            ):
                raise UnknownEncoder(f"{encoder.__name__} is not a method of its class")
        except UnknownEncoder as error:
            reason = str(error)
    if reason:
        raise ValueError(
            f"memory={str(memory)!r} identifies features by the contents of the encoder, "
            "an ONNX file or a module that consists of torch's own layers; but "
            f"{reason}. {named}"
        )
    if preprocess is not None and not (
        type(preprocess) is Normalize and is_as_written(Normalize, "__call__", Normalize.__call__)
    ):
        function = getattr(preprocess, "__qualname__", type(preprocess).__qualname__)
        raise ValueError(
            f"memory={str(memory)!r} identifies features by the code that computed them, "
            f"but cannot know all that preprocess={function} depends on. {named} "
            "preprocess=None or Normalize(mean, std) does not require encoder_id."
        )


def has_changed(encoder: Any, digest: bytes) -> bool:
    """Whether a module has other contents than those of a digest."""
    module = module_of(encoder)
    if module is None:
        return False
    try:
        return module_digest(module) != digest
    except UnknownEncoder:
        return True


def token_of(featurizer: Any, digest: bytes | None) -> bytes:
    """Fingerprint everything but the sample that decides a row of features.

    Parameters
    ----------
    featurizer : FrozenEncoderFeaturizer
    digest : bytes or None
        Of the encoder; None if ``encoder_id`` names it.

    Returns
    -------
    bytes
    """
    amp_dtype = None
    module = module_of(featurizer.encoder)
    if featurizer.amp and module is not None:
        amp_dtype = torch.get_autocast_dtype(module_device(module, featurizer.device).type)
    preprocess = featurizer.preprocess
    known = type(preprocess) is Normalize
    settings = {
        "layer": featurizer.layer,
        "pooling": featurizer.pooling,
        "amp_dtype": amp_dtype,
        "normalize": (preprocess.mean, preprocess.std) if known else None,
    }
    if digest is None:
        return fingerprint(encoder_id=featurizer.encoder_id, **settings)
    if inspect.ismethod(featurizer.encoder):  # not the other encoders, whose keys stay as they are
        settings["method"] = featurizer.encoder.__name__
    return fingerprint(encoder=digest, **settings)
