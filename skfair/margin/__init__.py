"""Classify frozen features that carry a bias."""

from skfair.margin._cluster_margin import ClusterMarginClassifier

__all__ = ["ClusterMarginClassifier"]
