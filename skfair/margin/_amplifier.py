"""Cluster margins, stages 1 and 2: amplify the bias, cluster it, turn clusters into margins."""

import warnings

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches

from skfair.base._blocks import BlockRows
from skfair.base._threads import few_threads
from skfair.utils import AmplificationWarning
from skfair.utils._inner_fit import fit_inner
from skfair.utils._settings import warning_filter

# K-means is fitted on at most this many rows; the other rows go to the nearest centre. The paper
# measures a loss of half a point of worst-group accuracy with 10 % of CelebA (section 6).
MAX_CLUSTERED = 20_000
# Epsilon of equation 2.
SHARE_EPS = 1e-6
# With two classes this is an accuracy of 60 %: a bias that agrees with the class in 60 % of the
# samples is still a bias.
_LEARNED_SHARE = 0.2
# Rows that are worked on at once. Their float64 copies fit into a processor's cache; copies of
# more rows take longer, since the system gives fresh memory for each of them.
BLOCK = 1024


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Divide each row by its length; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)


def cluster_features(
    features: np.ndarray, weight: np.ndarray, n_clusters: int, random_state: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k-means centres of rows of unit length.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_units)
        Rows of unit length.
    weight : ndarray of shape (n_samples,)
        Weight of each row.
    n_clusters : int
        Largest number of clusters.
    random_state : RandomState
        Draws the starts of k-means.

    Returns
    -------
    centres : ndarray of shape (n_centres, n_units)
        Centres; each one has at least one row. There are fewer than `n_clusters` centres if
        there are fewer distinct rows: strong weight decay leaves little more than two points.
    sizes : ndarray of shape (n_centres,), float64
        Effective number of rows in each centre's mean; unequal weights make it smaller.
    """
    kmeans = KMeans(min(n_clusters, len(features)), n_init=4, random_state=random_state)
    # There are often fewer distinct points than clusters. The lines below handle that.
    with few_threads(features.size * n_clusters), warning_filter("ignore", ConvergenceWarning):
        fit_inner(kmeans, features, sample_weight=weight)
    # In float64: of two centres that nearly coincide, rounding must not give one all the rows.
    centres = kmeans.cluster_centers_.astype(np.float64)
    taken, cluster = np.unique(nearest_centre(features, centres), return_inverse=True)
    weight = weight.astype(np.float64)
    return centres[taken], np.square(np.bincount(cluster, weight)) / np.bincount(
        cluster, np.square(weight)
    )


def nearest_centre(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Find the nearest centre of each row, as an int64 index; centres of NaN are skipped."""
    # |f - c|^2 less |f|^2: the second term is the same for every centre.
    unknown = np.isnan(centres).any(axis=1)
    centres = np.where(unknown[:, None], 0, centres)
    distance = np.square(centres).sum(axis=1) - 2 * features @ centres.T
    distance[:, unknown] = np.inf
    return distance.argmin(axis=1)


