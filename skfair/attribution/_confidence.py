"""Patch attribution, confidence: how sure the region classifier is (Section 3.2 of the paper)."""

import torch


def _probability(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    # A confident "absent" counts as zero, so that an image without the attribute has a dark map.
    # With more than two values none is known to mean "absent": the highest probability counts,
    # scaled so that guessing is 0.
    if positive is not None:
        return probability[:, positive]
    chance = 1 / probability.shape[1]
    return ((probability.amax(1) - chance) / (1 - chance)).clamp(min=0)


def _negative_entropy(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    # Equation 4 of the paper prints the entropy itself, but its name, its use and the released code
    # take the negative: the surer, the higher.
    return torch.special.entr(probability).sum(1).neg()


def _top(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    return probability.amax(1)


def _margin(probability: torch.Tensor, positive: int | None = None) -> torch.Tensor:
    first, second = probability.topk(2, dim=1).values.unbind(1)
    return first - second


# Functions of the probabilities, shape (n, n_classes, ...), and of the class that means "the
# attribute is here", or None. They return confidences of shape (n, ...).
CONFIDENCES = {
    "probability": _probability,
    "negative_entropy": _negative_entropy,
    "top": _top,
    "margin": _margin,
}
