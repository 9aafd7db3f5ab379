"""Public methods that run with settings of their own, and fits that hold or leave no trace."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from skfair.utils._settings import own_settings, with_own_settings

_FITS = ("fit", "fit_transform")
# The estimators (by id) that this thread is fitting: a fit that calls the fit of its base is one.
_BEING_FITTED: ContextVar[frozenset[int]] = ContextVar("being_fitted", default=frozenset())


class FreshFit:
    """Mixin for estimators: it wraps the public methods of each subclass.

    All of them run as :func:`own_settings` runs a block. A ``fit`` or ``fit_transform`` starts
    without the attributes of an earlier fit. Where it raises, an interrupt included, the estimator
    is again what it was before.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith(("_", "get_", "set_")):
                wrap = _fitting_fresh if name in _FITS else with_own_settings
                setattr(cls, name, wrap(method))
        super().__init_subclass__(**kwargs)


def _fitting_fresh(fit: Callable) -> Callable:
    @functools.wraps(fit)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with own_settings(), _fresh(self):
            return fit(self, *args, **kwargs)

    return run


@contextmanager
def _fresh(estimator: Any) -> Iterator[None]:
    outer = _BEING_FITTED.get()
    if id(estimator) in outer:
        yield
        return
    before = dict(vars(estimator))
    for name in before:
        if name.endswith("_") and not name.startswith("__"):
            delattr(estimator, name)
    token = _BEING_FITTED.set(outer | {id(estimator)})
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
    finally:
        _BEING_FITTED.reset(token)
