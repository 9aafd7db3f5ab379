"""Intra-processing in closed form: predictions that meet a constraint without seeing groups.

Out-of-fold posteriors of the label and of the group, and the weights of the group posteriors that
equalise the rates of the groups: the smooth dual of a linear program (Xian and Zhao 2024,
"LinearPost", arXiv 2405.04025).
"""

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
# Softness of the decision, as a share of the spread of the costs. It makes the dual smooth. Its
# small effect on the rates is corrected by the residual.
_SOFTNESS = 0.01
# Number of updates of the residual of the head, and the share of each change that is applied.
_N_CORRECTIONS, _DAMPING = 3, 0.7
# Size of a group that is compared by the mean of its own rate and the pooled rate.
_HALF = 25.0


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


class Events(NamedTuple):
    """The rates that a constraint compares.

    Attributes
    ----------
    cell : ndarray of shape (n_samples,), int
        Class of each row for the head: its group, or its group and label.
    n_cells : int
        Number of cells.
    families : ndarray of shape (n_families, n_groups), int
        Cells whose rates are compared with each other: a row for each label that the rates are
        conditioned on.
    classes : ndarray of int
        Predicted classes whose rates are compared.
    """

    cell: np.ndarray
    n_cells: int
    families: np.ndarray
    classes: np.ndarray


def make_events(
    constraint: str,
    y: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    n_groups: int,
    positive: int | None,
    compared: np.ndarray,
) -> Events:
    """Find the rates that a constraint compares: the events E_c of Xian and Zhao 2024.

    Parameters
    ----------
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds"}
    y, groups : ndarray of int
        Class and group of each row.
    n_classes, n_groups : int
    positive : int or None
        The class whose rates are compared; None for all classes.
    compared : ndarray of int
        The groups that are compared.

    Returns
    -------
    Events
    """
    classes = np.arange(n_classes) if positive is None else np.array([positive])
    if constraint == "demographic_parity":
        return Events(groups, n_groups, compared[None], classes)
    cells = np.arange(n_groups * n_classes).reshape(n_groups, n_classes).T[:, compared]
    given = classes if constraint == "equal_opportunity" else np.unique(y)
    return Events(groups * n_classes + y, n_groups * n_classes, cells[given], classes)


# -- posteriors --------------------------------------------------------------------------------


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


# -- the dual ----------------------------------------------------------------------------------


def class_values(counts: np.ndarray, performance: str) -> np.ndarray:
    """Compute the value of a right prediction of each class.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,)
        Rows with each label.
    performance : {"accuracy", "balanced_accuracy"}

    Returns
    -------
    ndarray of shape (n_classes,)
        The performance is the mean, over all rows, of the values of right predictions.
    """
    if performance == "accuracy":
        return np.ones(len(counts))
    return np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0) / (counts > 0).sum()


