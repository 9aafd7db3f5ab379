"""Real data, biased subsets, and files of features with labels and groups."""

from skfair.datasets._colored_digits import color_digits, make_colored_digits
from skfair.datasets._encoder import DigitsEncoder, load_digits_encoder
from skfair.datasets._features import load_features
from skfair.datasets._subsets import make_balanced_subset, make_biased_subset

__all__ = [
    "DigitsEncoder",
    "color_digits",
    "load_digits_encoder",
    "load_features",
    "make_balanced_subset",
    "make_biased_subset",
    "make_colored_digits",
]
