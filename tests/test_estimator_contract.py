"""Every estimator keeps every promise, and the checks of the promises see those that do not."""

import copy
import inspect
import os
import threading
import warnings
from collections import Counter
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from lazy_nets import NetForAnyClasses, lazy_net
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import EstimatorCheckFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import estimator_checks as scikit_learn
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from skfair.adjustment import LogitAdjustedClassifier
from skfair.attribution import PatchAttributionMasker
from skfair.discovery import all_estimators
from skfair.estimator_checks import (
    _copies,
    check_estimator,
    estimator_checks_generator,
    expected_failed_checks,
    parametrize_with_checks,
)
from skfair.estimator_checks._case import make_case, small_instance, takes_groups
from skfair.estimator_checks._registry import CHECKS
from skfair.estimator_checks._running import assert_identical
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.intraprocessing import (
    BiasGradientDebiaser,
    LinearPostDebiaser,
    ThresholdDebiaser,
    _base,
    _critics,
)
from skfair.margin import ClusterMarginClassifier
from skfair.persistence import _schema
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded


@pytest.fixture(autouse=True)
def _a_critic_that_has_learnt_little(monkeypatch):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)


# skfair's promises ------------------------------------------------------------------------


@dataclass(frozen=True)
class SomeColumns:
    """An encoder that is called; its name in the ids of tests is the same in every process."""

    def __call__(self, batch):
        batch = batch.reshape(len(batch), -1)
        return np.stack([batch[:, 0], batch[:, -1], batch.sum(axis=1)], axis=1)


def a_network(*layers):
    with seeded(0):
        return nn.Sequential(*(layer() for layer in layers))


def small_cnn():
    return a_network(lambda: nn.Conv2d(2, 4, 3), nn.ReLU, nn.Flatten, lambda: nn.LazyLinear(2))


class Patches(nn.Module):
    """A network for the masker."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 4)

    def forward(self, patches, positions):
        return self.layer(patches).flatten(1)


def others():
    """Instances beside the one of each class: other kinds of networks, data and methods."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lazy layers
        cnn = small_cnn()
        with torch.no_grad():
            cnn(torch.zeros(2, 2, 12, 12))
    return [
        ThresholdDebiaser(cnn),
        ClusterMarginClassifier(loss="cross_entropy", n_units=8),
        LogitAdjustedClassifier(head="mlp"),
        LogitAdjustedClassifier(2, head="linear"),
        FrozenEncoderFeaturizer(SomeColumns(), batch_size=5),
        FrozenEncoderFeaturizer(a_network(lambda: nn.Linear(6, 3)), layer="0"),
        FrozenEncoderFeaturizer(SomeColumns(), image_shape=(1, 3, -1), data_format="channels_last"),
        PatchAttributionMasker(
            patch_size=4,
            stride=2,
            region_classifier=Patches(),
            scope="specific",
            perturbation="noise",
            perturb_at_predict=True,
        ),
    ]


INSTANCES = [small_instance(kind) for _, kind in all_estimators()]


@parametrize_with_checks(INSTANCES + others())
def test_every_estimator_keeps_its_promises(estimator, check):
    check(estimator)


def test_every_promise_is_about_some_estimator():
    pairs = [
        (type(estimator).__name__, check.func.__name__)
        for instance in INSTANCES
        for estimator, check in estimator_checks_generator(instance)
    ]
    by_check, by_estimator = Counter(check for _, check in pairs), Counter(n for n, _ in pairs)
    assert by_check.keys() == {check.function.__name__ for check in CHECKS}
    assert by_estimator.keys() == dict(all_estimators()).keys()
    # What is about all, all get; no check thins out unseen when an estimator changes.
    everyone = [name for name, count in by_check.items() if count == len(INSTANCES)]
    assert len(everyone) >= 19
    assert min(by_estimator.values()) >= 24
    assert len(pairs) >= 300
    for check in CHECKS:
        assert check.function.__doc__.endswith(".")
        assert "\n" not in check.function.__doc__
        assert list(inspect.signature(check.function).parameters) == ["name", "estimator"]


