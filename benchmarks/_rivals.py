"""Debiasers beside other ways to equal rates: many groups, several classes, and other packages.

Adult with all of its rows: a seed splits them 40 / 20 / 40 into rows to train a network on, rows to
debias it on and rows to judge it on.
"""

import inspect
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from _people import outputs, people, perceptron, trained
from _remember import Remembered, library_code, short_digest
from fairlearn.postprocessing import ThresholdOptimizer
from scipy import sparse
from scipy.optimize import linprog
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skfair import intraprocessing
from skfair.utils import FairnessWarning

EPSILON = 0.05
BY_HAND = 0.03  # what rivals without a margin of their own are asked for, to stay below EPSILON
N_SEEDS = 5
LEAST = 50  # test rows of a group that is left in the gap of the larger groups
CONSTRAINTS = {
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
    "equalized_odds": "equalized odds",
}
BLIND = ("DistillationDebiaser", "BiasGradientDebiaser", "LinearPostDebiaser")


@dataclass(frozen=True)
class Split:
    """A trained network, rows to debias it on and rows to judge it on; groups by name."""

    seed: int
    network: torch.nn.Module
    X_debias: np.ndarray
    y_debias: np.ndarray
    a_debias: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    a_test: np.ndarray


def split(X, y, group, seed):
    order = np.random.default_rng([seed, 41]).permutation(len(y))
    train, debias, test = np.split(order, [round(0.4 * len(y)), round(0.6 * len(y))])
    n_classes = len(np.unique(y))

    def build():
        return perceptron(X.shape[1], 1 if n_classes == 2 else n_classes)

    network = trained(build, X[train], y[train], seed, lr=4e-3)
    rows = (part[r] for r in (debias, test) for part in (X, y, group))
    return Split(seed, network, *rows)


# -- tasks: from the people to X, y and groups ---------------------------------------------------


def race(adult):
    return adult.features(), adult.y, adult.race


def race_and_sex(adult):
    return adult.features(), adult.y, np.char.add(np.char.add(adult.race, ", "), adult.sex)


def sex(adult):
    return adult.features(), adult.y, adult.sex


def sex_unseen(adult):
    return adult.features(without=["sex"]), adult.y, adult.sex


def income_and_hours(adult):
    """Three classes: up to 50,000 dollars, more in up to 45 hours a week, more in longer ones."""
    return np.where(adult.y == 0, 0, np.where(adult.frame["hours-per-week"] <= 45, 1, 2))


def hours_by_race(adult):
    group = np.where(np.isin(adult.race, ["White", "Black"]), adult.race, "other")
    return adult.features(without=["hours-per-week"]), income_and_hours(adult), group


def hours_by_age(adult):
    band = np.digitize(adult.frame["age"], [31, 46])
    group = np.array(["to 30", "31 to 45", "from 46"])[band]
    return adult.features(without=["hours-per-week", "age"]), income_and_hours(adult), group


# -- measures ----------------------------------------------------------------------------------


def balanced_accuracy(predicted, y):
    return float(np.mean([(predicted[y == c] == c).mean() for c in np.unique(y)]))


def gap(predicted, y, group, constraint, least=1):
    """The largest difference of a rate between groups, of those with `least` rows at least.

    Two classes have the rate of the second. Of more, all rates are compared; for equal opportunity
    those of the last class, which is the one that is wanted here.
    """
    last = int(y.max())
    classes = [last] if last == 1 or constraint == "equal_opportunity" else range(last + 1)
    conditions = {"demographic_parity": [None], "equal_opportunity": [last]}
    gaps = []
    for label in conditions.get(constraint, range(last + 1)):
        inside = np.ones(len(y), dtype=bool) if label is None else y == label
        parts = [predicted[inside & (group == g)] for g in np.unique(group)]
        parts = [part for part in parts if len(part) >= least]
        gaps += [np.ptp([(part == c).mean() for part in parts]) for c in classes]
    return float(max(gaps))


# -- methods: from a split and a constraint to a function of X and groups that predicts ----------


def scores(network, X):
    return outputs(network, X)[:, 0].astype(float)


def original(task, constraint):
    def predict(X, group):
        out = outputs(task.network, X)
        return out.argmax(1) if out.shape[1] > 1 else (out[:, 0] > 0).astype(int)

    return predict


def balanced(task, constraint):
    """The original network with the classes' shares divided out, best for balanced accuracy."""
    share = np.bincount(task.y_debias) / len(task.y_debias)

    def predict(X, group):
        out = outputs(task.network, X)
        out = out if out.shape[1] > 1 else np.column_stack([np.zeros(len(out)), out])
        return (out - np.log(share)).argmax(1)

    return predict


@dataclass(frozen=True)
class Debiaser:
    """One of skfair's, by the name of its class."""

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


