"""ClusterMarginClassifier as a scikit-learn estimator: checks, searches, pickles, routing."""

import copy
import pickle
import random
import warnings

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skfair
from skfair.margin import ClusterMarginClassifier
from skfair.margin._modules import LinearNet

# Little data and short training overcorrect; a test of its own is about the warning.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.OvercorrectionWarning")

LOSSES = ["margin", "cluster_weighted", "loss_weighted", "cross_entropy"]

rng = np.random.default_rng(0)
Y = np.arange(300) % 2
BIAS = np.where(rng.random(300) < 0.9, Y, 1 - Y)
X = rng.normal(size=(300, 6)).astype(np.float32)
X[:, 0] += 6 * BIAS
X[:, 1] += 2 * Y
# A label for every third sample; folds and parts of the data keep some.
GROUPS = np.where(np.arange(300) % 3 == 0, np.array(["f", "m"], dtype=object)[BIAS], None)


def quick(**parameters):
    return ClusterMarginClassifier(
        **{"random_state": 0, "max_epochs": 2, "n_units": 8, **parameters}
    )


@pytest.mark.filterwarnings("ignore::skfair.utils.AmplificationWarning")
@parametrize_with_checks(
    [
        ClusterMarginClassifier(),
        ClusterMarginClassifier(loss="cross_entropy"),
        ClusterMarginClassifier(
            loss="cluster_weighted", n_units=8, amplifier_max_epochs=1, max_epochs=1
        ),
        ClusterMarginClassifier(
            loss="loss_weighted", n_units=8, amplifier_max_epochs=1, max_epochs=1
        ),
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "a weighted sample and a repeated one "
        "make other batches; that they are equal in expectation is tested below"
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "parameters",
    [
        {"margin": "constant"},  # what weights do to the margins is the next test
        {"loss": "cluster_weighted"},
        {"loss": "loss_weighted"},
        {"loss": "cross_entropy"},
    ],
)
def test_a_weighted_sample_counts_as_often_as_a_repeated_one(parameters):
    # A feature speaks for class 1 in half of the samples and against it in the others, so that
    # what it is worth is a matter of their weights.
    for_it = np.arange(300) % 4 < 2
    told = X.copy()
    told[:, 3] += 2 * np.where(for_it, 1, -1) * (2 * Y - 1)
    high, low = X.copy(), X.copy()
    high[:, 3], low[:, 3] = 1, -1

    def worth(*data):
        values = []
        for seed in range(4):
            classifier = quick(**parameters, random_state=seed, max_epochs=10).fit(*data)
            values += [classifier.decision_function(high) - classifier.decision_function(low)]
        return np.mean(values)

    weighted, repeated = [], []
    for weight in (np.where(for_it, 4, 1), np.where(for_it, 1, 4)):
        weighted.append(worth(told, Y, weight))
        repeated.append(worth(np.repeat(told, weight, axis=0), np.repeat(Y, weight)))
    assert weighted[0] > weighted[1] + 0.4
    np.testing.assert_allclose(weighted, repeated, atol=0.3)


def test_weights_are_those_of_repeated_samples_in_the_margins():
    repeats = np.where(BIAS != Y, 3, 1)
    one = quick(n_clusters=1)
    expected = one.fit(np.repeat(X, repeats, axis=0), np.repeat(Y, repeats)).margins_
    np.testing.assert_allclose(one.fit(X, Y, repeats).margins_, expected, rtol=1e-12)


# Searches, pipelines, copies --------------------------------------------------------------


def test_clone_copies_the_parameters_and_nothing_else():
    classifier = quick(n_clusters=3, device=torch.device("cpu")).fit(X, Y)
    fresh = clone(classifier)
    assert fresh.get_params() == classifier.get_params()
    assert set(vars(fresh)) == set(classifier.get_params())
    np.testing.assert_array_equal(fresh.fit(X, Y).predict_proba(X), classifier.predict_proba(X))


def test_a_grid_search_in_two_processes():
    grid = {"loss": ["margin", "cross_entropy"], "n_clusters": [2, 4]}
    searches = [GridSearchCV(quick(), grid, cv=2, n_jobs=n).fit(X, Y) for n in (1, 2)]
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(*(search.cv_results_[name] for search in searches))
    np.testing.assert_array_equal(*(search.predict_proba(X) for search in searches))


def test_inside_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), quick())
    assert cross_val_score(pipeline, X, Y, cv=2).mean() > 0.6
    pipeline.fit(X, Y)
    np.testing.assert_array_equal(
        pipeline.predict(X), pipeline[-1].predict(StandardScaler().fit_transform(X))
    )
    # As a transformer, before another classifier.
    before = Pipeline([("debias", quick()), ("classify", quick(loss="cross_entropy"))])
    assert before.fit(X, Y).score(X, Y) > 0.6
    assert before[:-1].get_feature_names_out().tolist()[0] == "clustermarginclassifier0"


def all_outputs(classifier):
    names = ["predict", "predict_proba", "decision_function", "transform"]
    if classifier.loss != "cross_entropy":
        names.append("predict_cluster")
    return [getattr(classifier, name)(X) for name in names]


def through_joblib(estimator, folder):
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


