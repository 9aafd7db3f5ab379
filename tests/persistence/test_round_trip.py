"""A loaded estimator equals the saved one: predictions bit for bit, attributes, parameters."""

import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import skorch
import torch
from fairlearn.metrics import demographic_parity_difference
from saved_models import (
    GROUPS,
    IMAGES,
    X,
    Y,
    assert_same_outputs,
    fitted,
    make_encoder,
    make_network,
    outputs,
    write_onnx,
)
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from torch import nn

import skfair
from skfair.adjustment._linear import Linear
from skfair.datasets import load_digits_encoder
from skfair.discovery import all_estimators
from skfair.featurize import Normalize
from skfair.persistence import InvalidModelError
from skfair.persistence._schema import estimator_class, sklearn_classes
from skfair.utils import LeakageWarning

# Small data and short fits. Other tests check their warnings.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")

DEBIASERS = [name for name, _ in all_estimators() if name.endswith("Debiaser")]


def through_files(estimator, tmp_path, factories=None, *, training_rows=True):
    skfair.save(estimator, tmp_path / "model", training_rows=training_rows)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["model.safetensors"]
    return skfair.load(tmp_path / "model", factories=factories)


def assert_same_attributes(one, two):
    assert vars(one).keys() == vars(two).keys()
    for name, value in vars(one).items():
        found = getattr(two, name)
        if isinstance(value, nn.Module):
            assert not found.training or value.training
            weights = found.state_dict()
            for key, tensor in value.state_dict().items():
                assert torch.equal(tensor, weights[key])
            frozen = {key: p.requires_grad for key, p in value.named_parameters()}
            assert {key: p.requires_grad for key, p in found.named_parameters()} == frozen
        elif isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, found)
        elif isinstance(value, Linear):
            assert_same_attributes(value, found)
        elif isinstance(value, dict):
            assert value.keys() == found.keys()
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, found)
            assert (value.dtype, value.flags.c_contiguous) == (
                found.dtype,
                found.flags.c_contiguous,
            )
        else:
            assert type(value) is type(found), name
            assert value == found, name


@pytest.mark.parametrize(
    "name, parameters, factories",
    [
        *((name, {}, make_network) for name in DEBIASERS),
        ("ClusterMarginClassifier", {}, None),
        ("ClusterMarginClassifier", {"margin_std": 0.0, "scale": 3.0, "n_clusters": 3}, None),
        ("ClusterMarginClassifier", {"loss": "cluster_weighted"}, None),
        ("ClusterMarginClassifier", {"loss": "cross_entropy"}, None),
        ("LogitAdjustedClassifier", {}, None),
        ("LogitAdjustedClassifier", {"head": "mlp", "n_components": 3}, None),
        ("FrozenEncoderFeaturizer", {}, make_encoder),
        ("PatchAttributionMasker", {}, None),
        ("PatchAttributionMasker", {"region_classifier": "resnet18"}, None),
        ("PatchAttributionMasker", {"position_embedding": False, "scope": "specific"}, None),
        ("PatchAttributionMasker", {"perturbation": "noise", "perturb_at_predict": True}, None),
    ],
)
def test_every_estimator_comes_back(name, parameters, factories, tmp_path):
    estimator, data = fitted(name, **parameters)
    loaded = through_files(estimator, tmp_path, factories)
    assert type(loaded) is type(estimator)
    assert_same_attributes(estimator, loaded)
    assert_same_outputs(estimator, loaded, data)
    # A model that was loaded is saved like any other.
    again = through_files(loaded, tmp_path, factories)
    assert_same_outputs(estimator, again, data)


def test_no_estimator_is_left_out_above():
    assert {name for name, _ in all_estimators()} == {
        *DEBIASERS,
        "ClusterMarginClassifier",
        "LogitAdjustedClassifier",
        "FrozenEncoderFeaturizer",
        "PatchAttributionMasker",
    }


