"""Forged models: correct digests around arbitrary content, and the results of loading them.

``python forged.py [number of cases] [seed]`` loads many forged models in separate processes, each
model under limits of memory and time, and counts forbidden outcomes.
"""

import contextlib
import copy
import io
import json
import linecache
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from saved_models import (
    IMAGES,
    X,
    Y,
    fitted,
    make_encoder,
    make_network,
    parts,
    put,
    write_onnx,
)
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import skfair
from skfair.datasets import load_digits_encoder
from skfair.discovery import all_estimators
from skfair.featurize import Normalize
from skfair.persistence import InvalidModelError
from skfair.persistence._schema import sklearn_classes

MEMORY = 256 << 20  # bytes, in addition to four times the size of the file
SECONDS = 2  # of processor time
FACTORIES = {"encoder": make_encoder, "estimator": make_network}
METHODS = ["predict", "predict_proba", "decision_function", "transform", "predict_cluster"]
METHODS += ["attribute_proba", "attribute", "mask", "region_map", "suggest_labels"]


# -- models to forge ---------------------------------------------------------------------------


def models():
    """Yield (name, fitted estimator) for each class in the table, in each form of its state."""
    for name, _ in all_estimators():
        yield name, fitted(name)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(Path(folder) / "encoder.onnx", "encoder.weights")
        yield "featurizer-onnx", skfair.FrozenEncoderFeaturizer(path).fit(X)
    normalize = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    yield "featurizer-normalize", fitted("FrozenEncoderFeaturizer", preprocess=normalize)[0]
    digits = skfair.FrozenEncoderFeaturizer(load_digits_encoder())
    yield "featurizer-digits", digits.fit(np.zeros((2, 3, 32, 32), dtype=np.uint8))
    for loss in ("cross_entropy", "loss_weighted"):
        yield f"margin-{loss}", fitted("ClusterMarginClassifier", loss=loss)[0]
    yield "margin-input", fitted("ClusterMarginClassifier", cluster_on="input", n_clusters=3)[0]
    yield "adjusted-mlp", fitted("LogitAdjustedClassifier", head="mlp")[0]
    margin = fitted("ClusterMarginClassifier")[0]
    yield "debiaser-of-ours", fitted("ThresholdDebiaser", estimator=margin, output="auto")[0]
    frozen = FrozenEstimator(margin)
    yield "debiaser-frozen", fitted("RandomPerturbationDebiaser", estimator=frozen)[0]
    two = fitted("PatchAttributionMasker", combine_attributes=False, region_classifier="resnet18")[
        0
    ]
    two.fit(IMAGES, sensitive_features={"a": Y, "b": np.array(["no", "yes"])[Y]})
    yield "masker-two", two
    table = X.astype(np.float64)
    yield "StandardScaler", StandardScaler().fit(table)
    yield "StandardScaler-centred", StandardScaler(with_std=False).fit(table)
    yield "MinMaxScaler", MinMaxScaler(clip=True).fit(table)
    yield "PCA", PCA(2, whiten=True).fit(table)
    yield "LogisticRegression", LogisticRegression().fit(table, Y)
    yield "LogisticRegression-three", LogisticRegression().fit(table, np.arange(len(X)) % 3)
    inner = make_pipeline(StandardScaler(), PCA(3))
    yield "pipeline", make_pipeline(inner, fitted("ClusterMarginClassifier")[0]).fit(table, Y)
    yield (
        "frozen",
        FrozenEstimator(make_pipeline(MinMaxScaler(), LogisticRegression()).fit(table, Y)),
    )


def write_models(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator in models():
            skfair.save(estimator, Path(folder) / name, training_rows=True)


# -- the grammar -------------------------------------------------------------------------------

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "<U3", "O", "c8"]
TORCH_DTYPES = [torch.float16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16]
TORCH_DTYPES += [torch.int32, torch.int64, torch.bool, torch.bfloat16]
CLASSES = [*sklearn_classes(), *(f"skfair.{name}" for name, _ in all_estimators())]
CLASSES += ["sklearn.dummy.DummyClassifier", "sklearn.tree.DecisionTreeClassifier", "os.system"]
NAMES = ["__array_interface__", "__array__", "__class__", "__dict__", "__len__", "__sklearn_tags__"]
NAMES += ["predict", "n_jobs", "memory", "_repr_html_", "x_", "", "a" * 300, "\x1b[2J", "_validate"]
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, 1e-320]
NUMBERS += [1e308, -1e308, -0.0, 1.0, 1e30, 1e-30]
TEXTS = ["", "auto", "a", "a" * 5000, "/etc/passwd", "\x1b[2J\r", "\ud800", "cuda:7", "meta", "é\0"]
TEXTS += ["margin", "adaptive", "input", "passthrough", "mean", "resnet18", "dense", "specific"]


