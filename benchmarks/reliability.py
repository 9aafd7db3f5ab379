"""What is lost when processes are killed, disks are full, files are damaged or data are odd.

Run: python -m benchmarks reliability [--quick] [--write docs/results]

Every fault is injected many times, at random moments and places with fixed seeds. These count as
lost: a result that differs by a bit from an undisturbed one, a good file that becomes bad, an error
other than the promised one, and a result where an error is due. The exit status is 1 if anything
was lost.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import _faults
from benchmarks._tables import Table, publish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "fuzzing"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "persistence"))

import calls
import forged
import odd_data

# Kinds of losses, by the beginnings of their messages.
_KINDS = {
    "Odd data: an error that is not a ValueError or TypeError in words": (
        "bare",
        "error of",
        "names no argument",
    ),
    "Odd data: an error after training had begun": ("error after",),
    "Odd data: no end": ("hangs",),
    "Odd data: NaN or infinity in results": ("not finite",),
    "Odd data: global state, or the data, changed": ("global state", "the data were"),
    "Odd data: any other broken promise": ("",),
}


def _draw(rng, good, changes):
    """Change good data up to two times."""
    for name in rng.choice(sorted(changes), rng.integers(3)):
        try:
            with np.errstate(all="ignore"):
                good = changes[name](rng, good)
        except Exception:  # some data cannot be changed twice
            continue
    return good


def _call(rng, name):
    """Call one estimator with odd data."""
    which = rng.integers(4)
    groups = _draw(rng, calls.GROUPS, odd_data.LABELS) if which == 2 else calls.GROUPS
    if name in calls.OF_IMAGES:
        rows = bool(rng.integers(2))
        good = calls.IMAGES.reshape(calls.N, -1) if rows else calls.IMAGES
        X = _draw(rng, good, odd_data.DATA)
        return calls.transform_images(name, X, groups, fit=bool(rng.integers(2)), rows=rows)
    X = _draw(rng, calls.ROWS, odd_data.DATA) if which in (0, 3) else calls.ROWS
    if which == 3:
        return calls.predict(name, X)
    y = _draw(rng, calls.Y, odd_data.LABELS) if which == 1 else calls.Y
    weight = None
    if name == "ClusterMarginClassifier" and rng.integers(3) == 0:
        weight = _draw(rng, calls.WEIGHT, odd_data.WEIGHTS)
    return calls.fit_and_predict(name, X, y, groups, weight)


def odd_calls(n_times):
    """Fit, predict and transform with odd data; returns the losses, by kind."""
    lost = {kind: [] for kind in _KINDS}
    names = sorted(calls.ESTIMATORS)
    for i in range(n_times):
        name = names[i % len(names)]
        try:
            _call(np.random.default_rng(i), name)
        except Exception as error:
            kind = next(kind for kind, begins in _KINDS.items() if str(error).startswith(begins))
            lost[kind].append(f"{name}, seed {i}: {type(error).__name__}: {str(error)[-300:]}")
    for kind, lines in lost.items():
        yield _faults.Tried(kind, n_times, lines)


def forged_models(n_times):
    """Load models in which anything was changed and the digest was made valid again."""
    wrong, _ = forged.run(n_times)
    return _faults.Tried("Saved model forged", n_times, [f"case {c}: {what}" for c, what in wrong])


def faults(quick):
    """All rows of the table."""
    few = 10 if quick else 50
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        yield _faults.kill_while_encoding(folder, few)
        yield _faults.kill_while_searching(folder, few)
        yield _faults.kill_while_saving(folder, few)
        yield _faults.full_disk_while_encoding(folder, few)
        yield _faults.full_disk_while_saving(folder, few)
        yield _faults.bad_stores(folder)
        yield _faults.crowds(folder, few)
        yield _faults.flipped_bytes(folder, 300 if quick else None)
        yield _faults.truncated_models(folder, 100 if quick else None)
        yield _faults.mixed_models(folder, few)
        yield _faults.links(folder, 20 if quick else 90)
    yield forged_models(500 if quick else 20_000)
    yield from odd_calls(450 if quick else 9000)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    tried = []
    for row in faults(args.quick):
        tried.append(row)
        print(f"{row.what}: {row.n_times:,} times, {len(row.lost)} lost", flush=True)
        for line in row.lost[:20]:
            print(f"    {line}")
    header = ["what was done", "times", "lost"]
    rows = [[row.what, f"{row.n_times:,}", f"{len(row.lost):,}"] for row in tried]
    title = "Reliability: faults on purpose, and what was lost"
    publish(args.write, "reliability", Table(title, header, rows), seeds="0 on, one for each time")
    return int(any(row.lost for row in tried))
