"""Promises about the constructor, its parameters, and their documentation."""

import inspect
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import (
    generate_invalid_param_val,
    make_constraint,
)

from skfair.estimator_checks._case import fit_on, make_case
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    assert_unchanged,
    fitted_attributes,
    module_calls,
    output_methods,
)


@promise()
def check_constructor(name: str, estimator: Any) -> None:
    """The constructor stores its arguments unchanged and does nothing else."""
    parameters = list(inspect.signature(type(estimator)).parameters.values())
    kinds = {p.kind for p in parameters[1:]}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}, (
        f"{name}() takes arguments after the first by position, or *args or **kwargs. Make them "
        "keyword-only, each with its name."
    )
    given = {p.name: object() for p in parameters}
    made = type(estimator)(**given)
    missing, other = given.keys() - vars(made).keys(), vars(made).keys() - given.keys()
    assert not missing, f"{name}() does not store its arguments {sorted(missing)}."
    assert not other, f"{name}() sets {sorted(other)}, which are not arguments of the constructor."
    for parameter, value in given.items():
        assert getattr(made, parameter) is value, f"{name}() changes {parameter}."


@promise()
def check_parameters_get_and_set(name: str, estimator: Any) -> None:
    """``get_params`` returns the constructor's arguments, and ``set_params`` sets them."""
    parameters = estimator.get_params(deep=False)
    assert list(parameters) == sorted(inspect.signature(type(estimator)).parameters)
    fresh = clone(estimator)
    for parameter in parameters:
        value = object()
        assert fresh.set_params(**{parameter: value}) is fresh
        assert fresh.get_params(deep=False)[parameter] is value
        assert getattr(fresh, parameter) is value
    try:
        fresh.set_params(no_such_parameter=1)
    except ValueError as error:
        said = str(error)
    else:
        raise AssertionError(f"{name}.set_params accepts a parameter that does not exist.")
    assert "no_such_parameter" in said


@promise()
def check_documented(name: str, estimator: Any) -> None:
    """Every parameter and every fitted attribute is documented."""
    text = inspect.getdoc(type(estimator)) or ""
    entries = set()
    for line in text.splitlines():
        if " : " in line and not line.startswith(" "):
            entries |= {entry.strip() for entry in line.split(" : ")[0].split(",")}
    wanted = {*estimator.get_params(deep=False), *fitted_attributes(make_case(estimator).fit())}
    assert wanted <= entries, f"The docstring of {name} lacks {sorted(wanted - entries)}."


@promise(lambda estimator: hasattr(estimator, "_parameter_constraints"))
def check_bad_parameters_are_refused_first(name: str, estimator: Any) -> None:
    """A bad parameter is refused by name, before a network runs or an attribute is set."""
    case = make_case(estimator)
    all_constraints = estimator._parameter_constraints
    for parameter in case.estimator.get_params(deep=False):
        constraints = [make_constraint(c) for c in all_constraints.get(parameter, ())]
        bad = [object()]
        for constraint in constraints:
            with suppress(NotImplementedError):  # the constraint allows any value of the type
                bad.append(generate_invalid_param_val(constraint))
        for value in bad:
            if any(constraint.is_satisfied_by(value) for constraint in constraints):
                continue  # another constraint allows this value
            tried = case.with_parameters(**{parameter: value}).estimator
            before = dict(vars(tried))
            with module_calls() as called:
                try:
                    fit_on(tried, case)
                except (ValueError, TypeError) as error:
                    said = str(error)
                except Exception as error:
                    raise AssertionError(
                        f"{name} uses {parameter}={value!r} before it validates the value: "
                        f"{type(error).__name__}: {error}"
                    ) from error
                else:
                    raise AssertionError(f"fit of {name} accepts {parameter}={value!r}.")
            assert parameter in said, f"The error does not name {parameter}={value!r}: {said}"
            assert not called, (
                f"{name} refuses {parameter}={value!r} only after {len(called)} module calls."
            )
            assert_unchanged(before, tried, f"A fit of {name} with {parameter}={value!r}")


@promise()
def check_needs_a_fit(name: str, estimator: Any) -> None:
    """Before ``fit``, a method that needs a fit raises ``NotFittedError``."""
    case = make_case(estimator)
    methods = output_methods(case.estimator)
    assert methods, f"{name} has no public method that takes X alone."
    calls: dict[str, tuple] = dict.fromkeys(methods, (case.X,))
    if hasattr(estimator, "to_module"):
        calls["to_module"] = ()
    for method, arguments in calls.items():
        try:
            getattr(case.estimator, method)(*arguments)
        except NotFittedError:
            continue
        raise AssertionError(f"{name}.{method} raises no NotFittedError before fit.")


@promise()
def check_data_are_left_alone(name: str, estimator: Any) -> None:
    """Fitting and predicting do not change the data that they get."""
    case = make_case(estimator)
    given = [case.X, case.y, *case.fit_params.values()]
    before = [value.copy() for value in given]
    fitted = case.fit()
    for method in output_methods(fitted):
        getattr(fitted, method)(case.X)
    for value, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(value, kept, err_msg=f"{name} changes its input.")
