"""Finding the estimators, and documenting each of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator, is_classifier

import skfair
from skfair.discovery import all_estimators

ROOT = Path(__file__).parents[1]


def test_it_finds_what_is_exported():
    found = dict(all_estimators())
    assert list(found) == sorted(found)
    # The top package exports estimators and functions, and no other classes.
    exported = {name: getattr(skfair, name) for name in skfair.__all__}
    assert found == {name: value for name, value in exported.items() if isinstance(value, type)}
    assert len(found) >= 9
    for name, kind in found.items():
        assert kind.__name__ == name
        assert issubclass(kind, BaseEstimator)


def test_types():
    classifiers, transformers = (
        dict(all_estimators(kind)) for kind in ("classifier", "transformer")
    )
    assert classifiers.keys() | transformers.keys() == dict(all_estimators()).keys()
    assert classifiers.keys() & transformers.keys() == {
        "ClusterMarginClassifier",
        "LogitAdjustedClassifier",
    }
    assert all(hasattr(kind, "transform") for kind in transformers.values())
    assert all(hasattr(kind, "predict_proba") for kind in classifiers.values())
    assert is_classifier(classifiers["ClusterMarginClassifier"]())
    with pytest.raises(ValueError, match="type_filter='regressor' is not one of"):
        all_estimators("regressor")


def test_a_new_estimator_is_found_without_being_listed(monkeypatch):
    class Added(BaseEstimator):
        def fit(self, X, y=None):
            return self

    class _Private(Added):
        pass

    from skfair import margin

    monkeypatch.setattr(margin, "Added", Added, raising=False)
    monkeypatch.setattr(margin, "_Private", _Private, raising=False)
    monkeypatch.setattr(margin, "__all__", [*margin.__all__, "Added", "_Private"])
    found = dict(all_estimators())
    assert found["Added"] is Added
    assert "_Private" not in found
    assert "IntraprocessingDebiaser" not in found


def test_the_checks_are_not_loaded_with_the_package():
    code = (
        "import sys, skfair.discovery; skfair.discovery.all_estimators(); "
        "assert 'skfair.estimator_checks' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def _package(name):
    """The public package of an estimator: of skfair.margin._classifier.C it is skfair.margin."""
    return re.match(r"skfair\.[a-z]\w*", getattr(skfair, name).__module__).group()


# Where each estimator must be named: file or folder, the expression that finds it, the line to add.
PLACES = {
    "README": (
        "README.md",
        r"^\|[^|]*`(?:skfair\.)?{name}`[^|]*\|",
        "a row in the table of 'What is inside': | `skfair.{name}` | what the estimator does |",
    ),
    "API reference": (
        "docs/api.rst",
        r"^   {name}$",
        "the line '   {name}' to the autosummary below '.. currentmodule:: {package}'",
    ),
    "user guide": (
        "docs/user_guide",
        r"(?<!\w){name}(?!\w)",
        "a page or a paragraph that names :class:`~skfair.{name}`",
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [name for name, _ in all_estimators()])
def test_each_estimator_is_in_the_documentation(name, place):
    file, pattern, line = PLACES[place]
    path = ROOT / file
    pages = sorted(path.rglob("*.rst")) if path.is_dir() else [path]
    named = any(re.search(pattern.format(name=name), p.read_text(), re.MULTILINE) for p in pages)
    assert named, f"{file} does not name {name}. Add " + line.format(
        name=name, package=_package(name)
    )
