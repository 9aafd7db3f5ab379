"""Promises about ``sensitive_features``: its forms, its errors, and its way through a search."""

import importlib.util
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skfair.estimator_checks._case import Case, make_case, takes_groups
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    assert_identical,
    assert_same_fit,
    fitted_attributes,
    module_calls,
    outputs,
)


def _forms_of_one(codes: np.ndarray) -> Iterator[tuple[str, Any]]:
    words = np.array(["f", "m"])[codes]
    index = np.arange(len(codes))[::-1] + 1000
    yield "a list of strings", words.tolist()
    yield "a tuple of strings", tuple(words.tolist())
    yield "an array of objects", words.astype(object)
    yield "a Series with another index", pd.Series(words, index=index, name="sex")
    yield "a categorical Series", pd.Series(words, dtype="category")
    yield "a categorical with unused categories", pd.Categorical(words, ["x", "m", "f"])
    yield "a DataFrame", pd.DataFrame({"sex": words}, index=index)
    yield "a dict", {"sex": words}
    yield "integers", codes
    yield "integers that do not start at zero", codes * 7 + 3
    yield "a list of integers", codes.tolist()
    yield "booleans", codes.astype(bool)
    yield "a column", words[:, None]
    yield "a tensor", torch.from_numpy(codes)
    if importlib.util.find_spec("polars"):
        import polars as pl

        yield "a polars Series", pl.Series("sex", words.tolist())
        yield "a polars DataFrame", pl.DataFrame({"sex": words.tolist()})


def _forms_of_two(codes: np.ndarray) -> Iterator[tuple[str, Any]]:
    # Both columns hold the same information, so the number of groups stays the same.
    words, old = np.array(["f", "m"])[codes], codes.astype(bool)
    yield "a DataFrame of two columns", pd.DataFrame({"sex": words, "old": old})
    yield "a dict of two columns", {"sex": words, "old": old}
    yield "an array of two columns", np.column_stack([codes, codes])
    yield "a list of tuples", list(zip(words.tolist(), old.tolist(), strict=True))
    if importlib.util.find_spec("polars"):
        import polars as pl

        yield (
            "a polars DataFrame of two columns",
            pl.DataFrame({"sex": words.tolist(), "old": old.tolist()}),
        )


@promise(takes_groups)
def check_group_forms(name: str, estimator: Any) -> None:
    """Groups as list, array, Series, DataFrame, dict or tensor, with any labels, fit the same."""
    case = make_case(estimator)
    codes = (case.groups == "m").astype(np.int64)
    _compare_groups(name, case, case.groups, [*_forms_of_one(codes), *_forms_of_two(codes)])


def _compare_groups(name: str, case: Case, groups: Any, forms: list[tuple[str, Any]]) -> None:
    base = case.fit(sensitive_features=groups)
    expected, found = outputs(base, case.X), _learnt(base)
    for what, form in forms:
        fitted = case.fit(sensitive_features=form)
        where = f"{name} where the groups are {what}"
        assert_identical(expected, outputs(fitted, case.X), f"outputs of {where}")
        assert_identical(found, _learnt(fitted), f"fitted attributes of {where}")


def _learnt(fitted: Any) -> dict[str, Any]:
    """Return the fitted attributes, without the labels of groups."""
    labels = ["group_1", "group_2"]
    return {
        key: value.drop(columns=labels, errors="ignore")
        if isinstance(value, pd.DataFrame)
        else value
        for key, value in fitted_attributes(fitted).items()
        if isinstance(value, float | pd.DataFrame | nn.Module)
        or (isinstance(value, np.ndarray) and value.dtype.kind == "f")
    }


@promise(takes_groups)
def check_groups_only_in_fit(name: str, estimator: Any) -> None:
    """``fit`` takes ``sensitive_features`` by keyword only, and no prediction method takes it."""
    for method in dir(type(estimator)):
        function = getattr(type(estimator), method)
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        parameter = inspect.signature(function).parameters.get("sensitive_features")
        if parameter is None:
            continue
        if method.startswith("fit"):
            assert parameter.kind is parameter.KEYWORD_ONLY, (
                f"{name}.{method} takes sensitive_features by position. Make it keyword-only."
            )
            assert parameter.default is None, (
                f"sensitive_features of {name}.{method} must have the default None."
            )
        else:
            assert method.startswith("set_"), f"{name}.{method} takes sensitive_features."


@promise(takes_groups)
def check_bad_groups_are_refused_first(name: str, estimator: Any) -> None:
    """Wrong groups are refused by the name ``sensitive_features``, before a network runs."""
    case = make_case(estimator)
    n = len(case.X)
    for bad, wanted in [
        (case.groups[1:], f"{n - 1} values for {n} samples"),
        ({"sex": case.groups[1:]}, f"{n - 1} values for {n} samples"),
        (np.linspace(0, 1, n), "continuous"),
        (np.arange(n), "different"),
        (np.full(n, None), "missing"),
        ("m", "group label"),
        (np.zeros((n, 2, 2)), "shape"),
    ]:
        said = _refusal(name, case, bad)
        assert said is not None, f"fit of {name} accepts sensitive_features={bad!r}."
        assert wanted in said, f"The error of {name} must contain {wanted!r}: {said}"


