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
    "_version": set(),
    "utils": set(),
    "base": {"utils"},
    "_images": {"utils"},
    "datasets": {"utils"},
    "metrics": {"utils"},
    "model_selection": {"metrics", "utils"},
    "monitoring": {"metrics", "utils"},
    **{method: {"_images", "_version", "base", "metrics", "utils"} for method in METHODS},
    # The top floor: what knows the estimators.
    "discovery": set(),
    "persistence": {"base", "discovery", "featurize", "utils"},
    "estimator_checks": {"base", "discovery", "persistence", "utils"},
    "_command_line": {"_version", "metrics", "utils"},
    "__main__": {"_command_line"},
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


# What imports by a name that is computed: optional packages of others, and estimators by name.
BY_STRING = {"utils/_imports.py", "discovery.py", "persistence/_schema.py"}


def imported_names(path):
    """Every name that a module imports, under ``TYPE_CHECKING`` and in functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import; the project's are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_parts(path):
    """The parts of skfair that a module imports; "skfair" for the package itself."""
    for name in imported_names(path):
        if name == "skfair":
            yield name
        elif match := re.match(r"skfair\.(\w+)", name):
            yield match[1]


def imports_by_string(path):
    """Lines in which a module imports what a string names."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "attr", getattr(node, "id", None))
        if name in {"import_module", "__import__"}:
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = path.relative_to(ROOT).with_suffix("").parts[0]
    assert set(imported_parts(path)) <= ALLOWED[part] | {part}
    if path.relative_to(ROOT).as_posix() not in BY_STRING:
        assert list(imports_by_string(path)) == []


def test_no_modules_import_each_other():
    names = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path

    def imports(name):
        for imported in imported_names(names[name]):
            owner = imported if imported in names else imported.rpartition(".")[0]
            if owner in names and owner != name:
                yield owner

    graph = {name: set(imports(name)) for name in names}
    while free := [name for name, needs in graph.items() if not needs & graph.keys()]:
        for name in free:
            del graph[name]
    assert graph == {}


def test_the_import_test_sees_imports(tmp_path):
    offender = tmp_path / "offender.py"
    offender.write_text(
        "import skfair.margin\nimport skfair\ndef f():\n    from skfair import metrics\n"
        "    importlib.import_module(name)\n    __import__(name)\n"
    )
    assert set(imported_parts(offender)) == {"margin", "metrics", "skfair"}
    assert list(imports_by_string(offender)) == [5, 6]


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
