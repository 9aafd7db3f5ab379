"""The heads of frozen features that are compared, each a function of a draw.

A method gets a :class:`Draw` and returns the classes that it predicts for the evaluation data, or
None if the task lacks the data that the method needs.
"""

from functools import cached_property

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfair import ClusterMarginClassifier, LogitAdjustedClassifier

RIDGE = 0.02
GAMMA = 2.0  # of 1, 2, 4 and 8: 4 gains more on digits and loses 40 points where there is no bias
N_LABELS = (50, 100, 150, 200, 300)


class Draw:
    """A draw of a task, its seed, and the fits from which several methods go on."""

    def __init__(self, task, seed):
        self.task = task
        self.seed = seed

    @cached_property
    def adjusted(self):
        """LogitAdjustedClassifier without labels, which also says what to label."""
        model = LogitAdjustedClassifier(random_state=self.seed)
        return model.fit(self.task.X, self.task.y)

    @cached_property
    def margin(self):
        """ClusterMarginClassifier without labels."""
        model = ClusterMarginClassifier(random_state=self.seed)
        return model.fit(self.task.X, self.task.y)

    def known(self, rows):
        """Group labels of some rows; None, not known, for the others."""
        known = np.full(len(self.task.y), None, dtype=object)
        known[rows] = self.task.attribute[rows]
        return known


def ridge_features(X):
    """Fit the projection of the linear heads: centred, 256 components, one factor.

    Returns a function from raw to projected features, whose mean squared row norm is 256.
    """
    pca = PCA(min(256, len(X) - 1, X.shape[1]), svd_solver="covariance_eigh").fit(X)
    factor = np.sqrt(256 / pca.explained_variance_.sum() * len(X) / (len(X) - 1))
    return lambda X: factor * pca.transform(X)


def ridge_model(n, n_classes, class_weight=None):
    """Logistic regression with mean loss + ridge / 2 |W|^2, W of one column for each class.

    scikit-learn sums the loss. For two classes it has one column, the difference of two opposite
    columns, and the square of that difference is twice the sum of their squares.
    """
    C = (2 if n_classes == 2 else 1) / (RIDGE * n)
    return LogisticRegression(C=C, class_weight=class_weight, max_iter=1000)


def ridge_logistic_regression(draw):
    """The linear head of skfair without any adjustment."""
    task = draw.task
    project = ridge_features(task.X)
    model = ridge_model(len(task.y), len(np.unique(task.y)), "balanced")
    return model.fit(project(task.X), task.y).predict(project(task.X_eval))


def logistic_regression(draw):
    """scikit-learn's, of standardised features, with its C for a thousand features and more."""
    task = draw.task
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return model.fit(task.X, task.y).predict(task.X_eval)


def weighted_errors(draw):
    """The step of AFR (Qiu et al. 2023): the less likely its class, the larger a sample's weight.

    Weights are exp(-gamma p), classes balanced, with p the out-of-fold probability of the sample's
    class by the ridge logistic regression, so that no data is set aside. AFR chooses gamma on
    validation data with group labels. Here there is no such data, and gamma is fixed.
    """
    task = draw.task
    n_classes = len(np.unique(task.y))
    project = ridge_features(task.X)
    Z = project(task.X)
    p = np.empty(len(Z))
    for train, rest in StratifiedKFold(2, shuffle=True, random_state=draw.seed).split(Z, task.y):
        model = ridge_model(len(train), n_classes, "balanced").fit(Z[train], task.y[train])
        p[rest] = model.predict_proba(Z[rest])[np.arange(len(rest)), task.y[rest]]
    weight = np.exp(-GAMMA * p)
    weight /= np.bincount(task.y, weight)[task.y]
    model = ridge_model(len(Z), n_classes).fit(Z, task.y, weight * len(Z) / weight.sum())
    return model.predict(project(task.X_eval))