def test_an_adjusted_head_keeps_its_reports_and_its_rows_only_on_request(tmp_path):
    for head in ("linear", "mlp"):
        estimator, _ = fitted("LogitAdjustedClassifier", head=head)
        loaded = through_files(estimator, tmp_path)
        assert loaded.diagnostics_ == estimator.diagnostics_
        np.testing.assert_array_equal(loaded.suggest_labels(9), estimator.suggest_labels(9))
        tensor = torch.from_numpy(X)
        assert torch.equal(loaded.to_module()(tensor), estimator.to_module()(tensor))
        loaded = through_files(estimator, tmp_path, training_rows=False)
        assert_same_outputs(estimator, loaded, X)
        assert not hasattr(loaded, "conflicting_")
        with pytest.raises(ValueError, match=r"training_rows=True"):
            loaded.suggest_labels(9)
        del estimator._conspicuous_order  # one order without the other
        with pytest.raises(TypeError, match="both orders, or neither"):
            skfair.save(estimator, tmp_path / "half", training_rows=True)


def test_an_adjusted_head_with_values_of_any_type(tmp_path):
    known = pd.DataFrame({"sex": np.where(GROUPS, "m", "f"), "old": np.arange(len(X)) % 5 < 2})
    known = known.astype(object)
    known.iloc[::3] = None
    for labels in (known, known[["old"]], np.where(GROUPS, 7, -3)):
        estimator, _ = fitted("LogitAdjustedClassifier", head="linear")
        estimator.fit(X, Y, sensitive_features=labels)
        loaded = through_files(estimator, tmp_path)
        assert loaded.attribute_values_ == estimator.attribute_values_
        assert list(map(type, loaded.attribute_values_)) == list(
            map(type, estimator.attribute_values_)
        )
        assert_same_outputs(estimator, loaded, X)


@pytest.mark.parametrize("name, factories", [("ThresholdDebiaser", make_network)])
def test_a_loaded_estimator_fits_again_to_the_same_bits(name, factories, tmp_path):
    estimator, data = fitted(name)
    loaded = through_files(estimator, tmp_path, factories)
    again = clone(loaded).fit(X, Y, sensitive_features=GROUPS)
    assert_same_outputs(estimator, again, data)


def test_parameters_set_after_the_fit_do_not_change_the_network_that_is_loaded(tmp_path):
    for name, parameters in {
        "ClusterMarginClassifier": {"scale": 99.0, "n_units": 5, "margin_std": 0.7},
        "PatchAttributionMasker": {
            "patch_size": 2,
            "stride": 2,
            "position_embedding": False,
            "region_classifier": "resnet18",
        },
    }.items():
        estimator, data = fitted(name)
        estimator.set_params(**parameters)
        loaded = through_files(estimator, tmp_path)
        assert_same_outputs(estimator, loaded, data)
        assert {k: loaded.get_params()[k] for k in parameters} == parameters


