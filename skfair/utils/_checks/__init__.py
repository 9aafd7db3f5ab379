"""The checks behind :mod:`skfair.utils.estimator_checks`, one module for each kind of promise."""
