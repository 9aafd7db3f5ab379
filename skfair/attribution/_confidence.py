"""Patch attribution, confidence: how sure the region classifier is, which is what maps show."""

import torch


def _negative_entropy(probability: torch.Tensor) -> torch.Tensor:
    # Equation 4 of the paper prints the entropy itself; its name, its use and the released code
    # mean this: the surer, the higher.
    return torch.special.entr(probability).sum(1).neg()


def _top(probability: torch.Tensor) -> torch.Tensor:
    return probability.amax(1)


def _margin(probability: torch.Tensor) -> torch.Tensor:
    first, second = probability.topk(2, dim=1).values.unbind(1)
    return first - second


# From probabilities of shape (n, n_classes, ...) to confidences of shape (n, ...).
CONFIDENCES = {"negative_entropy": _negative_entropy, "top": _top, "margin": _margin}
