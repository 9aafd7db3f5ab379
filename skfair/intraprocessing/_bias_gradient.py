"""Intra-processing: bias gradient descent/ascent."""

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
from skfair.intraprocessing._soft_bias import SoftBias


class _ProximalBias(nn.Module):
    """Size of the soft bias, plus the weighted mean square of the change of the logits."""

    def __init__(self, bias: SoftBias, proximity: float):
        super().__init__()
        self.bias = bias
        self.proximity = proximity

    def forward(self, logit: torch.Tensor, rows: TuningRows) -> torch.Tensor:
        moved = (rows.weight * (logit - rows.original).square()).mean()
        return self.bias(logit, rows.cell, rows.weight).abs() + self.proximity * moved


@fill_docstring
class BiasGradientDebiaser(FinetuningDebiaser):
    """Fine-tune a trained network down the gradient of its bias.

    :math:`\\sigma(f(x) - t)` in place of the prediction makes the bias differentiable, where
    *t* is the threshold at which the original network performs best. All layers descend

    .. math:: |\\mu(f)| + \\rho\\, E[(f(x) - f_0(x))^2],

    the size of this soft bias plus the mean squared change of the logits from those of the
    original network, :math:`f_0`. After each epoch the network is a candidate, with its exact
    best threshold. This is the bias gradient descent/ascent of [1]_. Its step need not be tiny
    here, since the second term keeps the performance, not an early end.

    Parameters
    ----------
    {estimator}
    {constraint_by_name}
    {epsilon}
    {performance}
    proximity : float, default=0.1
        The weight :math:`\\rho`. With 0, only the bias counts.
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
    The published algorithm chooses once between descent and ascent, by the sign of the first
    bias, and has no second term. With its learning rate of 1e-5, it ends on small data before
    the bias has fallen. Here each batch has its own sign.

    {eval_mode}

    References
    ----------
    .. [1] R. Marcinkevics, E. Ozkan, J. E. Vogt, "Debiasing Deep Chest X-Ray Classifiers using
       Intra- and Post-processing Methods", MLHC 2022.

    Examples
    --------
    {biased_network}
    >>> debiaser = BiasGradientDebiaser(network, epsilon=0.1, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    """

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
        self.proximity = proximity

    def _search(self, search: Search) -> None:
        self._finetune(search, _ProximalBias(self._soft_bias(search), self.proximity))
