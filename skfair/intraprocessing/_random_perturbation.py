"""Intra-processing: random perturbation of the weights."""

from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch.func import functional_call, vmap

from skfair.base._networks import copied
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._search import Search, named_parameters
from skfair.utils._progress import progress_bar
from skfair.utils._settings import warning_filter, with_own_settings

_AT_ONCE = 16  # trials in one pass, and in one job


class RandomPerturbationDebiaser(IntraprocessingDebiaser):
    """Perturb the weights of a trained network at random, and keep what is fairest.

    Every weight is multiplied by a factor drawn from :math:`N(1, \\sigma^2)`; each of the
    `n_trials` networks gets its best threshold, and the best of them and of the original
    network is taken (random perturbation in [1]_). Nothing is trained, so that it works for
    any network and any constraint, and most of what it gains is the threshold's: see
    :class:`ThresholdDebiaser`, and :class:`DistillationDebiaser` for what does better.

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
    n_trials : int, default=101
        Perturbed networks to try.
    std : float, default=0.1
        Standard deviation of the factors.
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
    n_jobs : int or None, default=None
        Threads that run trials, as in joblib; the result does not depend on it.
    device : str or torch.device, default="auto"
        Where to search and predict; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the factors and the split of the rows. The same int gives the same bits on the same
        device.
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
    FallbackWarning
        No perturbed network was better than the original one, as it is or with another
        threshold.
    InterruptedSearchWarning
        Ctrl-C ended the search; the best candidate so far was taken.
    SmallGroupWarning
        A rate that the constraint compares is one of fewer than ten samples.

    Notes
    -----
    All trainable parameters are perturbed, the scale and shift of normalisation layers too,
    running statistics and parameters with ``requires_grad=False`` are not. Trials run several
    at once where :func:`torch.func.vmap` can, else one by one, with the same factors.

    The best of many noisy measurements looks better than it is: the more trials on few rows,
    the more optimistic ``bias_`` and ``bias_interval_``.

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
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 0.5]])), network.bias.fill_(-0.75)
    >>> debiaser = RandomPerturbationDebiaser(network, std=0.5, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, len(debiaser.trials_)
    (True, 103)
    """

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "std": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str | Callable = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        n_trials: int = 101,
        std: float = 0.1,
        confidence: float | Literal["auto"] | None = "auto",
        margin: float = 0.01,
        small_groups: Literal["shrink", "exclude", "error"] = "shrink",
        calibration_fraction: float = 0.5,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        classes: ArrayLike | None = None,
        n_jobs: int | None = None,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        super().__init__(
            estimator,
            constraint=constraint,
            epsilon=epsilon,
            performance=performance,
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
        self.n_trials = n_trials
        self.std = std
        self.n_jobs = n_jobs

    def _search(self, search: Search) -> None:
        parameters = named_parameters(search.network)
        together = _runs_together(
            copied(search.network), search.X[:2], _draw(parameters, [0, 1], search, self.std)
        )

        @with_own_settings  # in threads, which have their own
        def score(trials: list[int]) -> np.ndarray:
            weights = _draw(parameters, trials, search, self.std)
            # functional_call puts the weights into the network for a while: one a thread.
            run = _with_weights(copied(search.network))
            if together:
                return search.score(
                    search.scored,
                    lambda X: vmap(run, (0, None))(weights, X),
                    n_networks=_AT_ONCE,  # or the bits would depend on how many trials are left
                )
            singly = (partial(run, _pick(weights, i)) for i in range(len(trials)))
            return np.stack([search.score(search.scored, forward) for forward in singly])

        def block(start: int) -> list[int]:
            return list(range(start, min(start + _AT_ONCE, self.n_trials)))

        # Threads are started before there is work for them, and there may be few blocks.
        n_jobs = self.n_jobs if self.n_jobs is None else min(self.n_jobs, cpu_count())
        starts = range(0, self.n_trials, _AT_ONCE)
        scores = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
            delayed(score)(block(start)) for start in starts
        )

        def weights_of(trials: list[int], i: int) -> dict[str, torch.Tensor]:
            drawn = _draw(parameters, trials[i : i + 1], search, self.std)
            return search.original | _pick(drawn, 0)

        n_trials, show = self.n_trials, bool(self.verbose)
        with progress_bar("trials", total=n_trials, unit="trial", show=show) as bar:
            for start, part in zip(starts, scores, strict=True):
                search.consider(part, partial(weights_of, block(start)), candidate="perturbed")
                bar.update(len(part))


def _draw(
    parameters: Mapping[str, torch.Tensor], trials: list[int], search: Search, std: float
) -> dict[str, torch.Tensor]:
    """Perturbed weights of some trials, stacked; each trial has a seed of its own."""
    stacks: dict[str, list[torch.Tensor]] = {name: [] for name in parameters}
    for trial in trials:
        generator = torch.Generator().manual_seed(search.seed + trial)
        for name, parameter in parameters.items():
            noise = torch.randn(parameter.shape, generator=generator)
            factor = (1 + std * noise).to(parameter.device, parameter.dtype)
            stacks[name].append(search.original[name] * factor)
    return {name: torch.stack(stack) for name, stack in stacks.items()}


def _pick(weights: dict[str, torch.Tensor], position: int) -> dict[str, torch.Tensor]:
    return {name: stack[position] for name, stack in weights.items()}


def _with_weights(network: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """Make a function of weights, by name, and rows, that runs the network with these."""
    # Not tied by torch, which puts a layer that is used twice back with the weights of the call.
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    places = {
        f"{path}.{name}": name_of[id(parameter)]
        for path, part in network.named_modules()
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False)
    }

    def run(weights: dict[str, torch.Tensor], X: torch.Tensor) -> torch.Tensor:
        everywhere = {place: weights[name] for place, name in places.items() if name in weights}
        return functional_call(network, everywhere, (X,), tie_weights=False)

    return run


def _runs_together(
    network: torch.nn.Module, rows: torch.Tensor, weights: dict[str, torch.Tensor]
) -> bool:
    """Whether torch can run several sets of weights at once through this network."""
    try:
        with torch.no_grad(), warning_filter("error", message="There is a performance drop"):
            vmap(_with_weights(network), (0, None))(weights, rows)
    # What torch.func has no rule for, or does one after the other, and says so.
    except (RuntimeError, NotImplementedError, UserWarning):
        return False
    return True
