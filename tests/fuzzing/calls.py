"""Calls with odd data, and what has to come of each: a result that holds, or an error in words."""

import contextlib
import copy
import inspect
import pickle
import random
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import polars
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import DataConversionWarning
from torch import nn

import skfair
from skfair.base._net import TensorNet
from skfair.discovery import all_estimators
from skfair.intraprocessing import _critics
from skfair.intraprocessing._search import Search
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded

_ARGUMENTS = re.compile(
    r"\b(X|y|y_true|y_pred|predictions|sensitive_features|sample_weight|estimator|groups|image_shape|"
    r"patch_size|stride|lr|n_splits|pos_label|"
    r"constraint|performance|epsilon|margin|output)\b"
)
_OURS = tuple(str(Path(module.__file__).parent) for module in (skfair, sklearn))
_LETTERS = 2000  # of a message
_SECONDS = 60  # after which a call hangs

N = 32
Y = np.arange(N) % 2
GROUPS = np.arange(N) // 2 % 2


def _make_data():
    rng = np.random.default_rng(0)
    rows, weight = rng.normal(size=(N, 3)).astype(np.float32), rng.random(N)
    rows[:, 0] += Y
    rows[:, 1] += GROUPS
    images = rng.integers(0, 200, size=(N, 3, 6, 6), dtype=np.uint8)
    images[:, :, :3, :3] += (50 * GROUPS[:, None, None, None]).astype(np.uint8)
    return rows, weight, images


ROWS, WEIGHT, IMAGES = _make_data()


class Fault(AssertionError):
    """A call did what none may do."""


class Called(NamedTuple):
    """What came of a call: a result, or an error of a documented kind."""

    result: Any
    error: Exception | None


@cache
def network() -> nn.Module:
    """A small network of one logit that goes along with the labels."""
    with seeded(0):
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight[0] = torch.tensor([2.0, 0.5, 0.0])
        net[2].weight[0, 0] = 2.0
    return net


def _encoder(batch):
    """Encode images, or rows, by what does not depend on the other samples."""
    rows = batch.reshape(len(batch), -1)
    return np.stack([np.abs(rows).max(1), rows[:, 0]], 1)


_SHORT = {"max_epochs": 1, "random_state": 0}
# What an estimator needs besides to be small; others are made by what they take.
_SMALL: dict[str, dict[str, Any]] = {
    "ClusterMarginClassifier": {"amplifier_max_epochs": 1, "n_units": 4},
    "FrozenEncoderFeaturizer": {"encoder": _encoder, "batch_size": 5},
    "LayerwiseDebiaser": {"n_calls": 4, "n_layers": 1},
    "LinearPostDebiaser": {"cv": 3},
    "PatchAttributionMasker": {"patch_size": 3, "stride": 1, "check_leakage": False},
    "RandomPerturbationDebiaser": {"n_trials": 3},
}
ESTIMATORS = dict(all_estimators())
OF_IMAGES = ("FrozenEncoderFeaturizer", "PatchAttributionMasker")


def make(name: str, **parameters: Any):
    """Make a small estimator."""
    kind = ESTIMATORS[name]
    taken = inspect.signature(kind).parameters
    small = {key: value for key, value in _SHORT.items() if key in taken}
    if "estimator" in taken:
        small["estimator"] = network()
    return kind(**small, **_SMALL.get(name, {})).set_params(**parameters)


