"""What skfair costs on the GPU of this machine, against bare loops on the same device.

    bash benchmarks/gpu.sh --wheels FOLDER --output gpu.md    # installs what is missing, then this
    python -m benchmarks gpu --output gpu.md                  # where everything is installed
    python -m benchmarks gpu --small --device cpu             # a rehearsal, without a GPU

Prints one Markdown table. Rows are independent: a row that fails says why, the others go on, and
the exit status is 1. A row for which the budget leaves no time is skipped, and says so.
"""

import argparse
import itertools
import math
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import sklearn
import skorch
import torch
from torch import nn
from torch.nn import functional as F

import skfair
from benchmarks import _tables
from benchmarks.featurizer import random_images, resnet18
from skfair import intraprocessing
from skfair.discovery import all_estimators
from skfair.utils import FairnessWarning, resolve_device, seeded

ROOT = Path(__file__).resolve().parent.parent
N_REPEATS = 5
ROW_SECONDS = 15  # after this time no further pair begins
# Allowed differences between predictions on the CPU and on the GPU. Rows run in float64, images in
# float32, where cuDNN multiplies with ten bits (TF32) by default.
ROWS_TOLERANCE, IMAGES_TOLERANCE = 1e-5, 2e-2
HALF_TOLERANCE = 5e-2  # bfloat16 has eight bits
HEADER = "what", "against", "ratio", "seconds (bare)", "peak MiB (bare)", "notes"
DEBIASERS = [
    name
    for name, kind in all_estimators()
    if issubclass(kind, intraprocessing.IntraprocessingDebiaser)
]


class OutOfTime(BaseException):
    """A row took all the time that was left; no ``except Exception`` may hide it."""


@dataclass
class Result:
    """The result of a row: a ratio, and the texts of the other columns."""

    ratio: float
    against: str
    seconds: tuple[float, float] | None = None
    memory: tuple[float, float] | None = None
    notes: str = ""


@dataclass
class Machine:
    """The device that everything runs on, and the sizes to use there."""

    device: torch.device
    small: bool = False
    n_repeats: int = N_REPEATS

    def pick(self, large, small):
        return small if self.small else large

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def seconds(self, function):
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start

    def peak(self, function):
        """Peak of what a call allocates on a CUDA device, in MiB."""
        self.wait()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        self.wait()
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def compare(self, ours, bare, against, less=None):
        """Time two functions in turns; the ratio is the median of the ratios of the pairs.

        The time of `less`, if given, is subtracted from that of `ours`.
        """
        start = time.perf_counter()
        functions = [ours, bare] if less is None else [ours, bare, less]
        for function in functions:  # loads kernels, fills caches
            function()
        times = []
        for repeat in range(self.n_repeats):
            if times and time.perf_counter() - start > ROW_SECONDS:
                break
            order = functions if repeat % 2 else functions[::-1]
            taken = {function: self.seconds(function) for function in order}
            times.append((taken[ours] - taken.get(less, 0.0), taken[bare]))
        times = np.array(times)
        memory = None
        if self.device.type == "cuda":
            memory = self.peak(ours), self.peak(bare)
        return Result(
            float(np.median(times[:, 0] / times[:, 1])),
            against,
            tuple(np.median(times, axis=0)),
            memory,
        )


# -- the featurizer ----------------------------------------------------------------------------


def featurizer(machine, amp):
    n, size, batch_size = machine.pick((2048, 224, 256), (48, 16, 16))
    X, device = random_images(n, size), machine.device
    encoder = resnet18().eval().to(device)
    ours = skfair.FrozenEncoderFeaturizer(encoder, batch_size=batch_size, device=device, amp=amp)
    ours.fit(X)

    def bare():
        features = []
        with torch.inference_mode(), torch.autocast(device.type, enabled=amp):
            for start in range(0, n, batch_size):
                batch = torch.from_numpy(X[start : start + batch_size]).to(device)
                features.append(encoder(batch.float().div_(255)).float().cpu().numpy())
        return np.concatenate(features)

    result = machine.compare(lambda: ours.transform(X), bare, "loop over the same batches")
    result.notes = f"{n} x 3 x {size} x {size}, {n / result.seconds[0]:,.0f} images/s"
    return result


# -- the margin classifier ---------------------------------------------------------------------


