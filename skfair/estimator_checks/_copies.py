"""Promises about copies: a copy of a fitted estimator gives the same results."""

import copy
import functools
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
from sklearn.base import clone

from skfair.discovery import all_estimators
from skfair.estimator_checks._case import find_module, fit_on, make_case
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import assert_same_fit
from skfair.persistence import load, save
from skfair.persistence._files import read_model


@promise()
def check_clone(name: str, estimator: Any) -> None:
    """A clone has the same parameters, no other attributes, and fits the same."""
    case = make_case(estimator)
    fitted = case.fit()
    fresh = clone(fitted)
    assert vars(fresh).keys() == fitted.get_params(deep=False).keys(), (
        f"A clone of {name} has attributes that are not parameters."
    )
    assert_same_fit(fitted, fit_on(fresh, case), case.X)


def _check_copy(name: str, estimator: Any, way: Callable[[Any], Any]) -> None:
    case = make_case(estimator)
    fitted = case.fit()
    copied = way(fitted)
    assert vars(copied).keys() == vars(fitted).keys()
    assert_same_fit(fitted, copied, case.X)
    assert_same_fit(fitted, fit_on(copied, case), case.X)  # it can still be fitted


@promise()
def check_pickle(name: str, estimator: Any) -> None:
    """A pickled and restored estimator gives the same bits, and can be fitted again."""
    _check_copy(name, estimator, lambda fitted: pickle.loads(pickle.dumps(fitted)))


@promise()
def check_deepcopy(name: str, estimator: Any) -> None:
    """A deep copy of a fitted estimator gives the same bits, and can be fitted again."""
    _check_copy(name, estimator, copy.deepcopy)


@promise()
def check_joblib(name: str, estimator: Any) -> None:
    """A joblib file restores the same bits, also with memory-mapped arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"

        def way(fitted: Any) -> Any:
            joblib.dump(fitted, path)
            return joblib.load(path, mmap_mode="r")

        _check_copy(name, estimator, way)


def _is_saved(estimator: Any) -> bool:
    return dict(all_estimators()).get(type(estimator).__name__) is type(estimator)


def _as_new(value: Any) -> Any:
    """Return what a factory makes for a parameter: the same network with other weights."""
    made = copy.deepcopy(value)
    module = find_module(made)
    for weight in module.state_dict().values() if module is not None else ():
        weight.zero_()
    return made


@promise(_is_saved)
def check_saving(name: str, estimator: Any) -> None:
    """A saved and loaded model gives the same bits, and can be fitted again."""
    with tempfile.TemporaryDirectory() as folder:

        def way(fitted: Any) -> Any:
            save(fitted, folder, training_rows=True)
            made, _ = read_model(Path(folder))
            parameters = fitted.get_params(deep=True)
            return load(
                folder,
                factories={
                    key: functools.partial(_as_new, parameters[key])
                    for key in made["made_by_caller"]
                },
            )

        _check_copy(name, estimator, way)