def test_an_estimator_that_is_not_fitted(tmp_path):
    estimator = skfair.ClusterMarginClassifier(3, random_state=np.random.RandomState(5))
    loaded = through_files(estimator, tmp_path)
    assert vars(loaded).keys() == vars(estimator).keys()
    assert loaded.n_clusters == 3
    assert_same_outputs(estimator.fit(X, Y), loaded.fit(X, Y), X)
    network = fitted("ThresholdDebiaser")[0].estimator
    debiaser = skfair.LayerwiseDebiaser(network, output="logits", n_calls=12, random_state=0)
    loaded = through_files(debiaser, tmp_path, make_network)
    assert_same_outputs(
        debiaser.fit(X, Y, sensitive_features=GROUPS),
        loaded.fit(X, Y, sensitive_features=GROUPS),
        X,
    )


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], dtype=object),
        np.array([-1, 1], dtype=np.int8),
        np.array([False, True]),
        np.array([-1.0, 2.0]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_of_any_type(labels, tmp_path):
    estimator, _ = fitted("ClusterMarginClassifier")
    estimator.fit(X, labels[Y])
    assert_same_outputs(estimator, through_files(estimator, tmp_path), X)


def test_tuples_as_classes_and_several_attributes(tmp_path):
    attributes = {"a": GROUPS, "b": np.arange(len(X)) % 3 == 0}
    for combine in (True, False):
        masker, _ = fitted("PatchAttributionMasker", combine_attributes=combine)
        masker.fit(IMAGES, sensitive_features=attributes)
        loaded = through_files(masker, tmp_path)
        assert_same_outputs(masker, loaded, IMAGES)
        assert str(loaded.classes_) == str(masker.classes_)


@pytest.mark.parametrize(
    "parameters",
    [
        {"scope": "specific", "perturbation": "swap", "fill": "blur"},
        {"check_leakage": True, "pos_label": 0},
        {"confidence": "margin", "margin": 2, "quantile": 0.8},
    ],
    ids=str,
)
def test_what_a_masker_found_and_decided(parameters, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakageWarning)
        masker, _ = fitted("PatchAttributionMasker", **parameters)
    loaded = through_files(masker, tmp_path)
    for method in ("perturbed_pixels", "mask", "attribute_score", "masks", "region_map"):
        found, expected = (getattr(one, method)(IMAGES) for one in (loaded, masker))
        np.testing.assert_array_equal(found, expected)
    for one, other in zip(loaded.boxes(IMAGES), masker.boxes(IMAGES), strict=True):
        np.testing.assert_array_equal(one, other)
    names = ["scope_", "quantile_", "attribute_auc_", "informative_", "pos_label_"]
    names += ["score_threshold_", "patch_size_", "stride_"]
    if masker.check_leakage:
        names += ["leakage_", "leakage_before_", "leakage_interval_"]
    for name in names:
        assert getattr(loaded, name) == getattr(masker, name), name


# Networks of the user ---------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.tied = self.first
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 1)
        self.first.weight.requires_grad_(False)

    def forward(self, X):
        return self.last(self.norm(self.first(X)).relu()).squeeze(-1)


def skorch_net():
    return skorch.NeuralNetBinaryClassifier(Net, max_epochs=2, verbose=0)


@pytest.mark.parametrize(
    "make, factories",
    [
        (Net, Net),
        (lambda: Net().double(), lambda: Net().double()),
        (lambda: FrozenEstimator(Net()), Net),
        (lambda: skorch_net().fit(X, Y.astype(np.float32)), skorch_net),
        (lambda: FrozenEstimator(skorch_net().fit(X, Y.astype(np.float32))), skorch_net),
        (skorch_net, skorch_net),  # fitted by the debiaser
        (lambda: fitted("ClusterMarginClassifier")[0], None),
        (lambda: fitted("LogitAdjustedClassifier")[0], None),
        (lambda: fitted("LogitAdjustedClassifier", head="mlp")[0], None),
        (lambda: fitted("BiasGradientDebiaser")[0], make_network),
    ],
    ids=[
        "module",
        "float64",
        "frozen",
        "skorch",
        "frozen skorch",
        "not fitted",
        "margin",
        "linear",
        "mlp",
        "two",
    ],
)
def test_whatever_held_the_network(make, factories, tmp_path):
    with torch.random.fork_rng():
        estimator = make()
        debiaser, _ = fitted("ThresholdDebiaser", estimator=estimator)
        loaded = through_files(debiaser, tmp_path, factories)
    assert type(loaded.estimator) is type(debiaser.estimator)
    assert_same_outputs(debiaser, loaded, X)
    inputs = torch.from_numpy(X).to(next(debiaser.module_.parameters()).dtype)
    assert torch.equal(debiaser.to_module()(inputs), loaded.to_module()(inputs))


