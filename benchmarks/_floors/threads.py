"""Small fits with the default number of threads, while other processes use all cores."""

import atexit
import os
import subprocess
import sys
from functools import partial

from benchmarks._floors.measure import Row

_SETUP = """
import time, warnings
import numpy as np, torch
import skfair
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
y, group = rng.integers(2, size=(2, 2000))
X = rng.standard_normal((2000, 64)).astype("float32")
X[:, 0] += y
X[:, 1] += 5 * np.where(rng.random(2000) < 0.95, y, 1 - y)
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
    torch.nn.Linear(64, 1))
"""
_TIMED = "start = time.process_time()\n{}\nprint(time.process_time() - start)"
_DEBIASER = (
    "skfair.{}(network, output='logits', random_state=0).fit(X, y, sensitive_features=group)"
)
_FITS = {
    "``ClusterMarginClassifier``": "skfair.ClusterMarginClassifier(random_state=0).fit(X, y)",
    "``LogitAdjustedClassifier``": "skfair.LogitAdjustedClassifier(random_state=0).fit(X, y)",
    **{
        f"``{name}``": _DEBIASER.format(name)
        for name in (
            "BiasGradientDebiaser",
            "DistillationDebiaser",
            "AdversarialFinetuneDebiaser",
            "RandomPerturbationDebiaser",
            "LayerwiseDebiaser",
            "LinearPostDebiaser",
        )
    },
}


def _seconds(fit, threads):
    """Processor time of a fit in a fresh process, without imports."""
    settings = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    environment = {k: v for k, v in os.environ.items() if k not in settings}
    if threads is not None:
        environment |= dict.fromkeys(settings, str(threads))
    command = [sys.executable, "-c", _SETUP + _TIMED.format(fit)]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(answer.stdout)


def _prepare(fit):
    for _ in range(os.cpu_count() or 1):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        atexit.register(busy.kill)
    return partial(_seconds, fit, None), partial(_seconds, fit, 1)


ROWS = [
    Row(
        f"small fit while all cores are busy, default threads: {name}, 2,000 x 64",
        "the same fit with one thread",
        1.5,
        partial(_prepare, fit),
        repeats=3,
    )
    for name, fit in _FITS.items()
]
