"""The choice of a search under a fairness constraint, and whether it holds on new rows.

Run: python -m benchmarks model_selection --data PATH [--cache FOLDER] [--write docs/results]

The tasks are the tabular ones of intra-processing. A search has five folds of the 20 % with known
groups, and is judged on the 20 % for testing. All ways to choose get the candidates of one search.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import sklearn
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._tables import Table, publish, spelled
from benchmarks._tabular import TabularTasks
from skfair import DistillationDebiaser
from skfair.metrics import make_fairness_scorer
from skfair.model_selection import GroupStratifiedKFold, constrained_refit
from skfair.utils import FairnessWarning

TASKS = {"adult": "Adult, sex", "compas": "COMPAS, race", "bank": "Bank, age 25"}
MAX_DISPARITY = 0.05
SCORING = {
    "performance": make_fairness_scorer(balanced_accuracy_score, "overall"),
    "disparity": make_fairness_scorer("demographic_parity"),
}


def best_performance(results):
    return int(np.argmax(results["mean_test_performance"]))


def constrained(**kwargs):
    return constrained_refit(performance="performance", disparity="disparity", **kwargs)


CHOICES = {
    "best performance (what a search does)": best_performance,
    "``constrained_refit``": constrained(max_disparity=MAX_DISPARITY),
    "``constrained_refit``, ``standard_errors=1``": constrained(
        max_disparity=MAX_DISPARITY, standard_errors=1
    ),
    "least disparity": constrained(max_disparity=0.0),
}


def threshold_optimizer(task):
    """fairlearn's, which needs the groups to predict; the grid is the distance from parity."""
    optimizer = ThresholdOptimizer(
        estimator=LogisticRegression(max_iter=300),
        objective="balanced_accuracy_score",
        predict_method="predict_proba",
    )
    optimizer.set_fit_request(sensitive_features=True)
    optimizer.set_predict_request(sensitive_features=True, random_state=True)
    model = make_pipeline(StandardScaler(), optimizer)
    return model, {"thresholdoptimizer__tol": [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.25]}


def distillation(task):
    """skfair's debiaser of the task's network; the grid is epsilon."""
    debiaser = DistillationDebiaser(task.network, output="logits", random_state=0)
    return debiaser, {"epsilon": [0.01, 0.03, 0.05, 0.07, 0.1, 0.2]}


ESTIMATORS = {"ThresholdOptimizer": threshold_optimizer, "DistillationDebiaser": distillation}


def choose(task, make):
    """Search once, choose in each way, and judge the choices on the test rows."""
    # fairlearn fails on float32 under pandas 3.
    X, X_test = task.X_debias.astype(np.float64), task.X_test.astype(np.float64)
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        model, grid = make(task)
        search = GridSearchCV(
            model, grid, scoring=SCORING, refit=False,
            cv=GroupStratifiedKFold(5, shuffle=True, random_state=task.seed),
        )  # fmt: skip
        search.fit(X, task.y_debias, sensitive_features=task.a_debias)
        results, fitted, found = search.cv_results_, {}, {}
        for name, choice in CHOICES.items():
            i = choice(results)
            if i not in fitted:
                fitted[i] = clone(model).set_params(**results["params"][i])
                fitted[i].fit(X, task.y_debias, sensitive_features=task.a_debias)
            test = [
                scorer(fitted[i], X_test, task.y_test, sensitive_features=task.a_test)
                for scorer in SCORING.values()
            ]
            folds = results["mean_test_disparity"][i]
            found[name] = [test[0], -test[1], -folds]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds tabular/")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of trained networks")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    tasks = TabularTasks(arguments.data, cache=arguments.cache)
    header = [
        "data", "chosen by", "balanced accuracy", "difference on test", "on the folds", "within .05"
    ]  # fmt: skip
    for estimator, make in ESTIMATORS.items():
        rows = []
        for name in arguments.tasks:
            runs = [choose(tasks.draw(name, seed), make) for seed in range(arguments.seeds)]
            for choice in CHOICES:
                performance, disparity, folds = np.array([run[choice] for run in runs]).T
                rows.append(
                    [
                        TASKS[name],
                        choice,
                        f"{100 * performance.mean():.1f} ± {100 * performance.std(ddof=1):.1f}",
                        f"{100 * disparity.mean():.1f} ± {100 * disparity.std(ddof=1):.1f}",
                        f"{100 * folds.mean():.1f}",
                        f"{(disparity <= MAX_DISPARITY).sum()} of {len(runs)}",
                    ]
                )
        title = (
            f"``{estimator}``, demographic parity within .05, {arguments.seeds} splits, in percent"
        )
        file = f"model_selection_{estimator.lower()}"
        seeds = spelled(range(arguments.seeds))
        publish(arguments.write, file, Table(title, header, rows), seeds=seeds)
