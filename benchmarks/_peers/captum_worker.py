"""Train a network that detects an attribute in whole images, and explain it with captum.

    python captum_worker.py NAME,NAME given.npz answer.npz

This file runs in the environment of captum and imports nothing of skfair. `given` has "X" (uint8,
n x 3 x size x size) and "has" (0 and 1) to train on, "seed", the images "shown", which are to be
explained, and "scored", whose logits are wanted. If it has "target", this is the class of each
shown image whose evidence is mapped; otherwise it is the class that the network predicts. `answer`
has "logits", "fit" in processor seconds, and of each NAME its maps and the milliseconds of one.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parents[2]))
from benchmarks._small_network import logits, train_network


class TwoClasses(nn.Module):
    """A network of one logit as one of two."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logit = self.network(images)
        return torch.cat([-logit, logit], 1)


def integrated_gradients(network, images, mean, target):
    found = IntegratedGradients(network).attribute(images, mean, target=target, n_steps=50)
    # Single pixels are noise: the mean of a neighbourhood of five.
    return F.avg_pool2d(found.abs().sum(1), 5, stride=1, padding=2, count_include_pad=False)


def grad_cam(network, images, mean, target):
    layer = network.network.blocks[-1][2]
    found = LayerGradCam(network, layer).attribute(images, target=target, relu_attributions=True)
    return LayerAttribution.interpolate(found, images.shape[2:], "bilinear")[:, 0]


def occlusion(network, images, mean, target):
    found = Occlusion(network).attribute(
        images, (3, 8, 8), strides=(3, 4, 4), baselines=mean, target=target,
        perturbations_per_eval=25,
    )  # fmt: skip
    return found.sum(1)


METHODS = {
    "integrated gradients": integrated_gradients,
    "Grad-CAM": grad_cam,
    "occlusion": occlusion,
}


def main(names, given, answer):
    torch.set_num_threads(1)
    with np.load(given) as file:
        given = {name: file[name] for name in file.files}
    start = time.process_time()
    network = train_network(given["X"], given["has"], int(given["seed"]))
    answers = {"fit": time.process_time() - start, "logits": logits(network, given["scored"])}
    shown = torch.from_numpy(given["shown"]).float()
    predicted = logits(network, given["shown"]) > 0
    target = torch.from_numpy(given.get("target", predicted.astype(np.int64)))
    mean = torch.from_numpy(given["X"].mean((0, 2, 3))).float().reshape(1, -1, 1, 1)
    network = TwoClasses(network)
    for name in names.split(","):
        start = time.process_time()
        maps = [
            METHODS[name](network, part, mean.expand_as(part), classes).detach().numpy()
            for part, classes in zip(shown.split(16), target.split(16), strict=True)
        ]
        answers[f"{name}, ms"] = 1000 * (time.process_time() - start) / len(shown)
        answers[f"{name}, maps"] = np.concatenate(maps)
    np.savez(answer, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
