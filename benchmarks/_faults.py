"""Injected faults: killed processes, full disks, damaged files, several processes with one store.

Each function injects one kind of fault many times. It returns what was tried, how many times, and
what was lost: one line for each wrong result and for each error other than the promised one. The
benchmark and the tests call the same functions, with other numbers.
"""

import contextlib
import multiprocessing
import os
import pickle
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

import skfair
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.margin import ClusterMarginClassifier
from skfair.persistence import InvalidModelError
from skfair.persistence._files import _PART
from skfair.persistence._files import FILE as _MODEL

# Children are forked from a server that has imported everything, so that they start fast.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["skfair", __name__])
_N_IMAGES = 40
_PATIENCE = 120  # seconds, after which a process hangs


class Tried(NamedTuple):
    """One row of the table."""

    what: str
    n_times: int
    lost: list[str]


# -- what is computed --------------------------------------------------------------------------


class Encoder(nn.Module):
    """An encoder with integer features, which are the same bits in any batch.

    It logs the images that it was given, by the number in their first pixel, and it is slow.
    """

    def __init__(self, log: Path | None = None, seconds: float = 0.0, n_features: int = 6):
        super().__init__()
        weight = torch.arange(3 * 6 * 6 * n_features).reshape(3 * 6 * 6, n_features) % 7 - 3
        self.register_buffer("weight", weight.float())
        self.log = log
        self.seconds = seconds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        if self.log is not None:
            numbers = images[:, 0, 0, 0].int().tolist()
            with open(self.log, "a") as file:
                file.write("".join(f"{number}\n" for number in numbers))
        return images.flatten(1) @ self.weight


def as_floats(images: torch.Tensor) -> torch.Tensor:
    """The step before the encoder."""
    return images.float()


def images(n: int = _N_IMAGES) -> np.ndarray:
    """Images whose first pixel is their number."""
    X = np.random.default_rng(0).integers(0, 256, size=(n, 3, 6, 6), dtype=np.uint8)
    X[:, 0, 0, 0] = np.arange(n)
    return X


def featurizer(store: Path | None, encoder: nn.Module | None = None) -> FrozenEncoderFeaturizer:
    """Make a featurizer with small batches, and a name, since the log is no part of the result."""
    return FrozenEncoderFeaturizer(
        encoder or Encoder(),
        preprocess=as_floats,
        memory=store,
        encoder_id="whole numbers",
        batch_size=4,
    )


def featurize(store: Path | None, log: Path | None, seconds: float) -> np.ndarray:
    """Encode all images."""
    return featurizer(store, Encoder(log, seconds)).fit_transform(images())


def search(store: Path | None, log: Path | None, seconds: float) -> np.ndarray:
    """Search over a pipeline whose featurizer encodes."""
    pipeline = make_pipeline(
        featurizer(store, Encoder(log, seconds)), LogisticRegression(max_iter=20, tol=1.0)
    )
    found = GridSearchCV(pipeline, {"logisticregression__C": [1e-8, 1e-7, 1e-6]}, cv=3)
    found.fit(images(), np.arange(_N_IMAGES) % 2)
    scores = found.cv_results_["mean_test_score"]
    return np.concatenate([scores, found.best_estimator_[-1].coef_.ravel()])


