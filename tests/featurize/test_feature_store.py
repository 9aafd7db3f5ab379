"""The feature store: once per image, never a wrong row; kills, crashes, crowds and bad files."""

import hashlib
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer, Normalize
from skfair.featurize._store import FeatureStore


def images(n, seed=0):
    """Images whose first two bytes number them."""
    X = np.random.default_rng(seed).integers(0, 256, size=(n, 3, 6, 5), dtype=np.uint8)
    X[:, 0, 0, 0], X[:, 0, 0, 1] = np.divmod(np.arange(n), 256)
    return X


def numbers(batch):
    return batch[:, 0, 0, 0].astype(int) * 256 + batch[:, 0, 0, 1]


def per_row(batch):
    """Features of a row that do not depend on the other rows, to the last bit."""
    return np.array([[row.mean(), row.std(), row.flat[0]] for row in batch], dtype=np.float32)


class Logging:
    """Encoder, for images as bytes, that writes down in a file which of them it was given."""

    def __init__(self, log, seconds=0.0):
        self.log = str(log)
        self.seconds = seconds

    def __call__(self, batch):
        time.sleep(self.seconds)
        with open(self.log, "a") as file:
            file.write("".join(f"{number}\n" for number in numbers(batch)))
        return per_row(batch)


class Net(nn.Module):
    """A module with code of its own."""

    def forward(self, x):
        return x * 1.0


def unscaled(batch):
    return batch


def logged(log):
    return [int(line) for line in Path(log).read_text().split()] if Path(log).exists() else []


def featurizer(folder, **parameters):
    usual = {
        "encoder": Logging(folder / "log"),
        "preprocess": unscaled,
        "memory": folder / "store.sqlite",
        "encoder_id": "per row",
        "batch_size": 4,
    }
    return FrozenEncoderFeaturizer(**usual | parameters)


def n_rows(folder):
    with sqlite3.connect(folder / "store.sqlite") as connection:
        return connection.execute("SELECT count(*) FROM features").fetchone()[0]


X = images(20)


def test_each_image_is_encoded_once_in_any_order_split_and_form(tmp_path):
    expected = per_row(X)
    first = featurizer(tmp_path).fit(X)
    np.testing.assert_array_equal(first.transform(X), expected)
    assert sorted(logged(tmp_path / "log")) == list(range(20))

    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(first.transform(X[order]), expected[order])
    np.testing.assert_array_equal(first.transform(X.transpose(0, 2, 3, 1)), expected)
    again = featurizer(tmp_path, batch_size=7)
    np.testing.assert_array_equal(again.fit_transform(list(X[5:])), expected[5:])
    rows = featurizer(tmp_path, image_shape=(3, 6, 5)).fit_transform(X.reshape(20, -1))
    np.testing.assert_array_equal(rows, expected)
    assert len(logged(tmp_path / "log")) == 20

    out = np.empty((20, 3), dtype=np.float32)
    assert first.transform(X, out=out) is out
    np.testing.assert_array_equal(out, expected)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_rows_are_those_of_the_encoder(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    drawn = st.lists(st.integers(0, 19), min_size=1, max_size=25)
    asked = set()
    for _ in range(data.draw(st.integers(1, 4))):
        rows = data.draw(drawn)
        asked |= set(rows)
        model = featurizer(folder, batch_size=data.draw(st.integers(1, 9)))
        np.testing.assert_array_equal(model.fit_transform(X[rows]), per_row(X[rows]))
    assert sorted(logged(folder / "log")) == sorted(asked)


def test_misses_are_gathered_into_full_batches(tmp_path):
    sizes = []

    def encoder(batch):
        sizes.append(len(batch))
        return per_row(batch)

    model = featurizer(tmp_path, encoder=encoder, encoder_id="a")
    model.fit_transform(X[::2])
    assert sizes == [4, 4, 2]
    sizes.clear()
    model.transform(X)
    assert sizes == [4, 4, 2]


def test_a_changed_encoder_never_meets_the_old_rows(tmp_path):
    net = nn.Conv2d(3, 2, 3)
    memory = tmp_path / "store.sqlite"
    model = FrozenEncoderFeaturizer(net, memory=memory, batch_size=20).fit(X)
    before = model.transform(X)
    plain = FrozenEncoderFeaturizer(net, batch_size=20)
    with torch.no_grad():
        net.weight.mul_(2)
    np.testing.assert_array_equal(model.transform(X), plain.fit_transform(X))
    assert not np.array_equal(model.transform(X), before)
    for changed in (
        {"pooling": "max"},
        {"layer": "", "pooling": "flatten"},
        {"preprocess": Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))},
        {"preprocess": Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.3))},
        {"preprocess": Normalize((0.5, 0.5, 0.4), (0.2, 0.2, 0.3))},
        {"amp": True, "device": "cpu"},
    ):
        parameters = model.get_params() | changed
        direct = FrozenEncoderFeaturizer(**parameters | {"memory": None}).fit_transform(X)
        stored = FrozenEncoderFeaturizer(**parameters).fit_transform(X)
        np.testing.assert_array_equal(stored, direct)


