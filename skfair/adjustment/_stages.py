"""Logit adjustment, how a fit goes: from no labels, some, or all to the offsets of the head."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skfair.adjustment._attributes import infer_attribute
from skfair.adjustment._head import (
    HiddenLayerNet,
    as_layer,
    first_projected,
    fit_hidden_layer,
    hidden_layer_is_better,
)
from skfair.adjustment._labels import conspicuous_order, random_order, random_part
from skfair.adjustment._linear import (
    Linear,
    balanced_weight,
    fit_softmax,
    log_softmax,
    principal_components,
    project,
)
from skfair.adjustment._twins import (
    Twins,
    class_counts,
    expected_counts,
    log_prior_given_guess,
    train_twins,
)
from skfair.base import TorchClassifier
from skfair.base._net import load_weights
from skfair.utils import FallbackWarning, Groups, draw_seed, encode_groups, resolve_device
from skfair.utils._shown import shown

_MOST_PROJECTED = 20_000  # samples, at random, from which components are computed
_STRENGTH, _STRENGTH_ALL = 0.75, 0.85
# Where all are labelled, a group weighs its share of its class to the power of minus this times the
# strength: some of the adjustment by weights is worth more than all of it by offsets.
_BALANCED = 0.3
_LINEAR_SHARE = 0.75  # of the offset of a head with a hidden layer, which follows it less
_ENOUGH = 10  # conflicting samples among the labels, from which the full strength is taken
_FLOOR = 1e-6  # of a probability in a logarithm
_MOST_UPWEIGHTED = 10.0
_LABELS_OF_A_CLASS = 10  # without a conflicting one among them, of which a group is absent


@dataclass(frozen=True)
class _Offsets:
    """What the head is trained with, and what was inferred.

    Attributes
    ----------
    log_prior : ndarray of shape (n_samples, n_classes)
        Log P(class | attribute), the attribute as far as it is known.
    strength : float
        Its factor, for a linear head.
    boost : ndarray of shape (n_samples,)
        Factor on the weight of each sample.
    attribute : Linear
        From projected rows to scores of the attribute values.
    posterior : ndarray of shape (n_samples, n_values)
        P(value) of each sample.
    prior : ndarray of shape (n_values, n_classes)
        P(class | value).
    surprise : ndarray of shape (n_samples,)
        The larger, the more is a label of the sample worth.
    """

    log_prior: np.ndarray
    strength: float
    boost: np.ndarray
    attribute: Linear
    posterior: np.ndarray
    prior: np.ndarray
    surprise: np.ndarray


class LogitAdjustmentStages(TorchClassifier):
    """What ``LogitAdjustedClassifier`` does in ``fit``; its parameters are documented there."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, sensitive_features: Any) -> None:
        X, codes, weight = self._validate_training_data(X, y, sample_weight)
        groups = self._validate_groups(sensitive_features, codes, weight)
        random_state = check_random_state(self.random_state)
        rows = np.flatnonzero(weight)
        values = groups.codes[rows]
        n_samples, codes, weight = len(X), codes[rows], weight[rows]
        X = X if len(rows) == len(X) else X[rows]
        order = random_order(X)
        at_random = random_part(values >= 0, order)

        n_components = min(self.n_components, X.shape[1], max(1, len(X) - 1))
        some = order[:_MOST_PROJECTED] if len(X) > _MOST_PROJECTED else slice(None)
        projection = principal_components(X[some], weight[some], n_components, random_state)
        Z = project(projection, X)
        self._projection = projection

        self.attribute_values_ = list(groups.labels)
        self.diagnostics_: dict[str, Any] = {
            "n_labelled": int((values >= 0).sum()),
            "n_labelled_at_random": int(at_random.sum()),
            "n_labelled_conflicting": 0,
        }
        offsets = self._infer(Z, codes, weight, values, at_random, random_state)
        self.prior_ = offsets.prior
        self.expected_counts_ = expected_counts(offsets.posterior, codes, weight)
        self._attribute = offsets.attribute.after(projection)

        against = _rare(offsets.prior)
        conflicts = (offsets.posterior * against.T[codes]).sum(axis=1)
        self.diagnostics_["n_conflicting"] = float(conflicts.sum())
        self.conflicting_ = np.zeros(n_samples, dtype=bool)
        self.conflicting_[rows] = conflicts > 0.5

        unlabelled = values < 0
        self._random_order = rows[order[unlabelled[order]]]
        order = conspicuous_order(offsets.surprise, codes)
        self._conspicuous_order = rows[order[unlabelled[order]]]

        self._train_head(Z, codes, weight, offsets, random_state)

    def _validate_groups(
        self, sensitive_features: Any, codes: np.ndarray, weight: np.ndarray
    ) -> Groups:
        """Groups of the samples that take part; others and those without label have code -1."""
        if sensitive_features is None:
            return Groups(np.full(len(codes), -1), (), ())
        groups = encode_groups(sensitive_features, n_samples=len(codes), missing="keep")
        known = (groups.codes >= 0) & (weight > 0)
        if not known.any():
            raise ValueError(
                "sensitive_features is missing for every sample that has a weight. Pass None to "
                "train without labels, or label the samples that suggest_labels() names."
            )
        labelled = np.unique(codes[known])
        if len(labelled) == 1:
            raise ValueError(
                "sensitive_features is known for samples of one class only "
                f"({shown(self.classes_.tolist()[labelled[0]])}), which does not tell how the "
                "groups go along with the classes. Label samples of the other classes, too, for "
                "instance those that suggest_labels() names."
            )
        present, codes = np.unique(groups.codes[known], return_inverse=True)
        if 2 * len(present) > known.sum() and len(present) > 1:
            raise ValueError(
                f"sensitive_features has {len(present)} different values in {known.sum()} labels: "
                "too few of each to learn from. Label more samples, or put values together."
            )
        renamed = np.full(len(known), -1)
        renamed[known] = codes
        return Groups(renamed, tuple(groups.labels[i] for i in present), groups.names)

    def _infer(
        self,
        Z: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        values: np.ndarray,
        at_random: np.ndarray,
        random_state: np.random.RandomState,
    ) -> _Offsets:
        n_values = values.max() + 1
        if n_values == 1:
            warnings.warn(
                f"All {(values >= 0).sum()} labels in sensitive_features are "
                f"{shown(self.attribute_values_[0])}: nothing that differs from sample to sample "
                "goes along with the classes by them. Ordinary training was used.",
                FallbackWarning,
            )
        if (values >= 0).all() or n_values == 1:
            return self._known(Z, codes, weight, np.maximum(values, 0))
        twins = train_twins(Z, codes, weight, self.ridge, random_state)
        if n_values == 0:
            self.attribute_values_ = self.classes_.tolist()
            return self._unknown(codes, weight, twins)
        return self._partly_known(Z, codes, weight, values, at_random, twins)

    def _known(
        self, Z: np.ndarray, codes: np.ndarray, weight: np.ndarray, values: np.ndarray
    ) -> _Offsets:
        """All samples are labelled."""
        n_classes, n_values = len(self.classes_), values.max() + 1
        counts = class_counts(values, codes, weight, n_values, n_classes) + 1
        within = counts / counts.sum(axis=0)
        prior = within / within.sum(axis=1, keepdims=True)
        model = Linear(np.zeros((1, Z.shape[1])), np.zeros(1))
        if n_values > 1:
            balanced = balanced_weight(values, weight)
            model = fit_softmax(Z, values, balanced, n_values, ridge=self.ridge)
        usual = counts.argmax(axis=0)
        n_conflicting = int((values != usual[codes]).sum())
        self.diagnostics_["n_labelled_conflicting"] = n_conflicting
        strength = _STRENGTH_ALL if self.strength == "auto" else self.strength
        if not n_conflicting:
            if strength and n_values > 1:
                warnings.warn(_none_conflicts(len(values)), FallbackWarning)
            strength = 0.0
        boost = within ** (-_BALANCED * min(1, strength))
        boost /= (within * boost).sum(axis=0)  # classes weigh what they did
        return _Offsets(
            np.log(prior)[values],
            strength,
            boost[values, codes],
            model,
            np.eye(n_values)[values],
            prior,
            np.ones(len(Z)),
        )

    def _unknown(self, codes: np.ndarray, weight: np.ndarray, twins: Twins) -> _Offsets:
        """No sample is labelled: the class that twins predict stands for the attribute."""
        n_classes = len(self.classes_)
        log_priors = [
            log_prior_given_guess(guess, codes, weight, n_classes) for guess in twins.predicted
        ]
        posterior = np.mean([np.eye(n_classes)[guess] for guess in twins.predicted], axis=0)
        within = expected_counts(posterior, codes, weight)
        within /= within.sum(axis=0)
        totals = within.sum(axis=1, keepdims=True)
        prior = np.where(totals > 0, within / np.where(totals > 0, totals, 1), 1 / n_classes)
        return _Offsets(
            np.mean(log_priors, axis=0),
            _STRENGTH if self.strength == "auto" else self.strength,
            np.ones(len(codes)),
            twins.mean,
            posterior,
            prior,
            -log_softmax(twins.logits)[np.arange(len(codes)), codes],
        )

    def _partly_known(
        self,
        Z: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        values: np.ndarray,
        at_random: np.ndarray,
        twins: Twins,
    ) -> _Offsets:
        n_classes = len(self.classes_)
        attribute = infer_attribute(Z, codes, weight, values, at_random, twins.logits, twins.mean)
        rows = np.flatnonzero(values >= 0)
        n_labels, n_found = len(rows), int(attribute.conflicting.sum())
        self.diagnostics_["n_labelled_conflicting"] = n_found
        wanted = _STRENGTH if self.strength == "auto" else self.strength
        strength = wanted * min(1, n_found / _ENOUGH)
        if wanted and not n_found:
            more = "Label more of the samples that suggest_labels() names."
            warnings.warn(f"{_none_conflicts(n_labels)} {more}", FallbackWarning)
        log_prior = np.log(attribute.softened @ attribute.prior + _FLOOR)

        boost = np.ones(len(codes))
        found = rows[attribute.conflicting]
        per_class = np.bincount(codes[found], minlength=n_classes)
        asked = np.bincount(codes[rows[~at_random[rows]]], minlength=n_classes)
        if not ((asked >= _LABELS_OF_A_CLASS) & (per_class == 0)).any():
            most = _MOST_UPWEIGHTED * (1 - n_labels / len(codes))
            sizes = np.bincount(codes, minlength=n_classes)
            factor = np.clip(sizes / np.maximum(per_class, 1), 1, max(1, most))[codes[found]]
            against = (1 - n_classes * attribute.prior[values[found], codes[found]]).clip(min=0)
            boost[found] += against * (factor - 1)
            boost **= min(1, wanted / _STRENGTH)  # of strength 0, ordinary training is left
        against = _rare(attribute.prior)
        return _Offsets(
            log_prior,
            strength,
            boost,
            attribute.model,
            attribute.posterior,
            attribute.prior,
            (attribute.posterior * against.T[codes]).sum(axis=1),
        )

    def _train_head(
        self,
        Z: np.ndarray,
        codes: np.ndarray,
        weight: np.ndarray,
        offsets: _Offsets,
        random_state: np.random.RandomState,
    ) -> None:
        device = resolve_device(self.device)
        n_classes = len(self.classes_)
        self.head_ = self.head
        if self.head == "auto":
            better = hidden_layer_is_better(
                Z, codes, weight, ridge=self.ridge, random_state=random_state, device=device
            )
            self.head_ = "mlp" if better else "linear"
        strength = offsets.strength
        if self.head_ == "mlp" and self.strength == "auto":
            strength = min(1, strength / _LINEAR_SHARE)
        self.diagnostics_["strength"] = float(strength)
        offset = strength * offsets.log_prior
        balanced = balanced_weight(codes, weight) * offsets.boost
        seed = draw_seed(random_state)  # for either head, so that a RandomState moves on
        if self.head_ == "linear":
            linear = fit_softmax(Z, codes, balanced, n_classes, ridge=self.ridge, offset=offset)
            linear = linear.after(self._projection)
            self.coef_, self.intercept_ = linear.coef, linear.intercept
            self.module_: nn.Module = as_layer(linear)
            return
        head = fit_hidden_layer(
            Z,
            codes,
            balanced,
            offset,
            seed=seed,
            device=device,
            description="classifier" if self.verbose else None,
        )
        self.module_ = first_projected(head, self._projection)

    def _logits(self, X: Any) -> np.ndarray:
        if getattr(self, "head_", None) == "linear":
            return Linear(self.coef_, self.intercept_)(self._validate_features(X))
        return super()._logits(X)

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        for name in ("_projection", "_attribute"):
            state[name] = vars(state[name]).copy()
        module = state.pop("module_")
        if self.head_ == "mlp":
            state["module_"] = dict(module.state_dict())
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        for name in ("_projection", "_attribute"):
            state[name] = Linear(**state[name])
        weights = state.pop("module_", None)
        self.__dict__.update(state)
        if weights is None:
            self.module_ = as_layer(Linear(self.coef_, self.intercept_))
            return
        with torch.device("meta"):
            layers = HiddenLayerNet(self.n_features_in_, len(self.classes_)).layers
        self.module_ = load_weights(layers, weights, "module_").eval()


def _none_conflicts(n_labels: int) -> str:
    return (
        f"In each class, all of the {n_labels} labels in sensitive_features have one value: by "
        "them there is no sample in which something else goes along with the class. Ordinary "
        "training was used."
    )


def _rare(prior: np.ndarray) -> np.ndarray:
    """Where a class is less frequent given a value than by chance, and not by rounding only."""
    return prior * prior.shape[1] < 1 - 1e-9
