"""FrozenEncoderFeaturizer on items that are not images: texts, sounds, rows of tables."""

import copy
import datetime
import hashlib
import io
import itertools
import pickle

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

import skfair
from skfair._images._content import add_content
from skfair.featurize import FrozenEncoderFeaturizer

TEXTS = ["a plane", "a car", "banana", "", "a car", "trees and a house"]
LABELS = np.array([1, 1, 0, 0, 1, 0])
SEEN = []  # what `counted` was given


def letters(texts):
    return np.array([[len(text), text.count("a")] for text in texts], dtype=np.float32)


def counted(texts):
    assert isinstance(texts, list)
    SEEN.extend(texts)
    return letters(texts)


def make_letters():
    return letters


def codes(texts):
    """Numbers of letters, filled up to the longest text, and where they are letters."""
    longest = max(1, *map(len, texts))
    ids = [[ord(letter) % 32 for letter in text] + [0] * (longest - len(text)) for text in texts]
    return {
        "ids": ids,
        "attention_mask": [[1] * len(t) + [0] * (longest - len(t)) for t in texts],
    }


class Letters(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(32, 4)

    def forward(self, ids, attention_mask):
        return self.embed(ids)

    def without_mask(self, ids, **_):
        return self.embed(ids).mean(1)


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return len(TEXTS)

    def __getitem__(self, row):
        return TEXTS[row]


@given(st.lists(st.text("ab ", max_size=9), min_size=1, max_size=9), st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_rows_are_those_of_the_encoder_whatever_the_batches(texts, batch_size):
    featurizer = FrozenEncoderFeaturizer(letters, data_format="items", batch_size=batch_size)
    np.testing.assert_array_equal(featurizer.fit_transform(texts), letters(texts))
    np.testing.assert_array_equal(featurizer.transform(texts[::-1]), letters(texts[::-1]))


@pytest.mark.parametrize(
    "X",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        pd.Series(TEXTS, index=range(6, 0, -1)),
        pd.DataFrame({"text": TEXTS}),
        polars.Series(TEXTS),
        pyarrow.array(TEXTS),
        Texts(),
    ],
    ids=lambda X: type(X).__name__,
)
def test_forms_of_texts(X):
    featurizer = FrozenEncoderFeaturizer(letters, data_format="items").fit(TEXTS)
    np.testing.assert_array_equal(featurizer.transform(X), letters(TEXTS))
    assert not hasattr(featurizer, "n_features_in_")
    assert list(featurizer.get_feature_names_out()) == [
        "frozenencoderfeaturizer0",
        "frozenencoderfeaturizer1",
    ]


def test_rows_of_a_table_are_dicts_and_sounds_are_arrays():
    columns = {"text": TEXTS, "age": [10, 20, 30, 40, 50, 60]}

    def encode(rows):
        return np.array([[len(row["text"]), row["age"]] for row in rows], dtype=float)

    expected = np.column_stack([letters(TEXTS)[:, 0], columns["age"]])
    for table in (pd.DataFrame(columns), polars.DataFrame(columns), pyarrow.table(columns)):
        featurizer = FrozenEncoderFeaturizer(encode, data_format="items", batch_size=4)
        np.testing.assert_array_equal(featurizer.fit_transform(table), expected)

    sounds = [np.arange(n, dtype=np.float32) for n in (3, 5, 4)]
    named = [(sound, "name") for sound in sounds]

    def loudest(batch):
        batch = [sound[0] if isinstance(sound, tuple) else sound for sound in batch]
        found = [[sound.max(), len(sound)] for sound in batch]
        for sound in batch:
            sound[:] = -1
        return np.array(found)

    featurizer = FrozenEncoderFeaturizer(loudest, data_format="items")
    np.testing.assert_array_equal(featurizer.fit_transform(sounds), [[2, 3], [4, 5], [3, 4]])
    np.testing.assert_array_equal(featurizer.fit_transform(named), [[2, 3], [4, 5], [3, 4]])
    np.testing.assert_array_equal(sounds[1], np.arange(5))  # the encoder wrote to a copy


def test_rows_and_columns_of_a_hugging_face_dataset():
    arrow = pytest.importorskip("datasets.arrow_dataset")  # tests has a folder "datasets"
    data = arrow.Dataset.from_dict({"text": TEXTS, "age": range(6)})
    featurizer = FrozenEncoderFeaturizer(letters, data_format="items")
    np.testing.assert_array_equal(featurizer.fit_transform(data["text"]), letters(TEXTS))
    featurizer.set_params(encoder=lambda rows: letters([row["text"] for row in rows]))
    np.testing.assert_array_equal(featurizer.fit_transform(data), letters(TEXTS))


def test_equal_items_are_encoded_once_also_in_later_calls_and_a_search(tmp_path):
    SEEN.clear()
    featurizer = FrozenEncoderFeaturizer(
        counted, data_format="items", memory=tmp_path, encoder_id="letters", batch_size=2
    )
    np.testing.assert_array_equal(featurizer.fit_transform(TEXTS), letters(TEXTS))
    np.testing.assert_array_equal(featurizer.transform(np.array(TEXTS)), letters(TEXTS))
    search = GridSearchCV(
        make_pipeline(featurizer, LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2
    )
    search.fit(TEXTS, LABELS)
    assert sorted(SEEN) == sorted(set(TEXTS))


def test_clones_pickles_and_saved_models(tmp_path):
    featurizer = FrozenEncoderFeaturizer(letters, data_format="items").fit(TEXTS)
    skfair.save(featurizer, tmp_path / "model.skfair")
    loaded = skfair.load(tmp_path / "model.skfair", factories={"encoder": make_letters})
    copies = loaded, pickle.loads(pickle.dumps(featurizer)), clone(featurizer).fit(TEXTS)
    for other in copies:
        np.testing.assert_array_equal(other.transform(TEXTS), letters(TEXTS))


def test_a_module_gets_what_preprocess_makes_of_the_list():
    net = Letters()
    featurizer = FrozenEncoderFeaturizer(net, preprocess=codes, data_format="items")
    texts = [text for text in TEXTS if text]
    with torch.no_grad():
        alone = [net.embed(torch.tensor(codes([t])["ids"])).mean(1)[0].numpy() for t in texts]
    for batch_size in (1, 2, 8):
        featurizer.set_params(batch_size=batch_size).fit(texts)
        np.testing.assert_allclose(featurizer.transform(texts), alone, atol=1e-6)


def test_features_of_a_text_that_depend_on_the_others_are_refused():
    net = Letters()
    with pytest.raises(ValueError, match=r"uses the other items.*fill up short texts"):
        FrozenEncoderFeaturizer(net.without_mask, preprocess=codes, data_format="items").fit(TEXTS)
    with pytest.raises(ValueError, match="uses the other items"):
        FrozenEncoderFeaturizer(
            lambda texts: letters(texts) / len(texts), data_format="items"
        ).fit_transform(TEXTS)


def digest_of(item):
    digest = hashlib.sha256()
    add_content(digest.update, item, "X[0]")
    return digest.digest()


DIFFERENT = [
    *(
        None,
        True,
        1,
        1.0,
        1 + 0j,
        "1",
        b"1",
        -1,
        "",
        b"",
        [],
        (),
        {},
        0.0,
        -0.0,
        float("nan"),
        2**70,
    ),
    *(["ab"], ["a", "b"], [["a"], "b"], [["a", "b"]], ("a", "b"), ["a", "b", []], [[], "a", "b"]),
    *({"a": 1}, {"a": "1"}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, [("a", 1)]),
    *(np.arange(4), np.arange(4.0), np.arange(4, dtype=np.int32), np.arange(4).reshape(2, 2)),
    *(np.arange(4).reshape(4, 1), np.array(["a"]), np.array(["a"], object), np.array("a", object)),
    *(np.float32(1), np.float64(1), np.int64(1), np.array([]), np.array([[]])),
    *(torch.arange(4), torch.arange(4.0), torch.arange(4.0, dtype=torch.bfloat16)),
    *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), pd.Timestamp(2020, 1, 1)),
    *(Image.new("L", (2, 3)), Image.new("L", (3, 2)), Image.new("RGB", (2, 1)), pd.NaT),
]


