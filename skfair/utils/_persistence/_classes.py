"""Saved estimators: the classes that a file may name, which are the only ones that are made."""

import importlib

from torch import nn

from skfair.utils._discovery import all_estimators

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


def estimator_class(name: str) -> type | None:
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
