"""Environments of the peers: made from pinned requirements, and run with files as input and output.

Peers and skfair may need other versions of the same packages. Therefore a peer never runs in the
process of the benchmark.
"""

import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np

_HERE = Path(__file__).parent
WORKER = _HERE / "worker.py"
CAPTUM_WORKER = _HERE / "captum_worker.py"
DETOXAI_WORKER = _HERE / "detoxai_worker.py"
REQUIREMENTS = {path.stem: path for path in sorted((_HERE / "requirements").glob("*.txt"))}


def python_of(package, folder):
    """The Python of the environment of a package; made in `folder` unless it is there already."""
    wanted = REQUIREMENTS[package].read_text(encoding="utf-8")
    environment = folder / package
    python, stamp = environment / "bin" / "python", environment / "made-from.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(environment, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS[package]]
        subprocess.run(command, check=True)
        stamp.write_text(wanted, encoding="utf-8")  # last, so that half an environment has none
    return python


def versions_of(package):
    """The pinned version of the package itself."""
    lines = REQUIREMENTS[package].read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return f"{package} {pins[package]}"


def run(python, method, arrays, worker=WORKER):
    """Run a method of a worker on arrays; return its arrays.

    Raises
    ------
    RuntimeError
        What the peer said as its last line, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "given.npz", Path(folder) / "answer.npz"
        np.savez(given, **arrays)
        done = subprocess.run(
            [python, worker, method, given, answer], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{method}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
        with np.load(answer) as found:
            return {name: found[name] for name in found.files}