def test_classes_of_a_skorch_net(tmp_path):
    net = skorch.NeuralNetClassifier(
        nn.Linear, module__in_features=4, module__out_features=2, criterion=nn.CrossEntropyLoss
    )
    net.set_params(verbose=0, max_epochs=1)
    with torch.random.fork_rng():
        net.fit(X, Y.astype(np.int64))
    debiaser, _ = fitted("ThresholdDebiaser", estimator=FrozenEstimator(net))
    loaded = through_files(debiaser, tmp_path, lambda: clone(net))
    np.testing.assert_array_equal(loaded.estimator.estimator.classes_, [0, 1])
    assert_same_outputs(clone(loaded).fit(X, Y, sensitive_features=GROUPS), debiaser, X)


def test_functions_are_made_by_the_caller(tmp_path):
    debiaser, _ = fitted("ThresholdDebiaser", constraint=demographic_parity_difference)
    loaded = through_files(
        debiaser,
        tmp_path,
        {"estimator": make_network, "constraint": lambda: demographic_parity_difference},
    )
    assert loaded.constraint is demographic_parity_difference
    assert_same_outputs(debiaser, loaded, X)


def brightness(images):
    return images.reshape(len(images), -1).mean(1, keepdims=True)


def test_an_encoder_that_is_a_function(tmp_path):
    featurizer, _ = fitted("FrozenEncoderFeaturizer", encoder=brightness)
    loaded = through_files(featurizer, tmp_path, lambda: brightness)
    assert_same_outputs(featurizer, loaded, IMAGES)


def test_a_region_classifier_of_the_user(tmp_path):
    class Regions(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(27, 2))

        def forward(self, patches, positions):
            return self.layers(patches)

    masker, _ = fitted("PatchAttributionMasker", region_classifier=Regions())
    assert_same_outputs(masker, through_files(masker, tmp_path, Regions), IMAGES)


def test_loading_draws_nothing_from_the_generators(tmp_path):
    debiaser, _ = fitted("ThresholdDebiaser")
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    through_files(debiaser, tmp_path, make_network)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# Pipelines and searches -------------------------------------------------------------------


