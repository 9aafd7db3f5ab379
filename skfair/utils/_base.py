"""The base of every classifier that trains a torch network: data in, probabilities out."""

import copy
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import nn

from skfair.utils._device import resolve_device
from skfair.utils._net import forward_batches

_PREDICT_BATCH = 8192


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """Classifier around a torch network that is trained on rows of features.

    A subclass trains ``module_``, a network from rows to ``len(classes_)`` logits, in its
    ``fit``; everything after that is here. Probabilities are the softmax of those logits in
    float64, so that they sum to one and agree with :meth:`predict`.
    """

    # Group labels reach `fit` through Pipeline and GridSearchCV without `set_fit_request`.
    __metadata_request__fit = {"sensitive_features": True}

    _parameter_constraints: dict = {
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _validate_training_data(
        self, X, y, sample_weight
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Check X, y and the weights; set ``classes_`` and ``n_features_in_``.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32
        codes : ndarray of shape (n_samples,), int64, the position of each label in ``classes_``
        weight : ndarray of shape (n_samples,), float32
        """
        resolve_device(self.device)  # an error there should not wait for the networks
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class only ({classes[0]!r}); a classifier needs samples of at least "
                "two classes."
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float32, ensure_non_negative=True)
        missing = classes[np.bincount(codes, weights=weight, minlength=len(classes)) == 0]
        if len(missing):
            raise ValueError(
                f"sample_weight is zero on every sample of class {missing[0]!r}. Leave that class "
                "out of X and y, or give its samples a weight."
            )
        self.classes_ = classes
        return X, codes, weight

    def _logits(self, X) -> np.ndarray:
        """Logits of shape (n_samples, n_classes), float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self._run(self.module_, X).astype(np.float64)

    def _run(self, module: nn.Module, X: np.ndarray) -> np.ndarray:
        device = resolve_device(self.device)
        return forward_batches(
            module.to(device), X, batch_size=_PREDICT_BATCH, device=device
        ).numpy()

    def decision_function(self, X) -> np.ndarray:
        """Compute the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float64
            With two classes, the logit of ``classes_[1]`` less that of ``classes_[0]``; with
            more, the logit of each class in the order of ``classes_``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X) -> np.ndarray:
        """Compute class probabilities, the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In the order of ``classes_``.
        """
        logits = self._logits(X)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def predict(self, X) -> np.ndarray:
        """Predict the class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from ``classes_``.
        """
        return self.classes_[self._logits(X).argmax(axis=1)]

    def __getstate__(self):
        # Networks travel on the CPU, so that a model fitted on a GPU opens anywhere.
        state = dict(super().__getstate__())
        for name, value in state.items():
            if isinstance(value, nn.Module) and name.endswith("_"):
                state[name] = copy.deepcopy(value).cpu()
        return state
