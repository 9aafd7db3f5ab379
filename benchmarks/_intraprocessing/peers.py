"""Other ways to equal rates between groups: group thresholds, and other packages.

A method takes a split and a constraint. It returns a function of X and groups that predicts.
"""

import inspect
from dataclasses import dataclass

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from scipy import sparse
from scipy.optimize import linprog
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._intraprocessing.measures import EPSILON, range_argmax
from benchmarks._intraprocessing.people import outputs
from benchmarks._remember import library_code
from skfair import intraprocessing


def scores(network, X):
    return outputs(network, X)[:, 0].astype(float)


def original(task, constraint):
    def predict(X, group):
        out = outputs(task.network, X)
        return out.argmax(1) if out.shape[1] > 1 else (out[:, 0] > 0).astype(int)

    return predict


def balanced(task, constraint):
    """The original network with outputs divided by the class shares, best for balanced accuracy."""
    share = np.bincount(task.y_debias) / len(task.y_debias)

    def predict(X, group):
        out = outputs(task.network, X)
        out = out if out.shape[1] > 1 else np.column_stack([np.zeros(len(out)), out])
        return (out - np.log(share)).argmax(1)

    return predict


@dataclass(frozen=True)
class Debiaser:
    """A debiaser of skfair, by the name of its class."""

    name: str
    parameters: tuple = ()

    def __call__(self, task, constraint):
        parameters = {"epsilon": EPSILON, **dict(self.parameters)}
        estimator = getattr(intraprocessing, self.name)(
            task.network,
            constraint=constraint,
            output="logits",
            device="cpu",
            random_state=task.seed,
            **parameters,
        )
        estimator.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
        return lambda X, group: estimator.predict(X)


def group_thresholds(task, constraint, levels=1001):
    """The best thresholds by group with all rates within EPSILON on the debiasing rows."""
    if constraint == "equalized_odds":
        raise ValueError("one threshold a group does not equal two rates")
    s, y, group = scores(task.network, task.X_debias), task.y_debias, task.a_debias
    n_pos, n_neg = (y == 1).sum(), (y == 0).sum()
    starts = np.linspace(0, 1, levels)
    found, total = {}, np.zeros(levels)
    for g in np.unique(group):
        order = np.argsort(-s[group == g], kind="stable")
        ordered, label = s[group == g][order], y[group == g][order]
        tp, fp = (np.append(0, np.cumsum(label == c)) for c in (1, 0))
        rate = tp / tp[-1] if constraint == "equal_opportunity" else (tp + fp) / len(label)
        low = np.searchsorted(rate, starts - 1e-12, side="left")
        high = np.searchsorted(rate, starts + EPSILON + 1e-12, side="right")
        gain = tp / n_pos - fp / n_neg
        there = high > low
        best = np.zeros(levels, dtype=int)
        best[there] = range_argmax(gain, low[there], high[there])
        total += np.where(there, gain[best], -np.inf)
        edges = np.concatenate([[np.inf], ordered, [-np.inf]])
        found[g] = 0.5 * (edges[best] + edges[best + 1])
        found[g][best == 0], found[g][best == len(ordered)] = np.inf, -np.inf
    if np.isneginf(total).all():
        raise ValueError("no thresholds make the rates so equal")
    at = np.argmax(total)

    def predict(X, group):
        limits = np.array([found[g][at] for g in group])
        return (scores(task.network, X) > limits).astype(int)

    return predict


class Scorer(ClassifierMixin, BaseEstimator):
    """A network as an estimator for fairlearn."""

    def __init__(self, network):
        self.network = network
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        return scores(self.network, np.asarray(X, dtype=np.float32))

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


@dataclass(frozen=True)
class Fairlearn:
    """fairlearn's ThresholdOptimizer: randomised thresholds by group."""

    tol: float

    def __call__(self, task, constraint):
        name = {"equal_opportunity": "true_positive_rate_parity"}.get(constraint, constraint)
        optimizer = ThresholdOptimizer(
            estimator=Scorer(task.network),
            constraints=name,
            objective="balanced_accuracy_score",
            prefit=True,
            predict_method="decision_function",
            tol=self.tol,
        )
        optimizer.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)

        def predict(X, group):
            return optimizer.predict(X, sensitive_features=group, random_state=task.seed)

        return predict