def pick(rng, values):
    return values[rng.integers(len(values))]


def array(rng):
    """Return an array in JSON, mostly valid and sometimes not."""
    shape = [int(n) for n in rng.integers(0, 5, size=rng.integers(0, 4))]
    if rng.random() < 0.1:
        shape = pick(rng, [[0, 2**62], [10**12], [-1], [1] * 40, ["a"], [2.5], [99] * 1000])
    n_items = int(np.prod(shape)) if all(type(n) is int for n in shape) and len(shape) < 5 else 3
    n_items = min(abs(n_items), 200) + int(rng.random() < 0.1)
    items = [pick(rng, NUMBERS) for _ in range(n_items)]
    dtype = pick(rng, DTYPES)
    if dtype == "<U3":
        items = [pick(rng, TEXTS)[:3] for _ in items]
    elif dtype == "O":
        items = [pick(rng, [*TEXTS[:4], None, True, 1, {"tuple": [1]}]) for _ in items]
    elif rng.random() < 0.7:
        items = [abs(int(i)) % 2 if dtype[0] in "iub" else float(rng.normal()) for i in items]
    written = {"dtype": dtype, "shape": shape, "items": items}
    if rng.random() < 0.2:
        written["order"] = pick(rng, ["F", "C", "K", "x"])
    return {"array": written}


def value(rng, body, depth=0):
    """Return any value that the format can express, or one that it cannot express."""
    kind = rng.integers(22)
    if kind == 0:
        return pick(rng, [None, True, False])
    if kind <= 2:
        return pick(rng, NUMBERS)
    if kind == 3:
        return pick(rng, TEXTS)
    if kind == 4:
        return {"float": pick(rng, ["nan", "inf", "-inf", "1e5"])}
    if kind <= 8:
        return array(rng)
    if kind == 9:
        return {"scalar": array(rng)}
    if kind in (10, 11) and depth < 3:
        inner = [value(rng, body, depth + 1) for _ in range(rng.integers(4))]
        return inner if kind == 10 else {"tuple": inner}
    if kind == 12 and depth < 3:
        keys = [pick(rng, [*NAMES, 1, 2**61 - 1, None, 0.5]) for _ in range(rng.integers(3))]
        return {"dict": [[key, value(rng, body, depth + 1)] for key in keys]}
    if kind == 13:
        return {"tensor": pick(rng, [*body["_tensors"], "missing"])}
    if kind == 14:
        return {"weights": {pick(rng, NAMES): pick(rng, [*body["_tensors"], "missing"])}}
    if kind == 15:
        # An estimator in a wrong place, or a wrong estimator.
        state = {} if rng.random() < 0.3 else {pick(rng, NAMES): value(rng, body, depth + 1)}
        return {"estimator": {"class": pick(rng, CLASSES), "parameters": {}, "state": state}}
    if kind == 16:
        return {"estimator": copy.deepcopy(body["estimator"])}
    if kind == 17:
        dtype = pick(rng, ["uint8", "float32", "float64", "O", "V8", "datetime64[ns]"])
        return {pick(rng, ["dtype", "torch dtype", "device"]): pick(rng, [dtype, "meta", "cuda:0"])}
    if kind == 18:
        columns = [[pick(rng, ["a", "train_loss", 3]), pick(rng, ["float64", "str"]), array(rng)]]
        rows = pick(rng, [0, 1, 2, 10**9, -1])
        return {
            "DataFrame": {"rows": rows, "index": pick(rng, [None, "epoch"]), "columns": columns}
        }
    if kind == 19:
        return {"Normalize": {"mean": [pick(rng, NUMBERS)], "std": [pick(rng, NUMBERS)]}}
    if kind == 20:
        return {"onnx": {pick(rng, NAMES): pick(rng, [*body["_tensors"], "missing"])}}
    return pick(
        rng, [{"made_by_caller": {"name": "estimator"}}, {"module": {"class": "x"}}, {}, []]
    )