def test_contents_of_items_differ_or_are_the_same():
    digests = [digest_of(item) for item in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)
    assert [digest_of(copy.deepcopy(item)) for item in DIFFERENT] == digests
    assert digest_of(np.str_("1")) == digest_of("1")
    assert digest_of(np.arange(8)[::2]) == digest_of(np.array([0, 2, 4, 6]))
    assert digest_of(np.asfortranarray(np.eye(2, 3))) == digest_of(np.eye(2, 3))


def test_nested_items_that_are_written_alike_differ():
    atoms = ["", "1", "11", b"1", 1, 11, None]
    once = [*atoms, *itertools.chain(*(map(make, pairs(atoms)) for make in (list, tuple)))]
    nested = [*once, *map(list, pairs(once))]
    expected = {repr(item) for item in nested}
    assert len({digest_of(item) for item in nested}) == len(expected) > 10_000


def pairs(items):
    """All sequences of none to two of the items."""
    return itertools.chain(*(itertools.product(items, repeat=n) for n in range(3)))


def palette_of(alpha):
    image = Image.new("P", (2, 3))
    image.putpalette([10, 20, 30, alpha] * 256, "RGBA")
    return image


def turned(orientation):
    image = Image.new("L", (2, 3))
    image.getexif()[0x0112] = orientation
    return image


