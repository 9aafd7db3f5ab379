"""Trained networks to fairer ones: the debiasers."""

from skfair.intraprocessing._random_perturbation import RandomPerturbationDebiaser
from skfair.intraprocessing._threshold import ThresholdDebiaser

__all__ = ["RandomPerturbationDebiaser", "ThresholdDebiaser"]