# scikit-learn's checks --------------------------------------------------------------------


class Filters(nn.Module):
    """A convolution whose weights are a NumPy array.

    scikit-learn compares parameters before and after `fit` by `joblib.hash`, which gives two
    copies of one torch tensor different values.
    """

    def __init__(self):
        super().__init__()
        self.kernel = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 1, 1, 2)

    def forward(self, x):
        return torch.tanh(nn.functional.conv2d(x, torch.tensor(self.kernel), padding=(0, 1)))


class WithGroups:
    """Groups that follow from the rows, as scikit-learn's checks cannot pass any."""

    def fit(self, X, y=None, *, sensitive_features=None):
        return super().fit(X, y, sensitive_features=groups_of(X))


def groups_of(X):
    try:
        rows = np.abs(np.asarray(X)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            groups = np.sin(1000 * rows.reshape(len(rows), -1).sum(1)) > 0
    except (TypeError, ValueError):  # what is wrong with X is for the estimator to say
        groups = np.arange(getattr(X, "shape", (2,))[0]) % 2 == 0
    if 0 < groups.sum() < len(groups) or not len(groups):
        return groups
    return np.arange(len(groups)) % 2 == 0  # of rows that are all alike


# Rows of any width have to be images, and networks have to take them.
FOR_ANY_ROWS = {
    "estimator": lambda: lazy_net(NetForAnyClasses),
    "encoder": Filters,
    "image_shape": lambda: (1, 1, -1),
    "patch_size": lambda: 1,
    "stride": lambda: 1,
}


def for_scikit_learn(kind, **parameters):
    known = inspect.signature(kind).parameters
    least = {"n_trials": 2, "n_calls": 2, "n_layers": 1, "max_epochs": 1, "random_state": 0}
    least["check_leakage"] = False  # has tests of its own
    if kind is ClusterMarginClassifier and not parameters:
        least = {}  # as it comes: what it learns from the checks' data is checked too
    if issubclass(kind, LinearPostDebiaser):
        least["epsilon"] = 0.2  # of three classes in 90 rows, less is chance
    values = {**least, **{name: make() for name, make in FOR_ANY_ROWS.items()}}
    return kind(**{name: v for name, v in values.items() if name in known}, **parameters)


WITHOUT_GROUPS = (ClusterMarginClassifier, LogitAdjustedClassifier)  # these need none
CHECKED = {}
for _name, _kind in all_estimators():
    if takes_groups(small_instance(_kind)):
        _checked = type(
            f"Checked{_name}",
            (_kind,) if _kind in WITHOUT_GROUPS else (WithGroups, _kind),
            {"__module__": __name__, "__doc__": "With groups.", "__init__": _kind.__init__},
        )
        globals()[_checked.__name__] = _checked  # so that pickle finds it
        CHECKED[_name] = _checked
    else:
        CHECKED[_name] = _kind


class CheckedWithKnownAttribute(WithGroups, LogitAdjustedClassifier):
    """With groups."""

    __init__ = LogitAdjustedClassifier.__init__


_MASKER, _MARGIN = CHECKED["PatchAttributionMasker"], CHECKED["ClusterMarginClassifier"]
_ADJUSTED = CHECKED["LogitAdjustedClassifier"]
_SHORT = {"n_units": 8, "amplifier_max_epochs": 1}


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@scikit_learn.parametrize_with_checks(
    [for_scikit_learn(kind) for kind in CHECKED.values()]
    + [
        for_scikit_learn(_MARGIN, loss="cross_entropy"),
        for_scikit_learn(_MARGIN, loss="cluster_weighted", **_SHORT),
        for_scikit_learn(_MARGIN, loss="loss_weighted", **_SHORT),
        for_scikit_learn(_ADJUSTED, head="mlp"),
        for_scikit_learn(CheckedWithKnownAttribute, head="linear"),
        for_scikit_learn(_MASKER, perturb_at_predict=True),
        for_scikit_learn(_MASKER, perturb_at_predict=True, scope="specific", quantile=0.6),
        for_scikit_learn(_MASKER, perturbation="noise", calibration="temperature", quantile=0.5),
        FrozenEncoderFeaturizer(Filters(), image_shape=(1, -1, 1), pooling="max", batch_size=7),
        FrozenEncoderFeaturizer(SomeColumns()),
    ],
    expected_failed_checks=expected_failed_checks,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    "estimator",
    [
        ThresholdDebiaser(lazy_net(NetForAnyClasses)),
        PatchAttributionMasker(1, stride=1, image_shape=(1, 1, -1), max_epochs=1),
    ],
    ids=["ThresholdDebiaser", "PatchAttributionMasker"],
)
def test_checks_of_scikit_learn_that_pass_no_groups_are_expected_to_fail(estimator):
    results = scikit_learn.check_estimator(
        estimator,
        on_fail=None,
        on_skip=None,
        expected_failed_checks=expected_failed_checks(estimator),
    )
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    reasons = {r["expected_to_fail_reason"] for r in results if r["status"] == "xfail"}
    assert reasons == {"fit needs sensitive_features, and scikit-learn's checks pass none"}


def test_what_is_expected_to_fail_is_asked_of_an_instance():
    assert expected_failed_checks(FrozenEncoderFeaturizer(SomeColumns())) == {}
    assert expected_failed_checks(for_scikit_learn(CHECKED["ThresholdDebiaser"])) == {}
    with pytest.raises(TypeError, match=r"class ThresholdDebiaser\. Pass an instance"):
        expected_failed_checks(ThresholdDebiaser)


# The checks see what is broken ------------------------------------------------------------


class Broken(ThresholdDebiaser):
    """Base of what follows: a debiaser that is quick, and keeps all promises."""

    def __init_subclass__(cls):
        cls.__init__ = ThresholdDebiaser.__init__

    def fit(self, X, y, *, sensitive_features=None):
        super().fit(X, y, sensitive_features=sensitive_features)
        self._after()
        return self

    def _after(self):
        pass

    def decision_function(self, X):
        return self._then(super().decision_function(X), X)

    def _then(self, decision, X):
        return decision


class Plain(BaseEstimator):
    def fit(self, X, y=None):
        return self


class CastsItsArgument(Plain):
    def __init__(self, size=1):
        self.size = [size]


class TakesPositions(Plain):
    def __init__(self, size=1, colour="red"):
        self.size = size
        self.colour = colour


class DoesMoreThanStore(Plain):
    def __init__(self, size=1):
        self.size = size
        self.double = (size, size)


class SetsNothing(Broken):
    def set_params(self, **parameters):
        return self


class SaysNothing(Broken):
    """A debiaser."""


class KeepsASecret(Broken):
    __doc__ = ThresholdDebiaser.__doc__

    def _after(self):
        self.secret_ = 1


class ChecksNothing(Broken):
    def _validate_params(self):
        pass


class ChecksLate(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        find = self.estimator(torch.zeros(1, 4)) if callable(self.estimator) else None
        assert find is None or find.shape == (1, 1)
        return super().fit(X, y, sensitive_features=sensitive_features)


class PredictsUnfitted(Broken):
    def predict(self, X):
        return np.zeros(len(X))


class WritesIntoX(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        if isinstance(X, np.ndarray) and X.flags.writeable:
            X[0] = 0
        return super().fit(X, y, sensitive_features=sensitive_features)


class TrainsTheNetwork(Broken):
    def _after(self):
        with torch.no_grad():
            next(self.estimator.parameters()).add_(1)


class SetsTheMode(Broken):
    def _after(self):
        self.estimator.eval()


class Unfreezes(Broken):
    def _after(self):
        self.estimator.requires_grad_(True)


class ClearsGradients(Broken):
    def _after(self):
        self.estimator.zero_grad()


class LosesHooks(Broken):
    def _after(self):
        self.estimator._forward_hooks.clear()


class TakesAnyNetwork(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        with mock.patch.object(_base, "run_original", self._run):
            return super().fit(X, y, sensitive_features=sensitive_features)

    @staticmethod
    def _run(network, rows):
        with torch.no_grad():
            return network(rows[:])


class DislikesFrozen(Broken):
    def _then(self, decision, X):
        return -decision if isinstance(self.estimator, FrozenEstimator) else decision


class SetsTheModeToPredict(Broken):
    def _then(self, decision, X):
        self.module_.eval()
        return decision


class StaysOnTheDevice(Broken):
    def __getstate__(self):
        return BaseEstimator.__getstate__(self)


class WantsADeviceByName(Broken):
    def _then(self, decision, X):
        return decision if isinstance(self.device, str) else decision + 1


class ForgetsTheThreshold(Broken):
    def to_module(self):
        return copy.deepcopy(self.module_[0])


class HandsOutItsOwn(Broken):
    def to_module(self):
        return self.module_


class DrawsWithoutASeed(Broken):
    def _after(self):
        self.threshold_ = float(torch.rand(1))


class GoesByTheAddress(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        super().fit(X, y, sensitive_features=sensitive_features)
        self.threshold_ = float(np.asarray(X).ctypes.data % 16)
        return self


class GoesByTheThread(Broken):
    def _after(self):
        self.threshold_ = float(threading.current_thread() is threading.main_thread())


class TakesTheDefaultType(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        super().fit(X, y, sensitive_features=sensitive_features)
        self.threshold_ = float(torch.get_default_dtype().itemsize)
        return self


class StartsTheGeneratorAgain(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        given, self.random_state = self.random_state, 0
        super().fit(X, y, sensitive_features=sensitive_features)
        self.random_state = given
        return self


class Remembers(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        n_fits = getattr(self, "n_fits_", 0)
        super().fit(X, y, sensitive_features=sensitive_features)
        self.n_fits_ = n_fits + 1
        return self


class LooksAtTheMean(Broken):
    def _then(self, decision, X):
        return decision + np.asarray(X).mean()


class Counts(Broken):
    def _then(self, decision, X):
        return decision + 1e-3 * np.arange(len(decision))


class ShowsItsBatches(FrozenEncoderFeaturizer):
    def transform(self, X, *, out=None):
        return super().transform(X, out=out) + self.batch_size


class DrawsGlobally(Broken):
    def _then(self, decision, X):
        np.random.rand()  # noqa: NPY002
        return decision


class SetsTheEnvironment(Broken):
    def _after(self):
        os.environ["SKFAIR_WAS_HERE"] = "yes"


class SilencesWarnings(Broken):
    def _after(self):
        warnings.simplefilter("ignore", ResourceWarning)


class LeavesAFile(Broken):
    def _after(self):
        with open("left.txt", "w") as file:
            file.write("a log")


class KeepsTheRows(Broken):
    def _then(self, decision, X):
        self.last_ = decision
        return decision


class DislikesTables(Broken):
    def _then(self, decision, X):
        return -decision if isinstance(X, pd.DataFrame) else decision


class ReadsMemoryAsItLies(Broken):
    def _then(self, decision, X):
        layout = isinstance(X, np.ndarray) and not X.flags.c_contiguous
        return decision + layout


class MixesUpChannels(FrozenEncoderFeaturizer):
    def transform(self, X, *, out=None):
        features = super().transform(X, out=out)
        return features[:, ::-1] if self.data_format == "channels_last" else features


class LooksAtTheSettings(Broken):
    def _then(self, decision, X):
        return decision + (sklearn.get_config()["transform_output"] != "default")


class MakesTablesOfImages(PatchAttributionMasker):
    def get_feature_names_out(self, input_features=None):
        return np.array([f"x{i}" for i in range(self.n_features_in_)])


class GoesByTheIndex(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        if isinstance(sensitive_features, pd.Series):
            sensitive_features = sensitive_features.sort_index().iloc[::1]
        return super().fit(X, y, sensitive_features=sensitive_features)


class SortsAnyway(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        self.classes = None
        return super().fit(X, y, sensitive_features=sensitive_features)


class BringsIntoOrder(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        if isinstance(y, pd.Series) and isinstance(sensitive_features, pd.Series):
            sensitive_features = sensitive_features.loc[y.index]
        return super().fit(X, y, sensitive_features=sensitive_features)


class PredictsByGroup(Broken):
    def predict(self, X, *, sensitive_features=None):
        return super().predict(X)


class TakesGroupsByPosition(Broken):
    def fit(self, X, y, sensitive_features=None):
        return super().fit(X, y, sensitive_features=sensitive_features)


class FillsUp(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        if isinstance(sensitive_features, np.ndarray):
            sensitive_features = np.resize(sensitive_features, len(y))
        return super().fit(X, y, sensitive_features=sensitive_features)


class SaysLittle(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        if sensitive_features is None or pd.isna(pd.Series(sensitive_features)).any():
            raise ValueError("bad groups")
        return super().fit(X, y, sensitive_features=sensitive_features)


class AsksForNothing(Broken):
    __metadata_request__fit = {"sensitive_features": None}


class ClonesTheFit(Broken):
    def __sklearn_clone__(self):
        return copy.deepcopy(self)


class TravelsInHalf(Broken):
    def __getstate__(self):
        state = super().__getstate__()
        if "module_" in state:
            state["module_"] = copy.deepcopy(self.module_).half().float()
        return state


class CopiesInHalf(Broken):
    def __deepcopy__(self, memo):
        copied = super().__deepcopy__(memo)
        if hasattr(copied, "module_"):
            copied.module_.half().float()
        return copied


class SavesInHalf(Broken):
    __module__ = "skfair"  # as one that can be saved, see the test

    def _state_to_save(self, state):
        state = super()._state_to_save(state)
        return {**state, "module_": {k: v.half().float() for k, v in state["module_"].items()}}


class RoundsProbabilities(Broken):
    def predict_proba(self, X):
        return super().predict_proba(X).astype(np.float32)


class RoundsLogarithms(Broken):
    def predict_log_proba(self, X):
        return super().predict_log_proba(X).round(3)


class PredictsBackwards(Broken):
    def predict(self, X):
        return self.classes_[(super().decision_function(X) < 0).astype(int)]


class PredictsCodes(Broken):
    def predict(self, X):
        return np.searchsorted(self.classes_, super().predict(X))


class StartsToFit(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        self.started_ = object()
        return super().fit(X, y, sensitive_features=sensitive_features)


class TakesHalfAFitForOne(BiasGradientDebiaser):
    def fit(self, X, y, *, sensitive_features=None):
        try:
            return super().fit(X, y, sensitive_features=sensitive_features)
        except (KeyboardInterrupt, ArithmeticError):
            return self


BROKEN = {
    "check_constructor": [CastsItsArgument, TakesPositions, DoesMoreThanStore],
    "check_parameters_get_and_set": [SetsNothing],
    "check_documented": [SaysNothing, KeepsASecret],
    "check_bad_parameters_are_refused_first": [ChecksNothing, ChecksLate],
    "check_needs_a_fit": [PredictsUnfitted],
    "check_data_are_left_alone": [WritesIntoX],
    "check_network_is_left_alone": [
        TrainsTheNetwork,
        SetsTheMode,
        Unfreezes,
        ClearsGradients,
        LosesHooks,
    ],
    "check_batch_independence": [TakesAnyNetwork],
    "check_network_containers": [DislikesFrozen],
    "check_predicting_changes_no_network": [SetsTheModeToPredict],
    "check_networks_travel_on_the_cpu": [StaysOnTheDevice],
    "check_devices": [WantsADeviceByName],
    "check_threshold_is_in_the_module": [ForgetsTheThreshold, HandsOutItsOwn],
    "check_same_seed_same_bits": [DrawsWithoutASeed],
    "check_place_in_memory": [GoesByTheAddress],
    "check_threads": [GoesByTheThread],
    "check_settings": [TakesTheDefaultType],
    "check_random_state_moves_on": [StartsTheGeneratorAgain],
    "check_fitting_again": [Remembers],
    "check_rows_one_by_one": [LooksAtTheMean],
    "check_row_order": [Counts],
    "check_memory_bounds": [ShowsItsBatches],
    "check_nothing_global": [DrawsGlobally, SetsTheEnvironment, SilencesWarnings],
    "check_no_files_are_left": [LeavesAFile],
    "check_predicting_changes_nothing": [KeepsTheRows],
    "check_array_forms": [DislikesTables, ReadsMemoryAsItLies],
    "check_row_labels": [BringsIntoOrder],
    "check_image_forms": [MixesUpChannels],
    "check_output_containers": [LooksAtTheSettings, MakesTablesOfImages],
    "check_group_forms": [GoesByTheIndex],
    "check_groups_only_in_fit": [PredictsByGroup, TakesGroupsByPosition],
    "check_bad_groups_are_refused_first": [FillsUp],
    "check_missing_groups": [SaysLittle],
    "check_groups_are_routed": [AsksForNothing],
    "check_groups_are_cut_like_rows": [AsksForNothing],
    "check_clone": [ClonesTheFit],
    "check_pickle": [TravelsInHalf],
    "check_deepcopy": [CopiesInHalf],
    "check_joblib": [TravelsInHalf],
    "check_saving": [SavesInHalf],
    "check_probabilities": [RoundsProbabilities, RoundsLogarithms, PredictsBackwards],
    "check_label_types": [PredictsCodes],
    "check_class_order": [SortsAnyway],
    "check_failed_fit": [StartsToFit],
    "check_interrupted_fit": [TakesHalfAFitForOne],
}


@pytest.mark.parametrize(
    "check, kind", [(check, kind) for check, kinds in BROKEN.items() for kind in kinds]
)
def test_a_broken_promise_is_seen(check, kind, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKFAIR_WAS_HERE", "no")
    known = [*all_estimators(), ("SavesInHalf", SavesInHalf)]
    for module in (_copies, _schema):
        monkeypatch.setattr(module, "all_estimators", lambda: known)
    estimator = small_instance(kind)
    (run,) = [run for _, run in estimator_checks_generator(estimator) if run.func.__name__ == check]
    with pytest.raises(Exception) as raised:  # noqa: PT011
        run(estimator)
    assert f"{kind.__name__} must keep this promise: {run.func.__doc__}" in raised.value.__notes__


def test_every_check_has_seen_something_broken():
    assert BROKEN.keys() == {check.function.__name__ for check in CHECKS}


# The suite itself -------------------------------------------------------------------------


class Wider(ThresholdDebiaser):
    __doc__ = ThresholdDebiaser.__doc__.replace(
        "    Attributes\n", "    shift : float, default=0.0\n        Added.\n\n    Attributes\n"
    )
    _parameter_constraints: dict = {**ThresholdDebiaser._parameter_constraints, "shift": [float]}

    def __init__(self, estimator, *, shift=0.0, epsilon=0.05, random_state=None):
        self.estimator = estimator
        self.shift = shift
        self.epsilon = epsilon
        self.random_state = random_state

    # What this class leaves as it is.
    constraint, performance, output, device = "demographic_parity", "accuracy", "auto", "cpu"
    confidence, margin, verbose = "auto", 0.01, 0
    small_groups, calibration_fraction = "shrink", 0.5


def test_an_estimator_as_somebody_has_it_is_not_changed():
    network = a_network(lambda: nn.Linear(7, 5), nn.Tanh, lambda: nn.Linear(5, 2))
    debiaser = Wider(network, shift=0.5, epsilon=0.2)
    before = dict(vars(debiaser))
    results = check_estimator(debiaser)
    passed = [result["check_name"] for result in results if result["status"] == "passed"]
    assert vars(debiaser) == before
    assert passed == [check.func.__name__ for _, check in estimator_checks_generator(debiaser)]
    assert len(passed) == len(set(passed)) > 30
    assert make_case(debiaser).X.shape[1:] == (7,)


def test_a_class_is_no_instance():
    with pytest.raises(TypeError, match="estimator is the class ThresholdDebiaser"):
        check_estimator(ThresholdDebiaser)


def test_warnings_of_a_method_are_not_shown_and_others_are():
    class Warns(Broken):
        def _after(self):
            warnings.warn("little data", FairnessWarning)

    (check,) = [
        check
        for _, check in estimator_checks_generator(small_instance(Warns))
        if check.func.__name__ == "check_probabilities"
    ]
    check(small_instance(Warns))

    class Alarms(Broken):
        def _after(self):
            warnings.warn("old", DeprecationWarning)

    with pytest.raises(DeprecationWarning, match="old"):
        check(small_instance(Alarms))


class Holds(ClassifierMixin, BaseEstimator):
    """Somebody's own classifier around one of scikit-learn.

    Parameters
    ----------
    model : object
        Another classifier, which checks its parameters itself.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    model_ : object
        What was fitted.
    n_features_in_ : int
        Number of features.
    """

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        X, y = validate_data(self, X, y)
        kind, parameters = type(self.model), self.model.get_params()
        self.model_ = kind(**parameters).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, reset=False))

    def predict_proba(self, X):
        check_is_fitted(self)
        return self.model_.predict_proba(validate_data(self, X, reset=False))


class HoldsAnother(Holds):
    __doc__ = Holds.__doc__

    def fit(self, X, y):
        super().fit(X, y)
        self.model_.coef_ = self.model_.coef_ + np.random.rand()  # noqa: NPY002
        return self

    def predict(self, X):
        check_is_fitted(self)
        return np.full(len(validate_data(self, X, reset=False)), self.classes_[0])

    def predict_proba(self, X):
        check_is_fitted(self)
        certain = np.eye(len(self.classes_))[:1]
        return certain.repeat(len(validate_data(self, X, reset=False)), axis=0)


def failures(estimator):
    results = check_estimator(estimator, on_fail=None)
    return {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}


@pytest.mark.parametrize(
    "model", [LogisticRegression(), GaussianNB(), DecisionTreeClassifier(random_state=0)]
)
def test_an_estimator_that_holds_a_model_of_scikit_learn(model):
    assert failures(Holds(model)) == {}


def test_the_state_of_a_model_inside_is_compared():
    # Outputs do not show what differs.
    failed = failures(HoldsAnother(LogisticRegression()))
    assert {"check_same_seed_same_bits", "check_clone", "check_fitting_again"} <= failed.keys()
    assert "outputs" not in str(failed["check_same_seed_same_bits"])


class Node:
    def __init__(self, value):
        self.value = value
        self.next = self


@pytest.mark.parametrize(
    "make",
    [
        lambda value: Node(value),
        lambda value: [Node({"a": value})],
        lambda value: np.array([Node(value), None]),
        lambda value: Node(Node(np.arange(value))),
    ],
)
def test_objects_are_compared_by_their_state(make):
    assert_identical(make(1), make(1), "a node")
    with pytest.raises(AssertionError, match="a node"):
        assert_identical(make(1), make(2), "a node")


def test_what_has_no_state_is_compared_by_itself():
    one, two = (lambda: 1), (lambda: 2)
    assert_identical(one, one, "a function")
    with pytest.raises(AssertionError, match="a function is <function"):
        assert_identical(one, two, "a function")


def test_data_for_networks_are_in_their_precision():
    kinds = {type(e).__name__: make_case(e).X.dtype for e in INSTANCES + others()}
    assert set(map(str, kinds.values())) == {"float32", "uint8"}
    assert make_case(Holds(LogisticRegression())).X.dtype == np.float64


def test_data_that_do_not_fit_are_described():
    encoder = a_network(lambda: nn.Conv2d(1, 2, 3), nn.Flatten, lambda: nn.Linear(2 * 14 * 14, 3))
    with pytest.raises(RuntimeError) as raised:
        check_estimator(FrozenEncoderFeaturizer(encoder))
    notes = " ".join(raised.value.__notes__)
    assert "of shape (64, 1, 12, 12) as uint8" in notes
    assert "with image_shape=" in notes
    assert failures(FrozenEncoderFeaturizer(encoder, image_shape=(1, 16, 16))) == {}


class UsesItFirst(Broken):
    def fit(self, X, y, *, sensitive_features=None):
        self.estimator.parameters()
        return super().fit(X, y, sensitive_features=sensitive_features)


class PassesOnLess(ThresholdDebiaser):
    def __init__(self, estimator, *, extra=1, epsilon=0.05):
        super().__init__(estimator, epsilon=epsilon)


class ReturnsNothing(Holds):
    def fit(self, X, y):
        super().fit(X, y)


@pytest.mark.parametrize(
    ("estimator", "check", "message"),
    [
        (
            UsesItFirst(a_network(lambda: nn.Linear(4, 1))),
            "check_bad_parameters_are_refused_first",
            "UsesItFirst uses estimator=<object",
        ),
        (
            PassesOnLess(a_network(lambda: nn.Linear(4, 1))),
            "check_constructor",
            "does not store its arguments ['extra']",
        ),
        (DoesMoreThanStore(), "check_constructor", "DoesMoreThanStore() sets ['double']"),
        (
            ReturnsNothing(LogisticRegression()),
            "check_data_are_left_alone",
            "fit of ReturnsNothing returns None",
        ),
    ],
)
def test_messages_say_what_to_mend(estimator, check, message):
    results = (
        run for _, run in estimator_checks_generator(estimator) if run.func.__name__ == check
    )
    with pytest.raises(AssertionError) as raised:
        next(results)(estimator)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (None, "NoneType, which has no fit"),
        (nn.Linear(4, 1), "Linear, which has no fit"),
        (make_pipeline(Holds(LogisticRegression())), "Pipeline, which contains other estimators"),
    ],
)
def test_what_is_no_estimator_by_itself(estimator, message):
    with pytest.raises(TypeError, match=message):
        check_estimator(estimator)


def test_all_failures_can_be_had_at_once():
    estimator = HoldsAnother(LogisticRegression())
    reasons = {"check_clone": "drawn anew", "check_needs_a_fit": "never fails"}
    with pytest.warns(EstimatorCheckFailedWarning) as warned:
        results = check_estimator(estimator, on_fail="warn", expected_failed_checks=reasons)
    by_name = {result["check_name"]: result for result in results}
    assert list(by_name) == [run.func.__name__ for _, run in estimator_checks_generator(estimator)]
    assert by_name["check_clone"]["status"] == "xfail"
    assert by_name["check_clone"]["expected_to_fail_reason"] == "drawn anew"
    assert isinstance(by_name["check_clone"]["exception"], AssertionError)
    assert by_name["check_needs_a_fit"]["status"] == "passed"
    assert by_name["check_needs_a_fit"]["expected_to_fail"]
    assert by_name["check_same_seed_same_bits"]["status"] == "failed"
    assert len(warned) == sum(result["exception"] is not None for result in results)
    of_scikit_learn = scikit_learn.check_estimator(estimator, on_fail=None, on_skip=None)[0]
    assert by_name["check_clone"].keys() == of_scikit_learn.keys()
    with pytest.raises(AssertionError, match="fitted attributes"):
        check_estimator(estimator, expected_failed_checks={"check_needs_a_fit": "no reason"})
    with pytest.raises(ValueError, match="on_fail is 'ignore'"):
        check_estimator(estimator, on_fail="ignore")


def test_checks_that_are_expected_to_fail_are_marked():
    mark = parametrize_with_checks(
        [Holds(GaussianNB())], expected_failed_checks=lambda estimator: {"check_clone": "why not"}
    )
    (marked,) = [test for test in mark.args[1] if test.marks]
    assert marked.id == "Holds-check_clone"
    assert [(m.name, m.kwargs) for m in marked.marks] == [("xfail", {"reason": "why not"})]


def test_the_docstring_is_checked_last():
    assert CHECKS[-1].function.__name__ == "check_documented"
    nothing_said = SaysNothing(a_network(lambda: nn.Linear(4, 1)))
    assert failures(nothing_said).keys() == {"check_documented"}


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_the_checks_take_a_network_in_double_precision():
    check_estimator(ThresholdDebiaser(nn.Linear(4, 1).double()))
