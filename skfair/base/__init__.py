"""The bases of estimators around torch networks, for those who write one."""

from skfair.base._classifier import TorchClassifier
from skfair.base._estimator import TorchEstimator

__all__ = ["TorchClassifier", "TorchEstimator"]
