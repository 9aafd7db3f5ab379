"""Cluster margins, how a fit goes through the three stages and decides between two losses."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.metrics import normalized_mutual_info_score
from sklearn.utils import check_random_state
from torch import nn

from skfair.base import TorchClassifier
from skfair.base._net import as_tensor, load_weights
from skfair.margin._amplifier import (
    balanced_accuracy,
    class_shares,
    class_tilt,
    cluster_features,
    cross_entropies,
    diagnose_amplifier,
    feature_scale,
    nearest_centre,
    unit_rows,
    weight_decay_scale,
)
from skfair.margin._gate import (
    GAP_PER_SCALE,
    accuracy_gap,
    hold_out,
    judge_by_gap,
    judge_by_worst_group,
    label_orders,
    strata,
)
from skfair.margin._modules import LinearNet, MarginNet
from skfair.margin._training import Samples, train_network
from skfair.utils import (
    FallbackWarning,
    OvercorrectionWarning,
    draw_seed,
    encode_groups,
    resolve_device,
)
from skfair.utils._memory import physical_memory
from skfair.utils._validation import check_logits

# The paper's ablation without adaptive margins gives every class this one, in radians.
_CONSTANT_MARGIN = 0.5
_LEAST_WEIGHT = 1e-6
# Above it, the average over groups had fallen by 3 points and more in 14 of 16 development draws.
_LARGE_TILT = 0.04
_BYTES_A_WEIGHT = 16  # itself, its gradient and two moments of Adam, in float32
_BYTES_A_FEATURE = 4


class ClusterMarginStages(TorchClassifier):
    """What ``ClusterMarginClassifier`` does in ``fit``; its parameters are documented there."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, sensitive_features: Any) -> None:
        X, codes, weight = self._validate_training_data(X, y, sample_weight)
        groups = self._validate_groups(sensitive_features, len(X))
        if self.n_clusters != "auto" and self.n_clusters > len(X):
            raise ValueError(
                f"n_clusters={self.n_clusters} is more than the {len(X)} samples in X. Ask for "
                "fewer clusters, or leave n_clusters='auto'."
            )
        self._check_n_units(*X.shape)
        random_state = check_random_state(self.random_state)
        # A seed for each network, so that having group labels changes no bits of either.
        amplifier_seed, classifier_seed = draw_seed(random_state), draw_seed(random_state)
        samples, rows = Samples(X, codes, weight), np.flatnonzero(weight)
        if len(rows) < len(X):
            samples = samples.take(rows)
        mean, spread = feature_scale(samples.X)
        self._network_parameters = {
            "module__n_features": X.shape[1],
            "module__n_units": self.n_units,
            "module__mean": mean,
            "module__spread": spread,
        }

        self.loss_ = self.loss
        self.history_: dict[str, pd.DataFrame] = {}
        self.diagnostics_: dict[str, Any] = {}
        if self.loss != "cross_entropy":
            self._amplify(samples, amplifier_seed)
            logits = self._run(self.amplifier_, samples.X)
            samples = self._cluster(samples, logits, random_state)
            self.labels_ = samples.clusters if len(rows) == len(X) else self._assign(X)
            stratum, groups = strata(samples.codes, logits), groups[rows]
            # What `suggest_labels` may name, in its order: samples whose group is not known.
            errors, right = label_orders(stratum, samples.codes, groups >= 0, random_state)
            self._hard, self._easy = rows[errors], rows[right]
            if sensitive_features is not None:
                evidence = accuracy_gap(samples.codes, logits, groups, stratum)
                self.loss_ = self._choose_loss(samples, groups, evidence, classifier_seed)
        self.module_, self.history_["classifier"] = self._train_classifier(
            self.loss_, samples, classifier_seed
        )
        self._diagnose_classifier(samples)

    def _check_n_units(self, n_samples: int, n_features: int) -> None:
        """Refuse what no memory of this machine holds, before any of it is made."""
        n_bytes = self.n_units * (
            _BYTES_A_WEIGHT * (n_features + len(self.classes_)) + _BYTES_A_FEATURE * n_samples
        )
        if self.loss != "cross_entropy":  # the covariance of the amplifier's features, twice
            n_bytes += 16 * self.n_units**2
        there = physical_memory()
        if n_bytes > there:
            raise ValueError(
                f"n_units={self.n_units} takes {n_bytes:,} bytes with the {n_samples} samples and "
                f"{n_features} features of X, and this machine has {there:,.0f}. Take fewer units."
            )

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        for name in {"amplifier_", "module_"} & set(state):
            state[name] = dict(state[name].state_dict())
        if isinstance(getattr(self, "module_", None), MarginNet):
            state["_head"] = {"margin_std": self.module_.margin_std, "scale": self.module_.scale}
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights = {name: state.pop(name) for name in ("amplifier_", "module_") if name in state}
        head = state.pop("_head", None)
        self.__dict__.update(state)
        adapter = {k.removeprefix("module__"): v for k, v in self._network_parameters.items()}
        n_classes = {"n_classes": len(self.classes_)}
        if head is not None:
            head["margins"] = torch.as_tensor(self.margins_, dtype=torch.float32)
        with torch.device("meta"):
            networks: dict[str, nn.Module] = {
                "amplifier_": LinearNet(**n_classes, **adapter, activation="tanh")
            }
            classifier = LinearNet if head is None else MarginNet
            networks["module_"] = classifier(**head or n_classes, **adapter, activation="relu")
        for name, tensors in weights.items():
            setattr(self, name, load_weights(networks[name], tensors, name).eval())

    def _diagnose_classifier(self, samples: Samples) -> None:
        logits = self._run(self.module_, samples.X)
        accuracy = balanced_accuracy(samples.codes, logits)
        tilt = class_tilt(samples.codes, logits, samples.weight)
        self.diagnostics_ |= {"classifier_accuracy": accuracy, "class_tilt": tilt}
        chance = 1 / len(self.classes_)
        if self.loss_ == "cross_entropy":
            return
        if accuracy < chance:
            warnings.warn(
                f"The classifier gets {accuracy:.0%} of the training data right, less than the "
                f"{chance:.0%} of guessing: beside the bias there is too little of the classes in "
                "the features, and the correction turns predictions round. Use other features, or "
                "loss='cross_entropy'.",
                OvercorrectionWarning,
            )
        elif tilt > _LARGE_TILT:
            remedy = "lower the scale" if self.loss_ == "margin" else "take loss='cross_entropy'"
            warnings.warn(
                f"The classifier moves {tilt:.0%} of its training data from classes that it "
                "predicts less often than they occur to others. Where that is not wanted, "
                f"{remedy} or raise max_epochs.",
                OvercorrectionWarning,
            )

    @staticmethod
    def _validate_groups(sensitive_features: Any, n_samples: int) -> np.ndarray:
        """Codes of the groups, -1 where there is no label."""
        if sensitive_features is None:
            return np.full(n_samples, -1)
        codes = encode_groups(sensitive_features, n_samples=n_samples, missing="keep").codes
        if (codes < 0).all():
            raise ValueError(
                "sensitive_features is missing for every sample. Pass None to train without "
                "group labels, or label the samples that suggest_labels() names."
            )
        return codes

    def _train(
        self, name: str, module: type[nn.Module], samples: Samples, seed: int, **parameters: Any
    ) -> tuple[nn.Module, pd.DataFrame]:
        return train_network(
            module,
            samples,
            seed=seed,
            device=resolve_device(self.device),
            batch_size=self.batch_size,
            lr=min(1.28 / samples.X.shape[1], 1e-2) if self.lr == "auto" else self.lr,
            description=name if self.verbose else None,
            **parameters,
            **self._network_parameters,
        )

    def _amplify(self, samples: Samples, seed: int) -> None:
        """Stage 1."""
        n_classes = len(self.classes_)
        decay = self.amplifier_weight_decay
        decay = 0.7 / n_classes if decay == "auto" else decay
        unit = weight_decay_scale(
            samples.X,
            samples.codes,
            samples.weight,
            self._network_parameters["module__spread"].item(),
        )
        per_class = np.bincount(samples.codes, weights=samples.weight)
        self.amplifier_, self.history_["amplifier"] = self._train(
            "amplifier",
            LinearNet,
            samples,
            seed,
            weight=np.ones(len(samples)),
            max_epochs=self.amplifier_max_epochs,
            anneal=False,
            module__n_classes=n_classes,
            module__activation="tanh",
            optimizer__weight_decay=decay * unit,
            # Weights of the user and of the class balance set how often a sample is drawn.
            iterator_train__sampling_weight=as_tensor(samples.weight / per_class[samples.codes]),
        )

    def _cluster(
        self, samples: Samples, logits: np.ndarray, random_state: np.random.RandomState
    ) -> Samples:
        """Stage 2; returns the samples with their clusters and what a weighted loss needs."""
        n_classes = len(self.classes_)
        features = self._adapt(self.amplifier_, samples.X)
        self.diagnostics_ |= diagnose_amplifier(samples.codes, logits, features)
        amplified = self.cluster_on == "amplified"
        points = unit_rows(features) if amplified else self._cluster_space(samples.X)
        n_clusters = 4 * n_classes if self.n_clusters == "auto" else self.n_clusters
        self.cluster_centers_, self._cluster_sizes = cluster_features(
            points, samples.weight, n_clusters, random_state
        )
        clusters = nearest_centre(points, self.cluster_centers_)
        self.diagnostics_["normalized_mutual_info"] = float(
            normalized_mutual_info_score(samples.codes, clusters)
        )
        shares = class_shares(
            clusters, samples.codes, samples.weight, len(self.cluster_centers_), n_classes
        )
        adaptive = self.margin == "adaptive"
        self.margins_ = 1 - shares if adaptive else np.full_like(shares, _CONSTANT_MARGIN)
        boost = None
        if self.loss == "cluster_weighted":
            boost = 1 - shares[clusters, samples.codes]
        elif self.loss == "loss_weighted":
            boost = cross_entropies(samples.codes, logits)
        return replace(samples, clusters=clusters, boost=boost)

    def _adapt(self, network: Any, X: np.ndarray) -> np.ndarray:
        """The features of a network's adapter, float32."""
        with np.errstate(over="ignore"):  # becomes infinity, which is refused
            features = self._run(network.adapter, X).astype(np.float32, copy=False)
        check_logits(features)
        return features

    def _cluster_space(self, X: np.ndarray) -> np.ndarray:
        """The rows of unit length that are clustered."""
        if self.cluster_on == "amplified":
            return unit_rows(self._adapt(self.amplifier_, X))
        adapter: Any = self.amplifier_.adapter
        return unit_rows((X - adapter.mean.numpy(force=True)) / adapter.spread.numpy(force=True))

    def _assign(self, X: np.ndarray) -> np.ndarray:
        return nearest_centre(self._cluster_space(X), self.cluster_centers_)

    def _train_classifier(
        self, loss: str, samples: Samples, seed: int
    ) -> tuple[nn.Module, pd.DataFrame]:
        """Stage 3, or ordinary training; returns the network and its history."""
        n_classes = len(self.classes_)
        max_epochs = self.max_epochs
        if max_epochs == "auto":
            max_epochs = min(3 * n_classes, 20)
        if loss == "margin":
            module: type[nn.Module] = MarginNet
            head = {
                "module__margins": torch.as_tensor(self.margins_, dtype=torch.float32),
                "module__margin_std": self.margin_std,
                "module__scale": self.scale,
            }
        else:
            module = LinearNet
            head = {"module__n_classes": n_classes}
        weight = samples.weight
        if loss in ("cluster_weighted", "loss_weighted"):
            assert samples.boost is not None  # from the clusters
            # The floor keeps a cluster of one class in the data where all clusters are such.
            weight = weight * np.maximum(samples.boost, _LEAST_WEIGHT)
        return self._train(
            "classifier",
            module,
            samples,
            seed,
            weight=weight,
            max_epochs=max_epochs,
            module__activation="relu",
            optimizer__weight_decay=self.weight_decay,
            iterator_train__shuffle=True,
            anneal=True,
            **head,
        )

    def _choose_loss(
        self, samples: Samples, groups: np.ndarray, evidence: dict[str, Any], seed: int
    ) -> str:
        """Decide between `loss` and ordinary training by the group labels there are."""
        # Weighted losses correct no more than margins of the default scale.
        scale = self.scale if self.loss == "margin" else 4.0
        needed = evidence["accuracy_gap_needed"] = GAP_PER_SCALE * scale
        decision, reason = judge_by_gap(evidence, needed)
        held_out = hold_out(samples.codes, groups, seed)
        if held_out is not None:
            # The amplifier has seen the hold-out; that touches only the margins of the others.
            kept = samples.take(np.setdiff1d(np.arange(len(samples)), held_out))
            predicted = {
                loss: self._run(self._train_classifier(loss, kept, seed)[0], samples.X[held_out])
                for loss in ("cross_entropy", self.loss)
            }
            measured, verdict, why = judge_by_worst_group(
                samples.codes[held_out], predicted, groups[held_out]
            )
            evidence |= measured
            if verdict != "cannot tell":
                decision, reason = verdict, why
        self.diagnostics_ |= {**evidence, "decision": decision}
        if decision == "method":
            return self.loss
        message = f"Ordinary training was used instead of loss={self.loss!r}: {reason}"
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
        return "cross_entropy"
