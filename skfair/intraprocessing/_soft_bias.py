"""Intra-processing by training: the bias with probabilities in place of predictions."""

import torch
from torch import nn

from skfair.metrics._rates import constraint_rates


class SoftBias(nn.Module):
    """A differentiable bias: probabilities replace predictions.

    The probability of a row is the sigmoid of its logit minus `threshold`, so rows close to the
    threshold have the largest gradients. Savani et al. 2020, arXiv 2006.08564, train against the
    bias of such soft scores.

    Parameters
    ----------
    constraint : str
        A key of :data:`~skfair.metrics._rates.CONSTRAINTS`.
    n_groups : int
        Number of groups.
    threshold : float
        Logit above which a row is predicted positive.
    """

    def __init__(self, constraint: str, n_groups: int, threshold: float):
        super().__init__()
        self.constraint = constraint
        self.n_groups = n_groups
        self.threshold = threshold

    def forward(
        self, logit: torch.Tensor, cell: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Compute the bias of sets of rows.

        Parameters
        ----------
        logit : tensor of shape (..., n_samples)
        cell : tensor of shape (..., n_samples), int64
            Twice the group, plus the label.
        weight : tensor of shape (..., n_samples)
            Number of rows of the population that each row represents.

        Returns
        -------
        tensor of shape (...)
            With two groups and one statistic, the statistic of the first group minus that of the
            second; otherwise the largest difference between two groups.
        """
        soft = torch.sigmoid(logit - self.threshold)
        member = nn.functional.one_hot(cell, 2 * self.n_groups).to(logit.dtype)
        totals = (weight[..., None, :] @ member).squeeze(-2).unflatten(-1, (-1, 2))
        hits = ((weight * soft)[..., None, :] @ member).squeeze(-2).unflatten(-1, (-1, 2))
        biases = []
        statistics = constraint_rates(
            self.constraint, hits[..., 1], hits[..., 0], totals[..., 1], totals[..., 0]
        )
        for rates in statistics:
            mean = sum(rate.hits / rate.size.clamp_min(1e-12) / len(rates) for rate in rates)
            if self.n_groups == 2 and len(statistics) == 1:
                return mean[..., 0] - mean[..., 1]
            biases.append(mean.amax(-1) - mean.amin(-1))
        return torch.stack(biases).amax(0)
