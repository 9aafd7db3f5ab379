"""ClusterMarginClassifier as a scikit-learn estimator, beyond what all estimators promise."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import skfair
from skfair.estimator_checks import estimator_checks_generator
from skfair.margin import ClusterMarginClassifier

# Little data and short training overcorrect; a test in test_cluster_margin.py is about the warning.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.OvercorrectionWarning")


def make_data():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    bias = np.where(rng.random(300) < 0.9, y, 1 - y)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    X[:, 0] += 6 * bias
    X[:, 1] += 2 * y
    return X, y, bias


X, Y, BIAS = make_data()
# A label for every third sample; folds and parts of the data keep some.
GROUPS = np.where(np.arange(300) % 3 == 0, np.array(["f", "m"], dtype=object)[BIAS], None)


def quick(**parameters):
    return ClusterMarginClassifier(
        **{"random_state": 0, "max_epochs": 2, "n_units": 8, **parameters}
    )


@pytest.mark.thorough
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
    # the weights of the samples decide its sign.
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


def test_a_copy_suggests_the_same_labels():
    classifier = quick().fit(X, Y)
    loaded = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(loaded.suggest_labels(9), classifier.suggest_labels(9))


KEPT = ("check_nothing_global", "check_pickle", "check_joblib", "check_deepcopy")


@pytest.mark.parametrize("loss", ["cluster_weighted", "loss_weighted"])
@pytest.mark.parametrize("promise", KEPT)
def test_the_other_losses_keep_their_promises(promise, loss):
    (check,) = [
        check
        for _, check in estimator_checks_generator(quick(loss=loss))
        if check.func.__name__ == promise
    ]
    check(quick(loss=loss))


# Group labels through scikit-learn --------------------------------------------------------

routing = pytest.mark.parametrize("enabled", [False, True])
fallback = pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")


def used_groups(classifier):
    return "n_compared" in classifier.diagnostics_


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
def test_weights_are_routed_on_request():
    weight = np.where(BIAS == Y, 1.0, 0.0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(quick().set_fit_request(sample_weight=True))
        pipeline.fit(X, Y, sample_weight=weight, sensitive_features=GROUPS)
    expected = quick().fit(X, Y, weight, sensitive_features=GROUPS)
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(X))


def test_it_is_exported():
    assert skfair.ClusterMarginClassifier is ClusterMarginClassifier
    assert (
        repr(ClusterMarginClassifier(3, loss="margin")) == "ClusterMarginClassifier(n_clusters=3)"
    )
