"""What holds for the package as a whole: the direction of imports, and no side effects."""

import ast
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import skfair

ROOT = Path(skfair.__file__).parent
METHODS = {"adjustment", "attribution", "featurize", "intraprocessing", "margin"}
# What each part may import; a part not named here has not been thought about.
ALLOWED = {
    "utils": set(),
    "base": {"utils"},
    "_images": {"utils"},
    "datasets": {"utils"},
    "metrics": {"utils"},
    "model_selection": {"metrics", "utils"},
    **{method: {"_images", "base", "metrics", "utils"} for method in METHODS},
    # The top floor: what knows the estimators.
    "discovery": METHODS,
    "persistence": {"base", "discovery", "featurize", "utils"},
    "estimator_checks": {"base", "discovery", "persistence", "utils"},
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import; the project's are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if match := re.match(r"skfair\.(\w+)", name):
                yield match[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    parts = path.relative_to(ROOT).parts
    part = parts[0]
    assert set(imported_parts(path)) <= ALLOWED[part] | {part}


def test_the_import_test_sees_imports(tmp_path):
    offender = tmp_path / "offender.py"
    offender.write_text("import skfair.margin\ndef f():\n    from skfair import metrics\n")
    assert set(imported_parts(offender)) == {"margin", "metrics"}


def test_importing_changes_nothing_global():
    # In a process of its own: this one has long imported everything.
    code = """
import random, warnings, numpy as np, torch, sklearn
def state():
    return (warnings.filters[:], sklearn.get_config(), random.getstate(),
            repr(np.random.get_state()), torch.get_rng_state().tolist(), torch.get_num_threads(),
            torch.get_default_dtype(), torch.is_grad_enabled())
import sklearn.pipeline, fairlearn.metrics, skorch, pandas, scipy.stats, tqdm.auto
before = state()
import skfair, skfair.adjustment, skfair.attribution, skfair.datasets, skfair.featurize
import skfair.intraprocessing, skfair.margin, skfair.metrics, skfair.model_selection, skfair.utils
assert state() == before
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_every_public_name_is_there_and_documented():
    assert skfair.__all__ == sorted(skfair.__all__)
    for name in skfair.__all__:
        assert getattr(skfair, name).__doc__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", skfair.__version__)
    assert files("skfair").joinpath("py.typed").is_file()
