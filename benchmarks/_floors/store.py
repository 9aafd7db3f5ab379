"""A featurizer with ``memory=`` that finds its row."""

import tempfile

import numpy as np
import torch
from torch import nn

from benchmarks._floors.measure import Row
from skfair.featurize import FrozenEncoderFeaturizer


def layers():
    """The weights and layers of ResNet-18, from torch's own modules, without the additions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        made.append(nn.MaxPool2d(3, 2, 1))
        n_in = 64
        for n_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            if stride > 1:  # the weights of the shortcut; they run in turn with the others
                made += [nn.Conv2d(n_in, n_out, 1, 1, bias=False), nn.BatchNorm2d(n_out)]
                n_in = n_out
            for step in (stride, 1, 1, 1):
                made += [nn.Conv2d(n_in, n_out, 3, step, 1, bias=False), nn.BatchNorm2d(n_out)]
                made.append(nn.ReLU())
                n_in = n_out
        return nn.Sequential(*made, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def found(size):
    def prepare():
        encoder = layers()
        X = np.random.default_rng(0).integers(0, 256, (1, 3, size, size), dtype=np.uint8)
        memory = tempfile.mkdtemp()
        by_contents = FrozenEncoderFeaturizer(encoder, memory=memory).fit(X)
        by_name = FrozenEncoderFeaturizer(encoder, memory=memory, encoder_id="layers").fit(X)
        assert np.array_equal(by_contents.transform(X), by_name.transform(X))

        def ours():
            by_contents.transform(X)

        def named():
            by_name.transform(X)

        return ours, named

    return prepare


ROWS = [
    Row(
        what=f"features of one image of {size} px from the store, encoder of 11 million weights "
        "without encoder_id",
        floor="the same call with encoder_id",
        goal=1.6,
        prepare=found(size),
    )
    for size in (64, 224)
]
