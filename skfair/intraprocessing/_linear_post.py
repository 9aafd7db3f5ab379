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

from skfair.base._net import load_weights
from skfair.base._networks import copied
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._gaps import SURE
from skfair.intraprocessing._group_blind_fit import (
    UNCORRECTED,
    Data,
    Fitted,
    certify_corrections,
    fit_corrections,
)
from skfair.intraprocessing._group_blind_network import (
    ClassLogits,
    Correction,
    Parts,
    class_logits,
    find_feature_layer,
)
from skfair.intraprocessing._judge import Question, report
from skfair.intraprocessing._layers import layer_inputs
from skfair.intraprocessing._network import LogitNetwork, find_network
from skfair.intraprocessing._posteriors import Linear
from skfair.metrics._certificate import FairnessCertificate
from skfair.utils import (
    FallbackWarning,
    Groups,
    InfeasibleConstraintWarning,
    draw_seed,
    resolve_device,
    seeded,
)
from skfair.utils._shown import shown, shown_all
from skfair.utils._split import split_cells

# Gaps to aim at, in epsilons: what is aimed at is not what new rows show.
_TARGETS = (3.0, 2.0, 1.5, 1.25, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1)
_FEWEST_FOLDS = 3  # one to judge on, one to predict out of fold, one to fit
_NOT_TAUGHT = 0.3  # share of rows that are kept from a network that is yet to be trained
_CONSTRAINTS = ("demographic_parity", "equal_opportunity", "equalized_odds")


