"""ClusterMarginClassifier on planted biases, strange data, group labels and bad input."""

import functools
import io
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skfair.margin import ClusterMarginClassifier, _stages
from skfair.margin._amplifier import feature_scale, weight_decay_scale
from skfair.margin._modules import LinearNet, MarginNet
from skfair.metrics import make_fairness_scorer
from skfair.utils import AmplificationWarning, FallbackWarning, OvercorrectionWarning

# Little data and short training overcorrect; one test below is about the warning.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.OvercorrectionWarning")

LOSSES = ["margin", "cluster_weighted", "loss_weighted", "cross_entropy"]
# Small random data carry no bias to amplify, and the amplifier warns.
no_bias = pytest.mark.filterwarnings("ignore::skfair.utils.AmplificationWarning")


def biased(n, n_classes=2, agree=0.95, seed=0, bias=6.0, target=2.0, width=16):
    """Features in which the bias stands out by `bias` standard deviations, y by `target`."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    other = (y + rng.integers(1, n_classes, size=n)) % n_classes
    attribute = np.where(rng.random(n) < agree, y, other)
    X = rng.normal(size=(n, width))
    X[:, :n_classes] += bias * np.eye(n_classes)[attribute]
    X[:, n_classes : 2 * n_classes] += target * np.eye(n_classes)[y]
    return X.astype(np.float32), y, attribute


X, Y, BIAS = biased(600)


def worst_group(classifier, X, y, attribute):
    right = classifier.predict(X) == y
    return pd.Series(right).groupby([y, attribute]).mean().min()


@functools.cache
def worst_of(n_classes, seed, **parameters):
    """Worst group on unbiased test data after training on biased data."""
    train = biased(600 * n_classes, n_classes, seed=seed)
    test = biased(1500, n_classes, agree=1 / n_classes, seed=100 + seed)
    classifier = ClusterMarginClassifier(random_state=seed, **parameters).fit(*train[:2])
    return worst_group(classifier, *test)


def assert_same_network(first, second):
    one, two = first.module_.state_dict(), second.module_.state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name])


def fit(X=X, y=Y, sample_weight=None, sensitive_features=None, **parameters):
    classifier = ClusterMarginClassifier(**{"random_state": 0, **parameters})
    return classifier.fit(X, y, sample_weight, sensitive_features=sensitive_features)


@functools.cache
def fitted(**parameters):
    """A fit on X and Y that several tests look at and none changes."""
    return fit(**parameters)


# What it is for ---------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "n_classes, seed", [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0)]
)
def test_the_worst_group_is_much_better_than_after_ordinary_training(n_classes, seed):
    ordinary = worst_of(n_classes, seed, loss="cross_entropy")
    assert worst_of(n_classes, seed) > ordinary + 0.05
    assert worst_of(n_classes, seed, scale=8.0) > ordinary + 0.1  # the paper's


def test_weighted_losses_lie_between():
    worst = {
        loss: np.mean([worst_of(3, seed, loss=loss, scale=8.0) for seed in range(3)])
        for loss in LOSSES
    }
    for loss in ("cluster_weighted", "loss_weighted"):
        assert worst["cross_entropy"] + 0.03 < worst[loss] < worst["margin"]


def test_the_ablations():
    ordinary, strong = worst_of(2, 0, loss="cross_entropy"), {"scale": 8.0}
    assert worst_of(2, 0, cluster_on="input", **strong) > ordinary + 0.1
    # The same margin everywhere corrects nothing.
    assert worst_of(2, 0, margin="constant", **strong) < worst_of(2, 0, **strong) - 0.1
    constant = fit(margin="constant")
    assert (constant.margins_ == 0.5).all()
    assert constant.margins_.shape == (8, 2)
    assert not np.array_equal(fit(margin_std=0).predict_proba(X), fitted().predict_proba(X))


def test_clusters_of_the_input_are_points_of_the_input():
    # Two tight blobs on opposite sides of their mean: the centres are known.
    y = np.tile([0, 1], 50)
    bias = np.repeat([0, 1], 50)
    points = np.column_stack([2.0 * bias, np.tile([0, 0, 1e-3, 1e-3], 25)])
    with pytest.warns(AmplificationWarning):
        classifier = fit(points, y, cluster_on="input", n_clusters=2)
    np.testing.assert_allclose(sorted(classifier.cluster_centers_[:, 0]), [-1, 1], atol=1e-3)
    assert len(set(zip(bias, classifier.labels_, strict=True))) == 2


@pytest.mark.parametrize("n_clusters", [1, 3, "auto"])
def test_margins_are_one_less_the_share_of_the_class(n_clusters):
    weight = np.random.default_rng(0).uniform(0.2, 3, size=len(Y)).astype(np.float32)
    for given in (None, weight):
        classifier = fit(n_clusters=n_clusters, sample_weight=given)
        assert len(classifier.margins_) == len(classifier.cluster_centers_)
        assert len(classifier.margins_) == (8 if n_clusters == "auto" else n_clusters)
        for z, row in enumerate(classifier.margins_):
            total = sum(weight[i] if given is not None else 1 for i in range(len(Y))
                        if classifier.labels_[i] == z)  # fmt: skip
            for k, margin in enumerate(row):
                part = sum(weight[i] if given is not None else 1 for i in range(len(Y))
                           if classifier.labels_[i] == z and Y[i] == k)  # fmt: skip
                assert margin == pytest.approx(1 - part / total, abs=1e-5)
        np.testing.assert_array_equal(classifier.labels_, classifier.predict_cluster(X))


def test_clusters_follow_the_bias_rather_than_the_class():
    classifier = fitted()
    shares = pd.crosstab(classifier.labels_, BIAS, normalize="index")
    assert (shares.max(axis=1) > 0.9).mean() > 0.7
    conflicting = BIAS != Y
    own = classifier.margins_[classifier.labels_, Y]
    assert own[conflicting].mean() > own[~conflicting].mean() + 0.5


def test_diagnostics_and_history():
    classifier = fit(max_epochs=3, amplifier_max_epochs=12)
    assert set(classifier.diagnostics_) == {
        "amplifier_accuracy", "amplifier_rank", "normalized_mutual_info", "classifier_accuracy",
        "class_tilt",
    }  # fmt: skip
    # One rule for two classes, which is right where the bias agrees with the class.
    assert classifier.diagnostics_["amplifier_rank"] == pytest.approx(1, abs=0.2)
    assert classifier.diagnostics_["amplifier_accuracy"] == pytest.approx(
        (BIAS == Y).mean(), abs=0.03
    )
    assert [len(classifier.history_[stage]) for stage in ("amplifier", "classifier")] == [12, 3]
    assert isinstance(classifier.amplifier_, LinearNet)
    assert isinstance(classifier.module_, MarginNet)


def test_a_progress_bar_for_each_network(capsys):
    fit(verbose=1, max_epochs=2)
    shown = capsys.readouterr().err
    assert "amplifier: 100%" in shown
    assert "classifier: 100%" in shown
    fit(max_epochs=2)
    assert capsys.readouterr().err == ""


# What comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_outputs_agree_with_each_other(loss, n_classes):
    X, y, _ = biased(300, n_classes)
    classifier = fit(X, y, loss=loss, max_epochs=3)
    probabilities, scores = classifier.predict_proba(X), classifier.decision_function(X)
    assert probabilities.dtype == scores.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(classifier.predict(X), probabilities.argmax(axis=1))
    if n_classes == 2:
        assert scores.shape == (300,)
        np.testing.assert_array_equal(classifier.predict(X), scores > 0)
        np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-9)
    else:
        np.testing.assert_array_equal(classifier.predict(X), scores.argmax(axis=1))
    # The network alone, on raw features.
    logits = classifier.module_(torch.from_numpy(X)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, logits, atol=1e-5)


def test_probabilities_of_the_margin_loss_use_the_scale():
    scores = fit(scale=3.0).decision_function(X)
    assert np.abs(scores).max() <= 6  # 3 * (1 - -1)
    assert np.abs(scores).max() > 1.5


def test_transform_gives_the_adapter_s_features():
    classifier = fit(n_units=7, max_epochs=2)
    features = classifier.transform(X)
    assert (features.shape, features.dtype) == ((600, 7), np.float32)
    assert (features >= 0).all()  # ReLU
    names = classifier.get_feature_names_out()
    assert names.tolist() == [f"clustermarginclassifier{i}" for i in range(7)]
    frame = classifier.set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == names.tolist()
    cosine = torch.nn.functional.normalize(torch.from_numpy(features)) @ (
        torch.nn.functional.normalize(classifier.module_.weight).T.detach()
    )
    scores = 4 * (cosine[:, 1] - cosine[:, 0])
    np.testing.assert_allclose(classifier.decision_function(X), scores.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "labels", [["no", "yes"], [False, True], [-7, 3], [0.0, 1.0], ["b", "a"], [5, -5]]
)
def test_labels_of_any_type(labels):
    labels = np.array(labels)
    classifier = fit(y=labels[Y], max_epochs=2)
    assert classifier.classes_.tolist() == sorted(labels.tolist())
    predicted = classifier.predict(X)
    assert predicted.dtype == labels.dtype
    codes = np.searchsorted(classifier.classes_, labels[Y])
    plain = fit(y=codes, max_epochs=2)
    np.testing.assert_array_equal(predicted, classifier.classes_[plain.predict(X)])


def test_a_row_is_predicted_the_same_whatever_comes_with_it(monkeypatch):
    classifier = fitted(max_epochs=2)
    expected, clusters = classifier.predict_proba(X), classifier.predict_cluster(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(classifier.predict_proba(X[order]), expected[order], rtol=1e-12)
    np.testing.assert_allclose(classifier.predict_proba(X[:1]), expected[:1], rtol=1e-12)
    np.testing.assert_array_equal(classifier.predict_cluster(X[order]), clusters[order])
    monkeypatch.setattr("skfair.base._classifier._PREDICT_BATCH", 7)
    np.testing.assert_allclose(classifier.predict_proba(X), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_seed_gives_the_same_bits(loss):
    first, second = fitted(loss=loss, max_epochs=2), fit(loss=loss, max_epochs=2)
    assert_same_network(first, second)
    other = fit(loss=loss, max_epochs=2, random_state=1)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    if loss != "cross_entropy":
        np.testing.assert_array_equal(first.labels_, second.labels_)
        np.testing.assert_array_equal(first.suggest_labels(20), second.suggest_labels(20))


def test_a_fit_forgets_the_one_before():
    classifier = fit(max_epochs=2)
    classifier.set_params(loss="cross_entropy").fit(X, Y)
    for name in ("labels_", "cluster_centers_", "margins_", "amplifier_"):
        assert not hasattr(classifier, name)
    assert list(classifier.history_) == ["classifier"]
    assert_same_network(classifier, fitted(max_epochs=2, loss="cross_entropy"))
    with pytest.raises(NotFittedError):
        classifier.set_params(loss="margin").suggest_labels()


# Strange data -----------------------------------------------------------------------------


# Multiples of a 64th: float32 holds them exactly after a shift by 512 or a scaling by a power of
# two. If the fit lost a last bit, training would amplify the error, in some fits to a twentieth of
# all predictions.
COARSE = np.round(X * 64) / 64
EXACT = {
    "larger": COARSE * 1024,
    "smaller": COARSE * np.float32(2**-100),
    "shifted up": COARSE + 512,
    "shifted down": COARSE - 512,
    "each feature shifted": COARSE + np.linspace(-960, 960, 16, dtype=np.float32),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_unit_and_origin_of_the_features_do_not_matter(loss):
    plain = fit(COARSE, loss=loss)
    expected = plain.predict_proba(COARSE)
    for changed in EXACT.values():
        np.testing.assert_array_equal(fit(changed, loss=loss).predict_proba(changed), expected)


@pytest.mark.parametrize("change", EXACT)
def test_centring_loses_nothing(change):
    mean, spread = (part.numpy() for part in feature_scale(COARSE))
    exact = COARSE.astype(np.float64) - mean  # two of float32, so that float64 rounds nothing
    assert np.abs(exact.mean(axis=0)).max() <= spread / 2**13
    far, far_spread = (part.numpy() for part in feature_scale(EXACT[change]))
    unit = far_spread / spread
    assert unit == {"larger": 1024, "smaller": np.float32(2**-100)}.get(change, 1)
    np.testing.assert_array_equal((EXACT[change] - far) / unit, exact)


def test_the_amplifier_s_penalty_does_not_depend_on_the_origin():
    # Class means of float32 features far from zero must be taken in float64.
    far = (np.float32(5000) + np.round(np.tile(X, (30, 1)) * 64) / 64).astype(np.float32)
    near = far - np.float32(5000)
    unit = weight_decay_scale
    codes, weight = np.tile(Y, 30), np.ones(len(far), dtype=np.float32)
    assert unit(far, codes, weight, 1.0) == pytest.approx(unit(near, codes, weight, 1.0), rel=1e-6)


@no_bias
@pytest.mark.parametrize("loss", LOSSES)
def test_features_that_tell_nothing(loss):
    constant = np.full((40, 3), 7.1)
    y = np.tile([0, 1], 20)
    probabilities = fit(constant, y, loss=loss).predict_proba(constant)
    np.testing.assert_allclose(probabilities, np.tile(probabilities[:1], (40, 1)))
    assert np.isfinite(probabilities).all()


def test_constant_features_beside_others_change_little():
    wider = np.column_stack([X, np.full((len(X), 2), 123.0)])
    classifier = fit(wider)
    assert (classifier.predict(wider) == fitted().predict(X)).mean() > 0.8


@no_bias
def test_features_of_rank_one():
    rng = np.random.default_rng(0)
    line = (rng.normal(size=(200, 1)) + 4 * BIAS[:200, None]) @ rng.normal(size=(1, 5))
    for loss in LOSSES:
        classifier = fit(line, Y[:200], loss=loss)
        assert np.isfinite(classifier.predict_proba(line)).all()
    assert classifier.score(line, Y[:200]) > 0.85  # the last one, ordinary training


@no_bias
def test_one_feature_and_very_many():
    assert np.isfinite(fit(X[:, :1], Y).predict_proba(X[:, :1])).all()
    wide = np.random.default_rng(0).normal(size=(30, 3000))
    wide[:, 0] += 9 * Y[:30]
    assert np.isfinite(fit(wide, Y[:30]).predict_proba(wide)).all()


@no_bias
def test_more_clusters_than_distinct_points():
    points = np.tile([[0.0, 1.0], [0.0, 2.0], [3.0, 1.0], [3.0, 2.0]], (25, 1))
    y = np.tile([0, 0, 1, 1], 25)
    classifier = fit(points, y, n_clusters=50)
    assert len(classifier.cluster_centers_) <= 4
    assert set(classifier.labels_) == set(range(len(classifier.cluster_centers_)))
    assert np.isfinite(classifier.margins_).all()
    assert classifier.predict_proba(points).shape == (100, 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_clusters_of_one_class_each(loss):
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 100)
    apart = rng.normal(size=(200, 4)) + 50 * y[:, None]
    classifier = fit(apart, y, loss=loss)
    assert classifier.score(apart, y) == 1
    if loss != "cross_entropy":
        assert set(classifier.margins_.round(6).ravel()) == {0, 1}


@no_bias
@pytest.mark.parametrize("loss", LOSSES)
def test_one_or_two_samples_of_each_class(loss):
    for y in (["a", "b"], ["a", "b", "b", "a"], ["a", "b", "c"], list("abcdefg")):
        points = np.random.default_rng(0).normal(size=(len(y), 3))
        probabilities = fit(points, y, loss=loss).predict_proba(points)
        assert probabilities.shape == (len(y), len(set(y)))
        assert np.isfinite(probabilities).all()


def test_forms_of_features_do_not_matter(tmp_path):
    whole = np.round(X * 8)
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, whole.shape)
    mapped[:] = whole
    read_only = whole.copy()
    read_only.flags.writeable = False
    forms = [
        whole.astype(np.float64), whole.astype(int), np.asfortranarray(whole), whole.tolist(),
        np.load(tmp_path / "x.npy", mmap_mode="r"), read_only, np.repeat(whole, 2, axis=1)[:, ::2],
    ]  # fmt: skip
    expected = fit(whole, max_epochs=2)
    before = whole.copy()
    for form in forms:
        classifier = fit(form, max_epochs=2)
        assert_same_network(classifier, expected)
        np.testing.assert_array_equal(classifier.predict_proba(form), expected.predict_proba(whole))
    np.testing.assert_array_equal(whole, before)
    frame = pd.DataFrame(whole, columns=[f"f{i}" for i in range(16)])
    classifier = fit(frame, pd.Series(Y, index=range(5, 605)), max_epochs=2)
    assert_same_network(classifier, expected)
    assert classifier.feature_names_in_.tolist() == frame.columns.tolist()


@pytest.mark.parametrize("loss", LOSSES)
def test_samples_of_weight_zero_are_as_if_absent(loss):
    weight = np.random.default_rng(1).integers(0, 3, size=len(Y))
    kept = weight > 0
    with_zeros = fit(sample_weight=weight, loss=loss, max_epochs=2)
    without = fit(X[kept], Y[kept], sample_weight=weight[kept], loss=loss, max_epochs=2)
    assert_same_network(with_zeros, without)
    if loss != "cross_entropy":
        np.testing.assert_array_equal(with_zeros.labels_[kept], without.labels_)
        np.testing.assert_array_equal(with_zeros.labels_, with_zeros.predict_cluster(X))
        np.testing.assert_array_equal(
            with_zeros.suggest_labels(40), np.flatnonzero(kept)[without.suggest_labels(40)]
        )


def test_only_the_ratios_of_weights_count():
    plain = fitted(max_epochs=2)
    assert_same_network(plain, fit(max_epochs=2, sample_weight=np.ones(len(Y))))
    fourfold = fit(max_epochs=2, sample_weight=np.full(len(Y), 4))
    np.testing.assert_allclose(fourfold.predict_proba(X), plain.predict_proba(X), atol=1e-3)


# Warnings and group labels ----------------------------------------------------------------


def test_a_penalty_that_is_too_strong_is_said():
    with pytest.warns(AmplificationWarning, match=r"learned next to nothing.*Lower amplifier_w"):
        classifier = fit(amplifier_weight_decay=1000.0)
    assert classifier.diagnostics_["amplifier_accuracy"] < 0.75


def test_a_penalty_that_is_too_weak_is_said():
    X, y, _ = biased(200, bias=1.0, target=1.0)
    with pytest.warns(AmplificationWarning, match=r"effective rank of .*Raise amplifier_weight"):
        classifier = fit(X, y, amplifier_weight_decay=0.0, amplifier_max_epochs=30)
    assert classifier.diagnostics_["amplifier_rank"] > 1.5


# The class stands out. The attribute agrees with the class in 80 % of the rows, and is weak.
EASY_X, EASY_Y, EASY_BIAS = biased(1500, agree=0.8, bias=0.5, target=2.5, seed=3)


def labelled_only(attribute, rows):
    known = np.full(len(attribute), None, dtype=object)
    known[rows] = np.array(["f", "m"])[attribute[rows]]
    return known


@pytest.mark.parametrize("loss", LOSSES[:3])
def test_fifty_labels_speak_for_the_method_where_the_bias_is_easier(loss):
    unlabelled = fitted(loss=loss)
    groups = labelled_only(BIAS, unlabelled.suggest_labels(50))
    classifier = fit(sensitive_features=groups, loss=loss)
    assert classifier.loss_ == loss
    found = classifier.diagnostics_
    assert (found["decision"], found["n_compared"]) == ("method", 50)
    # One rule for two classes, which gets conflicting samples wrong.
    assert found["conflicting_accuracy"] < 0.3 < 0.9 < found["aligned_accuracy"]
    assert found["accuracy_gap_low"] > found["accuracy_gap_needed"] == 0.2
    assert_same_network(classifier, unlabelled)
    np.testing.assert_array_equal(classifier.labels_, unlabelled.labels_)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fifty_labels_speak_against_it_where_the_target_is_easier(seed):
    X, y, bias = EASY_X, EASY_Y, EASY_BIAS
    unlabelled = fit(X, y, random_state=seed)
    groups = labelled_only(bias, unlabelled.suggest_labels(50))
    with pytest.warns(FallbackWarning, match=r"Ordinary training was used.*loss='margin'.*a gap"):
        classifier = fit(X, y, sensitive_features=groups, random_state=seed)
    assert classifier.loss_ == "cross_entropy"
    assert classifier.loss == "margin"
    assert classifier.diagnostics_["decision"] == "ordinary"
    assert classifier.diagnostics_["accuracy_gap_high"] < 0.2
    ordinary = fit(X, y, loss="cross_entropy", random_state=seed)
    np.testing.assert_array_equal(classifier.predict_proba(X), ordinary.predict_proba(X))
    # The clusters stay, so that users can look at them.
    np.testing.assert_array_equal(classifier.labels_, unlabelled.labels_)


def test_few_labels_may_not_tell():
    rows = np.flatnonzero(BIAS == Y)[:9].tolist() + np.flatnonzero(BIAS != Y)[:1].tolist()
    with pytest.warns(FallbackWarning, match=r"cannot tell.*suggest_labels\(\).*LogitAdjusted"):
        classifier = fit(sensitive_features=labelled_only(BIAS, rows))
    found = classifier.diagnostics_
    assert found["decision"] == "cannot tell"
    assert found["accuracy_gap_low"] < 0.2 < found["accuracy_gap_high"]
    assert_same_network(classifier, fitted(loss="cross_entropy"))


def test_where_all_is_labelled_nobody_is_asked_for_more():
    # Forty samples of each class and group: nothing is conflicting, and there is no hold-out.
    groups = np.arange(160) // 2 % 2
    with pytest.warns(FallbackWarning, match="helps: use the labels in training") as caught:
        classifier = fit(X[:160], Y[:160], sensitive_features=groups)
    assert classifier.diagnostics_["decision"] == "cannot tell"
    assert np.isnan(classifier.diagnostics_["conflicting_accuracy"])
    assert "suggest_labels" not in str(caught[0].message)
    assert "set_fit_request" not in str(caught[0].message)


def test_groups_that_were_meant_for_a_scorer_can_be_kept_from_fit():
    groups, scorer = np.arange(160) // 2 % 2, make_fairness_scorer("worst_group_accuracy")
    classifier = ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1, random_state=0)
    ignored = [AmplificationWarning, OvercorrectionWarning]
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        for kind in ignored:
            warnings.simplefilter("ignore", kind)
        search = GridSearchCV(classifier, {"scale": [4.0]}, scoring=scorer, cv=2)
        with pytest.warns(FallbackWarning, match=r"set_fit_request\(sensitive_features=False\)"):
            search.fit(X[:160], Y[:160], sensitive_features=groups)
        kept = clone(search)
        kept.estimator.set_fit_request(sensitive_features=False)
        kept.fit(X[:160], Y[:160], sensitive_features=groups)  # and no warning of this kind
    assert search.best_estimator_.loss_ == "cross_entropy"
    assert kept.best_estimator_.loss_ == "margin"


def test_the_stronger_the_correction_the_larger_the_gap_that_it_needs():
    groups = labelled_only(BIAS, fitted().suggest_labels(50))
    weak, strong = (fit(sensitive_features=groups, scale=s) for s in (1.0, 8.0))
    needed = [c.diagnostics_["accuracy_gap_needed"] for c in (weak, strong)]
    assert needed == [pytest.approx(0.05), pytest.approx(0.4)]
    for name in ("accuracy_gap_low", "accuracy_gap_high", "conflicting_accuracy"):
        assert weak.diagnostics_[name] == strong.diagnostics_[name]


def test_labels_of_every_sample_are_judged_on_a_hold_out():
    X, y, bias = biased(2400)  # the worst group is right in about .5, and more with margins
    classifier = fit(X, y, sensitive_features=bias)
    worst = classifier.diagnostics_["holdout_worst_group"]
    assert list(worst) == ["cross_entropy", "margin"]
    assert worst["margin"] > worst["cross_entropy"]
    assert classifier.diagnostics_["holdout_gain_low"] > 0
    assert classifier.diagnostics_["n_compared"] == 2400
    assert classifier.loss_ == "margin"
    assert_same_network(classifier, fit(X, y))


def test_a_hold_out_can_speak_against_the_method():
    X, y, bias = biased(2400, agree=0.5, seed=1, target=3.0)  # there is no bias at all
    with pytest.warns(FallbackWarning, match="480 labelled samples held out"):
        classifier = fit(X, y, sensitive_features={"sex": bias})
    worst = classifier.diagnostics_["holdout_worst_group"]
    assert worst["margin"] <= worst["cross_entropy"]
    assert_same_network(classifier, fit(X, y, loss="cross_entropy"))


def test_random_labels_do_as_well():
    X, y, bias = biased(1200, agree=0.9)
    rows = np.random.default_rng(0).choice(1200, 200, replace=False)
    groups = pd.Series(np.nan, index=range(1200), dtype=object)
    groups.iloc[rows] = bias[rows]
    classifier = fit(X, y, sensitive_features=groups)
    assert classifier.loss_ == "margin"
    assert classifier.diagnostics_["n_compared"] == 200
    assert classifier.diagnostics_["n_conflicting"] == (bias != y)[rows].sum()


def test_labels_of_samples_without_weight_do_not_count():
    weight = np.ones(len(Y))
    weight[:60] = 0
    with pytest.warns(FallbackWarning, match="of 0 labelled samples 0 are"):
        classifier = fit(
            sample_weight=weight, sensitive_features=labelled_only(BIAS, np.arange(60))
        )
    assert classifier.diagnostics_["n_compared"] == 0


def test_features_without_the_class_turn_predictions_round_with_a_warning():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    X = rng.normal(size=(600, 20)).astype(np.float32)
    X[:, 0] += 5 * np.where(rng.random(600) < 0.95, y, 1 - y)  # the bias, and nothing else
    with pytest.warns(OvercorrectionWarning, match="less than the 50% of guessing"):
        classifier = fit(X, y, scale=8.0)
    assert classifier.diagnostics_["classifier_accuracy"] == pytest.approx(
        np.mean([classifier.score(X[y == k], y[y == k]) for k in (0, 1)])
    )
    assert classifier.diagnostics_["classifier_accuracy"] < 0.5
    fit(X, y, loss="cross_entropy")  # without a warning


@no_bias  # unequal classes leave the amplifier a second direction
def test_predictions_that_favour_a_class_are_said():
    # With unequal classes the margins favour the rare class, which profits less from the bias.
    rng = np.random.default_rng(0)
    y = rng.choice(2, size=900, p=[0.85, 0.15])
    X = rng.normal(size=(900, 20)).astype(np.float32)
    X[:, 0] += 6 * np.where(rng.random(900) < 0.9, y, 1 - y)
    X[:, 1] += 2 * y
    with pytest.warns(OvercorrectionWarning, match="of its training data from classes that it pre"):
        classifier = fit(X, y, scale=8.0)
    shares = np.bincount(classifier.predict(X), minlength=2) / 900
    tilt = abs(shares[1] - y.mean())  # two classes: what one gains, the other loses
    assert classifier.diagnostics_["class_tilt"] == pytest.approx(tilt)
    assert tilt > 0.04
    ordinary = fit(X, y, loss="cross_entropy")  # without a warning
    assert ordinary.diagnostics_["class_tilt"] < 0.04
    # A weighted loss has no scale, and its message names none.
    with pytest.warns(OvercorrectionWarning, match="not intended, take loss='cross_entropy' or"):
        fit(X, y, loss="loss_weighted", max_epochs=1)


def test_groups_do_not_matter_to_ordinary_training():
    assert_same_network(
        fit(loss="cross_entropy", sensitive_features=BIAS), fitted(loss="cross_entropy")
    )


def test_two_fifths_of_the_suggested_labels_are_errors_and_classes_are_even():
    X, y, bias = biased(2400, agree=0.9, seed=1)
    classifier = fit(X, y)
    rows = classifier.suggest_labels(40)
    assert rows.shape == (40,)
    assert np.issubdtype(rows.dtype, np.integer)
    assert len(set(rows)) == 40
    with torch.no_grad():
        right = classifier.amplifier_(torch.from_numpy(X)).argmax(dim=1).numpy() == y
    assert right[rows].tolist() == [False] * 16 + [True] * 24
    assert np.bincount(y[rows[:16]]).tolist() == [8, 8]
    assert np.bincount(y[rows[16:]]).tolist() == [12, 12]
    # The suggested errors are nearly all bias-conflicting, the other samples are aligned.
    assert (bias != y)[rows[:16]].mean() > 0.9
    assert (bias != y)[rows[16:]].mean() < 0.1
    assert classifier.suggest_labels().shape == (50,)
    assert classifier.suggest_labels(np.int64(1)).shape == (1,)


def test_suggested_labels_leave_out_what_is_known():
    first = fitted().suggest_labels(30)
    classifier = fit(sensitive_features=labelled_only(BIAS, first))
    assert not set(first) & set(classifier.suggest_labels(len(Y)))


def test_suggested_labels_end_where_there_are_no_more():
    rows = fitted().suggest_labels(10_000)
    assert sorted(rows) == list(range(len(Y)))


@pytest.mark.parametrize("n", [0, -1, 2.0, "ten", None, True])
def test_a_bad_number_of_labels(n):
    with pytest.raises(ValueError, match=rf"n={re.escape(repr(n))} must be a positive integer"):
        fitted(max_epochs=1).suggest_labels(n)


def test_ordinary_training_has_no_clusters():
    classifier = fit(loss="cross_entropy", max_epochs=1)
    for method in ("suggest_labels", "predict_cluster"):
        assert not hasattr(classifier, method)
        with pytest.raises(AttributeError) as raised:
            getattr(classifier, method)
        assert "Fit with loss='margin' first" in str(raised.value.__cause__)
    assert classifier.transform(X).shape == (600, 128)


# Bad input --------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def train_network(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(_stages, "train_network", train_network)


def with_value(value):
    changed = X.astype(np.float64)
    changed[3, 1] = value
    return changed


BAD_DATA = {
    "nan": (with_value(np.nan), Y, ValueError, "Input X contains NaN"),
    "inf": (with_value(np.inf), Y, ValueError, "Input X contains infinity"),
    "too large for float32": (with_value(1e60), Y, ValueError, "Input X contains infinity"),
    "empty": (X[:0], Y[:0], ValueError, r"X is empty: its shape is \(0, 16\).*at least one row"),
    "no features": (X[:, :0], Y, ValueError, r"0 feature\(s\)"),
    "one sample": (X[:1], Y[:1], ValueError, "minimum of 2"),
    "1-D": (X[:, 0], Y, ValueError, "Expected 2D array, got 1D.*(\n.*)*Reshape your data"),
    "3-D": (X[:, :, None], Y, ValueError, r"X has shape \(600, 16, 1\).*\(n_samples, n_features"),
    "images": (X.reshape(600, 1, 4, 4), Y, ValueError, "X has shape.*FrozenEncoderFeaturizer"),
    "torch images": (torch.zeros(600, 1, 4, 4), Y, ValueError, "X has shape.*Encode images first"),
    "complex": (X + 1j, Y, ValueError, "Complex data not supported"),
    "sparse": (scipy.sparse.csr_array(X), Y, TypeError, "Sparse data was passed for X"),
    "words": (np.full((600, 2), "a"), Y, ValueError, "could not convert string to float"),
    "no y": (X, None, ValueError, "requires y to be passed"),
    "one class": (X, np.full(600, "a"), ValueError, "y holds one class only .'a'.;"),
    "other length": (X, Y[:-1], ValueError, "y has 599 labels for the 600 samples of X"),
    "two outputs": (X, np.column_stack([Y, Y]), ValueError, "y should be a 1d array"),
    "continuous y": (X, X[:, 0], ValueError, "Unknown label type: continuous"),
    "missing y": (X, np.where(Y, np.nan, 1), ValueError, "Input y contains NaN"),
    "None in y": (X, np.where(Y, "a", None), ValueError, "y is an array of objects.*NoneType"),
    "mixed y": (
        X,
        np.array(["a", 1] * 300, object),
        ValueError,
        "y is.*among them int. Convert all",
    ),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bad_data(case, loss):
    X, y, error, message = BAD_DATA[case]
    classifier = ClusterMarginClassifier(loss=loss)
    with pytest.raises(error, match=message):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


BAD_WEIGHTS = {
    "negative": (np.where(np.arange(600) == 5, -1.0, 1.0), "Negative values.*sample_weight"),
    "other length": (np.ones(599), r"sample_weight.shape == \(599,\), expected \(600,\)"),
    "nan": (np.full(600, np.nan), "sample_weight contains NaN"),
    "2-D": (np.ones((600, 2)), "Sample weights must be 1D"),
    "zero on a class": (Y, "sample_weight is zero on every sample of class 0. Leave that class"),
    "zero": (np.zeros(600), "Sample weights must contain at least one non-zero"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights(case):
    weight, message = BAD_WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        fit(sample_weight=weight)


BAD_GROUPS = {
    "other length": (BIAS[:-1], "sensitive_features has 599 values for 600 samples. Give one"),
    "no labels": ([None] * 600, r"missing for every sample.*label.*suggest_labels\(\) names"),
    "only nan": (np.full(600, np.nan), "sensitive_features is missing for every sample"),
    "continuous": (X[:, 0], "sensitive_features holds continuous values.*Bin the values"),
    "3-D": (np.ones((600, 1, 1)), r"sensitive_features has shape \(600, 1, 1\)"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_GROUPS)
@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_bad_groups(case, loss):
    groups, message = BAD_GROUPS[case]
    with pytest.raises(ValueError, match=message):
        fit(sensitive_features=groups, loss=loss)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "name, value",
    [
        ("n_clusters", 0), ("n_clusters", 2.5), ("n_clusters", "many"), ("loss", "hinge"),
        ("margin", 0.5), ("margin_std", -0.1), ("margin_std", np.nan), ("scale", 0),
        ("scale", np.inf), ("cluster_on", "raw"), ("n_units", 0), ("amplifier_weight_decay", -1),
        ("amplifier_max_epochs", 0), ("weight_decay", -1), ("lr", 0), ("lr", "fast"),
        ("lr", np.nan), ("batch_size", 0), ("max_epochs", 0), ("max_epochs", 1.5), ("device", 3),
        ("random_state", "a"), ("verbose", "a"),
    ],
)  # fmt: skip
def test_bad_parameters(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of ClusterMarginClassifier must"):
        fit(**{name: value})


@pytest.mark.usefixtures("no_training")
def test_more_clusters_than_samples():
    with pytest.raises(ValueError, match=r"n_clusters=601 is more than the 600 samples in X. Ask"):
        fit(n_clusters=601)


@pytest.mark.usefixtures("no_training")
def test_an_unknown_device():
    with pytest.raises(ValueError, match=r"device='gpu' is not a device that torch knows. Use"):
        fit(device="gpu")


METHODS = ["predict", "predict_proba", "decision_function", "transform", "predict_cluster"]


@pytest.mark.parametrize("method", METHODS)
def test_bad_features_after_the_fit(method):
    classifier = fitted(max_epochs=1)
    run = getattr(classifier, method)
    with pytest.raises(ValueError, match=r"X has 15 features, but .* expecting 16 features"):
        run(X[:, :15])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        run(with_value(np.nan))
    with pytest.raises(ValueError, match=r"X has shape \(600, 4, 4\).*Encode images first"):
        run(X.reshape(600, 4, 4))
    with pytest.raises(ValueError, match=r"X is empty"):
        run(X[:0])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_before_the_fit(method):
    with pytest.raises(NotFittedError):
        getattr(ClusterMarginClassifier(), method)(X)


def test_no_names_and_no_suggestions_before_the_fit():
    with pytest.raises(NotFittedError):
        ClusterMarginClassifier().get_feature_names_out()
    with pytest.raises(NotFittedError):
        ClusterMarginClassifier().suggest_labels()


# Fits that do not come to their end -------------------------------------------------------


def stop_after(monkeypatch, module, n_batches, error):
    """Let the n-th forward pass of a kind of network in training raise."""
    forward, batches = module.forward, iter(range(n_batches))

    def stopping(self, *args, **kwargs):
        if self.training and next(batches, None) is None:
            raise error
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(module, "forward", stopping)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("module", [LinearNet, MarginNet])
def test_a_fit_that_is_broken_off_is_no_fit(monkeypatch, module, error):
    classifier = ClusterMarginClassifier(random_state=0)
    stop_after(monkeypatch, module, 15, error)
    with pytest.raises(error):
        classifier.fit(X, Y)
    assert vars(classifier) == vars(clone(classifier))
    with pytest.raises(NotFittedError):
        classifier.predict(X)


@no_bias
@pytest.mark.parametrize("module", [LinearNet, MarginNet])
def test_a_broken_fit_leaves_the_one_before(monkeypatch, module):
    classifier = fit(max_epochs=2)
    before, names, expected = vars(classifier).copy(), set(vars(classifier)), fitted(max_epochs=2)
    stop_after(monkeypatch, module, 15, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X[:, :9], np.array(["a", "b", "c"])[np.arange(600) % 3])
    monkeypatch.undo()
    assert set(vars(classifier)) == names
    assert all(vars(classifier)[name] is value for name, value in before.items())
    assert_same_network(classifier, expected)
    np.testing.assert_array_equal(classifier.predict(X), expected.predict(X))


def test_bad_data_leave_the_fit_before():
    classifier = fit(max_epochs=1)
    expected = classifier.predict_proba(X)
    with pytest.raises(ValueError, match="y holds one class only"):
        classifier.fit(X[:, :3], np.zeros(600))
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)


def test_an_interrupt_closes_the_progress_bar(monkeypatch):
    stop_after(monkeypatch, MarginNet, 15, KeyboardInterrupt)
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(KeyboardInterrupt):
        fit(verbose=1)
    assert shown.getvalue().endswith("\n")


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_training_that_diverges_is_an_error(loss):
    classifier = ClusterMarginClassifier(loss=loss, lr=1e25, random_state=0)
    with pytest.raises(ValueError, match=r"Training diverged.*lr=1e\+25. Lower lr"):
        classifier.fit(X, Y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


@no_bias
def test_a_high_learning_rate_gives_finite_probabilities():
    assert np.isfinite(fit(lr=1e6).predict_proba(X)).all()


# Scale ------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from skfair.margin import ClusterMarginClassifier

def mebibytes(field):  # Linux only; not ru_maxrss, with which a child starts at its parent's
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status)[1]) / 1024

n = 162_770
rng = np.random.default_rng(0)
y = rng.integers(2, size=n)
bias = np.where(rng.random(n) < 0.95, y, 1 - y)
X = rng.standard_normal((n, 512), dtype=np.float32)
X[:, 0] += 9 * bias
X[:, 1] += y
before = mebibytes("VmRSS")
classifier = ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1, random_state=0)
classifier.fit(X, y, sensitive_features=bias if sys.argv[1] == "labelled" else None)
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("groups", ["unlabelled", "labelled"])
def test_celeba_s_size_fits_into_memory(groups):
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, groups]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1.5 * 1024
