"""Progress bars: named, and nothing is said when skfair is imported."""

import subprocess
import sys

from skfair.utils._progress import progress_bar


def test_a_bar_has_its_name_and_unit(capsys):
    with progress_bar("encode", 3, unit="image") as bar:
        bar.update(3)
    shown = capsys.readouterr().err
    assert "encode: 100%" in shown
    assert "image/s" in shown


def test_a_bar_that_is_not_shown_writes_nothing(capsys):
    with progress_bar("encode", 3, unit="image", shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_importing_in_a_notebook_without_widgets_says_nothing():
    """tqdm.auto looks for a kernel of IPython, and warns where it has no widgets."""
    code = """
import sys, types, warnings
warnings.simplefilter("always")
ipython = types.ModuleType("IPython")
kernel = type("Kernel", (), {"config": {"IPKernelApp": {}}})()
ipython.get_ipython = lambda: kernel
ipython.version_info = (8, 0)
sys.modules |= {"IPython": ipython, "ipykernel.zmqshell": types.ModuleType("zmqshell")}
import skfair.featurize, skfair.intraprocessing, skfair.attribution, skfair.margin
from skfair.utils._progress import progress_bar
with progress_bar("trials", 1, unit="trial") as bar:
    bar.update()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trials: 100%" in done.stderr
    assert "Warning" not in done.stderr