def balanced_groups(draw):
    """Ridge logistic regression in which each group of class and attribute has the same weight."""
    task = draw.task
    if task.attribute is None:
        return None
    project = ridge_features(task.X)
    _, group = np.unique(np.stack([task.y, task.attribute]), axis=1, return_inverse=True)
    weight = 1 / np.bincount(group)[group]
    model = ridge_model(len(task.y), len(np.unique(task.y)))
    model.fit(project(task.X), task.y, weight * len(weight) / weight.sum())
    return model.predict(project(task.X_eval))


def last_layer_refit(draw):
    """Logistic regression on the small group-balanced labelled set alone."""
    task = draw.task
    if task.X_balanced is None:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return model.fit(task.X_balanced, task.y_balanced).predict(task.X_eval)


def margin(**parameters):
    """ClusterMarginClassifier without labels."""

    def fit(draw):
        if not parameters:
            return draw.margin.predict(draw.task.X_eval)
        model = ClusterMarginClassifier(random_state=draw.seed, **parameters)
        return model.fit(draw.task.X, draw.task.y).predict(draw.task.X_eval)

    return fit


def margin_with_labels(n):
    """ClusterMarginClassifier with the first `n` labels that it suggests."""

    def fit(draw):
        if draw.task.attribute is None:
            return None
        known = draw.known(draw.margin.suggest_labels(n))
        model = ClusterMarginClassifier(random_state=draw.seed)
        model.fit(draw.task.X, draw.task.y, sensitive_features=known)
        return model.predict(draw.task.X_eval)

    return fit


def adjusted(draw):
    """LogitAdjustedClassifier without labels."""
    return draw.adjusted.predict(draw.task.X_eval)


def adjusted_with_labels(n, chosen="suggested"):
    """LogitAdjustedClassifier with `n` labels (None: all), suggested at once or drawn at random.

    With "right class", suggested samples whose class is wrong get no label.
    """

    def fit(draw):
        task = draw.task
        if task.attribute is None:
            return None
        if n is None:
            rows = np.arange(len(task.y))
        elif chosen in ("suggested", "right class"):
            rows = draw.adjusted.suggest_labels(n)
            if chosen == "right class":
                rows = rows[~task.wrong[rows]]
        else:
            rows = np.random.default_rng([draw.seed, 3]).permutation(len(task.y))[:n]
        model = LogitAdjustedClassifier(random_state=draw.seed)
        model.fit(task.X, task.y, sensitive_features=draw.known(rows))
        return model.predict(task.X_eval)

    return fit


BASELINE = "ridge logistic regression"
REFIT = "refit on a balanced set"
RIGHT_CLASS = "LogitAdjustedClassifier, 50 labels, none where the class is wrong"
# The module of skfair that a method runs: records are kept by its code.
MARGIN, ADJUSTED = "skfair.margin._cluster_margin", "skfair.adjustment._logit_adjusted"
METHODS = {
    BASELINE: (ridge_logistic_regression, None),
    "logistic regression": (logistic_regression, None),
    "errors weigh more (as in AFR)": (weighted_errors, None),
    "ClusterMarginClassifier, ``scale=8`` as published": (margin(scale=8.0), MARGIN),
    "ClusterMarginClassifier": (margin(), MARGIN),
    "ClusterMarginClassifier, 50 labels": (margin_with_labels(50), MARGIN),
    "LogitAdjustedClassifier": (adjusted, ADJUSTED),
    **{
        f"LogitAdjustedClassifier, {n} labels": (adjusted_with_labels(n), ADJUSTED)
        for n in N_LABELS
    },
    "LogitAdjustedClassifier, 50 random labels": (adjusted_with_labels(50, "random"), ADJUSTED),
    "LogitAdjustedClassifier, all labels": (adjusted_with_labels(None), ADJUSTED),
    RIGHT_CLASS: (adjusted_with_labels(50, "right class"), ADJUSTED),
    "groups balanced, all labels": (balanced_groups, None),
    REFIT: (last_layer_refit, None),
}
