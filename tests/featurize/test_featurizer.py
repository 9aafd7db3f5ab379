"""FrozenEncoderFeaturizer as a scikit-learn transformer, on every form of images."""

import copy
import pickle
import threading
import tracemalloc

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer

IMAGES = np.random.default_rng(0).integers(0, 256, size=(12, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 2
SEEN = []  # what `counted` was given


def per_row(batch):
    """Features of a row that do not depend on the other rows, to the last bit."""
    return np.array([[row.mean(), row.max(), row.flat[0]] for row in batch], dtype=np.float32)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """Written once: the mean over each half of the row, times fixed weights."""
    path = tmp_path_factory.mktemp("onnx") / "rows.onnx"
    kernel = np.linspace(-1, 1, 4, dtype=np.float32).reshape(4, 1, 1, 1)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "kernel"], ["y"])],
        "rows",
        [helper.make_tensor_value_info("x", floats, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("y", floats, ["n", 4, "h", "w"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return str(path)


def test_the_checks_reach_the_encoder_through_an_onnx_file_too(onnx_file):
    results = check_estimator(
        FrozenEncoderFeaturizer(onnx_file, image_shape=(1, 1, -1), pooling="max"), on_skip=None
    )
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert sum(result["status"] == "passed" for result in results) > 40


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_rows_are_those_of_the_encoder_whatever_the_batches(data):
    n = data.draw(st.integers(1, 15))
    rows = data.draw(st.lists(st.integers(0, 11), min_size=n, max_size=n))
    featurizer = FrozenEncoderFeaturizer(per_row, batch_size=data.draw(st.integers(1, 20)))
    expected = per_row(np.divide(IMAGES[rows], 255, dtype=np.float32))
    np.testing.assert_array_equal(featurizer.fit_transform(IMAGES[rows]), expected)
    np.testing.assert_array_equal(featurizer.transform(IMAGES[rows]), expected)


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, row):
        if not 0 <= row < len(IMAGES):
            raise IndexError(row)
        return IMAGES[row], int(LABELS[row])


@pytest.fixture
def files(tmp_path):
    for row, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{row}.png")
    return [str(tmp_path / f"{row}.png") for row in range(len(IMAGES))]


def test_forms_of_images_can_be_mixed(files):
    expected = per_row(IMAGES / np.float32(255))
    featurizer = FrozenEncoderFeaturizer(per_row, batch_size=5).fit(IMAGES)
    assert featurizer.image_shape_ == (3, 6, 5)
    assert featurizer.input_dtype_ == np.uint8
    for X in (IMAGES, IMAGES.transpose(0, 2, 3, 1), torch.from_numpy(IMAGES), files, Items()):
        np.testing.assert_array_equal(featurizer.transform(X), expected)


def test_every_form_works_in_cross_validation(files):
    pipeline = make_pipeline(FrozenEncoderFeaturizer(per_row), LogisticRegression())
    forms = [IMAGES, torch.from_numpy(IMAGES), files, np.array(files), pd.Series(files), Items()]
    scores = [cross_val_score(pipeline, X, LABELS, cv=3) for X in forms]
    for score in scores[1:]:
        np.testing.assert_array_equal(score, scores[0])


def test_a_column_of_files_in_a_table(files):
    table = pd.DataFrame({"file": files, "age": 1.0}, index=range(50, 62))
    transformer = make_column_transformer(
        (FrozenEncoderFeaturizer(per_row), "file"), ("passthrough", ["age"])
    )
    assert transformer.fit_transform(table).shape == (12, 4)


def test_rows_with_an_image_shape():
    rows = IMAGES.reshape(12, -1)
    featurizer = FrozenEncoderFeaturizer(per_row, image_shape=(3, 6, 5)).fit(rows)
    assert featurizer.n_features_in_ == 90
    expected = FrozenEncoderFeaturizer(per_row).fit_transform(IMAGES)
    np.testing.assert_array_equal(featurizer.transform(rows), expected)
    np.testing.assert_array_equal(featurizer.transform(torch.from_numpy(rows)), expected)


def test_names_and_pandas_output():
    featurizer = FrozenEncoderFeaturizer(per_row).set_output(transform="pandas")
    frame = featurizer.fit_transform(IMAGES)
    assert list(frame.columns) == [f"frozenencoderfeaturizer{i}" for i in range(3)]
    assert list(featurizer.get_feature_names_out()) == list(frame.columns)
    assert (frame.dtypes == np.float32).all()
    pd.testing.assert_frame_equal(featurizer.transform(IMAGES), frame)


def test_each_image_is_encoded_once_by_fit_transform_and_the_first_once_more():
    seen = []

    def encoder(batch):
        seen.extend(batch[:, 0, 0, 0].tolist())
        return per_row(batch)

    FrozenEncoderFeaturizer(encoder, batch_size=5, preprocess=np.asarray).fit_transform(IMAGES)
    values = IMAGES[:, 0, 0, 0].tolist()
    assert seen == [*values[:5], values[0], *values[5:]]


def test_fit_does_not_depend_on_other_rows_and_fitting_again_forgets():
    featurizer = FrozenEncoderFeaturizer(per_row)
    featurizer.fit(pd.DataFrame(IMAGES.reshape(12, -1)).rename(columns=str))
    assert hasattr(featurizer, "feature_names_in_")
    featurizer.fit(IMAGES)
    assert not hasattr(featurizer, "feature_names_in_")
    assert not hasattr(featurizer, "n_features_in_")
    featurizer.transform(IMAGES[3:5])


def test_data_are_not_changed_by_an_encoder_that_writes_into_its_input():
    X = IMAGES.astype(np.float32)
    kept = X.copy()
    FrozenEncoderFeaturizer(nn.Sequential(nn.Hardtanh(inplace=True))).fit_transform(X)
    np.testing.assert_array_equal(X, kept)


def test_out_is_filled_and_returned(tmp_path):
    featurizer = FrozenEncoderFeaturizer(per_row, batch_size=5).fit(IMAGES)
    expected = featurizer.transform(IMAGES)
    out = np.lib.format.open_memmap(tmp_path / "o.npy", mode="w+", dtype=np.float32, shape=(12, 3))
    assert featurizer.transform(IMAGES, out=out) is out
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected)


@pytest.mark.parametrize(
    "out, match",
    [
        (np.empty((12, 4), np.float32), r"out is shape \(12, 4\).*\(12, 3\)"),
        (np.empty((11, 3), np.float32), r"out is shape \(11, 3\)"),
        (np.empty((12, 3), np.float64), "float64; expected a NumPy array"),
        ([[0.0]], "out is list"),
        (np.broadcast_to(np.float32(0), (12, 3)), "out is read-only"),
    ],
)
def test_out_that_does_not_fit(out, match):
    featurizer = FrozenEncoderFeaturizer(per_row).fit(IMAGES)
    with pytest.raises(ValueError, match=match):
        featurizer.transform(IMAGES, out=out)


def test_memory_does_not_grow_with_the_data(tmp_path):
    def peak(n):
        shape = (n, 3, 16, 16)
        X = np.lib.format.open_memmap(tmp_path / f"{n}.npy", mode="w+", dtype=np.uint8, shape=shape)
        out = np.lib.format.open_memmap(
            tmp_path / f"{n}-out.npy", mode="w+", dtype=np.float32, shape=(n, 16)
        )
        featurizer = FrozenEncoderFeaturizer(lambda batch: batch[:, 0, 0]).fit(X)
        tracemalloc.start()
        featurizer.transform(X, out=out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(64)  # the first call imports
    assert peak(10_000) < 1.1 * peak(1_000)


def test_memmaps_of_rows_are_not_read_whole(tmp_path):
    X = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(20_000, 100)
    )
    featurizer = FrozenEncoderFeaturizer(lambda batch: batch[:, :1]).fit(X)
    tracemalloc.start()
    featurizer.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 4


@pytest.mark.parametrize(
    "fitted, other, match",
    [
        (IMAGES, IMAGES[:, :1], r"X has images of shape \(1, 6, 5\), fit saw \(3, 6, 5\)"),
        (IMAGES, IMAGES[:, :, :5], r"X has images of shape \(3, 5, 5\), fit saw \(3, 6, 5\)"),
        (IMAGES, IMAGES.reshape(12, -1), r"is of another form than X in fit \(images of shape \(3"),
        (IMAGES.reshape(12, -1), IMAGES, r"is of another form than X in fit \(rows of 90 features"),
        (IMAGES.reshape(12, -1), IMAGES.reshape(12, -1)[:, 1:], "89 features"),
        (IMAGES, IMAGES.astype(float), "X holds float32 values, fit saw uint8"),
        (IMAGES, IMAGES[:0], "0 sample"),
        (IMAGES, IMAGES.astype(int), "dtype int64"),
    ],
)
def test_transform_of_something_else(fitted, other, match):
    featurizer = FrozenEncoderFeaturizer(per_row).fit(fitted)
    with pytest.raises(ValueError, match=match):
        featurizer.transform(other)


def test_bad_data():
    featurizer = FrozenEncoderFeaturizer(per_row)
    X = IMAGES.astype(float)
    X[7, 0, 0, 0] = np.nan
    for bad in (X, X.reshape(12, -1)):
        with pytest.raises(ValueError, match=r"Input X contains NaN.*row 7"):
            featurizer.fit_transform(bad)
    with pytest.raises(TypeError, match="Sparse"):
        featurizer.fit(scipy.sparse.csr_array(IMAGES.reshape(12, -1)))
    with pytest.raises(ValueError, match=r"X\[0\]='no\.png' does not exist"):
        featurizer.fit(["no.png"])
    with pytest.raises(ValueError, match="does not fit the 10 features"):
        featurizer.set_params(image_shape=(3, 6, 5)).fit(np.zeros((2, 10)))


def test_progress_is_shown_when_asked_for(capsys):
    FrozenEncoderFeaturizer(per_row).fit_transform(IMAGES)
    assert capsys.readouterr().err == ""
    FrozenEncoderFeaturizer(per_row, verbose=1, batch_size=5).fit_transform(IMAGES)
    assert "12/12" in capsys.readouterr().err


def test_clone_copy_and_pickle():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net[0].register_buffer("note", torch.ones(2, dtype=torch.bfloat16))
    net[0].bias.requires_grad_(False)
    featurizer = FrozenEncoderFeaturizer(net, layer="0", pooling="max").fit(IMAGES)
    expected = featurizer.transform(IMAGES)
    pickled = pickle.loads(pickle.dumps(featurizer))
    copies = [copy.copy(featurizer), copy.deepcopy(featurizer), clone(featurizer).fit(IMAGES)]
    for copied in [pickled, *copies]:
        np.testing.assert_array_equal(copied.transform(IMAGES), expected)
        for name, value in net.state_dict().items():
            other = copied.encoder.state_dict()[name]
            assert value.dtype == other.dtype
            assert torch.equal(value, other)
        flags = [parameter.requires_grad for parameter in copied.encoder.parameters()]
        assert flags == [True, False, True, True]
    assert copies[0].encoder is net


class Client:
    """What a service's client is like: it holds what cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def embed(self, batch):
        with self.lock:
            return per_row(batch)


def test_clones_share_the_encoder():
    featurizer = FrozenEncoderFeaturizer(Client().embed, encoder_id="client", batch_size=3)
    featurizer.set_output(transform="pandas").fit(IMAGES)
    cloned = clone(featurizer)
    assert cloned.encoder is featurizer.encoder
    assert cloned.get_params() == featurizer.get_params()
    assert not hasattr(cloned, "n_features_out_")
    features = cloned.fit_transform(IMAGES)
    assert list(features.columns) == list(featurizer.get_feature_names_out())


def test_pickles_keep_what_modules_share():
    lstm = nn.LSTM(5, 4, batch_first=True)  # holds its weights a second time, in a list
    lstm.weight_hh_l0 = nn.Parameter(torch.ones(16, 4))
    tied = nn.ModuleList([lstm, lstm])
    restored = pickle.loads(pickle.dumps(FrozenEncoderFeaturizer(tied))).encoder
    assert restored[0] is restored[1]
    assert restored[0]._flat_weights[1] is restored[0].weight_hh_l0
    x = torch.ones(2, 3, 5)
    assert torch.equal(restored[0](x)[0], lstm(x)[0])


def counted(batch):
    SEEN.append(len(batch))
    return per_row(batch)


class CountedNet(nn.Conv2d):
    def forward(self, x):
        SEEN.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize("encoder", [counted, CountedNet(3, 4, 3)], ids=["function", "module"])
def test_pipeline_with_its_own_memory(tmp_path, encoder):
    SEEN.clear()
    featurizer = FrozenEncoderFeaturizer(encoder)
    pipeline = make_pipeline(featurizer, LogisticRegression(), memory=str(tmp_path))
    first = pipeline.fit(IMAGES, LABELS).predict_proba(IMAGES)
    assert SEEN[-1] == 12
    fitted = sum(SEEN)
    second = pipeline.set_params(logisticregression__C=1).fit(IMAGES, LABELS).predict_proba(IMAGES)
    assert sum(SEEN) == fitted + 12  # of the second fit, only what is predicted
    np.testing.assert_array_equal(first, second)


def test_parameters_can_be_searched():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    search = GridSearchCV(
        make_pipeline(FrozenEncoderFeaturizer(net), LogisticRegression()),
        {"frozenencoderfeaturizer__pooling": ["mean", "max"]},
        cv=2,
        n_jobs=2,
    ).fit(IMAGES, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(IMAGES).shape == (12,)


def test_metadata_routing_does_not_ask_about_out():
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(FrozenEncoderFeaturizer(per_row), LogisticRegression())
        assert pipeline.fit(IMAGES, LABELS).predict(IMAGES).shape == (12,)
        assert not hasattr(FrozenEncoderFeaturizer(per_row), "set_transform_request")


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_a_column_of_files_beside_others(container, tmp_path):
    if container == "polars":  # which takes text out of a frame of pandas with it
        pytest.importorskip("pyarrow")
    files = []
    for row, image in enumerate(IMAGES):
        files.append(str(tmp_path / f"{row}.png"))
        Image.fromarray(image.transpose(1, 2, 0)).save(files[-1])
    X = pd.DataFrame({"age": np.arange(12.0), "path": files}, index=np.arange(12)[::-1])
    if container == "polars":
        X = polars.from_pandas(X)
    expected = FrozenEncoderFeaturizer(per_row).fit_transform(files)
    for column in ("path", ["path"]):
        columns = make_column_transformer(
            (FrozenEncoderFeaturizer(per_row), column), remainder="passthrough"
        )
        found = columns.set_output(transform=container).fit_transform(X)
        np.testing.assert_array_equal(np.asarray(found)[:, :3], expected)
        np.testing.assert_array_equal(np.asarray(found)[:, 3], np.arange(12))
        np.testing.assert_array_equal(np.asarray(columns.transform(X)), np.asarray(found))
        assert type(found) is type(X)
        if container == "pandas":
            assert list(found.index) == list(X.index)


def test_embeddings_are_given_integers_by_preprocess():
    X = np.arange(12).reshape(4, 3)
    encoder = nn.EmbeddingBag(12, 2)
    with pytest.raises(RuntimeError) as error:
        FrozenEncoderFeaturizer(encoder).fit(X)
    assert "give preprocess=torch.Tensor.long" in error.value.__notes__[-1]
    found = FrozenEncoderFeaturizer(encoder, preprocess=torch.Tensor.long).fit_transform(X)
    np.testing.assert_array_equal(found, encoder(torch.from_numpy(X)).detach().numpy())