def class_shares(
    labels: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_clusters: int, n_classes: int
) -> np.ndarray:
    """Compute the share of each class in each cluster (equation 2 of the paper).

    Parameters
    ----------
    labels, codes : ndarray of shape (n_samples,)
        Cluster and class of each sample.
    weight : ndarray of shape (n_samples,)
        Weight of each sample.
    n_clusters, n_classes : int
        Number of clusters and of classes.

    Returns
    -------
    ndarray of shape (n_clusters, n_classes), float64
        Each row sums to one, up to epsilon.

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


class Scatter:
    """The scatter matrix of rows that come in blocks: n_samples times their covariance.

    Attributes
    ----------
    n_rows : int
        Number of rows so far.

    Examples
    --------
    >>> import numpy as np
    >>> scatter = Scatter()
    >>> scatter.add(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    >>> scatter.add(np.array([[0.0, 3.0]]))
    >>> scatter.matrix().tolist()
    [[2.0, 0.0], [0.0, 6.0]]
    """

    def __init__(self) -> None:
        self.n_rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Add rows, of shape (n_rows, n_units)."""
        if not self.n_rows:
            # Sums of differences from any row lose fewer digits than sums of the rows, and they
            # are zero where the rows are the same.
            self._origin = rows[0].astype(np.float64)
            self._sum = np.zeros(len(self._origin))
            self._products = np.zeros((len(self._origin),) * 2)
        centred = rows - self._origin
        self.n_rows += len(rows)
        self._sum += centred.sum(axis=0)
        self._products += centred.T @ centred

    def matrix(self) -> np.ndarray:
        """Return the matrix, float64 of shape (n_units, n_units)."""
        return self._products - np.outer(self._sum, self._sum / self.n_rows)


def effective_rank(scatter: np.ndarray) -> float:
    """Compute the effective rank: the exponential of the entropy of the features' spectrum.

    Parameters
    ----------
    scatter : ndarray of shape (n_units, n_units)
        Scatter or covariance of the amplifier's features. The weights of the amplifier are less
        suited: under Adam they keep a tail of small singular values, which the features do not
        show.

    Returns
    -------
    float
        1 if all variance lies in one direction, ``n_units`` if the variance is the same in all
        directions, 0 if there is no variance.

    Examples
    --------
    >>> import numpy as np
    >>> round(effective_rank(np.diag([3.0, 3.0])), 6)
    2.0
    """
    spectrum = np.linalg.eigvalsh(scatter).clip(min=0)
    if spectrum.sum() == 0:
        return 0.0
    share = spectrum / spectrum.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def weight_decay_scale(
    X: np.ndarray | BlockRows, codes: np.ndarray, weight: np.ndarray, spread: float
) -> float:
    """Compute the L2 penalty above which training loses the weakest direction between the classes.

    Near zero weights, an adapter and its head grow only along some singular directions of the
    class-balanced covariance of classes and features: those whose singular value exceeds the
    penalty. That covariance has ``n_classes - 1`` directions, and the smallest of their singular
    values is the unit of ``amplifier_weight_decay``. In this unit, a penalty has the same effect
    for any scale and any number of features.

    Parameters
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    spread : float
        Scale of the features, from :func:`feature_scale`.

    Returns
    -------
    float
        The penalty, for features that are centred and divided by `spread`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[-3.0], [-1.0], [1.0], [3.0]], dtype=np.float32)
    >>> codes = np.array([0, 0, 1, 1])  # means -2 and 2; a half of them, in both rows
    >>> round(weight_decay_scale(X, codes, np.ones(4), spread=1.0), 6)  # sqrt(1 + 1)
    1.414214
    """
    n_classes = codes.max() + 1
    share = weight / np.bincount(codes, weights=weight)[codes]
    # In float64, a block at a time: sums of many float32 lose the differences between the classes.
    means = np.zeros((n_classes, X.shape[1]))
    for rows in gen_batches(len(X), BLOCK):
        of_class = np.zeros((n_classes, rows.stop - rows.start))
        of_class[codes[rows], np.arange(rows.stop - rows.start)] = share[rows]
        means += of_class @ X[rows].astype(np.float64)
    covariance = (means - means.mean(axis=0)) / (n_classes * spread)
    values = np.linalg.svd(covariance, compute_uv=False)
    return float(values[: n_classes - 1].min())


def cross_entropies(codes: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Compute the cross-entropy of each sample from its class and its logits."""
    return logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]


def balanced_accuracy(codes: np.ndarray, right: np.ndarray) -> float:
    """Compute the mean accuracy over the classes.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class labels; each class has a sample.
    right : ndarray of shape (n_samples,), bool
        Whether the prediction is right.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> balanced_accuracy(np.array([0, 0, 1]), np.array([True, False, True]))
    0.75
    """
    return float(np.mean(np.bincount(codes, weights=right) / np.bincount(codes)))


def class_tilt(codes: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
    """Compute the total variation distance between the class shares of predictions and of labels.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Class labels; each class has a sample.
    predicted : ndarray of shape (n_samples,), int
        Predicted classes.
    weight : ndarray of shape (n_samples,)
        Weight of each sample.

    Returns
    -------
    float
        The share of the weight that would have to change its predicted class, so that each class
        is predicted as often as it occurs.

    Examples
    --------
    >>> import numpy as np
    >>> class_tilt(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.ones(4))
    0.25
    """
    occurs = np.bincount(codes, weight)
    difference = np.bincount(predicted, weight, len(occurs)) - occurs
    return float(np.abs(difference).sum() / 2 / weight.sum())


def diagnose_amplifier(codes: np.ndarray, right: np.ndarray, rank: float) -> dict[str, float]:
    """Measure whether the amplifier learned one simple rule, and warn if it did not.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,), int
        Classes.
    right : ndarray of shape (n_samples,), bool
        Whether the amplifier predicts the class.
    rank : float
        Effective rank of the features of the amplifier's adapter, as rows of unit length.

    Returns
    -------
    dict
        "amplifier_accuracy" (class-balanced) and "amplifier_rank".

    Warns
    -----
    AmplificationWarning
        The accuracy is less than a fifth of the way from chance to one, or the rank is above
        ``1.5 * (n_classes - 1)``, where ``n_classes - 1`` directions separate the classes.
    """
    n_classes = codes.max() + 1
    accuracy = balanced_accuracy(codes, right)
    chance = 1 / n_classes
    if accuracy < chance + _LEARNED_SHARE * (1 - chance):
        warnings.warn(
            f"The amplifier classifies {accuracy:.0%} of the training data correctly, where chance "
            f"is {chance:.0%}: it learned next to nothing, and its clusters do not show a bias. "
            "Lower amplifier_weight_decay, or raise amplifier_max_epochs.",
            AmplificationWarning,
        )
    elif rank > 1.5 * (n_classes - 1):
        warnings.warn(
            f"The amplifier's features have an effective rank of {rank:.1f}, and a rank of "
            f"{n_classes - 1} is enough to separate {n_classes} classes: the amplifier did not "
            "reduce the features to one bias. Raise amplifier_weight_decay or "
            "amplifier_max_epochs.",
            AmplificationWarning,
        )
    return {"amplifier_accuracy": accuracy, "amplifier_rank": rank}


def feature_scale(X: np.ndarray | BlockRows) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the mean of each feature, and one scale for all: the root of the mean variance.

    All features share one scale. Features in which an encoder varies little are mostly noise, and
    a scale for each feature would amplify this noise.

    The means are rounded to multiples of a power of two, at most an 8192nd of the scale. Rounded
    means up to 1024 scales from zero are exact in float32. Then the centred features have the same
    bits after a shift of the features that float32 holds without loss, and the scaled features
    have the same bits after a change of unit by a power of two.

    Parameters
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features.

    Returns
    -------
    mean : tensor of shape (n_features,), float32
    spread : tensor of shape (), float32
        1 if no feature varies.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [1.0]], dtype=np.float32)
    >>> near, far = feature_scale(X)[0], feature_scale(X + 256)[0]
    >>> far.item() - near.item()  # 256 and two thirds alone would lose digits in float32
    256.0
    """
    n_samples, n_features = X.shape
    # The differences from a row are exact in float64, and they do not change with the origin.
    origin = X[:1][0].astype(np.float64)
    total, squares = np.zeros(n_features), 0.0
    for rows in gen_batches(n_samples, BLOCK):
        difference = X[rows] - origin
        total += difference.sum(axis=0)
        squares += np.vdot(difference, difference)
    shift = total / n_samples
    variance = (squares / n_samples - shift @ shift) / n_features
    spread = np.sqrt(max(variance, 0.0)) or 1.0
    step = 2.0 ** (np.floor(np.log2(spread)) - 13)
    mean = np.round((origin + shift) / step) * step
    return (
        torch.as_tensor(mean, dtype=torch.float32),
        torch.tensor(spread, dtype=torch.float32),
    )
