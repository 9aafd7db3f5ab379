"""Intra-processing: distillation of group thresholds into one network."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from skfair.base._net import TensorData, TensorNet, one_cycle
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._finetuning import FinetuningDebiaser
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._search import Search, named_parameters
from skfair.metrics._rates import group_statistic

_MIN_STEPS = 10
# Steps from the original network (0) through the distilled one (1) and beyond: if the inputs tell
# the group only in part, the network learns only a part of each shift.
_STEPS = np.linspace(0.2, 3.0, 15)
# Share of the shifts that the distilled network should have learned. If it has learned less, the
# steps are longer.
_LEAST_WAY, _SHORTEST_WAY = 0.5, 0.02
_ADDED = 20  # rows of all groups, added to each group


@fill_docstring
class DistillationDebiaser(FinetuningDebiaser):
    """Teach a trained network to do with one threshold what group thresholds do.

    Of all predictions from a score and the group, those with one threshold for each group cost
    the least performance. But they need the group at prediction. This debiaser builds the
    group thresholds into the network:

    1. *Group thresholds*: from the scores of the original network, thresholds :math:`t_a` are
       found exactly, at which the groups are alike and the network performs best.
    2. *Distillation*: all layers are regressed onto :math:`f(x) - t_a`, the logit *f* of the
       original network shifted by these thresholds. No labels are used.
    3. *Line search*: on the line from the original weights :math:`\\theta_0` through the
       distilled weights :math:`\\theta_1`, each network
       :math:`\\theta_0 + \\lambda(\\theta_1 - \\theta_0)` is judged with its exact best threshold,
       and the best network is taken. If the group is not a feature of X, the proxies of the
       group tell the network only a part of the shift; :math:`\\lambda` above 1 makes up for it.

    Predictions need no group. If the group or a proxy of it is among the features, the network
    *uses* it. Whether that is wanted and lawful is your decision.

    Parameters
    ----------
    {estimator}
    {constraint_by_name}
    {epsilon}
    {performance}
    {validation_fraction}
    lr : float, default=0.004
        Highest learning rate of Adam. The rate rises to it in the first tenth of the steps, and
        then falls to zero.
    batch_size : int, default=256
        Rows in a batch; fewer if the data would give less than ten batches.
    max_epochs : int, default=6
        Passes over the rows that tune the weights.
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {parameters}
    {device}
    {random_state}
        Seeds the split of the rows and the order of the batches.
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
        Column "step" is :math:`\\lambda`.
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

    See Also
    --------
    BiasGradientDebiaser : Follows the gradient of the bias instead.
    fairlearn.postprocessing.ThresholdOptimizer : Group thresholds themselves; needs the
        sensitive feature to predict.

    Notes
    -----
    {eval_mode}

    With "equalized_odds", no group thresholds make both rates alike. The thresholds that
    equalise the mean of the two rates are distilled, and the constraint itself decides on the
    line.

    Examples
    --------
    {biased_network}
    >>> debiaser = DistillationDebiaser(network, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    """

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        validation_fraction: float = 0.3,
        lr: float = 4e-3,
        batch_size: int = 256,
        max_epochs: int = 6,
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

    def _search(self, search: Search) -> None:
        known = search.objective.take(search.tune)
        shift = fair_thresholds(known, search.scores[search.tune])[search.objective.codes]
        # One threshold for all is found later, so that the network need not learn the mean shift.
        wanted = shift[search.tune].mean() - shift
        self._distil(search, search.scores + wanted)
        original = search.original
        way = {
            name: parameter.detach() - original[name]
            for name, parameter in named_parameters(search.network).items()
        }

        # A network of few large weights (a linear one) does not get far in a short training.
        made, asked = search.score(search.tune) - search.scores[search.tune], wanted[search.tune]
        way_made = (made @ asked) / max(asked @ asked, 1e-9)

        # Not with `search` inside, which keeps this function: such circles live on for a while.
        def moved(step: float) -> dict[str, torch.Tensor]:
            return original | {n: (step * each).add_(original[n]) for n, each in way.items()}

        for step in _STEPS * np.clip(_LEAST_WAY / max(way_made, 1e-9), 1, 1 / _SHORTEST_WAY):
            again = partial(moved, float(step))
            search.go_to(again)
            search.consider(state={0: again}.__getitem__, candidate="distilled", step=float(step))

    def _distil(self, search: Search, target: np.ndarray) -> None:
        rows = torch.as_tensor(search.tune, device=search.device)
        wanted = torch.as_tensor(target, dtype=search.dtype, device=search.device)[rows]
        data = TensorData(wanted, X=search.X.take(search.tune))
        batch_size = min(self.batch_size, max(1, len(data) // _MIN_STEPS))
        n_steps = self.max_epochs * -(-len(data) // batch_size)
        self._train(
            TensorNet,
            search.network,
            nn.MSELoss,
            data,
            one_cycle(self.lr, n_steps, anneal="cos"),
            criterion__reduction="none",
            device=search.device,
            batch_size=batch_size,
            iterator_train__shuffle=True,
        )


def fair_thresholds(objective: Objective, scores: np.ndarray, n_levels: int = 200) -> np.ndarray:
    """Find one threshold for each group: the groups are alike, and the performance is the best.

    At each level of the compared rate, for example the selection rate, every group has one
    threshold that reaches the level. The best level is taken. With more than two groups, some
    rows of all groups are added to each group, so that the threshold of a group of few rows
    stays near the common threshold.

    Returns
    -------
    ndarray of shape (n_groups,)
    """
    # No thresholds make both rates of equalized odds alike; the mean of both is made alike.
    rates = sorted({rate for rates in objective.statistics for rate in rates})
    levels = (np.arange(n_levels) + 0.5) / n_levels
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(float)
    # Positive predictions in each cell of group and label, at each threshold between two scores.
    hits = np.zeros((2 * objective.n_groups, len(ordered) + 1))
    for cell in range(len(hits)):
        np.cumsum(objective.cell[order] == cell, out=hits[cell, 1:])
    by_group = hits.reshape(objective.n_groups, 2, -1)
    seen = by_group
    if objective.n_groups > 2:
        seen = by_group + _ADDED / len(ordered) * by_group.sum(0)
    totals = seen[..., -1:]
    level = group_statistic(rates, seen[:, 1], seen[:, 0], totals[:, 1], totals[:, 0])
    k = np.stack([np.searchsorted(each, levels) for each in level])
    ends = np.concatenate([[ordered[0] + 1], ordered, [ordered[-1] - 1]])
    thresholds = 0.5 * (ends[k] + ends[k + 1]).T
    at_levels = np.take_along_axis(by_group, k[:, None], axis=2)
    counts = at_levels.reshape(-1, n_levels).T[..., None]
    predicted = None
    if callable(objective.performance):
        predicted = scores > thresholds[:, objective.codes]
    choice = objective._evaluate(levels, counts, predicted)[0]
    return thresholds[choice.best()]