def places(node, found=None):
    """List (container, key) of all values below this one."""
    found = [] if found is None else found
    for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
        found.append((node, key))
        if isinstance(inner, dict | list):
            places(inner, found)
    return found


def change_array(rng, written):
    kind = rng.integers(6)
    items, shape = written.get("items"), written["shape"]
    if kind == 0:
        written["dtype"] = pick(rng, DTYPES)
    elif kind == 1:
        written["shape"] = pick(rng, [shape[::-1], [*shape, 1], shape[1:], [1, *shape], [0], []])
    elif kind == 2 and items:
        items[rng.integers(len(items))] = pick(rng, NUMBERS)
    elif kind == 3 and items:
        rng.shuffle(items)
    elif kind == 4 and items:
        written["items"] = items[: len(items) // 2]
        written["shape"] = [len(written["items"])]
    else:
        written["order"] = pick(rng, ["F", "C", "A", "K"])


def change_tensors(rng, tensors):
    name = pick(rng, list(tensors))
    tensor, kind = tensors[name], rng.integers(8)
    if kind == 0:
        tensors[name] = tensor.to(pick(rng, TORCH_DTYPES))
    elif kind == 1:
        tensors[name] = pick(rng, [tensor.reshape(-1), tensor[None], tensor.flatten()[:0]])
    elif kind == 2 and tensor.ndim:
        tensors[name] = tensor[: len(tensor) // 2].clone()
    elif kind == 3:
        changed = tensor.clone().flatten()
        if len(changed):
            odd = pick(rng, [float("nan"), float("inf"), 1e38, -5.0, 0.0, 300.0, 1e-38])
            with contextlib.suppress(RuntimeError):
                changed[rng.integers(len(changed))] = odd
        tensors[name] = changed.reshape(tensor.shape)
    elif kind == 4:
        other = pick(rng, list(tensors))
        tensors[name], tensors[other] = tensors[other], tensor
    elif kind == 5:
        del tensors[name]
    elif kind == 6:
        tensors[pick(rng, ["extra", "__metadata", "\x1b[2J"])] = torch.zeros(3)
    else:
        tensors[name] = torch.cat([tensor.flatten(), tensor.flatten()])


def mutate(rng, body, tensors):
    """Change a model in one to three places."""
    body = copy.deepcopy(body)
    tensors = dict(tensors)
    body["_tensors"] = list(tensors)
    for _ in range(pick(rng, [1, 1, 1, 2, 3])):
        spots = places(body["estimator"])
        kind = rng.integers(-1, 12)
        if 0 <= kind <= 3:
            container, key = pick(rng, spots)
            container[key] = value(rng, body)
        elif kind <= 6:
            arrays = [c["array"] for c, k in spots if k == "array" and isinstance(c, dict)]
            arrays = [a for a in arrays if isinstance(a, dict) and isinstance(a.get("shape"), list)]
            if arrays:
                change_array(rng, pick(rng, arrays))
        elif kind in (-1, 7) and tensors:
            change_tensors(rng, tensors)
        else:
            states = [c[k] for c, k in spots if k in ("state", "parameters")]
            states = [s for s in [*states, body["estimator"]] if isinstance(s, dict) and s]
            state = pick(rng, states)
            name = pick(rng, list(state))
            if kind == 8:
                del state[name]
            elif kind == 9:
                state[pick(rng, [*NAMES, name, *state])] = pick(
                    rng, [state[name], value(rng, body)]
                )
            elif kind == 10:
                container, key = pick(rng, spots)
                state[name] = copy.deepcopy(container[key])
            else:
                state["class"] = pick(rng, CLASSES)
    del body["_tensors"]
    return body, tensors


# -- results of loading --------------------------------------------------------------------------


class TooSlow(BaseException):
    pass


def _too_slow(signal_number, frame):
    raise TooSlow


def _is_in_words(error):
    """Whether skfair or scikit-learn raised the error on purpose, and not by accident."""
    if not isinstance(error, ValueError | TypeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "raise" in linecache.getline(last.filename, last.lineno)


def _samples(estimator):
    first = estimator
    while hasattr(first, "steps") and isinstance(first.steps, list) and first.steps:
        first = first.steps[0][1]
    shape = getattr(first, "image_shape_", None)
    if shape == (3, 32, 32):
        return np.zeros((4, *shape), dtype=np.uint8)
    return X[:4] if shape is None else IMAGES[:4]


def outcome(path):
    """Load a model and use it. Return a forbidden outcome or None, and the last step."""
    try:
        try:
            estimator = skfair.load(path)
        except ValueError as error:
            if "A model file holds no code" not in str(error):
                raise
            made = parts(path)[0]["made_by_caller"]
            factories = {n: FACTORIES.get(n.rpartition("__")[2], make_network) for n in made}
            estimator = skfair.load(path, factories=factories)
    except InvalidModelError:
        return None, "refused"
    except Exception as error:
        if _is_in_words(error) and "factories" in str(error):
            return None, "refused"
        return f"load: {type(error).__name__}: {error}", ""
    repr(estimator)
    estimator._repr_html_()
    samples = _samples(estimator)
    came = "loaded"
    for method in METHODS:
        try:
            call = getattr(estimator, method, None)
            if call is None:
                continue
            found = call(3) if method == "suggest_labels" else call(samples)
        except Exception as error:
            if not _is_in_words(error):
                return f"{method}: {type(error).__name__}: {error}", ""
            continue
        found = np.asarray(found)
        came = "used"
        if method == "suggest_labels":
            continue
        if len(found) != len(samples):
            return f"{method}: shape {found.shape}", ""
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            return f"{method}: not finite", ""
    return None, came


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def limits(n_bytes):
    """Limit the memory of a case in proportion to its file, and its time."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    signal.signal(signal.SIGPROF, _too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY + 4 * n_bytes, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def attempt(path, n_bytes):
    """Try one case under limits."""
    try:
        with limits(n_bytes), contextlib.redirect_stdout(io.StringIO()):
            return outcome(path)
    except TooSlow:
        return "too slow", ""
    except BaseException as error:
        return f"{type(error).__name__}: {error}", ""


def work(folder, scratch, seed, first, last):
    """Try cases one after another, and print the number of the current case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        names = sorted(path.name for path in Path(folder).iterdir())
        known = {name: parts(Path(folder) / name) for name in names}
        for name in names:  # imports at the first use must not count as memory of a case
            outcome(Path(folder) / name)
        path = Path(scratch)
        for case in range(first, last):
            say("try", case)
            rng = np.random.default_rng([seed, case])
            name = names[case % len(names)]
            try:
                put(path, *mutate(rng, *known[name]))
            except (ValueError, TypeError):  # the file does not exist
                say("done", case, json.dumps([None, "unwritten"]))
                continue
            bad, came = attempt(path, (path / "model.safetensors").stat().st_size)
            say("done", case, json.dumps([bad and f"{name}: {bad}", came]))


def supervise(command, first, last):
    """Try cases in a process. If the process dies, a new one continues with the next case.

    Returns
    -------
    list of (case, problem), and counts of the last step of the cases
    """
    wrong, came, case = [], {}, first
    while case < last:
        numbers = [str(case), str(last)]
        at = None
        with subprocess.Popen([*command, *numbers], stdout=subprocess.PIPE, text=True) as worker:
            for line in worker.stdout:
                word, number, *rest = line.rstrip("\n").split(" ", 2)
                at = int(number)
                if word == "done":
                    bad, far = json.loads(rest[0])
                    came[far] = came.get(far, 0) + 1
                    case = at + 1
                    if bad:
                        wrong.append((at, bad))
        if case < last:
            if at != case:
                raise RuntimeError(f"the process ended with {worker.returncode}, between cases")
            wrong.append((case, f"the process ended with {worker.returncode}"))
            case += 1
    return wrong, came


def run(n_cases, seed=0):
    """Try cases in a separate process. Return the same as :func:`supervise`."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        write_models(folder)
        command = [sys.executable, __file__, "worker", folder, scratch, str(seed)]
        return supervise(command, 0, n_cases)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:4], *map(int, sys.argv[4:]))
    else:
        started = time.monotonic()
        n_cases = int(sys.argv[1]) if len(sys.argv) > 1 else 500
        wrong, came = run(n_cases, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        for case, what in wrong:
            say(case, what[:300])
        say(f"{n_cases} cases, {len(wrong)} wrong, {came}, {time.monotonic() - started:.0f} s")
        sys.exit(bool(wrong))
