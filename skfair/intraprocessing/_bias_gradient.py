"""Intra-processing: bias gradient descent/ascent."""

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch import nn

from skfair.intraprocessing._finetuning import FinetuningDebiaser, TuningRows
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._soft_bias import SoftBias


class _ProximalBias(nn.Module):
    """Size of the soft bias, and the mean square of what the logits have moved."""

    def __init__(self, bias: SoftBias, proximity: float):
        super().__init__()
        self.bias = bias
        self.proximity = proximity

    def forward(self, logit: torch.Tensor, rows: TuningRows) -> torch.Tensor:
        moved = (rows.weight * (logit - rows.original).square()).mean()
        return self.bias(logit, rows.cell, rows.weight).abs() + self.proximity * moved


class BiasGradientDebiaser(FinetuningDebiaser):
    """Fine-tune a trained network down the gradient of its bias.

    The bias is made differentiable by putting :math:`\\sigma(f(x) - t)` in place of the
    prediction, with *t* the threshold at which the original network performs best. All layers
    go down

    .. math:: |\\mu(f)| + \\rho\\, E[(f(x) - f_0(x))^2],

    the size of this soft bias and what the logits have moved from those of the original
    network, :math:`f_0`. After each epoch the network is a candidate, with its exact
    threshold. This is bias gradient descent/ascent [1]_, with a step that does not have to be
    tiny, since the second term, not an early end, keeps the performance.

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
    proximity : float, default=0.1
        The weight :math:`\\rho`; at 0 only the bias counts.
    validation_fraction : float, default=0.3
        Share of the rows, of each group and class alike, on which no weights are tuned. They
        judge the candidates, and all that is said of the result is measured on them.
    lr : float, default=0.001
        Learning rate of Adam.
    batch_size : int, default=512
        Rows in a batch, as many of each group and class as of any other; one that has fewer
        gives all of its rows. The weights of the rows make up for it.
    max_epochs : int, default=24
        Passes over the rows that tune the weights, each of ten batches at least.
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
        "epoch" counts from 1.
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

    Notes
    -----
    The published algorithm chooses between descent and ascent once, by the sign of the first
    bias, and has no second term; with its learning rate of 1e-5 it ends before the bias has
    fallen on small data. Here the sign is that of each batch.

    The network stays in eval mode: running statistics of normalisation layers do not move,
    and nothing is dropped out. Parameters with ``requires_grad=False`` stay too.

    References
    ----------
    .. [1] R. Marcinkevics, E. Ozkan, J. E. Vogt, "Debiasing Deep Chest X-Ray Classifiers using
       Intra- and Post-processing Methods", MLHC 2022.

    Examples
    --------
    >>> import numpy as np, torch
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 2000))
    >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
    >>> network = torch.nn.Linear(2, 1)  # stands for one that was trained
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
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
        self.proximity = proximity

    def _search(self, search: Search) -> None:
        self._finetune(search, _ProximalBias(self._soft_bias(search), self.proximity))
