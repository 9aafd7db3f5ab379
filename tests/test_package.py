"""What holds for the package as a whole: the direction of imports, and no side effects."""

import ast
import importlib
import pickle
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import skfair
import skfair.utils
from skfair.metrics import fairness_report, make_fairness_scorer
from skfair.model_selection import GroupStratifiedKFold, make_constrained_scorer

ROOT = Path(skfair.__file__).parent
METHODS = {"adjustment", "attribution", "featurize", "intraprocessing", "margin"}
# What each part may import; a part not named here has not been thought about.
ALLOWED = {
    "_version": set(),
    "_lazy": set(),
    "utils": {"_lazy"},
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


# What imports by a name that is computed: members of a package at their first use, optional
# packages of others, and estimators by name.
BY_STRING = {"_lazy.py", "utils/_imports.py", "discovery.py", "persistence/_schema.py"}


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


def in_new_process(code, *arguments):
    """Run code in a process that has imported nothing yet."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# Ends a program that must not have loaded torch, or what only comes with torch or with a figure.
NOT_LOADED = """
import sys
loaded = {"torch", "skorch", "safetensors", "matplotlib"} & sys.modules.keys()
assert not loaded, loaded
"""


def test_metrics_load_no_torch():
    code = """
from skfair.metrics import *
from skfair.model_selection import *
from skfair.monitoring import *
import skfair, skfair.utils
assert fairness_report and pareto_front and FairnessMonitor
assert skfair.utils.draw_seed and "load" in dir(skfair) and not hasattr(skfair, "no_such_name")
"""
    in_new_process(code + NOT_LOADED)


def test_scorers_and_reports_load_no_torch(tmp_path):
    # What a joblib worker does, to the same numbers as here, where torch is loaded.
    rng = np.random.default_rng(0)
    X, y, group = rng.normal(size=(90, 2)), np.arange(90) % 2, np.repeat(["a", "b", "c"], 30)
    classifier = LogisticRegression().fit(X, y)
    parity = make_fairness_scorer("demographic_parity")
    scorers = [parity, make_constrained_scorer("accuracy", parity, max_disparity=0.1)]
    report = fairness_report(y, classifier.predict(X), sensitive_features=group, random_state=0)
    folds = GroupStratifiedKFold(3, shuffle=True, random_state=0)
    path = tmp_path / "pickled"
    path.write_bytes(pickle.dumps((classifier, X, y, group, scorers, report, folds)))
    code = """
import pickle, sys
from pathlib import Path
classifier, X, y, group, scorers, report, folds = pickle.loads(Path(sys.argv[1]).read_bytes())
from skfair.metrics import fairness_report
scores = [float(scorer(classifier, X, y, sensitive_features=group)) for scorer in scorers]
again = fairness_report(y, classifier.predict(X), sensitive_features=group, random_state=0)
again.to_html(sys.argv[2])
assert repr(again) == repr(report)
split = [test.tolist() for _, test in folds.split(X, y, sensitive_features=group)]
print(repr((scores, repr(again), split)))
"""
    printed = in_new_process(code + NOT_LOADED, path, tmp_path / "report.html")
    scores = [float(scorer(classifier, X, y, sensitive_features=group)) for scorer in scorers]
    split = [test.tolist() for _, test in folds.split(X, y, sensitive_features=group)]
    assert ast.literal_eval(printed) == (scores, repr(report), split)


def test_the_command_line_loads_no_torch(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("y,p,sex\n" + "1,1,f\n0,0,f\n1,1,m\n0,1,m\n" * 10)
    code = """
import contextlib, sys
from skfair._command_line import main
columns = [sys.argv[1], "--y-true", "y", "--y-pred", "p", "--groups", "sex"]
assert main(["report", *columns]) == 0
assert main(["check", *columns, "--rule", "min(accuracy) >= 0.1"]) == 0
with contextlib.suppress(SystemExit):
    main(["--help"])
"""
    in_new_process(code + NOT_LOADED, path)


def test_all_members_are_found_at_their_first_use():
    # In a process of its own, where two threads import the same at once.
    code = """
import pickle, threading, skfair
assert {*skfair.__all__, "metrics", "utils", "__version__"} <= set(dir(skfair))
found = []
threads = [threading.Thread(target=lambda: found.append(skfair.load)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import skfair.persistence
assert found == [skfair.persistence.load] * 2
names = {}
exec("from skfair import *", names)
assert {*skfair.__all__} <= names.keys()
for name in PARTS: assert getattr(skfair, name).__name__ == f"skfair.{name}"
assert {*dir(skfair.utils)} >= {*skfair.utils.__all__}
for name in skfair.utils.__all__: assert getattr(skfair.utils, name).__doc__
"""
    parts = {path.relative_to(ROOT).with_suffix("").parts[0] for path in MODULES}
    public = sorted(part for part in parts if not part.startswith("_"))
    in_new_process(code.replace("PARTS", repr(public)))


def test_many_threads_may_use_the_package_first():
    code = """
import threading, skfair
errors, start = [], threading.Barrier(len(NAMES))
def use(name):
    start.wait()
    try: getattr(skfair, name)
    except BaseException as error: errors.append((name, error))
threads = [threading.Thread(target=use, args=[name]) for name in NAMES]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
"""
    parts = [part for part in ALLOWED if not part.startswith("_")]
    names = [*skfair.__all__, *parts]
    in_new_process(code.replace("NAMES", repr(names)))


def test_no_module_uses_a_lazy_name_while_python_imports_the_module():
    # Two threads could wait for each other for ever: see the lock in skfair._lazy.
    code = """
import importlib, skfair, skfair.utils
for package in (skfair, skfair.utils):
    def refuse(name, package=package):
        assert name.startswith("__"), f"{package.__name__}.{name}"
        raise AttributeError(name)
    package.__getattr__ = refuse
for name in NAMES: importlib.import_module(name)
"""
    paths = [path.relative_to(ROOT).with_suffix("").parts for path in MODULES]
    names = [".".join(("skfair", *parts)) for parts in paths if parts[-1] != "__main__"]
    in_new_process(code.replace("NAMES", repr(names)))


@pytest.mark.parametrize("package", [skfair, skfair.utils], ids=lambda package: package.__name__)
def test_type_checkers_and_programs_find_the_same(package):
    lines = ast.parse(Path(package.__file__).read_text()).body
    (block,) = (
        node
        for node in lines
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    stated = {name.name: node.module for node in block.body for name in node.names}
    at_once = {
        name.name for node in lines if isinstance(node, ast.ImportFrom) for name in node.names
    }
    assert stated.keys() == set(package.__all__) - at_once
    assert stated.keys() <= set(package.__dir__())
    for name, module in stated.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("package", [skfair, skfair.utils], ids=lambda package: package.__name__)
def test_a_name_that_does_not_exist(package):
    for name in ("NoSuchName", "__no_such_name__", "load_", ""):
        message = f"^module '{package.__name__}' has no attribute '{name}'$"
        with pytest.raises(AttributeError, match=message):
            getattr(package, name)
    with pytest.raises(ImportError, match=r"^cannot import name 'NoSuchName' from 'skfair"):
        exec(f"from {package.__name__} import NoSuchName")


def test_an_import_that_fails_says_why(tmp_path):
    # A build of torch that does not fit to another package often raises an AttributeError.
    (tmp_path / "torch.py").write_text("import numpy\nnumpy.no_such_dtype\n")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import skfair.metrics
for use in ("skfair.load", "from skfair import load", "from skfair.utils import seeded"):
    try:
        exec(use)
    except ImportError as error:
        assert "no attribute 'no_such_dtype'" in str(error), error
    else:
        raise AssertionError(use)
"""
    in_new_process(code, tmp_path)
