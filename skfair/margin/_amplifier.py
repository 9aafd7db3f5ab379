"""Cluster margins, stages 1 and 2: amplify the bias, cluster it, turn clusters into margins."""

import warnings

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import recall_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches

from skfair.utils import AmplificationWarning
from skfair.utils._inner_fit import fit_inner
from skfair.utils._settings import warning_filter

# K-means sees at most this many rows, the rest are assigned: the paper measures a loss of half
# a point of worst-group accuracy at 10 % of CelebA (section 6).
MAX_CLUSTERED = 20_000
# Epsilon of equation 2.
SHARE_EPS = 1e-6
# A bias that agrees with the class in 60 % of the samples still is one, for two classes.
_LEARNED_SHARE = 0.2


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Divide each row by its length; rows of zeros stay."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)


def cluster_features(
    features: np.ndarray, weight: np.ndarray, n_clusters: int, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """K-means centres of rows of unit length.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_units)
        Rows of unit length.
    weight : ndarray of shape (n_samples,)
        Weight of each row.
    n_clusters : int
        Clusters asked for.
    random_state : RandomState
        Draws the rows that are clustered and the starts of k-means.

    Returns
    -------
    centres : ndarray of shape (n_centres, n_units)
        To each of which at least one row belongs. Fewer than `n_clusters` where there are fewer
        distinct rows: strong weight decay leaves little more than two points.
    sizes : ndarray of shape (n_centres,), float64
        Of how many rows each is the mean; rows of unequal weight count as fewer.
    """
    if len(features) > MAX_CLUSTERED:
        rows = random_state.choice(len(features), MAX_CLUSTERED, replace=False)
        features, weight = features[rows], weight[rows]
    kmeans = KMeans(min(n_clusters, len(features)), n_init=4, random_state=random_state)
    # Fewer distinct points than clusters is usual here and handled below.
    with warning_filter("ignore", ConvergenceWarning):
        fit_inner(kmeans, features, sample_weight=weight)
    # In float64, so that of centres that nearly coincide none loses its rows to another.
    centres = kmeans.cluster_centers_.astype(np.float64)
    taken, cluster = np.unique(nearest_centre(features, centres), return_inverse=True)
    weight = weight.astype(np.float64)
    return centres[taken], np.square(np.bincount(cluster, weight)) / np.bincount(
        cluster, np.square(weight)
    )


def nearest_centre(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of each row, int64; a centre of NaN is not known."""
    # |f - c|^2 less |f|^2, which is the same for every centre.
    unknown = np.isnan(centres).any(axis=1)
    centres = np.where(unknown[:, None], 0, centres)
    distance = np.square(centres).sum(axis=1) - 2 * features @ centres.T
    distance[:, unknown] = np.inf
    return distance.argmin(axis=1)


def class_shares(
    labels: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_clusters: int, n_classes: int
) -> np.ndarray:
    """Share of each class in each cluster (equation 2 of the paper).

    Parameters
    ----------
    labels, codes : ndarray of shape (n_samples,)
        Cluster and class of each sample.
    weight : ndarray of shape (n_samples,)
        Weight of each sample.
    n_clusters, n_classes : int
        Their numbers.

    Returns
    -------
    ndarray of shape (n_clusters, n_classes), float64
        Rows sum to one up to epsilon.

    Examples
    --------
    >>> import numpy as np
    >>> class_shares(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.ones(4), 2, 2).round(3)
    array([[0.667, 0.333],
           [0.   , 1.   ]])
    """
    counts = np.bincount(
        labels * n_classes + codes, weights=weight, minlength=n_clusters * n_classes
    ).reshape(n_clusters, n_classes)
    return (counts + SHARE_EPS) / (counts.sum(axis=1, keepdims=True) + SHARE_EPS)


def effective_rank(features: np.ndarray) -> float:
    """Exponential of the entropy of the spectrum of centred features.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_units)
        Features of the amplifier. Not its weights: under Adam those keep a tail of small
        singular values that the features do not show.

    Returns
    -------
    float
        1 where all variance lies in one direction, ``n_units`` where it is spread evenly; 0
        where there is no variance.

    Examples
    --------
    >>> import numpy as np
    >>> round(effective_rank(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
    2.0
    """
    centred = features - features.mean(axis=0)
    # Of the covariance, not the features: its size does not grow with n_samples.
    spectrum = np.linalg.eigvalsh(centred.T.astype(np.float64) @ centred).clip(min=0)
    if spectrum.sum() == 0:
        return 0.0
    share = spectrum / spectrum.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def weight_decay_scale(
    X: np.ndarray, codes: np.ndarray, weight: np.ndarray, spread: float
) -> float:
    """L2 penalty above which the weakest direction between the classes is given up.

    Near zero weights an adapter and its head grow only along those singular directions of
    the class-balanced covariance of classes and features whose singular value exceeds the
    penalty. That covariance has ``n_classes - 1`` directions; the smallest value of these is
    the unit in which a penalty means the same for any features and any number of them.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Frozen features.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    spread : float
        The scale of the features (:func:`feature_scale`).

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[-3.0], [-1.0], [1.0], [3.0]], dtype=np.float32)
    >>> codes = np.array([0, 0, 1, 1])  # means -2 and 2; a half of them, in both rows
    >>> round(weight_decay_scale(X, codes, np.ones(4), spread=1.0), 6)  # sqrt(1 + 1)
    1.414214
    """
    n_classes = codes.max() + 1
    share = np.zeros((len(X), n_classes))
    share[np.arange(len(X)), codes] = weight
    share /= share.sum(axis=0)
    # In float64, a batch at a time: sums of many float32 lose what lies between the classes.
    means = sum(share[rows].T @ X[rows].astype(np.float64) for rows in gen_batches(len(X), 8192))
    covariance = (means - means.mean(axis=0)) / (n_classes * spread)
    values = np.linalg.svd(covariance, compute_uv=False)
    return float(values[: n_classes - 1].min())


def cross_entropies(codes: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Cross-entropy of each sample, from its class and its logits."""
    return logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]


