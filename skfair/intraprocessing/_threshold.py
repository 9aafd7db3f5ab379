"""Intra-processing, the baseline: another threshold on the original network."""

import torch
from torch import nn

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._search import Search


class ThresholdDebiaser(IntraprocessingDebiaser):
    """Give a trained network the threshold at which a fairness constraint holds.

    The weights stay as they are. This is the baseline of intra-processing [1]_: what a search
    over weights gains, it has to gain over this. One threshold for all groups lowers most
    disparities only by predicting nearly all rows the same; see :class:`DistillationDebiaser`
    for what does better.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net or skfair classifier
        The trained network; also in a :class:`~sklearn.frozen.FrozenEstimator`, which a search
        or a clone of a fitted net needs, since clones are not fitted. It maps a batch to one
        logit or probability a row, or to two. It is copied and never changed. A skorch net
        that is not fitted yet is cloned and fitted first, on 70 % of the debiasing rows, and
        judged on the others.
    constraint : {"demographic_parity", "equal_opportunity", "average_odds", \
"equalized_odds"} or callable, default="demographic_parity"
        What must be nearly equal between groups: the share predicted positive; the true
        positive rate; the mean of true and false positive rate; or each of the two. With two
        groups the bias is the value of the first group (in sorted order) less that of the
        second; with more, and for "equalized_odds", the largest difference. A callable
        ``f(y_true, y_pred, *, sensitive_features)`` returns the bias itself, from labels 0
        and 1; fairlearn's ``*_difference`` functions are such.
    epsilon : float, default=0.05
        The constraint: the bias lies between ``-epsilon`` and ``epsilon``.
    performance : {"balanced_accuracy", "accuracy", "f1"} or callable, \
default="balanced_accuracy"
        What to keep high; a callable is ``f(y_true, y_pred)``.
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
        Seeds the folds by which the choice is cross-validated, and the split of the rows of a
        certificate. The same int gives the same bits on the same device.
    verbose : int, default=0
        Of no effect here.

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
        Bias and performance, by cross-validation of the choice; with a certificate on its
        calibration rows.
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
    best_trial_ : int
        Row of the one that was taken.

    Warns
    -----
    LabelOrderWarning
        The network does worse than guessing on the debiasing rows: its classes seem to be in
        another order.
    InfeasibleConstraintWarning
        No candidate is likely enough to hold the constraint, or none is certified; the nearest
        one was taken.
    SmallGroupWarning
        A rate that the constraint compares is one of fewer than ten samples.

    See Also
    --------
    fairlearn.postprocessing.ThresholdOptimizer : A threshold for each group; needs the
        sensitive feature to predict.

    References
    ----------
    .. [1] Y. Savani, C. White, N. S. Govindarajulu, "Intra-Processing Methods for Debiasing
       Neural Networks", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np, torch
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 2000))
    >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
    >>> network = torch.nn.Linear(2, 1)  # stands for one that was trained
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
    >>> debiaser = ThresholdDebiaser(network, epsilon=0.1)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    >>> debiaser.predict(X[:3]).shape
    (3,)
    """

    def _check_network(self, network: nn.Module, rows: torch.Tensor) -> None:
        """Any network will do: its weights stay."""

    def _search(self, search: Search) -> None:
        """Nothing to search: the original network with its best threshold is a candidate."""
