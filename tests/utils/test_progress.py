"""Progress bars have a name and a unit, and do not warn if ipywidgets is missing."""

import subprocess
import sys

import numpy as np
import pytest
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer
from skfair.utils._progress import progress_bar

# A notebook without ipywidgets.
NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: shell
sys.modules["ipywidgets"] = None
import skfair
from skfair.utils._progress import progress_bar
with progress_bar("encode", total=2, unit="image") as bar:
    bar.update(2)
"""


def test_a_notebook_without_widgets_shows_text_and_no_warning():
    done = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", NOTEBOOK],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "encode: 100%" in done.stderr
    assert "Warning" not in done.stderr


def test_a_notebook_with_widgets_has_them(monkeypatch):
    from tqdm import notebook

    monkeypatch.setitem(sys.modules, "IPython", sys)
    monkeypatch.setattr(sys, "get_ipython", lambda: sys, raising=False)
    monkeypatch.setattr(sys, "config", {"IPKernelApp": {}}, raising=False)
    monkeypatch.setattr(notebook, "IProgress", object)
    monkeypatch.setattr(notebook, "tqdm", lambda **parameters: parameters)
    assert progress_bar("trials", total=3, unit="trial") == {
        "total": 3,
        "desc": "trials",
        "unit": "trial",
        "disable": False,
    }


@pytest.mark.parametrize("verbose", [0, 1])
def test_the_bar_of_an_encoder_has_its_name(verbose, capsys):
    X = np.zeros((5, 3, 6, 6), dtype=np.float32)
    FrozenEncoderFeaturizer(nn.Flatten(), verbose=verbose).fit_transform(X)
    shown = capsys.readouterr().err
    assert ("encode: 100%" in shown) == ("5/5" in shown) == bool(verbose)
