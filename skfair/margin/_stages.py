"""Cluster margins: the three stages, and the choice between two losses, as functions."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.utils import gen_batches
from torch import nn

from skfair.base._blocks import BlockRows
from skfair.base._net import as_tensor
from skfair.margin._amplifier import (
    BLOCK,
    MAX_CLUSTERED,
    Scatter,
    balanced_accuracy,
    class_tilt,
    cluster_features,
    cross_entropies,
    effective_rank,
    nearest_centre,
    unit_rows,
    weight_decay_scale,
)
from skfair.margin._gate import GAP_PER_SCALE, hold_out, judge_by_gap, judge_by_worst_group
from skfair.margin._modules import FeaturesAndLogits, LinearNet, MarginNet
from skfair.margin._training import Samples, TrainingSettings, train_network
from skfair.utils import FallbackWarning, OvercorrectionWarning, encode_groups
from skfair.utils._memory import physical_memory

_LEAST_WEIGHT = 1e-6
# Above this tilt, the average over groups had fallen by 3 points and more in 14 of 16 development
# draws.
_LARGE_TILT = 0.04
_BYTES_A_WEIGHT = 16  # the weight, its gradient and two moments of Adam, in float32
# A row of features that is worked on: the network's output in float64, and three float32 copies.
_BYTES_A_FEATURE = 20
# A weighted loss corrects no more than margins of this scale do.
_SCALE_OF_WEIGHTS = 4.0

# Trains a network with a loss on samples; returns the network and its history.
Train = Callable[[str, Samples], tuple[nn.Module, pd.DataFrame]]
# Runs a network on rows; returns its output in float64.
Run = Callable[[nn.Module, np.ndarray], np.ndarray]


def check_memory(
    n_units: int, n_samples: int, n_features: int, n_classes: int, *, amplifier: bool
) -> None:
    """Refuse a number of units that does not fit into the memory of this machine.

    Parameters
    ----------
    n_units : int
        Width of the adapters.
    n_samples, n_features, n_classes : int
        Size of the training data.
    amplifier : bool
        Whether an amplifier will be trained.

    Raises
    ------
    ValueError
        The networks and the features that are clustered are larger than the memory.
    """
    n_bytes = n_units * _BYTES_A_WEIGHT * (n_features + n_classes)
    if amplifier:  # the rows that are clustered, and the scatter of its features, three times
        n_bytes += n_units * (_BYTES_A_FEATURE * min(n_samples, MAX_CLUSTERED) + 24 * n_units)
    available = physical_memory()
    if n_bytes > available:
        raise ValueError(
            f"n_units={n_units} takes {n_bytes:,} bytes with the {n_samples} samples and "
            f"{n_features} features of X, and this machine has {available:,.0f}. Take fewer units."
        )


def validate_groups(sensitive_features: Any, n_samples: int) -> np.ndarray:
    """Encode the groups; -1 stands for a missing label."""
    if sensitive_features is None:
        return np.full(n_samples, -1)
    codes = encode_groups(sensitive_features, n_samples=n_samples, missing="keep").codes
    if (codes < 0).all():
        raise ValueError(
            "sensitive_features is missing for every sample. Pass None to train without "
            "group labels, or label the samples that suggest_labels() names."
        )
    return codes


def train_amplifier(
    X: np.ndarray | BlockRows,
    samples: Samples,
    settings: TrainingSettings,
    *,
    weight_decay: float | Literal["auto"],
    max_epochs: int,
    seed: int,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train the amplifier of the bias (stage 1; section 3.4 of the paper for the weight decay).

    Parameters
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features of the training samples.
    samples : Samples
        Training data.
    settings : TrainingSettings
        Settings that both networks share.
    weight_decay : float or "auto"
        L2 penalty, in units of :func:`weight_decay_scale`.
    max_epochs : int
        Passes over the data.
    seed : int
        Seeds the initial weights and the batches.

    Returns
    -------
    amplifier : LinearNet
    history : DataFrame
        Training loss of each epoch.
    """
    n_classes = samples.n_classes
    decay = 0.7 / n_classes if weight_decay == "auto" else weight_decay
    unit = weight_decay_scale(
        X,
        samples.codes,
        samples.weight,
        settings.network_parameters["module__spread"].item(),
    )
    per_class = np.bincount(samples.codes, weights=samples.weight)
    return train_network(
        "amplifier",
        LinearNet,
        samples,
        settings,
        seed=seed,
        weight=np.ones(len(samples)),
        max_epochs=max_epochs,
        anneal=False,
        module__n_classes=n_classes,
        module__activation="tanh",
        optimizer__weight_decay=decay * unit,
        # The sample weights and the class balance set how often a sample is drawn.
        iterator_train__sampling_weight=as_tensor(samples.weight / per_class[samples.codes]),
    )


