"""Finding the estimators of the package, whatever parts it has."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

__all__ = ["all_estimators"]

_WITHOUT_ESTIMATORS = "skfair.estimator_checks"  # so that loading a model does not load the checks
_TYPES = {"classifier": ClassifierMixin, "transformer": TransformerMixin}


def all_estimators(type_filter: str | None = None) -> list[tuple[str, type]]:
    """List the public estimators of skfair.

    Parameters
    ----------
    type_filter : {"classifier", "transformer"}, default=None
        Which to list. None lists all; an estimator may be both.

    Returns
    -------
    list of tuple (str, type)
        Names and classes, sorted by name.

    Raises
    ------
    ValueError
        There is no such type.

    See Also
    --------
    sklearn.utils.all_estimators : The same for scikit-learn.

    Examples
    --------
    >>> from skfair.discovery import all_estimators
    >>> [name for name, _ in all_estimators("transformer")]
    ['ClusterMarginClassifier', 'FrozenEncoderFeaturizer', 'LogitAdjustedClassifier',
     'PatchAttributionMasker']
    """
    if type_filter is not None and type_filter not in _TYPES:
        raise ValueError(
            f"type_filter={type_filter!r} is not one of {sorted(_TYPES)}. Leave it None for all."
        )
    kind = BaseEstimator if type_filter is None else _TYPES[type_filter]
    found = {
        name: value
        for package in _public_packages([str(Path(__file__).parent)], "skfair.")
        for name in getattr(package, "__all__", ())
        if _is_public_estimator(name, value := getattr(package, name)) and issubclass(value, kind)
    }
    return sorted(found.items())


def _public_packages(path: Iterable[str], prefix: str) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(path, prefix):
        is_private = module.name.rpartition(".")[2].startswith("_")
        if module.ispkg and not is_private and module.name != _WITHOUT_ESTIMATORS:
            package = importlib.import_module(module.name)
            yield package
            yield from _public_packages(package.__path__, f"{module.name}.")


def _is_public_estimator(name: str, value: object) -> bool:
    return (
        not name.startswith("_")
        and inspect.isclass(value)
        and issubclass(value, BaseEstimator)
        and hasattr(value, "fit")  # the bases have none, or ask for a method
        and not inspect.isabstract(value)
    )