@dataclass(frozen=True)
class PublishedLinearPost:
    """Xian and Zhao (2024), algorithm 1: a linear program, and its duals as the correction.

    A logistic regression predicts group and label together from the features and the network's
    output. It is fitted on the debiasing rows, and the program is solved on the same rows.
    """

    epsilon: float

    def __call__(self, task, constraint):
        y, groups = task.y_debias, np.unique(task.a_debias)
        n_classes = int(y.max()) + 1
        cell = np.searchsorted(groups, task.a_debias) * n_classes + y
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        head.fit(self.seen(task, task.X_debias), cell)
        present = head[-1].classes_

        def events(X):
            """P(A, Y | x) of shape (n, groups, classes), and the cost of each class."""
            p = np.zeros((len(X), len(groups) * n_classes))
            p[:, present] = head.predict_proba(self.seen(task, X))
            p = p.reshape(len(X), len(groups), n_classes)
            return p, -p.sum(1) / (np.bincount(y) / len(y))

        p, cost = events(task.X_debias)
        correction = self.solve(cost, self.families(p, constraint), constraint)

        def predict(X, group):
            p, cost = events(X)
            for family, w in zip(self.families(p, constraint), correction, strict=True):
                cost = cost + family @ w
            return cost.argmin(1)

        return predict

    @staticmethod
    def seen(task, X):
        return np.hstack([X, outputs(task.network, X)])

    @staticmethod
    def families(p, constraint):
        """Arrays of shape (n, groups); the rates within each array have to be equal."""
        if constraint == "demographic_parity":
            return [p.sum(2)]
        if constraint == "equal_opportunity":
            return [p[:, :, -1]]
        return [p[:, :, c] for c in range(p.shape[2])]

    def solve(self, cost, families, constraint):
        """The weights of each family, of shape (groups, classes), from the program's duals."""
        n, n_classes = cost.shape
        compared = list(range(n_classes))
        if n_classes == 2 or constraint == "equal_opportunity":
            compared = compared[-1:]  # with two classes, one rate determines the other
        pairs = [(f, k) for f in range(len(families)) for k in compared]
        rows, centre = [], []
        for at, (f, k) in enumerate(pairs):
            share = families[f] / families[f].sum(0)
            for g in range(share.shape[1]):
                line = sparse.lil_matrix((n, n_classes))
                line[:, k] = share[:, [g]]
                rows.append(line.reshape(1, -1))
                centre.append(np.eye(len(pairs))[at])
        above = sparse.hstack([sparse.vstack(rows), -sparse.csr_matrix(centre)])
        one = sparse.kron(sparse.eye(n), np.ones((1, n_classes)))
        found = linprog(
            np.append(cost.ravel() / n, np.zeros(len(pairs))),
            A_ub=sparse.vstack([above, -above]).tocsr(),
            b_ub=np.full(2 * len(rows), self.epsilon / 2),
            A_eq=sparse.hstack([one, sparse.csr_matrix((n, len(pairs)))]).tocsr(),
            b_eq=np.ones(n),
            bounds=(0, 1),
            method="highs",
        )
        upper, lower = np.split(-found.ineqlin.marginals, 2)
        weights = [np.zeros((family.shape[1], n_classes)) for family in families]
        duals = iter(upper - lower)
        for f, k in pairs:
            for g in range(families[f].shape[1]):
                weights[f][g, k] = next(duals) / families[f][:, g].mean()
        return weights


@dataclass(frozen=True)
class OxonFair:
    """OxonFair; a logistic regression, fitted on the debiasing rows, infers the groups."""

    value: float

    def __call__(self, task, constraint):
        import oxonfair

        measures = oxonfair.group_metrics
        codes = (task.a_debias == np.unique(task.a_debias)[1]).astype(int)
        head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        head.fit(task.X_debias, codes)

        def probabilities(X):
            p = 1 / (1 + np.exp(-scores(task.network, X)))
            return np.column_stack([1 - p, p])

        # OxonFair fails if its third group, the rows whose group is uncertain, is empty.
        uncertain = head.predict_proba(task.X_debias).max(1).min() < 2 / 3
        data = {"data": task.X_debias, "target": task.y_debias, "groups": codes}
        predictor = oxonfair.FairPredictor(
            probabilities, data, inferred_groups=head, threshold=2 / 3 if uncertain else 0
        )
        name = {"equalized_odds": "equalized_odds_max"}.get(constraint, constraint)
        predictor.fit(measures.balanced_accuracy, getattr(measures, name), self.value)
        return lambda X, group: predictor.predict({"data": X}).astype(int)


def code_of(method):
    if isinstance(method, Debiaser):
        module = getattr(intraprocessing, method.name).__module__
        return repr(method) + library_code(module)
    kind = method if inspect.isfunction(method) else type(method)
    return repr(method) * (kind is not method) + inspect.getsource(kind)