def turned_in_xmp(orientation):
    notes, file = PngImagePlugin.PngInfo(), io.BytesIO()
    notes.add_itxt("XML:com.adobe.xmp", f'<a tiff:Orientation="{orientation}"/>')
    Image.new("L", (2, 3)).save(file, "PNG", pnginfo=notes)
    return Image.open(file)


def test_images_that_are_read_in_another_way_differ():
    for make, read in (
        (palette_of, lambda image: image.convert("RGBA")),
        (turned, ImageOps.exif_transpose),
        (turned_in_xmp, ImageOps.exif_transpose),
    ):
        one, other, same = make(1), make(6), make(1)
        assert digest_of(one) == digest_of(same) != digest_of(other)
        one, other = read(one), read(other)
        assert (one.size, one.tobytes()) != (other.size, other.tobytes())


def test_an_image_of_several_frames_is_refused_with_memory(tmp_path):
    file = io.BytesIO()
    frames = [Image.new("L", (2, 3), shade) for shade in (0, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    moving = Image.open(file)
    featurizer = FrozenEncoderFeaturizer(
        lambda items: np.array([[float(image.size[0])] for image in items]), data_format="items"
    )
    assert featurizer.fit_transform([moving]).tolist() == [[2]]
    featurizer.set_params(memory=tmp_path, encoder_id="size")
    with pytest.raises(TypeError, match=r"X\[0\] is a Pillow image of 2 frames.*X\[0\]\.copy\(\)"):
        featurizer.fit([moving])
    assert featurizer.fit_transform([moving.copy()]).tolist() == [[2]]


def test_large_numbers_and_long_names():
    assert digest_of(10**5000) != digest_of(10**5000 + 1)
    with pytest.raises(TypeError, match="not known") as caught:
        digest_of({"a" * 10_000: len})
    assert len(str(caught.value)) < 500


class Unknown:
    pass


ITSELF = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize("item", [Unknown(), {1, 2}, [ITSELF], {"a": [Unknown()]}, len, Texts()])
def test_items_without_known_content_are_refused_with_memory_only(item, tmp_path):
    parameters = {"encoder": lambda items: np.ones((len(items), 2)), "data_format": "items"}
    assert FrozenEncoderFeaturizer(**parameters).fit_transform(["a", item]).shape == (2, 2)
    featurizer = FrozenEncoderFeaturizer(**parameters, memory=tmp_path, encoder_id="one")
    with pytest.raises(TypeError, match=r"X\[1\].* (not known|contains itself)"):
        featurizer.fit_transform(["a", item])


@pytest.mark.parametrize(
    ("parameters", "X", "error", "match"),
    [
        ({}, "a text", TypeError, r"X \(str\).*it is one item\. Give \[X\]"),
        ({}, {"a": 1}, TypeError, r"X \(dict\).*not a sequence"),
        ({}, iter(TEXTS), TypeError, "not a sequence"),
        ({}, polars.LazyFrame({"a": TEXTS}), TypeError, r"not computed yet\. Give X\.collect\(\)"),
        ({}, torch.utils.data.DataLoader(Texts()), TypeError, "no length or no index"),
        ({}, [], ValueError, "at least one item"),
        ({}, ["a", None], ValueError, r"X\[1\] is missing"),
        ({}, pd.Series(["a", pd.NA]), ValueError, r"X\[1\] is missing"),
        ({}, pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "columns of one name"),
        ({}, pyarrow.table([[1], [2]], names=["a", "a"]), ValueError, "columns of one name"),
        ({"image_shape": (3, 2, 2)}, TEXTS, ValueError, "image_shape.*no meaning.*'items'"),
        ({"encoder": "model.onnx"}, TEXTS, (ValueError, FileNotFoundError), "encoder|items"),
        ({"data_format": "texts"}, TEXTS, ValueError, "data_format"),
    ],
)
def test_bad_items(parameters, X, error, match):
    featurizer = FrozenEncoderFeaturizer(letters, data_format="items").set_params(**parameters)
    with pytest.raises(error, match=match):
        featurizer.fit(X)


def test_texts_are_not_taken_for_files_and_errors_say_what_came():
    with pytest.raises(ValueError, match="does not exist") as caught:
        FrozenEncoderFeaturizer(letters).fit(TEXTS)
    assert "data_format='items'" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="must be Tensor") as caught:
        FrozenEncoderFeaturizer(nn.Linear(2, 2), data_format="items").fit(TEXTS)
    assert "list of 6 items (str)" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match=r"'ids' of differing lengths.*padding=True"):
        FrozenEncoderFeaturizer(
            Letters(),
            preprocess=lambda texts: {"ids": [list(range(len(text))) for text in texts]},
            data_format="items",
        ).fit(TEXTS)
