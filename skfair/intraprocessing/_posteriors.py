"""Intra-processing in closed form: out-of-fold posteriors of the label and of the group."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

# Strengths of the L2 penalty of the head, on standardised features. A weak penalty overfits, and
# the best strength depends on the number of features.
L2 = (1e-1, 1e-2, 1e-3, 1e-4)
L2_OF_LABELS = 1e-5  # there are few logits and many rows
_STEPS = 200  # at most, of L-BFGS
_PRECISE = 1e-4  # largest entry of the gradient of the mean log loss at the end
_TIED = 1e-6  # penalty on the bias of the layer, which makes the solution unique


class Linear(NamedTuple):
    """A linear layer; weight of shape (n_features, n_outputs), bias of shape (n_outputs,)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return X @ self.weight + self.bias


class Scaler(NamedTuple):
    """Mean and spread of features, each of shape (n_features,)."""

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean) / self.scale

    def before(self, linear: Linear) -> Linear:
        """Fold the standardisation into a layer.

        Returns
        -------
        Linear
            Does to features what `linear` does to standardised features.
        """
        weight = linear.weight / self.scale[:, None]
        return Linear(weight, linear.bias - self.mean @ weight)


def fit_scaler(X: np.ndarray) -> Scaler:
    """Fit a scaler to mean zero and spread one; constant features become zero.

    Returns
    -------
    Scaler
    """
    mean, scale = X.mean(0), X.std(0)
    return Scaler(mean, np.where(scale > 1e-9 * np.abs(mean) + 1e-30, scale, np.inf))


def fit_logistic(
    X: np.ndarray, codes: np.ndarray, n_classes: int, l2: float, root: np.ndarray
) -> Linear:
    """Fit a multinomial logistic regression with an L2 penalty on the weights.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Standardised.
    codes : ndarray of shape (n_samples,), int
        Classes; some may have no rows.
    n_classes : int
    l2 : float
        The loss is the mean log loss plus ``l2 / 2`` times the sum of the squared weights.
    root : ndarray of shape (n_features, n_features)
        From :func:`curvature_root`; it changes the number of steps, not the solution.

    Returns
    -------
    Linear
    """
    n, d = X.shape
    wanted = np.zeros((n_classes, n))
    wanted[codes, np.arange(n)] = 1
    # Each class counts half a row more: a class without rows is unlikely, not impossible.
    prior = np.log((wanted.sum(1) + 0.5) / (n + n_classes / 2))

    def weights_of(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = flat.reshape(d + 1, n_classes)
        return solve_triangular(root, theta[:-1], lower=True, trans="T"), theta[-1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, drift = weights_of(flat)
        logits = weight.T @ X.T + (prior + drift)[:, None]
        logits -= logits.max(0)
        odds = np.exp(logits)
        total = odds.sum(0)
        value = (np.log(total).sum() - (logits * wanted).sum()) / n
        value += l2 / 2 * (weight**2).sum() + _TIED / 2 * (drift**2).sum()
        residual = odds / total - wanted
        slope = solve_triangular(root, (residual @ X).T / n + l2 * weight, lower=True)
        tied = residual.mean(1) + _TIED * drift
        return float(value), np.concatenate([slope.ravel(), tied])

    start = np.zeros((d + 1) * n_classes)
    options = {"maxiter": _STEPS, "gtol": _PRECISE, "ftol": 0.0}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    weight, drift = weights_of(found)
    return Linear(weight, prior + drift)


def curvature_root(X: np.ndarray, l2: float) -> np.ndarray:
    """Compute the root of an approximate curvature of the loss of :func:`fit_logistic`.

    It does not depend on the classes.

    Returns
    -------
    ndarray of shape (n_features, n_features)
        Lower triangular.
    """
    return cholesky(X.T @ X / (4 * len(X)) + (l2 + 1e-6) * np.eye(X.shape[1]), lower=True)


class OutOfFold(NamedTuple):
    """Logits of each row by a model of all other folds, (n_samples, n_classes); its L2 and loss."""

    logits: np.ndarray
    l2: float
    loss: float


def predict_out_of_fold(
    X: np.ndarray, codes: np.ndarray, n_classes: int, fold: np.ndarray, strengths: Sequence[float]
) -> OutOfFold:
    """Predict each fold by logistic regressions on the others.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Standardised.
    codes : ndarray of shape (n_samples,), int
    n_classes : int
    fold : ndarray of shape (n_samples,), int
    strengths : sequence of float
        L2 penalties to compare by their out-of-fold log loss.

    Returns
    -------
    OutOfFold
    """
    roots = [curvature_root(X, l2) for l2 in strengths]
    logits = np.empty((len(strengths), len(codes), n_classes))
    for k in range(int(fold.max()) + 1):
        held = fold == k
        for i, l2 in enumerate(strengths):
            model = fit_logistic(X[~held], codes[~held], n_classes, l2, roots[i])
            logits[i, held] = model(X[held])
    losses = -log_softmax(logits, axis=2)[:, np.arange(len(codes)), codes].mean(1)
    best = int(losses.argmin())
    return OutOfFold(logits[best], strengths[best], float(losses[best]))


class Posteriors(NamedTuple):
    """Probabilities of classes, by models that were fitted without the row.

    Attributes
    ----------
    outside : ndarray of shape (n_folds, n_samples, n_classes)
        Entry k uses no row of fold k. In entry k, the rows of another fold are predicted by a
        model that was fitted without fold k and without their own fold: these are the out-of-fold
        predictions of a fit to all folds but k.
    model : Linear
        Fitted to all rows.
    """

    outside: np.ndarray
    model: Linear

    def out_of_fold(self, fold: np.ndarray) -> np.ndarray:
        """Return the prediction of each row by a model of all other folds.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return self.outside[fold, np.arange(len(fold))]


def fit_posteriors(
    X: np.ndarray, codes: np.ndarray, fold: np.ndarray, out_of_fold: OutOfFold
) -> Posteriors:
    """Fit the chosen model to all rows, and without each pair of folds.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features), float64
        Standardised.
    codes, fold : ndarray of shape (n_samples,), int
        Class and fold of each row; at least three folds.
    out_of_fold : OutOfFold
        From :func:`predict_out_of_fold`.

    Returns
    -------
    Posteriors
    """
    (n, n_classes), n_folds = out_of_fold.logits.shape, int(fold.max()) + 1
    root = curvature_root(X, out_of_fold.l2)

    def fit(kept: np.ndarray) -> Linear:
        return fit_logistic(X[kept], codes[kept], n_classes, out_of_fold.l2, root)

    outside = np.empty((n_folds, n, n_classes))
    for k in range(n_folds):
        outside[k, fold == k] = softmax(out_of_fold.logits[fold == k], axis=1)
        for j in range(k):
            model = fit((fold != k) & (fold != j))
            for here, there in ((k, j), (j, k)):
                outside[here, fold == there] = softmax(model(X[fold == there]), axis=1)
    return Posteriors(outside, fit(np.arange(n)))
