"""Floors of FrozenEncoderFeaturizer on the CPU: plain loops over the same encoder."""

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks._floors.measure import Row
from skfair.featurize import FrozenEncoderFeaturizer

N_IMAGES, SIZE = 64, 224
BATCH_SIZE = 4  # of the plain loops; batches of 2 and 8 take as long, larger ones longer
# Of EfficientNet-lite0: expansion, channels, layers, kernel size, stride.
STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)


def convolution(n_in, n_out, size, stride=1, groups=1, activation=True):
    layers = [
        nn.Conv2d(n_in, n_out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
    ]
    return nn.Sequential(*layers, *[nn.ReLU6(inplace=True)] * activation)


class Block(nn.Module):
    """Inverted residual block of EfficientNet-lite, without squeeze and excitation."""

    def __init__(self, expansion, n_in, n_out, size, stride):
        super().__init__()
        n_inner = expansion * n_in
        self.layers = nn.Sequential(
            convolution(n_in, n_inner, 1) if expansion > 1 else nn.Identity(),
            convolution(n_inner, n_inner, size, stride, groups=n_inner),
            convolution(n_inner, n_out, 1, activation=False),
        )
        self.adds = n_in == n_out and stride == 1

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


def lite0():
    """A network of EfficientNet-lite0's shape and cost, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers, n_in = [convolution(3, 32, 3, 2)], 32
        for expansion, n_out, n_layers, size, stride in STAGES:
            for layer in range(n_layers):
                step = 1 if layer else stride
                layers.append(Block(expansion, n_in, n_out, size, step))
                n_in = n_out
        layers.append(convolution(n_in, 1280, 1))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def decoded(paths):
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    return np.stack(images)


def plain_loop(encoder, images, read, *, channels_last):
    features = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(read(images[start : start + BATCH_SIZE]))
            if channels_last:
                batch = batch.permute(0, 3, 1, 2)
            batch = batch.contiguous(memory_format=torch.channels_last).float().div_(255)
            features.append(encoder(batch).numpy())
    return np.concatenate(features)


def both(images, read=np.asarray, *, channels_last=True):
    """Both calls, after a check that they return the same features."""
    encoder = lite0()
    featurizer = FrozenEncoderFeaturizer(encoder).fit(images[:1])

    def ours():
        results["ours"] = featurizer.transform(images)

    def floor():
        results["floor"] = plain_loop(encoder, images, read, channels_last=channels_last)

    results = {}
    ours()
    floor()
    np.testing.assert_allclose(results["ours"], results["floor"], rtol=1e-3, atol=1e-4)
    return ours, floor


def random_images():
    return np.random.default_rng(0).integers(0, 256, (N_IMAGES, SIZE, SIZE, 3), dtype=np.uint8)


def channels_last():
    return both(random_images())


def channels_first():
    images = np.ascontiguousarray(random_images().transpose(0, 3, 1, 2))
    return both(images, channels_last=False)


def files():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    paths = []
    for number, image in enumerate(random_images()):
        # Smooth, since noise takes unusually long to decode.
        small = Image.fromarray(image[:28, :28])
        paths.append(Path(folder) / f"{number:02}.jpg")
        small.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return both(paths, decoded)


WHAT = f"transform, EfficientNet-lite0, {N_IMAGES} images of {SIZE} x {SIZE}, default parameters"
FLOOR = f"plain loop, channels last in memory, batches of {BATCH_SIZE}"
ROWS = [
    Row(f"{WHAT}: uint8 array, channels last", FLOOR, 1.15, channels_last, repeats=5),
    Row(f"{WHAT}: uint8 array, channels first", FLOOR, 1.15, channels_first, repeats=5),
    Row(f"{WHAT}: JPEG files", f"{FLOOR}, files read by Pillow", 1.15, files, repeats=5),
]
