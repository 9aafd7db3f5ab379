"""Intra-processing: distillation of group thresholds into one network."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from skfair.base._net import TensorData, TensorNet, one_cycle
from skfair.intraprocessing._finetuning import FinetuningDebiaser
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._search import Search, named_parameters
from skfair.metrics._rates import group_statistic

_MIN_STEPS = 10
# How far to go from the original network to the distilled one, and beyond: where the inputs
# tell the group only in part, the network learns only a part of each shift.
_STEPS = np.linspace(0.2, 3.0, 15)
# Share of the shifts that the distilled network has learned at least; of less, the line is made
# longer.
_LEAST_WAY, _SHORTEST_WAY = 0.5, 0.02
_ADDED = 20  # rows of all groups, to each


class DistillationDebiaser(FinetuningDebiaser):
    """Teach a trained network to do with one threshold what group thresholds do.

    Of all predictions from a score and the group, those by a threshold for each group cost the
    least performance; but they need the group of whoever is predicted. Here the network takes
    them over:

    1. *Group thresholds* :math:`t_a` at which the groups are alike, and the network performs
       best, are found exactly from the scores of the original network.
    2. *Distil.* All layers are regressed onto :math:`f(x) - t_a`, the logit that these
       thresholds make of the original one, *f*. No labels are used.
    3. *Walk the line.* From the original weights :math:`\\theta_0` through the distilled ones
       :math:`\\theta_1`, networks :math:`\\theta_0 + \\lambda(\\theta_1 - \\theta_0)` are judged
       with their exact thresholds, and the best is taken. Where the group is no feature of X,
       what stands for it tells the network only a part of the shift, and :math:`\\lambda`
       beyond 1 makes up for it.

    Predicting needs no group. Where the group, or what stands for it, is among the features,
    the network *uses* it; whether that is wanted, and lawful, is for you to say.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net or skfair classifier
        The trained network; also in a :class:`~sklearn.frozen.FrozenEstimator`, which a search
        or a clone of a fitted net needs, since clones are not fitted. It maps a batch to one
        logit or probability a row, or to two. It is copied and never changed. A skorch net
        that is not fitted yet is cloned and fitted first, on the rows that tune the weights.
    constraint : {"demographic_parity", "equal_opportunity", "average_odds", \
"equalized_odds"}, default="demographic_parity"
        What must be nearly equal between groups: the share predicted positive; the true
        positive rate; the mean of true and false positive rate; or each of the two. With two
        groups the bias is the value of the first group (in sorted order) less that of the
        second; with more, and for "equalized_odds", the largest difference.
    epsilon : float, default=0.05
        The constraint: the bias lies between ``-epsilon`` and ``epsilon``.
    performance : {"balanced_accuracy", "accuracy", "f1"} or callable, \
