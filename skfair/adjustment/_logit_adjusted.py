"""Logit adjustment by an attribute that is known or inferred: the classifier."""

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair.adjustment._head import (
    HiddenLayerNet,
    as_layer,
    first_projected,
    fit_hidden_layer,
    hidden_layer_is_better,
)
from skfair.adjustment._labels import conspicuous_order, random_order, random_part
from skfair.adjustment._linear import (
    Linear,
    balanced_weight,
    fit_softmax,
    principal_components,
    project,
)
from skfair.adjustment._offsets import Offsets, Samples, infer_offsets, rare, validate_groups
from skfair.adjustment._twins import expected_counts
from skfair.base import TorchClassifier
from skfair.base._net import load_weights
from skfair.utils import draw_seed
from skfair.utils._device import resolve_device
from skfair.utils._rows import check_rows
from skfair.utils._typed import fit_context
from skfair.utils._validation import check_suggestion

_MOST_PROJECTED = 20_000  # samples, at random, from which the components are computed
# A head with a hidden layer follows the offset less, so that its strength is divided by this.
_LINEAR_SHARE = 0.75


class LogitAdjustedClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TorchClassifier):
    r"""Classify frozen features that carry a spurious correlation, by logit adjustment.

    A frozen encoder often encodes a spurious correlation (the place, the colour, the gender) more
    plainly than the class. A classifier that is trained on its features then takes the shortcut.
    This classifier adds the log of P(class | attribute) to the logits in training (section 5 of
    [1]_). The offset holds everything that the shortcut tells about the class, so that the
    features have to explain the rest. Predictions use no attribute and no offset.

    The attribute need not be known. It depends on the `sensitive_features` of :meth:`fit`:

    - *No labels.* Twins are two classifiers, each trained on one half of the data. They come to
      agree on the rule that both find easiest (section 3 of [2]_). The class that a twin predicts
      for samples that it has not seen stands for the attribute. This helps where the attribute is
      easier to learn than the class, and can cost accuracy elsewhere. Without labels, nothing
      tells which of the two holds.
    - *Some labels*, of samples that :meth:`suggest_labels` names or of other samples. An attribute
      model and the random part of the labels estimate P(class | attribute). A labelled sample
      conflicts if it has another value than most of its class; such samples weigh more.
    - *All labels.* P(class | attribute) is counted.

    The method does not improve every model. The user guide has the measurements, and tells when
    to use another method.

    Parameters
    ----------
    n_components : int, default=256
        Number of principal components of the features; fewer if there are fewer features or
        samples.
    strength : float or "auto", default="auto"
        Factor on the log of P(class | attribute). 0 is ordinary training, 1 the full adjustment.
        "auto" is 0.85 if all samples are labelled and 0.75 otherwise; for a head with a hidden
        layer it is a third more, at most 1. With some labels, the strength ("auto" or a number) is
        multiplied by ``min(1, c / 10)``, where c is the number of labelled samples that conflict.
        With all labels, the strength is 0 if no sample conflicts; and the weight of each sample is
        multiplied by the share of its group in its class to the power of
        ``-0.3 * min(1, strength)``.
    ridge : float, default=0.02
        L2 penalty of the linear classifiers: half of the ridge times the sum of the squared
        coefficients is added to the mean loss. The features are scaled to a mean squared length
        of 256 first, so that the same ridge has the same effect for any encoder.
    head : {"auto", "linear", "mlp"}, default="auto"
        Linear, or one hidden layer of 128 units with ReLU. "auto" takes the hidden layer if it
        is clearly more accurate out-of-fold (McNemar's statistic above 3).
    device : str or torch.device, default="auto"
        Where a head with a hidden layer trains and predicts; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the halves, the folds and the networks. The same int gives the same bits on the same
        device.
    verbose : int, default=0
        1 shows a progress bar for a head with a hidden layer.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Width of the features.
    head_ : {"linear", "mlp"}
        The trained head.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Coefficients of a linear head, for raw features.
    intercept_ : ndarray of shape (n_classes,), float64
        Intercepts of a linear head.
    module_ : torch.nn.Module
        The head as a network in float32. It maps raw features to logits.
    attribute_values_ : list
        Values of the attribute among the labels; tuples if there are several columns. Without
        labels these are the class labels, each for the shortcut that predicts this class.
    prior_ : ndarray of shape (n_values, n_classes), float64
        P(class | attribute value), for equally frequent classes. Rows sum to one.
    expected_counts_ : ndarray of shape (n_values, n_classes), float64
        Expected number (sum of weights) of training samples of each value and class. If the
        largest weight is above 1e6 or below 1e-6, the unit is that weight.
    conflicting_ : ndarray of shape (n_samples,), bool
        Training samples that probably conflict: those with a value under which their class is
        less frequent than by chance. A saved model has them only if it was saved with
        ``training_rows=True``.
    diagnostics_ : dict
        Evidence of the fit: "n_labelled", the number of labelled samples; "n_labelled_at_random",
        the number of these that are taken for a random sample; "n_labelled_conflicting", the
        number of labelled samples with another value than most of their class; "n_conflicting",
        the expected number of conflicting training samples; and "strength", the strength that was
        used.

    Warns
    -----
    FallbackWarning
        All labels have one value, or all labels of each class have one value. No labelled sample
        breaks the spurious correlation then, and ordinary training was used.

    See Also
    --------
    skfair.margin.ClusterMarginClassifier : Another method without labels. It corrects more, and
        does more harm where the class is easier to learn than the spurious correlation.
    skfair.featurize.FrozenEncoderFeaturizer : Images to frozen features.
    skfair.metrics.fairness_report : Accuracy and rates of each group.

    Notes
    -----
    With a linear head, the training is convex, and uses NumPy and SciPy only. With
    ``head="auto"``, a network is also trained, for the comparison.

    All classes have the same total weight in training, so that the probabilities are for equally
    frequent classes.

    A training sample with a wrong class label looks like a conflicting sample: it is suggested for
    labelling, and weighs more. Correct the class label, or leave the group label None.

    Beyond X, a fit needs memory for the principal components of all samples (in float32 if there
    are many), for some numbers for each sample and class or attribute value, and for a few blocks
    of rows. If some samples have weight zero, the other samples are copied.

    References
    ----------
    .. [1] A\. K. Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021.
    .. [2] M\. Pezeshki et al., "Discovering Environments with XRM", ICML 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair import LogitAdjustedClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=1000)
    >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)  # equals y for 95 % of the samples
    >>> noise = rng.normal(size=(1000, 20))
    >>> X = np.column_stack([y + noise[:, 0] * 0.5, 5 * bias, noise[:, 1:]])
    >>> conflicting = bias != y
    >>> for strength in (0, "auto"):
    ...     model = LogitAdjustedClassifier(strength=strength, random_state=0).fit(X, y)
    ...     print(model.score(X[conflicting], y[conflicting]) > 0.7)
    False
    True
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "strength": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "head": [StrOptions({"auto", "linear", "mlp"})],
        **{
            name: TorchClassifier._parameter_constraints[name]
            for name in ("device", "random_state", "verbose")
        },
    }

    def __init__(
        self,
        n_components: int = 256,
        *,
        strength: float | Literal["auto"] = "auto",
        ridge: float = 0.02,
        head: str = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.strength = strength
        self.ridge = ridge
        self.head = head
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sensitive_features: Any = None,
    ) -> Self:
        """Infer the attribute where it is not known, and train the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features, used in float32. Memory maps and arrays of zarr or h5py are read in
            blocks.
        y : array-like of shape (n_samples,)
            Class labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the components, the counts and the losses. Samples of
            weight zero are left out.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
