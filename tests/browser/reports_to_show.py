"""Reports for the browser: many groups, many models, and names that are meant to break a page."""

import functools

import numpy as np

from skfair.metrics import fairness_report

HOSTILE = (
    "<script>hit = 1</script>",
    "</style></script><b>",
    '"quo\'ted" & co',
    "n" * 70,
    "a long name of a group, with blanks, that has about seventy characters",
    "two\nlines",
    "rev\u202eersed",
    "مصر العربية",
    "עברית",
    "=1+1",
    "-2",
    "@sum",
)


@functools.cache
def make_report(n_groups, n_models=2, hostile=False):
    """A report with so many groups, of which the last has no positives."""
    rng = np.random.default_rng(n_groups)
    if hostile:
        groups, models, name = HOSTILE, ["</main>old", "עברית new"], "<b>region"
    else:
        places, people = ["north", "south", "east"], ["women", "men", "girls", "boys"]
        groups = [f"{a} {b} {i}" for i in range(34) for a in places for b in people]
        models = [*("old", "new", "third model", "a fourth", "fifth", "the sixth model")]
        name = "region"
    groups, models = groups[:n_groups], models[:n_models]
    group = rng.integers(len(groups), size=100 * len(groups))
    y = np.where(group == len(groups) - 1, 0, rng.integers(2, size=len(group)))
    rate = rng.uniform(0.65, 0.97, (len(models), len(groups)))
    return fairness_report(
        y,
        {
            model: np.where(rng.random(len(y)) < rate[m][group], y, 1 - y)
            for m, model in enumerate(models)
        },
        sensitive_features={name: np.array(groups)[group]},
        n_boot=20,
    )