def range_argmax(values, low, high):
    """Positions of the maxima of ``values[low:high]``, for arrays of bounds."""
    table = [np.arange(len(values))]  # of 1, 2, 4, ... values from each position on
    while 2 ** len(table) <= len(values):
        half = 2 ** (len(table) - 1)
        left, right = table[-1][:-half], table[-1][half:]
        table.append(np.where(values[left] >= values[right], left, right))
    level = np.floor(np.log2(high - low)).astype(int)
    found = np.empty(len(low), dtype=int)
    for k in np.unique(level):
        at = level == k
        left, right = table[k][low[at]], table[k][high[at] - 2**k]
        found[at] = np.where(values[left] >= values[right], left, right)
    return found


class Scorer(ClassifierMixin, BaseEstimator):
    """A network as fairlearn takes it."""

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

    The head is a logistic regression of groups with labels, of the features and the network's
    output, fitted on the debiasing rows that the program is then solved on.
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
        """Arrays of shape (n, groups): what is compared within each is to be equal."""
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
            compared = compared[-1:]  # of two classes the other rate is the rest
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
    """OxonFair with the group inferred by a logistic regression on the debiasing rows."""

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

        # It fails where its third group, of those whose group is uncertain, would be empty.
        uncertain = head.predict_proba(task.X_debias).max(1).min() < 2 / 3
        data = {"data": task.X_debias, "target": task.y_debias, "groups": codes}
        predictor = oxonfair.FairPredictor(
            probabilities, data, inferred_groups=head, threshold=2 / 3 if uncertain else 0
        )
        name = {"equalized_odds": "equalized_odds_max"}.get(constraint, constraint)
        predictor.fit(measures.balanced_accuracy, getattr(measures, name), self.value)
        return lambda X, group: predictor.predict({"data": X}).astype(int)


# -- the runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A table: tasks by title, constraints, and methods by label."""

    tasks: dict
    constraints: tuple
    methods: dict
    goals: Callable


def debiasers(names=BLIND, **parameters):
    there = [name for name in names if name in intraprocessing.__all__]
    return {f"``{name}``": Debiaser(name, tuple(parameters.items())) for name in there}


def comparisons():
    """By the option that runs it."""
    head = {"original network": original, "the same, best for balanced accuracy": balanced}
    groups = {
        **head,
        **debiasers(),
        "group thresholds, group at prediction": group_thresholds,
        f"fairlearn, tolerance {EPSILON:g}, group at prediction": Fairlearn(EPSILON),
    }
    classes = {**head}
    for epsilon in (EPSILON, 0.1, 0.2):
        for label, method in debiasers(
            ("LinearPostDebiaser",), epsilon=epsilon, pos_label=2
        ).items():
            classes[f"{label}, epsilon {epsilon:g}"] = method
    classes[f"LinearPost as published, epsilon {EPSILON:g}"] = PublishedLinearPost(EPSILON)
    peers = {
        **head,
        **debiasers(),
        f"LinearPost as published, epsilon {BY_HAND:g}": PublishedLinearPost(BY_HAND),
    }
    if find_spec("oxonfair"):
        peers[f"OxonFair, inferred group, value {BY_HAND:g}"] = OxonFair(BY_HAND)
    peers[f"fairlearn, tolerance {BY_HAND:g}, group at prediction"] = Fairlearn(BY_HAND)
    two = ("demographic_parity", "equal_opportunity")
    return {
        "groups": Comparison(
            {"Adult, 5 races": race, "Adult, races by sex, 10 groups": race_and_sex},
            two,
            groups,
            goals_of_groups,
        ),
        "classes": Comparison(
            {
                "Income and hours, 3 races, a feature": hours_by_race,
                "Income and hours, 3 ages, no feature": hours_by_age,
            },
            tuple(CONSTRAINTS),
            classes,
            goals_of_classes,
        ),
        "peers": Comparison(
            {"Adult, sex, a feature": sex, "Adult, sex, no feature": sex_unseen},
            tuple(CONSTRAINTS),
            peers,
            goals_of_peers,
        ),
    }


def measure(task, constraint, method):
    """One record: measures on the test rows, or why there are none."""
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", FairnessWarning)
        try:
            predict = method(task, constraint)
        except ValueError as error:
            return {"refused": str(error)}
    seconds = time.process_time() - start
    predicted = np.asarray(predict(task.X_test, task.a_test))
    y, a = task.y_test, task.a_test
    return {
        "balanced_accuracy": balanced_accuracy(predicted, y),
        "accuracy": float((predicted == y).mean()),
        "gap": gap(predicted, y, a, constraint),
        "gap_of_large": gap(predicted, y, a, constraint, LEAST),
        "seconds": seconds,
        "warnings": sorted({w.category.__name__ for w in caught}),
    }


def code_of(method):
    if isinstance(method, Debiaser):
        module = getattr(intraprocessing, method.name).__module__
        return repr(method) + library_code(module)
    kind = method if inspect.isfunction(method) else type(method)
    return repr(method) * (kind is not method) + inspect.getsource(kind)


HEADER = [
    "method",
    "balanced accuracy",
    "gap",
    f"gap, groups of {LEAST} and more",
    "accuracy",
    "CPU s",
]


