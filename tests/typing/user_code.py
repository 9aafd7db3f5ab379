"""What users write, for mypy to check and never to be run: the package's types as they see them.

A wrong call has a `type: ignore`; were it not found wrong, mypy would call that one unused.
"""

from typing import assert_type

import numpy as np
import pandas as pd
import torch
from torch import nn

import skfair
import skfair.utils
from skfair.datasets import DigitsEncoder, load_digits_encoder
from skfair.metrics import (
    FairnessReport,
    FairnessScorer,
    GroupCounts,
    GroupMetricsDisplay,
    count_groups,
    fairness_report,
    make_fairness_scorer,
    worst_group_accuracy_score,
)
from skfair.model_selection import GroupStratifiedKFold


def train(X: np.ndarray, y: list[str], sex: pd.Series) -> np.ndarray:
    classifier = skfair.ClusterMarginClassifier(n_clusters=4, random_state=0)
    assert_type(classifier.fit(X, y), skfair.ClusterMarginClassifier)
    classifier.fit(X, y, sensitive_features=sex)
    assert_type(classifier.predict(X), np.ndarray)
    assert_type(classifier.predict_proba(X), np.ndarray)
    assert_type(classifier.suggest_labels(50), np.ndarray)
    classifier.fit(X, y, sex, sex)  # type: ignore[call-arg]
    skfair.ClusterMarginClassifier(n_cluster=4)  # type: ignore[call-arg]
    return classifier.fit(X, y).predict(X)


def adjust(X: np.ndarray, y: np.ndarray, background: pd.Series) -> np.ndarray:
    classifier = skfair.LogitAdjustedClassifier(64, strength=0.5, random_state=0)
    assert_type(classifier.fit(X, y, sensitive_features=background), skfair.LogitAdjustedClassifier)
    assert_type(classifier.suggest_labels(50), np.ndarray)
    assert_type(classifier.attribute_proba(X), np.ndarray)
    assert_type(classifier.to_module(), nn.Module)
    skfair.LogitAdjustedClassifier(strenght=1)  # type: ignore[call-arg]
    return classifier.predict(X)


def debias(network: nn.Module, X: np.ndarray, y: np.ndarray, sex: np.ndarray) -> nn.Module:
    debiaser = skfair.DistillationDebiaser(network, constraint="equal_opportunity", epsilon=0.05)
    debiaser.fit(X, y, sensitive_features=sex)
    assert_type(debiaser.predict(X), np.ndarray)
    return debiaser.to_module()


def featurize(images: np.ndarray) -> np.ndarray:
    assert_type(load_digits_encoder(), DigitsEncoder)
    return skfair.FrozenEncoderFeaturizer(load_digits_encoder()).fit(images).transform(images)


def mask(images: np.ndarray, glasses: np.ndarray) -> None:
    masker = skfair.PatchAttributionMasker(patch_size=8, stride=2)
    assert_type(masker.fit(images, sensitive_features=glasses).mask(images), np.ndarray)
    masker.fit_transform(images, glasses)
    assert_type(masker.masks(images), np.ndarray)
    assert_type(masker.perturbed_pixels(images), np.ndarray)


def report(y: np.ndarray, y_pred: np.ndarray, sex: np.ndarray) -> None:
    found = fairness_report(y, {"old": y_pred}, sensitive_features={"sex": sex})
    assert_type(found, FairnessReport)
    assert_type(count_groups(y, y_pred, sensitive_features=sex), GroupCounts)
    assert_type(worst_group_accuracy_score(y, y_pred, sensitive_features=sex), float)
    assert_type(make_fairness_scorer("demographic_parity"), FairnessScorer)
    assert_type(GroupMetricsDisplay.from_report(found), GroupMetricsDisplay)
    fairness_report(y, y_pred)  # type: ignore[call-arg]
    for train_rows, _ in GroupStratifiedKFold(5).split(sex, y, sensitive_features=sex):
        assert_type(train_rows, np.ndarray)


def keep(model: skfair.ClusterMarginClassifier) -> None:
    skfair.save(model, "model")
    skfair.load("model").predict([[0.0]])


def names() -> None:
    assert_type(skfair.utils.resolve_device("auto"), torch.device)
    skfair.ClusterMarginClasifier  # type: ignore[attr-defined]  # noqa: B018
    skfair.utils.seedet  # type: ignore[attr-defined]  # noqa: B018
