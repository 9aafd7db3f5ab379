"""The page for developers: its code runs as written, and what it builds keeps every promise."""

import doctest
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import skfair
from skfair import intraprocessing

PAGE = Path(__file__).parents[1] / "docs" / "developers" / "add_a_method.rst"


@pytest.fixture(scope="module")
def page():
    """Run the page as a module, so that its classes can be pickled."""
    module = ModuleType("add_a_method")
    parsed = doctest.DocTestParser().get_doctest(PAGE.read_text(), {}, PAGE.name, str(PAGE), 0)
    parsed.globs = vars(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # The checks fit for a moment, and warn about what such fits find.
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, module.__name__, module)
        runner.run(parsed, clear_globs=False)
        assert runner.tries > 20
        yield module, runner.failures


def test_the_page_runs(page):
    assert page[1] == 0


def test_the_debiaser_of_the_page_is_saved_with_what_it_adds(page, tmp_path, monkeypatch):
    module, _ = page
    kind = module.AdapterDebiaser
    # As if it stood in the package.
    monkeypatch.setattr(kind, "__module__", "skfair.intraprocessing._adapter")
    monkeypatch.setattr(intraprocessing, "AdapterDebiaser", kind, raising=False)
    monkeypatch.setattr(intraprocessing, "__all__", [*intraprocessing.__all__, "AdapterDebiaser"])
    debiaser = module.debiaser
    assert debiaser.module_[0].adapter.weight.abs().max() > 0.1
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=lambda: module.nn.Linear(2, 1))
    assert type(loaded) is kind
    np.testing.assert_array_equal(loaded.predict_proba(module.X), debiaser.predict_proba(module.X))


def test_a_preparation_that_changes_the_outputs_is_refused(page):
    module, _ = page

    class Noisy(module.AdapterDebiaser):
        def _prepare(self, network, X):
            network = super()._prepare(network, X)
            module.nn.init.ones_(network.adapter.bias)
            return network

    with pytest.raises(ValueError, match=r"Noisy._prepare returns .* other outputs .* to zero"):
        Noisy(module.network).fit(module.X, module.y, sensitive_features=module.group)


class Vector(torch.nn.Module):
    """A loss for each row, where one for the batch is expected."""

    def forward(self, logit, rows):
        return logit - rows.label


MISTAKES = {
    "prepare returns nothing": (
        {"_prepare": lambda self, network, X: None},
        r"_prepare returns NoneType; expected a torch.nn.Module",
    ),
    "all is frozen": (
        {"_prepare": lambda self, network, X: network.requires_grad_(False)},
        "leaves no parameter with requires_grad=True",
    ),
    "a function as the loss": (
        {"_search": lambda self, search: self._finetune(search, lambda logit, rows: logit.mean())},
        r"loss is a function; expected a torch.nn.Module whose forward takes \(logit, rows\)",
    ),
    "a loss for each row": (
        {"_search": lambda self, search: self._finetune(search, Vector())},
        r"Vector returns a loss of shape \(\d+,\); expected one number for the batch",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_an_author_are_named(mistake, page):
    module, _ = page
    methods, said = MISTAKES[mistake]
    kind = type("Mistaken", (intraprocessing.GroupDRODebiaser,), methods)
    with pytest.raises((TypeError, ValueError), match=said):
        kind(module.network).fit(module.X, module.y, sensitive_features=module.group)
