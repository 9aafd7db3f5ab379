"""Intra-processing in closed form: fit corrections, judge them, and certify one on other rows."""

from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from skfair.intraprocessing._group_blind import (
    L2,
    L2_OF_LABELS,
    Linear,
    Scaler,
    class_values,
    cross_fit,
    fit_posteriors,
    fit_scaler,
    make_events,
    predict_out_of_fold,
    solve,
)
from skfair.intraprocessing._judge import Judge, Question
from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._certify import certify
from skfair.metrics._rate_tests import holds
from skfair.utils._split import draw_folds

UNCORRECTED = 1  # position among the candidates, after the original network


class Data(NamedTuple):
    """Inputs of the correction for some rows.

    Attributes
    ----------
    logits : ndarray of shape (n_samples, n_columns)
        Logits of the network.
    features : dict of str to ndarray of shape (n_samples, n_features)
        Features that the head may see beside the logits, by kind.
    codes, groups : ndarray of shape (n_samples,), int
        Class and group of each row.
    n_groups : int
        Number of groups.
    """

    logits: np.ndarray
    features: dict[str, np.ndarray]
    codes: np.ndarray
    groups: np.ndarray
    n_groups: int

    def take(self, rows: np.ndarray) -> "Data":
        """Take some of the rows.

        Returns
        -------
        Data
        """
        features = {kind: values[rows] for kind, values in self.features.items()}
        return Data(self.logits[rows], features, self.codes[rows], self.groups[rows], self.n_groups)

    def table(self, question: Question, predicted: np.ndarray | None = None) -> np.ndarray:
        """Count rows by group, class and predicted class; without `predicted`, all are right.

        Returns
        -------
        ndarray of shape (n_groups, n_classes, n_classes)
        """
        predicted, k = self.codes if predicted is None else predicted, len(question.classes)
        place = (self.groups * k + self.codes) * k + predicted
        return np.bincount(place, minlength=self.n_groups * k * k).reshape(-1, k, k)


class Fitted(NamedTuple):
    """Calibration, head and corrections, fitted to all rows, and the judge of their folds.

    Attributes
    ----------
    kind : str
        Features of the head.
    labels, head : Linear
        `labels` maps standardised logits to logits of the classes; `head` maps standardised
        features and logits to logits of the cells.
    of_logits, of_features : Scaler
        Scalers of the logits and of the features.
    values : ndarray of shape (n_classes,)
        Value of a right prediction of each class.
    weights : list of ndarray of shape (n_cells, n_classes)
        Weights of each candidate but the original network.
    judge : Judge
        Judge of all candidates, by out-of-fold predictions.
    """

    kind: str
    labels: Linear
    head: Linear
    of_logits: Scaler
    of_features: Scaler
    values: np.ndarray
    weights: list[np.ndarray]
    judge: Judge

    def decide(self, data: Data, candidate: int) -> np.ndarray:
        """Predict other rows by a candidate, fitted to all of its rows.

        Returns
        -------
        ndarray of shape (n_samples,), int
        """
        if candidate < UNCORRECTED:
            return _decision(data.logits)
        logits = self.of_logits(data.logits)
        seen = np.column_stack([self.of_features(data.features[self.kind]), logits])
        cost = -softmax(self.labels(logits), axis=1) * self.values
        weights = self.weights[candidate - UNCORRECTED]
        return (cost + softmax(self.head(seen), axis=1) @ weights).argmin(1)


def _decision(logits: np.ndarray) -> np.ndarray:
    """Decide as the network itself does."""
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)


def fit_corrections(
    data: Data, question: Question, targets: Sequence[float], n_folds: int, seed: int
) -> Fitted:
    """Fit calibration, heads and corrections, and judge them by out-of-fold predictions.

    Parameters
    ----------
    data : Data
    question : Question
    targets : sequence of float
        Gaps to aim at, in descending order.
    n_folds : int
        Three or more.
    seed : int
        Seed of the folds.

    Returns
    -------
    Fitted
    """
    n_classes, codes = len(question.classes), data.codes
    events = make_events(
        question.constraint,
        codes,
        data.groups,
        n_classes,
        data.n_groups,
        question.positive,
        question.compared,
    )
    cell = data.groups * n_classes + codes
    fold = draw_folds(cell, min(n_folds, len(codes)), seed)
    of_logits = fit_scaler(data.logits)
    logits = of_logits(data.logits)
    calibrated = predict_out_of_fold(logits, codes, n_classes, fold, [L2_OF_LABELS])
    labels = fit_posteriors(logits, codes, fold, calibrated)
    scalers = {kind: fit_scaler(features) for kind, features in data.features.items()}
    seen = {
        kind: np.column_stack([scaler(data.features[kind]), logits])
        for kind, scaler in scalers.items()
    }
    heads = {
        kind: predict_out_of_fold(values, events.cell, events.n_cells, fold, L2)
        for kind, values in seen.items()
    }
    kind = min(heads, key=lambda kind: heads[kind].loss)
    head = fit_posteriors(seen[kind], events.cell, fold, heads[kind])

    judge = Judge(codes, data.groups, fold, data.n_groups, question)
    judge.add(_decision(data.logits), candidate="original", target=np.nan)
    performance = question.performance
    decided = cross_fit(labels, head, events, codes, fold, targets, performance)
    judge.add(decided[0], candidate="uncorrected", target=np.nan)
    for target, predicted in zip(targets, decided[1:], strict=True):
        judge.add(predicted, candidate="corrected", target=target)

    values = class_values(np.bincount(codes, minlength=n_classes), performance)
    cost = -labels.out_of_fold(fold) * values
    found = solve(cost, head.out_of_fold(fold), events, events.cell, targets)
    weights = [np.zeros_like(found[0]), *found]
    return Fitted(kind, labels.model, head.model, of_logits, scalers[kind], values, weights, judge)


def certify_corrections(
    fitted: Fitted, data: Data, question: Question, otherwise: int
) -> tuple[int, np.ndarray, FairnessCertificate]:
    """Test candidates on calibration rows, the most probable one first, until one fails.

    All candidates that pass before the first failure are certified together at the stated
    confidence (fixed-sequence testing). The best performing one of them is chosen.

    Parameters
    ----------
    fitted : Fitted
        Fitted to other rows.
    data : Data
        The calibration rows.
    question : Question
        Its confidence is a number.
    otherwise : int
        The candidate to choose if none passes.

    Returns
    -------
    best : int
        The chosen candidate.
    table : ndarray of shape (n_groups, n_classes, n_classes)
        Its predictions of the calibration rows.
    certificate : FairnessCertificate
    """
    assert isinstance(question.confidence, Real)
    confidence, performance = float(question.confidence), fitted.judge.trials().performance
    delta, epsilon = 1 - confidence, question.epsilon

    def table_of(candidate: int) -> np.ndarray:
        return data.table(question, fitted.decide(data, candidate))

    sizes = [rate.sizes for rate in question.rates(table_of(0))]
    passed = []
    for candidate in fitted.judge.by_power(sizes, delta):
        if not holds(question.rates(table_of(candidate)), epsilon, delta):
            break
        passed.append(candidate)
    best = max(passed, key=lambda candidate: performance[candidate], default=otherwise)
    table = table_of(best)
    certificate = certify(
        question.rates(table),
        question.groups,
        constraint=question.constraint,
        epsilon=epsilon,
        confidence=confidence,
        proves=bool(passed),  # otherwise the test is not one of the sequence
    )
    return best, table, certificate