WAYS = {
    "pickle": lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
    "joblib": through_joblib,
    "deepcopy": lambda estimator, folder: copy.deepcopy(estimator),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_copy_predicts_the_same_bits(way, loss, tmp_path):
    classifier = quick(loss=loss).fit(X, Y)
    expected = all_outputs(classifier)
    loaded = WAYS[way](classifier, tmp_path)
    for one, two in zip(all_outputs(loaded), expected, strict=True):
        np.testing.assert_array_equal(one, two)
    if loss != "cross_entropy":
        np.testing.assert_array_equal(loaded.margins_, classifier.margins_)
        np.testing.assert_array_equal(loaded.suggest_labels(9), classifier.suggest_labels(9))
    np.testing.assert_array_equal(loaded.fit(X, Y).predict_proba(X), expected[1])


class Elsewhere(LinearNet):
    """A network that says where it is, as one on an accelerator would."""

    where = "accelerator"

    def cpu(self):
        self.where = "cpu"
        return super().cpu()


def test_networks_are_pickled_on_the_cpu_and_stay_where_they_are():
    classifier = quick(loss="cross_entropy").fit(X, Y)
    network = Elsewhere(
        2, n_features=6, n_units=8, activation="relu", mean=torch.zeros(6), spread=torch.tensor(1.0)
    )
    network.load_state_dict(classifier.module_.state_dict())
    expected = classifier.predict_proba(X)
    classifier.module_ = network
    loaded = pickle.loads(pickle.dumps(classifier))
    assert loaded.module_.where == "cpu"
    assert classifier.module_ is network
    assert network.where == "accelerator"
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_predicting_leaves_the_network_alone():
    classifier = quick().fit(X, Y)
    network, state = classifier.module_, copy.deepcopy(classifier.module_.state_dict())
    network.train()
    all_outputs(classifier)
    assert classifier.module_ is network
    for name, value in network.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name])


# Group labels through scikit-learn --------------------------------------------------------

routing = pytest.mark.parametrize("enabled", [False, True])
fallback = pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")


def used_groups(classifier):
    return "odds_ratio" in classifier.diagnostics_


@fallback
@routing
def test_groups_reach_the_estimator_alone(enabled):
    with sklearn.config_context(enable_metadata_routing=enabled):
        assert used_groups(quick().fit(X, Y, sensitive_features=GROUPS))
        assert not used_groups(quick().fit(X, Y))
        features = quick().fit_transform(X, Y, sensitive_features=GROUPS)
    np.testing.assert_array_equal(
        features, quick().fit(X, Y, sensitive_features=GROUPS).transform(X)
    )


@fallback
def test_groups_reach_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), quick())
    pipeline.fit(X, Y, clustermarginclassifier__sensitive_features=GROUPS)
    assert used_groups(pipeline[-1])
    with sklearn.config_context(enable_metadata_routing=True):
        assert used_groups(clone(pipeline).fit(X, Y, sensitive_features=GROUPS)[-1])
        assert not used_groups(clone(pipeline).fit(X, Y)[-1])


def labels_seen(monkeypatch):
    """Make every fit write down for which rows it got a group."""
    seen, original = [], ClusterMarginClassifier._fit

    def fit(self, X, y, sample_weight, sensitive_features):
        seen.append((np.asarray(X)[:, 0], sensitive_features))
        return original(self, X, y, sample_weight, sensitive_features)

    monkeypatch.setattr(ClusterMarginClassifier, "_fit", fit)
    return seen


@fallback
@routing
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_groups_reach_a_grid_search_sliced_like_x(enabled, in_pipeline, monkeypatch):
    estimator, prefix = quick(), ""
    if in_pipeline:
        estimator, prefix = Pipeline([("scale", "passthrough"), ("margin", quick())]), "margin__"
    search = GridSearchCV(estimator, {f"{prefix}n_clusters": [2, 4]}, cv=2)
    seen = labels_seen(monkeypatch)
    with sklearn.config_context(enable_metadata_routing=enabled):
        name = "sensitive_features" if enabled else f"{prefix}sensitive_features"
        search.fit(X, Y, **{name: GROUPS})
    best = search.best_estimator_[-1] if in_pipeline else search.best_estimator_
    assert used_groups(best)
    assert len(seen) == 5
    row = {value: i for i, value in enumerate(X[:, 0])}
    for column, groups in seen:
        assert list(groups) == [GROUPS[row[value]] for value in column]


@fallback
def test_weights_are_routed_on_request():
    weight = np.where(BIAS == Y, 1.0, 0.0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(quick().set_fit_request(sample_weight=True))
        pipeline.fit(X, Y, sample_weight=weight, sensitive_features=GROUPS)
    expected = quick().fit(X, Y, weight, sensitive_features=GROUPS)
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(X))


# What a fit leaves behind -----------------------------------------------------------------


def global_state():
    return {
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "filters": list(warnings.filters),
        "sklearn": sklearn.get_config(),
    }


@fallback
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("random_state", [0, None])
def test_nothing_global_changes(loss, random_state):
    classifier = quick(loss=loss, random_state=random_state)
    if random_state is None:
        classifier.set_params(random_state=np.random.RandomState(0))
    before = global_state()
    classifier.fit(X, Y, sensitive_features=GROUPS)
    all_outputs(classifier)
    assert global_state() == before


def test_a_random_state_instance_moves_on():
    def run():
        generator = np.random.RandomState(0)
        return [quick(random_state=generator).fit(X, Y).predict_proba(X) for _ in range(2)]

    (first, second), (again, _) = run(), run()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)


def test_it_is_exported():
    assert skfair.ClusterMarginClassifier is ClusterMarginClassifier
    assert (
        repr(ClusterMarginClassifier(3, loss="margin")) == "ClusterMarginClassifier(n_clusters=3)"
    )
