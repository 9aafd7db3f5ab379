"""Fit a peer on arrays of one file, predict, and write predictions and costs into another.

    python worker.py METHOD given.npz answer.npz

This file runs in the environment of the peer and imports nothing of skfair. `given` has "score",
the probability of class 1 by the network, "X", "y" and "group" (0 and 1) of the debiasing rows and,
with "_test" behind the name, of the test rows (without "y"); "constraint", "tolerance", "seed".
"""

import ctypes
import gc
import sys
import time

import numpy as np


def fairlearn_thresholds(given):
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Scores(ClassifierMixin, BaseEstimator):
        """Its only feature is the score of the network, which needs no fit."""

        classes_ = np.array([0, 1])

        def __sklearn_is_fitted__(self):
            return True

        def fit(self, X, y):
            return self

        def decision_function(self, X):
            return np.asarray(X)[:, 0]

        def predict(self, X):
            return (np.asarray(X)[:, 0] > 0.5).astype(int)

    names = {
        "equal_opportunity": "true_positive_rate_parity",
        "average_odds": "equalized_odds",
    }
    constraint = str(given["constraint"])
    optimizer = ThresholdOptimizer(
        estimator=Scores(),
        constraints=names.get(constraint, constraint),
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="decision_function",
        tol=float(given["tolerance"]) if constraint != "average_odds" else None,
    )
    rows = given["score"][:, None]
    optimizer.fit(rows, given["y"], sensitive_features=given["group"])

    def predict():
        rows = given["score_test"][:, None]
        seed = int(given["seed"])
        return optimizer.predict(rows, sensitive_features=given["group_test"], random_state=seed)

    return predict


def error_parity_thresholds(given):
    from error_parity import RelaxedThresholdOptimizer

    names = {
        "equal_opportunity": "true_positive_rate_parity",
        "average_odds": "equalized_odds",
    }
    constraint, positives = str(given["constraint"]), given["y"].mean()
    optimizer = RelaxedThresholdOptimizer(
        predictor=lambda X: X[:, 0],
        constraint=names.get(constraint, constraint),
        tolerance=float(given["tolerance"]),
        # With these costs, the least cost is the best balanced accuracy.
        false_pos_cost=0.5 / (1 - positives),
        false_neg_cost=0.5 / positives,
        seed=int(given["seed"]),
    )
    optimizer.fit(X=given["score"][:, None], y=given["y"], group=given["group"])
    return lambda: optimizer.predict(given["score_test"][:, None], group=given["group_test"])


def aif360_reject_option(given):
    from aif360.algorithms.postprocessing import RejectOptionClassification

    names = {
        "demographic_parity": "Statistical parity difference",
        "equal_opportunity": "Equal opportunity difference",
        "average_odds": "Average odds difference",
    }
    tolerance = float(given["tolerance"])
    # It gives class 1 to more of the unprivileged group: the one that gets class 1 less often.
    rates = [given["score"][given["group"] == group].mean() for group in (0, 1)]
    privileged = int(np.argmax(rates))
    option = RejectOptionClassification(
        unprivileged_groups=[{"group": 1 - privileged}],
        privileged_groups=[{"group": privileged}],
        metric_name=names[str(given["constraint"])],
        metric_ub=tolerance,
        metric_lb=-tolerance,
    )
    option.fit(_aif360_rows(given, given["y"]), _aif360_rows(given, None))
    return lambda: option.predict(_aif360_rows(given, None, "_test")).labels.ravel()


def _aif360_rows(given, y, part=""):
    import pandas as pd
    from aif360.datasets import BinaryLabelDataset

    score = given[f"score{part}"]
    labels = (score > 0.5).astype(int) if y is None else y
    frame = pd.DataFrame({"score": score, "group": given[f"group{part}"], "label": labels})
    rows = BinaryLabelDataset(
        df=frame, label_names=["label"], protected_attribute_names=["group"],
        favorable_label=1, unfavorable_label=0,
    )  # fmt: skip
    rows.scores = score[:, None]
    return rows


def oxonfair_inferred(given):
    """Groups are inferred from the features by a logistic regression, as at prediction."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    head.fit(given["X"], given["group"])
    # OxonFair fails if its third group, the rows whose group is uncertain, is empty.
    uncertain = head.predict_proba(given["X"]).max(1).min() < 2 / 3
    # The score travels as the last feature; the head does not see it.
    without_score = make_pipeline(_WithoutLast(), head)
    return _oxonfair(
        given, {"inferred_groups": without_score, "threshold": 2 / 3 if uncertain else 0}
    )


class _WithoutLast:
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X[:, :-1]


def oxonfair_known(given):
    return _oxonfair(given, {})


def _oxonfair(given, options):
    import oxonfair

    measures = oxonfair.group_metrics
    names = {"average_odds": "equalized_odds"}
    constraint = str(given["constraint"])

    def rows(part):
        return {
            "data": np.column_stack([given[f"X{part}"], given[f"score{part}"]]),
            "groups": given[f"group{part}"],
        }

    def probabilities(X):
        return np.column_stack([1 - X[:, -1], X[:, -1]])

    predictor = oxonfair.FairPredictor(probabilities, {**rows(""), "target": given["y"]}, **options)
    measure = getattr(measures, names.get(constraint, constraint))
    predictor.fit(measures.balanced_accuracy, measure, float(given["tolerance"]))

    def predict():
        test = rows("_test")
        if options:
            del test["groups"]
        else:  # OxonFair refuses rows without a target, and does not use the target
            test["target"] = np.zeros(len(test["data"]), dtype=int)
        return predictor.predict(test)

    return predict


METHODS = {
    function.__name__: function
    for function in (
        fairlearn_thresholds,
        error_parity_thresholds,
        aif360_reject_option,
        oxonfair_inferred,
        oxonfair_known,
    )
}


def measured(fit):
    """Run `fit`, which returns a function that predicts; return predictions and costs.

    `fit` runs twice: the first run loads what is imported late, which is not part of a fit. The
    memory is the peak of the resident memory in the second run, above the memory before it, in MiB.
    It is read as Linux has it.
    """
    fit()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would serve the fit without being seen
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # the peak starts again from here
    before = resident("VmRSS")
    start = time.process_time()
    predict = fit()
    fitted = time.process_time()
    memory = resident("VmHWM") - before
    begin = time.process_time()
    predicted = np.asarray(predict()).astype(int)
    took = time.process_time() - begin
    return {"predicted": predicted, "fit": fitted - start, "predict": took, "memory": memory}


def resident(field):
    """A line of the state of this process, in MiB."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines[field].split()[0]) / 1024


def main(method, given, answer):
    with np.load(given) as file:
        given = {name: file[name] for name in file.files}
    np.savez(answer, **measured(lambda: METHODS[method](given)))


if __name__ == "__main__":
    main(*sys.argv[1:])