def test_the_best_pipeline_of_a_search(tmp_path):
    encoder = load_digits_encoder()
    images = np.repeat(np.repeat(IMAGES, 6, axis=1), 6, axis=2)[:, :32, :32]
    pipeline = make_pipeline(
        skfair.FrozenEncoderFeaturizer(encoder),
        StandardScaler(),
        skfair.ClusterMarginClassifier(random_state=0, n_units=8, max_epochs=1),
    )
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            pipeline, {"clustermarginclassifier__loss": ["cross_entropy"]}, cv=2
        ).fit(images, Y)
    best = search.best_estimator_
    loaded = through_files(best, tmp_path)
    assert_same_outputs(best, loaded, images)
    assert loaded.named_steps.keys() == best.named_steps.keys()
    with pytest.raises(TypeError, match="best_estimator_"):
        skfair.save(search, tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_factories_go_by_parameter_names(tmp_path):
    pipeline = Pipeline(
        [("features", skfair.FrozenEncoderFeaturizer(make_encoder())), ("scale", StandardScaler())]
    )
    pipeline.steps.append(("fair", skfair.ThresholdDebiaser(nn.Linear(5, 1))))
    pipeline.fit(IMAGES, Y, fair__sensitive_features=GROUPS)
    factories = {
        "features__encoder": make_encoder,
        "fair__estimator": lambda: nn.Linear(5, 1),
    }
    assert_same_outputs(pipeline, through_files(pipeline, tmp_path, factories), IMAGES)


def examples():
    """Fitted estimators of scikit-learn: each class of the table, in each form of its state."""
    table = X.astype(np.float64)
    three = np.array(["a", "b", "c"])[np.arange(len(X)) % 3]
    missing = np.where(np.arange(X.size).reshape(X.shape) % 17, table, np.nan)
    named = pd.DataFrame(table, columns=["a", "b", "c", "d"])
    for transformer in [
        *(StandardScaler(), StandardScaler(with_std=False), StandardScaler(with_mean=False)),
        StandardScaler(with_mean=False, with_std=False),
        *(MinMaxScaler(), MinMaxScaler((-1, 2), clip=True)),
        *(PCA(2, whiten=True), PCA(0.9), PCA()),
    ]:
        for data in (table, named, X):
            yield transformer.__class__(**transformer.get_params()).fit(data), data
    yield StandardScaler().fit(missing), table
    yield StandardScaler().fit(table, sample_weight=np.linspace(0, 1, len(X))), table
    for y in (Y, three, Y == 1):
        yield LogisticRegression(C=2.0, class_weight={y.tolist()[0]: 2.0}).fit(table, y), table
    yield LogisticRegression(fit_intercept=False, solver="liblinear").fit(X, Y), X
    yield FrozenEstimator(LogisticRegression().fit(table, three)), table
    yield Pipeline([("a", StandardScaler()), ("b", "passthrough"), ("c", None)]).fit(table), table
    nested = make_pipeline(make_pipeline(StandardScaler(), PCA(2)), LogisticRegression())
    yield nested.fit(named, Y), named


def test_every_class_of_scikit_learn_in_the_table(tmp_path):
    seen = set()
    for estimator, data in examples():
        loaded = through_files(estimator, tmp_path)
        assert outputs(estimator, data)
        assert_same_outputs(estimator, loaded, data)
        assert vars(loaded).keys() == vars(estimator).keys()
        seen.add(type(estimator))
    assert seen == {estimator_class(name) for name in sklearn_classes()}


def test_components_that_are_part_of_a_larger_array(tmp_path):
    # After loading, the memory layout differs, as after unpickling, so the last digits may differ.
    for solver in ("arpack", "randomized"):
        pca = PCA(2, svd_solver=solver, random_state=0).fit(X.astype(np.float64))
        loaded = through_files(pca, tmp_path)
        np.testing.assert_allclose(loaded.transform(X), pca.transform(X), rtol=1e-12, atol=1e-12)


def test_output_containers_and_requests(tmp_path):
    featurizer, _ = fitted("FrozenEncoderFeaturizer")
    featurizer.set_output(transform="pandas")
    loaded = through_files(featurizer, tmp_path, make_encoder)
    assert list(loaded.transform(IMAGES).columns) == list(featurizer.transform(IMAGES).columns)
    with sklearn.config_context(enable_metadata_routing=True):
        classifier, _ = fitted("ClusterMarginClassifier")
        classifier.set_fit_request(sample_weight="weight").set_score_request(sample_weight=True)
    loaded = through_files(classifier, tmp_path)
    assert str(loaded.get_metadata_routing()) == str(classifier.get_metadata_routing())


def test_memory_stays_on_this_machine(tmp_path):
    featurizer, _ = fitted("FrozenEncoderFeaturizer", memory=tmp_path / "store.sqlite")
    with pytest.warns(UserWarning, match=r"memory=.*set_params\(memory=\.\.\.\)"):
        loaded = through_files(featurizer, tmp_path, make_encoder)
    assert loaded.memory is None
    featurizer.memory = None  # a store returns the first computed bits
    assert_same_outputs(featurizer, loaded, IMAGES)


# Encoders from files ----------------------------------------------------------------------


@pytest.mark.parametrize("location", [None, "encoder.weights", "parts/encoder.weights"])
def test_an_encoder_that_is_a_file_goes_into_the_model(location, tmp_path, monkeypatch):
    path = write_onnx(tmp_path / "here" / "encoder.onnx", location)
    featurizer = skfair.FrozenEncoderFeaturizer(str(path)).fit(X)
    expected = featurizer.transform(X)
    skfair.save(featurizer, tmp_path / "model")
    assert os.listdir(tmp_path / "model") == ["model.safetensors"]
    loaded = skfair.load(tmp_path / "model")
    # The loaded estimator needs neither the original file nor the model file.
    path.write_bytes(b"")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model.safetensors")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(loaded.transform(X), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loaded)).transform(X), expected)
    np.testing.assert_array_equal(clone(loaded).fit_transform(X), expected)
    # A model that was loaded is saved like any other.
    again = through_files(loaded, tmp_path)
    assert again.encoder == loaded.encoder
    np.testing.assert_array_equal(again.transform(X), expected)


@pytest.mark.parametrize("n_labels", [400, 20])
def test_what_labels_decided(n_labels, tmp_path):
    # With all labels there is a hold-out, and diagnostics_ has a dict of its losses.
    rows, y, groups = np.arange(400.0)[:, None] % 7, np.arange(400) % 2, np.arange(400) // 2 % 2
    known = np.where(np.arange(400) < n_labels, groups.astype(object), None)
    estimator = skfair.ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1, random_state=0)
    estimator.fit(rows, y, sensitive_features=known)
    assert ("holdout_worst_group" in estimator.diagnostics_) == (n_labels == 400)
    loaded = through_files(estimator, tmp_path).diagnostics_
    np.testing.assert_equal(loaded, estimator.diagnostics_)  # NaN equals NaN here


