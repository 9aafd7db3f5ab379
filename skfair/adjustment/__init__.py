"""Frozen features to classes, adjusted for an attribute that is known, partly known or inferred."""

from skfair.adjustment._logit_adjusted import LogitAdjustedClassifier

__all__ = ["LogitAdjustedClassifier"]
