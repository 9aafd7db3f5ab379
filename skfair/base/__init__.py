"""The bases for estimators around torch networks."""

from skfair.base._classifier import TorchClassifier
from skfair.base._estimator import TorchEstimator

__all__ = ["TorchClassifier", "TorchEstimator"]