def test_a_store_knows_a_loaded_encoder_by_its_contents(tmp_path):
    path = write_onnx(tmp_path / "here" / "encoder.onnx", "encoder.weights")
    store = tmp_path / "store.sqlite"
    expected = skfair.FrozenEncoderFeaturizer(path, memory=store).fit_transform(X)
    loaded = through_files(skfair.FrozenEncoderFeaturizer(path).fit(X), tmp_path)
    rows = []

    class Counting(type(loaded.encoder)):
        def session(self, provider):
            rows.append(provider)
            return super().session(provider)

    loaded.encoder.__class__ = Counting
    loaded.set_params(memory=store)
    np.testing.assert_array_equal(loaded.transform(X), expected)
    assert not rows  # all rows were already in the store


def test_normalizing_needs_no_factory(tmp_path):
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    featurizer, _ = fitted("FrozenEncoderFeaturizer", preprocess=normalize)
    loaded = through_files(featurizer, tmp_path, make_encoder)
    assert loaded.preprocess == normalize
    assert_same_outputs(featurizer, loaded, IMAGES)


def test_weights_outside_of_the_folder_of_an_encoder(tmp_path):
    path = write_onnx(tmp_path / "here" / "encoder.onnx", "../outside/encoder.weights")
    featurizer = skfair.FrozenEncoderFeaturizer(str(path))
    with pytest.raises(ValueError, match=r"encoder.*outside.*folder"):
        skfair.save(featurizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# What cannot be saved, and what cannot be made --------------------------------------------


def test_what_is_no_data_is_named(tmp_path):
    from sklearn.ensemble import RandomForestClassifier

    path = tmp_path / "model"
    with pytest.raises(TypeError, match=r"RandomForestClassifier.*joblib"):
        skfair.save(make_pipeline(StandardScaler(), RandomForestClassifier()), path)
    with pytest.raises(TypeError, match="estimator is a Linear"):
        skfair.save(nn.Linear(1, 1), path)

    class Mine(skfair.ClusterMarginClassifier):
        pass

    with pytest.raises(TypeError, match="Mine cannot be saved as data"):
        skfair.save(Mine(), path)
    estimator, _ = fitted("ClusterMarginClassifier")
    estimator.diagnostics_["of mine"] = object()
    with pytest.raises(TypeError, match="diagnostics_ of ClusterMarginClassifier holds a object"):
        skfair.save(estimator, path)
    estimator.diagnostics_["of mine"] = np.datetime64("2020-01-01")
    with pytest.raises(TypeError, match="array of type datetime64"):
        skfair.save(estimator, path)
    estimator, _ = fitted("ClusterMarginClassifier")
    estimator.note = "mine"
    with pytest.raises(TypeError, match="attribute 'note' does not exist in such an estimator"):
        skfair.save(estimator, path)
    with pytest.raises(ValueError, match="'n_units' parameter"):
        skfair.save(skfair.ClusterMarginClassifier(n_units=0), path)
    with pytest.raises(TypeError, match=r"OneHotEncoder cannot be saved as data.*skops"):
        skfair.save(make_pipeline(OneHotEncoder().fit([["a"], ["b"]])), path)
    assert not path.exists()


@pytest.mark.parametrize(
    "factories, error, message",
    [
        (
            None,
            ValueError,
            r"needs parts made by code: 'estimator' \(was .*Sequential\).*factories=",
        ),
        ({}, ValueError, "'estimator'"),
        ({"network": make_network}, ValueError, "'estimator'"),
        ({"estimator": make_network, "x": make_network}, ValueError, "factories has the name 'x'"),
        (make_network(), TypeError, "a Sequential. It must be a function without arguments"),
        ({"estimator": 3}, TypeError, "is a int"),
        (
            lambda: 3,
            InvalidModelError,
            "returns a int. The saved estimator had a network or a function",
        ),
        (
            lambda: nn.Linear(4, 1),
            InvalidModelError,
            r"'weight' is torch.float32 of shape \(1, 4\) in the network and not",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1)),
            InvalidModelError,
            r"'0.weight' is torch.float32 of shape \(2, 4\) in the network",
        ),
        (lambda: make_network().double(), InvalidModelError, "torch.float64 of"),
    ],
)
def test_factories_that_do_not_fit(factories, error, message, tmp_path):
    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "model")
    with pytest.raises(error, match=message):
        skfair.load(tmp_path / "model", factories=factories)


