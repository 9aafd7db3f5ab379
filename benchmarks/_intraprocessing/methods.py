"""The methods that are compared on two groups: debiasers, baselines and a ceiling.

A method takes a task and a measure. It returns the processor seconds of its fit, or None, and a
function that predicts. That function takes X, y and a of test rows; only the ceiling reads y.
"""

import copy
import hashlib
import inspect
import time
from dataclasses import dataclass

import numpy as np
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import roc_curve

from benchmarks._intraprocessing.measures import EPSILON, group_thresholds
from benchmarks._remember import library_code
from skfair import intraprocessing

RECOMMENDED = "**DistillationDebiaser**"
CEILING = "ceiling: group thresholds fitted on test"


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A network as an estimator for scikit-learn and fairlearn; scores of tables in float64."""

    def __init__(self, network):
        self.network = network
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        X = np.asarray(X)
        dtype = torch.float64 if X.ndim == 2 else torch.float32
        network = copy.deepcopy(self.network).to(dtype).eval()
        with torch.no_grad():
            parts = torch.as_tensor(X, dtype=dtype).split(8192 if X.ndim == 2 else 250)
            raw = torch.cat([network(part) for part in parts])
        return (raw[:, 1] - raw[:, 0] if raw.shape[1] == 2 else raw[:, 0]).numpy()

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def original(task, measure):
    return None, lambda X, y, a: NetworkClassifier(task.network).predict(X) == 1


def original_most_accurate(task, measure):
    """The threshold of the best balanced accuracy, as published; the constraint is not asked."""
    classifier = NetworkClassifier(task.network)
    start = time.process_time()
    fpr, tpr, thresholds = roc_curve(task.y_debias, classifier.decision_function(task.X_debias))
    threshold = thresholds[np.argmax(tpr - fpr)]
    seconds = time.process_time() - start
    return seconds, lambda X, y, a: classifier.decision_function(X) >= threshold


def threshold_optimizer(task, measure):
    constraint = {
        "demographic_parity": "demographic_parity",
        "equal_opportunity": "true_positive_rate_parity",
        "average_odds": "equalized_odds",
    }[measure]
    optimizer = ThresholdOptimizer(
        estimator=NetworkClassifier(task.network),
        constraints=constraint,
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="decision_function",
    )
    start = time.process_time()
    optimizer.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
    seconds = time.process_time() - start

    def predict(X, y, a):
        predicted = optimizer.predict(X, sensitive_features=a, random_state=task.seed)
        return np.asarray(predicted) == 1

    return seconds, predict


def ceiling(task, measure):
    classifier = NetworkClassifier(task.network)
    return None, lambda X, y, a: group_thresholds(classifier.decision_function(X), y, a, measure)


@dataclass(frozen=True)
class Debiaser:
    """A debiaser of skfair by the name of its class; a version without this class has no row."""

    name: str
    parameters: tuple = ()

    def __call__(self, task, measure):
        estimator = getattr(intraprocessing, self.name)(
            task.network,
            constraint=measure,
            epsilon=EPSILON,
            output="logits",
            device="cpu",
            random_state=task.seed,
            **dict(self.parameters),
        )
        start = time.process_time()
        estimator.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
        return time.process_time() - start, lambda X, y, a: estimator.predict(X) == 1


def debiaser(name, **parameters):
    return Debiaser(name, tuple(parameters.items()))


def tabular_methods():
    published = {"confidence": None, "margin": 0.01}
    adversarial = "AdversarialFinetuneDebiaser"
    rows = {
        "original network": original,
        "the same, most accurate threshold": original_most_accurate,
        "``ThresholdDebiaser``": debiaser("ThresholdDebiaser"),
        "``ThresholdDebiaser``, published rule": debiaser("ThresholdDebiaser", **published),
        "``RandomPerturbationDebiaser``": debiaser("RandomPerturbationDebiaser"),
        "``RandomPerturbationDebiaser``, published rule": debiaser(
            "RandomPerturbationDebiaser", **published
        ),
        "``LayerwiseDebiaser``": debiaser("LayerwiseDebiaser"),
        "``AdversarialFinetuneDebiaser``": debiaser(adversarial, adversary="bias"),
        "``AdversarialFinetuneDebiaser``, published critic and rule": debiaser(
            adversarial, adversary="bias", critic="flat", confidence=None, margin=0.02
        ),
        "``AdversarialFinetuneDebiaser(adversary='attribute')``": debiaser(
            adversarial, adversary="attribute"
        ),
        "``BiasGradientDebiaser``": debiaser("BiasGradientDebiaser"),
        "``BiasGradientDebiaser``, published rule": debiaser("BiasGradientDebiaser", **published),
        "``GroupDRODebiaser``": debiaser("GroupDRODebiaser"),
        "``GroupDRODebiaser(step_size=0.1)``": debiaser("GroupDRODebiaser", step_size=0.1),
        RECOMMENDED: debiaser("DistillationDebiaser"),
        "fairlearn's ``ThresholdOptimizer``, attribute at prediction": threshold_optimizer,
        CEILING: ceiling,
    }
    return available(rows)


def image_methods():
    rows = {
        "original network": original,
        "the same, most accurate threshold": original_most_accurate,
        "``ThresholdDebiaser``": debiaser("ThresholdDebiaser"),
        "``BiasGradientDebiaser``": debiaser("BiasGradientDebiaser"),
        RECOMMENDED: debiaser("DistillationDebiaser"),
        CEILING: ceiling,
    }
    return available(rows)


def available(rows):
    return {
        label: method
        for label, method in rows.items()
        if not isinstance(method, Debiaser) or method.name in intraprocessing.__all__
    }


def code_of(method):
    """The parameters of a method, and all code of skfair that it runs."""
    if not isinstance(method, Debiaser):
        return inspect.getsource(method)
    module = getattr(intraprocessing, method.name).__module__
    return repr(method.parameters) + library_code(module)


def digest(network, method):
    """Part of a record's key: changes with the weights, the method's code and its parameters."""
    state = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        state.update(name.encode())
        state.update(tensor.numpy().tobytes())
    state.update(code_of(method).encode())
    return state.hexdigest()[:16]