def margin_epochs(machine, loss):
    n, d, batch_size, n_epochs = machine.pick((50_000, 512, 256, 4), (300, 16, 30, 8))
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    X = rng.standard_normal((n, d), dtype=np.float32)
    X[:, 0] += 2 * y

    def fit(max_epochs):
        skfair.ClusterMarginClassifier(
            loss=loss, max_epochs=max_epochs, amplifier_max_epochs=1, batch_size=batch_size,
            lr=1e-3, device=machine.device, random_state=0,
        ).fit(X, y)  # fmt: skip

    def bare():
        tensors = torch.from_numpy(X).to(machine.device), torch.from_numpy(y).to(machine.device)
        net = mlp(d, 128, 2).to(machine.device)
        train(net, *tensors, F.cross_entropy, batch_size, n_epochs, clip=0.25)

    result = machine.compare(
        lambda: fit(n_epochs + 1), bare, "epochs of a bare loop", less=lambda: fit(1)
    )
    result.notes = f"{n} x {d}, batches of {batch_size}"
    return result


def mlp(*widths):
    """Linear layers with ReLU in between, with the same weights each time."""
    with seeded(0):
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def train(net, X, y, loss, batch_size, n_epochs, clip=math.inf):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).to(X.device).split(batch_size):
            optimizer.zero_grad()
            loss(net(X[rows]), y[rows]).backward()
            if clip < math.inf:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()


def adjusted_head(machine):
    """The additional time of a head with a hidden layer over a linear one; all labels are known."""
    n, d, n_epochs = machine.pick((50_000, 256, 6), (400, 16, 6))
    X, y, group = biased_rows(n, d)

    def fit(head):
        skfair.LogitAdjustedClassifier(head=head, device=machine.device, random_state=0).fit(
            X, y, sensitive_features=group
        )

    def bare():
        tensors = torch.from_numpy(X).to(machine.device), torch.from_numpy(y).to(machine.device)
        train(mlp(d, 128, 2).to(machine.device), *tensors, F.cross_entropy, 64, n_epochs, clip=0.25)

    result = machine.compare(
        lambda: fit("mlp"), bare, "epochs of a bare loop", less=lambda: fit("linear")
    )
    result.notes = f"{n} x {d}, batches of 64"
    return result


# -- the debiasers -----------------------------------------------------------------------------


