"""The promises that every estimator keeps, as checks that anybody's estimator can be put to.

Each check is a function ``check_...(name, estimator)`` that raises where the promise, which is
its docstring, is not kept. What an estimator needs to be fitted is read off the estimator, as is
which promises are about it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from skfair.utils._checks import (  # noqa: F401  (each registers its checks)
    _construction,
    _copies,
    _failures,
    _groups,
    _inputs,
    _networks,
    _predictions,
    _reproducible,
)
from skfair.utils._checks._registry import CHECKS

if TYPE_CHECKING:
    import pytest

__all__ = ["check_estimator", "estimator_checks_generator", "parametrize_with_checks"]


def estimator_checks_generator(estimator: Any) -> Iterator[tuple[Any, functools.partial]]:
    """Yield the checks of all promises that are about an estimator.

    Parameters
    ----------
    estimator : object
        An instance with the parameters that it is to be checked with. It is not changed.

    Yields
    ------
    estimator : object
        The one that was given.
    check : functools.partial
        Takes the estimator; raises where it does not keep the promise.

    Examples
    --------
    >>> from skfair.margin import ClusterMarginClassifier
    >>> from skfair.utils.estimator_checks import estimator_checks_generator
    >>> checks = estimator_checks_generator(ClusterMarginClassifier(n_clusters=4))
    >>> estimator, check = next(checks)
    >>> check(estimator)
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"estimator is the class {estimator.__name__}. Pass an instance, with the parameters "
            "that it is to be checked with."
        )
    name = type(estimator).__name__
    for check in CHECKS:
        if check.applies(estimator):
            yield estimator, functools.partial(check.function, name)


def check_estimator(estimator: Any) -> list[str]:
    """Check that an estimator keeps all promises that are about it.

    The data are made up, a few dozen rows or images of the shape that the parameters and the
    networks in them take; trainings and searches are made short. The checks that scikit-learn
    has are not among these: see :func:`sklearn.utils.estimator_checks.check_estimator`.

    Parameters
    ----------
    estimator : object
        An instance with the parameters that it is to be checked with, of skfair or your own. It
        is not changed.

    Returns
    -------
    list of str
        Names of the checks, all of which it has passed.

    Raises
    ------
    AssertionError
        A promise is not kept; a note to the error says which. Errors of the estimator
        itself come as they are, with that note.
    TypeError
        `estimator` is a class.

    See Also
    --------
    parametrize_with_checks : A test for each check, with pytest.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import ThresholdDebiaser
    >>> from skfair.utils.estimator_checks import check_estimator
    >>> passed = check_estimator(ThresholdDebiaser(torch.nn.Linear(6, 1)))
    >>> "check_same_seed_same_bits" in passed
    True
    """
    passed = []
    for instance, check in estimator_checks_generator(estimator):
        check(instance)
        passed.append(check.func.__name__)
    return passed


def parametrize_with_checks(estimators: Sequence[Any]) -> "pytest.MarkDecorator":
    """Make a test for each estimator and each promise that is about it.

    Parameters
    ----------
    estimators : sequence of object
        Instances with the parameters that they are to be checked with.

    Returns
    -------
    pytest.MarkDecorator
        For a test function with the arguments ``estimator`` and ``check``.

    See Also
    --------
    check_estimator : All checks of one estimator, without pytest.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import ThresholdDebiaser
    >>> from skfair.utils.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([ThresholdDebiaser(torch.nn.Linear(6, 1))])
    ... def test_promises(estimator, check):
    ...     check(estimator)
    """
    import pytest

    pairs = [pair for estimator in estimators for pair in estimator_checks_generator(estimator)]
    ids = [f"{type(estimator).__name__}-{check.func.__name__}" for estimator, check in pairs]
    return pytest.mark.parametrize("estimator, check", pairs, ids=ids)