@promise(takes_groups)
def check_missing_groups(name: str, estimator: Any) -> None:
    """Without groups, or with some missing, ``fit`` works or its error says what is missing."""
    case = make_case(estimator)
    said = _refusal(name, case, None)
    if said is not None:
        assert "enable_metadata_routing" in said, (
            f"The error of {name} must say how groups reach fit (enable_metadata_routing): {said}"
        )
    for missing in (None, np.nan, pd.NA):
        groups = pd.Series(case.groups, dtype=object)
        groups[[2, 5]] = missing
        said = _refusal(name, case, groups)
        if said is not None:
            assert f"2 of {len(groups)} samples (rows 2, 5)" in said, (
                f"The error of {name} must name the samples without a group: {said}"
            )


def _refusal(name: str, case: Case, groups: Any) -> str | None:
    """Fit with these groups. Return the message of the error, or None if the fit succeeds."""
    fresh = clone(case.estimator)
    before = dict(vars(fresh))
    with module_calls() as called:
        try:
            fresh.fit(case.X, case.y, **{**case.fit_params, "sensitive_features": groups})
        except (ValueError, TypeError) as error:
            said = str(error)
        else:
            return None
    assert "sensitive_features" in said, f"The error does not name sensitive_features: {said}"
    assert not called, f"{name} refuses the groups only after {len(called)} module calls."
    assert vars(fresh).keys() == before.keys(), f"A failed fit of {name} leaves attributes."
    return said


def _recording(estimator: BaseEstimator) -> tuple[BaseEstimator, list]:
    """Return an estimator with the same parameters whose ``fit`` records its arguments."""
    seen = []

    def fit(self, X, y=None, *, sensitive_features=None):
        seen.append((np.asarray(X), sensitive_features))
        return self

    kind = type(estimator)
    recorder = type(f"Recording{kind.__name__}", (kind,), {"fit": fit, "__init__": kind.__init__})
    return recorder(**clone(estimator).get_params(deep=False)), seen


@promise(takes_groups)
def check_groups_are_routed(name: str, estimator: Any) -> None:
    """Pipelines and searches pass groups to ``fit``, with and without metadata routing."""
    case = make_case(estimator)
    direct, groups = case.fit(), case.groups
    pipeline = make_pipeline("passthrough", clone(case.estimator))
    step = f"{pipeline.steps[-1][0]}__sensitive_features"
    assert_same_fit(direct, pipeline.fit(case.X, case.y, **{step: groups})[-1], case.X)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(pipeline).fit(case.X, case.y, sensitive_features=groups)
        assert_same_fit(direct, routed[-1], case.X)
        if hasattr(estimator, "transform"):
            before = make_pipeline(clone(case.estimator), FunctionTransformer())
            before.fit(case.X, case.y, sensitive_features=groups)
            assert_same_fit(direct, before[0], case.X)


@promise(takes_groups)
def check_groups_are_cut_like_rows(name: str, estimator: Any) -> None:
    """A search gives each fold the groups of its own rows, with and without metadata routing."""
    case = make_case(estimator)
    number = np.arange(len(case.X))
    X = np.zeros((len(number), 1)) + number[:, None]
    groups = pd.Series([f"group {i}" for i in number], index=number[::-1])
    recorder, seen = _recording(case.estimator)
    plain = bool | int | float | str | None
    parameters = recorder.get_params(deep=False).items()
    parameter, value = next((k, v) for k, v in parameters if isinstance(v, plain))
    in_pipeline = make_pipeline("passthrough", recorder)
    prefix = f"{in_pipeline.steps[-1][0]}__"
    for enabled in (False, True):
        for tried, start in ((recorder, ""), (in_pipeline, prefix)):
            seen.clear()
            search = GridSearchCV(
                tried,
                {f"{start}{parameter}": [value] * 2},
                cv=3,
                scoring=lambda *_: 0.0,
                refit=True,
            )
            argument = "sensitive_features" if enabled else f"{start}sensitive_features"
            with sklearn.config_context(enable_metadata_routing=enabled), _no_warnings():
                search.fit(X, case.y, **{argument: groups})
            assert len(seen) == 7, f"A search fits {name} {len(seen)} times, not seven times."
            for rows, given in seen:
                assert given is not None, f"A search passes no groups to fit of {name}."
                assert list(given) == [f"group {int(i)}" for i in rows[:, 0]], (
                    f"A search gives fit of {name} groups that are not those of its rows."
                )


def _no_warnings() -> warnings.catch_warnings:
    return warnings.catch_warnings(action="ignore")
