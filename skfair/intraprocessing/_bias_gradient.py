"""Intra-processing: bias gradient descent/ascent."""

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import nn

from skfair.intraprocessing._finetuning import FinetuningDebiaser
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._soft_bias import SoftBias


class _ProximalBias(nn.Module):
    """Size of the soft bias, and the mean square of what the logits have moved."""

    def __init__(self, bias: SoftBias, proximity: float):
        super().__init__()
        self.bias = bias
        self.proximity = proximity

    def forward(self, logit, target, weight):
        original, cell = target[:, 0], target[:, 1].long()
        moved = (weight * (logit - original).square()).mean()
        return self.bias(logit, cell, weight).abs() + self.proximity * moved


class BiasGradientDebiaser(FinetuningDebiaser):
    """placeholder"""

    _parameter_constraints: dict = {
        **FinetuningDebiaser._parameter_constraints,
        "proximity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        proximity: float = 0.1,
        validation_fraction: float = 0.3,
        lr: float = 1e-3,
        batch_size: int = 512,
        max_epochs: int = 24,
        confidence: float | Literal["auto"] | None = "auto",
        margin: float = 0.01,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        super().__init__(
            estimator,
            constraint=constraint,
            epsilon=epsilon,
            performance=performance,
            validation_fraction=validation_fraction,
            lr=lr,
            batch_size=batch_size,
            max_epochs=max_epochs,
            confidence=confidence,
            margin=margin,
            output=output,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.proximity = proximity

    def _search(self, search: Search) -> None:
        criterion = _ProximalBias(self._soft_bias(search), self.proximity)
        self._train_in_cells(search, self._tuning_data(search), criterion)
