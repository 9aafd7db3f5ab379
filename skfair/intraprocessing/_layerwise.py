"""Intra-processing: layerwise optimisation, a black-box search over one layer at a time."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from tqdm.auto import tqdm

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._partial_forward import PartialForward
from skfair.intraprocessing._search import Search, named_parameters
from skfair.intraprocessing._surrogate import propose
from skfair.utils._net import rows_at_once

_BOX = 2.2  # half the width of the search box of an entry, in deviations of its tensor


class LayerwiseDebiaser(IntraprocessingDebiaser):
    """DOC"""

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "layers": [list, tuple, None],
        "n_calls": [Interval(Integral, 1, None, closed="left")],
        "max_sparsity": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str | Callable = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
        n_layers: int = 5,
        layers: Sequence[str] | None = None,
        n_calls: int = 20,
        max_sparsity: int = 5000,
        validation_fraction: float = 0.3,
        confidence: float | Literal["auto"] | None = "auto",
        margin: float = 0.01,
        output: Literal["auto", "logits", "probabilities"] = "auto",
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
        self.n_layers = n_layers
        self.layers = layers
        self.n_calls = n_calls
        self.max_sparsity = max_sparsity
        self.validation_fraction = validation_fraction

    def _search(self, search: Search) -> None:
        network = search.network.network
        layers = self._find_layers(network)
        forward = PartialForward(search.network, search.X, batch_size=rows_at_once(search.X))
        rng = np.random.RandomState(search.seed)
        # What guides the search is (performance - chance) times the probability that the
        # constraint holds, at the best threshold, whatever `confidence` asks of the choice: it
        # changes with every weight, where a performance that counts only within the constraint
        # stays the same and then jumps.
        guide = search.objective.take(search.tune)
        guide.confidence = "auto"
        start = _height(guide, search.scores[search.tune])
        with tqdm(total=len(layers) * self.n_calls, unit="call", disable=not self.verbose) as bar:
            for layer, names in layers.items():
                box = _Box(network, names, self.max_sparsity, rng)
                run = forward.changing([f"network.{name}" for name in names])
                points, heights = [box.centre], [start]
                for call in range(self.n_calls):
                    if call < self.n_calls / 2:  # at random, as published
                        point = rng.uniform(-1, 1, len(box.centre))
                    else:
                        point = propose(np.stack(points), np.array(heights), rng)
                    box.go_to(point)
                    scores = run().cpu().numpy()
                    search.consider(scores[None, search.select], candidate="layer", layer=layer)
                    points.append(point)
                    heights.append(_height(guide, scores[search.tune]))
                    bar.update()
                box.go_to(box.centre)

    def _find_layers(self, network: torch.nn.Module) -> dict[str, list[str]]:
        """Names of what is searched at a time, and of the parameters that belong to it."""
        free = list(named_parameters(network))
        if self.layers is None:
            return {name: [name] for name in free[-self.n_layers :]}
        found = {}
        for name in self.layers:
            found[name] = [p for p in free if p == name or p.startswith(f"{name}.")]
            if not found[name]:
                raise ValueError(
                    f"layers names {name!r}, which is no parameter of the network in estimator, no "
                    "module with parameters, or one whose parameters are frozen "
                    f"(requires_grad=False). Its parameters are {free}."
                )
        return found


def _height(guide: Objective, scores: np.ndarray) -> float:
    """One number for how good a network is, on its best threshold."""
    if not np.isfinite(scores).all():
        return 0.0  # as a constant prediction
    choice = guide.choose(scores[None])
    # Where no threshold is of any use: below zero by how far the constraint is missed.
    return float(choice.objective[0]) or -float(choice.bound[0])


class _Box:
    """Some entries of some parameters, and how far they may move, as a cube from -1 to 1.

    Parameters
    ----------
    network : torch.nn.Module
        The network that the parameters are of.
    names : list of str
        Parameters, which are changed in place.
    max_sparsity : int
        Entries that may move, on average.
    rng : RandomState
        Draws them.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        names: list[str],
        max_sparsity: int,
        rng: np.random.RandomState,
    ):
        self._parameters = [network.get_parameter(name) for name in names]
        self._original = _flat(self._parameters)
        n = len(self._original)
        entries = np.flatnonzero(rng.uniform(size=n) < min(1, max_sparsity / n))
        self._entries = torch.as_tensor(entries if len(entries) else rng.randint(n, size=1))
        # A tensor of one entry, or of equal ones, has no deviation; all weights together have.
        every = _deviation(_flat(network.parameters())) or 1.0
        half = [
            torch.full((p.numel(),), _BOX * (_deviation(_flat([p])) or every))
            for p in self._parameters
        ]
        self._half = torch.cat(half)[self._entries]
        self.centre = np.zeros(len(self._entries))

    @torch.no_grad()
    def go_to(self, point: np.ndarray) -> None:
        """Give the parameters the values of a point of the cube.

        Parameters
        ----------
        point : ndarray of shape (n_entries,)
        """
        values = self._original.clone()
        values[self._entries] += self._half * torch.as_tensor(point, dtype=values.dtype)
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, part in zip(self._parameters, values.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))


def _flat(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float().cpu() for p in parameters])


def _deviation(values: torch.Tensor) -> float:
    return values.std(correction=0).item()
