"""Shared docstrings: whole for whoever reads them, and an error where a placeholder is wrong."""

import doctest
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc

import skfair.intraprocessing
from skfair.intraprocessing import ThresholdDebiaser, fill_docstring

PUBLIC = {name: getattr(skfair.intraprocessing, name) for name in skfair.intraprocessing.__all__}
DEBIASERS = [obj for name, obj in PUBLIC.items() if name.endswith("Debiaser")]


def of_class(documentation, constructor=lambda self, *, epsilon: None):
    """Make a class with this docstring; nothing is filled in yet."""
    return type("Mine", (), {"__doc__": documentation, "__init__": constructor})


@pytest.mark.parametrize("name", PUBLIC)
def test_no_placeholder_is_left(name):
    members = [PUBLIC[name], *vars(PUBLIC[name]).values()]
    for member in members:
        assert re.findall(r"^\s*\{[^{}\"']*\}", inspect.getdoc(member) or "", re.MULTILINE) == []


@pytest.mark.parametrize("debiaser", DEBIASERS)
def test_describes_each_parameter_in_order(debiaser):
    described = ClassDoc(debiaser)
    names = [each.name for each in described["Parameters"]]
    assert names == [*inspect.signature(debiaser).parameters]
    for section in ("Parameters", "Attributes", "Warns"):
        assert described[section]
        assert all(each.desc for each in described[section])


@pytest.mark.parametrize("debiaser", DEBIASERS)
def test_doctest_finds_the_example_where_the_docstring_begins(debiaser):
    (found,) = [
        test
        for test in doctest.DocTestFinder(recurse=False).find(debiaser)
        if test.name == debiaser.__name__
    ]
    assert found.filename == inspect.getsourcefile(debiaser)
    lines = Path(found.filename).read_text().splitlines()
    assert lines[found.lineno].strip() == f'"""{inspect.getdoc(debiaser).splitlines()[0]}'
    assert found.examples[-1].want


def test_is_the_same_class():
    mine = of_class("{epsilon}")
    assert fill_docstring(mine) is mine
    assert pickle.loads(pickle.dumps(ThresholdDebiaser)) is ThresholdDebiaser


def test_a_text_has_the_indentation_of_its_placeholder():
    mine = fill_docstring(of_class("Do.\n\n    {epsilon}\n        More of it.\n\n    End."))
    assert mine.__doc__.splitlines() == [
        "Do.",
        "",
        "    epsilon : float, default=0.05",
        "        The constraint: the bias lies between ``-epsilon`` and ``epsilon``.",
        "        More of it.",
        "",
        "    End.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        'epsilon : {"a", "b"}, default="a"',
        '{"epsilon", "b"}',
        "{0: 1}",
        "{0, 1}",
        "see {epsilon} here",
        r":math:`x_{epsilon}`",
        "{{epsilon}}",
    ],
)
def test_other_braces_stay(line):
    documentation = f"Do.\n\n    epsilon : float\n        Some.\n    {line}\n"
    assert fill_docstring(of_class(documentation)).__doc__ == documentation


@pytest.mark.parametrize("wrong", ["epsilom", "max-epochs", "epsilon ", "Epsilon"])
def test_unknown_placeholder(wrong):
    with pytest.raises(ValueError, match=rf"Mine has the placeholder {{{wrong}}}.*'epsilon'"):
        fill_docstring(of_class(f"Do.\n\n    {{{wrong}}}\n"))


def test_undescribed_parameter():
    def constructor(self, n_steps, *, margin, **more): ...

    lacking = "Do.\n\n    n_steps : int\n        Steps.\n"
    with pytest.raises(ValueError, match=r"does not describe margin.*placeholder {margin} or"):
        fill_docstring(of_class(lacking, constructor))
    filled = fill_docstring(of_class(lacking + "    {margin}", constructor))
    assert "    margin : float" in filled.__doc__
    with pytest.raises(ValueError, match=r"does not describe n_steps.*write 'n_steps : type'"):
        fill_docstring(of_class("    {margin}", constructor))


def test_a_subclass_without_a_docstring_inherits_one():
    mine = fill_docstring(type("Mine", (ThresholdDebiaser,), {}))
    assert mine.__doc__ is None
    assert inspect.getdoc(mine) == inspect.getdoc(ThresholdDebiaser)


def test_without_docstrings():
    # The module by itself: skorch cannot be imported under -OO.
    code = f"""
import runpy
fill_docstring = runpy.run_path({inspect.getsourcefile(fill_docstring)!r})["fill_docstring"]
@fill_docstring
class Mine:
    "{{epsilon}}"
print(Mine.__doc__)
"""
    run = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("None\n", 0), run.stderr
