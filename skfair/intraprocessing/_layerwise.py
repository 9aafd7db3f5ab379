"""Intra-processing: layerwise optimisation, a black-box search over one layer at a time."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._choice import Choice
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._partial_forward import PartialForward
from skfair.intraprocessing._search import Search, named_parameters
from skfair.intraprocessing._surrogate import propose
from skfair.utils._progress import progress_bar

_AT_ONCE = 5  # points from one fit of the surrogate; the fit takes longer than trying them
_DRAWN = 2**24  # random numbers drawn at a time: 128 MiB
_BOX = 2.2  # half the width of the search box of an entry, in standard deviations of its tensor


@fill_docstring
class LayerwiseDebiaser(IntraprocessingDebiaser):
    """Search for a fairer network in one layer at a time, as a black box.

    Each of the last layers is searched in turn, with all other layers as in the original
    network. Some weights of the layer move within a box: in the first half of the calls at
    random, then to the point where a model of the results so far expects the largest
    improvement. Each network gets its best threshold, and the best network of all is taken
    (the layerwise optimisation of [1]_). Nothing is differentiated, so that any network and any
    constraint will do. The layers before the searched one run once, and their activations are
    kept.

    Twenty evaluations say little about a layer of hundreds of weights. Expect the result of
    :class:`ThresholdDebiaser`, which takes a moment; :class:`DistillationDebiaser` does better.

    Parameters
    ----------
    {estimator}
    {constraint}
    {epsilon}
    {performance}
    n_layers : int, default=5
        How many of the last parameter tensors to search; weights and biases count separately.
        Without effect if `layers` is given.
    layers : list or tuple of str, optional
        What to search instead, in this order: names of parameters, as in
        ``named_parameters()``, or names of modules. All parameters of a module move together.
    n_calls : int, default=20
        Networks to try for each layer.
    max_sparsity : int, default=5000
        How many weights of a layer may move, on average. They are drawn at random.
    validation_fraction : float, default=0.3
        Share of the rows that do not guide the search, the same share of each group and class.
        They judge the candidates, and everything reported of the result is measured on them. A
        skorch net that is not fitted yet is fitted on the rows that guide the search.
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {parameters}
    {device}
    {random_state}
        Seeds the split of the rows, the choice of the weights that move, and their moves.
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
        Column "layer" names what was changed.
    {best_trial_}

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
    As published, the box reaches 2.2 standard deviations of the tensor to both sides of each
    weight. The model is gradient boosting for the quantiles .16, .5 and .84, and proposes the
    point with the largest expected improvement. Two things differ from the publication. The
    model has trees of one split and is fitted anew for every five networks, which finds the
    same in a fraction of the time. And the best candidate of all tensors is kept, while the
    released code keeps the candidate of the last tensor.

    The model is fitted to the objective of each network at its best threshold. This objective
    changes with every weight. The objective at a fixed threshold is zero for most networks, and
    gives the search no direction.

    Each network runs again only from the changed layer on, if torch.fx can trace it, that is,
    if ``forward`` takes no decision that depends on a tensor. Otherwise it runs as a whole,
    with the same result, in more time.

    References
    ----------
    {Savani_2020}

    Examples
    --------
    {biased_network}
    >>> network = torch.nn.Sequential(network)
    >>> debiaser = LayerwiseDebiaser(network, layers=["0.weight"], n_calls=40, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, debiaser.trials_.loc[debiaser.best_trial_, "layer"]
    (True, '0.weight')
    """

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "parameters": [str, list, tuple, None],
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
        self.n_layers = n_layers
        self.layers = layers
        self.n_calls = n_calls
        self.max_sparsity = max_sparsity
        self.validation_fraction = validation_fraction

    def _search(self, search: Search) -> None:
        network = search.network.network
        layers = self._find_layers(network)
        forward = PartialForward(
            search.network,
            search.X,
            [f"network.{name}" for names in layers.values() for name in names],
            batch_size=search.X.rows_at_once,
        )
        rng = np.random.RandomState(search.seed)
        # The rows that guide the search do not judge the candidates.
        guide = search.objective.take(search.tune)
        start = _height(guide.choose(search.scores[None, search.tune])[0])
        n_calls = len(layers) * self.n_calls
        with progress_bar("trials", total=n_calls, unit="trial", show=bool(self.verbose)) as bar:
            for layer, names in layers.items():
                box = _Box(network, names, self.max_sparsity, rng)
                run = forward.changing([f"network.{name}" for name in names])
                points, heights = [box.centre], [start]
                # The first half of the calls at random, as published.
                at_random, at_once = -(-self.n_calls // 2), max(1, _DRAWN // len(box.centre))
                next_points: Sequence[np.ndarray] | np.ndarray = []
                for _ in range(self.n_calls):
                    if not len(next_points) and at_random:
                        n_points = min(at_random, at_once)
                        next_points = rng.uniform(-1, 1, (n_points, len(box.centre)))
                        at_random -= n_points
                    if not len(next_points):
                        next_points = propose(np.stack(points), np.array(heights), rng, _AT_ONCE)
                    points.append(next_points[-1])
                    next_points = next_points[:-1]
                    box.go_to(points[-1])
                    scores = run().cpu().numpy()
                    search.consider(scores[None, search.scored], candidate="layer", layer=layer)
                    finite = np.isfinite(scores).all()
                    choice = guide.choose(np.where(finite, scores, 0)[None, search.tune])[0]
                    heights.append(_height(choice))
                    bar.update()
                box.go_to(box.centre)

    def _find_layers(self, network: torch.nn.Module) -> dict[str, list[str]]:
        """For each layer that is searched, in order: the names of its parameters."""
        free = list(named_parameters(network))
        if self.layers is None:
            return {name: [name] for name in free[-self.n_layers :]}
        if not self.layers:
            raise ValueError(
                f"layers is {self.layers!r}, and leaves nothing to search. Name parameters or "
                "modules of the network, or give None for the last n_layers parameters."
            )
        found = {}
        for name in self.layers:
            found[name] = [p for p in free if p == name or p.startswith(f"{name}.")]
            if not found[name]:
                raise ValueError(
                    f"layers names {name!r}, and the network in estimator has no parameter and no "
                    "module with parameters of this name, or they are frozen "
                    f"(requires_grad=False). Name some of {free}, or modules that contain them."
                )
        return found


def _height(choice: Choice) -> float:
    """One number for how good a network is at its best threshold.

    The objective. If it is zero at every threshold, the negative distance to the constraint.
    This number changes with every weight, since the best threshold changes with it.
    """
    return float(choice.objective[0]) or -min(float(choice.bound[0]), 1.0)


class _Box:
    """Some entries of some parameters, and their ranges, mapped to a cube from -1 to 1.

    Parameters
    ----------
    network : torch.nn.Module
        The network that has the parameters.
    names : list of str
        Names of the parameters. They are changed in place.
    max_sparsity : int
        Mean number of entries that may move.
    rng : RandomState
        Draws the entries that may move.
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
        self._entries = entries if len(entries) else rng.randint(n, size=1)
        # A tensor of equal entries has no deviation; the deviation of all weights replaces it.
        deviations = [
            _deviation([parameter]) or _deviation(network.parameters()) or 1.0
            for parameter in self._parameters
        ]
        sizes = [parameter.numel() for parameter in self._parameters]
        self._half = _BOX * np.repeat(deviations, sizes)[self._entries]
        self._ends = np.cumsum(sizes)[:-1]
        self.centre = np.zeros(len(self._entries))

    @torch.no_grad()
    def go_to(self, point: np.ndarray) -> None:
        """Give the parameters the values that belong to a point of the cube.

        Parameters
        ----------
        point : ndarray of shape (n_entries,)
        """
        values = self._original.copy()
        values[self._entries] += self._half * point
        for parameter, part in zip(self._parameters, np.split(values, self._ends), strict=True):
            parameter.copy_(torch.from_numpy(part).view_as(parameter))


def _deviation(parameters: Iterable[torch.nn.Parameter]) -> float:
    values = _flat(parameters)
    return float(values.std()) if np.ptp(values) else 0.0  # std of equal values is rounding error


def _flat(parameters: Iterable[torch.nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.detach().flatten().float().cpu().numpy() for p in parameters])