default=None
            The attribute. None and NaN mean that it is not known. Anything else, such as "", -1 or
            "unknown", is a value. With several columns, the values are the combinations of the
            columns.

            :meth:`fit` recognises the samples that :meth:`suggest_labels` chose at random by their
            features, also in the folds of a search. If it recognises fewer than five labels, it
            takes all labels for those of a random sample.

        Returns
        -------
        self : LogitAdjustedClassifier
            Fitted.

        Raises
        ------
        ValueError
            The data are invalid; y has one class only; the number of group labels differs from
            the number of samples; all group labels are missing, or are known in one class only;
            or the group labels have more different values than half of their number.
        """
        check_rows(X=X, y=y, sample_weight=sample_weight, sensitive_features=sensitive_features)
        self._fit(X, y, sample_weight, sensitive_features)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, sensitive_features: Any) -> None:
        X, codes, weight = self._validate_training_data(X, y, sample_weight, in_blocks=True)
        groups = validate_groups(sensitive_features, codes, weight, self.classes_)
        random_state = check_random_state(self.random_state)
        n_samples, rows = len(X), np.flatnonzero(weight)
        codes, weight, values = codes[rows], weight[rows], groups.codes[rows]
        X = X if len(rows) == n_samples else X[rows]
        order = random_order(X)

        n_components = min(self.n_components, X.shape[1], max(1, len(X) - 1))
        some = order[:_MOST_PROJECTED] if len(X) > _MOST_PROJECTED else slice(None)
        self._projection = principal_components(
            X[some][:], weight[some], n_components, random_state
        )
        Z = project(self._projection, X)
        samples = Samples(Z, codes, weight, values, random_part(values >= 0, order))

        offsets = infer_offsets(
            samples,
            groups.labels,
            strength=self.strength,
            ridge=self.ridge,
            random_state=random_state,
        )
        # Without labels, the classes that the twins predict stand for the values.
        self.attribute_values_ = list(groups.labels) or self.classes_.tolist()
        self.prior_ = offsets.prior
        self.expected_counts_ = expected_counts(offsets.posterior, codes, weight)
        self._attribute = offsets.attribute.after(self._projection)
        conflicts = (offsets.posterior * rare(offsets.prior).T[codes]).sum(axis=1)
        self.conflicting_ = np.zeros(n_samples, dtype=bool)
        self.conflicting_[rows] = conflicts > 0.5
        self.diagnostics_: dict[str, Any] = {
            "n_labelled": int((values >= 0).sum()),
            "n_labelled_at_random": int(samples.at_random.sum()),
            "n_labelled_conflicting": offsets.n_conflicting,
            "n_conflicting": float(conflicts.sum()),
        }
        # `suggest_labels` names samples without a label, in these orders.
        unlabelled = values < 0
        self._random_order = rows[order[unlabelled[order]]]
        order = conspicuous_order(offsets.surprise, codes)
        self._conspicuous_order = rows[order[unlabelled[order]]]

        self._fit_head(samples, offsets, random_state)

    def _fit_head(
        self, samples: Samples, offsets: Offsets, random_state: np.random.RandomState
    ) -> None:
        """Train the head with the offsets (section 5 of Menon et al.)."""
        Z, codes, weight = samples.Z, samples.codes, samples.weight
        device = resolve_device(self.device)
        self.head_ = self.head
        if self.head == "auto":
            better = hidden_layer_is_better(
                Z, codes, weight, ridge=self.ridge, random_state=random_state, device=device
            )
            self.head_ = "mlp" if better else "linear"
        strength = offsets.strength
        if self.head_ == "mlp" and self.strength == "auto":
            strength = min(1, strength / _LINEAR_SHARE)
        self.diagnostics_["strength"] = float(strength)
        offset = strength * offsets.log_prior
        balanced = balanced_weight(codes, weight) * offsets.boost
        seed = draw_seed(random_state)  # for either head, so that a RandomState moves on
        if self.head_ == "linear":
            linear = fit_softmax(
                Z, codes, balanced, samples.n_classes, ridge=self.ridge, offset=offset
            ).after(self._projection)
            self.coef_, self.intercept_ = linear.coef, linear.intercept
            self.module_: nn.Module = as_layer(linear)
            return
        head = fit_hidden_layer(
            Z,
            codes,
            balanced,
            offset,
            seed=seed,
            device=device,
            description="classifier" if self.verbose else None,
        )
        self.module_ = first_projected(head, self._projection)

    def _fit_summary(self) -> str:
        found = f"{self.head_} head; {self.diagnostics_['n_labelled']} group labels"
        if "strength" in self.diagnostics_:
            found += f"; strength {self.diagnostics_['strength']:.3g}"
        return found

    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """Name the training samples whose labels would tell most.

        Half of the samples are drawn at random; they estimate the shares of the groups. The other
        half are the most conspicuous samples of each class; the classes take turns. After a fit
        without labels, a sample is conspicuous if the twins find its class unlikely. After a fit
        with some labels, a sample is conspicuous if it probably conflicts. Write down the
        attribute of all these samples. Then fit again on the same samples, with these labels and
        None for the other samples. This can be repeated.

        Parameters
        ----------
        n : int, default=50
            Number of samples; fewer are returned if fewer have no label.

        Returns
        -------
        ndarray of shape (n,) or shorter, int
            Positions in the X of :meth:`fit`. Samples that had a label or weight zero there are
            left out.

        Raises
        ------
        ValueError
            `n` is not a positive integer, or the model was saved without ``training_rows=True``.

        Examples
        --------
        >>> import numpy as np
        >>> from skfair import LogitAdjustedClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat([0, 1], 500)
        >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = np.column_stack([2 * y, 5 * bias]) + rng.normal(size=(1000, 2))
        >>> model = LogitAdjustedClassifier(random_state=0).fit(X, y)
        >>> asked = model.suggest_labels(20)
        >>> known = np.full(1000, None)
        >>> known[asked] = bias[asked]  # looked at
        >>> model = model.fit(X, y, sensitive_features=known)
        >>> model.diagnostics_["n_labelled"], model.diagnostics_["n_labelled_at_random"]
        (20, 10)
        """
        check_is_fitted(self)
        check_suggestion(self, n, "_random_order")
        random = self._random_order[: n // 2]
        order = self._conspicuous_order
        others = order[~np.isin(order, random)][: n - len(random)]
        return np.concatenate([random, others])

    def attribute_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute the probability of each value of the attribute.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples, n_values), float64
            In the order of ``attribute_values_``, for equally frequent values. With some labels
            this holds for two values; with more, the most frequent values of the classes are more
            probable. Without labels, the probability that the shortcut predicts each class.
        """
        rows = self._validate_features(X)
        return softmax(self._attribute(rows), axis=1)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Project to the principal components that the head is trained on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            On the training samples the rows have mean zero and mean squared length 256. With more
            than 20,000 training samples, this holds approximately, because the components are
            computed from 20,000 of them.
        """
        rows = self._validate_features(X)
        return self._projection(rows).astype(np.float32)

    def _logits(self, X: Any) -> np.ndarray:
        if getattr(self, "head_", None) == "linear":
            return Linear(self.coef_, self.intercept_)(self._validate_features(X))
        return super()._logits(X)

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        for name in ("_projection", "_attribute"):
            state[name] = vars(state[name]).copy()
        module = state.pop("module_")
        if self.head_ == "mlp":
            state["module_"] = dict(module.state_dict())
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        for name in ("_projection", "_attribute"):
            state[name] = Linear(**state[name])
        weights = state.pop("module_", None)
        self.__dict__.update(state)
        if weights is None:
            self.module_ = as_layer(Linear(self.coef_, self.intercept_))
            return
        with torch.device("meta"):
            layers = HiddenLayerNet(self.n_features_in_, len(self.classes_)).layers
        self.module_ = load_weights(layers, weights, "module_").eval()

    @property
    def _n_features_out(self) -> int:
        return len(self._projection.coef)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