def balanced_accuracy(codes: np.ndarray, logits: np.ndarray) -> float:
    """Mean accuracy over the classes, from the classes and the logits of samples."""
    return float(recall_score(codes, logits.argmax(axis=1), average="macro", zero_division=0))


def class_tilt(codes: np.ndarray, logits: np.ndarray, weight: np.ndarray) -> float:
    """Total variation distance between the class shares of predictions and of classes.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Classes.
    logits : ndarray of shape (n_samples, n_classes)
        Logits of the classifier.
    weight : ndarray of shape (n_samples,)
        Weight of each sample.

    Returns
    -------
    float
        The share of the weight that would have to change its class: 0 where each class is
        predicted as often as it occurs.

    Examples
    --------
    >>> import numpy as np
    >>> class_tilt(np.array([0, 0, 1, 1]), np.eye(2)[[0, 1, 1, 1]], np.ones(4))
    0.25
    """
    n_classes = logits.shape[1]
    predicted = np.bincount(logits.argmax(axis=1), weight, n_classes)
    return float(np.abs(predicted - np.bincount(codes, weight, n_classes)).sum() / 2 / weight.sum())


def diagnose_amplifier(
    codes: np.ndarray, logits: np.ndarray, features: np.ndarray
) -> dict[str, float]:
    """Measure whether stage 1 found one simple rule, and warn where it did not.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Classes.
    logits : ndarray of shape (n_samples, n_classes)
        Logits of the amplifier.
    features : ndarray of shape (n_samples, n_units)
        Features of its adapter.

    Returns
    -------
    dict
        "amplifier_accuracy" (class-balanced) and "amplifier_rank".

    Warns
    -----
    AmplificationWarning
        The accuracy is less than a fifth of the way from chance to one, or the rank is above
        one and a half times what separating the classes takes.
    """
    n_classes = logits.shape[1]
    accuracy = balanced_accuracy(codes, logits)
    rank = effective_rank(unit_rows(features))
    chance = 1 / n_classes
    if accuracy < chance + _LEARNED_SHARE * (1 - chance):
        warnings.warn(
            f"The amplifier classifies {accuracy:.0%} of the training data rightly, where chance "
            f"is {chance:.0%}: it learned next to nothing, and its clusters are no bias. Lower "
            "amplifier_weight_decay, or raise amplifier_max_epochs.",
            AmplificationWarning,
        )
    elif rank > 1.5 * (n_classes - 1):
        warnings.warn(
            f"The amplifier's features have an effective rank of {rank:.1f}, where separating "
            f"{n_classes} classes takes {n_classes - 1}: it did not amplify one bias. Raise "
            "amplifier_weight_decay or amplifier_max_epochs.",
            AmplificationWarning,
        )
    return {"amplifier_accuracy": accuracy, "amplifier_rank": rank}


def feature_scale(X: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each feature, and one scale for all of them: the root of the mean variance.

    One scale, not one a feature: features in which an encoder varies little are mostly noise,
    and a scale of their own would blow it up.

    The means are rounded to multiples of a power of two, at most an 8192nd of the scale. Up to
    1024 scales from zero they are then exact in float32, and features less their means are what
    they would be without the shift: neither a shift of the features that float32 holds without
    loss nor a power of two as their unit changes a bit of what is trained on.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Frozen features.

    Returns
    -------
    mean : tensor of shape (n_features,), float32
    spread : tensor of shape (), float32
        1 where no feature varies.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [1.0]], dtype=np.float32)
    >>> near, far = feature_scale(X)[0], feature_scale(X + 256)[0]
    >>> far.item() - near.item()  # 256 and two thirds alone would lose digits in float32
    256.0
    """
    scaler = StandardScaler()
    for rows in gen_batches(len(X), 8192):  # float64 copies of a batch, not of everything
        scaler.partial_fit(X[rows].astype(np.float64))
    spread = np.sqrt(scaler.var_.mean()) or 1.0
    step = 2.0 ** (np.floor(np.log2(spread)) - 13)
    mean = np.round(scaler.mean_ / step) * step
    return (
        torch.as_tensor(mean, dtype=torch.float32),
        torch.tensor(spread, dtype=torch.float32),
    )
