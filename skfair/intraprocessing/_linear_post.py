"""Intra-processing: group-blind post-processing in closed form."""

import copy
import math
import warnings
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._group_blind import (
    L2,
    L2_OF_LABELS,
    Events,
    Linear,
    Posteriors,
    Scaler,
    class_values,
    cross_fit,
    draw_folds,
    fit_posteriors,
    make_events,
    solve,
    standardise,
)
from skfair.intraprocessing._group_blind_network import (
    ClassLogits,
    Correction,
    Parts,
    class_logits,
    find_feature_layer,
    layer_inputs,
)
from skfair.intraprocessing._judge import Judge
from skfair.intraprocessing._network import LogitNetwork, Output, copy_network, find_network
from skfair.utils import FallbackWarning, InfeasibleConstraintWarning, resolve_device
from skfair.utils._net import load_weights
from skfair.utils._shown import shown, shown_all

# Gaps to aim at, in epsilons: what is aimed at is not what new rows show.
_TARGETS = (3.0, 2.0, 1.5, 1.25, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1)
_FEWEST_FOLDS = 3  # one to judge on, one to predict out of fold, one to fit
_UNCORRECTED = 1  # in trials_, after the original network
_CONSTRAINTS = ("demographic_parity", "equal_opportunity", "equalized_odds")