def biased_rows(n, d):
    """Rows in which a network of :func:`biased_network` prefers one group."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, n))
    X = rng.standard_normal((n, d), dtype=np.float32)
    X[:, 0] += y
    X[:, 1] = group
    return X, y, group


def biased_network(d, width):
    network = mlp(d, width, width, 1)
    X, y, group = biased_rows(2000, d)
    X, preferred = torch.from_numpy(X), torch.from_numpy((y + group > 0).astype(np.float32))
    with seeded(0):
        train(network, X, preferred, row_loss, 100, 3)
    return network.eval()


def row_loss(logit, target):
    return F.binary_cross_entropy_with_logits(logit[:, 0], target)


def debiaser_on(machine, name, network):
    cls = getattr(intraprocessing, name)
    known = cls(None).get_params(deep=False)
    wanted = {"device": machine.device, "random_state": 0, "output": "logits"}
    if machine.small:
        wanted |= {"max_epochs": 2, "n_trials": 16, "n_calls": 4}
    return cls(network, **{key: value for key, value in wanted.items() if key in known})


def debiaser(machine, name):
    n, d, width = machine.pick((20_000, 64, 256), (400, 8, 16))
    X, y, group = biased_rows(n, d)
    network, device = biased_network(d, width), machine.device
    parameters = debiaser_on(machine, name, network).get_params(deep=False)
    n_epochs, batch_size = parameters.get("max_epochs", 0), parameters.get("batch_size", 1)
    n_tune = round(n * (1 - (parameters.get("validation_fraction") or 0)))
    layers = parameters.get("n_layers", 1)
    n_passes = n_epochs + 1 + parameters.get("n_trials", layers * parameters.get("n_calls", 0))

    def bare():
        copied = mlp(d, width, width, 1).to(device)
        rows = torch.from_numpy(X).to(device)
        target = torch.from_numpy(y.astype(np.float32)).to(device)
        train(copied, rows[:n_tune], target[:n_tune], row_loss, batch_size, n_epochs)
        with torch.no_grad():
            for _ in range(n_passes):
                torch.cat([copied(part).cpu() for part in rows.split(8192)]).numpy()

    def ours():
        debiaser_on(machine, name, network).fit(X, y, sensitive_features=group)

    against = f"{n_passes} bare passes over the {n} rows"
    if n_epochs:
        against = f"{n_epochs} bare epochs on {n_tune} rows and {against}"
    return machine.compare(ours, bare, against)


# -- patch attribution -------------------------------------------------------------------------


def masker_and_images(machine, n, size, **parameters):
    X = random_images(n, size)
    stamped = np.arange(n) % 2 == 0
    X[stamped, :, : size // 4, : size // 4] //= 4
    patch_size = size // 4
    masker = skfair.PatchAttributionMasker(
        patch_size,
        check_leakage=False,
        device=machine.device,
        random_state=0,
        **{"max_epochs": 2, **parameters},
    )
    return masker, X, stamped


def attribution_maps(machine):
    n, size, batch_size = machine.pick((1024, 128, 64), (40, 16, 8))
    masker, X, stamped = masker_and_images(machine, n, size, attribution_batch_size=batch_size)
    masker.fit(X, sensitive_features=stamped)
    classifier = masker.module_

    def bare():
        maps = []
        with torch.inference_mode():
            for start in range(0, n, batch_size):
                batch = torch.from_numpy(X[start : start + batch_size]).to(machine.device)
                batch = (batch.float() - classifier.mean) / classifier.std
                batch = batch.contiguous(memory_format=torch.channels_last)
                logits = classifier.network.regions(batch, masker.stride_)
                maps.append(logits.softmax(1).cpu().numpy())
        return np.concatenate(maps)

    result = machine.compare(
        lambda: masker.region_proba(X), bare, "loop over the same network and batches"
    )
    n_positions = masker.region_accuracy_.size
    result.notes = f"{n} x 3 x {size} x {size}, {n_positions} positions of {masker.patch_size_}"
    return result


def attribution_epochs(machine):
    n, size, n_epochs, batch_size = machine.pick((4096, 64, 3, 64), (80, 8, 2, 8))
    masker, X, stamped = masker_and_images(machine, n, size, batch_size=batch_size)

    def fit(max_epochs):
        masker.set_params(max_epochs=max_epochs).fit(X, sensitive_features=stamped)

    fit(1)
    classifier = masker.module_

    def bare():
        images = torch.from_numpy(X).to(machine.device)
        codes = torch.from_numpy(stamped.astype(np.int64)).to(machine.device)
        classifier.train()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-4, fused=True)
        for _ in range(n_epochs):
            for rows in torch.randperm(n).to(machine.device).split(batch_size):
                optimizer.zero_grad()
                logits = classifier(images[rows]).flatten(2)
                F.cross_entropy(logits, codes[rows, None].expand(-1, logits.shape[2])).backward()
                optimizer.step()

    result = machine.compare(
        lambda: fit(n_epochs + 1), bare, "epochs of a bare loop", less=lambda: fit(1)
    )
    result.notes = f"{n} x 3 x {size} x {size}, batches of {batch_size}"
    return result


# -- networks of users -------------------------------------------------------------------------


class Words(nn.Module):
    """A network that takes ids and a mask by name, and answers as those of transformers do."""

    def __init__(self):
        super().__init__()
        with seeded(0):
            self.words, self.head = nn.Embedding(600, 8), nn.Linear(8, 2)

    def forward(self, ids, mask):
        known = self.words(ids) * mask[:, :, None]
        return {"logits": self.head(known.sum(1) / mask.sum(1, keepdim=True))}


def half_precision():
    return biased_network(8, 16).bfloat16()


def frozen_body():
    network = biased_network(8, 16)
    network[:-1].requires_grad_(False)
    return network


NETWORKS = {
    "bfloat16": (half_precision, HALF_TOLERANCE),
    "a dict of ids": (Words, ROWS_TOLERANCE),
    "a frozen body": (frozen_body, ROWS_TOLERANCE),
}


def debiased(machine, name):
    """A network fine-tuned on the device; its rows."""
    X, y, group = biased_rows(400, 8)
    if name == "a dict of ids":  # the first id tells the label, the second the group
        ids = np.column_stack([y, group + 2, np.arange(400) % 600])
        X = {"ids": ids, "mask": np.ones(ids.shape, dtype=np.float32)}
    network = NETWORKS[name][0]().to(machine.device)
    debiaser = debiaser_on(machine, "DistillationDebiaser", network)
    return debiaser.fit(X, y, sensitive_features=group), X


# -- promises ----------------------------------------------------------------------------------


def made(machine, name):
    """A small estimator fitted on the device; its method; its factories; the tolerance."""
    if name in NETWORKS:
        estimator, X = debiased(machine, name)
        return estimator, lambda e: e.predict_proba(X), *NETWORKS[name]
    if name in DEBIASERS:
        X, y, group = biased_rows(400, 8)
        estimator = debiaser_on(machine, name, biased_network(8, 16))
        estimator.fit(X, y, sensitive_features=group)
        return estimator, lambda e: e.predict_proba(X), lambda: mlp(8, 16, 16, 1), ROWS_TOLERANCE
    if name in ("ClusterMarginClassifier", "LogitAdjustedClassifier"):
        X, y, _ = biased_rows(400, 8)
        estimator = getattr(skfair, name)(device=machine.device, random_state=0)
        if name == "LogitAdjustedClassifier":
            estimator.set_params(head="mlp")  # a linear one has no device
        return estimator.fit(X, y), lambda e: e.predict_proba(X), None, ROWS_TOLERANCE
    if name == "PatchAttributionMasker":
        masker, X, stamped = masker_and_images(machine, 60, 16)
        masker.fit(X, sensitive_features=stamped)
        return masker, lambda e: e.region_proba(X), None, IMAGES_TOLERANCE
    encoder = resnet18().eval()
    X = random_images(8, 32)
    estimator = skfair.FrozenEncoderFeaturizer(encoder, device=machine.device).fit(X)
    return estimator, lambda e: e.transform(X), resnet18, IMAGES_TOLERANCE


def moved(machine, name):
    """Fit on each device, save, load on the other; the larger difference of the predictions."""
    devices = machine.device, torch.device("cpu")
    found = []
    for here, there in (devices, devices[::-1]):
        estimator, ask, factory, tolerance = made(Machine(here, small=True), name)
        expected = ask(estimator)
        with tempfile.TemporaryDirectory() as folder:
            skfair.save(estimator, f"{folder}/model")
            loaded = skfair.load(f"{folder}/model", **({"factories": factory} if factory else {}))
        found.append(np.abs(ask(loaded.set_params(device=there)) - expected).max())
        found[-1] /= max(1.0, np.abs(expected).max())
    if max(found) > tolerance:
        raise AssertionError(f"predictions differ by {max(found):.2g}, more than {tolerance:g}")
    notes = f"to the CPU {found[0]:.1g}, from it {found[1]:.1g}"
    return Result(max(found) / tolerance, f"difference allowed, {tolerance:g}", notes=notes)


def repeated(machine, name):
    """Fit twice with one seed; the share of the predictions that are the same to the bit."""
    small = Machine(machine.device, small=True)
    one, two = (ask(estimator) for estimator, ask, *_ in (made(small, name) for _ in range(2)))
    share, furthest = float((one == two).mean()), np.abs(one - two).max()
    # Not promised for trained convolutions: cuDNN adds up in any order.
    if share < 1 and name != "PatchAttributionMasker":
        raise AssertionError(
            f"of the predictions {1 - share:.1%} differ, by {furthest:.2g} at most"
        )
    return Result(
        share,
        "predictions of a second fit with the same seed",
        notes=f"largest difference {furthest:.1g}",
    )


def device_tests(machine, left):
    """Run the tests for every device of this machine."""
    # Warnings of a driver or of another version are not skfair's.
    options = ["-q", "-p", "no:cacheprovider", "-W", "default", "-m", "device"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/test_devices.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=max(left, 1),
    )  # fmt: skip
    last = run.stdout.strip().splitlines()[-1:] or run.stderr.strip().splitlines()[-1:]
    if run.returncode:
        print(run.stdout, run.stderr, sep="\n", file=sys.stderr)
        raise AssertionError(f"pytest: {''.join(last).strip('= ')}")
    return Result(1.0, "all of them pass", notes="".join(last).strip("= "))


# -- the table ---------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows as they come, failures included."""

    machine: Machine
    budget: float
    start: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    n_failed: int = 0

    def left(self):
        return self.budget - (time.monotonic() - self.start)

    def add(self, what: str, function: Callable[..., Result], *arguments, needs: float):
        """Add the result of `function`, unless it `needs` more seconds than are left."""
        if self.left() < needs:
            note = f"skipped: {max(self.left(), 0):.0f} s left of {self.budget:g}"
            self.rows.append((what, "", "", "", "", note))
            return
        print(f"{what} ...", file=sys.stderr, flush=True)
        try:
            with at_most(self.left()), warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                result = function(self.machine, *arguments)
            if not math.isfinite(result.ratio):
                raise ValueError(f"the ratio is {result.ratio}")
        except (Exception, OutOfTime) as error:
            self.n_failed += 1
            traceback.print_exc()
            self.rows.append((what, "", "failed", "", "", one_line(error)))
            return
        finally:
            if self.machine.device.type == "cuda":
                torch.cuda.empty_cache()  # the next row may need the memory that this row keeps
        self.rows.append(
            (
                what,
                result.against,
                f"{result.ratio:.3g}",
                pair(result.seconds, "{:.3g}"),
                pair(result.memory, "{:.0f}"),
                result.notes,
            )
        )

    def markdown(self):
        lines = [HEADER, ("---",) * len(HEADER), *self.rows]
        table = "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)
        took = time.monotonic() - self.start
        return (
            f"{described(self.machine)}\n\n{table}\n\n{len(self.rows)} rows, {self.n_failed} "
            f"failed, in {took:.0f} s. Ratios of time are ours to bare: below one is faster. "
            f"Medians of {self.machine.n_repeats} pairs, of fewer in rows that take more than "
            f"{ROW_SECONDS} s, after a warm-up; the device is synchronised before and after.\n"
        )


