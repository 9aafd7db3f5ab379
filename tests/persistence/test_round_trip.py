"""Saved and loaded estimators are the same: predictions bit for bit, attributes, parameters."""

import pickle
import warnings

import numpy as np
import onnx
import pandas as pd
import pytest
import sklearn
import skorch
import torch
from fairlearn.metrics import demographic_parity_difference
from onnx import TensorProto, helper, numpy_helper
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
)
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

import skfair
from skfair.datasets import load_digits_encoder
from skfair.utils import InvalidModelError, all_estimators
from skfair.utils._persistence._classes import estimator_class, sklearn_classes

# Small data and short fits; what the warnings say is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")

DEBIASERS = [name for name, _ in all_estimators() if name.endswith("Debiaser")]


def through_files(estimator, tmp_path, factories=None):
    skfair.save(estimator, tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} <= {
        "config.json",
        "model.safetensors",
        "files",
    }
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
        "FrozenEncoderFeaturizer",
        "PatchAttributionMasker",
    }


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
        (lambda: fitted("BiasGradientDebiaser")[0], make_network),
    ],
    ids=["module", "float64", "frozen", "skorch", "frozen skorch", "not fitted", "margin", "two"],
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


def example_of(cls):
    """Parameters that let a class of scikit-learn fit, and the table for it."""
    table = np.abs(X.astype(np.float64))
    if cls.__name__ == "FixedThresholdClassifier":
        return cls(LogisticRegression(), threshold=0.3), table
    if cls.__name__ == "FrozenEstimator":
        return cls(LogisticRegression().fit(table, Y)), table
    if cls.__name__ == "Pipeline":
        return cls([("a", StandardScaler()), ("b", "passthrough")]), table
    if cls.__name__ == "FeatureUnion":
        return cls([("a", StandardScaler()), ("b", OneHotEncoder(handle_unknown="ignore"))]), table
    if cls.__name__ == "ColumnTransformer":
        steps = [
            ("a", StandardScaler(), [0, 1]),
            ("b", OneHotEncoder(dtype=np.float32), slice(2, 3)),
        ]
        return cls(steps, remainder="passthrough"), np.round(table)
    if cls.__name__ in ("LabelEncoder", "LabelBinarizer"):
        return cls(), np.array(["b", "a"])[Y]
    if cls.__name__ in ("OneHotEncoder", "OrdinalEncoder"):
        return cls(), np.array([["x", None], ["y", "z"], ["y", None]], dtype=object)
    if cls.__name__ == "QuantileTransformer":
        return cls(n_quantiles=10), table
    if cls.__name__ == "GaussianRandomProjection":
        return cls(n_components=2, random_state=0), table
    if "random_state" in cls().get_params():
        return cls(random_state=np.random.RandomState(0)), table
    return cls(), table


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of defaults that scikit-learn will change
@pytest.mark.parametrize("name", sklearn_classes())
def test_every_named_class_of_scikit_learn(name, tmp_path):
    estimator, table = example_of(estimator_class(name))
    estimator.fit(table) if name.endswith(("LabelEncoder", "LabelBinarizer")) else estimator.fit(
        table, Y[: len(table)]
    )
    loaded = through_files(estimator, tmp_path)
    expected = outputs(estimator, table)
    assert expected
    for method, values in outputs(loaded, table).items():
        if values.dtype == object and values.ndim == 0:  # sparse
            np.testing.assert_array_equal(values[()].toarray(), expected[method][()].toarray())
        else:
            np.testing.assert_array_equal(values, expected[method])
    assert vars(loaded).keys() == vars(estimator).keys()


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
    featurizer.memory = None  # a store has what it got first, to the last bit
    assert_same_outputs(featurizer, loaded, IMAGES)


# Encoders that are files ------------------------------------------------------------------


def write_onnx(path, location=None):
    """An encoder that multiplies by a matrix, which may lie in a file of its own."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = numpy_helper.from_array(weight, "weight")
    path.parent.mkdir(exist_ok=True)
    if location is not None:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(numpy_helper.from_array(weight, "weight"))
        onnx.external_data_helper.set_external_data(tensor, location=location)
        tensor.ClearField("raw_data")
        (path.parent / location).parent.mkdir(exist_ok=True)
        (path.parent / location).write_bytes(weight.tobytes())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "weight"], ["features"])],
        "encoder",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", [None, "encoder.weights", "parts/encoder.weights"])
def test_the_files_of_an_encoder_go_along(location, tmp_path, monkeypatch):
    path = write_onnx(tmp_path / "here" / "encoder.onnx", location)
    featurizer = skfair.FrozenEncoderFeaturizer(str(path)).fit(X)
    expected = featurizer.transform(X)
    skfair.save(featurizer, tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    path.write_bytes(b"")  # the original is not needed any more
    loaded = skfair.load(tmp_path / "moved")
    assert str(tmp_path / "moved") in loaded.encoder
    monkeypatch.chdir(tmp_path)
    from_here = skfair.load("moved")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(from_here.transform(X), expected)
    np.testing.assert_array_equal(loaded.transform(X), expected)
    # Saved again over itself, and over a model with another encoder.
    skfair.save(loaded, tmp_path / "moved")
    np.testing.assert_array_equal(skfair.load(tmp_path / "moved").transform(X), expected)
    other = write_onnx(tmp_path / "there" / "other.onnx")
    skfair.save(skfair.FrozenEncoderFeaturizer(str(other)).fit(X), tmp_path / "moved")
    names = [p.name for p in (tmp_path / "moved" / "files").rglob("*") if p.is_file()]
    assert names == ["other.onnx"]


def test_weights_outside_of_the_folder_of_an_encoder(tmp_path):
    path = write_onnx(tmp_path / "here" / "encoder.onnx", "../outside/encoder.weights")
    featurizer = skfair.FrozenEncoderFeaturizer(str(path))
    with pytest.raises(ValueError, match=r"outside of its own folder.*one folder"):
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

    with pytest.raises(TypeError, match="Mine is not among the classes"):
        skfair.save(Mine(), path)
    estimator, _ = fitted("ClusterMarginClassifier")
    estimator.diagnostics_["of mine"] = object()
    with pytest.raises(TypeError, match="diagnostics_ of ClusterMarginClassifier holds a object"):
        skfair.save(estimator, path)
    estimator.diagnostics_["of mine"] = np.datetime64("2020-01-01")
    with pytest.raises(TypeError, match="array of type datetime64"):
        skfair.save(estimator, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "factories, error, message",
    [
        (None, ValueError, r"needs some: 'estimator' \(was .*Sequential\).*factories="),
        ({}, ValueError, "'estimator'"),
        ({"network": make_network}, ValueError, "'estimator'"),
        ({"estimator": make_network, "x": make_network}, ValueError, "factories has 'x'"),
        (make_network(), TypeError, "a Sequential, where a function without arguments"),
        ({"estimator": 3}, TypeError, "is a int"),
        (lambda: 3, InvalidModelError, "makes a int, where a network or a function was saved"),
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
    with pytest.raises(ValueError, match="no parts of this model have to be made"):
        skfair.load(saved, factories=make_network)


class WithBuffer(nn.Module):
    """A network with a number that is not in its state_dict."""

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
        warnings.simplefilter("ignore")  # torch's, of lazy layers
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


# Beside pickle ----------------------------------------------------------------------------


def test_a_pickle_holds_what_the_directory_holds(tmp_path):
    estimator, _ = fitted("ClusterMarginClassifier")
    loaded = through_files(estimator, tmp_path)
    assert_same_outputs(pickle.loads(pickle.dumps(loaded)), estimator, X)
