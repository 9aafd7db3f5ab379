"""What runs before the frozen encoder: `preprocess` on a batch of images, or on a list of items."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

# By name, so that neither package is imported.
_TAKES_PILLOW = {"ToTensor", "PILToTensor"}
_IMAGE_PROCESSOR = "ImageProcessingMixin"


def preprocessed(batch: Any, preprocess: Callable | None) -> Any:
    """Apply `preprocess`; without one, turn 8-bit values into numbers from 0 to 1.

    Parameters
    ----------
    batch : ndarray or tensor of images, or list of items
    preprocess : callable or None
        Transforms of torchvision that begin with Pillow images get one Pillow image at a time. An
        image processor of transformers gets a list of arrays. Everything else gets the batch.

    Returns
    -------
    object
        What the encoder takes.
    """
    if isinstance(batch, list):
        return batch if preprocess is None else preprocess(batch)
    if takes_pillow(preprocess):
        return torch.stack([preprocess(_as_pillow(image)) for image in batch])  # type: ignore[misc]
    if is_image_processor(preprocess):
        return preprocess(list(batch))  # type: ignore[misc]
    if preprocess is not None:
        return preprocess(batch)
    if isinstance(batch, torch.Tensor):
        return batch.float().div_(255) if batch.dtype == torch.uint8 else batch
    return np.divide(batch, 255, dtype=np.float32) if batch.dtype == np.uint8 else batch


def takes_pillow(preprocess: Any) -> bool:
    """Whether this is a Compose of torchvision, as of timm and open_clip, for one Pillow image."""
    steps = getattr(preprocess, "transforms", None)
    if not type(preprocess).__module__.startswith("torchvision.") or not isinstance(steps, list):
        return False
    return any(
        takes_pillow(step) or not _TAKES_PILLOW.isdisjoint(_class_names(step)) for step in steps
    )


def is_image_processor(preprocess: Any) -> bool:
    """Whether this is an image processor of transformers, also one with arguments filled in."""
    if isinstance(preprocess, functools.partial):
        preprocess = preprocess.func
    return _IMAGE_PROCESSOR in _class_names(preprocess)


def as_inputs(prepared: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Turn what `preprocess` returned into the input of a torch module.

    Parameters
    ----------
    prepared : tensor, array, mapping of them, or list
    device : torch.device
    dtype : torch.dtype or None
        Type for numbers in single precision; None leaves their type.

    Returns
    -------
    tensor, dict or object
        A dict for a mapping. Lists of arrays of one shape become one tensor. What is not an
        array stays.
    """
    if isinstance(prepared, Mapping):
        return {name: _as_tensor(value, device, dtype, name) for name, value in prepared.items()}
    return _as_tensor(prepared, device, dtype)


def _as_tensor(
    value: Any, device: torch.device, dtype: torch.dtype | None, name: str | None = None
) -> Any:
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(one, torch.Tensor) for one in value):
            if len({one.shape for one in value}) == 1:
                value = torch.stack(list(value))
        elif all(isinstance(one, (list, np.ndarray, int, float)) for one in value):
            try:
                value = np.asarray(value)
            except ValueError as error:
                if name is None:
                    return value
                raise ValueError(
                    f"preprocess returned {name!r} of differing lengths; expected one length a "
                    "batch. Fill them up: functools.partial(tokenizer, padding=True, "
                    "return_tensors='pt'), or truncation=True for texts that are too long."
                ) from error
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(np.require(value, requirements=["C", "W"]))
    if not isinstance(value, torch.Tensor):
        return value
    value = value.to(device)
    # Weights in double or half precision take no float32.
    return value.to(dtype) if value.dtype == torch.float32 and dtype is not None else value


def _as_pillow(image: np.ndarray) -> Any:
    from PIL import Image

    if image.dtype != np.uint8:
        raise TypeError(
            f"preprocess takes Pillow images, and X holds {image.dtype}. Give uint8 images or "
            "image files, or transforms without ToTensor, which take a batch of tensors."
        )
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def _class_names(thing: Any) -> set[str]:
    return {cls.__name__ for cls in type(thing).__mro__}