default="balanced_accuracy"
        What to keep high; a callable is ``f(y_true, y_pred)``.
    validation_fraction : float, default=0.3
        Share of the rows, of each group and class alike, on which no weights are tuned. They
        judge the candidates, and all that is said of the result is measured on them.
    lr : float, default=0.004
        Learning rate of Adam at its peak: it rises in the first tenth of the steps, and falls
        to zero.
    batch_size : int, default=256
        Rows in a batch; fewer where that would make less than ten batches of the data.
    max_epochs : int, default=6
        Passes over the rows that tune the weights.
    confidence : float, "auto" or None, default="auto"
        How sure it must be that the constraint holds. "auto" maximises (performance - chance)
        times the probability that it holds on new rows, twice as many as it is measured on,
        among candidates whose measured bias meets it; with more than two groups (performance -
        chance) less twice the expected excess of the largest difference over `epsilon`. A float
        between 0 and 1 asks for a certificate at that confidence on rows of its own, see
        `certificate_`. None asks that the measured bias is below ``epsilon - margin``, the
        published rule.
    margin : float, default=0.01
        Used with ``confidence=None`` only.
    small_groups : {"shrink", "exclude", "error"}, default="shrink"
        Groups with fewer than ten rows that a rate is of. "shrink" draws the rates of all of
        more than two groups towards each other, those of few rows the most; "exclude" leaves
        small groups out of the constraint, since what they get cannot be estimated; "error"
        refuses them. A warning names them in each case.
    calibration_fraction : float, default=0.5
        Share of the rows that are kept for the certificate, of each group alike. Used with a
        number as `confidence` only.
    output : {"auto", "logits", "probabilities"}, default="auto"
        What the network puts out. "auto" knows it of skorch nets and skfair classifiers, and
        finds it out from the outputs, or raises where they could be either.
    classes : array-like of shape (2,), default=None
        The labels in the order of the network's outputs; of a single output, the label of a large
        one comes second. That is the positive class. None takes the order that a skorch net or
        skfair classifier has learned, and else sorts the labels.
    device : str or torch.device, default="auto"
        Where to search and predict; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the split of the rows and the batches. The same int gives the same bits on the
        same device.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        Class labels, sorted.
    n_features_in_ : int
        Second dimension of X: features, or channels of an image.
    module_ : torch.nn.Module
        The debiased network, with the threshold folded into its output: inputs and outputs
        are those of the original network, and the usual threshold is the right one.
    threshold_ : float
        What was subtracted from the network's logit, that of the positive class less that of the
        other.
    bias_, performance_ : float
        Bias and performance, measured on rows that tuned no weights, by cross-validation of
        the choice; with a certificate on its calibration rows.
    objective_ : float
        What was maximised.
    bias_interval_ : tuple of two floats
        A 95 % interval for the bias in the population, from the sampling error of the rates.
    feasible_ : bool
        Whether the constraint holds on new rows with an estimated probability of 0.8 or more;
        with a number as `confidence`, whether the certificate holds.
    pairs_ : DataFrame
        The difference of each two groups: "rate", "group_1", "group_2", "difference", "low" and
        "high" (95 % interval), and "probability" (of this pair to be within `epsilon` on new
        rows). Without rows for a callable constraint.
    certificate_ : FairnessCertificate or None
        What was shown at the stated confidence; None without one.
    interrupted_ : bool
        Whether Ctrl-C ended the search early.
    trials_ : DataFrame
        A row a candidate: "candidate", "threshold", "bias", "performance", "probability" (of
        the constraint to hold on new rows), "objective" and "feasible". Row 0 is the original
        network at its own threshold, row 1 the same with the best one. As they looked in the
        choice, where the best looks too good; the row of `best_trial_` as it is reported.
        "step" is :math:`\\lambda`.
    best_trial_ : int
        Row of the one that was taken.
    history_ : DataFrame
        Loss of each epoch, on the rows that tune the weights.

    Warns
    -----
    LabelOrderWarning
        The network does worse than guessing on the debiasing rows: its classes seem to be in
        another order.
    InfeasibleConstraintWarning
        No candidate is likely enough to hold the constraint, or none is certified; the nearest
        one was taken.
    FallbackWarning
        No candidate was better than the original network, as it is or with another threshold.
    InterruptedSearchWarning
        Ctrl-C ended the search; the best candidate so far was taken.
    OverfitWarning
        The bias on the rows that tuned the weights is another one than on the others.
    SmallGroupWarning
        A rate that the constraint compares is one of fewer than ten samples.

    See Also
    --------
    BiasGradientDebiaser : Follows the gradient of the bias instead.
    fairlearn.postprocessing.ThresholdOptimizer : Group thresholds themselves; needs the
        sensitive feature to predict.

    Notes
    -----
    The weights move with the network in eval mode, so that running statistics of
    normalisation layers stay as they are, and nothing is dropped out. Parameters with
    ``requires_grad=False`` stay too.

    Under "equalized_odds" no group thresholds make both rates alike; those that equalise the
    mean of the two show the way, and the constraint itself decides on the line.

    Examples
    --------
    >>> import numpy as np, torch
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 2000))
    >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
    >>> network = torch.nn.Linear(2, 1)  # stands for one that was trained
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
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
            device=device,
            random_state=random_state,
            verbose=verbose,
        )

    def _search(self, search: Search) -> None:
        known = search.objective.take(search.tune)
        shift = fair_thresholds(known, search.scores[search.tune])[search.objective.codes]
        # One threshold for all is found later: the network need not learn what they share.
        wanted = shift[search.tune].mean() - shift
        self._distil(search, search.scores + wanted)
        start = {name: search.original[name] for name in named_parameters(search.network)}
        way = {
            name: parameter.detach() - start[name]
            for name, parameter in named_parameters(search.network).items()
        }

        # A network of few large weights, a linear one say, comes not far in a short training.
        made, asked = search.score(search.tune) - search.scores[search.tune], wanted[search.tune]
        way_made = (made @ asked) / max(asked @ asked, 1e-9)
        for step in _STEPS * np.clip(_LEAST_WAY / max(way_made, 1e-9), 1, 1 / _SHORTEST_WAY):
            moved = {name: start[name] + float(step) * way[name] for name in start}
            search.go_to(search.original | moved)
            search.consider(candidate="distilled", step=float(step))

    def _distil(self, search: Search, target: np.ndarray) -> None:
        rows = torch.as_tensor(search.tune, device=search.device)
        wanted = torch.as_tensor(target, dtype=search.dtype, device=search.device)[rows]
        data = TensorData(wanted, X=search.X[rows])
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
    """Find thresholds, one a group, at which the groups are alike and the performance best.

    At each level of what is to be equal, say the share of positive predictions, every group
    has one threshold that gives it; the best level is taken. Of more than two groups, each is
    seen with some rows of all groups added, so that the threshold of a group of few rows stays
    near the one of all.

    Returns
    -------
    ndarray of shape (n_groups,)
    """
    # No thresholds give two groups both rates alike; their mean stands for them.
    rates = sorted({rate for rates in objective.statistics for rate in rates})
    levels = (np.arange(n_levels) + 0.5) / n_levels
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(float)
    # Positive predictions of each cell of group and label, at each threshold between two scores.
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
