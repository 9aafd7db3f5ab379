"""Hiding an attribute in images, beside the network that looks for it."""

import warnings

import torch

from benchmarks._floors.measure import Row
from benchmarks._growth import images
from skfair import PatchAttributionMasker

_IMAGES, _SIDE = 100, 128


def _transform():
    X, group = images(_IMAGES, _SIDE, 2)
    masker = PatchAttributionMasker(
        max_epochs=2, check_leakage=False, perturb_at_predict=True, device="cpu", random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noise, and short training
        masker.fit(X, sensitive_features=group)
    network, stride = masker.module_.network, masker.stride_
    batches = torch.from_numpy(X).contiguous(memory_format=torch.channels_last).float()
    batches = (batches / 255).split(masker.attribution_batch_size)

    def ours():
        masker.transform(X)

    def floor():
        with torch.inference_mode():
            for batch in batches:
                network.regions(batch, stride)

    return ours, floor


ROWS = [
    Row(
        f"transform of PatchAttributionMasker, {_IMAGES} images of {_SIDE} x {_SIDE}, default grid",
        "its network alone, over the same images in the same batches",
        1.2,
        _transform,
        repeats=5,
    )
]
