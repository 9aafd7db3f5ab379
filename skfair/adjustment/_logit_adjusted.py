"""Logit adjustment by an attribute that is inferred: the classifier."""

import copy
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skfair.adjustment._stages import LogitAdjustmentStages
from skfair.utils._typed import fit_context


class LogitAdjustedClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, LogitAdjustmentStages
):
    """TODO."""

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "strength": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "head": [StrOptions({"auto", "linear", "mlp"})],
        **{
            name: LogitAdjustmentStages._parameter_constraints[name]
            for name in ("device", "random_state", "verbose")
        },
    }

    def __init__(
        self,
        n_components: int = 256,
        *,
        strength: float | Literal["auto"] = "auto",
        ridge: float = 0.02,
        head: str = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.strength = strength
        self.ridge = ridge
        self.head = head
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sensitive_features: Any = None,
    ) -> Self:
        """TODO."""
        with self._fresh_fit():
            self._fit(X, y, sample_weight, sensitive_features)
        return self

    def suggest_labels(self, n: int = 50) -> np.ndarray:
        """TODO."""
        check_is_fitted(self)
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r} must be a positive integer, the number of samples to label.")
        if not hasattr(self, "_random_order"):
            raise ValueError(
                "This model was saved without row numbers of its training data, which are what "
                "suggest_labels names. Save it with skfair.save(..., training_rows=True), or fit "
                "again."
            )
        random = self._random_order[: n // 2]
        order = self._conspicuous_order
        others = order[~np.isin(order, random)][: n - len(random)]
        return np.concatenate([random, others])

    def attribute_proba(self, X: ArrayLike) -> np.ndarray:
        """TODO."""
        X = self._validate_features(X)
        return softmax(self._attribute(X), axis=1)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """TODO."""
        return self._projection(self._validate_features(X)).astype(np.float32)

    def to_module(self) -> torch.nn.Module:
        """TODO."""
        check_is_fitted(self)
        return copy.deepcopy(self.module_) if self.head_ == "mlp" else self._linear_module()

    @property
    def _n_features_out(self) -> int:
        return len(self._projection.coef)
