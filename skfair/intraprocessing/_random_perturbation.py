"""Intra-processing: random perturbation of the weights."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval
from torch.func import functional_call

from skfair.base._networks import copied
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._search import Search, named_parameters
from skfair.utils._progress import progress_bar
from skfair.utils._settings import with_own_settings

_AT_ONCE = 16  # trials in one job


@fill_docstring
class RandomPerturbationDebiaser(IntraprocessingDebiaser):
    """Perturb the weights of a trained network at random, and keep what is fairest.

    Every weight is multiplied by a factor drawn from :math:`N(1, \\sigma^2)`. Each of the
    `n_trials` networks gets its best threshold, and the best of these networks and the original
    network is taken (the random perturbation of [1]_). Nothing is trained, so that any network
    and any constraint will do. Most of the gain comes from the threshold:
    :class:`ThresholdDebiaser` has this part alone. :class:`DistillationDebiaser` does better.

    Parameters
    ----------
    {estimator}
        Such a net is fitted on 70 % of the debiasing rows, and judged on the other rows.
    {constraint}
    {epsilon}
    {performance}
    n_trials : int, default=101
        Perturbed networks to try.
    std : float, default=0.1
        Standard deviation :math:`\\sigma` of the factors.
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {parameters}
    n_jobs : int or None, default=None
        Threads that run trials, as in joblib. The result does not depend on it.
    {device}
    {random_state}
        Seeds the factors and the split of the rows.
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
        Empty for a callable constraint.
    {certificate_}
    {interrupted_}
    {trials_}
    {best_trial_}

    Warns
    -----
    {LabelOrderWarning}
    {InfeasibleConstraintWarning}
    {FallbackWarning}
    {InterruptedSearchWarning}
    {SmallGroupWarning}

    Notes
    -----
    All trainable parameters are perturbed, also the scale and shift of normalisation layers.
    Running statistics and parameters with ``requires_grad=False`` are not. Trials run
    one after another; ``n_jobs`` threads share them.

    The best of many noisy measurements looks better than it is: the more trials on few rows,
    the more optimistic ``bias_`` and ``bias_interval_``.

    References
    ----------
    {Savani_2020}

    Examples
    --------
    {biased_network}
    >>> debiaser = RandomPerturbationDebiaser(network, std=0.5, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, len(debiaser.trials_)
    (True, 103)
    """

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "parameters": [str, list, tuple, None],
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
        parameters: str | Sequence[str] | None = None,
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
        self.parameters = parameters
        self.n_trials = n_trials
        self.std = std
        self.n_jobs = n_jobs

    def _search(self, search: Search) -> None:
        parameters = named_parameters(search.network)

        @with_own_settings  # threads have settings of their own
        def score(trials: list[int]) -> np.ndarray:
            # functional_call swaps the weights of the network: each thread needs a copy. Copies
            # share the weights, which nothing writes to.
            same = {id(parameter): parameter for parameter in search.network.parameters()}
            run = _with_weights(copied(search.network, memo=same))
            # One network after another: the layers' outputs of several do not fit into a cache. All
            # weights are drawn into the same memory.
            room = {name: torch.empty(weight.shape) for name, weight in parameters.items()}
            return np.stack(
                [
                    search.score(
                        search.scored,
                        partial(run, _draw(parameters, trial, search, self.std, room)),
                    )
                    for trial in trials
                ]
            )

        def block(start: int) -> list[int]:
            return list(range(start, min(start + _AT_ONCE, self.n_trials)))

        # joblib starts all threads at once, and there may be fewer blocks.
        n_jobs = self.n_jobs if self.n_jobs is None else min(self.n_jobs, cpu_count())
        starts = range(0, self.n_trials, _AT_ONCE)
        scores = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
            delayed(score)(block(start)) for start in starts
        )

        def weights_of(trial: int) -> dict[str, torch.Tensor]:
            return search.original | _draw(parameters, trial, search, self.std)

        n_trials, show = self.n_trials, bool(self.verbose)
        with progress_bar("trials", total=n_trials, unit="trial", show=show) as bar:
            for start, part in zip(starts, scores, strict=True):
                again = [partial(weights_of, trial) for trial in block(start)]  # from its seed
                search.consider(part, again.__getitem__, candidate="perturbed")
                bar.update(len(part))


def _draw(
    parameters: Mapping[str, torch.Tensor],
    trial: int,
    search: Search,
    std: float,
    room: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Perturbed weights of a trial, which has its own seed; in `room`, if it is given."""
    generator = torch.Generator().manual_seed(search.seed + trial)
    weights = {}
    for name, parameter in parameters.items():
        factor = torch.empty(parameter.shape) if room is None else room[name]
        factor.normal_(generator=generator).mul_(std).add_(1)
        weights[name] = factor.to(parameter.device, parameter.dtype).mul_(search.original[name])
    return weights


def _with_weights(network: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """Make a function of weights by name and of rows, which runs the network with both."""
    # torch does not tie the weights: it would leave the weights of the call in a shared layer.
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
