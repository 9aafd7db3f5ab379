"""The oldest versions that are declared are those that are tested."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WITHOUT = {"skfair-debias", "torch"}  # itself; and of torch there is one build to test with
TOOLS = {
    "docs",
    "lint",
    "benchmark",
    "test-clients",
    "test-browser",
}  # not needed to use skfair; tested as they are today


def _pins(name):
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), f"{name} has lines that are no pins"
    return {canonicalize_name(package): version for package, version in pairs}


def _declared(without=()):
    parts = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return [
        pytest.param(requirement, id=f"{part}-{requirement.name}")
        for part, lines in parts.items()
        for requirement in map(Requirement, lines)
        if part not in without and requirement.name not in WITHOUT
    ]


@pytest.mark.parametrize("requirement", _declared(without=TOOLS))
def test_the_floor_is_what_the_oldest_environment_has(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    oldest = _pins("constraints-oldest.txt")[canonicalize_name(requirement.name)]
    assert Version(oldest) == Version(specifier.version)


@pytest.mark.parametrize("requirement", _declared())
def test_the_newest_environment_is_pinned(requirement):
    newest = _pins("constraints.txt")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(newest)


def test_torch_is_pinned_apart_from_what_users_apply():
    # A build for their GPU, installed first, is left alone by the other files.
    assert "torch" not in _pins("constraints.txt") | _pins("constraints-oldest.txt")
    (torch,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "torch")
    assert torch.specifier.contains(_pins("constraints-torch.txt")["torch"])
