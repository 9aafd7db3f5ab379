"""Frozen features to debiased classes."""

from skfair.margin._cluster_margin import ClusterMarginClassifier

__all__ = ["ClusterMarginClassifier"]
