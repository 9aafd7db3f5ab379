"""Intra-processing: layerwise optimisation, a black-box search over one layer at a time."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval

from skfair.base._net import rows_at_once
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._choice import Choice
from skfair.intraprocessing._partial_forward import PartialForward
from skfair.intraprocessing._search import Search, named_parameters
from skfair.intraprocessing._surrogate import propose
from skfair.utils._progress import progress_bar

_AT_ONCE = 5  # points to try from one fit of the surrogate, which takes longer than to try them
_DRAWN = 2**24  # numbers of random points that are drawn at a time: 128 MiB
_BOX = 2.2  # half the width of the search box of an entry, in deviations of its tensor


class LayerwiseDebiaser(IntraprocessingDebiaser):
    """Search for a fairer network in one layer at a time, as a black box.

    For each of the last layers, with all others as they were: some of its weights are moved
    within a box, half of the times at random, then to where a model of what was found so far
    expects the largest improvement; each network gets its best threshold, and the best of all
    is taken (layerwise optimisation in [1]_). Nothing is differentiated, so that any network
    and any constraint will do. The layers before are run once and their activations kept.

    Twenty evaluations say little about a layer of hundreds of weights. Expect what
    :class:`ThresholdDebiaser` gives, which takes a moment; :class:`DistillationDebiaser` does
    better.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net or skfair classifier
        The trained network; also in a :class:`~sklearn.frozen.FrozenEstimator`, which a search
        or a clone of a fitted net needs, since clones are not fitted. It maps a batch to one
        logit or probability a row, or to two. It is copied and never changed. A skorch net
        that is not fitted yet is cloned and fitted first, on the rows that tune the weights.
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
    n_layers : int, default=5
        Search this many of the last parameter tensors: weights and biases count apart.
        Without effect where `layers` is given.
    layers : list or tuple of str, optional
        Search these instead, in this order: names of parameters, as in
        ``named_parameters()``, or of modules, all parameters of which move together.
    n_calls : int, default=20
        Networks to try for each layer.
    max_sparsity : int, default=5000
        How many weights of a layer may move, on average; they are drawn at random.
    validation_fraction : float, default=0.3
        Share of the rows, of each group and class alike, that do not guide the search. They
        judge the candidates, and all that is said of the result is measured on them.
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
        Seeds the split of the rows, which weights may move, and where to. The same int gives
        the same bits on the same device.
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
        the constraint to hold on new rows), "objective", "feasible", and "layer", the name of
        what was changed. Row 0 is the original network at its own threshold, row 1 the same
        with the best one. As they looked in the choice, where the best looks too good; the row
        of `best_trial_` as it is reported.
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
        No changed network was better than the original one, as it is or with another threshold.
    InterruptedSearchWarning
        Ctrl-C ended the search; the best candidate so far was taken.
    OverfitWarning
        The bias on the rows that tuned the weights is another one than on the others.
    SmallGroupWarning
        A rate that the constraint compares is one of fewer than ten samples.

    Notes
    -----
    As published: the box reaches 2.2 standard deviations of the tensor to both sides of each
    weight, and the model is gradient boosting for the quantiles .16, .5 and .84, asked for the
    largest expected improvement. Other than published: the model has trees of one split and
    is fitted anew for each five networks, which finds the same in a fraction of the time; and
    the best candidate of all is kept, where the released code keeps the last tensor's.

    What the model is fitted to is the objective at the best threshold of each network. It
    changes with every weight, while that at a fixed threshold is zero for most networks, and
    shows no way to go.

    A network is run again from the changed layer on where torch.fx can trace it, that is where
    ``forward`` takes no decision that depends on a tensor; else it runs whole, to the same
    result, in more time.

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
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 1))  # stands for one that was trained
    >>> with torch.no_grad():
    ...     _ = network[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
    ...     _ = network[0].bias.fill_(-1.0)
    >>> debiaser = LayerwiseDebiaser(network, layers=["0.weight"], n_calls=40, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, debiaser.trials_.loc[debiaser.best_trial_, "layer"]
    (True, '0.weight')
    """

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
            batch_size=rows_at_once(search.X),
        )
        rng = np.random.RandomState(search.seed)
        # Candidates are judged on rows that guide nothing.
        guide = search.objective.take(search.tune)
        start = _height(guide.choose(search.scores[None, search.tune])[0])
        n_calls = len(layers) * self.n_calls
        with progress_bar("trials", total=n_calls, unit="trial", show=bool(self.verbose)) as bar:
            for layer, names in layers.items():
                box = _Box(network, names, self.max_sparsity, rng)
                run = forward.changing([f"network.{name}" for name in names])
                points, heights = [box.centre], [start]
                # The first half at random, as published.
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
        """Names of what is searched at a time, and of the parameters that belong to it."""
        free = list(named_parameters(network))
        if self.layers is None:
            return {name: [name] for name in free[-self.n_layers :]}
        if not self.layers:
            raise ValueError(
                f"layers is {self.layers!r}, which leaves nothing to search. Name parameters or "
                "modules of the network, or give None for the last n_layers parameters."
            )
        found = {}
        for name in self.layers:
            found[name] = [p for p in free if p == name or p.startswith(f"{name}.")]
            if not found[name]:
                raise ValueError(
                    f"layers names {name!r}, which is neither a parameter of the network in "
                    "estimator nor a module with parameters, or frozen (requires_grad=False). "
                    f"Name some of {free}, or modules that these are in."
                )
        return found


def _height(choice: Choice) -> float:
    """One number for how good a network is at its best threshold.

    The objective; where no threshold is of any use, less than zero by how far the constraint
    is missed. It changes with every weight: the best threshold moves along.
    """
    return float(choice.objective[0]) or -min(float(choice.bound[0]), 1.0)


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
        self._entries = entries if len(entries) else rng.randint(n, size=1)
        # A tensor of one entry, or of equal ones, has no deviation; all weights together have.
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
        """Give the parameters the values of a point of the cube.

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
    return float(values.std()) if np.ptp(values) else 0.0  # of equal values it is rounding error


def _flat(parameters: Iterable[torch.nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.detach().flatten().float().cpu().numpy() for p in parameters])