@cache
def fitted(name: str, rows: bool = False):
    """Make one that is fitted to good data; to be copied."""
    estimator = make(name)
    if name in OF_IMAGES:
        X = IMAGES.reshape(N, -1) if rows else IMAGES
        estimator.set_params(image_shape=(3, 6, 6) if rows else None)
        keywords = {} if name == "FrozenEncoderFeaturizer" else {"sensitive_features": GROUPS}
        with quiet():
            return estimator.fit(X, **keywords)
    with quiet():
        return estimator.fit(ROWS, Y, sensitive_features=GROUPS)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Make errors of all warnings but those that are documented; shorten a critic's training."""
    with warnings.catch_warnings(), mock.patch.object(_critics, "_N_PRETRAIN", 2):
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FairnessWarning)
        warnings.simplefilter("ignore", DataConversionWarning)  # y has one column
        warnings.filterwarnings("ignore", "X (does not have|has) .*feature names", UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        yield


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_):
        raise Fault(f"hangs: no answer in {_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _counted() -> Iterator[list[str]]:
    """Note each training that begins."""
    begun: list[str] = []
    fit_loop, consider = TensorNet.fit_loop, Search.consider

    def noted_fit(net, *args, **kwargs):
        begun.append(f"training of {type(net.module_).__name__}")
        return fit_loop(net, *args, **kwargs)

    def noted_search(search, *args, **kwargs):
        begun.append("search")
        return consider(search, *args, **kwargs)

    with (
        mock.patch.object(TensorNet, "fit_loop", noted_fit),
        mock.patch.object(Search, "consider", noted_search),
    ):
        yield begun


def _global_state() -> list:
    # Torch loads modules lazily, some of which change these once; none of that is counted here.
    return [
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
        pickle.dumps(random.getstate()),
        sklearn.get_config(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        np.geterr(),
        [str(entry) for entry in warnings.filters],
    ]


def _as_before(data: Any) -> Callable[[], bool]:
    """Keep what data are; the function says whether they still are."""
    if isinstance(data, pd.DataFrame | pd.Series | pd.Index):
        kept = data.copy(deep=True)
        return lambda: data.equals(kept)
    if isinstance(data, polars.DataFrame | polars.Series):  # without ways to change it in place
        return lambda: True
    if isinstance(data, np.ma.MaskedArray):  # it finds out its fill value when it is asked
        kept = pickle.dumps((data.data, data.mask))
        return lambda: pickle.dumps((data.data, data.mask)) == kept
    if isinstance(data, BaseEstimator):
        return lambda: True
    try:
        kept = pickle.dumps(data)
    except Exception:  # a generator, say
        return lambda: True
    return lambda: pickle.dumps(data) == kept or _same_values(pickle.loads(kept), data)


def _same_values(one: Any, two: Any) -> bool:
    """Whether pandas objects hold the same, whatever they have remembered when they were read."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same_values(one[key], two[key]) for key in one)
    return isinstance(one, pd.DataFrame | pd.Series | pd.Index) and one.equals(two)


def call(function: Callable, *arguments: Any, **keywords: Any) -> Called:
    """Call, and raise Fault if the call does what none may do."""
    data = [*arguments, *keywords.values()]
    unchanged, state = [_as_before(one) for one in data], _global_state()
    with quiet(), _limited(), _counted() as begun:
        try:
            called = Called(function(*arguments, **keywords), None)
        except Fault:
            raise
        except BaseException as error:
            _check_error(error, begun)
            called = Called(None, error)
    if _global_state() != state:
        raise Fault("global state was changed")
    for one, is_as_before in zip(data, unchanged, strict=True):
        if not is_as_before():
            raise Fault(f"the data were changed: {type(one).__name__}")
    return called


def _check_error(error: BaseException, begun: list[str]) -> None:
    what = "".join(traceback.format_exception(error)[-6:])
    if not isinstance(error, ValueError | TypeError) or isinstance(error, np.linalg.LinAlgError):
        raise Fault(f"bare {type(error).__name__}: {what}") from error
    source = traceback.extract_tb(error.__traceback__)[-1].filename
    if not source.startswith(_OURS):
        raise Fault(f"error of {source}: {what}") from error
    said = str(error)
    # A message has lines of its own, but nothing else that a terminal acts on.
    if not said.replace("\n", "").isprintable() or len(said) > _LETTERS:
        raise Fault(f"not short and plain: {what}") from error
    if not _ARGUMENTS.search(said):
        raise Fault(f"names no argument: {what}") from error
    if begun and "diverged" not in str(error):
        raise Fault(f"error after {begun[0]}: {what}") from error


def check_finite(result: Any, what: str) -> None:
    for array in result if isinstance(result, list | tuple) else [result]:
        array = np.asarray(array)
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise Fault(f"not finite: {what} gave NaN or infinity")


def check_predictions(estimator: Any, X: Any) -> None:
    """Check what a fitted classifier says of data that it has to take."""
    answers = {}
    for method in ("decision_function", "predict_proba", "predict"):
        called = call(getattr(estimator, method), X)
        if called.error is not None:
            raise Fault(f"{method} refuses what it has to take: {called.error}")
        answers[method] = called.result
    check_answers(estimator, answers, len(answers["predict"]))


def check_answers(estimator: Any, answers: dict[str, Any], n_samples: int) -> None:
    """Check shapes, normalised probabilities, labels from classes_, and that all agree."""
    scores, proba, labels = (answers[m] for m in ("decision_function", "predict_proba", "predict"))
    n_classes = len(estimator.classes_)
    for name, array in answers.items():
        check_finite(array, name)
        if len(array) != n_samples:
            raise Fault(f"{name} has shape {array.shape} for {n_samples} samples")
    if proba.shape != (n_samples, n_classes) or proba.dtype != np.float64:
        raise Fault(f"predict_proba gave {proba.shape}, {proba.dtype}")
    if (proba < 0).any() or np.abs(proba.sum(1) - 1).max(initial=0) > 1e-9:
        raise Fault("probabilities are not normalised")
    if not np.isin(labels, estimator.classes_).all():
        raise Fault("labels are not from classes_")
    chosen = (scores > 0).astype(int) if n_classes == 2 else scores.argmax(1)
    if not (estimator.classes_[chosen] == labels).all():
        raise Fault("predict and decision_function do not agree")


def fit_and_predict(name: str, X: Any, y: Any, groups: Any, weight: Any = None) -> Called:
    """Fit a classifier of rows, and predict what it was fitted to."""
    estimator = clone(make(name))
    before = set(vars(estimator))
    keywords = {"sensitive_features": groups}
    if weight is not None:
        keywords["sample_weight"] = weight
    called = call(estimator.fit, X, y, **keywords)
    if called.error is not None:
        if set(vars(estimator)) != before:
            raise Fault("a fit that failed left a trace")
        return called
    check_predictions(estimator, X)
    return called


def predict(name: str, X: Any) -> Called:
    """Predict odd data with a classifier that is fitted to good ones."""
    estimator = copy.deepcopy(fitted(name))
    called = call(estimator.predict, X)
    if called.error is None:
        check_predictions(estimator, X)
    else:
        for method in ("decision_function", "predict_proba"):
            if call(getattr(estimator, method), X).error is None:
                raise Fault(f"predict raises, {method} does not")
    return called


def transform_images(name: str, X: Any, groups: Any, *, fit: bool, rows: bool) -> Called:
    """Fit an estimator of images and transform what it was fitted to, or only the latter."""
    if fit:
        estimator = make(name, image_shape=(3, 6, 6) if rows else None)
        before = set(vars(estimator))
        keywords = {} if name == "FrozenEncoderFeaturizer" else {"sensitive_features": groups}
        called = call(estimator.fit, X, **keywords)
        if called.error is not None:
            if name == "PatchAttributionMasker" and set(vars(estimator)) != before:
                raise Fault("a fit that failed left a trace")
            return called
    else:
        estimator = copy.deepcopy(fitted(name, rows))
    called = call(estimator.transform, X)
    if called.error is not None:
        # The featurizer's fit looks at the first image only.
        if fit and name != "FrozenEncoderFeaturizer":
            raise Fault(f"transform refuses what fit took: {called.error}")
        return called
    check_finite(called.result, "transform")
    for method in ("mask", "attribute", "region_map", "region_proba", "attribute_score", "masks"):
        if hasattr(estimator, method):
            other = call(getattr(estimator, method), X)
            if other.error is not None:
                raise Fault(f"{method} refuses what transform took: {other.error}")
            check_finite(other.result, method)
    return called
