"""Saved estimators: the classes that a file may name, which are the only ones that are made."""

import importlib
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.preprocessing import OneHotEncoder
from torch import nn

from skfair.utils._discovery import all_estimators
from skfair.utils._persistence._files import InvalidModelError

# Those whose fitted state is numbers, names and other such estimators, and whose predictions
# are NumPy's. Trees and kernel machines hold tables that compiled code follows blindly: a file
# made to do harm could make it read anywhere.
_SKLEARN = {
    "sklearn.compose": ["ColumnTransformer"],
    "sklearn.decomposition": ["PCA", "TruncatedSVD"],
    "sklearn.discriminant_analysis": ["LinearDiscriminantAnalysis"],
    "sklearn.dummy": ["DummyClassifier"],
    "sklearn.feature_selection": ["VarianceThreshold"],
    "sklearn.frozen": ["FrozenEstimator"],
    "sklearn.impute": ["SimpleImputer"],
    "sklearn.kernel_approximation": ["Nystroem", "RBFSampler"],
    "sklearn.linear_model": ["LogisticRegression", "LogisticRegressionCV", "RidgeClassifier"],
    "sklearn.model_selection": ["FixedThresholdClassifier"],
    "sklearn.naive_bayes": ["GaussianNB"],
    "sklearn.pipeline": ["FeatureUnion", "Pipeline"],
    "sklearn.preprocessing": [
        "Binarizer",
        "FunctionTransformer",
        "KBinsDiscretizer",
        "LabelBinarizer",
        "LabelEncoder",
        "MaxAbsScaler",
        "MinMaxScaler",
        "Normalizer",
        "OneHotEncoder",
        "OrdinalEncoder",
        "PolynomialFeatures",
        "PowerTransformer",
        "QuantileTransformer",
        "RobustScaler",
        "StandardScaler",
    ],
    "sklearn.random_projection": ["GaussianRandomProjection"],
}
_MODULES = {"DigitsEncoder": "skfair.datasets"}


def sklearn_classes() -> list[str]:
    """List the estimators of scikit-learn that can be saved, as ``module.Name``."""
    return [f"{module}.{name}" for module, names in _SKLEARN.items() for name in names]


def estimator_class(name: str) -> type[Any] | None:
    """Find the class of an estimator by its name.

    Parameters
    ----------
    name : str
        As :func:`class_name` gives it.

    Returns
    -------
    type or None
        None for any name that is not on the list.
    """
    module, _, short = name.rpartition(".")
    if module == "skfair":
        return dict(all_estimators()).get(short)
    if short in _SKLEARN.get(module, ()):
        return getattr(importlib.import_module(module), short)
    return None


def class_name(cls: type) -> str:
    """Name a class by the package from which users import it.

    Parameters
    ----------
    cls : type

    Returns
    -------
    str
        "skfair.Name", "sklearn.module.Name" or, for all others, where it was defined.
    """
    parts = cls.__module__.split(".")
    n_parts = {"skfair": 1, "sklearn": 2}.get(parts[0], len(parts))
    return ".".join([*parts[:n_parts], cls.__qualname__])


def module_class(name: str) -> type[nn.Module] | None:
    """Find a network class of skfair that is made without arguments; None for any other name."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return None


def module_name(module: nn.Module) -> str | None:
    """Name a network of such a class; None for any other."""
    name = type(module).__name__
    return name if module_class(name) is type(module) else None


def check_state(estimator: BaseEstimator) -> None:
    """Refuse fitted state that compiled code would follow out of an array.

    Parameters
    ----------
    estimator : estimator
        Of a class of scikit-learn that is on the list; of any other nothing is checked.

    Raises
    ------
    InvalidModelError
        The columns of a ``OneHotEncoder`` are not those of its categories. Infrequent
        categories, which make columns in other ways, are refused as well.
    """
    if not isinstance(estimator, OneHotEncoder) or not hasattr(estimator, "categories_"):
        return
    sizes = [len(categories) for categories in estimator.categories_]
    dropped = estimator._drop_idx_after_grouping
    dropped = [None] * len(sizes) if dropped is None else list(dropped)
    n_columns = [size - (drop is not None) for size, drop in zip(sizes, dropped, strict=True)]
    consistent = (
        not estimator._infrequent_enabled
        and list(estimator._n_features_outs) == n_columns
        and all(d is None or 0 <= d < n for d, n in zip(dropped, sizes, strict=True))
        and all(map(_is_sorted, estimator.categories_))
    )
    if not consistent:
        raise InvalidModelError(
            "This OneHotEncoder has columns that do not follow from its categories alone, as with "
            "min_frequency and max_categories, or in a file that was made up."
        )


def _is_sorted(categories: np.ndarray) -> bool:
    """Whether a bisection finds each category; text is looked up in a dict instead."""
    if categories.dtype.kind in "OUS":
        return True
    known = (
        categories[:-1] if categories.dtype.kind == "f" and np.isnan(categories[-1]) else categories
    )
    return bool((np.diff(known.astype(np.float64)) > 0).all())
