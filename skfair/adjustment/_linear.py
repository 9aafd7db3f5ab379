"""Logit adjustment, the linear parts: the projection, and regression with offsets."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, qr
from scipy.optimize import fmin_l_bfgs_b
from scipy.special import expit, logsumexp
from sklearn.utils import gen_batches
from sklearn.utils.extmath import svd_flip

from skfair.base._blocks import BlockRows

_BLOCK = 8192  # rows in one step
_EXACT = 2048  # largest number of features for which the whole covariance is decomposed
_OVERSAMPLED, _POWER_ITERATIONS = 10, 4
_DOUBLE = 1 << 24  # largest number of entries of projected rows that are kept in float64
_MEAN_SQUARE = 256.0


@dataclass(frozen=True)
class Linear:
    """A linear map from rows to one score for each class or attribute value.

    Attributes
    ----------
    coef : ndarray of shape (n_outputs, n_inputs), float64
    intercept : ndarray of shape (n_outputs,), float64
    """

    coef: np.ndarray
    intercept: np.ndarray

    def __call__(self, X: np.ndarray | BlockRows) -> np.ndarray:
        """Compute the scores, float64 of shape (n_samples, n_outputs)."""
        if X.dtype == np.float64 or len(X) <= _BLOCK:
            return X[:].astype(np.float64, copy=False) @ self.coef.T + self.intercept
        scores = np.empty((len(X), len(self.coef)))
        for rows in gen_batches(len(X), _BLOCK):
            scores[rows] = X[rows].astype(np.float64) @ self.coef.T + self.intercept
        return scores

    def after(self, first: "Linear") -> "Linear":
        """Compose the two maps into one: first the other map, then this one."""
        return Linear(self.coef @ first.coef, self.coef @ first.intercept + self.intercept)


def mean_map(maps: list[Linear]) -> Linear:
    """Average several maps: the scores of the result are the mean of their scores."""
    return Linear(
        np.mean([m.coef for m in maps], axis=0), np.mean([m.intercept for m in maps], axis=0)
    )


def principal_components(
    X: np.ndarray, weight: np.ndarray, n_components: int, rng: np.random.RandomState
) -> Linear:
    """Find the map of rows to their principal components, all divided by one number.

    Beyond X, this needs memory for a few blocks of rows and for the covariance of the features.
    With more than 2,048 features, it needs a few vectors for each component instead of the
    covariance.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Rows.
    weight : ndarray of shape (n_samples,)
        Weight of each row.
    n_components : int
        Number of components; at most `n_features`.
    rng : RandomState
        Draws the start of the subspace iteration, which is used for many features.

    Returns
    -------
    Linear
        The projected rows have mean zero and a mean squared length of 256, so that the ridge of a
        regression has the same effect with the features of every encoder.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[-1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    >>> first = principal_components(X, np.ones(2), 1, np.random.RandomState(0))
    >>> first(X).round(6)
    array([[-16.],
           [ 16.]])
    """
    share = weight.astype(np.float64) / weight.sum(dtype=np.float64)
    blocks = [*gen_batches(len(X), _BLOCK)]
    # Differences to the first row make the mean of a constant feature exactly that constant.
    origin = X[0].astype(np.float64)
    mean = origin + sum(share[rows] @ (X[rows] - origin) for rows in blocks)

    def centred(rows: slice) -> np.ndarray:
        return X[rows].astype(np.float64) - mean

    n_features = X.shape[1]
    if n_features <= _EXACT:
        covariance = np.zeros((n_features, n_features))
        for rows in blocks:
            part = centred(rows) * np.sqrt(share[rows])[:, None]
            covariance += part.T @ part
        first = n_features - n_components
        variance, vectors = eigh(covariance, subset_by_index=[first, n_features - 1])
        components = vectors.T[::-1]
        variance = variance[::-1]
    else:
        width = min(n_components + _OVERSAMPLED, n_features)
        basis = rng.standard_normal((n_features, width))
        for _ in range(_POWER_ITERATIONS):
            basis = qr(basis, mode="economic")[0]
            basis = sum(c.T @ (share[r, None] * (c @ basis)) for r, c in _each(blocks, centred))
        basis = qr(basis, mode="economic")[0]
        small = sum(
            (c @ basis).T @ (share[r, None] * (c @ basis)) for r, c in _each(blocks, centred)
        )
        variance, rotation = eigh(small)
        variance = variance[::-1][:n_components]
        components = (basis @ rotation).T[::-1][:n_components]
    components = svd_flip(None, components, u_based_decision=False)[1]
    total = variance.clip(min=0).sum()
    if total > 0:
        components = components * np.sqrt(_MEAN_SQUARE / total)
    return Linear(components, -components @ mean)


def _each(blocks, centred):
    return ((rows, centred(rows)) for rows in blocks)


def project(projection: Linear, X: np.ndarray | BlockRows) -> np.ndarray:
    """Project rows, in float64; in float32 if a float64 copy would take much memory."""
    size = len(X) * len(projection.coef)
    Z = np.empty((len(X), len(projection.coef)), np.float64 if size <= _DOUBLE else np.float32)
    for rows in gen_batches(len(X), _BLOCK):
        Z[rows] = projection(X[rows])
    return Z


def fit_softmax(
    Z: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    n_classes: int,
    *,
    ridge: float,
    offset: np.ndarray | None = None,
    start: Linear | None = None,
    max_iter: int = 200,
) -> Linear:
    """Fit a multinomial logistic regression with an offset for each row and class.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Rows.
    codes : ndarray of shape (n_samples,), int
        Classes.
    weight : ndarray of shape (n_samples,)
        Weight of each row; only the ratios of the weights count.
    n_classes : int
        Number of classes.
    ridge : float
        Half of the ridge times the sum of the squared coefficients is added to the weighted mean
        of the cross-entropy. The intercepts have no penalty.
    offset : ndarray of shape (n_samples, n_classes), default=None
        Added to the logits of the rows in training.
    start : Linear, default=None
        Start of the optimisation; None starts at zero.
    max_iter : int, default=200
        Largest number of steps of L-BFGS.

    Returns
    -------
    Linear

    Examples
    --------
    Without informative features, the intercepts are the log shares, up to a constant. With the
    log shares as an offset, the intercepts are zero.

    >>> import numpy as np
    >>> Z, codes = np.zeros((4, 1)), np.array([0, 0, 0, 1])
    >>> plain = fit_softmax(Z, codes, np.ones(4), 2, ridge=1.0)
    >>> float(round(plain.intercept[0] - plain.intercept[1], 3))  # log 3
    1.099
    >>> offset = np.log([[0.75, 0.25]] * 4)
    >>> adjusted = fit_softmax(Z, codes, np.ones(4), 2, ridge=1.0, offset=offset)
    >>> float(abs(round(adjusted.intercept[0] - adjusted.intercept[1], 3)))
    0.0
    """
    share = weight.astype(np.float64) / weight.sum(dtype=np.float64)
    n_inputs = Z.shape[1]
    blocks = [*gen_batches(len(Z), _BLOCK)]
    # Two classes need one column, the logit of the second class less the logit of the first. Split
    # into halves of opposite sign, it has half the sum of squares.
    two = n_classes == 2
    compare, penalty = (_compare_two, ridge / 2) if two else (_compare_many, ridge)
    shape = (1 if two else n_classes, n_inputs + 1)
    if two and offset is not None:
        offset = offset[:, 1:] - offset[:, :1]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        theta = theta.reshape(shape)
        coef, intercept = theta[:, :-1].astype(Z.dtype), theta[:, -1]
        gradient = np.zeros(shape)
        total = 0.0
        for rows in blocks:
            logits = Z[rows] @ coef.T + intercept
            if offset is not None:
                logits += offset[rows]
            losses, error = compare(logits, codes[rows])
            total += share[rows] @ losses
            error *= share[rows, None]
            gradient[:, :-1] += error.T.astype(Z.dtype) @ Z[rows]
            gradient[:, -1] += error.sum(axis=0)
        gradient[:, :-1] += penalty * theta[:, :-1]
        return total + penalty / 2 * np.square(theta[:, :-1]).sum(), gradient.ravel()

    theta = np.zeros(shape)
    if start is not None:
        coef, intercept = start.coef, start.intercept
        if two:
            coef, intercept = np.diff(coef, axis=0), np.diff(intercept)
        theta[:, :-1], theta[:, -1] = coef, intercept
    theta = fmin_l_bfgs_b(loss, theta.ravel(), maxiter=max_iter, pgtol=1e-5, factr=1e5)[0]
    theta = theta.reshape(shape)
    if two:
        theta = np.vstack([-theta / 2, theta / 2])
    return Linear(theta[:, :-1], theta[:, -1] - theta[:, -1].mean())


def _compare_two(logits: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the cross-entropy of each row, and its derivative by the logit."""
    sign = 1.0 - 2 * codes
    against = sign * logits[:, 0]
    return np.logaddexp(0, against), (sign * expit(against))[:, None]


def _compare_many(logits: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the cross-entropy of each row, and its derivatives by the logits."""
    logits -= logits.max(axis=1, keepdims=True)
    there = np.arange(len(codes)), codes
    own = logits[there]
    error = np.exp(logits)
    sums = error.sum(axis=1)
    error /= sums[:, None]
    error[there] -= 1
    return np.log(sums) - own, error


def balanced_weight(codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Scale the weights so that each class in `codes` has the same total weight."""
    totals = np.bincount(codes, weights=weight)
    return weight / totals[codes]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the log of the softmax of each row."""
    return logits - logsumexp(logits, axis=1, keepdims=True)
