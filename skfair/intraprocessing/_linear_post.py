"""Intra-processing: group-blind post-processing in closed form."""

import math
import warnings
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._copy_network import load_own_weights
from skfair.intraprocessing._debiasing_data import encode_compared_groups
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._group_blind_fit import (
    UNCORRECTED,
    Data,
    Fitted,
    certify_corrections,
    fit_corrections,
)
from skfair.intraprocessing._group_blind_network import (
    Correction,
    Parts,
    class_logits,
    find_feature_layer,
)
from skfair.intraprocessing._inputs import ONE_TENSOR, ONLY, Inputs
from skfair.intraprocessing._judge import Question, report
from skfair.intraprocessing._layers import layer_inputs
from skfair.intraprocessing._network import find_network, in_sequence
from skfair.intraprocessing._output_head import output_layer_inputs
from skfair.intraprocessing._posteriors import Linear
from skfair.metrics._certificate import FairnessCertificate
from skfair.utils import (
    FallbackWarning,
    Groups,
    draw_seed,
)
from skfair.utils._device import resolve_device
from skfair.utils._random import seeded
from skfair.utils._shown import shown, shown_all
from skfair.utils._split import split_cells

# Gaps to aim at, in units of epsilon: new rows show another gap than the one aimed at.
_TARGETS = (3.0, 2.0, 1.5, 1.25, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1)
_FEWEST_FOLDS = 3  # one that judges, one predicted out of fold, one to fit on
_NOT_TAUGHT = 0.3  # share of the rows that an unfitted network is not trained on
_CONSTRAINTS = ("demographic_parity", "equal_opportunity", "equalized_odds")


def _renumbered(kinds: np.ndarray) -> np.ndarray:
    return np.unique(kinds, return_inverse=True)[1]


