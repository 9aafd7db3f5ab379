"""scikit-learn's decorators with types. Without types, checkers see decorated functions as Any."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    Function = TypeVar("Function", bound=Callable[..., Any])

    def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Function], Function]: ...

    def validate_params(
        parameter_constraints: dict[str, Any], *, prefer_skip_nested_validation: bool
    ) -> Callable[[Function], Function]: ...

    def available_if(check: Callable[[Any], bool]) -> Callable[[Function], Function]: ...

else:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils import _param_validation
    from sklearn.utils.metaestimators import available_if

    from skfair.utils._random_state import refuse_generator

    def validate_params(parameter_constraints, *, prefer_skip_nested_validation):
        """Do the same as scikit-learn's decorator, with advice for generators as random_state."""

        def decorate(function):
            checked = _param_validation.validate_params(
                parameter_constraints,
                prefer_skip_nested_validation=prefer_skip_nested_validation,
            )(function)

            @functools.wraps(function)
            def call(*args, **kwargs):
                refuse_generator(kwargs.get("random_state"))  # it is keyword-only everywhere
                return checked(*args, **kwargs)

            return call

        return decorate


__all__ = ["available_if", "fit_context", "validate_params"]