class _Dual:
    """The smoothed dual of the linear program; a multiplier for each compared rate and group.

    Multipliers have the shape (n_families, n_compared, n_groups). Each rate is compared with the
    pooled rate of all groups, in which a small group has a small weight. The multipliers are
    centred by the same weights: their sum over the groups is zero.
    """

    def __init__(self, cost: np.ndarray, posterior: np.ndarray, events: Events, cell: np.ndarray):
        n = len(cost)
        self.cost, self.compared = cost, events.classes
        self.cells, place = np.unique(events.families, return_inverse=True)
        self.place = place.reshape(events.families.shape)
        known = np.zeros_like(posterior)
        known[np.arange(n), cell] = 1
        self.n_cells = posterior.shape[1]
        self.known = known[:, self.cells]
        rows = self.known.sum(0)
        self.per_row = n / np.maximum(rows, 1)
        self.ratio = posterior[:, self.cells] * self.per_row
        sizes = rows[self.place][:, None]
        self.trusted = sizes / (sizes + _HALF)
        self.pooled = self.trusted / np.maximum(self.trusted.sum(-1, keepdims=True), 1e-9)
        self.softness = _SOFTNESS * max(float(np.ptp(cost, axis=1).std()), 1e-6)
        self.shape = len(self.place), len(self.compared), events.families.shape[1]

    def __call__(
        self, flat: np.ndarray, target: float, residual: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Value and gradient in the positive and the negative parts of the multipliers."""
        up, down = flat.reshape(2, *self.shape)
        multiplier = self.centred(up - down)
        # A group with a small weight may differ more.
        allowed = target / 2 / np.maximum(self.trusted, 1e-3)
        score = self.scores(multiplier) / self.softness
        top = score.max(1, keepdims=True)
        share = np.exp(score - top)
        total = share.sum(1, keepdims=True)
        value = self.softness * float((top + np.log(total)).mean())
        value += float((allowed * (up + down)).sum() - (residual * multiplier).sum())
        slope = -(self.rates(share / total, self.ratio) + residual)
        slope = slope - (self.pooled * slope).sum(-1, keepdims=True)
        return value, np.stack([allowed + slope, allowed - slope]).ravel()

    def centred(self, parts: np.ndarray) -> np.ndarray:
        return parts - self.pooled * parts.sum(-1, keepdims=True)

    def by_cell(self, multiplier: np.ndarray) -> np.ndarray:
        """Sum the multipliers of each cell and compared class."""
        weights = np.zeros((len(self.cells), len(self.compared)))
        np.add.at(weights, self.place, np.moveaxis(multiplier, 1, 2))
        return weights

    def scores(self, multiplier: np.ndarray) -> np.ndarray:
        """Score the classes; the largest score of a row is its decision."""
        scores = -self.cost
        scores[:, self.compared] -= self.ratio @ self.by_cell(multiplier)
        return scores

    def rates(self, shares: np.ndarray, by_row: np.ndarray) -> np.ndarray:
        hits = shares[:, self.compared].T @ by_row / len(shares)
        return np.moveaxis(hits[:, self.place], 0, 1)

    def residual(self, multiplier: np.ndarray) -> np.ndarray:
        """Counted rates of the decisions minus the head's estimates for the softened ones."""
        score = self.scores(multiplier)
        decided = np.zeros_like(score)
        decided[np.arange(len(score)), score.argmax(1)] = 1
        taken_for = self.rates(softmax(score / self.softness, axis=1), self.ratio)
        return self.trusted * (self.rates(decided, self.known * self.per_row) - taken_for)

    def weights(self, multiplier: np.ndarray) -> np.ndarray:
        weights = np.zeros((self.n_cells, self.cost.shape[1]))
        by_cell = self.by_cell(multiplier) * self.per_row[:, None]
        weights[np.ix_(self.cells, self.compared)] = by_cell
        return weights


def solve(
    cost: np.ndarray,
    posterior: np.ndarray,
    events: Events,
    cell: np.ndarray,
    targets: Sequence[float],
    *,
    n_corrections: int = _N_CORRECTIONS,
) -> list[np.ndarray]:
    """Find the weights of the posteriors that equalise the groups, for each of some targets.

    The predicted class of a row has the smallest ``cost + posterior @ weights``. Of all predictions
    by cost and posterior with the same gap, these have the lowest cost [1]_. Two things differ from
    the paper. The rates of a small group are compared as if they were shrunk towards the rates of
    the other groups. And the counted rates decide: the head's estimates of the rates are corrected
    by the residual

    .. math:: E[\\gamma_k (1_c - p_c)] / \\pi_c

    of the predictions so far. So the counted rates meet the target where the head is wrong.

    Parameters
    ----------
    cost : ndarray of shape (n_samples, n_classes)
    posterior : ndarray of shape (n_samples, n_cells)
        Out-of-fold probabilities of the cells.
    events : Events
        Gives the families and the classes.
    cell : ndarray of shape (n_samples,), int
        Cell of each row.
    targets : sequence of float
        Allowed differences, in descending order.
    n_corrections : int
        Number of updates of the residual; with 0 the estimates of the head are not corrected.

    Returns
    -------
    list of ndarray of shape (n_cells, n_classes)

    References
    ----------
    .. [1] R. Xian, H. Zhao, "A Unified Post-Processing Framework for Group Fairness in
       Classification", arXiv 2405.04025.
    """
    dual = _Dual(cost, posterior, events, cell)
    parts, residual = np.zeros((2, *dual.shape)), np.zeros(dual.shape)
    bounds = [(0, None)] * parts.size
    options = {"maxiter": _STEPS, "gtol": 1e-4, "ftol": 1e-12}
    found = []
    for target in targets:
        for correction in range(n_corrections + 1):
            at = target, residual
            parts = minimize(
                dual, parts.ravel(), at, "L-BFGS-B", jac=True, bounds=bounds, options=options
            ).x.reshape(parts.shape)
            multiplier = dual.centred(parts[0] - parts[1])
            if correction < n_corrections:
                residual = residual + _DAMPING * (dual.residual(multiplier) - residual)
        found.append(dual.weights(multiplier))
    return found


def cross_fit(
    labels: Posteriors,
    head: Posteriors,
    events: Events,
    codes: np.ndarray,
    fold: np.ndarray,
    targets: Sequence[float],
    performance: str,
) -> np.ndarray:
    """Predict each fold by calibration, head and weights of the other folds.

    Parameters
    ----------
    labels, head : Posteriors
        Posteriors of the classes and of the cells.
    events : Events
    codes, fold : ndarray of shape (n_samples,), int
        Class and fold of each row.
    targets : sequence of float
        Allowed differences, in descending order.
    performance : {"accuracy", "balanced_accuracy"}

    Returns
    -------
    ndarray of shape (1 + n_targets, n_samples), int
        Predicted classes; the first row is without a correction.
    """
    n_classes = labels.outside.shape[2]
    predicted = np.empty((1 + len(targets), len(codes)), dtype=np.int64)
    for k in range(int(fold.max()) + 1):
        held, kept = fold == k, fold != k
        values = class_values(np.bincount(codes[kept], minlength=n_classes), performance)
        cost, seen = -labels.outside[k] * values, head.outside[k]
        found = solve(cost[kept], seen[kept], events, events.cell[kept], targets)
        for i, weights in enumerate([np.zeros_like(found[0]), *found]):
            predicted[i, held] = (cost[held] + seen[held] @ weights).argmin(1)
    return predicted