@fill_docstring
class LinearPostDebiaser(IntraprocessingDebiaser):
    """Correct a trained network by what its features tell of the group, in closed form.

    Of all predictions that do not see the group, those that cost the least at a given gap
    between groups [1]_ are

    .. math:: \\mathrm{argmin}_k \\; r_k(x) + \\sum_c w_{ck} \\, p_c(x).

    :math:`r_k` is the cost of predicting class *k*, from the calibrated outputs of the network.
    :math:`p_c` are the probabilities of the groups, or of group and label together, from a
    linear head on the network's last features. The weights *w* are found from rows with known
    groups. Nothing is fine-tuned, and any number of classes and groups is possible.

    Everything that the estimator reports is cross-fitted: head, calibration and weights are
    fitted without a fold, and then predict this fold.

    Predictions need no group. But the network *uses* what its features tell of the group.
    Whether that is wanted and lawful is your decision.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net or skfair classifier
        The trained network. It maps a batch to one logit or probability for each row and class;
        with two classes, also to one for each row. It is copied and never changed. Searches
        clone it, and a clone of a fitted net is not fitted: for them, give the net in a
        :class:`~sklearn.frozen.FrozenEstimator`. A skorch net that is not fitted yet is cloned
        and fitted first, on 70 % of the debiasing rows, and judged on the other rows.
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds"}, \
default="demographic_parity"
        What must be nearly equal between groups: the share of rows predicted as each class; the
        recall of the class `pos_label`; or, given each label, the share of rows predicted as
        each class.
    epsilon : float, default=0.05
        The constraint: each of these values differs by less than this between two groups.
    performance : {"balanced_accuracy", "accuracy"}, default="balanced_accuracy"
        The score to keep high.
    pos_label : label, default=None
        The class of equal opportunity. None takes the second of two classes. With two classes,
        the other constraints compare the rates of this class, too.
    group_features : {"auto", "network", "input"}, default="auto"
        What the head sees beside the network's outputs. "network": the input of the network's
        last linear layer. "input": X. "auto" takes the features that predict the groups better
        out of fold, and considers X only if it is a table of floating-point numbers.
    cv : int, default=5
        Number of folds, at least three.
    confidence : float, "auto" or None, default="auto"
        How certain it must be that the constraint holds on new rows.

        - "auto" maximises (performance - chance) times the probability that the constraint holds
          on new rows, twice as many as the rows that measured it. The measured bias itself may
          be larger than `epsilon`: a bias among few rows is inaccurate. With more than two groups,
          it maximises (performance - chance) minus twice the expected excess of the largest
          difference over `epsilon`.
        - A float between 0 and 1 asks for a certificate at that confidence, on rows of its own;
          see `certificate_`.
        - None asks for a measured bias below ``epsilon - margin``, as in the code that Savani et
          al. (NeurIPS 2020) published.
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    classes : array-like of shape (n_classes,), default=None
        The labels in the order of the network's outputs. If two classes share one output, the
        label of a large output comes second. None takes the order that a skorch net or skfair
        classifier has learned; for other networks it sorts the labels.
    {device}
    {random_state}
        Seeds the folds.
    verbose : int, default=0
        Without effect: a fit takes seconds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    {n_features_in_}
    module_ : torch.nn.Module
        The network with its head and the correction. Its inputs and outputs are those of the
        original network, and the usual decision (the largest output, or the usual threshold) is
        the right one.
    group_features_ : str
        What the head sees, "network" or "input"; "none" if the network was left unchanged.
    bias_ : float
        Bias of out-of-fold predictions; what predicts a fold was chosen on the other folds. With
        a certificate: bias on the calibration rows. With two groups and one compared rate, the
        bias is the rate of the first group minus that of the second; otherwise it is the largest
        difference.
    {performance_}
    {objective_}
    {bias_interval_}
    {feasible_}
    {pairs_}
    {certificate_}
    trials_ : DataFrame
        One row for each candidate: "candidate", "target" (the gap to aim at), "bias",
        "performance", "probability" (that the constraint holds on new rows), "objective" and
        "feasible". Row 0 is the original network with its own decision. Row 1 is the original
        network, calibrated, with the decision that performs best. All values are out of fold,
        as seen in the choice.
    {best_trial_}

    Warns
    -----
    {LabelOrderWarning}
    {InfeasibleConstraintWarning}
    FallbackWarning
        No correction was better than the network without a correction.
    {SmallGroupWarning}

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
    {biased_network}
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
    _judged = "out of fold"

    # Whether the head is in the place of `_layer`. Models of 0.1 have none.
    _within = False

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
        self.pos_label = pos_label
        self.group_features = group_features
        self.cv = cv

    # -- fitting ---------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        self._check_questions()
        X, codes = self._validate_debiasing_data(X, y)
        groups, compared = encode_compared_groups(
            sensitive_features,
            codes,
            self.classes_.tolist(),
            positions=self._classes_compared(),
            constraint=self.constraint,
            small_groups=self.small_groups,
        )
        seed = draw_seed(self.random_state)
        trained, rows = find_network(self.estimator), np.arange(len(codes))
        if trained is None:
            # Rows that train the network do not correct it.
            cell = groups.codes * len(self.classes_) + codes
            taught, rows = split_cells(_renumbered(cell), _NOT_TAUGHT, seed)
            with seeded(seed):
                trained = self._fit_estimator(X, taught, codes)
        network, inputs, raw, codes = self._run_original(trained, X, codes, device)
        network = self._of_one_tensor(network)
        question = self._question(groups, compared)
        data = self._read(network, inputs, raw)
        data = data._replace(codes=codes, groups=groups.codes, n_groups=len(groups.labels))
        calibrate = rows[:0]
        if isinstance(self.confidence, Real):
            rows, calibrate = self._hold_out(data, rows, question, seed)

        targets = [self.epsilon * factor for factor in _TARGETS]
        fitted = fit_corrections(data.take(rows), question, targets, self.cv, seed)
        judge, best = fitted.judge, fitted.judge.best()
        self.certificate_: FairnessCertificate | None = None
        measured: tuple[Any, ...] = judge.table(best), question, min(self.cv, len(rows))
        measured += (judge.chosen_table(),)
        if isinstance(self.confidence, Real):
            best, table, self.certificate_ = certify_corrections(
                fitted, data.take(calibrate), question, best
            )
            measured = table, question
        self.best_trial_, self.trials_ = best, judge.trials()
        self.objective_ = float(self.trials_.objective[best])
        for name, value in report(*measured).items():
            setattr(self, name, value)
        if self.certificate_ is not None:
            self.feasible_ = self.certificate_.holds
        self._build(network, fitted, best)
        self._dtype = self._predict_dtype(network, inputs)
        self._warn_of(best)

    def _check_questions(self) -> None:
        if callable(self.constraint):
            raise ValueError(
                f"constraint={self._name(self.constraint)} is a function, and "
                "LinearPostDebiaser takes a constraint by name: "
                f"{', '.join(map(repr, _CONSTRAINTS))}. Name one, or use ThresholdDebiaser, "
                "RandomPerturbationDebiaser or LayerwiseDebiaser, which take a function."
            )
        super()._check_questions()

    def _positive(self) -> int | None:
        """Position of the class whose rates are compared; None for all classes."""
        classes = self.classes_.tolist()
        if self.pos_label is not None and self.pos_label not in classes:
            raise ValueError(
                f"pos_label={shown(self.pos_label)} is not one of the classes in y, "
                f"[{shown_all(classes)}]. Give one of these classes, of the same type."
            )
        if len(classes) > 2 and self.constraint != "equal_opportunity":
            return None
        if self.pos_label is not None:
            return classes.index(self.pos_label)
        if len(classes) > 2:
            raise ValueError(
                f"pos_label is None, expected one of the classes [{shown_all(classes)}]: "
                "constraint='equal_opportunity' compares the rate of one class, and with more "
                "than two classes there is no default. Set pos_label to this class."
            )
        return 1

    def _classes_compared(self) -> list[int | None]:
        positive = self._positive()
        if self.constraint == "demographic_parity":
            return [None]
        return (
            [positive]
            if self.constraint == "equal_opportunity"
            else list(range(len(self.classes_)))
        )

    def _question(self, groups: Groups, compared: np.ndarray) -> Question:
        assert isinstance(self.constraint, str)  # a function is refused
        assert isinstance(self.performance, str)
        return Question(
            constraint=self.constraint,
            epsilon=self.epsilon,
            performance=self.performance,
            confidence=self.confidence,
            margin=self.margin,
            classes=self.classes_.tolist(),
            groups=[groups.labels[group] for group in compared.tolist()],
            compared=compared,
            positive=self._positive(),
        )

    def _read(self, network: nn.Module, inputs: Inputs, raw: torch.Tensor) -> Data:
        """Collect the logits of the network, and the features that the head may see."""
        self._flat = raw.ndim == 1
        logits = class_logits(raw.double().reshape(len(raw), -1), self._output).numpy()
        features = {}
        self._layer, self._within = "", False
        if self.group_features != "input":
            self._layer, self._within = find_feature_layer(network, inputs[:2]) or ("", False)
            if self._layer:
                read = output_layer_inputs if self._within else layer_inputs
                features["network"] = read(network, self._layer, inputs)
        is_table = inputs.is_table and not inputs.rows.integers
        one = inputs.rows.form == "array"
        if (self.group_features == "input" and one) or (self.group_features == "auto" and is_table):
            flat = [torch.as_tensor(batch).flatten(1).cpu().double() for batch in inputs.batches()]
            features["input"] = torch.cat(flat).numpy()
        if not features:
            advice = (
                "Set group_features='input', which takes X itself."
                if one
                else "X has inputs by name or in a tuple, which group_features='input' does not "
                "take. Give a network that ends in a torch.nn.Linear (with LoRA, name this layer "
                "in modules_to_save, not in target_modules), or use another debiaser."
            )
            raise ValueError(
                f"group_features={self.group_features!r} needs the input of the last linear layer "
                f"of the network. The {type(network).__name__} in estimator has no linear layer "
                "that runs once and takes one row of features for each sample; or torch.fx cannot "
                "trace the network, and its outputs are not those of its last linear layer. "
                f"{advice}"
            )
        none = np.zeros(0, dtype=np.int64)
        return Data(logits, features, none, none, 0)

    def _hold_out(
        self, data: Data, rows: np.ndarray, question: Question, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hold out the rows of the certificate, at random among the rows of each rate."""
        kinds = data.groups[rows]
        if self.constraint != "demographic_parity":
            kinds = kinds * len(question.classes) + data.codes[rows]
        kept, held = split_cells(_renumbered(kinds), self.calibration_fraction, seed + 1)
        calibrate = rows[
            np.setdiff1d(held, kept)
        ]  # a row that is the only one of its kind stays out
        rates, every = (
            question.rates(data.take(some).table(question)) for some in (calibrate, rows)
        )
        missing = {int(group) for rate in rates for group in np.flatnonzero(rate.sizes < 1)}
        if len(rates) < len(every):  # some class has no row at all
            missing = set(range(len(question.groups)))
        if missing:
            what = "" if self.constraint == "demographic_parity" else " for some class"
            raise ValueError(
                f"confidence={self.confidence:g} asks for a certificate, and its calibration rows "
                f"({len(calibrate)} of {len(rows)}) hold no row of {len(missing)} of the "
                f"{len(question.groups)} compared groups{what}. Take more samples, merge small "
                "groups, or set small_groups='exclude'."
            )
        return rows[kept], calibrate

    def _build(self, network: nn.Module, fitted: Fitted, best: int) -> None:
        """Assemble the network of the chosen candidate."""
        self.group_features_ = fitted.kind if best else "none"
        if fitted.kind == "input":
            self._layer, self._within = "", False
        self.module_ = self._sequence(network)
        if best:
            n_features, weight = len(fitted.of_features.mean), fitted.head.weight
            own = fitted.of_features.before(Linear(weight[:n_features], fitted.head.bias))
            rest = fitted.of_logits.before(Linear(weight[n_features:], 0 * fitted.head.bias))
            own = Linear(own.weight, own.bias + rest.bias)
            labels = fitted.of_logits.before(fitted.labels)
            chosen = fitted.weights[best - UNCORRECTED]
            correction = Correction(labels, rest.weight, chosen, fitted.values)
            self.module_ = self._sequence(*self._parts().build(network, own, correction))

    def _check_network(self, network: nn.Module, rows: Inputs) -> None:
        """Accept any network: its weights do not change."""

    def _search(self, search: Any) -> None:
        """Do nothing: `_fit` solves for the weights."""

    def _sequence(self, *parts: nn.Module) -> nn.Sequential:
        signature = self._signature
        if signature.form == "array":
            signature = ONE_TENSOR
        return in_sequence(*parts, signature=signature, names=list(self._shapes()))

    def _of_one_tensor(self, network: nn.Module) -> nn.Module:
        """Read the answer of a network of one array, so that a trace can follow it."""
        if self._signature.form != "array" or self._signature.answer == "tensor":
            return network
        return in_sequence(network, signature=self._signature)

    def _parts(self) -> Parts:
        return Parts(self._output, self._flat, self._layer or None, self._within)

    def _warn_of(self, best: int) -> None:
        """Warn of each wish that was not met; fitted attributes say the same."""
        found = f"bias {self.bias_:+.3f}, {self.performance} {self.performance_:.3f}"
        if not self.feasible_:
            self._warn_infeasible("", stacklevel=7)
        elif best <= UNCORRECTED:
            taken = "with the decision that performs best" if best else "with its own decision"
            warnings.warn(
                f"None of {len(_TARGETS)} corrections was better than the original network "
                f"{taken}. The original network was taken ({found}).",
                FallbackWarning,
                stacklevel=6,
            )

    # -- saving and predicting -------------------------------------------------------------

    def _module_to_save(self) -> nn.Module:
        return self.module_

    def _rebuild(self, network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
        network = self._of_one_tensor(network.eval())
        module = self._sequence(network)
        if self.group_features_ != "none":
            n_features = math.prod(self._shapes().get(ONLY, ()))
            if self._layer:
                layer = network.get_submodule(self._layer)
                if not isinstance(layer, nn.Linear):
                    raise ValueError(f"{shown(self._layer)} in the network is not a linear layer")
                n_features = layer.in_features
            module = self._sequence(*self._parts().build_like(network, n_features, weights))
        return load_own_weights(module.eval(), weights)

    def _to_logit(self, raw: torch.Tensor) -> torch.Tensor:
        logits = class_logits(raw.cpu().double().reshape(len(raw), -1), self._output)
        return logits if self._output.n_columns > 1 else torch.cat([0 * logits, logits], 1)

    def _logits(self, X: Any) -> np.ndarray:
        return self._logit(self._validate_features(X))[:, self._order]
