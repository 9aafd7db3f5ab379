"""Intra-processing: random perturbation of the weights."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.utils._param_validation import Interval
from torch.func import functional_call, vmap
from tqdm.auto import tqdm

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._search import Search, named_parameters

_AT_ONCE = 16  # trials in one pass, and in one job


class RandomPerturbationDebiaser(IntraprocessingDebiaser):
    """placeholder"""

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
        output: Literal["auto", "logits", "probabilities"] = "auto",
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
            output=output,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_trials = n_trials
        self.std = std
        self.n_jobs = n_jobs

    def _search(self, search: Search) -> None:
        network, parameters = search.network, named_parameters(search.network)
        together = _runs_together(
            network, search.X[:2], _draw(parameters, [0, 1], search, self.std)
        )

        def score(trials: list[int]) -> np.ndarray:
            weights = _draw(parameters, trials, search, self.std)
            if together:
                return search.score(
                    search.select, lambda X: vmap(_run, (None, 0, None))(network, weights, X)
                )
            singly = (partial(_run, network, _pick(weights, i)) for i in range(len(trials)))
            return np.stack([search.score(search.select, forward) for forward in singly])

        blocks = [
            list(range(start, min(start + _AT_ONCE, self.n_trials)))
            for start in range(0, self.n_trials, _AT_ONCE)
        ]
        scores = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")(
            delayed(score)(block) for block in blocks
        )
        with tqdm(total=self.n_trials, unit="trial", disable=not self.verbose) as bar:
            for block, part in zip(blocks, scores, strict=True):
                search.consider(
                    part,
                    lambda i, block=block: (
                        search.original
                        | _pick(_draw(parameters, block[i : i + 1], search, self.std), 0)
                    ),
                    candidate="perturbed",
                )
                bar.update(len(block))


def _draw(
    parameters: dict[str, torch.Tensor], trials: list[int], search: Search, std: float
) -> dict[str, torch.Tensor]:
    """Perturbed weights of some trials, stacked; each trial has a seed of its own."""
    stacks = {name: [] for name in parameters}
    for trial in trials:
        generator = torch.Generator().manual_seed(search.seed + trial)
        for name, parameter in parameters.items():
            noise = torch.randn(parameter.shape, generator=generator)
            factor = (1 + std * noise).to(parameter.device, parameter.dtype)
            stacks[name].append(search.original[name] * factor)
    return {name: torch.stack(stack) for name, stack in stacks.items()}


def _pick(weights: dict[str, torch.Tensor], position: int) -> dict[str, torch.Tensor]:
    return {name: stack[position] for name, stack in weights.items()}


def _run(
    network: torch.nn.Module, weights: dict[str, torch.Tensor], X: torch.Tensor
) -> torch.Tensor:
    return functional_call(network, weights, (X,))


def _runs_together(
    network: torch.nn.Module, rows: torch.Tensor, weights: dict[str, torch.Tensor]
) -> bool:
    """Whether torch can run several sets of weights at once through this network."""
    try:
        with torch.no_grad():
            vmap(_run, (None, 0, None))(network, weights, rows)
    except (RuntimeError, NotImplementedError):  # what torch.func has no rule for
        return False
    return True
