"""The heads of frozen features that are compared, each a function of a draw.

A method gets a :class:`Draw` and returns the classes that it predicts for the evaluation data. It
raises `Missing` if the task lacks data that the method needs.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import _references
from benchmarks._references import ridge_model, weighted_ridge
from skfair import ClusterMarginClassifier, LogitAdjustedClassifier

GAMMA = 2.0  # of 1, 2, 4 and 8: 4 gains more on digits and loses 40 points where there is no bias
N_LABELS = (50, 100, 150, 200, 300)


class Missing(Exception):
    """A task lacks data that a method needs; the message says which."""


class Draw:
    """A draw of a task, its seed, and the fits from which several methods go on."""

    def __init__(self, task, seed):
        self.task = task
        self.seed = seed

    @property
    def attribute(self):
        """The group labels of the training data."""
        if self.task.attribute is None:
            raise Missing("no group labels")
        return self.task.attribute

    @property
    def balanced(self):
        """Features, classes and cells of the small balanced set."""
        if self.task.X_balanced is None:
            raise Missing("no balanced set")
        return self.task.X_balanced, self.task.y_balanced, self.task.cell_balanced

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
        known[rows] = self.attribute[rows]
        return known


def ridge_features(X):
    """Fit the projection of the linear heads: centred, 256 components, one factor.

    Returns a function from raw to projected features, whose mean squared row norm is 256.
    """
    pca = PCA(min(256, len(X) - 1, X.shape[1]), svd_solver="covariance_eigh").fit(X)
    factor = np.sqrt(256 / pca.explained_variance_.sum() * len(X) / (len(X) - 1))
    return lambda X: factor * pca.transform(X)


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
    return weighted_ridge(Z, task.y, weight)(project(task.X_eval))


def balanced_groups(draw):
    """Ridge logistic regression in which each group of class and attribute has the same weight."""
    task = draw.task
    _, group = np.unique(np.stack([task.y, draw.attribute]), axis=1, return_inverse=True)
    project = ridge_features(task.X)
    predict = weighted_ridge(project(task.X), task.y, 1 / np.bincount(group)[group])
    return predict(project(task.X_eval))


def last_layer_refit(draw):
    """Logistic regression on the small group-balanced labelled set alone.

    It is the last-layer refit of DFR (Kirichenko et al. 2023, section 4) with a fixed ridge. DFR
    has an L1 penalty that it chooses on half of the set, and averages fits of balanced subsets.
    """
    X, y, _ = draw.balanced
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return model.fit(X, y).predict(draw.task.X_eval)


def of_references(fit):
    """A head of `_references.py` on the features of the linear heads.

    `fit` gets the function that makes these features, those of training, and the draw.
    """

    def predict(draw):
        project = ridge_features(draw.task.X)
        return fit(project, project(draw.task.X), draw)(project(draw.task.X_eval))

    return predict


def chosen(method):
    """A head that chooses its constants on the balanced set."""

    def fit(project, Z, draw):
        X, y, cell = draw.balanced
        return method(Z, draw.task.y, project(X), y, cell, draw.seed)

    return of_references(fit)


def groups_of(draw):
    """A number for each combination of class and attribute."""
    return draw.task.y * (draw.attribute.max() + 1) + draw.attribute


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
        if n is None:
            rows = np.arange(len(task.y))
        elif chosen in ("suggested", "right class"):
            rows = draw.adjusted.suggest_labels(n)
            if chosen == "right class":
                rows = rows[~task.wrong[rows]]
        else:
            rows = np.random.default_rng([draw.seed, 3]).permutation(len(task.y))[:n]
        known = draw.known(rows)
        model = LogitAdjustedClassifier(random_state=draw.seed)
        model.fit(task.X, task.y, sensitive_features=known)
        return model.predict(task.X_eval)

    return fit


BASELINE = "ridge logistic regression"
REFIT = "refit on a balanced set"
RIGHT_CLASS = "LogitAdjustedClassifier, 50 labels, none where the class is wrong"
# What a method needs beside features and classes, in words.
NOTHING, BALANCED, ALL = "nothing", "a balanced set", "all group labels"
# The module that a method runs: records are kept by its code.
MARGIN, ADJUSTED = "skfair.margin._cluster_margin", "skfair.adjustment._logit_adjusted"
HERE, REFERENCES = "benchmarks._heads", "benchmarks._references"


class Method(NamedTuple):
    predict: Callable
    module: str
    needs: str


METHODS = {
    BASELINE: Method(ridge_logistic_regression, REFERENCES, NOTHING),
    "logistic regression": Method(logistic_regression, HERE, NOTHING),
    "errors weigh more (as in AFR)": Method(weighted_errors, REFERENCES, NOTHING),
    "XRM": Method(
        of_references(lambda _, Z, draw: _references.xrm(Z, draw.task.y, draw.seed)),
        REFERENCES, NOTHING,
    ),
    "ClusterMarginClassifier, ``scale=8`` as published": Method(
        margin(scale=8.0), MARGIN, NOTHING
    ),
    "ClusterMarginClassifier": Method(margin(), MARGIN, NOTHING),
    "ClusterMarginClassifier, 50 labels": Method(
        margin_with_labels(50), MARGIN, "50 group labels"
    ),
    "LogitAdjustedClassifier": Method(adjusted, ADJUSTED, NOTHING),
    **{
        f"LogitAdjustedClassifier, {n} labels": Method(
            adjusted_with_labels(n), ADJUSTED, f"{n} group labels"
        )
        for n in N_LABELS
    },
    "LogitAdjustedClassifier, 50 random labels": Method(
        adjusted_with_labels(50, "random"), ADJUSTED, "50 group labels"
    ),
    "LogitAdjustedClassifier, all labels": Method(adjusted_with_labels(None), ADJUSTED, ALL),
    RIGHT_CLASS: Method(adjusted_with_labels(50, "right class"), ADJUSTED, "50 group labels"),
    "groups balanced, all labels": Method(balanced_groups, REFERENCES, ALL),
    "GroupDRO, all labels": Method(
        of_references(
            lambda _, Z, draw: _references.group_dro(Z, draw.task.y, groups_of(draw), draw.seed)
        ),
        REFERENCES, ALL,
    ),
    "logit adjustment, all labels": Method(
        of_references(
            lambda _, Z, draw: _references.logit_adjustment(
                Z, draw.task.y, draw.attribute, draw.seed
            )
        ),
        REFERENCES, ALL,
    ),
    "JTT, chosen on a balanced set": Method(chosen(_references.jtt), REFERENCES, BALANCED),
    "AFR, chosen on a balanced set": Method(chosen(_references.afr), REFERENCES, BALANCED),
    REFIT: Method(last_layer_refit, HERE, BALANCED),
}  # fmt: skip
# Published heads that are written anew.
REFERENCE_HEADS = tuple(
    name
    for name, method in METHODS.items()
    if method.module == REFERENCES and name not in (BASELINE, "groups balanced, all labels")
)