def _renumbered(kinds: np.ndarray) -> np.ndarray:
    return np.unique(kinds, return_inverse=True)[1]


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
        and never changed. A skorch net that is not fitted yet is cloned and fitted first, on 70 %
        of the debiasing rows, and judged on the others.
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
        The class of equal opportunity; None is the second of two. With two
        classes its rates are those that are compared, too.
    group_features : {"auto", "network", "input"}, default="auto"
        What the head sees beside the network's outputs: "network", what goes into its last
        linear layer; "input", X. "auto" takes what tells the groups better out of fold, and X
        only where it is a table of floating numbers.
    cv : int, default=5
        Number of folds, three or more.
    confidence : float, "auto" or None, default="auto"
        How sure it must be that the constraint holds. "auto" maximises (performance - chance)
        times the probability that it holds on new rows, twice as many as it is measured on,
        among candidates whose measured bias meets it; with more than two groups (performance -
        chance) less twice the expected excess of the largest difference over `epsilon`. A float
        between 0 and 1 asks for a certificate at that confidence on rows of its own, see
        `certificate_`. None asks that the measured bias is below ``epsilon - margin``.
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
    classes : array-like of shape (n_classes,), default=None
        The labels in the order of the network's outputs; where two classes share one, the label
        of a large output comes second. None takes the order that a skorch net or skfair
        classifier has learned, and else sorts the labels.
    device : str or torch.device, default="auto"
        Where to run the network; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the folds. The same int gives the same bits on the same device.
    verbose : int, default=0
        Of no effect here: a fit takes seconds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Second dimension of X: features, or channels of an image.
    module_ : torch.nn.Module
        The network, its head and the correction: inputs and outputs are those of the original
        network, and the usual decision, the largest output or the usual threshold, is the right
        one.
    group_features_ : str
        What the head sees, "network" or "input"; "none" where the network was left as it is.
    bias_, performance_ : float
        Bias and performance of predictions out of fold, each by what was chosen on the other
        folds; with a certificate on its calibration rows. With two groups and one compared rate
        the bias is that of the first group less that of the second; else the largest difference.
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
        rows).
    certificate_ : FairnessCertificate or None
        What was shown at the stated confidence; None without one.
    trials_ : DataFrame
        A row a candidate: "candidate", "target" (the gap that was aimed at), "bias",
        "performance", "probability" (of the constraint to hold on new rows), "objective" and
        "feasible". Row 0 is the original network by its own decision, row 1 the same, calibrated
        and by the decision that performs best. All out of fold, as they looked in the choice.
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

    def _fit(self, X: ArrayLike, y: ArrayLike, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        self._check_questions()
        X, codes = self._validate_debiasing_data(X, y)
        is_table = X.ndim == 2 and X.dtype.kind == "f"
        groups, compared = self._validate_groups(sensitive_features, codes)
        seed = draw_seed(self.random_state)
        trained, rows = find_network(self.estimator), np.arange(len(codes))
        if trained is None:
            # A network that learns from the debiasing rows, too, is corrected by others.
            cell = groups.codes * len(self.classes_) + codes
            taught, rows = split_cells(_renumbered(cell), _NOT_TAUGHT, seed)
            with seeded(seed):
                trained = self._fit_estimator(X[taught], codes[taught])
        network, inputs, raw, codes = self._run_original(trained, X, codes, device)
        question = self._question(groups, compared)
        data = self._read(network, inputs, raw, is_table)
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
        self._dtype = self._predict_dtype(network, inputs[:1])
        self._warn_of(best)

    def _check_questions(self) -> None:
        if callable(self.constraint):
            raise ValueError(
                f"constraint={self._name(self.constraint)} is a function, and "
                "LinearPostDebiaser solves for constraints by name: "
                f"{', '.join(map(repr, _CONSTRAINTS))}. Name one, or use ThresholdDebiaser, "
                "RandomPerturbationDebiaser or LayerwiseDebiaser, which ask a function."
            )
        super()._check_questions()

    def _positive(self) -> int | None:
        """Position of the class whose rates are compared; None for all classes."""
        classes = self.classes_.tolist()
        if self.pos_label is not None and self.pos_label not in classes:
            raise ValueError(
                f"pos_label={shown(self.pos_label)} is none of the classes in y, "
                f"[{shown_all(classes)}]. Give one of them, of the same type."
            )
        if len(classes) > 2 and self.constraint != "equal_opportunity":
            return None
        if self.pos_label is not None:
            return classes.index(self.pos_label)
        if len(classes) > 2:
            raise ValueError(
                f"pos_label is None, where one of the classes [{shown_all(classes)}] was wanted: "
                "constraint='equal_opportunity' is about one class, and with more than two none "
                "is the usual one. Name it."
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

    def _read(
        self, network: nn.Module, inputs: torch.Tensor, raw: torch.Tensor, is_table: bool
    ) -> Data:
        """Collect the logits of the network, and the features that its head may see."""
        self._flat = raw.ndim == 1
        logits = class_logits(raw.double().reshape(len(raw), -1), self._output).numpy()
        features = {}
        self._layer = ""
        if self.group_features != "input":
            self._layer = find_feature_layer(network, inputs[:2]) or ""
            if self._layer:
                features["network"] = layer_inputs(network, self._layer, inputs)
        if self.group_features == "input" or (self.group_features == "auto" and is_table):
            features["input"] = inputs.flatten(1).double().cpu().numpy()
        if not features:
            raise ValueError(
                f"group_features={self.group_features!r} wants what goes into the last linear "
                f"layer of the network, and the {type(network).__name__} in estimator has none "
                "that is run once and takes a row of features a sample, or torch.fx cannot trace "
                "it. Set group_features='input', which takes X itself."
            )
        none = np.zeros(0, dtype=np.int64)
        return Data(logits, features, none, none, 0)

    def _hold_out(
        self, data: Data, rows: np.ndarray, question: Question, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hold out the rows of the certificate, at random among those that a rate is of."""
        kinds = data.groups[rows]
        if self.constraint != "demographic_parity":
            kinds = kinds * len(question.classes) + data.codes[rows]
        kept, held = split_cells(_renumbered(kinds), self.calibration_fraction, seed + 1)
        calibrate = rows[np.setdiff1d(held, kept)]  # without the only row of its kind
        rates, every = (
            question.rates(data.take(some).table(question)) for some in (calibrate, rows)
        )
        missing = {int(group) for rate in rates for group in np.flatnonzero(rate.sizes < 1)}
        if len(rates) < len(every):  # none of some class at all
            missing = set(range(len(question.groups)))
        if missing:
            what = "" if self.constraint == "demographic_parity" else " with some class"
            raise ValueError(
                f"confidence={self.confidence:g} asks for a certificate, and of its calibration "
                f"rows, {len(calibrate)} of {len(rows)}, none are of {len(missing)} of the "
                f"{len(question.groups)} groups that it compares{what}. Take more samples, merge "
                "small groups, or set small_groups='exclude'."
            )
        return rows[kept], calibrate

    def _build(self, network: nn.Module, fitted: Fitted, best: int) -> None:
        """Put the network that was chosen together."""
        self.group_features_ = fitted.kind if best else "none"
        if fitted.kind == "input":
            self._layer = ""
        self.module_ = nn.Sequential(network).eval()
        if best:
            n_features, weight = len(fitted.of_features.mean), fitted.head.weight
            own = fitted.of_features.before(Linear(weight[:n_features], fitted.head.bias))
            rest = fitted.of_logits.before(Linear(weight[n_features:], 0 * fitted.head.bias))
            own = Linear(own.weight, own.bias + rest.bias)
            labels = fitted.of_logits.before(fitted.labels)
            chosen = fitted.weights[best - UNCORRECTED]
            correction = Correction(labels, rest.weight, chosen, fitted.values)
            self.module_ = self._parts().build(network, own, correction)

    def _check_weights(self, network: nn.Module, rows: torch.Tensor) -> None:
        """Any network will do: its weights stay."""

    def _search(self, search: Any) -> None:
        """Nothing to search: all is solved for."""

    def _parts(self) -> Parts:
        return Parts(self._output, self._flat, self._layer or None)

    def _warn_of(self, best: int) -> None:
        """Say what did not go as asked for; fitted attributes say the same."""
        found = f"bias {self.bias_:+.3f}, {self.performance} {self.performance_:.3f}"
        if not self.feasible_:
            wanted, advice = f"within {self.epsilon:g}", "Allow a larger epsilon."
            if self.certificate_ is not None:
                wanted += f" that is certified with confidence={self.confidence:g}"
                if self.certificate_.rows_needed is not None:
                    most = int(self.certificate_.rows_needed.to_numpy().max())
                    advice = f"With {most} calibration rows of each group it would. {advice}"
            elif abs(self.bias_) < self.epsilon:
                wanted += f" that holds on new rows with a probability of {SURE:g}"
                advice = f"Give more rows. {advice}"
            warnings.warn(
                f"No candidate has a {self.constraint} bias {wanted}; the nearest one was taken "
                f"({found}, 95 % interval {self.bias_interval_[0]:+.3f} to "
                f"{self.bias_interval_[1]:+.3f}). {advice}",
                InfeasibleConstraintWarning,
                stacklevel=6,
            )
        elif best <= UNCORRECTED:
            taken = "with the decision that performs best" if best else "as it is"
            warnings.warn(
                f"None of {len(_TARGETS)} corrections was better than the original network "
                f"{taken}, which was taken ({found}).",
                FallbackWarning,
                stacklevel=6,
            )

    # -- saving and predicting -------------------------------------------------------------

    def _module_to_save(self) -> nn.Module:
        return self.module_

    def _rebuild(self, network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
        network = network.eval()
        module = nn.Sequential(network)
        if self.group_features_ != "none":
            n_features = math.prod(self._sample_shape)
            if self._layer:
                layer = network.get_submodule(self._layer)
                if not isinstance(layer, nn.Linear):
                    raise ValueError(f"{shown(self._layer)} in the network is no linear layer")
                n_features = layer.in_features
            module = self._parts().build_like(network, n_features, weights)
        return load_weights(module.eval(), weights, "module_")

    def _reader(self) -> LogitNetwork:
        return ClassLogits(copied(self.module_), self._output)

    def _logits(self, X: ArrayLike) -> np.ndarray:
        return self._logit(self._validate_features(X))[:, self._order]
