"""skfair: reduce bias in trained models and image classifiers, the scikit-learn way."""

__version__ = "0.1.0"
