"""Cluster margins, all three stages: the classifier."""

import warnings
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skfair.margin._gate import suggest
from skfair.margin._stages import ClusterMarginStages
from skfair.utils._rows import check_rows
from skfair.utils._typed import available_if, fit_context
from skfair.utils._validation import check_suggestion


def _has_clusters(estimator: Any) -> bool:
    if estimator.loss == "cross_entropy":
        raise AttributeError(
            "loss='cross_entropy' is ordinary training, which has no amplifier and no clusters. "
            "Fit with loss='margin' first."
        )
    return True


class ClusterMarginClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMarginStages
):
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

    It helps where the bias is *easier* than the classes, and does harm where it is not, which
    nothing that needs no group labels tells. With a few of them
    :class:`~skfair.adjustment.LogitAdjustedClassifier` is the better choice: it trains with
    them. Here they only decide whether the method is used (`sensitive_features` in
    :meth:`fit`).

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
    scale : float, default=4.0
        Factor *s* on the cosine: how strong the correction is. The paper has 8, which gains
        more where the method helps and loses about three times as much where it does harm.
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
        Cluster of each training sample; a model that is saved leaves them out, unless with
        ``training_rows=True``.
    cluster_centers_ : ndarray of shape (n_clusters_found, n_units)
        Centres of the clusters, among rows of unit length. Fewer than asked for where there
        are fewer distinct points. NaN where a saved model left one out.
    margins_ : ndarray of shape (n_clusters_found, n_classes)
        Margin of each class in each cluster, in radians: one less the share of the class.
    diagnostics_ : dict
        Measured on the training data: "amplifier_accuracy" and "classifier_accuracy"
        (class-balanced), "amplifier_rank" (effective rank of its centred features, 1 for one
        direction), "normalized_mutual_info" of cluster and class, and "class_tilt", the total
        variation distance between the class shares of predictions and of `y`. A tilt says that
        some classes are favoured. It is no measure of harm: where two classes lose alike it
        stays near zero.

        Where group labels were given, also the "decision" ("method", "ordinary" or "cannot
        tell") and what it rests on: estimates of "conflicting_accuracy" and
        "aligned_accuracy", how many of the samples that are bias-conflicting, and of the
        others, the amplifier gets right; "accuracy_gap_low" and "accuracy_gap_high", the ends
        of the 80 % interval of their difference; "accuracy_gap_needed"; "n_compared", the
        number of labels, and "n_conflicting", how many of those samples are conflicting. With
        a hold-out also "holdout_worst_group" (dict of loss to accuracy), on rows that neither
        classifier was trained on, and that chose the larger one, which is a little too good,
        and "holdout_gain_low" and "holdout_gain_high", the 80 % interval of the gain.
    history_ : dict of str to DataFrame
        Loss on the training data in each epoch of the "amplifier" and of the "classifier".
    amplifier_, module_ : torch.nn.Module
        The two networks. ``module_`` maps raw features to logits and needs nothing of
        skfair but its class.

    Warns
    -----
    AmplificationWarning
        The amplifier's features keep many directions, or it did not learn the classes at all:
        its clusters are then no bias.
    FallbackWarning
        Group labels speak against the method, or cannot tell; ordinary training was used.
    OvercorrectionWarning
        The classifier gets less of its training data right than guessing would: the features
        carry the bias and next to nothing of the classes. Or the class shares of its
        predictions differ from those of the training data by more than 4 %. Neither after
        ordinary training.

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
        **ClusterMarginStages._parameter_constraints,
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
            Frozen features, used in float32.
        y : array-like of shape (n_samples,)
            Class labels of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the class balance, the clusters and the losses. Samples
            of weight zero take no part.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
default=None
            Group labels, which are never used in a loss: they only decide between `loss` and
            ordinary training. Most of them may be missing (None or NaN). What decides is how
            many more of the aligned than of the bias-conflicting samples the amplifier gets
            right: `loss` stays where an 80 % interval of that gap is above 0.05 x `scale`
            (0.2 for weighted losses). Where each group (class and sensitive feature) has 50
            labels, both are also trained on four fifths of the data, and a worst group on the
            rest that differs beyond chance comes first. Ordinary training is used, with a
            FallbackWarning, where the labels speak against `loss` and where they cannot tell.
            Under metadata routing, labels that a search is given for a scorer reach this method,
            too; ``set_fit_request(sensitive_features=False)`` keeps them from it.

            The rule was found on few data sets. How often it was right on others, and where it
            was not, is in the user guide.

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
        check_rows(X=X, y=y, sample_weight=sample_weight, sensitive_features=sensitive_features)
        self._fit(X, y, sample_weight, sensitive_features)
        return self

    @available_if(_has_clusters)
    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """Name the training samples whose group labels would tell most.

        Two fifths of them are errors of the amplifier, one half of these among the quarter of
        which it is surest, and three fifths are samples that it gets right, a third of these
        among the quarter of which it is least sure. All are spread evenly over the classes.
        Look at these samples, write down their sensitive feature, and fit again with it,
        missing (None) for all others.

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
        check_suggestion(self, n, "_hard")
        return suggest(self._hard, self._easy, n)

    @available_if(_has_clusters)
    def predict_cluster(self, X: ArrayLike) -> np.ndarray:
        """Assign samples to the clusters of the amplified bias.

        A model that was saved without ``training_rows=True`` does not know the centres of small
        clusters, which are NaN. Their samples go to the nearest of the others, and a warning
        says so.

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
        X = self._validate_features(X)
        if n_unknown := np.isnan(self.cluster_centers_).any(axis=1).sum():
            warnings.warn(
                f"{n_unknown} of {len(self.cluster_centers_)} clusters were left out when this "
                "model was saved, and their samples go to others. Save it with training_rows=True "
                "to keep them all.",
                UserWarning,
            )
        return self._assign(X)

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

    def to_module(self) -> torch.nn.Module:
        """Export the network that predicts, cosine head included.

        Returns
        -------
        torch.nn.Module
            A copy on the CPU, of operations of torch alone, which maps frozen features, float32
            of shape (n_samples, n_features), to logits of shape (n_samples, n_classes), in the
            order of ``classes_``. :meth:`predict` computes them in float64.

        Examples
        --------
        >>> import numpy as np
        >>> import torch
        >>> X, y = np.eye(20, dtype="float32"), np.arange(20) % 2
        >>> classifier = ClusterMarginClassifier(loss="cross_entropy", random_state=0).fit(X, y)
        >>> classifier.to_module()(torch.from_numpy(X)).shape
        torch.Size([20, 2])
        """
        return super().to_module()

    @property
    def _n_features_out(self) -> int:
        adapter: Any = self.module_.adapter
        return adapter.linear.out_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        # scikit-learn's checks ask for a high accuracy on data without any bias, where all
        # but ordinary training give some of it up.
        tags.classifier_tags.poor_score = self.loss != "cross_entropy"
        return tags
