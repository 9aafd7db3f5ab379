"""Patch attribution, confidence: how sure the region classifier is, which is what maps show."""

import torch


def _probability(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    # A confident "it is not here" counts as nothing, so that an image without the attribute has
    # a dark map. Of many values, none of which is known to mean "absent", the likeliest counts,
    # by how much it is above guessing.
    if positive is not None:
        return probability[:, positive]
    chance = 1 / probability.shape[1]
    return ((probability.amax(1) - chance) / (1 - chance)).clamp(min=0)


def _negative_entropy(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    # Equation 4 of the paper prints the entropy itself; its name, its use and the released code
    # mean this: the surer, the higher.
    return torch.special.entr(probability).sum(1).neg()


def _top(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    return probability.amax(1)


def _margin(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    first, second = probability.topk(2, dim=1).values.unbind(1)
    return first - second


# From probabilities of shape (n, n_classes, ...), and the class that means "it is here" where
# there is one, to confidences of shape (n, ...).
CONFIDENCES = {
    "probability": _probability,
    "negative_entropy": _negative_entropy,
    "top": _top,
    "margin": _margin,
}
