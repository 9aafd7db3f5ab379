"""Names that a package imports at their first use, so that only code that uses torch loads it."""

import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Python's import fails in threads that import modules which import each other, as those of
# scikit-learn do. No module of skfair may use a lazy name while Python imports the module: its
# thread would hold the lock of the module, and another thread this one.
_IMPORT = threading.RLock()


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions ``__getattr__`` and ``__dir__`` of a package, as PEP 562 defines them.

    Parameters
    ----------
    package : str
        Name of the package.
    modules : mapping of str to sequence of str
        For each module in the package: the names that the package takes from the module. The
        module itself becomes an attribute of the package, too.

    Returns
    -------
    __getattr__ : callable
        Imports a name or a module. Raises AttributeError for any other name.
    __dir__ : callable
        Lists the names, the modules, and all other members of the package.

    Examples
    --------
    >>> get, _ = lazy_names("skfair", {"margin": ["ClusterMarginClassifier"]})
    >>> get("margin").__name__, get("ClusterMarginClassifier").__name__
    ('skfair.margin', 'ClusterMarginClassifier')
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> Any:
        module = module_of.get(name, name)
        if module not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            with _IMPORT:
                found = importlib.import_module(f"{package}.{module}")
        except AttributeError as error:
            # Python would take an AttributeError for a missing name, and hide the reason.
            raise ImportError(f"{package}.{module} cannot be imported: {error}") from error
        return found if module == name else getattr(found, name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules, *module_of})

    return __getattr__, __dir__