def test_a_name_of_yours_is_not_taken_for_contents_nor_for_other_settings(tmp_path):
    net = nn.Conv2d(3, 2, 3)
    parameters = {"encoder": net, "preprocess": None, "batch_size": 20}
    for n_kept, changed in enumerate(
        ({"encoder_id": None}, {}, {"encoder_id": "other"}, {"pooling": "max"}), start=1
    ):
        featurizer(tmp_path, **parameters | changed).fit_transform(X)
        assert n_rows(tmp_path) == 20 * n_kept


def test_a_module_that_changes_while_it_runs(tmp_path):
    """All rows are of the module as it was when the call began, and are kept as such."""
    net = nn.Conv2d(3, 2, 3)
    weight = net.weight.detach().clone()
    expected = FrozenEncoderFeaturizer(net, batch_size=1).fit_transform(X)

    class Training(torch.utils.data.Dataset):
        def __len__(self):
            return len(X)

        def __getitem__(self, row):
            if row == 12:
                net.weight.data.fill_(1)
            return X[row]

    parameters = {"encoder": net, "preprocess": None, "encoder_id": None, "batch_size": 1}
    model = featurizer(tmp_path, **parameters)
    with pytest.warns(UserWarning, match="was changed while it ran.*as it was at first.*encoder_i"):
        np.testing.assert_array_equal(model.fit_transform(Training()), expected)
    net.weight.data.copy_(weight)
    np.testing.assert_array_equal(model.transform(X), expected)
    assert n_rows(tmp_path) == 20


def test_rows_of_version_0_1_are_not_found(tmp_path):
    """Many of its keys were guesses, and what was kept under them may be another encoder's."""
    # What it wrote for encoder_id="per row" and defaults.
    old = bytes.fromhex("b0d63a8f8507415cae07d29bc7f56d2bec5c346283402e0049595dafba0693e4")
    with FeatureStore(tmp_path / "store.sqlite") as store:
        store.get_or_encode(store.keys(old, X), lambda rows: np.zeros((20, 3), np.float32))
    np.testing.assert_array_equal(featurizer(tmp_path).fit_transform(X), per_row(X))
    assert n_rows(tmp_path) == 40


def test_images_that_are_resized_in_other_ways_do_not_meet(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, size=(8, 12, 3), dtype=np.uint8)
    X = [Image.fromarray(X), Image.fromarray(X.transpose(1, 0, 2)[:6])]
    module = nn.Flatten()
    for resize in ("stretch", "pad", "crop"):
        parameters = {"image_shape": (3, 4, 5), "resize": resize}
        kept = FrozenEncoderFeaturizer(module, memory=tmp_path / "store", **parameters)
        fresh = FrozenEncoderFeaturizer(module, **parameters).fit_transform(X)
        np.testing.assert_array_equal(kept.fit_transform(X), fresh)
        np.testing.assert_array_equal(kept.fit_transform(X), fresh)  # from the store


def test_types_and_shapes_do_not_meet(tmp_path):
    model = featurizer(tmp_path, encoder_id="a")
    for data in (X, X.astype(np.float32), X.reshape(20, 3, 5, 6), X.reshape(20, -1)):
        encoder = FrozenEncoderFeaturizer(lambda b: b.reshape(len(b), -1)[:, :3] * 1.0)
        model.set_params(encoder=encoder.encoder, preprocess=unscaled)
        model.fit_transform(data)
    assert n_rows(tmp_path) == 80


