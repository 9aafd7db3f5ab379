"""Intra-processing: distillation of group thresholds into one network."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from skfair.intraprocessing._finetuning import FinetuningDebiaser
from skfair.intraprocessing._objective import CONSTRAINTS, RATES, Objective
from skfair.intraprocessing._search import Search, named_parameters
from skfair.utils._net import TensorData, TensorNet

_MIN_STEPS = 10
# How far to go from the original network to the distilled one, and beyond: where the inputs
# tell the group only in part, the network learns only a part of each shift.
_COARSE = np.linspace(0.2, 2.0, 10)
_FINE = np.array([-0.1, -0.05, 0.05, 0.1])


class DistillationDebiaser(FinetuningDebiaser):
    """placeholder"""

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        validation_fraction: float = 0.3,
        lr: float = 3e-3,
        batch_size: int = 256,
        max_epochs: int = 12,
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

    def _search(self, search: Search) -> None:
        known = search.objective.take(search.known)
        shift = fair_thresholds(known, search.scores[search.known])[search.objective.codes]
        target = search.scores - shift
        self._distil(search, target)
        start = {name: search.original[name] for name in named_parameters(search.network)}
        way = {
            name: parameter.detach() - start[name]
            for name, parameter in named_parameters(search.network).items()
        }

        def walk(steps: np.ndarray) -> np.ndarray:
            objectives = []
            for step in steps:
                moved = {name: start[name] + float(step) * way[name] for name in start}
                search.network.load_state_dict(search.original | moved)
                scores = search.score(np.arange(len(search.X)))
                scores = self._without_optimism(search, scores, search.scores - step * shift)
                choice = search.consider(
                    scores[None, search.select],
                    lambda _: search.state(),
                    candidate="distilled",
                    step=float(step),
                )
                objectives.append(choice.objective[0])
            return np.array(objectives)

        best = _COARSE[walk(_COARSE).argmax()]
        walk(best + _FINE)

    def _distil(self, search: Search, target: np.ndarray) -> None:
        rows = torch.as_tensor(search.tune, device=search.device)
        wanted = torch.as_tensor(target, dtype=search.X.dtype, device=search.device)[rows]
        data = TensorData(wanted, X=search.X[rows])
        batch_size = min(self.batch_size, max(1, len(data) // _MIN_STEPS))
        n_steps = self.max_epochs * -(-len(data) // batch_size)
        net = TensorNet(
            search.network,
            nn.MSELoss,
            criterion__reduction="none",
            lr=self.lr,
            batch_size=batch_size,
            max_epochs=self.max_epochs,
            optimizer=torch.optim.Adam,
            optimizer__fused=True,
            iterator_train__shuffle=True,
            callbacks=[
                LRScheduler(
                    OneCycleLR,
                    step_every="batch",
                    event_name=None,
                    max_lr=self.lr,
                    total_steps=n_steps + 1,
                    pct_start=0.1,
                    cycle_momentum=False,
                )
            ],
            device=search.device,
        )
        self._train(net, data)

    def _without_optimism(
        self, search: Search, scores: np.ndarray, target: np.ndarray
    ) -> np.ndarray:
        """Take from the tuned rows what the network knows of their groups by heart.

        In each group, their mean residual is made that of the held-out rows.
        """
        residual = scores - target
        tuned = np.zeros(len(scores), dtype=bool)
        tuned[search.tune] = True
        corrected = scores.copy()
        for group in range(search.objective.n_groups):
            rows = search.objective.codes == group
            if (rows & tuned).any():
                corrected[rows & tuned] += (
                    residual[rows & ~tuned].mean() - residual[rows & tuned].mean()
                )
        return corrected


def fair_thresholds(objective: Objective, scores: np.ndarray, n_levels: int = 200) -> np.ndarray:
    """Find thresholds, one a group, at which the groups are alike and the performance best.

    At each level of what is to be equal, say the share of positive predictions, every group
    has one threshold that gives it; the best level is taken.

    Returns
    -------
    ndarray of shape (n_groups,)
    """
    # No thresholds give two groups both rates alike; their mean stands for them.
    rates = sorted({rate for rates in CONSTRAINTS[objective.constraint] for rate in rates})
    levels = (np.arange(n_levels) + 0.5) / n_levels
    thresholds = np.empty((n_levels, objective.n_groups))
    counts = np.empty((n_levels, objective.n_groups, 2))
    for group in range(objective.n_groups):
        rows = objective.codes == group
        order = np.argsort(-scores[rows], kind="stable")
        ordered, label = scores[rows][order].astype(float), objective.y[rows][order]
        hits = np.zeros((len(ordered) + 1, 2))
        hits[1:, 1], hits[1:, 0] = np.cumsum(label), np.cumsum(1 - label)
        negatives, positives = hits[-1]
        level = np.mean(
            [np.divide(*RATES[r](hits[:, 1], hits[:, 0], positives, negatives)) for r in rates], 0
        )
        k = np.searchsorted(level, levels)
        ends = np.concatenate([[ordered[0] + 1], ordered, [ordered[-1] - 1]])
        thresholds[:, group] = 0.5 * (ends[k] + ends[k + 1])
        counts[:, group] = hits[k]
    choice = objective._evaluate(levels, counts, None)
    return thresholds[choice.best()]
