"""Classify frozen features by logit adjustment, with an attribute that is known or inferred."""

from skfair.adjustment._logit_adjusted import LogitAdjustedClassifier

__all__ = ["LogitAdjustedClassifier"]