class LinearPostDebiaser(IntraprocessingDebiaser):
    """Correct a trained network by what its features tell of the group, in closed form.

    Of all predictions that do not see the group, those that cost the least at a given gap
    between groups [1]_ are

    .. math:: \\arg\\min_k \\; r_k(x) + \\sum_c w_{ck} \\, p_c(x)

    with the cost :math:`r_k` of predicting class *k*, from the network's calibrated outputs, and
    the probabilities :math:`p_c` of the groups (or of group and label), which a linear head finds
    from the network's last features. The weights *w* are found from rows in which the groups are
    known. Nothing is fine-tuned, and there may be any number of classes and of groups.

    Everything that the estimator says of itself is cross-fitted: head, calibration and weights
    are fitted without a fold, and predict it.

    Predicting needs no group. The network *uses* what its features tell of it, though; whether
    that is wanted, and lawful, is for you to say.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net or skfair classifier
        The trained network; also in a :class:`~sklearn.frozen.FrozenEstimator`, which a search
        or a clone of a fitted net needs, since clones are not fitted. It maps a batch to one
        logit or probability a class and row, or, with two classes, to one a row. It is copied
        and never changed. A skorch net that is not fitted yet is cloned and fitted first, on the
        debiasing rows.
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds"}, \
default="demographic_parity"
        What must be nearly equal between groups: the share predicted to be of each class; the
        share of rows of the class `pos_label` that is recognised; or, given each label, the share
        predicted to be of each class.
    epsilon : float, default=0.05
        The constraint: two groups differ by less in each of these.
    performance : {"balanced_accuracy", "accuracy"}, default="balanced_accuracy"
        What to keep high.
    pos_label : label, default=None
        The class of equal opportunity; None is ``classes_[1]``, if there are two. With two
        classes its rates are those that are compared, too.
    group_features : {"auto", "network", "input"}, default="auto"
        What the head sees beside the network's outputs: "network", what goes into its last
        linear layer; "input", X. "auto" takes what tells the groups better out of fold, and X
        only where it is a table of floating numbers.
    cv : int, default=5
        Number of folds, three or more.
    confidence : float, "auto" or None, default="auto"
        How sure it must be that the constraint holds on new rows too, twice as many as it is
        measured on. "auto" weighs it against the performance: with two groups (performance -
        chance) times the probability is maximised, among candidates whose measured bias meets
        the constraint; with more, performance less what the gap is expected to exceed `epsilon`
        by. A float between 0 and 1 asks for at least that probability, and maximises the
        performance. None asks that the measured bias is below ``epsilon - margin``.
    margin : float, default=0.01
        Used with ``confidence=None`` only.
    output : {"auto", "logits", "probabilities"}, default="auto"
        What the network puts out. "auto" knows it of skorch nets and skfair classifiers, and
        finds it out from the outputs, or raises where they could be either.
    device : str or torch.device, default="auto"
        Where to run the network; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the folds. The same int gives the same bits on the same device.
    verbose : int, default=0
        Of no effect here: a fit takes seconds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Second dimension of X: features, or channels of an image.
    module_ : torch.nn.Module
        The network, its head and the correction: inputs and outputs are those of the original
        network, and the usual decision, the largest output or the usual threshold, is the right
        one.
    group_features_ : str
        What the head sees, "network" or "input"; "none" where the network was left as it is.
    bias_, performance_, objective_ : float
        Bias, performance and what was maximised, of predictions out of fold. With two groups and
        one compared rate the bias is that of the first group less that of the second; else the
        largest difference.
    bias_interval_ : tuple of two floats
        A 95 % interval for the bias in the population, from the sampling error of the rates.
    feasible_ : bool
        Whether the constraint is more likely to hold on new rows than not; with a float as
        `confidence`, at least that likely.
    pairs_ : DataFrame
        Difference of each two groups in each rate, with its interval, as measured.
    trials_ : DataFrame
        A row a candidate: "candidate", "target" (the gap that was aimed at), "bias",
        "performance", "probability" (of the constraint to hold on new rows), "objective" and
        "feasible". Row 0 is the original network by its own decision, row 1 the same, calibrated
        and by the decision that performs best.
    best_trial_ : int
        Row of the one that was taken.

    Warns
    -----
    InfeasibleConstraintWarning
        No candidate meets the constraint; the one nearest to it was taken.
    FallbackWarning
        No correction was better than the network without one.
    SmallGroupWarning
        A rate that the constraint compares is one of fewer than ten samples.

    See Also
    --------
    DistillationDebiaser : Teaches the network itself, for two classes.
    fairlearn.postprocessing.ThresholdOptimizer : Group thresholds; needs the sensitive feature
        to predict.

    References
    ----------
    .. [1] R. Xian, H. Zhao, "A Unified Post-Processing Framework for Group Fairness in
       Classification", arXiv 2405.04025.

    Examples
    --------
    >>> import numpy as np, torch
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 2000))
    >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
    >>> network = torch.nn.Linear(2, 1)  # stands for one that was trained
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
    >>> debiaser = LinearPostDebiaser(network, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, bool(debiaser.trials_.loc[0, "feasible"])
    (True, False)
    """

    _parameter_constraints: dict = {
        **IntraprocessingDebiaser._parameter_constraints,
        "constraint": [StrOptions(set(_CONSTRAINTS)), callable],
        "performance": [StrOptions({"balanced_accuracy", "accuracy"})],
        "pos_label": [str, Real, "boolean", None],
        "group_features": [StrOptions({"auto", "network", "input"})],
        "cv": [Interval(Integral, _FEWEST_FOLDS, None, closed="left")],
    }
    _multi_class = True

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        epsilon: float = 0.05,
        performance: str = "balanced_accuracy",
        pos_label: Any = None,
        group_features: Literal["auto", "network", "input"] = "auto",
        cv: int = 5,
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
        self.pos_label = pos_label
        self.group_features = group_features
        self.cv = cv

    # -- fitting ---------------------------------------------------------------------------

    def _fit(self, X: ArrayLike, y: ArrayLike, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        self._check_question()
        network, rows, raw, codes, groups, seed = self._take_in(X, y, sensitive_features, device)
        is_table = rows.ndim == 2 and np.asarray(X).dtype.kind == "f"
        sizes = len(self.classes_), len(groups.labels)
        constraint, performance = str(self.constraint), str(self.performance)
        events = make_events(constraint, codes, groups.codes, *sizes, self._positive() or 0)
        fold = draw_folds(groups.codes * sizes[0] + codes, min(self.cv, len(codes)), seed)

        self._flat = raw.ndim == 1
        given = class_logits(raw.double().reshape(len(raw), -1), self._output).numpy()
        logits, of_logits = standardise(given)
        labels = fit_posteriors(logits, codes, sizes[0], fold, [L2_OF_LABELS])
        kind, head, of_features = self._fit_head(network, rows, is_table, logits, events, fold)

        judge = Judge(codes, groups.codes, sizes, events, self.get_params(deep=False))
        original = given.argmax(1) if given.shape[1] > 1 else (given[:, 0] > 0).astype(int)
        judge.add(original, candidate="original", target=np.nan)
        targets = [self.epsilon * factor for factor in _TARGETS]
        decided = cross_fit(labels, head, events, codes, fold, targets, performance)
        judge.add(decided[0], candidate="uncorrected", target=np.nan)
        for target, predicted in zip(targets, decided[1:], strict=True):
            judge.add(predicted, candidate="corrected", target=target)
        self.best_trial_ = best = judge.best()

        self.group_features_ = "none" if best == 0 else kind
        self.module_ = nn.Sequential(network).eval()
        if best > 0:
            values = class_values(np.bincount(codes, minlength=sizes[0]), performance)
            weights = np.zeros((events.n_cells, sizes[0]))
            if best > _UNCORRECTED:
                cost = -labels.out_of_fold(fold) * values
                aims = targets[: best - _UNCORRECTED]
                weights = solve(cost, head.out_of_fold(fold), events, events.cell, aims)[-1]
            n_features = len(of_features.mean)
            own = of_features.before(Linear(head.model.weight[:n_features], head.model.bias))
            rest = of_logits.before(
                Linear(head.model.weight[n_features:], np.zeros(events.n_cells))
            )
            own = Linear(own.weight, own.bias + rest.bias)
            correction = Correction(of_logits.before(labels.model), rest.weight, weights, values)
            self.module_ = self._parts().build(network, own, correction)
        self._dtype = self._predict_dtype(rows[:1])
        for name, value in judge.report(best, groups.labels, self.classes_.tolist()).items():
            setattr(self, name, value)
        self._warn_of(best)

    def _check_question(self) -> None:
        """Refuse what cannot be asked for; before anything is run."""
        if callable(self.constraint):
            raise ValueError(
                f"constraint={self._name(self.constraint)} is a function, and "
                "LinearPostDebiaser solves for constraints by name: "
                f"{', '.join(map(repr, _CONSTRAINTS))}. Name one, or use ThresholdDebiaser, "
                "RandomPerturbationDebiaser or LayerwiseDebiaser, which ask a function."
            )
        if self.confidence is None and self.margin >= self.epsilon:
            raise ValueError(
                f"margin={self.margin:g} is not below epsilon={self.epsilon:g}, and a bias below "
                "their difference is asked for, which there is none of. Lower margin, or allow a "
                "larger epsilon."
            )

    def _positive(self) -> int | None:
        """Position of `pos_label`; None where there is no such class to name."""
        classes = self.classes_.tolist()
        if self.pos_label is None:
            if len(classes) > 2 and self.constraint == "equal_opportunity":
                raise ValueError(
                    "pos_label is None, where one of the classes "
                    f"[{shown_all(classes)}] was wanted: constraint='equal_opportunity' is about "
                    "one class, and with more than two none is the usual one. Name it."
                )
            return 1 if len(classes) == 2 else None
        if self.pos_label not in classes:
            raise ValueError(
                f"pos_label={shown(self.pos_label)} is none of the classes in y, "
                f"[{shown_all(classes)}]. Give one of them, of the same type."
            )
        return classes.index(self.pos_label)

    def _compared(self) -> list[int | None]:
        positive = self._positive()
        if self.constraint == "demographic_parity":
            return [None]
        if self.constraint == "equal_opportunity":
            return [positive]
        return list(range(len(self.classes_)))

    def _check_weights(self, network: nn.Module, rows: torch.Tensor) -> None:
        """Any network will do: its weights stay."""

    def _search(self, search: Any) -> None:
        """Nothing to search: all is solved for."""

    def _fit_head(
        self,
        network: nn.Module,
        rows: torch.Tensor,
        is_table: bool,
        logits: np.ndarray,
        events: Events,
        fold: np.ndarray,
    ) -> tuple[str, Posteriors, Scaler]:
        """Fit heads to the features that may be used, and take the better one."""
        features = {}
        self._layer = ""
        if self.group_features != "input":
            self._layer = find_feature_layer(network, rows[:2]) or ""
            if self._layer:
                features["network"] = layer_inputs(network, self._layer, rows)
        if self.group_features == "input" or (self.group_features == "auto" and is_table):
            features["input"] = rows.flatten(1).double().cpu().numpy()
        if not features:
            raise ValueError(
                f"group_features={self.group_features!r} wants what goes into the last linear "
                f"layer of the network, and the {type(network).__name__} in estimator has none "
                "that is run once and takes a row of features a sample, or torch.fx cannot trace "
                "it. Set group_features='input', which takes X itself."
            )
        found: dict[str, tuple[Posteriors, Scaler]] = {}
        for kind, given in features.items():
            scaled, scaler = standardise(given)
            seen = np.column_stack([scaled, logits])
            found[kind] = fit_posteriors(seen, events.cell, events.n_cells, fold, L2), scaler
        best = min(found, key=lambda kind: found[kind][0].loss)
        if best == "input":
            self._layer = ""
        return best, *found[best]

    def _parts(self) -> Parts:
        return Parts(self._output, self._flat, self._layer or None)

    def _warn_of(self, best: int) -> None:
        """Say what did not go as asked for; fitted attributes say the same."""
        found = f"bias {self.bias_:+.3f}, {self.performance} {self.performance_:.3f}"
        if not self.feasible_:
            wanted = f"within {self.epsilon:g}"
            if isinstance(self.confidence, Real):
                wanted += f" with confidence={self.confidence:g}"
            warnings.warn(
                f"No candidate has a {self.constraint} bias {wanted}; the best one was taken "
                f"({found}, 95 % interval {self.bias_interval_[0]:+.3f} to "
                f"{self.bias_interval_[1]:+.3f}, out of fold). Allow a larger epsilon, or try "
                "another debiaser.",
                InfeasibleConstraintWarning,
                stacklevel=5,
            )
        elif best == _UNCORRECTED:
            warnings.warn(
                f"None of {len(_TARGETS)} corrections was better than the original network with "
                f"the decision that performs best, which was taken ({found}).",
                FallbackWarning,
                stacklevel=5,
            )

    # -- saving and predicting -------------------------------------------------------------

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        if "module_" in state:
            state["module_"] = dict(self.module_.state_dict())
            state["_output"] = tuple(self._output)
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights, output = state.pop("module_"), Output(*state.pop("_output"))
        trained = find_network(self.estimator) or find_network(clone(self.estimator).initialize())
        assert trained is not None  # it is initialised
        network = copy_network(trained.module).eval()
        self.__dict__.update(state)
        self._output = output
        module = nn.Sequential(network)
        if self.group_features_ != "none":
            n_features = math.prod(self._sample_shape)
            if self._layer:
                layer = network.get_submodule(self._layer)
                assert isinstance(layer, nn.Linear)  # it was when it was saved
                n_features = layer.in_features
            module = self._parts().build_like(network, n_features, weights)
        self.module_ = load_weights(module.eval(), weights, "module_")

    def _reader(self) -> LogitNetwork:
        return ClassLogits(copy.deepcopy(self.module_), self._output)

    def _logits(self, X: ArrayLike) -> np.ndarray:
        return self._logit(self._validate_features(X))
