"""The base of classifiers around torch networks, for those who write one."""

from skfair.base._classifier import TorchClassifier

__all__ = ["TorchClassifier"]
