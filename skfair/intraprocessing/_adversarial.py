"""Intra-processing: adversarial fine-tuning."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
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
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._finetuning import CellBatches, FinetuningDebiaser
from skfair.intraprocessing._output_layer import HiddenActivations, find_output_layer
from skfair.intraprocessing._search import Search
from skfair.utils._random import own_draws


@fill_docstring
class AdversarialFinetuneDebiaser(FinetuningDebiaser):
    """Fine-tune a trained network against an adversary that sees its bias.

    With ``adversary="bias"``, a critic *g* learns to estimate the soft bias of a set of rows.
    All layers of the network then descend the cross-entropy of the labels times
    :math:`1 + \\lambda\\,|g|` (the adversarial fine-tuning of [1]_). With
    ``adversary="attribute"``, an adversary learns to predict the group from the logit. The
    part that helps the adversary is removed from the network's gradient, and the network moves
    against the adversary (equation 1 of [2]_, applied to a network that is already trained).
    After each epoch the network is a candidate, with its exact best threshold.

    Parameters
    ----------
    {estimator}
    {constraint_by_name}
    {epsilon}
    {performance}
    adversary : {"bias", "attribute"}, default="bias"
        What the adversary estimates: the bias of a set of rows, or the group of a row.
    critic : {"set", "flat"}, default="set"
        What *g* sees, with ``adversary="bias"``. "set": the logit, label and group of each row,
        averaged within groups and classes. "flat", as published: the hidden activations of a
        batch, concatenated row by row.
    penalty : float, default=20.0
        The weight :math:`\\lambda` of the estimated bias, with ``adversary="bias"``.
    alpha : float, default=3.0
        Weight of the move against the adversary, with ``adversary="attribute"``.
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
        Seeds the split of the rows, the batches and the adversary.
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
    The published critic has almost no effect. It sees neither labels nor groups, and the bias
    of one network differs too little between batches to learn from. Its estimate becomes a
    constant, and a constant has no gradient. In each step, the default critic sees many small
    sets in which the logits of each group are shifted at random, so that its gradient is close
    to the gradient of the bias itself. ``critic="flat"`` is kept for comparison, and needs a
    network that ends in a linear layer. The hinge of [1]_ stops the penalty where the bias
    reaches epsilon. Here the penalty goes on to zero bias, since a threshold that is to hold on
    new data needs some room.

    {eval_mode}

    References
    ----------
    {Savani_2020}
    .. [2] B. H. Zhang, B. Lemoine, M. Mitchell, "Mitigating Unwanted Biases with Adversarial
       Learning", AIES 2018.

    Examples
    --------
    {biased_network}
    >>> debiaser = AdversarialFinetuneDebiaser(network, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    """

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
        self.adversary = adversary
        self.critic = critic
        self.penalty = penalty
        self.alpha = alpha

    def _search(self, search: Search) -> None:
        bias, data = self._soft_bias(search), self._tuning_data(search)
        if self.adversary == "attribute":
            with own_draws():
                adversary = AttributeAdversary(bias, float(search.scores.std()))
            loss = AdversaryLoss(adversary.to(search.device, search.dtype), self.alpha)
            self._finetune(search, loss, TrainAdversary(data), data=data, net=ProjectedNet)
            return
        module, batches = None, CellBatches(data, self.batch_size)
        if self.critic == "flat":
            layer = find_output_layer(search.network, search.X[:64])
            if layer is None:
                raise ValueError(
                    "critic='flat' reads the input of the last linear layer of the network, and "
                    "the network in estimator does not end in one. Use critic='set'."
                )
            module = HiddenActivations(search.network, layer)
            with own_draws():
                critic: FlatCritic | SetCritic = FlatCritic(layer.in_features, batches.n_rows)
        else:
            with own_draws():
                critic = SetCritic(bias)
        critic = critic.to(search.device, search.dtype)
        trainer = TrainCritic(critic, bias, data, batches)
        against = CriticLoss(critic, self.penalty)
        self._finetune(search, against, trainer, data=data, module=module)
