"""Intra-processing: fine-tuning on the loss of the worst group."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import nn

from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._finetuning import FinetuningDebiaser, TuningRows
from skfair.intraprocessing._search import Search


class _WorstGroupLoss(nn.Module):
    """Mean loss of each group, weighted by weights that grow with that loss (Algorithm 1)."""

    log_weight: torch.Tensor

    def __init__(self, n_cells: int, step_size: float):
        super().__init__()
        self.step_size = step_size
        self.register_buffer("log_weight", torch.zeros(n_cells).log_softmax(0))

    def forward(self, logit: torch.Tensor, rows: TuningRows) -> torch.Tensor:
        member = nn.functional.one_hot(rows.cell, len(self.log_weight)).to(logit.dtype)
        losses = nn.functional.binary_cross_entropy_with_logits(
            logit, rows.label.to(logit.dtype), reduction="none"
        )
        of_cell = (losses[None] @ member)[0] / member.sum(0).clamp_min(1)
        self.log_weight += self.step_size * of_cell.detach()
        self.log_weight -= self.log_weight.logsumexp(0)
        return (self.log_weight.exp() * of_cell).sum()


@fill_docstring
class GroupDRODebiaser(FinetuningDebiaser):
    """Fine-tune a trained network on the loss of its worst group.

    This is group distributionally robust optimisation (group DRO, Algorithm 1 of [1]_), from the
    trained network on. The groups are the subgroups of `sensitive_features` and label. Each has a
    weight :math:`q_g`, and the network goes down :math:`\\sum_g q_g \\ell_g`, where
    :math:`\\ell_g` is the mean cross-entropy of subgroup *g* in a batch. Before each step the
    weights are multiplied by :math:`\\exp(\\eta \\ell_g)` and normalised, so that the worst
    subgroup counts most. After each epoch the network is a candidate, with its exact best
    threshold.

    Group DRO raises the accuracy of the worst subgroup. It does not follow the constraint, which
    only decides between the candidates: where a constraint has to hold, try
    :class:`DistillationDebiaser` first.

    Parameters
    ----------
    {estimator}
    {constraint_by_name}
    {epsilon}
    {performance}
    step_size : float, default=0.01
        The step :math:`\\eta` of the weights of the subgroups. With 0, all subgroups count the
        same.
    {validation_fraction}
    {lr}
    {batch_size}
    {max_epochs}
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {parameters}
    {device}
    {random_state}
        Seeds the split of the rows and the batches.
    {verbose}

    Attributes
    ----------
    {classes_}
    {n_features_in_}
    {module_}
    {threshold_}
    {bias_}
    {performance_}
    {objective_}
    {bias_interval_}
    {feasible_}
    {pairs_}
    {certificate_}
    {interrupted_}
    {trials_}
        Column "epoch" counts from 1.
    {best_trial_}
    {history_}

    Warns
    -----
    {LabelOrderWarning}
    {InfeasibleConstraintWarning}
    {FallbackWarning}
    {InterruptedSearchWarning}
    {OverfitWarning}
    {SmallGroupWarning}

    Notes
    -----
    The paper draws each subgroup with the same probability and asks for strong regularisation,
    without which the training loss of every subgroup falls to zero. Here each batch has equally
    many rows of each subgroup, and candidates are judged on held-out rows after each epoch, which
    ends the training early. The group adjustment of section 3.3 of the paper is left out.

    {eval_mode}

    References
    ----------
    .. [1] S. Sagawa, P. W. Koh, T. B. Hashimoto, P. Liang, "Distributionally Robust Neural
       Networks for Group Shifts: On the Importance of Regularization for Worst-Case
       Generalization", ICLR 2020.

    Examples
    --------
    {biased_network}
    >>> debiaser = GroupDRODebiaser(network, epsilon=0.1, max_epochs=60, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    """

    _parameter_constraints: dict = {
        **FinetuningDebiaser._parameter_constraints,
        "step_size": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        step_size: float = 0.01,
        validation_fraction: float = 0.3,
        lr: float = 1e-3,
        batch_size: int = 512,
        max_epochs: int = 24,
        confidence: float | Literal["auto"] | None = "auto",
        margin: float = 0.01,
        small_groups: Literal["shrink", "exclude", "error"] = "shrink",
        calibration_fraction: float = 0.5,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        classes: ArrayLike | None = None,
        parameters: str | Sequence[str] | None = None,
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
            small_groups=small_groups,
            calibration_fraction=calibration_fraction,
            output=output,
            classes=classes,
            parameters=parameters,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.step_size = step_size

    def _search(self, search: Search) -> None:
        loss = _WorstGroupLoss(2 * search.objective.n_groups, self.step_size)
        self._finetune(search, loss.to(search.device, search.dtype))