class Never:
    """Something that must not be touched."""

    def __init__(self, *_):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return per_row(batch)

    def __len__(self):
        self.calls += 1
        return 3

    def __getitem__(self, row):
        self.calls += 1
        return X[row]


@pytest.mark.parametrize(
    "parameters, reason",
    [
        ({"encoder": Never()}, "encoder is a Never"),
        ({"encoder": per_row, "preprocess": None}, "encoder is a function"),
        ({"encoder": nn.Identity(), "preprocess": Never()}, "all that preprocess=.* depends on"),
        (
            {"encoder": nn.Sequential(nn.Flatten(), Net())},
            r"encoder\.1 is a test_feature_store\.Net",
        ),
    ],
)
def test_what_cannot_be_known_needs_a_name_before_anything_runs(tmp_path, parameters, reason):
    images = Never()
    wanted = rf"memory='.*store\.sqlite' .*{reason}.*Pass encoder_id='"
    for call in ("fit", "fit_transform"):
        with pytest.raises(ValueError, match=wanted):
            getattr(featurizer(tmp_path, encoder_id=None, **parameters), call)(images)
    used = [images, *(value for value in parameters.values() if isinstance(value, Never))]
    assert [part.calls for part in used] == [0] * len(used)
    assert list(tmp_path.iterdir()) == []


def test_names_keep_encoders_apart(tmp_path):
    for number in (1, 2):
        named = featurizer(tmp_path, encoder_id=f"client, model {number}")
        np.testing.assert_array_equal(named.fit_transform(X), per_row(X))
        assert n_rows(tmp_path) == 20 * number


def test_one_name_for_encoders_of_two_widths(tmp_path):
    featurizer(tmp_path, encoder_id="a").fit(X[:1])
    wide = featurizer(tmp_path, encoder=lambda b: np.ones((len(b), 5)), encoder_id="a")
    with pytest.raises(ValueError, match=r"returned 5 features.* was 3 before.*encoder_id"):
        wide.fit_transform(X)
    wide.fit(X[1:])
    with pytest.raises(ValueError, match=r"memory=.*holds 3 features.* was 5 before"):
        wide.transform(X)


def test_an_encoder_that_raises_loses_its_batch_only(tmp_path):
    class Failing(Logging):
        def __call__(self, batch):
            if 13 in numbers(batch):
                raise ConnectionError("service is down")
            return super().__call__(batch)

    broken = featurizer(tmp_path, encoder=Failing(tmp_path / "log"), encoder_id="service")
    with pytest.raises(ConnectionError) as caught:
        broken.fit_transform(X)
    assert "the next call goes on from there" in caught.value.__notes__[1]
    assert logged(tmp_path / "log") == list(range(12))
    assert n_rows(tmp_path) == 12
    repaired = featurizer(tmp_path, encoder_id="service")
    np.testing.assert_array_equal(repaired.fit_transform(X), per_row(X))
    assert logged(tmp_path / "log") == list(range(20))


def test_bad_output_is_not_kept(tmp_path):
    for encoder in (lambda b: np.full((len(b), 3), np.nan), lambda b: np.ones((len(b) + 1, 3))):
        with pytest.raises(ValueError, match="encoder returned"):
            featurizer(tmp_path, encoder=encoder, encoder_id="a").fit(X)
    assert n_rows(tmp_path) == 0