def classifier(seed: int) -> ClusterMarginClassifier:
    """Fit a small classifier."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 2
    X = np.column_stack([y + rng.normal(size=60), rng.normal(size=60)])
    return ClusterMarginClassifier(
        loss="cross_entropy", n_units=2, max_epochs=2, random_state=seed
    ).fit(X, y)


def answers(estimator: ClusterMarginClassifier) -> bytes:
    """The bytes of all that a classifier returns."""
    return estimator.predict_proba(np.random.default_rng(9).normal(size=(8, 2))).tobytes()


def _is_sound(store: Path) -> bool:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def _n_rows(store: Path) -> int:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute("SELECT count(*) FROM features").fetchone()[0]


def _logged(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@contextlib.contextmanager
def _noted(lost: list[str], what: str) -> Iterator[None]:
    """Count an error as a loss, too."""
    try:
        yield
    except Exception as error:
        lost.append(f"{what}: {type(error).__name__}: {error}")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happens")
        time.sleep(0.0005)


# -- kills -------------------------------------------------------------------------------------


def _in_child(pipe: Connection, function: Callable, *arguments) -> None:
    torch.set_num_threads(1)
    pipe.send("begun")
    pipe.send(function(*arguments))


@contextlib.contextmanager
def _child(function: Callable, *arguments) -> Iterator[Callable]:
    """A process that has begun to compute; the block's end kills it if it still runs (SIGKILL).

    Yields a function that waits for the result of the process; None if it ends without a result.
    """
    here, there = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_in_child, args=(there, function, *arguments))
    process.start()
    there.close()

    def receive():
        try:
            return here.recv() if here.poll(_PATIENCE) else None
        except EOFError:
            return None

    receive()
    try:
        yield receive
    finally:
        process.kill()
        process.join(_PATIENCE)
        process.close()
        here.close()


def kill_while_encoding(
    folder: Path, n_times: int, compute: Callable = featurize, what: str = "featurizing"
) -> Tried:
    """Kill a process that fills a store, at random moments, and compute again with what it left."""
    rng = np.random.default_rng(0)
    expected, lost = compute(None, None, 0.0).tobytes(), []
    for i in range(n_times):
        store, log = folder / f"{what}{i}.sqlite", folder / f"{what}{i}.log"
        n_encoded = rng.integers(_N_IMAGES)
        with _child(compute, store, log, 0.002), _noted(lost, f"kill {i}"):
            _wait_until(lambda log=log, n=n_encoded: len(_logged(log)) >= n)
            time.sleep(rng.uniform(0, 0.004))
        with _noted(lost, f"kill {i}"):
            if compute(store, None, 0.0).tobytes() != expected:
                lost.append(f"kill {i}: another result")
            if not _is_sound(store) or _n_rows(store) != _N_IMAGES:
                lost.append(f"kill {i}: a damaged store")
    return Tried(f"Process killed while {what} with a store", n_times, lost)


def kill_while_searching(folder: Path, n_times: int) -> Tried:
    """As :func:`kill_while_encoding`, in a search."""
    return kill_while_encoding(folder, n_times, search, "searching over a pipeline")


def _save_for_ever(pickled: bytes, path: Path) -> None:
    models = pickle.loads(pickled)  # not passed as they are: torch would share their memory
    while True:
        for model in models:
            skfair.save(model, path)


def _save(pickled: bytes, path: Path) -> None:
    skfair.save(pickle.loads(pickled), path)


def kill_while_saving(folder: Path, n_times: int) -> Tried:
    """Kill a process that saves one model over another, at random moments."""
    rng = np.random.default_rng(1)
    models, path, lost = [classifier(0), classifier(1)], folder / "model", []
    known = [answers(model) for model in models]
    skfair.save(models[0], path)
    for i in range(n_times):
        before = (path / _MODEL).stat().st_ino
        with _child(_save_for_ever, pickle.dumps(models), path), _noted(lost, f"kill {i}"):
            _wait_until(lambda before=before: (path / _MODEL).stat().st_ino != before)
            time.sleep(rng.uniform(0, 0.02))  # a few times as long as a save
        with _noted(lost, f"kill {i}"):
            if answers(skfair.load(path)) not in known:
                lost.append(f"kill {i}: neither of the models")
            skfair.save(models[i % 2], path)
            if answers(skfair.load(path)) != known[i % 2]:
                lost.append(f"kill {i}: the next save was lost")
        left = [file for file in path.iterdir() if file.name != _MODEL]
        if len(left) > 1 or not all(_PART.fullmatch(file.name) for file in left):
            lost.append(f"kill {i}: left {sorted(os.listdir(path))}")
        for file in left:  # only somebody who knows that nobody saves may remove these
            file.unlink()
    return Tried("Process killed while saving over a model", n_times, lost)


# -- full disks and files that cannot be written -----------------------------------------------


def _limited(limit: int, function: Callable, *arguments) -> tuple:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead of the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        function(*arguments)
    except Exception as error:
        return type(error).__name__, isinstance(error, OSError), str(error)
    return "no error", False, ""


def _error_under_limit(limit: int, function: Callable, *arguments) -> tuple:
    """Run in a process whose files cannot grow beyond a limit; returns the error that it raised."""
    with _child(_limited, limit, function, *arguments) as receive:
        return receive() or ("no answer", False, "")


def _featurize_wide(store: Path) -> np.ndarray:
    return featurizer(store, Encoder(n_features=4096)).fit_transform(images())


def full_disk_while_encoding(folder: Path, n_times: int) -> Tried:
    """Fill the disk while a store grows, then give it room again."""
    expected, lost = featurizer(None, Encoder(n_features=4096)).fit_transform(images()), []
    for i, limit in enumerate(np.linspace(1_000, 600_000, n_times).astype(int)):
        store = folder / f"full{i}.sqlite"
        said = _error_under_limit(int(limit), _featurize_wide, store)
        if not said[1] or f"memory='{store}'" not in said[2]:
            lost.append(f"limit of {limit} bytes: {said}")
        with _noted(lost, f"limit of {limit} bytes"):
            if limit > 400_000 and not _n_rows(store):
                lost.append(f"limit of {limit} bytes: nothing of what was computed is left")
            if not np.array_equal(_featurize_wide(store), expected) or not _is_sound(store):
                lost.append(f"limit of {limit} bytes: another result with more room")
    return Tried("Disk full while featurizing with a store", n_times, lost)


def full_disk_while_saving(folder: Path, n_times: int) -> Tried:
    """Save over a model on a full disk."""
    old, new, path, lost = classifier(0), classifier(1), folder / "full model", []
    skfair.save(old, path)
    names = sorted(os.listdir(path))
    largest = max(file.stat().st_size for file in path.iterdir())
    for limit in np.linspace(0, largest - 1, n_times).astype(int):
        said = _error_under_limit(int(limit), _save, pickle.dumps(new), path)
        if not said[1]:
            lost.append(f"limit of {limit} bytes: {said}")
        with _noted(lost, f"limit of {limit} bytes"):
            if answers(skfair.load(path)) != answers(old) or sorted(os.listdir(path)) != names:
                lost.append(f"limit of {limit} bytes: the old model is not as it was")
    return Tried("Disk full while saving over a model", n_times, lost)


def _full_store(store: Path) -> bytes:
    featurizer(store).fit_transform(images())
    return store.read_bytes()


def _truncated(store: Path) -> None:
    store.write_bytes(_full_store(store)[:5000])


def _overwritten(store: Path) -> None:
    content = _full_store(store)
    store.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def _text(store: Path) -> None:
    store.write_text("these are no features " * 100)


def _of_another_application(store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("CREATE TABLE features (name TEXT)")


def _read_only(store: Path) -> None:
    _full_store(store)
    store.chmod(0o444)


def _missing_folder(store: Path) -> Path:
    return store / "missing" / "store.sqlite"


def _unwritable_folder(store: Path) -> Path:
    return Path("/proc/store.sqlite")  # root cannot create it either


_BAD_STORES = (
    *(_truncated, _overwritten, _text, _of_another_application, _read_only),
    *(_missing_folder, _unwritable_folder),
)


def bad_stores(folder: Path, n_times: int = len(_BAD_STORES)) -> Tried:
    """Use files as a store that are no store, or cannot be one."""
    lost = []
    for i, make in enumerate(_BAD_STORES[:n_times]):
        named = folder / f"bad{i}.sqlite"
        named = make(named) or named
        before = named.read_bytes() if named.is_file() else None
        try:
            featurizer(named).fit_transform(images())
            lost.append(f"{make.__name__}: no error")
        except (ValueError, OSError) as error:
            if f"memory='{named}'" not in str(error):
                lost.append(f"{make.__name__}: {error}")
        except Exception as error:
            lost.append(f"{make.__name__}: {type(error).__name__}: {error}")
        if before is not None and named.read_bytes() != before:
            lost.append(f"{make.__name__}: the file was changed")
    return Tried("Store that is damaged, foreign or cannot be written", n_times, lost)


# -- crowds ------------------------------------------------------------------------------------


def _features(*arguments) -> bytes:
    return featurize(*arguments).tobytes()


def crowds(folder: Path, n_times: int) -> Tried:
    """Two and four processes that fill one store at the same time."""
    expected, lost = featurize(None, None, 0.0).tobytes(), []
    for i in range(n_times):
        store, log, n = folder / f"crowd{i}.sqlite", folder / f"crowd{i}.log", (2, 4)[i % 2]
        with contextlib.ExitStack() as stack:
            children = [stack.enter_context(_child(_features, store, log, 0.002)) for _ in range(n)]
            found = [receive() for receive in children]
        if any(result != expected for result in found):
            lost.append(f"crowd {i}: another result")
        # Each process asks the encoder about its first image again, alone and among others.
        logged = list(_logged(log))
        if not set(range(_N_IMAGES)) <= set(logged) or len(logged) > _N_IMAGES + 4 * n:
            lost.append(f"crowd {i}: images encoded more than once")
    return Tried("Two or four processes with one store", n_times, lost)


# -- damaged models ----------------------------------------------------------------------------


def _load_damaged(path: Path, known: bytes, what: str) -> list[str]:
    try:
        loaded = skfair.load(path)
    except InvalidModelError:
        return []
    except Exception as error:
        return [f"{what}: {type(error).__name__}: {error}"]
    return [] if answers(loaded) == known else [f"{what}: another model"]


def flipped_bytes(folder: Path, n_times: int | None = None) -> Tried:
    """Flip a bit of each byte of a saved model, or of the given number of bytes."""
    model, path = classifier(0), folder / "flipped"
    skfair.save(model, path)
    rng, known, lost = np.random.default_rng(2), answers(model), []
    places = [(file, i) for file in sorted(path.iterdir()) for i in range(file.stat().st_size)]
    if n_times is not None:
        places = [places[i] for i in rng.choice(len(places), n_times, replace=False)]
    for file, i in places:
        content = file.read_bytes()
        flipped = content[i] ^ (1 << int(rng.integers(8)))
        file.write_bytes(content[:i] + bytes([flipped]) + content[i + 1 :])
        lost += _load_damaged(path, known, f"byte {i} of {file.name}")
        file.write_bytes(content)
    return Tried("One bit of a saved model flipped", len(places), lost)


def truncated_models(folder: Path, n_times: int | None = None) -> Tried:
    """Cut a saved model at each length, or at the given number of lengths."""
    model, path = classifier(0), folder / "cut"
    skfair.save(model, path)
    known, lost, n_tried = answers(model), [], 0
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for length in np.unique(
            np.linspace(0, len(content) - 1, n_times or len(content), dtype=int)
        ):
            file.write_bytes(content[:length])
            lost += _load_damaged(path, known, f"{file.name} cut at {length}")
            n_tried += 1
        file.write_bytes(content)
    return Tried("File of a saved model cut", n_tried, lost)


def mixed_models(folder: Path, n_times: int) -> Tried:
    """Put the tensors of one saved model behind the header of another."""
    lost = []
    for i in range(n_times):
        path, model = folder / f"one{i}", classifier(2 * i)
        skfair.save(model, path)
        skfair.save(classifier(2 * i + 1), folder / f"other{i}")
        one, other = ((folder / name / _MODEL).read_bytes() for name in (f"one{i}", f"other{i}"))
        ends = [8 + int.from_bytes(content[:8], "little") for content in (one, other)]
        (path / _MODEL).write_bytes(one[: ends[0]] + other[ends[1] :])
        lost += _load_damaged(path, answers(model), f"mix {i}")
    return Tried("Tensors and header of two saved models mixed", n_times, lost)


def links(folder: Path, n_times: int) -> Tried:
    """Save and load through links to other people's files, at every name that skfair writes."""
    home, lost = folder / "home", []
    (home / "deep").mkdir(parents=True)
    (home / "thesis.txt").write_text("mine")
    skfair.save(classifier(0), home / "model")
    before = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    names = [_MODEL, "config.json", "files", ".saving", ".model.0123456789abcdef.part", "m.onnx"]
    names += ["m.onnx.part", "model.safetensors.0123456789abcdef", ""]
    targets = [home, home / "deep", home / "thesis.txt", home / "model", home / "model" / _MODEL]
    places = [(name, target, full) for name in names for target in targets for full in (0, 1)]
    for i, (name, target, full) in enumerate(places[j % len(places)] for j in range(n_times)):
        path = folder / f"linked{i}"
        if full and name not in (_MODEL, ""):
            skfair.save(classifier(1), path)
        else:
            path.parent.mkdir(exist_ok=True)
        if name:
            path.mkdir(exist_ok=True)
        (path / name if name else path).symlink_to(target)
        model = classifier(2)
        with contextlib.suppress(OSError):
            skfair.save(model, path)
        with contextlib.suppress(OSError, ValueError):
            skfair.load(path)
        if name.startswith("m.onnx"):
            with contextlib.suppress(OSError):
                model.to_onnx(path / "m.onnx")
        after = {file: file.read_bytes() for file in home.rglob("*") if file.is_file()}
        if after != before:
            lost.append(f"link {name!r} to {target}: {sorted(after)}")
            return Tried("Links to somebody's files, wherever files are written", i + 1, lost)
    return Tried("Links to somebody's files, wherever files are written", n_times, lost)
