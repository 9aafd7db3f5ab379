"""Intra-processing: adversarial fine-tuning."""

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from skfair.intraprocessing._critics import (
    AdversaryLoss,
    AttributeAdversary,
    CriticLoss,
    FlatCritic,
    ProjectedNet,
    SetCritic,
    TrainAdversary,
    TrainCritic,
)
from skfair.intraprocessing._finetuning import CellBatches, FinetuningDebiaser
from skfair.intraprocessing._output_layer import HiddenActivations, find_output_layer
from skfair.intraprocessing._search import Search


class AdversarialFinetuneDebiaser(FinetuningDebiaser):
    """placeholder"""

    _parameter_constraints: dict = {
        **FinetuningDebiaser._parameter_constraints,
        "adversary": [StrOptions({"bias", "attribute"})],
        "critic": [StrOptions({"set", "flat"})],
        "penalty": [Interval(Real, 0, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        adversary: Literal["bias", "attribute"] = "bias",
        critic: Literal["set", "flat"] = "set",
        penalty: float = 20.0,
        alpha: float = 3.0,
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
        self.adversary = adversary
        self.critic = critic
        self.penalty = penalty
        self.alpha = alpha

    def _search(self, search: Search) -> None:
        bias, data = self._soft_bias(search), self._tuning_data(search)
        if self.adversary == "attribute":
            adversary = AttributeAdversary(bias, float(search.scores.std())).to(search.device)
            loss = AdversaryLoss(adversary, self.alpha)
            self._train_in_cells(search, data, loss, TrainAdversary(data), net=ProjectedNet)
            return
        module, batches = None, CellBatches(data, self.batch_size)
        if self.critic == "flat":
            layer = find_output_layer(search.network, search.X[:64])
            if layer is None:
                raise ValueError(
                    "critic='flat' reads what goes into the last linear layer of the network, and "
                    "the network in estimator does not end in one. Use critic='set'."
                )
            module = HiddenActivations(search.network, layer)
            critic = FlatCritic(layer.in_features, batches.n_rows)
        else:
            critic = SetCritic(bias)
        critic = critic.to(search.device)
        trainer = TrainCritic(critic, bias, data, batches)
        self._train_in_cells(search, data, CriticLoss(critic, self.penalty), trainer, module=module)