def cells(label, records):
    done = [r for r in records if "refused" not in r]
    if not done:
        return [label, "refuses", *["-"] * (len(HEADER) - 2)]
    row = [label if len(done) == len(records) else f"{label} ({len(done)} of {len(records)})"]
    for key in ("balanced_accuracy", "gap", "gap_of_large"):
        values = [r[key] for r in done]
        spread = np.std(values, ddof=1) if len(done) > 1 else 0
        row.append(f"{np.mean(values):.3f} ± {spread:.3f}")
    row.append(f"{np.mean([r['accuracy'] for r in done]):.3f}")
    return [*row, f"{np.median([r['seconds'] for r in done]):.2g}"]


# -- goals: from the mean of each method to what there is to say below a table --------------------


def mean(records):
    """Balanced accuracy and gap of the draws that were not refused, or None."""
    done = [(r["balanced_accuracy"], r["gap_of_large"]) for r in records if "refused" not in r]
    return np.mean(done, axis=0) if done else None


def ours(means):
    return {label: found for label, found in means.items() if label.startswith("``")}


def goals_of_groups(means):
    """At most .015 below group thresholds, with a gap at most .02 above theirs."""
    if "group thresholds, group at prediction" not in means:
        return ""
    accuracy, gap = means["group thresholds, group at prediction"]
    texts = []
    for label, (its_accuracy, its_gap) in ours(means).items():
        met = its_accuracy >= accuracy - 0.015 and its_gap <= gap + 0.02
        told = f"{its_accuracy - accuracy:+.3f} at a gap {its_gap - gap:+.3f}"
        texts.append(f"{label} {told if met else f'**{told}**'}")
    return (
        "Against group thresholds, in balanced accuracy and in the gap of the larger groups; the "
        f"goal was -.015 and +.02: {'; '.join(texts)}.\n"
    )


def goals_of_classes(means):
    """The gap halved at .02 of balanced accuracy."""
    if "the same, best for balanced accuracy" not in means:
        return ""
    accuracy, gap = means["the same, best for balanced accuracy"]
    texts = []
    for label, (its_accuracy, its_gap) in ours(means).items():
        met = its_accuracy >= accuracy - 0.02 and its_gap <= gap / 2
        told = f"{its_gap / gap:.2f} of the gap at {its_accuracy - accuracy:+.3f}"
        texts.append(f"{label} {told if met else f'**{told}**'}")
    return (
        "Against the network that is best for balanced accuracy; the goal was half of its gap at "
        f"-.02: {'; '.join(texts)}.\n"
    )


def goals_of_peers(means):
    """At most .004 below the best that needs no group, of those with a gap up to EPSILON."""
    blind = {m: found for m, found in means.items() if "at prediction" not in m}
    meet = {m: found for m, found in blind.items() if found[1] <= EPSILON}
    if not meet:
        return ""
    best = max(meet, key=lambda m: meet[m][0])
    texts = []
    for label, (its_accuracy, its_gap) in ours(means).items():
        met = its_accuracy >= meet[best][0] - 0.004 and its_gap <= EPSILON
        told = f"{its_accuracy - meet[best][0]:+.3f} at a gap of {its_gap:.3f}"
        texts.append(f"{label} {told if met else f'**{told}**'}")
    return (
        f"The best without the group and with a gap up to {EPSILON:g} is {best}; the goal was at "
        f"most .004 behind it: {'; '.join(texts)}.\n"
    )


def compare(arguments, kind, first_seed, write):
    """Run one of the comparisons; `write` takes the arguments, a kind and tables."""
    comparison = comparisons()[kind]
    methods = {
        label: method
        for label, method in comparison.methods.items()
        if not arguments.methods or any(word in label for word in arguments.methods)
    }
    path = None if arguments.cache is None else arguments.cache / f"{kind}.jsonl"
    remembered = Remembered(path)
    seeds = range(first_seed, first_seed + (arguments.seeds or N_SEEDS))
    constraints = arguments.constraints or comparison.constraints
    adult = people(arguments.data)
    torch.set_num_threads(1)
    parts = []
    for title, build in comparison.tasks.items():
        X, y, group = build(adult)
        found = {(c, m): [] for c, m in itertools.product(constraints, methods)}
        for seed in seeds:
            with threadpool_limits(1):
                task = split(X, y, group, seed)
                for (constraint, label), records in found.items():
                    method = methods[label]
                    key = (title, label, constraint, seed, short_digest(code_of(method)))
                    record = remembered.measured(
                        key,
                        lambda task=task, constraint=constraint, method=method: measure(
                            task, constraint, method
                        ),
                    )
                    records.append(record)
                    print(f"  {title}, {constraint}, {label}, {seed}: {record}", file=sys.stderr)
        for constraint in constraints:
            rows = [cells(label, found[constraint, label]) for label in methods]
            words = f"{title}: {CONSTRAINTS[constraint]}, {len(seeds)} draws"
            means = {label: mean(found[constraint, label]) for label in methods}
            below = comparison.goals({m: s for m, s in means.items() if s is not None})
            parts.append((words, HEADER, rows, below))
    write(arguments, f"trust_{kind}" if first_seed == 0 else f"development_trust_{kind}", parts)