def find_centres(
    X: np.ndarray | BlockRows,
    samples: Samples,
    space: Callable[[np.ndarray], np.ndarray],
    *,
    n_clusters: int | Literal["auto"],
    random_state: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the centres of the clusters of the training samples (stage 2).

    Parameters
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features of the training samples.
    samples : Samples
        Training data.
    space : callable
        Maps rows of X to the rows of unit length that are clustered.
    n_clusters : int or "auto"
        Number of clusters; "auto" takes four for each class.
    random_state : RandomState
        Draws the samples that are clustered and the starts of k-means.

    Returns
    -------
    centres : ndarray of shape (n_found, n_units or n_features), float64
        Centres, from :func:`cluster_features`.
    sizes : ndarray of shape (n_found,), float64
        Effective number of rows behind each centre.
    """
    weight = samples.weight
    if len(samples) > MAX_CLUSTERED:
        rows = random_state.choice(len(samples), MAX_CLUSTERED, replace=False)
        X, weight = X[rows], weight[rows]
    n_clusters = 4 * samples.n_classes if n_clusters == "auto" else n_clusters
    return cluster_features(space(X[:]), weight, n_clusters, random_state)


def unit_inputs(amplifier: nn.Module, X: np.ndarray) -> np.ndarray:
    """Scale features as the amplifier does, and divide each row by its length; float32."""
    adapter: Any = amplifier.adapter
    return unit_rows((X - adapter.mean.numpy(force=True)) / adapter.spread.numpy(force=True))


@dataclass(frozen=True)
class Amplified:
    """What the amplifier shows of each training sample.

    Attributes
    ----------
    clusters : ndarray of shape (n_samples,), int64
        The nearest centre.
    surprise : ndarray of shape (n_samples,), float64
        Cross-entropy of the sample under the amplifier.
    right : ndarray of shape (n_samples,), bool
        Whether the amplifier predicts the class of the sample.
    rank : float
        Effective rank of the features of the amplifier's adapter, as rows of unit length.
    """

    clusters: np.ndarray
    surprise: np.ndarray
    right: np.ndarray
    rank: float


def run_amplifier(
    amplifier: nn.Module,
    X: np.ndarray | BlockRows,
    samples: Samples,
    centres: np.ndarray,
    *,
    cluster_on: str,
    run: Run,
) -> Amplified:
    """Run the amplifier over the training samples, in one pass.

    Parameters
    ----------
    amplifier : LinearNet
        The trained amplifier.
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features of the training samples.
    samples : Samples
        Training data.
    centres : ndarray of shape (n_found, n_units or n_features)
        Centres of the clusters.
    cluster_on : {"amplified", "input"}
        Whether the centres are of the amplifier's features or of the frozen features.
    run : callable
        Runs a network: ``run(network, X)`` returns its output.

    Returns
    -------
    Amplified
    """
    network = FeaturesAndLogits(amplifier)
    n_classes = samples.n_classes
    clusters = np.empty(len(samples), dtype=np.int64)
    surprise, right = np.empty(len(samples)), np.empty(len(samples), dtype=bool)
    scatter = Scatter()
    for rows in gen_batches(len(samples), BLOCK):  # the features of all rows may be larger than X
        codes, outputs = samples.codes[rows], run(network, X[rows])
        features, logits = outputs[:, :-n_classes], outputs[:, -n_classes:]
        points = unit_rows(features.astype(np.float32, copy=False))
        scatter.add(points)
        if cluster_on == "input":
            points = unit_inputs(amplifier, X[rows])
        clusters[rows] = nearest_centre(points, centres)
        surprise[rows] = cross_entropies(codes, logits)
        right[rows] = logits.argmax(axis=1) == codes
    return Amplified(clusters, surprise, right, effective_rank(scatter.matrix()))


def train_classifier(
    loss: str,
    samples: Samples,
    *,
    settings: TrainingSettings,
    margins: np.ndarray | None,
    margin_std: float,
    scale: float,
    weight_decay: float,
    max_epochs: int | Literal["auto"],
    seed: int,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train the classifier (stage 3; equation 4 of the paper for the margin loss).

    Parameters
    ----------
    loss : {"margin", "cluster_weighted", "loss_weighted", "cross_entropy"}
        The loss; "cross_entropy" is ordinary training.
    samples : Samples
        Training data, with clusters for "margin" and a boost for the weighted losses.
    settings : TrainingSettings
        Settings that both networks share.
    margins : ndarray of shape (n_clusters, n_classes), or None
        Margin of each class in each cluster, in radians. Only "margin" needs it.
    margin_std, scale : float
        Noise on the margins and factor on the cosine, of "margin".
    weight_decay : float
        L2 penalty.
    max_epochs : int or "auto"
        Passes over the data; "auto" is three for each class, at most 20.
    seed : int
        Seeds the initial weights, the batches and the noise.

    Returns
    -------
    classifier : MarginNet or LinearNet
    history : DataFrame
        Training loss of each epoch.
    """
    module: type[nn.Module] = LinearNet
    head: dict[str, Any] = {"module__n_classes": samples.n_classes}
    if loss == "margin":
        module = MarginNet
        head = {
            "module__margins": torch.as_tensor(margins, dtype=torch.float32),
            "module__margin_std": margin_std,
            "module__scale": scale,
        }
    weight = samples.weight
    if loss in ("cluster_weighted", "loss_weighted"):
        assert samples.boost is not None  # from the clusters
        # Without this floor no sample would count where each cluster has one class only.
        weight = weight * np.maximum(samples.boost, _LEAST_WEIGHT)
    return train_network(
        "classifier",
        module,
        samples,
        settings,
        seed=seed,
        weight=weight,
        max_epochs=min(3 * samples.n_classes, 20) if max_epochs == "auto" else max_epochs,
        module__activation="relu",
        optimizer__weight_decay=weight_decay,
        iterator_train__shuffle=True,
        anneal=True,
        **head,
    )


def choose_loss(
    loss: str,
    scale: float,
    X: np.ndarray | BlockRows,
    samples: Samples,
    groups: np.ndarray,
    evidence: dict[str, Any],
    *,
    train: Train,
    predict: Callable[[nn.Module, np.ndarray | BlockRows], np.ndarray],
    seed: int,
) -> tuple[str, dict[str, Any]]:
    """Decide between a loss and ordinary training by the group labels.

    Parameters
    ----------
    loss : {"margin", "cluster_weighted", "loss_weighted"}
        The loss in question.
    scale : float
        Factor on the cosine, of "margin".
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features of the training samples.
    samples : Samples
        Training data after stage 2.
    groups : ndarray of shape (n_samples,), int
        Group of each sample, -1 where it is not known.
    evidence : dict
        The gap that :func:`accuracy_gap` estimates.
    train : callable
        Trains a classifier: ``train(loss, samples)`` returns the network and its history.
    predict : callable
        Predicts with a network: ``predict(network, X)`` returns the predicted classes.
    seed : int
        Draws the hold-out.

    Returns
    -------
    loss : str
        `loss` or "cross_entropy".
    evidence : dict
        What the decision rests on, and the "decision".

    Warns
    -----
    FallbackWarning
        Ordinary training was chosen.
    """
    needed = GAP_PER_SCALE * (scale if loss == "margin" else _SCALE_OF_WEIGHTS)
    evidence = {**evidence, "accuracy_gap_needed": needed}
    decision, reason = judge_by_gap(evidence, needed)
    held_out = hold_out(samples.codes, groups, seed)
    if held_out is not None:
        # The amplifier has seen the held-out samples. That affects only the margins of the others.
        kept = samples.take(np.setdiff1d(np.arange(len(samples)), held_out))
        predicted = {
            name: predict(train(name, kept)[0], X[held_out]) for name in ("cross_entropy", loss)
        }
        measured, verdict, why = judge_by_worst_group(
            samples.codes[held_out], predicted, groups[held_out]
        )
        evidence |= measured
        if verdict != "cannot tell":
            decision, reason = verdict, why
    evidence["decision"] = decision
    if decision == "method":
        return loss, evidence
    message = f"Ordinary training was used instead of loss={loss!r}: {reason}"
    if decision == "cannot tell":
        more = "label the samples that suggest_labels() names as well and fit again, or "
        message = (
            f"{message} This cannot tell whether the method helps: "
            f"{more if (groups < 0).any() else ''}use the labels in training, with "
            "LogitAdjustedClassifier."
        )
    if sklearn.get_config()["enable_metadata_routing"]:
        message += (
            " Where sensitive_features are meant for a scorer alone, keep them from fit, which "
            "requests them: .set_fit_request(sensitive_features=False)."
        )
    warnings.warn(message, FallbackWarning)
    return "cross_entropy", evidence


def diagnose_classifier(samples: Samples, predicted: np.ndarray, loss: str) -> dict[str, float]:
    """Measure the classifier on its training data, and warn where it corrected too much.

    Parameters
    ----------
    samples : Samples
        Training data.
    predicted : ndarray of shape (n_samples,), int
        Classes that the classifier predicts.
    loss : str
        The loss that it was trained with.

    Returns
    -------
    dict
        "classifier_accuracy" (class-balanced) and "class_tilt".

    Warns
    -----
    OvercorrectionWarning
        The accuracy is below chance, or the tilt is above 0.04. Never after "cross_entropy".
    """
    accuracy = balanced_accuracy(samples.codes, predicted == samples.codes)
    tilt = class_tilt(samples.codes, predicted, samples.weight)
    found = {"classifier_accuracy": accuracy, "class_tilt": tilt}
    chance = 1 / samples.n_classes
    if loss == "cross_entropy":
        return found
    if accuracy < chance:
        warnings.warn(
            f"The classifier gets {accuracy:.0%} of the training data right, less than the "
            f"{chance:.0%} of guessing: beside the bias there is too little of the classes in "
            "the features, and the correction reverses predictions. Use other features, or "
            "loss='cross_entropy'.",
            OvercorrectionWarning,
        )
    elif tilt > _LARGE_TILT:
        remedy = "lower the scale" if loss == "margin" else "take loss='cross_entropy'"
        warnings.warn(
            f"The classifier moves {tilt:.0%} of its training data from classes that it "
            "predicts less often than they occur to other classes. If this is not intended, "
            f"{remedy} or raise max_epochs.",
            OvercorrectionWarning,
        )
    return found
