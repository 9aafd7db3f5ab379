"""The report of a model, beside the counts and the draws that no report can do without."""

import numpy as np

from benchmarks._floors.measure import Row
from skfair.metrics import fairness_report

_GROUPS, _DRAWS = 10, 1000


def _prepare(n_rows):
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=n_rows), rng.integers(_GROUPS, size=n_rows)
    predicted = np.where(rng.random(n_rows) < 0.8, y, 1 - y)
    names = np.array(list("abcdefghij"))[group]

    def ours():
        fairness_report(y, predicted, sensitive_features=names)

    def floor():
        codes = np.unique(names, return_inverse=True)[1]
        counts = np.bincount((codes * 2 + y) * 2 + predicted)
        rng.multinomial(n_rows, counts / n_rows, size=_DRAWS)

    return ours, floor


ROWS = [
    Row(
        f"fairness_report, {n_rows:,} rows, {_GROUPS} groups, {_DRAWS:,} bootstrap draws",
        "numpy.unique of the groups, one count, and the draws",
        goal,
        lambda n_rows=n_rows: _prepare(n_rows),
    )
    for n_rows, goal in ((20_000, 4.0), (1_000_000, 1.5))
]
