"""Intra-processing, all methods: the base that copies, judges, selects and hands back."""

import math
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import skorch
import torch
from numpy.typing import ArrayLike
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair.base import TorchClassifier
from skfair.base._kept_copy import converted
from skfair.base._net import noise
from skfair.base._networks import (
    are_alike,
    copied,
    floating_dtype,
    may_run_double,
    rounding,
    written_parameters,
)
from skfair.base._threads import few_threads
from skfair.intraprocessing._certified import choose_certified
from skfair.intraprocessing._copy_network import copy_network, load_own_weights, own_weights
from skfair.intraprocessing._debiasing_data import (
    classes_in_output_order,
    encode_compared_groups,
    warn_of_order,
)
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._gaps import SURE
from skfair.intraprocessing._inputs import (
    ONE_TENSOR,
    ONLY,
    Batch,
    Inputs,
    Rows,
    Signature,
    answer_kind,
    call,
    form_batch,
    inputs_for,
)
from skfair.intraprocessing._network import (
    LogitNetwork,
    Output,
    Trained,
    as_logit,
    find_network,
    find_output,
    fold_threshold,
)
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._original import check_weights, run_all, run_original
from skfair.intraprocessing._read_inputs import (
    check_like_fit,
    is_one_array,
    open_rows,
    read_loader,
)
from skfair.intraprocessing._rows import split_rows
from skfair.intraprocessing._search import Search, network_state
from skfair.intraprocessing._selection import Selection
from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._certify import MOST_CONFIDENCE
from skfair.metrics._group_metric import is_loss, is_ratio, plain_name
from skfair.metrics._rates import CONSTRAINTS, PERFORMANCES, rate_names
from skfair.utils import (
    FallbackWarning,
    Groups,
    InfeasibleConstraintWarning,
    InterruptedSearchWarning,
    OverfitWarning,
    draw_seed,
)
from skfair.utils._device import resolve_device
from skfair.utils._random import draws_nothing, own_draws, own_generators, seeded
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown, shown_all, tell_apart
from skfair.utils._typed import fit_context
from skfair.utils._validation import check_logits, validate_labels

_THRESHOLD_ONLY = 1  # in trials_, after the original network
_HELD_OUT = 0.3  # of the rows, where the network itself is yet to be trained on the others
_SAME_ON = 16  # rows on which a prepared network has the outputs of the original one
_OPTIMISM = 3.0  # standard errors between tuned and held-out rows that are no chance any more


