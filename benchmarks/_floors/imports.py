"""Import times: what a joblib worker pays before it can use a scorer, beside fairlearn.metrics."""

import pickle
import tempfile
from functools import partial
from pathlib import Path

from benchmarks._floors.measure import Row, fresh_process
from skfair.metrics import make_fairness_scorer

_FAIRLEARN = "import fairlearn.metrics"
_REPORT = "from skfair.metrics import fairness_report"
_SELECTION = "import skfair.model_selection"


# An installed package has its bytecode, so that a checkout writes its own, too.
_WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


def seconds(code):
    return fresh_process(code, **_WITH_BYTECODE).seconds


def peak(code):
    return fresh_process(code, **_WITH_BYTECODE).peak


def unpickle(scorer):
    """Return code that unpickles a scorer from a file in a fresh process."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "scorer.pickle"
    path.write_bytes(pickle.dumps(scorer))
    # The default argument keeps the folder until the measurements end.
    return lambda _folder=folder: seconds(f"import pickle; pickle.load(open({str(path)!r}, 'rb'))")


def fairlearn_scorer():
    """Return the same for a scorer from scikit-learn and fairlearn."""
    from fairlearn.metrics import demographic_parity_difference
    from sklearn.metrics import make_scorer

    return unpickle(make_scorer(demographic_parity_difference, greater_is_better=False))


ROWS = [
    Row(
        "from skfair.metrics import fairness_report, in a fresh process",
        "import fairlearn.metrics, in a fresh process",
        1.1,
        lambda: (partial(seconds, _REPORT), partial(seconds, _FAIRLEARN)),
        repeats=5,
    ),
    Row(
        "the same: peak of the resident memory of the process",
        "import fairlearn.metrics, in a fresh process",
        1.1,
        lambda: (partial(peak, _REPORT), partial(peak, _FAIRLEARN)),
        unit="MiB",
        repeats=3,
    ),
    Row(
        "import skfair.model_selection, in a fresh process",
        "import fairlearn.metrics, in a fresh process",
        1.1,
        lambda: (partial(seconds, _SELECTION), partial(seconds, _FAIRLEARN)),
        repeats=5,
    ),
    Row(
        "unpickle make_fairness_scorer('demographic_parity'), in a fresh process",
        "unpickle make_scorer(demographic_parity_difference), in a fresh process",
        1.1,
        lambda: (unpickle(make_fairness_scorer("demographic_parity")), fairlearn_scorer()),
        repeats=5,
    ),
]
