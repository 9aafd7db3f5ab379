"""Cluster margins: the classifier, which runs the three stages."""

import warnings
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import normalized_mutual_info_score
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair.base import TorchClassifier
from skfair.base._blocks import BlockRows
from skfair.base._net import load_weights
from skfair.margin._amplifier import (
    BLOCK,
    class_shares,
    diagnose_amplifier,
    feature_scale,
    nearest_centre,
    unit_rows,
)
from skfair.margin._gate import accuracy_gap, label_orders, strata, suggest
from skfair.margin._modules import LinearNet, MarginNet
from skfair.margin._stages import (
    check_memory,
    choose_loss,
    diagnose_classifier,
    find_centres,
    run_amplifier,
    train_amplifier,
    train_classifier,
    unit_inputs,
    validate_groups,
)
from skfair.margin._training import Samples, TrainingSettings
from skfair.utils import draw_seed
from skfair.utils._device import resolve_device
from skfair.utils._rows import check_rows
from skfair.utils._typed import available_if, fit_context
from skfair.utils._validation import check_logits, check_suggestion

# The paper's ablation without adaptive margins gives every class this margin, in radians.
_CONSTANT_MARGIN = 0.5


def _has_clusters(estimator: Any) -> bool:
    if estimator.loss == "cross_entropy":
        raise AttributeError(
            "loss='cross_entropy' is ordinary training, which has no amplifier and no clusters. "
            "Fit with loss='margin' first."
        )
    return True


class ClusterMarginClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TorchClassifier):
    r"""Classify frozen features that carry a bias, without group labels.

    A frozen encoder often encodes a spurious correlation (the place, the colour, the gender)
    more plainly than the class. A classifier that is trained on its features then takes the
    shortcut. This classifier first learns the shortcut on purpose, then trains against it [1]_:

    1. *Amplify.* An adapter with a linear head is trained with class-balanced batches and a
       strong L2 penalty. Only the easiest rule survives the penalty: the bias (section 3.4).
    2. *Cluster.* K-means clusters the adapter's features, as rows of unit length. The share
       :math:`\bar m_{zc}` of class *c* in cluster *z* tells which class the shortcut predicts
       there (equation 2).
    3. *Debias.* A second adapter with a cosine head is trained with the logits
       :math:`s\cos(\theta_k + m)`, :math:`m \sim 1 - N(\bar m_{zk}, \sigma^2)`, for every
       class *k* (equation 4). A sample on which the shortcut is right gets an easy problem, and
       any other sample a hard one. Predictions use neither clusters nor margins.

    The method helps where the bias is *easier* to learn than the classes, and does harm where the
    classes are easier. Without group labels, nothing tells which of the two holds. With a few
    group labels, :class:`~skfair.adjustment.LogitAdjustedClassifier` is the better choice, because
    it trains with the labels. Here, group labels only decide whether the method is used
    (`sensitive_features` in :meth:`fit`).

    Parameters
    ----------
    n_clusters : int or "auto", default="auto"
        Number of clusters in stage 2; "auto" takes four for each class.
    loss : {"margin", "cluster_weighted", "loss_weighted", "cross_entropy"}, default="margin"
        Loss of stage 3. "margin" is the margin loss (equation 4). "cluster_weighted" is
        cross-entropy in which a sample of class *y* in cluster *z* has the weight
        :math:`1 - \bar m_{zy}`. "loss_weighted" is cross-entropy in which the weight of a sample
        is its cross-entropy under the amplifier. "cross_entropy" is ordinary training, without
        stages 1 and 2. All losses except "margin" have a linear head.
    margin : {"adaptive", "constant"}, default="adaptive"
        Margins from the clusters, or 0.5 for each cluster and class (an ablation).
    margin_std : float, default=0.15
        Standard deviation :math:`\sigma` of the noise on the margins, in radians.
    scale : float, default=4.0
        Factor *s* on the cosine: the strength of the correction. The paper uses 8, which gains
        more where the method helps and loses about three times as much where it does harm.
    cluster_on : {"amplified", "input"}, default="amplified"
        Cluster the amplifier's features, or the frozen features (an ablation).
    n_units : int, default=128
        Units in the hidden layer of each adapter, and the width of :meth:`transform`.
    amplifier_weight_decay : float or "auto", default="auto"
        L2 penalty of stage 1, added to the gradient (coupled, unlike AdamW). Its unit depends on
        the data: at 1, the amplifier begins to lose the weakest direction between the classes.
        "auto" is ``0.7 / n_classes``. The features are centred and divided by one number first,
        so that the same value has the same effect for any unit and any number of features.
    amplifier_max_epochs : int, default=10
        Passes over the data in stage 1.
    weight_decay : float, default=0.0
        L2 penalty of stage 3, added to the gradient.
    lr : float or "auto", default="auto"
        Learning rate of Adam in stages 1 and 3; in stage 3 it falls linearly to zero. "auto" is
        ``1.28 / n_features``, at most 0.01: one step of Adam changes the output by a sum over all
        features, so that few features need a larger learning rate.
    batch_size : int, default=64
        Samples in a batch. Batches are smaller if the data would fill less than ten of them.
    max_epochs : int or "auto", default="auto"
        Passes over the data in stage 3; "auto" is three for each class, at most 20. Longer
        training memorises the rare samples and undoes the correction.
    device : str or torch.device, default="auto"
        Where the networks train and predict; "auto" takes CUDA, MPS or CPU.
    random_state : int, RandomState or None, default=None
        Seeds the initial weights, the batches, the noise and k-means. The same int gives the same
        bits on the same device.
    verbose : int, default=0
        1 shows a progress bar for each network.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Width of the features.
    loss_ : str
        The loss that trained the classifier: `loss`, or "cross_entropy" if the group labels
        spoke against `loss` or could not tell.
    labels_ : ndarray of shape (n_samples,), int64
        Cluster of each training sample. A saved model has them only if it was saved with
        ``training_rows=True``.
    cluster_centers_ : ndarray of shape (n_clusters_found, n_units)
        Centres of the clusters of rows of unit length. There are fewer than `n_clusters` if
        there are fewer distinct points. A row is NaN if the saved model left the centre out.
    margins_ : ndarray of shape (n_clusters_found, n_classes)
        Margin of each class in each cluster, in radians: one less the share of the class.
    diagnostics_ : dict
        Measured on the training data: "amplifier_accuracy" and "classifier_accuracy"
        (class-balanced), "amplifier_rank" (effective rank of the amplifier's features, 1 for one
        direction), "normalized_mutual_info" of cluster and class, and "class_tilt", the total
        variation distance between the class shares of the predictions and of `y`. A tilt means
        that the predictions favour some classes. It does not measure harm: if two classes lose
        the same accuracy, the tilt stays near zero.

        If group labels were given, also the "decision" ("method", "ordinary" or "cannot tell")
        and its evidence: "conflicting_accuracy" and "aligned_accuracy", the estimated accuracy of
        the amplifier on bias-conflicting samples and on the others; "accuracy_gap_low" and
        "accuracy_gap_high", the ends of the 80 % interval of the aligned less the conflicting
        accuracy; "accuracy_gap_needed"; "n_compared", the number of labelled samples, and
        "n_conflicting", the number of conflicting samples among them. With a hold-out also
        "holdout_worst_group" (dict of loss to accuracy), and "holdout_gain_low" and
        "holdout_gain_high", the 80 % interval of the gain. The compared classifiers did not train
        on the held-out rows. The larger accuracy is slightly optimistic, because these rows also
        chose the loss.
    history_ : dict of str to DataFrame
        Loss on the training data in each epoch of the "amplifier" and of the "classifier".
    amplifier_, module_ : torch.nn.Module
        The two networks. ``module_`` maps raw features, float32 of shape (n_samples, n_features),
        to logits in the order of ``classes_``, and needs nothing of skfair except its class.
        :meth:`predict` computes the logits in float64.

    Warns
    -----
    AmplificationWarning
        The amplifier's features keep many directions, or the amplifier learned next to nothing.
        In both cases its clusters do not show one bias.
    FallbackWarning
        The group labels speak against the method, or cannot tell. Ordinary training was used.
    OvercorrectionWarning
        The accuracy of the classifier on its training data is below chance: the features carry
        the bias and next to nothing of the classes. Or "class_tilt" is above 0.04. Ordinary
        training never warns of either.

    See Also
    --------
    skfair.featurize.FrozenEncoderFeaturizer : Images to frozen features.
    skfair.metrics.fairness_report : Accuracy and rates of each group.

    Notes
    -----
    After ``loss="cross_entropy"``, the attributes of stages 1 and 2 do not exist. The paper and
    its code differ in places; the user guide lists what is done here.

    References
    ----------
    .. [1] A. Basu, S. S. Mallick, V. B. Radhakrishnan, "Mitigating Biases in Blackbox Feature
       Extractors for Image Classification Tasks", NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=1000)
    >>> bias = np.where(rng.random(1000) < 0.95, y, 1 - y)  # equals y for 95 % of the samples
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
        scale: float = 4.0,
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

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sensitive_features: Any = None,
    ) -> Self:
        """Train the amplifier, cluster its features, and train the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features, used in float32. Memory maps and arrays of zarr or h5py are read in
            blocks.
        y : array-like of shape (n_samples,)
            Class labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the class balance, the clusters and the losses. Samples
            of weight zero are left out.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