def test_a_factory_for_a_model_that_needs_none(saved):
    with pytest.raises(ValueError, match="no parts of this model need a function"):
        skfair.load(saved, factories=make_network)


class WithBuffer(nn.Module):
    """A network with an attribute that is not in its state_dict."""

    def __init__(self, shift):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, X):
        return self.layer(X) + self.shift


def test_networks_with_the_same_weights_that_compute_something_else(tmp_path):
    with torch.random.fork_rng():
        debiaser, _ = fitted("ThresholdDebiaser", estimator=WithBuffer(1.0))
    assert_same_outputs(debiaser, through_files(debiaser, tmp_path, lambda: WithBuffer(1.0)), X)
    with pytest.raises(InvalidModelError, match=r"network of estimator computes other values"):
        skfair.load(tmp_path / "model", factories=lambda: WithBuffer(1.5))
    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "model")
    with pytest.raises(InvalidModelError, match=r"such as an activation"):
        skfair.load(
            tmp_path / "model",
            factories=lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)),
        )


def twice(images):
    return 2 * images.float()


def test_another_preprocessing(tmp_path):
    featurizer, _ = fitted("FrozenEncoderFeaturizer", preprocess=twice)
    parts = {"encoder": make_encoder, "preprocess": lambda: twice}
    assert_same_outputs(featurizer, through_files(featurizer, tmp_path, parts), IMAGES)
    for wrong in (torch.Tensor.float, None, 3):
        with pytest.raises(InvalidModelError, match="preprocess"):
            skfair.load(tmp_path / "model", factories={**parts, "preprocess": lambda w=wrong: w})


def test_another_region_network(tmp_path):
    class Regions(nn.Module):
        factor = 1.0

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(27, 2))

        def forward(self, patches, positions):
            return self.factor * self.layers(patches)

    class Louder(Regions):
        factor = 1.5

    skfair.save(
        fitted("PatchAttributionMasker", region_classifier=Regions())[0], tmp_path / "model"
    )
    with pytest.raises(InvalidModelError, match="region_classifier computes other values"):
        skfair.load(tmp_path / "model", factories=Louder)