@fill_docstring
class IntraprocessingDebiaser(MetaEstimatorMixin, TorchClassifier, metaclass=ABCMeta):
    """Base of the debiasers: it makes a trained network meet a group-fairness constraint.

    Subclass it to write a method. A subclass writes ``_search(search)``, which changes the
    weights of a copy of the network and hands candidates to ``search.consider``, see
    :class:`Search`. The base does the rest: it checks the arguments, copies the network, splits
    the rows, finds the best threshold for each candidate, chooses a candidate on rows that tuned
    no weights, puts the threshold into the network, warns, predicts, saves and loads.

    A subclass may also have

    - a constructor with parameters of its own, which it adds to ``_parameter_constraints``;
    - ``validation_fraction``, a parameter or a class attribute: the share of the rows that judge
      candidates and tune no weights. A method that tunes weights on labels or groups needs it;
    - ``parameters``, a parameter that names the parameters of the network that may change;
    - ``_prepare(network, X)``, which changes the copy of the network, or adds modules to it,
      before the search; what it adds is saved and loaded;
    - ``_check_network(network, rows)``, which refuses a network that the method cannot change.

    The guide *Add a method* builds two methods step by step.

    Parameters
    ----------
    {estimator}
    {constraint}
    {epsilon}
    {performance}
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {device}
    {random_state}
        Seeds the search and the split of the rows.
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

    See Also
    --------
    FinetuningDebiaser : The base of methods that train all layers with a loss of their own.

    Examples
    --------
    A debiaser that shrinks the weight of the second feature, which is the group here:

    {biased_network}
    >>> class ShrinkingDebiaser(IntraprocessingDebiaser):
    ...     def _search(self, search):
    ...         for factor in (0.5, 0.0):
    ...             state = {name: weight.clone() for name, weight in search.original.items()}
    ...             state["network.weight"][:, 1] *= factor
    ...             search.go_to(state)
    ...             search.consider(candidate="shrunk", step=factor)
    >>> debiaser = ShrinkingDebiaser(network, epsilon=0.2, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.trials_.candidate.tolist(), debiaser.best_trial_
    (['original', 'threshold', 'shrunk', 'shrunk'], 3)
    """

    _parameter_constraints: dict = {
        "constraint": [StrOptions(set(CONSTRAINTS)), callable],
        "epsilon": [Interval(Real, 0, 1, closed="neither")],
        "performance": [StrOptions(set(PERFORMANCES)), callable],
        "confidence": [Interval(Real, 0, 1, closed="neither"), StrOptions({"auto"}), None],
        "margin": [Interval(Real, 0, 1, closed="left")],
        "small_groups": [StrOptions({"shrink", "exclude", "error"})],
        "calibration_fraction": [Interval(Real, 0, 1, closed="neither")],
        "output": [StrOptions({"auto", "logits", "probabilities"})],
        "classes": ["array-like", None],
        "device": TorchClassifier._parameter_constraints["device"],
        "random_state": TorchClassifier._parameter_constraints["random_state"],
        "verbose": TorchClassifier._parameter_constraints["verbose"],
    }

    # Share of the rows that judge candidates and tune nothing; a parameter of the debiasers
    # that tune weights on the others.
    validation_fraction: float | None = None
    # Which parameters may change; a parameter of the debiasers that change weights.
    parameters: str | Sequence[str] | None = None
    # As above, for subclasses with constructors of their own.
    classes: ArrayLike | None = None
    # Whether more than two classes are taken.
    _multi_class = False
    # Models of 0.1 and 0.2 have none.
    _signature = ONE_TENSOR
    # How `bias_` is measured without a certificate, for the line in a notebook.
    _judged = "cross-validated"

    def __init__(
        self,
        estimator: Any,
        *,
        constraint: str | Callable = "demographic_parity",
        epsilon: float = 0.05,
        performance: str | Callable = "balanced_accuracy",
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
        self.estimator = estimator
        self.constraint = constraint
        self.epsilon = epsilon
        self.performance = performance
        self.confidence = confidence
        self.margin = margin
        self.small_groups = small_groups
        self.calibration_fraction = calibration_fraction
        self.output = output
        self.classes = classes
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _search(self, search: Search) -> None:
        """Change the network, and hand candidates to ``search.consider``.

        Parameters
        ----------
        search : Search
            The copy of the network, the debiasing rows, and the judge of candidates.
        """

    def _prepare(self, network: torch.nn.Module, X: Batch) -> torch.nn.Module:
        """Change the copy of the network, or add modules to it, before the search; a hook.

        It is called again where a saved model is loaded, and the weights from the file then replace
        those of the result. So the structure of the result must follow from the parameters, the
        network and the shape of X alone.

        Parameters
        ----------
        network : torch.nn.Module
            The copy of the user's network, in eval mode. It may be changed, but for its frozen
            parameters: these share their memory with the user's network.
        X : tensor of shape (n_rows, ...), or a dict or a tuple of tensors
            Some debiasing rows (zeros and, of integers, ones where a model is loaded), on the
            device of the network, as the network takes them. New modules must have this device,
            and the type of the network's floating weights.

        Returns
        -------
        torch.nn.Module
            A network with the same outputs as the original one: what is added changes nothing at
            first. This one returns the network as it is.

        Notes
        -----
        ``self._output.kind`` is "logits" or "probabilities", what the network returns, and
        ``self._output.n_columns`` is 1 or 2.
        """
        return network

    # The estimator is checked in `fit`, where a message can say what to do about it.
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: ArrayLike | None = None, *, sensitive_features: Any = None) -> Self:
        """Search for weights and a threshold that meet the constraint.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), dict, tuple, Dataset, list of files or DataLoader
            Debiasing rows as the network takes them. The network should not have been trained on
            these rows. X is one of

            - an array, tensor or data frame: ``network(X)``;
            - a dict of arrays of equal length, such as the output of a tokenizer: ``network(**X)``.
              A :class:`skorch.helper.SliceDict` of them can be cut by a search;
            - a tuple of arrays of equal length: ``network(*X)``;
            - a map-style :class:`torch.utils.data.Dataset`. An item is one of the above for one
              row; of a tuple, such as (inputs, label), the first entry is. It is read batch by
              batch, again in each pass;
            - a list of image files of one size: the network gets channels first, from 0 to 1;
            - a :class:`torch.utils.data.DataLoader`, which is read once, into memory. Its batches
              are (inputs, label, group), without `y` and `sensitive_features`; or inputs alone,
              beside them.

            Floating numbers are used in the floating type of the network's parameters. Integers
            stay integers where the network runs on them. Where it does not, they are cast to that
            type; a cast that loses values is an error.
        y : array-like of shape (n_samples,), default=None
            Labels of two classes, or of any number for a debiaser that takes more. A large output
            means the second of two classes in sorted order, unless `classes` or the network says
            otherwise. None for a DataLoader with labels.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
                default=None
            Group of each sample; several columns are intersected. They are needed here and
            nowhere else. None is an error that says how groups reach ``fit``, but for a
            DataLoader with groups.

        Returns
        -------
        self : IntraprocessingDebiaser
            The fitted debiaser. After Ctrl-C in the search, it has the best candidate so far.

        Raises
        ------
        TypeError
            `estimator` holds no network.
        ValueError
            The data are bad. There is one class, or more than the debiaser or the network takes.
            There are no groups, or one, or a group without the labels that the constraint compares.
            The network cannot be copied, does not run on X, or does not return a finite value for
            each class (or one value for two classes).
        """
        X, y, sensitive_features = read_loader(X, y, sensitive_features)
        check_rows(X=X, y=y, sensitive_features=sensitive_features)
        self._fit(X, y, sensitive_features)
        self._measures = self._names_of_measures()
        # Up to here the classes were in the order of the network's outputs.
        self._order = np.argsort(self.classes_, kind="stable")
        self.classes_ = self.classes_[self._order]
        return self

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        if "module_" in state:
            # The weights in the place of the network, which is of the structure of the original.
            trained, network = find_network(self.estimator), self._module_to_save()
            state["module_"] = own_weights(network, trained.module if trained else nn.Module())
            state["_output"] = tuple(self._output)
            if "_signature" in state:
                state["_signature"] = tuple(self._signature)
            if self.certificate_ is not None:
                state["certificate_"] = self.certificate_.to_dict()
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights, output = state.pop("module_"), Output(*state.pop("_output"))
        trained = find_network(self.estimator) or find_network(clone(self.estimator).initialize())
        assert trained is not None  # it is initialised
        # Models of 0.1 have none.
        if state.setdefault("certificate_", None) is not None:
            state["certificate_"] = FairnessCertificate.from_dict(state["certificate_"])
        state.setdefault("_order", np.arange(len(state["classes_"])))
        state.setdefault("_measures", self._names_of_measures())
        if "_signature" in state:
            state["_signature"] = Signature(*state["_signature"])
        self.__dict__.update(state)
        self._output = output
        # Where the method prepares no network, the copy keeps the tensors of the file.
        prepares = type(self)._prepare is not IntraprocessingDebiaser._prepare
        network = copy_network(
            trained.module, None if prepares else weights, self.parameters
        ).eval()
        some = self._sample(2, floating_dtype(network) or torch.float32)
        with seeded(0):  # of weights that those from the file replace
            network = self._prepare(network, some)
        self.module_ = self._rebuild(network, weights)

    def _module_to_save(self) -> torch.nn.Module:
        """The network; the shift behind it is in ``threshold_``."""
        return self.module_.get_submodule("0")

    def _rebuild(
        self, network: torch.nn.Module, weights: dict[str, torch.Tensor]
    ) -> torch.nn.Module:
        """Make ``module_`` of a copy of the user's network, and weights from a file."""
        network = load_own_weights(network, weights)
        return self._fold(network)

    def _fold(self, network: torch.nn.Module) -> torch.nn.Module:
        """Make ``module_`` of the network and the threshold."""
        return fold_threshold(
            network, self._output, self.threshold_, self._signature, list(self._shapes())
        )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a sample of each part of X."""
        shape = self._sample_shape
        return shape if isinstance(shape, dict) else {ONLY: shape}

    def _sample(self, n_rows: int, dtype: torch.dtype) -> Batch:
        """A batch as the network takes it, of zeros and, of integers, ones; it takes no memory."""
        kinds = self._signature.integers
        parts = {
            name: (
                torch.ones((), dtype=torch.int64) if name in kinds else torch.zeros((), dtype=dtype)
            ).expand(n_rows, *shape)
            for name, shape in self._shapes().items()
        }
        return form_batch(self._signature.form, parts)

    def _fit_summary(self) -> str:
        certified = self.certificate_ is not None
        rows = "on the calibration rows" if certified else self._judged
        low, high = self.bias_interval_
        constraint, performance = self._measures
        return (
            f"{'certified' if certified else 'feasible'}: {'yes' if self.feasible_ else 'no'}; "
            f"{constraint} bias {self.bias_:.3f} [{low:.3f}, {high:.3f}], "
            f"{performance} {self.performance_:.3f}, {rows}"
        )

    def _outputs_of_noise(
        self, rng: np.random.Generator, *, quick: bool = False
    ) -> np.ndarray | None:
        rows = self._noise(rng)
        if rows is None:
            return None
        dtype = floating_dtype(self.module_)
        if not quick or dtype is None:
            return self._logit_on(torch.device("cpu"), rows)
        # Rows of a table are predicted by a copy in float64, which takes long for large networks.
        # In eval mode, a network of well-known layers does not change itself: it needs no copy.
        plain = draws_nothing(self.module_) and not written_parameters(self.module_)
        network = self.module_ if plain else copied(self.module_)
        device = next(iter(network.state_dict().values())).device

        some = Inputs(rows, device, dtype, self._signature.integers)
        with torch.no_grad():
            logit = self._to_logit(call(network, some[:]))
        return logit.cpu().double().numpy()

    def _noise(self, rng: np.random.Generator) -> Rows | None:
        """Draw a few rows; None where they are large. Of integers they are zeros and ones."""
        parts = {}
        for name, shape in self._shapes().items():
            part = noise(rng.standard_normal, shape)
            if part is None:
                return None
            parts[name] = (part > 0).astype(np.int64) if name in self._signature.integers else part
        return Rows(self._signature.form, parts)

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
        self._check_callables(groups, codes)
        seed = draw_seed(self.random_state)
        trained, rows = find_network(self.estimator), None
        if trained is None:
            # A network that learns from the debiasing rows, too, is judged on others.
            rows = split_rows(
                self._objective(codes, groups, compared),
                None,
                seed=seed,
                validation_fraction=self.validation_fraction or _HELD_OUT,
                calibration_fraction=self.calibration_fraction,
            )
            with seeded(seed):
                trained = self._fit_estimator(X, rows.tune, codes)
        network, inputs, raw, codes = self._run_original(trained, X, codes, device)
        # In pairs, while both networks have the same structure.
        kept = list(zip(network.parameters(), trained.module.parameters(), strict=False))
        scores = as_logit(raw, self._output).numpy()

        objective = self._objective(codes, groups, compared)
        if rows is None:
            rows = split_rows(
                objective,
                scores,
                seed=seed,
                validation_fraction=self.validation_fraction,
                calibration_fraction=self.calibration_fraction,
            )
        with own_generators(seed):
            network = self._prepared(network, inputs, raw)
        searched = LogitNetwork(network, self._output)
        selection = Selection(
            objective,
            scores=scores,
            rows=rows,
            original=network_state(searched, kept),
            seed=seed,
            delta=1 - self.confidence if isinstance(self.confidence, Real) else None,
        )
        search = Search(searched, inputs, selection, seed=seed, verbose=self.verbose)
        self.interrupted_ = False
        try:
            with own_generators(seed), few_threads(self._step_size(network, inputs)):
                self._search(search)
        except KeyboardInterrupt:
            self.interrupted_ = True
        self._hand_back(search, groups)

    def _step_size(self, network: torch.nn.Module, X: Inputs) -> float:
        """Multiplications of one step of the search; infinite where they are not known."""
        if not X.is_table:  # a convolution uses each weight many times
            return math.inf
        n_rows = min(getattr(self, "batch_size", X.rows_at_once), len(X))
        return n_rows * sum(parameter.numel() for parameter in network.parameters())

    def _prepared(self, network: torch.nn.Module, X: Inputs, raw: torch.Tensor) -> torch.nn.Module:
        """Let the method prepare the network, and refuse a result with other outputs."""
        if type(self)._prepare is IntraprocessingDebiaser._prepare:
            return network
        some, before = X[:_SAME_ON], raw[:_SAME_ON].double()
        tolerance = rounding(network, X)
        with own_draws():
            prepared = self._prepare(network, some)
        if not isinstance(prepared, torch.nn.Module):
            raise TypeError(
                f"{type(self).__name__}._prepare returns {type(prepared).__name__}; expected a "
                "torch.nn.Module. Return the network."
            )
        network = prepared.eval()
        with torch.no_grad():
            after = call(network, some).cpu().double()
        if before.shape != after.shape or not are_alike(before, after, tolerance, raw):
            raise ValueError(
                f"{type(self).__name__}._prepare returns a network with other outputs than the "
                "original network, and the search starts from the original. Let the new modules "
                "change nothing at first: set their last weights and biases to zero."
            )
        return network

    def _check_questions(self) -> None:
        """Refuse parameters that contradict each other, before any work."""
        if self.confidence is None and self.margin >= self.epsilon:
            raise ValueError(
                f"margin must be smaller than epsilon, got margin={self.margin:g} and "
                f"epsilon={self.epsilon:g}: with confidence=None the bias has to be below epsilon "
                "- margin. Lower margin, or allow a larger epsilon."
            )
        if isinstance(self.confidence, Real) and self.confidence > MOST_CONFIDENCE:
            raise ValueError(
                f"confidence={self.confidence!r} is more than can be computed. Give at most "
                f"{MOST_CONFIDENCE}, or 'auto'."
            )
        if callable(self.constraint) and isinstance(self.confidence, Real):
            raise ValueError(
                f"confidence={self.confidence:g} asks for a certificate, and constraint is a "
                f"callable, {self._name(self.constraint)}, whose distribution is not known. Give "
                f"one of {sorted(CONSTRAINTS)} as constraint, or use confidence='auto'."
            )

    def _check_callables(self, groups: Groups, y: np.ndarray) -> None:
        """Refuse a ratio as the constraint and a loss as the performance."""
        if callable(self.constraint) and is_ratio(self.constraint, groups.features()):
            name, instead = plain_name(self.constraint), "Return one minus the ratio"
            if name.endswith("_ratio"):
                instead = f"Use {name.removesuffix('_ratio')}_difference"
            raise ValueError(
                f"constraint={name} is a ratio, which is 1 where groups are alike; expected a "
                f"bias, which is 0 there. {instead}."
            )
        if callable(self.performance) and is_loss(self.performance, y):
            raise ValueError(
                f"performance={plain_name(self.performance)} is a loss: it is lowest where all "
                "predictions are right. Expected a score, where larger is better. Give a score, "
                "or return the negative."
            )

    def _run_original(
        self, trained: Trained, X: Rows, codes: np.ndarray, device: torch.device
    ) -> tuple[torch.nn.Module, Inputs, torch.Tensor, np.ndarray]:
        """Run a copy of the network on all rows; sets ``_output``, and ``classes_`` by the network.

        Returns
        -------
        network : torch.nn.Module
            The copy, on the device.
        inputs : Inputs
            X as the network takes it.
        raw : tensor of shape (n_samples, ...)
            The outputs of the network, on the CPU.
        codes : ndarray of shape (n_samples,), int
            Position of each label in ``classes_``.
        """
        known = trained.classes
        if known is None and self.classes is not None:
            named = np.asarray(self.classes)
            known = named if len(named) > len(self.classes_) else None
        if known is not None:
            codes = self._match_classes(known, codes)
        network = copy_network(trained.module, None, self.parameters).to(device).eval()
        inputs = inputs_for(network, X, device)
        kind = trained.kind if self.output == "auto" else self.output
        raw = run_original(network, inputs)
        with torch.no_grad():
            answer = answer_kind(call(network, inputs[:1], read=False))
        signature = Signature(X.form, inputs.integers, answer)
        self.__dict__.pop("_signature", None)  # of an earlier fit
        if signature != ONE_TENSOR:
            self._signature = signature
        self._output = find_output(network, raw, kind, n_classes=len(self.classes_))
        self._check_network(network, inputs)
        given_by = "" if known is None else "the network"
        given_by = "classes" if self.classes is not None else given_by
        warn_of_order(raw, codes, self.classes_.tolist(), given_by=given_by)
        return network, inputs, raw, codes

    def _validate_debiasing_data(self, X: Any, y: ArrayLike) -> tuple[Rows, np.ndarray]:
        """Check X and y; set ``classes_`` and ``n_features_in_``."""
        if is_one_array(X):
            y = validate_labels(self, X, y)
            X = open_rows(self, X, reset=True)
        else:
            X = open_rows(self, X, reset=True)
            y = validate_labels(self, range(len(X)), y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError(
                f"y holds one class only ({shown(self.classes_.tolist()[0])}); debiasing needs "
                "samples of two classes."
            )
        if len(self.classes_) > 2 and not self._multi_class:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}: y holds {len(self.classes_)} classes. Use "
                "LinearPostDebiaser, which takes any number of them, or debias one class against "
                "the rest, with a network for these two."
            )
        self._sample_shape = X.shapes[ONLY] if X.form == "array" else X.shapes
        trained, found = find_network(self.estimator), self.classes_.tolist()
        known = None if trained is None else trained.classes
        ordered = classes_in_output_order(
            found,
            learned=None if known is None else known.tolist(),
            classes=self.classes,
            multi_class=self._multi_class,
        )
        self.classes_ = self.classes_[[found.index(label) for label in ordered]]
        return X, np.array([ordered.index(label) for label in found])[codes]

    def _classes_compared(self) -> list[int | None]:
        """Positions of the classes whose samples the constraint compares; None is all samples."""
        rates = ["selection"]
        if isinstance(self.constraint, str):
            rates = rate_names(self.constraint)
        positions = {"selection": None, "true_positive": 1, "false_positive": 0}
        return [positions[rate] for rate in rates]

    def _fit_estimator(self, X: Rows, rows: np.ndarray, codes: np.ndarray) -> Trained:
        """Train a skorch net that is not yet, on some debiasing rows."""
        net = clone(self.estimator)
        binary = isinstance(net, skorch.NeuralNetBinaryClassifier)
        inputs = Inputs(X, torch.device("cpu"), torch.float32)
        if X.integers:
            with seeded(0):  # weights that tell how the network takes integers
                probe = clone(self.estimator).initialize().module_
            inputs = inputs_for(probe.cpu().eval(), X, torch.device("cpu"))
        taught: Any = inputs[rows]
        if isinstance(taught, torch.Tensor):
            taught = taught.numpy()
        net.fit(taught, codes[rows].astype(np.float32 if binary else np.int64))
        trained = find_network(net)
        assert trained is not None  # it is fitted
        return trained._replace(classes=self.classes_)  # it was given codes

    def _match_classes(self, classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Encode the labels by the classes of the network."""
        known, given = classes.tolist(), self.classes_.tolist()
        of_two = len(known) == 2 or self._multi_class
        if not (of_two and set(given) <= set(known)):
            raise ValueError(
                f"y holds the classes [{shown_all(given)}], the network in estimator was "
                f"trained for [{shown_all(known)}]. "
                f"Give labels of the same {'' if self._multi_class else 'two '}classes."
            )
        if known != given:
            codes = np.array([known.index(label) for label in given])[codes]
        self.classes_ = classes
        return codes

    def _check_network(self, network: torch.nn.Module, rows: Inputs) -> None:
        """Refuse a network that the method cannot change; a hook.

        Parameters
        ----------
        network : torch.nn.Module
            The copy of the user's network, in eval mode.
        rows : Inputs
            X; ``rows[:2]`` is a batch as the network takes it.
        """
        check_weights(network, type(self).__name__)

    def _objective(self, codes: np.ndarray, groups: Groups, compared: np.ndarray) -> Objective:
        features = None
        if callable(self.constraint):
            features = _safe_indexing(groups.features(), groups.codes)
        return Objective(
            codes,
            groups.codes,
            n_groups=len(groups.labels),
            constraint=self.constraint,
            performance=self.performance,
            epsilon=self.epsilon,
            confidence=self.confidence,
            margin=self.margin,
            features=features,
            compared=compared,
        )

    def _hand_back(self, search: Search, groups: Groups) -> None:
        """Fold the threshold of the best candidate into a network of the user's kind."""
        self.certificate_: FairnessCertificate | None = None
        if isinstance(self.confidence, Real):
            best, judge, self.certificate_ = choose_certified(search, groups)
        else:
            best, judge = search.selection.choose()
        predicted = best.predicted
        search.selection.replace(best)
        search.go_to(best.state)
        threshold = float(best.choice.threshold[0])
        self.best_trial_, self.threshold_ = best.trial, threshold
        self.module_ = self._fold(search.network.network)
        self._dtype = self._predict_dtype(search.network.network, search.X)
        measured = judge.measure(predicted.astype(float), 0.5)
        judge.check_defined(measured, "the chosen predictions")
        self.bias_ = float(measured.bias[0])
        self.bias_interval_ = judge.interval(measured, predicted)
        self.pairs_ = judge.pairs(list(tell_apart(groups.labels).values()), predicted)
        self.performance_ = float(measured.performance[0])
        self.objective_ = float(best.choice.objective[0])
        self.feasible_ = bool(measured.feasible[0])
        if self.certificate_ is not None:
            self.feasible_ = self.certificate_.holds
        self.trials_ = search.selection.trials()
        self._warn(search)
        self._warn_of_optimism(search, threshold)

    def _warn(self, search: Search) -> None:
        """Warn about each request that was not met; fitted attributes say the same."""
        n_candidates = len(self.trials_) - 1
        found = f"bias {self.bias_:+.3f}, {self._name(self.performance)} {self.performance_:.3f}"
        if self.interrupted_:
            warnings.warn(
                f"The search was interrupted after {n_candidates} candidates. The best of them "
                f"was taken ({found}). Fit again to search on.",
                InterruptedSearchWarning,
                stacklevel=7,
            )
        if not self.feasible_:
            self._warn_infeasible(f"; {len(search.selection.rows.select)} judged it", stacklevel=8)
        elif self.best_trial_ <= _THRESHOLD_ONLY and n_candidates > 1 and not self.interrupted_:
            taken = "with another threshold" if self.best_trial_ else "as it is"
            warnings.warn(
                f"None of {n_candidates - 1} candidates was better than the original network "
                f"{taken}. The original network was taken ({found}).",
                FallbackWarning,
                stacklevel=7,
            )

    def _warn_infeasible(self, judged: str, *, stacklevel: int) -> None:
        """Warn that the constraint does not hold surely enough.

        Parameters
        ----------
        judged : str
            How many rows judged, as the end of a clause; may be empty.
        stacklevel : int
            Of the warning, so that it names the line that called ``fit``.
        """
        expected = f"within {self.epsilon:g}"
        advice = "Allow a larger epsilon, or try another debiaser."
        if self.certificate_ is not None:
            expected += f" that is certified with confidence={self.confidence:g}"
            if self.certificate_.rows_needed is not None:
                most = int(self.certificate_.rows_needed.to_numpy().max())
                advice = f"{most} calibration rows of each group would be enough. {advice}"
        elif abs(self.bias_) < self.epsilon:
            expected += f" that holds on new rows with a probability of {SURE:g}"
            advice = f"Give more rows{judged}. {advice}"
        warnings.warn(
            f"No candidate has a {self._name(self.constraint)} bias {expected}. The best one "
            f"was taken (bias {self.bias_:+.3f}, {self._name(self.performance)} "
            f"{self.performance_:.3f}, 95 % interval {self.bias_interval_[0]:+.3f} to "
            f"{self.bias_interval_[1]:+.3f}). {advice}",
            InfeasibleConstraintWarning,
            stacklevel=stacklevel,
        )

    def _warn_of_optimism(self, search: Search, threshold: float) -> None:
        """Say where the network knows its tuning rows by heart."""
        selection, rows = search.selection, search.selection.rows
        if not rows.held_out or callable(self.constraint):
            return
        here, judges = search.score(rows.select), selection.choosing
        there = search.score(rows.tune)
        if judges.optimism(here > threshold, there > threshold) > _OPTIMISM:
            assert judges.tuned is not None
            on_tuned = judges.tuned.measure(there, threshold)
            on_held_out = selection.judge.measure(here, threshold)
            warnings.warn(
                "The network has learned by heart the rows that tuned its weights: there its bias "
                f"is {on_tuned.bias[0]:+.3f} and its {self._name(self.performance)} "
                f"{on_tuned.performance[0]:.3f}; on held-out rows {on_held_out.bias[0]:+.3f} and "
                f"{on_held_out.performance[0]:.3f}. Fitted attributes are measured on held-out "
                "rows. Give more rows, or fewer max_epochs, or freeze layers.",
                OverfitWarning,
                stacklevel=7,
            )

    @staticmethod
    def _name(measure: str | Callable) -> str:
        return measure if isinstance(measure, str) else plain_name(measure)

    def _names_of_measures(self) -> tuple[str, str]:
        """Name the measures of this fit; the parameters may change after it."""
        return self._name(self.constraint), self._name(self.performance)

    # -- predicting ------------------------------------------------------------------------

    def _predict_dtype(self, network: torch.nn.Module, X: Inputs) -> torch.dtype:
        """Find out whether to predict in float64.

        There the same row comes out the same with whatever rows it is predicted with. Not all
        networks run in it. Images and large networks would take several times as long, and
        decisions of half precision are those that were judged.
        """
        if X.device.type == "mps" or not X.is_table or not may_run_double(network):
            return X.dtype
        row = X[:1]
        assert isinstance(row, torch.Tensor)
        try:
            with torch.no_grad():
                copied(self.module_).double()(row.double())
        except Exception:  # of whatever kind: the network is the user's
            return X.dtype
        return torch.float64

    def _logits(self, X: Any) -> np.ndarray:
        logit = self._logit(self._validate_features(X))
        return np.column_stack([np.zeros_like(logit), logit])[:, self._order]

    def _logit(self, X: Rows) -> np.ndarray:
        """Logit of the debiased network, float64; above zero for its second class."""
        logit = self._logit_on(resolve_device(self.device), X)
        check_logits(logit)
        return logit

    def _to_logit(self, raw: torch.Tensor) -> torch.Tensor:
        """Convert outputs of the debiased network to logits."""
        return as_logit(raw, self._output)

    def _logit_on(self, device: torch.device, X: Rows) -> np.ndarray:
        # A model from elsewhere may be of a type that this device lacks.
        lacks = device.type == "mps" and self._dtype == torch.float64
        dtype = torch.float32 if lacks else self._dtype
        inputs = Inputs(X, device, dtype, self._signature.integers, hold=False)
        # In its own type, a network stays as it is: its parts may be of several types.
        first = next(self.module_.children(), self.module_)  # the user may have set another one
        into = None if dtype == (floating_dtype(first) or dtype) else dtype
        with torch.no_grad(), converted(self.module_, device, into, n_rows=len(X)) as network:

            def run(batch: Batch) -> torch.Tensor:
                raw = call(network, batch)
                try:
                    return self._to_logit(raw).cpu()
                except IndexError:  # fewer columns
                    return torch.empty(0)

            called = next(network.children(), network)
            logit = torch.cat(run_all(run, inputs, called))
        if len(logit) != len(X):
            raise ValueError(
                f"The network in estimator does not return {self._output.n_columns} columns for "
                "each row, as it did in the fit. Fit again."
            )
        return logit.double().numpy()

    def _validate_features(self, X: Any) -> Any:
        check_is_fitted(self)
        rows = open_rows(self, X, reset=False)
        check_like_fit(rows, self._signature, self._shapes(), type(self).__name__)
        return rows

    def _rows_to_export(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        rows = self._sample(2, dtype)
        if isinstance(rows, dict):
            return rows
        if isinstance(rows, tuple):
            return {f"X{place}": part for place, part in enumerate(rows)}
        return {ONLY: rows}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = self._multi_class
        tags.input_tags.three_d_array = True
        return tags
