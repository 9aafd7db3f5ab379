"""Cluster margins, all three stages: the classifier."""

import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, _fit_context
from sklearn.metrics import normalized_mutual_info_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skfair.margin._amplifier import (
    balanced_accuracy,
    class_shares,
    cluster_features,
    cross_entropies,
    diagnose_amplifier,
    feature_scale,
    nearest_centre,
    unit_rows,
    weight_decay_scale,
)
from skfair.margin._gate import (
    balanced_order,
    hold_out,
    judge_by_odds,
    judge_by_worst_group,
    strata,
)
from skfair.margin._modules import LinearNet, MarginNet
from skfair.margin._training import Samples, train_network
from skfair.utils import (
    FallbackWarning,
    OvercorrectionWarning,
    draw_seed,
    encode_groups,
    resolve_device,
)
from skfair.utils._base import TorchClassifier
from skfair.utils._net import as_tensor

# The paper's ablation without adaptive margins gives every class this one, in radians.
_CONSTANT_MARGIN = 0.5
_LEAST_WEIGHT = 1e-6


def _has_clusters(estimator) -> bool:
    if estimator.loss == "cross_entropy":
        raise AttributeError(
            "loss='cross_entropy' is ordinary training, which has no amplifier and no clusters. "
            "Fit with loss='margin' first."
        )
    return True


class ClusterMarginClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TorchClassifier):
    r"""Classify frozen features that carry a bias, without group labels.

    A frozen encoder often encodes what goes along with a class (the place, the colour, the
    gender) more plainly than the class itself, and a classifier trained on its features takes
    the shortcut. This one first learns the shortcut on purpose, then trains against it [1]_:

    1. *Amplify.* An adapter with a linear head is trained with class-balanced batches and a
       strong L2 penalty, under which only the easiest rule survives: the bias.
    2. *Cluster.* K-means on the adapter's features of unit length. The share
       :math:`\bar m_{zc}` of class *c* in cluster *z* says which class the shortcut would
       guess there (equation 2).
    3. *Debias.* A second adapter with a cosine head is trained with the logits
       :math:`s\cos(\theta_k + m)`, :math:`m \sim 1 - N(\bar m_{zk}, \sigma^2)`, for every
       class *k* (equation 4). Samples on which the shortcut is right get an easy problem, the
       others a hard one. Predictions use neither clusters nor margins.

    It helps where the bias is *easier* than the classes, and does harm where it is not: see
    `sensitive_features` in :meth:`fit`, and :meth:`suggest_labels`.

    Parameters
    ----------
    n_clusters : int or "auto", default="auto"
        Clusters of stage 2; "auto" takes four for each class.
    loss : {"margin", "cluster_weighted", "loss_weighted", "cross_entropy"}, default="margin"
        What stage 3 minimises: the margin loss; cross-entropy in which a sample of class *y*
        in cluster *z* weighs :math:`1 - \bar m_{zy}`; cross-entropy in which it weighs its
        cross-entropy under the amplifier; or plain cross-entropy, that is ordinary training
        without stages 1 and 2. All but the first have a linear head.
    margin : {"adaptive", "constant"}, default="adaptive"
        Margins from the clusters, or 0.5 for each cluster and class (an ablation).
    margin_std : float, default=0.15
        Standard deviation :math:`\sigma` of the noise on the margins, in radians.
    scale : float, default=8.0
        Factor *s* on the cosine.
    cluster_on : {"amplified", "input"}, default="amplified"
        Cluster the amplifier's features, or the frozen features themselves (an ablation).
    n_units : int, default=128
        Neurons of the hidden layer of each adapter, the width of :meth:`transform`.
    amplifier_weight_decay : float or "auto", default="auto"
        L2 penalty of stage 1, added to the gradient (coupled, not AdamW's), in a unit of its
        own: at 1, the weakest direction between the classes begins to be given up. "auto" is
        ``0.7 / n_classes``. The features are centred and divided by one number first, so
        that neither their unit nor their number changes what it means.
    amplifier_max_epochs : int, default=10
        Passes over the data in stage 1.
    weight_decay : float, default=0.0
        L2 penalty of stage 3, added to the gradient.
    lr : float or "auto", default="auto"
        Learning rate of Adam in both stages; in stage 3 it falls linearly to zero. "auto" is
        ``1.28 / n_features``, at most 0.01: a step of Adam moves the output by the sum of its
        moves over all features, so that narrow features need longer ones.
    batch_size : int, default=64
        Samples in a batch; fewer where that would make less than ten batches of the data.
    max_epochs : int or "auto", default="auto"
        Passes over the data in stage 3; "auto" is three for each class, at most 20. Longer
        training learns the rare samples by heart and undoes the correction.
    device : str or torch.device, default="auto"
        Where the networks train and predict; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds initial weights, batches, noise and k-means. The same int gives the same bits on
        the same device.
    verbose : int, default=0
        1 shows a progress bar for each network.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Width of the features.
    loss_ : str
        The loss that the network was trained with: `loss`, or "cross_entropy" where group
        labels spoke against it.
    labels_ : ndarray of shape (n_samples,), int64
        Cluster of each training sample.
    cluster_centers_ : ndarray of shape (n_clusters_found, n_units)
        Centres of the clusters, among rows of unit length. Fewer than asked for where there
        are fewer distinct points.
    margins_ : ndarray of shape (n_clusters_found, n_classes)
        Margin of each class in each cluster, in radians: one less the share of the class.
    diagnostics_ : dict
        "amplifier_accuracy" and "classifier_accuracy" (class-balanced, on the training
        data), "amplifier_rank" (effective rank of its centred features, 1 for one
        direction), "normalized_mutual_info" of cluster and class, and, where group labels
        were given, what decided: "odds_ratio", "p_value" and "n_compared", or
        "holdout_worst_group" (dict of loss to accuracy).
    history_ : dict of str to DataFrame
        Training loss of each epoch of the "amplifier" and of the "classifier".
    amplifier_, module_ : torch.nn.Module
        The two networks. ``module_`` maps raw features to logits and needs nothing of
        skfair but its class.

    Warns
    -----
    AmplificationWarning
        The amplifier's features keep many directions, or it did not learn the classes at all:
        its clusters are then no bias.
    FallbackWarning
        Group labels do not speak for the method; ordinary training was used.
    OvercorrectionWarning
        The classifier gets less of its training data right than guessing would: the features
        carry the bias and next to nothing of the classes.

    See Also
    --------
    skfair.featurize.FrozenEncoderFeaturizer : Images to frozen features.
    skfair.metrics.fairness_report : What each group gets.

    Notes
    -----
    Attributes of stages 1 and 2 do not exist after ``loss="cross_entropy"``. Decisions where
    the paper and its code differ are listed in the user guide.

    References
    ----------
    .. [1] A. Basu, S. S. Mallick, V. B. Radhakrishnan, "Mitigating Biases in Blackbox Feature
       Extractors for Image Classification Tasks", NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=1000)
    >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)  # goes along with y for 95 %
    >>> noise = rng.normal(size=(1000, 20))
    >>> X = np.column_stack([y + noise[:, 0] * 0.5, 5 * bias, noise[:, 1:]])
    >>> classifier = ClusterMarginClassifier(random_state=0).fit(X, y)
    >>> classifier.loss_, classifier.margins_.shape[1]
    ('margin', 2)
    >>> conflicting = bias != y
    >>> plain = ClusterMarginClassifier(loss="cross_entropy", random_state=0).fit(X, y)
    >>> bool(
    ...     classifier.score(X[conflicting], y[conflicting])
    ...     > plain.score(X[conflicting], y[conflicting])
    ... )
    True
    """

    _parameter_constraints: dict = {
        **TorchClassifier._parameter_constraints,
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "loss": [StrOptions({"margin", "cluster_weighted", "loss_weighted", "cross_entropy"})],
        "margin": [StrOptions({"adaptive", "constant"})],
        "margin_std": [Interval(Real, 0, None, closed="left")],
        "scale": [Interval(Real, 0, None, closed="neither")],
        "cluster_on": [StrOptions({"amplified", "input"})],
        "n_units": [Interval(Integral, 1, None, closed="left")],
        "amplifier_weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "amplifier_max_epochs": [Interval(Integral, 1, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = "auto",
        *,
        loss: str = "margin",
        margin: str = "adaptive",
        margin_std: float = 0.15,
        scale: float = 8.0,
        cluster_on: str = "amplified",
        n_units: int = 128,
        amplifier_weight_decay: float | Literal["auto"] = "auto",
        amplifier_max_epochs: int = 10,
        weight_decay: float = 0.0,
        lr: float | Literal["auto"] = "auto",
        batch_size: int = 64,
        max_epochs: int | Literal["auto"] = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.n_clusters = n_clusters
        self.loss = loss
        self.margin = margin
        self.margin_std = margin_std
        self.scale = scale
        self.cluster_on = cluster_on
        self.n_units = n_units
        self.amplifier_weight_decay = amplifier_weight_decay
        self.amplifier_max_epochs = amplifier_max_epochs
        self.weight_decay = weight_decay
        self.lr = lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sensitive_features: Any = None,
    ) -> "ClusterMarginClassifier":
        """Train the amplifier, cluster its features, and train the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features, used in float32.
        y : array-like of shape (n_samples,)
            Class labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the class balance, the clusters and the losses. Samples
            of weight zero take no part.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
default=None
            Group labels, which are never used in a loss: they only decide between `loss` and
            ordinary training. Most of them may be missing (None or NaN). Where each group
            (class and sensitive feature) has 50 labels, both are trained on four fifths of
            the data and the worst group of the rest decides; where there are fewer, the odds
            ratio of bias-conflicting samples among the amplifier's errors does, for which a
            few dozen labels suffice if :meth:`suggest_labels` picks them.

        Returns
        -------
        self : ClusterMarginClassifier
            Fitted.

        Raises
        ------
        ValueError
            Bad data, one class only, more clusters than samples, group labels of another
            number, or none of them known.
        """
        with self._fresh_fit():
            self._fit(X, y, sample_weight, sensitive_features)
        return self

    def _fit(self, X, y, sample_weight, sensitive_features) -> None:
        X, codes, weight = self._validate_training_data(X, y, sample_weight)
        groups = self._validate_groups(sensitive_features, len(X))
        if self.n_clusters != "auto" and self.n_clusters > len(X):
            raise ValueError(
                f"n_clusters={self.n_clusters} is more than the {len(X)} samples in X. Ask for "
                "fewer clusters, or leave n_clusters='auto'."
            )
        random_state = check_random_state(self.random_state)
        # A seed for each network, so that having group labels changes no bits of either.
        amplifier_seed, classifier_seed = draw_seed(random_state), draw_seed(random_state)
        samples, rows = Samples(X, codes, weight), np.flatnonzero(weight)
        if len(rows) < len(X):
            samples = samples.take(rows)
        mean, spread = feature_scale(samples.X)
        self._network_parameters = {
            "module__n_features": X.shape[1],
            "module__n_units": self.n_units,
            "module__mean": mean,
            "module__spread": spread,
        }

        self.loss_, self.history_, self.diagnostics_ = self.loss, {}, {}
        if self.loss != "cross_entropy":
            self._amplify(samples, amplifier_seed)
            logits = self._run(self.amplifier_, samples.X)
            samples = self._cluster(samples, logits, random_state)
            self.labels_ = samples.clusters if len(rows) == len(X) else self._assign(X)
            hard, easy = strata(samples.codes, logits)
            # What `suggest_labels` may name, in its order: samples whose group is not known.
            self._hard, self._easy = (
                balanced_order(rows[stratum & (groups[rows] < 0)], codes, random_state)
                for stratum in (hard, easy)
            )
            if sensitive_features is not None:
                self.loss_ = self._choose_loss(samples, groups[rows], hard, easy, classifier_seed)
        self.module_, self.history_["classifier"] = self._train_classifier(
            self.loss_, samples, classifier_seed
        )
        self._diagnose_classifier(samples)

    def _diagnose_classifier(self, samples) -> None:
        accuracy = balanced_accuracy(samples.codes, self._run(self.module_, samples.X))
        self.diagnostics_["classifier_accuracy"] = accuracy
        chance = 1 / len(self.classes_)
        if self.loss_ != "cross_entropy" and accuracy < chance:
            warnings.warn(
                f"The classifier gets {accuracy:.0%} of the training data right, less than the "
                f"{chance:.0%} of guessing: beside the bias there is too little of the classes in "
                "the features, and the correction turns predictions round. Use other features, or "
                "loss='cross_entropy'.",
                OvercorrectionWarning,
            )

    @staticmethod
    def _validate_groups(sensitive_features, n_samples) -> np.ndarray:
        """Codes of the groups, -1 where there is no label."""
        if sensitive_features is None:
            return np.full(n_samples, -1)
        codes = encode_groups(sensitive_features, n_samples=n_samples, missing="keep").codes
        if (codes < 0).all():
            raise ValueError(
                "sensitive_features is missing for every sample. Pass None to train without "
                "group labels, or label the samples that suggest_labels() names."
            )
        return codes

    def _train(self, name, module, samples, seed, **parameters):
        return train_network(
            module,
            samples,
            seed=seed,
            device=resolve_device(self.device),
            batch_size=self.batch_size,
            lr=min(1.28 / samples.X.shape[1], 1e-2) if self.lr == "auto" else self.lr,
            description=name if self.verbose else None,
            **parameters,
            **self._network_parameters,
        )

    def _amplify(self, samples, seed) -> None:
        """Stage 1."""
        n_classes = len(self.classes_)
        decay = self.amplifier_weight_decay
        decay = 0.7 / n_classes if decay == "auto" else decay
        unit = weight_decay_scale(
            samples.X,
            samples.codes,
            samples.weight,
            self._network_parameters["module__spread"].item(),
        )
        per_class = np.bincount(samples.codes, weights=samples.weight)
        self.amplifier_, self.history_["amplifier"] = self._train(
            "amplifier",
            LinearNet,
            samples,
            seed,
            weight=np.ones(len(samples)),
            max_epochs=self.amplifier_max_epochs,
            anneal=False,
            module__n_classes=n_classes,
            module__activation="tanh",
            optimizer__weight_decay=decay * unit,
            # Weights of the user and of the class balance set how often a sample is drawn.
            iterator_train__sampling_weight=as_tensor(samples.weight / per_class[samples.codes]),
        )

    def _cluster(self, samples, logits, random_state) -> Samples:
        """Stage 2; returns the samples with their clusters and what a weighted loss needs."""
        n_classes = len(self.classes_)
        features = self._adapt(self.amplifier_, samples.X)
        self.diagnostics_ |= diagnose_amplifier(samples.codes, logits, features)
        amplified = self.cluster_on == "amplified"
        points = unit_rows(features) if amplified else self._cluster_space(samples.X)
        n_clusters = 4 * n_classes if self.n_clusters == "auto" else self.n_clusters
        self.cluster_centers_ = cluster_features(points, samples.weight, n_clusters, random_state)
        clusters = nearest_centre(points, self.cluster_centers_)
        self.diagnostics_["normalized_mutual_info"] = float(
            normalized_mutual_info_score(samples.codes, clusters)
        )
        shares = class_shares(
            clusters, samples.codes, samples.weight, len(self.cluster_centers_), n_classes
        )
        adaptive = self.margin == "adaptive"
        self.margins_ = 1 - shares if adaptive else np.full_like(shares, _CONSTANT_MARGIN)
        boost = None
        if self.loss == "cluster_weighted":
            boost = 1 - shares[clusters, samples.codes]
        elif self.loss == "loss_weighted":
            boost = cross_entropies(samples.codes, logits)
        return replace(samples, clusters=clusters, boost=boost)

    def _adapt(self, network, X) -> np.ndarray:
        """The features of a network's adapter, float32."""
        return self._run(network.adapter, X).astype(np.float32, copy=False)

    def _cluster_space(self, X) -> np.ndarray:
        """The rows of unit length that are clustered."""
        if self.cluster_on == "amplified":
            return unit_rows(self._adapt(self.amplifier_, X))
        adapter = self.amplifier_.adapter
        return unit_rows((X - adapter.mean.numpy(force=True)) / adapter.spread.numpy(force=True))

    def _assign(self, X) -> np.ndarray:
        return nearest_centre(self._cluster_space(X), self.cluster_centers_)

    def _train_classifier(self, loss, samples, seed):
        """Stage 3, or ordinary training; returns the network and its history."""
        n_classes = len(self.classes_)
        max_epochs = self.max_epochs
        if max_epochs == "auto":
            max_epochs = min(3 * n_classes, 20)
        if loss == "margin":
            module = MarginNet
            head = {
                "module__margins": torch.as_tensor(self.margins_, dtype=torch.float32),
                "module__margin_std": self.margin_std,
                "module__scale": self.scale,
            }
        else:
            module = LinearNet
            head = {"module__n_classes": n_classes}
        weight = samples.weight
        if loss in ("cluster_weighted", "loss_weighted"):
            # The floor keeps a cluster of one class in the data where all clusters are such.
            weight = weight * np.maximum(samples.boost, _LEAST_WEIGHT)
        return self._train(
            "classifier",
            module,
            samples,
            seed,
            weight=weight,
            max_epochs=max_epochs,
            module__activation="relu",
            optimizer__weight_decay=self.weight_decay,
            iterator_train__shuffle=True,
            anneal=True,
            **head,
        )

    def _choose_loss(self, samples, groups, hard, easy, seed) -> str:
        """Decide between `loss` and ordinary training by the group labels there are."""
        held_out = hold_out(samples.codes, groups, seed)
        if held_out is None:
            evidence, reason = judge_by_odds(samples.codes, groups, hard, easy)
        else:
            # The amplifier has seen the hold-out; that touches only the margins of the others.
            kept = samples.take(np.setdiff1d(np.arange(len(samples)), held_out))
            predicted = {
                loss: self._run(self._train_classifier(loss, kept, seed)[0], samples.X[held_out])
                for loss in ("cross_entropy", self.loss)
            }
            evidence, reason = judge_by_worst_group(
                samples.codes[held_out], predicted, groups[held_out]
            )
        self.diagnostics_ |= evidence
        if reason is None:
            return self.loss
        warnings.warn(
            f"Ordinary training was used instead of loss={self.loss!r}: {reason}", FallbackWarning
        )
        return "cross_entropy"

    @available_if(_has_clusters)
    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """Name the training samples whose group labels would tell most.

        Half of them are the amplifier's most confident errors, half are samples that it gets
        right, both spread evenly over the classes. Look at these samples, write down their
        sensitive feature, and fit again with it, missing (None) for all others.

        Parameters
        ----------
        n : int, default=50
            How many; fewer come back where fewer are left without a label.

        Returns
        -------
        ndarray of shape (n,), int
            Positions in the X of :meth:`fit`, without the samples that had a label there.

        Raises
        ------
        ValueError
            `n` is not a positive integer.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat([0, 1], 500)
        >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)
        >>> X = np.column_stack([5 * bias, 3 * y]) + rng.normal(size=(1000, 2))
        >>> classifier = ClusterMarginClassifier(random_state=0).fit(X, y)
        >>> len(classifier.suggest_labels(20))
        20
        """
        check_is_fitted(self, "cluster_centers_")
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r} must be a positive integer, the number of samples to label.")
        hard = self._hard[: n // 2]
        return np.concatenate([hard, self._easy[: n - len(hard)]])

    @available_if(_has_clusters)
    def predict_cluster(self, X: ArrayLike) -> np.ndarray:
        """Assign samples to the clusters of the amplified bias.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples,), int64
            Rows of ``cluster_centers_``.
        """
        check_is_fitted(self, "cluster_centers_")
        return self._assign(self._validate_features(X))

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Compute the features of the classifier's adapter.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples, n_units), float32
            The input of the head, before it is divided by its length.
        """
        X = self._validate_features(X)
        return self._adapt(self.module_, X)

    @property
    def _n_features_out(self):
        return self.module_.adapter.linear.out_features

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        # scikit-learn's checks ask for a high accuracy on data without any bias, where all
        # but ordinary training give some of it up.
        tags.classifier_tags.poor_score = self.loss != "cross_entropy"
        return tags
