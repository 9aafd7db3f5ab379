"""Logit adjustment by an attribute that is inferred: the classifier."""

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skfair.adjustment._stages import LogitAdjustmentStages
from skfair.utils._rows import check_rows
from skfair.utils._typed import fit_context
from skfair.utils._validation import check_suggestion


class LogitAdjustedClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, LogitAdjustmentStages
):
    r"""Classify frozen features that carry a spurious correlation, by logit adjustment.

    A frozen encoder often encodes what goes along with a class (the place, the colour, the
    gender) more plainly than the class itself, and a classifier trained on its features takes
    the shortcut. This one tells the classifier in training what the shortcut says anyway: the
    log of P(class | attribute) is added to the logits [1]_, so that the features have to
    explain what is left. Predictions use no attribute and no offset.

    The attribute need not be known. By what :meth:`fit` gets as `sensitive_features`:

    - *No labels.* Twins, classifiers that see half of the data each, are pulled towards what
      both find easiest [2]_; the class that a twin predicts for samples that it has not seen
      stands for the attribute. That helps where the attribute is easier to see than the class,
      and can cost elsewhere; nothing here tells which of the two it is.
    - *Some labels*, of samples that :meth:`suggest_labels` names or of others. An attribute
      model and the random part of the labels tell how the attribute goes along with the
      classes. Labelled samples that conflict, with another value than most of their class,
      weigh more.
    - *All labels.* P(class | attribute) is counted.

    It does not make every model better: what was measured, and when to take something else, is
    in the user guide.

    Parameters
    ----------
    n_components : int, default=256
        Principal components that the features are reduced to; fewer where there are fewer
        features or samples.
    strength : float or "auto", default="auto"
        Factor on the log of P(class | attribute). 0 is ordinary training, 1 the whole of the
        adjustment. "auto" is 0.85 where all samples are labelled and 0.75 elsewhere; for a head
        with a hidden layer a third more, at most 1. With some labels the strength, "auto" or a
        number, is multiplied by ``min(1, c / 10)``, where c of the labelled samples conflict,
        that is, have another value than most of their class. Where all are labelled it is 0 if
        none conflicts, and samples also weigh the share of their group in its class to the power
        of ``-0.3 * min(1, strength)``.
    ridge : float, default=0.02
        L2 penalty of the linear classifiers: half of it times the sum of squared coefficients is
        added to the mean loss. The features are scaled to a mean squared length of 256 first, so
        that it means the same for any encoder.
    head : {"auto", "linear", "mlp"}, default="auto"
        Linear, or one hidden layer of 128 units with ReLU. "auto" takes the hidden layer where
        it is clearly more accurate out-of-fold (McNemar's statistic above 3).
    device : str or torch.device, default="auto"
        Where a head with a hidden layer trains and predicts; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds halves, folds and networks. The same int gives the same bits on the same device.
    verbose : int, default=0
        1 shows a progress bar for a head with a hidden layer.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Width of the features.
    head_ : {"linear", "mlp"}
        The head that was trained.
    coef_ : ndarray of shape (n_classes, n_features), float64
        Coefficients of a linear head, of the features as they come.
    intercept_ : ndarray of shape (n_classes,), float64
        Intercepts of a linear head.
    module_ : torch.nn.Module
        The head as a network in float32, from the features as they come to logits.
    attribute_values_ : list
        Values of the attribute: the labels that were given (tuples of several columns), or the
        class labels where none were, for whose shortcut they then stand.
    prior_ : ndarray of shape (n_values, n_classes), float64
        P(class | attribute value), as if classes were equally frequent. Rows sum to one.
    expected_counts_ : ndarray of shape (n_values, n_classes), float64
        Expected number (sum of weights) of training samples of each value and class. Where the
        largest weight is above 1e6 or below 1e-6, in units of that weight.
    conflicting_ : ndarray of shape (n_samples,), bool
        Training samples that are inferred to conflict: of their attribute's values, those in
        which the class is less frequent than by chance. A model that is saved leaves them out,
        unless with ``training_rows=True``.
    diagnostics_ : dict
        What the fit rests on: "n_labelled", how many of these are taken for a random sample
        ("n_labelled_at_random"), how many have another value than most of their class
        ("n_labelled_conflicting"), the expected number of conflicting
        training samples ("n_conflicting"), and the "strength" that was used.

    Warns
    -----
    FallbackWarning
        All labels have one value, or all of each class have, so that no sample is known in which
        something else goes along with the class; ordinary training was used.

    See Also
    --------
    skfair.margin.ClusterMarginClassifier : Needs no labels either, corrects more, and harms more
        where the class is easier than the spurious correlation.
    skfair.featurize.FrozenEncoderFeaturizer : Images to frozen features.
    skfair.metrics.fairness_report : What each group gets.

    Notes
    -----
    With a linear head the training is convex, and needs NumPy and SciPy only. With
    ``head="auto"`` a network is trained as well, to compare.

    Classes weigh the same in training, so that probabilities are for equally frequent classes.

    A training sample whose class is wrong looks like one that conflicts, and is asked for and
    weighed as such. Correct the class, or leave its label None.

    Memory beyond X is that of the principal components of all samples, in float32 where they are
    many, of some numbers for each sample and class or attribute value, and of a few blocks of
    rows. Where samples have weight zero, the others are copied.

    References
    ----------
    .. [1] A. K. Menon et al., "Long-tail Learning via Logit Adjustment", ICLR 2021, section 5.
    .. [2] M. Pezeshki et al., "Discovering Environments with XRM", ICML 2024, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair import LogitAdjustedClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=1000)
    >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)  # goes along with y for 95 %
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
            name: LogitAdjustmentStages._parameter_constraints[name]
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
        """Infer the attribute as far as it is not known, and train the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features, used in float32.
        y : array-like of shape (n_samples,)
            Class labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the components, the counts and the losses. Samples of
            weight zero take no part.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