default=None
            Group labels. They enter no loss; they only decide between `loss` and ordinary
            training. Most of them may be missing (None or NaN). The decision rests on the
            accuracy gap of the amplifier: its accuracy on aligned samples less its accuracy on
            bias-conflicting samples. `loss` is used if the 80 % interval of the gap is above
            0.05 x `scale` (above 0.2 for weighted losses). If each group (class and sensitive
            feature) has 50 labels, `loss` and ordinary training are also trained on four fifths
            of the data and compared on the rest; a difference in the worst group that exceeds
            chance decides before the gap does. Ordinary training is used, with a FallbackWarning,
            if the labels speak against `loss` or cannot tell.

            Under metadata routing, the labels that a search takes for a scorer reach this method
            too; ``set_fit_request(sensitive_features=False)`` prevents that.

            The rule was found on few data sets. The user guide tells how often it was right on
            other data sets, and where it was wrong.

        Returns
        -------
        self : ClusterMarginClassifier
            Fitted.

        Raises
        ------
        ValueError
            The data are invalid; y has one class only; there are more clusters than samples;
            the number of group labels differs from the number of samples; or all group labels
            are missing.
        """
        check_rows(X=X, y=y, sample_weight=sample_weight, sensitive_features=sensitive_features)
        self._fit(X, y, sample_weight, sensitive_features)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, sensitive_features: Any) -> None:
        X, codes, weight = self._validate_training_data(X, y, sample_weight, in_blocks=True)
        groups = validate_groups(sensitive_features, len(X))
        if self.n_clusters != "auto" and self.n_clusters > len(X):
            raise ValueError(
                f"n_clusters={self.n_clusters} is more than the {len(X)} samples in X. Ask for "
                "fewer clusters, or leave n_clusters='auto'."
            )
        corrects = self.loss != "cross_entropy"
        n_samples, n_features = X.shape
        check_memory(self.n_units, n_samples, n_features, len(self.classes_), amplifier=corrects)
        random_state = check_random_state(self.random_state)
        # Each network has its own seed, so that group labels change no bit of either network.
        amplifier_seed, classifier_seed = draw_seed(random_state), draw_seed(random_state)
        every, rows = X, np.flatnonzero(weight)
        if len(rows) < n_samples:
            X, codes, weight = X[rows], codes[rows], weight[rows]
        mean, spread = feature_scale(X)
        samples = Samples(X, codes, weight)
        self._network_parameters = {
            "module__n_features": n_features,
            "module__n_units": self.n_units,
            "module__mean": mean,
            "module__spread": spread,
        }
        settings = TrainingSettings(
            self._network_parameters,
            lr=min(1.28 / n_features, 1e-2) if self.lr == "auto" else self.lr,
            batch_size=self.batch_size,
            device=resolve_device(self.device),
            verbose=self.verbose,
        )
        train = partial(
            train_classifier,
            settings=settings,
            margins=None,
            margin_std=self.margin_std,
            scale=self.scale,
            weight_decay=self.weight_decay,
            max_epochs=self.max_epochs,
            seed=classifier_seed,
        )

        self.loss_ = self.loss
        self.history_: dict[str, pd.DataFrame] = {}
        self.diagnostics_: dict[str, Any] = {}
        if corrects:
            self.amplifier_, self.history_["amplifier"] = train_amplifier(
                X,
                samples,
                settings,
                weight_decay=self.amplifier_weight_decay,
                max_epochs=self.amplifier_max_epochs,
                seed=amplifier_seed,
            )
            self.cluster_centers_, self._cluster_sizes = find_centres(
                X,
                samples,
                self._cluster_space,
                n_clusters=self.n_clusters,
                random_state=random_state,
            )
            amplified = run_amplifier(
                self.amplifier_,
                X,
                samples,
                self.cluster_centers_,
                cluster_on=self.cluster_on,
                run=self._run,
            )
            clusters = amplified.clusters
            self.diagnostics_ |= diagnose_amplifier(samples.codes, amplified.right, amplified.rank)
            self.diagnostics_["normalized_mutual_info"] = float(
                normalized_mutual_info_score(samples.codes, clusters)
            )
            n_clusters, n_classes = len(self.cluster_centers_), len(self.classes_)
            shares = class_shares(clusters, samples.codes, samples.weight, n_clusters, n_classes)
            self.margins_ = 1 - shares
            if self.margin == "constant":
                self.margins_ = np.full_like(shares, _CONSTANT_MARGIN)
            self.labels_ = clusters if len(rows) == n_samples else self._assign(every)
            boost = None
            if self.loss == "cluster_weighted":
                boost = 1 - shares[clusters, samples.codes]
            elif self.loss == "loss_weighted":
                boost = amplified.surprise
            samples = replace(samples, clusters=clusters, boost=boost)
            train = partial(train, margins=self.margins_)

            stratum = strata(samples.codes, amplified.surprise, amplified.right)
            groups = groups[rows]
            # `suggest_labels` names samples whose group is not known, in this order.
            errors, right = label_orders(stratum, samples.codes, groups >= 0, random_state)
            self._hard, self._easy = rows[errors], rows[right]
            if sensitive_features is not None:
                self.loss_, evidence = choose_loss(
                    self.loss,
                    self.scale,
                    X,
                    samples,
                    groups,
                    accuracy_gap(samples.codes, amplified.surprise, groups, stratum),
                    train=train,
                    predict=self._predicted,
                    seed=classifier_seed,
                )
                self.diagnostics_ |= evidence
        self.module_, self.history_["classifier"] = train(self.loss_, samples)
        self.diagnostics_ |= diagnose_classifier(
            samples, self._predicted(self.module_, X), self.loss_
        )

    @available_if(_has_clusters)
    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """Name the training samples whose group labels would tell most.

        Two fifths of the samples are errors of the amplifier; half of these errors are from the
        quarter on which the amplifier is surest. Three fifths are samples that the amplifier gets
        right; a third of these are from the quarter on which it is least sure. All are spread
        evenly over the classes. Look at these samples, write down their sensitive feature, and
        fit again with these labels and None for all other samples.

        Parameters
        ----------
        n : int, default=50
            Number of samples; fewer are returned if fewer have no label.

        Returns
        -------
        ndarray of shape (n,), int
            Positions in the X of :meth:`fit`, without the samples that had a label there.

        Raises
        ------
        ValueError
            `n` is not a positive integer, or the model was saved without ``training_rows=True``.

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
        check_suggestion(self, n, "_hard")
        return suggest(self._hard, self._easy, n)

    @available_if(_has_clusters)
    def predict_cluster(self, X: ArrayLike) -> np.ndarray:
        """Assign samples to the clusters of the amplified bias.

        A model that was saved without ``training_rows=True`` has NaN in place of the centres of
        small clusters. Samples of these clusters go to the nearest other cluster, with a warning.

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
        rows = self._validate_features(X)
        if n_unknown := np.isnan(self.cluster_centers_).any(axis=1).sum():
            warnings.warn(
                f"{n_unknown} of {len(self.cluster_centers_)} clusters were left out when this "
                "model was saved, and their samples go to other clusters. Save the model with "
                "training_rows=True to keep all clusters.",
                UserWarning,
            )
        return self._assign(rows)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Compute the features of the classifier's adapter, the input of its head.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Frozen features.

        Returns
        -------
        ndarray of shape (n_samples, n_units), float32
            The features, before the cosine head divides each row by its length.
        """
        rows = self._validate_features(X)
        features = self._adapt(self.module_, rows)
        check_logits(features)
        return features

    def _adapt(self, network: Any, X: np.ndarray | BlockRows) -> np.ndarray:
        """The features of a network's adapter, float32."""
        features = np.empty((len(X), network.adapter.linear.out_features), dtype=np.float32)
        with np.errstate(over="ignore"):  # becomes infinity, which check_logits refuses
            for rows in gen_batches(len(X), BLOCK):  # float64 copies of a block, not of everything
                features[rows] = self._run(network.adapter, X[rows])
        return features

    def _predicted(self, network: nn.Module, X: np.ndarray | BlockRows) -> np.ndarray:
        """The position in ``classes_`` of the class that a network predicts for each row."""
        blocks = gen_batches(len(X), BLOCK)
        return np.concatenate([self._run(network, X[rows]).argmax(axis=1) for rows in blocks])

    def _cluster_space(self, X: np.ndarray) -> np.ndarray:
        """The rows of unit length that are clustered."""
        if self.cluster_on == "amplified":
            return unit_rows(self._adapt(self.amplifier_, X))
        return unit_inputs(self.amplifier_, X)

    def _assign(self, X: np.ndarray | BlockRows) -> np.ndarray:
        """The nearest cluster of each row."""
        blocks = (self._cluster_space(X[rows]) for rows in gen_batches(len(X), BLOCK))
        return np.concatenate([nearest_centre(points, self.cluster_centers_) for points in blocks])

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        for name in {"amplifier_", "module_"} & set(state):
            state[name] = dict(state[name].state_dict())
        if isinstance(getattr(self, "module_", None), MarginNet):
            state["_head"] = {"margin_std": self.module_.margin_std, "scale": self.module_.scale}
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights = {name: state.pop(name) for name in ("amplifier_", "module_") if name in state}
        head = state.pop("_head", None)
        self.__dict__.update(state)
        adapter = {k.removeprefix("module__"): v for k, v in self._network_parameters.items()}
        n_classes = {"n_classes": len(self.classes_)}
        if head is not None:
            head["margins"] = torch.as_tensor(self.margins_, dtype=torch.float32)
        with torch.device("meta"):
            networks: dict[str, nn.Module] = {
                "amplifier_": LinearNet(**n_classes, **adapter, activation="tanh")
            }
            classifier = LinearNet if head is None else MarginNet
            networks["module_"] = classifier(**head or n_classes, **adapter, activation="relu")
        for name, tensors in weights.items():
            setattr(self, name, load_weights(networks[name], tensors, name).eval())

    def _fit_summary(self) -> str:
        evidence = self.diagnostics_
        if "decision" not in evidence:  # fitted without group labels, or with ordinary training
            return f"trained with the {self.loss_} loss"
        kept = evidence["decision"] == "method"
        line = f"kept the {self.loss_} loss" if kept else "fell back to ordinary training"
        line += f": {evidence['n_compared']} group labels, {evidence['n_conflicting']} conflicting"
        gain = evidence.get("holdout_gain_low", 0.0), evidence.get("holdout_gain_high", 0.0)
        if gain[0] > 0 or gain[1] < 0:  # the held-out rows decided
            return f"{line}; held-out worst-group gain {gain[0]:+.2f} to {gain[1]:+.2f}"
        low, high = evidence["accuracy_gap_low"], evidence["accuracy_gap_high"]
        if np.isnan(low):  # all labels are conflicting, or none
            return line
        needed = evidence["accuracy_gap_needed"]
        return f"{line}; accuracy gap {low:.2f} to {high:.2f}, needed {needed:.2f}"

    @property
    def _n_features_out(self) -> int:
        adapter: Any = self.module_.adapter
        return adapter.linear.out_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        # scikit-learn's checks ask for a high accuracy on data without any bias. There, every
        # loss except ordinary training loses some accuracy.
        tags.classifier_tags.poor_score = self.loss != "cross_entropy"
        return tags
