"""Every public docstring: complete by numpydoc's rules, and true of what it describes."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path

import numpydoc.validate
import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

import skfair

# What numpydoc may find; everything else it knows is an error here.
IGNORED = {
    "ES01": "a first line that says all needs no second paragraph",
    "EX01": "methods are shown in the example of their class; test_has_an_example is stricter",
    "RT02": "`self : object` and the like name what is returned, as in scikit-learn",
    "SA01": "the user guide says what belongs together",
}
# Made by a function of the package, so that their Attributes say all, and Parameters would
# tell users to do what they should not.
MADE_FOR_USERS = {
    "FairnessAlarm",
    "FairnessCertificate",
    "FairnessCheck",
    "FairnessCheckError",
    "FairnessReport",
    "FairnessRuleResult",
    "FairnessScorer",
    "GroupCounts",
    "Groups",
}
ANYTHING = inspect.signature(object.__init__)
OF_COLUMNS = {"feature_names_in_", "n_features_in_"}  # images and files have none


def _packages():
    yield skfair
    for module in pkgutil.walk_packages(skfair.__path__, "skfair."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield importlib.import_module(module.name)


def _function(member):
    """What a property, class method or conditional method was made of."""
    for attribute in ("fget", "func", "__func__", "fn"):
        member = getattr(member, attribute, member)
    return inspect.unwrap(member)


def _members(cls):
    """Names of its public methods and properties that are written in skfair."""
    for name in dir(cls):
        function = _function(inspect.getattr_static(cls, name))
        of_skfair = getattr(function, "__module__", None) or ""
        if not name.startswith("_") and of_skfair.startswith("skfair."):
            yield name


# Each once; the estimators are in their parts as well.
PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in _packages()
    for name in package.__all__
    if package is skfair or name not in skfair.__all__
}
CLASSES = {name: obj for name, obj in PUBLIC.items() if inspect.isclass(obj)}
ESTIMATORS = {name: cls for name, cls in CLASSES.items() if issubclass(cls, BaseEstimator)}
METHODS = [f"{name}.{member}" for name, cls in CLASSES.items() for member in _members(cls)]
# Nobody calls an exception or a warning to get something.
WITH_EXAMPLE = [
    name
    for name, obj in PUBLIC.items()
    if not (inspect.isclass(obj) and issubclass(obj, Exception))
]


def _get(name):
    if name in PUBLIC:
        return PUBLIC[name]
    owner, _, member = name.rpartition(".")
    return _function(inspect.getattr_static(PUBLIC[owner], member))


def test_what_is_public_is_found():
    assert "skfair.ClusterMarginClassifier" in ESTIMATORS
    assert "skfair.metrics.fairness_report" in PUBLIC
    assert "skfair.ClusterMarginClassifier.suggest_labels" in METHODS
    assert "skfair.metrics.FairnessReport.from_counts" in METHODS  # a class method
    assert "skfair.metrics.FairnessReport.metric_frames" in METHODS  # a property
    assert "skfair.ClusterMarginClassifier.get_params" not in METHODS  # scikit-learn's


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_numpydoc_finds_nothing(name):
    ignored = set(IGNORED)
    if name.rpartition(".")[2] in MADE_FOR_USERS:
        ignored.add("PR01")
    errors = numpydoc.validate.validate(name)["errors"]
    assert [error for error in errors if error[0] not in ignored] == []


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_has_an_example(name):
    assert any(example.want for example in _examples(_get(name))), "nothing is shown"


@pytest.mark.parametrize("name", [*WITH_EXAMPLE, *METHODS])
def test_defaults_are_stated_and_true(name):
    stated = dict(_split_names(FunctionDoc(_get(name))["Parameters"]))
    for parameter in inspect.signature(_get(name)).parameters.values():
        # A name that is not there is numpydoc's business; what is ignored has no meaning.
        text = stated.get(parameter.name, "Ignored")
        if parameter.default is parameter.empty or text == "Ignored":
            continue
        found = re.search(r"\bdefault=(.+)$", text)
        if found is None:
            assert text.endswith(", optional"), f"{parameter.name}: no default in {text!r}"
            assert parameter.default is None
            continue
        try:
            assert ast.literal_eval(found[1]) == parameter.default
        except ValueError:  # a name
            assert found[1].rpartition(".")[2] == parameter.default.__name__


@pytest.mark.parametrize("name", [*WITH_EXAMPLE, *METHODS])
def test_types_are_given(name):
    function = _get(name)
    if inspect.isclass(function):
        function = inspect.unwrap(function.__init__)
    signature = inspect.signature(function)
    if signature == ANYTHING:  # a named tuple, or a class without a constructor of its own
        return
    without = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name not in {"self", "cls"}
    ]
    assert without == []
    # mypy takes a constructor with annotated parameters as returning None.
    assert function.__name__ == "__init__" or signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fitted_attributes_are_documented(name):
    fitted = _fitted_in_its_example(name)
    there = {key for key in vars(fitted) if key.endswith("_") and not key.startswith("_")}
    documented = dict(_split_names(ClassDoc(ESTIMATORS[name])["Attributes"])).keys()
    assert there - documented == set()
    # Of what is documented, only what tells of columns depends on the data.
    assert {key for key in documented if not hasattr(fitted, key)} <= OF_COLUMNS


def _split_names(documented):
    """Pairs of name and type; what is documented together is `a, b : type`."""
    for entry in documented:
        for name in entry.name.split(","):
            yield name.strip().lstrip("*"), entry.type


def _examples(obj):
    return doctest.DocTestParser().get_examples(inspect.getdoc(obj) or "")


@cache
def _fitted_in_its_example(name):
    """The estimator that the class's own example fits, alone or in a pipeline."""
    cls = ESTIMATORS[name]
    scope = dict(vars(inspect.getmodule(cls)))
    for example in _examples(cls):
        exec(example.source, scope)
    for value in scope.values():
        for candidate in value[:] if isinstance(value, Pipeline) else [value]:
            if isinstance(candidate, cls) and any(key.endswith("_") for key in vars(candidate)):
                return candidate
    raise AssertionError(f"The example of {name} fits none.")


def _written_examples():
    """The examples of every docstring in the files of the package, private ones too."""
    for file in sorted(Path(skfair.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                examples = doctest.DocTestParser().get_examples(ast.get_docstring(node) or "")
                if examples:
                    name = getattr(node, "name", "module")
                    yield f"{file.stem}.{name}", "".join(example.source for example in examples)


def test_examples_that_fit_a_network_do_not_depend_on_its_random_weights():
    written = dict(_written_examples())
    fitted = {
        name: source
        for name, source in written.items()
        if re.search(r"\bnn\.\w+\(\w*\d", source) and ".fit(" in source
    }
    assert "_save.load" in fitted
    known = re.compile(r"manual_seed\(|\.copy_\(")
    assert [name for name, source in fitted.items() if not known.search(source)] == []