DAMAGES = ["zeroblob(12)", "x'00'", "'text'", "12", "(SELECT max(value) FROM features)"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_made_again(tmp_path, damage):
    model = featurizer(tmp_path)
    expected = model.fit_transform(X)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute(f"UPDATE features SET value = {damage} WHERE rowid IN (3, 11)")
    np.testing.assert_array_equal(model.transform(X), expected)
    assert 20 < len(logged(tmp_path / "log")) <= 22
    again = len(logged(tmp_path / "log"))
    np.testing.assert_array_equal(model.transform(X), expected)
    assert len(logged(tmp_path / "log")) == again


@pytest.mark.parametrize("value", [b"\0" * 2000, b"\0" * 3])
def test_a_row_that_cannot_be_features_is_made_again_whatever_its_checksum(
    tmp_path, monkeypatch, value
):
    monkeypatch.setattr("skfair.featurize._store.LARGEST_ROW", 1000)
    model = featurizer(tmp_path)
    expected = model.fit_transform(X)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        (key,) = connection.execute("SELECT key FROM features WHERE rowid = 7").fetchone()
        checksum = hashlib.sha256(key + value).digest()[:8]
        connection.execute(
            "UPDATE features SET value = ?, checksum = ? WHERE rowid = 7",
            (
                value,
                checksum,
            ),
        )
    np.testing.assert_array_equal(model.transform(X), expected)
    assert len(logged(tmp_path / "log")) == 21


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
import test_feature_store as t
folder, n, name = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
encoder = t.Logging(folder / "log", seconds=0.02)
features = t.featurizer(folder, encoder=encoder).fit_transform(t.images(n))
np.save(folder / f"{name}.npy", features)
"""


def start_child(folder, n, name="child"):
    arguments = [sys.executable, "-c", CHILD, Path(__file__).parent, folder, str(n), name]
    return subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_killed_process_loses_the_batch_in_flight_only(tmp_path):
    n = 400
    child = start_child(tmp_path, n)
    deadline = time.monotonic() + 60
    while len(logged(tmp_path / "log")) < 40 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = logged(tmp_path / "log")
    kept = n_rows(tmp_path)
    assert 40 <= len(before) < n
    assert len(before) - 4 <= kept <= len(before)

    encoder = Logging(tmp_path / "log", seconds=0.02)
    model = featurizer(tmp_path, encoder=encoder, batch_size=50)
    np.testing.assert_array_equal(model.fit_transform(images(n)), per_row(images(n)))
    after = logged(tmp_path / "log")
    assert len(after) - len(before) == n - kept
    assert set(after) == set(range(n))


def test_processes_share_one_store(tmp_path):
    n = 160
    children = [start_child(tmp_path, n, str(name)) for name in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    for name in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), per_row(images(n)))
    assert sorted(logged(tmp_path / "log")) == list(range(n))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_encodes_each_image_once(tmp_path, n_jobs):
    data = images(40)
    search = GridSearchCV(
        make_pipeline(featurizer(tmp_path, batch_size=8), LogisticRegression()),
        {"logisticregression__C": np.logspace(-3, 2, 12)},
        cv=5,
        n_jobs=n_jobs,
    ).fit(data, np.arange(40) % 2)
    assert len(search.cv_results_["params"]) == 12
    assert sorted(logged(tmp_path / "log")) == list(range(40))


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "store.sqlite").write_text("features, they said, were here" * 10)
    with pytest.raises(ValueError, match=r"memory='.*store\.sqlite' is not a database"):
        featurizer(tmp_path).fit(X)
    assert (tmp_path / "store.sqlite").read_text().startswith("features")


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("CREATE TABLE features (name TEXT)")
    before = (tmp_path / "store.sqlite").read_bytes()
    with pytest.raises(ValueError, match="did not make"):
        featurizer(tmp_path).fit(X)
    assert (tmp_path / "store.sqlite").read_bytes() == before


TABLE = "CREATE TABLE features (key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL"
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"


@pytest.mark.parametrize(
    "schema",
    [
        f"DROP TABLE features; CREATE VIEW features AS SELECT ({ENDLESS}) AS key, 1 AS value, 1 "
        "AS checksum",
        f"CREATE TRIGGER t AFTER INSERT ON features BEGIN {ENDLESS}; END",
        f"DROP TABLE features; {TABLE}, CHECK (length(randomblob(1000000000)) > 0))",
        f"DROP TABLE features; {TABLE}, more BLOB DEFAULT (randomblob(1000000000)))",
        f"DROP TABLE features; {TABLE}, more BLOB AS (zeroblob(1000000000)))",
        "CREATE INDEX i ON features (hex(zeroblob(length(value) + 500000000)))",
        "CREATE TABLE more (a)",
        "DROP TABLE features",
    ],
)
def test_nothing_in_a_store_from_somebody_else_is_executed(tmp_path, schema):
    path = tmp_path / "store.sqlite"
    with FeatureStore(path):
        pass
    connection = sqlite3.connect(path)
    connection.executescript(schema)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="this version of skfair did not make"):
        featurizer(tmp_path).fit(X)
    assert path.read_bytes() == before
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("column", "content", "match"),
    [
        ("sql", TABLE.encode() + b", \xff BLOB)", "did not make"),
        ("sql", TABLE.encode() + b", \x1b[2J BLOB)", "is damaged"),
        ("tbl_name", b"\xff\x1b" * 3000, "is damaged"),
    ],
)
def test_a_schema_that_is_no_text(tmp_path, column, content, match):
    path = tmp_path / "store.sqlite"
    with FeatureStore(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema=ON")
    change = f"UPDATE sqlite_master SET {column} = CAST(? AS TEXT) WHERE type = 'table'"
    connection.execute(change, (content,))
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match=rf"memory='.*store\.sqlite' .*{match}") as caught:
        FeatureStore(path).__enter__()
    assert str(caught.value).isprintable()
    assert type(caught.value) is ValueError  # and not its subclass of what cannot be decoded


def test_a_schema_of_a_later_sqlite(tmp_path):
    path = tmp_path / "store.sqlite"
    with FeatureStore(path):
        pass
    content = bytearray(path.read_bytes())
    content[44:48] = bytes([0, 0, 0, 9])  # in the file's header; there are the formats 1 to 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be used: unsupported file format"):
        FeatureStore(path).__enter__()


def test_reasons_of_sqlite_are_escaped_and_short(tmp_path):
    store = FeatureStore(tmp_path / "store.sqlite")
    for error in (sqlite3.OperationalError, sqlite3.DatabaseError):
        with pytest.raises(OSError, match="cannot be used") as caught, store._errors():
            raise error("\x1b[2J" + "a" * 10**6)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_store_of_another_version(tmp_path):
    featurizer(tmp_path).fit(X)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(ValueError, match="this version of skfair did not make"):
        featurizer(tmp_path).fit(X)


def test_a_read_only_store(tmp_path):
    featurizer(tmp_path).fit(X)
    (tmp_path / "store.sqlite").chmod(0o444)
    with pytest.raises(PermissionError, match=r"memory='.*' is read-only"):
        featurizer(tmp_path).fit(X)


def test_a_store_in_no_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"memory=.*directory that does not exist"):
        featurizer(tmp_path, memory=tmp_path / "none" / "store.sqlite").fit(X)
    with pytest.raises(FileNotFoundError, match=r"none/' is a directory that does not exist"):
        featurizer(tmp_path, memory=f"{tmp_path}/none/").fit(X)
    assert not (tmp_path / "none").exists()


def test_a_directory_gets_a_store_as_that_of_a_pipeline_does(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "joblib").mkdir()  # what a Pipeline keeps there
    for memory in (folder, f"{folder}/", folder / "features.sqlite"):
        featurizer(tmp_path, memory=memory).fit_transform(X)
    assert {file.name for file in folder.iterdir()} >= {"joblib", "features.sqlite"}
    assert len((tmp_path / "log").read_text().split()) == len(X)
    (tmp_path / "features.sqlite").mkdir()
    with pytest.raises(ValueError, match=r"features\.sqlite' is a link, a pipe, a device or a f"):
        featurizer(tmp_path, memory=tmp_path).fit(X)


@pytest.mark.parametrize("memory", ["", ":memory:", "file::memory:?cache=shared"])
def test_a_database_in_memory_keeps_nothing(tmp_path, monkeypatch, memory):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"gone after the call\. Name a file or a directory"):
        featurizer(tmp_path, memory=memory).fit(X)
    assert not list(tmp_path.glob("*memory*"))


def test_files_are_kept_as_they_are_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels = np.random.default_rng(0).integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lying.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "as it lies.png")
    Image.fromarray(np.rot90(pixels, -1).copy()).save(tmp_path / "upright.png")
    kept = FrozenEncoderFeaturizer(nn.Flatten(), memory=tmp_path / "store.sqlite")
    lying, as_it_lies, upright = kept.fit_transform(
        [tmp_path / f"{name}.png" for name in ("lying", "as it lies", "upright")]
    )
    np.testing.assert_array_equal(lying, upright)
    assert not np.array_equal(lying, as_it_lies)
    assert n_rows(tmp_path) == 2


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_folder_that_leads_elsewhere(tmp_path, suffix, kind):
    inside, victim = tmp_path / "inside", tmp_path / "victim"
    inside.mkdir()
    victim.write_bytes(b"")
    featurizer(inside).fit(X)
    file = inside / f"store.sqlite{suffix}"
    file.unlink(missing_ok=True)
    if kind == "link":
        file.symlink_to(victim)
    elif kind == "dangling link":
        file.symlink_to(tmp_path / "new")
    else:
        os.mkfifo(file)
    with pytest.raises(ValueError, match=r"cannot be opened safely: '.*store\.sqlite.*is a link"):
        featurizer(inside).fit(X[1:])
    assert victim.read_bytes() == b""
    assert not (tmp_path / "new").exists()


def test_a_log_that_is_another_file_too(tmp_path):
    featurizer(tmp_path).fit(X)
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "store.sqlite-wal").hardlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=r"cannot be opened safely: '.*store\.sqlite-wal'"):
        featurizer(tmp_path).fit(X[1:])
    assert (tmp_path / "victim").read_bytes() == b"mine"


def hot_journal(database, named):
    """What a killed process leaves, which sqlite undoes; it names a further journal."""
    page = database.read_bytes()[:4096]
    magic = bytes.fromhex("d9d505f920a163d7")
    n_pages = database.stat().st_size // 4096
    head = (magic + struct.pack(">5I", 1, 0, n_pages, 512, 4096)).ljust(512, b"\0")
    checksum = sum(page[i] for i in range(4096 - 200, 0, -200))
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    name = os.fsencode(named)
    tail = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">2I", len(name), sum(name))
    return head + record + tail + magic


def test_a_journal_that_would_delete_another_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    plain, store = tmp_path / "plain.sqlite", tmp_path / "store.sqlite"
    connection = sqlite3.connect(plain)
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    store.write_bytes(plain.read_bytes())
    journal = hot_journal(plain, victim)
    (tmp_path / "store.sqlite-journal").write_bytes(journal)
    with pytest.raises(ValueError, match=r"store\.sqlite-journal' names a file for sqlite to del"):
        featurizer(tmp_path).fit(X)
    assert victim.read_text() == "mine"
    # So it is: sqlite alone does delete it.
    (tmp_path / "plain.sqlite-journal").write_bytes(journal)
    connection = sqlite3.connect(plain)
    connection.execute("SELECT count(*) FROM sqlite_master")
    connection.close()
    assert not victim.exists()


def test_a_store_with_a_damaged_page(tmp_path):
    model = featurizer(tmp_path)
    model.fit_transform(images(300))
    content = bytearray((tmp_path / "store.sqlite").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / "store.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match=r"memory=.*is damaged"):
        model.transform(images(300))


def test_waiting_for_a_lock_can_be_long_and_is_then_said(tmp_path, monkeypatch):
    monkeypatch.setattr("skfair.featurize._store._WAIT_WARNING_SECONDS", 0)
    path = tmp_path / "store.sqlite"
    with FeatureStore(path):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    calls = []

    def release(*_):
        calls.append(other.execute("ROLLBACK"))

    key = b"k" * 20
    with FeatureStore(path) as store, warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "warn", release)
        rows = store.get_or_encode([key], lambda missing: np.ones((1, 2), dtype=np.float32))
    assert len(calls) == 1
    np.testing.assert_array_equal(rows[key], [1, 1])
    other.close()


def test_readers_do_not_wait_for_the_encoder(tmp_path):
    keys = [b"a" * 20, b"b" * 20]
    ones = np.ones((1, 2), dtype=np.float32)
    with FeatureStore(tmp_path / "s") as writer, FeatureStore(tmp_path / "s") as reader:
        writer.get_or_encode(keys[:1], lambda missing: ones)

        def encode(missing):
            assert list(reader.get(keys)) == keys[:1]
            return ones

        writer.get_or_encode(keys, encode)
        assert sorted(reader.get(keys)) == keys