@contextmanager
def at_most(seconds):
    """Stop the block after so many seconds, if the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise OutOfTime(f"broken off after {seconds:.0f} s, the end of the budget")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def pair(numbers, form):
    return "" if numbers is None else f"{form.format(numbers[0])} ({form.format(numbers[1])})"


def described(machine):
    """Which machine, and which versions."""
    device = machine.device
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = (
            f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB), CUDA "
            f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    size = "small sizes: ratios say nothing" if machine.small else "full sizes"
    return (
        f"skfair {skfair.__version__} on {device}: {name}; {torch.get_num_threads()} threads, "
        f"{size}. Python {platform.python_version()}, torch {torch.__version__}, NumPy "
        f"{np.__version__}, scikit-learn {sklearn.__version__}, skorch {skorch.__version__}, "
        f"safetensors {safetensors.__version__}."
    )


def fill(table, *, tests):
    """All rows, the most important first; `needs` are generous estimates for a card of today."""
    few = 0.2 if table.machine.small else 1.0
    if tests:
        table.add("device tests", device_tests, min(90, table.left()), needs=30 * few)
    for amp in (False, True):
        name = f"FrozenEncoderFeaturizer, amp={amp}"
        table.add(name, featurizer, amp, needs=15 * few)
    for loss in ("cross_entropy", "margin"):
        name = f"ClusterMarginClassifier, an epoch, loss={loss!r}"
        table.add(name, margin_epochs, loss, needs=20 * few)
    table.add("LogitAdjustedClassifier, head='mlp'", adjusted_head, needs=20 * few)
    for name in DEBIASERS:
        table.add(f"{name}.fit", debiaser, name, needs=20 * few)
    table.add("PatchAttributionMasker, maps", attribution_maps, needs=15 * few)
    table.add("PatchAttributionMasker, an epoch", attribution_epochs, needs=15 * few)
    estimators = [name for name in skfair.__all__ if name[0].isupper()]
    estimators += [f"DistillationDebiaser, {name}" for name in NETWORKS]
    for what in estimators:
        name = what.removeprefix("DistillationDebiaser, ")
        table.add(f"{what}, moved between devices", moved, name, needs=5 * few)
    for what in estimators:
        name = what.removeprefix("DistillationDebiaser, ")
        table.add(f"{what}, same seed, same bits", repeated, name, needs=5 * few)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="to see that all of it runs")
    parser.add_argument("--skip-tests", action="store_true", help="leave the device tests out")
    parser.add_argument("--budget-seconds", type=float, default=300)
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the table goes too")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="store the table there")
    arguments = parser.parse_args(arguments)
    device = resolve_device(arguments.device)
    machine = Machine(device, arguments.small, n_repeats=2 if arguments.small else N_REPEATS)
    table = Table(machine, arguments.budget_seconds)
    try:
        fill(table, tests=not arguments.skip_tests)
    finally:  # after Ctrl-C too
        print(table.markdown())
        if arguments.output is not None:
            arguments.output.write_text(table.markdown())
        if arguments.write is not None:
            stored = _tables.Table(described(machine), HEADER, table.rows)
            _tables.store(arguments.write, "gpu", stored, seeds="fixed in the rows")
    return int(table.n_failed > 0)