def test_a_network_without_weights_yet(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of lazy layers
        debiaser = skfair.ThresholdDebiaser(nn.LazyLinear(1))
    with pytest.raises(TypeError, match=r"estimator of ThresholdDebiaser.*has seen no data"):
        skfair.save(debiaser, tmp_path / "model")


def test_the_same_object_twice(tmp_path):
    scaler = StandardScaler().fit(X)
    pipeline = Pipeline([("a", scaler), ("b", scaler)])
    assert_same_outputs(pipeline, through_files(pipeline, tmp_path), X)


def test_an_error_in_a_factory_says_where_it_came_from(tmp_path):
    def broken(argument):
        raise AssertionError

    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "model")
    with pytest.raises(TypeError) as raised:
        skfair.load(tmp_path / "model", factories=broken)
    assert "factories['estimator']" in raised.value.__notes__[0]


# Pickle -----------------------------------------------------------------------------------


def test_a_pickle_holds_what_the_directory_holds(tmp_path):
    estimator, _ = fitted("ClusterMarginClassifier")
    loaded = through_files(estimator, tmp_path)
    assert_same_outputs(pickle.loads(pickle.dumps(loaded)), estimator, X)


# Training rows ----------------------------------------------------------------------------


def test_single_rows_are_left_out_unless_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    data, y = rng.normal(size=(300, 5)).astype(np.float32), np.arange(300) % 2
    data[:, 0] += 2 * y
    data[7] += 9  # one row unlike the others
    model = skfair.ClusterMarginClassifier(20, max_epochs=2, random_state=0).fit(data, y)
    sizes = np.bincount(model.labels_)
    assert sizes.min() < 10 <= sizes.max()
    loaded = through_files(model, tmp_path, training_rows=False)
    for name in ("labels_", "_hard", "_easy"):
        assert name not in vars(loaded)
    np.testing.assert_array_equal(np.isnan(loaded.cluster_centers_).all(axis=1), sizes < 10)
    assert np.isnan(loaded.cluster_centers_).any(axis=1).sum() == (sizes < 10).sum()
    np.testing.assert_array_equal(loaded.predict_proba(data), model.predict_proba(data))
    np.testing.assert_array_equal(loaded.transform(data), model.transform(data))
    # Rows of known clusters keep their cluster; other rows get the nearest known cluster.
    kept = sizes[model.labels_] >= 10
    with pytest.warns(UserWarning, match=r"clusters were left out.*training_rows=True"):
        found = loaded.predict_cluster(data)
    np.testing.assert_array_equal(found[kept], model.labels_[kept])
    assert (sizes[found] >= 10).all()
    with pytest.raises(ValueError, match=r"suggest_labels.*training_rows=True"):
        loaded.suggest_labels()
    # A second save loses nothing more. With training_rows=True, everything is there.
    again = through_files(loaded, tmp_path, training_rows=False)
    np.testing.assert_array_equal(again.cluster_centers_, loaded.cluster_centers_)
    whole = through_files(model, tmp_path)
    np.testing.assert_array_equal(whole.labels_, model.labels_)
    np.testing.assert_array_equal(whole.suggest_labels(), model.suggest_labels())


def test_a_row_that_outweighs_its_cluster_is_a_cluster_of_one(tmp_path):
    rng = np.random.default_rng(0)
    data, y = rng.normal(size=(100, 3)).astype(np.float32), np.arange(100) % 2
    weight = np.ones(100)
    weight[3] = 1e6
    model = skfair.ClusterMarginClassifier(2, cluster_on="input", max_epochs=1, random_state=0)
    model.fit(data, y, sample_weight=weight)
    heavy = model.labels_[3]
    assert (model.labels_ == heavy).sum() >= 10
    loaded = through_files(model, tmp_path, training_rows=False)
    assert np.isnan(loaded.cluster_centers_[heavy]).all()


def test_no_cluster_is_left_where_all_are_small(tmp_path):
    model, _ = fitted("ClusterMarginClassifier", n_clusters=100, cluster_on="input")
    loaded = through_files(model, tmp_path, training_rows=False)
    assert not hasattr(loaded, "cluster_centers_")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