default=None
            The attribute, as far as it is known: None or NaN for all other samples. Anything else,
            "", -1 or "unknown", is a value. With several columns its values are their
            combinations.

            The labels that :meth:`suggest_labels` asked for at random are recognised by the
            features of their samples, also in folds of a search. Where fewer than five are
            recognised, all labels are taken for those of a random sample.

        Returns
        -------
        self : LogitAdjustedClassifier
            Fitted.

        Raises
        ------
        ValueError
            Bad data or one class only. Group labels of which there are not as many as samples, of
            which all are missing, that are known in one class only, or that have more different
            values than half of their number.
        """
        check_rows(X=X, y=y, sample_weight=sample_weight, sensitive_features=sensitive_features)
        self._fit(X, y, sample_weight, sensitive_features)
        return self

    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """Name the training samples whose labels would tell most.

        Half of them are drawn at random: by these the shares of the groups are estimated. The
        others are those that stick out, the classes taking turns: without labels, those that the
        twins find least likely to be of their class; after a fit with some labels, those that
        most likely conflict. Write down the attribute of all of them. Then fit again on the same
        samples with these labels, and None for the others. That can be repeated.

        Parameters
        ----------
        n : int, default=50
            How many; fewer come back where fewer are left without a label.

        Returns
        -------
        ndarray of shape (n,) or shorter, int
            Positions in the X of :meth:`fit`, without the samples that had a label there or
            weight zero.

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
            In the order of ``attribute_values_``, as if each value were equally frequent. With
            some labels that holds for two values; of more, those that are usual in a class are
            more probable. Without labels, of the class that the shortcut would predict.
        """
        X = self._validate_features(X)
        return softmax(self._attribute(X), axis=1)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Project to the principal components that the head is trained on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float32
            Of mean zero and mean squared length 256 on the training samples, or, of more than
            20,000 of them, nearly so: the components are computed from 20,000.
        """
        X = self._validate_features(X)
        return self._projection(X).astype(np.float32)

    @property
    def _n_features_out(self) -> int:
        return len(self._projection.coef)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
