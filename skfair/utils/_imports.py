"""Optional dependencies: imported only when needed, with advice if they are not installed."""

import importlib
from types import ModuleType


def import_optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency or say how to install it.

    Parameters
    ----------
    module : str
        Dotted name of the module, for instance ``"onnxruntime"``.
    extra : str
        The extra of skfair that installs it, for instance ``"onnx"``.
    purpose : str
        Purpose of the module. The message of the error starts with it.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        The module is not installed.

    Examples
    --------
    >>> import_optional("json", extra="test", purpose="Reading JSON").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {module.split('.')[0]!r}, which is not installed. "
            f'Install it with: pip install "skfair-debias[{extra}]"'
        ) from error
