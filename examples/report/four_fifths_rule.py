"""
The four-fifths rule, with its uncertainty
==========================================

An employer compares the selection rates of applicants by race, as the four-fifths rule asks: the
rate of each group, divided by the rate of the group with the highest rate, should be at least .8.
A ratio below .8 is a sign of disparate impact. The report shows the ratio of each group with a
95 % interval, because a ratio of small groups is mostly chance.

The decisions are generated, and no model is trained: a report needs labels, predictions and groups
only, and they may come from any program. Run it with::

    python examples/report/four_fifths_rule.py
"""

import numpy as np
from fairlearn.metrics import selection_rate

from skfair.metrics import GroupMetricsDisplay, fairness_report
from skfair.utils import import_optional

# %%
# The decisions
# -------------
# Of 6,000 applicants, a model selects about 40 % of group A, 24 % of B, 30 % of C, and 38 % of D,
# which is small.

rng = np.random.default_rng(0)
race = rng.choice(["A", "B", "C", "D"], size=6000, p=[0.56, 0.25, 0.15, 0.04])
rate = np.select([race == "A", race == "D"], [0.4, 0.38], np.where(race == "B", 0.24, 0.3))
selected = (rng.random(6000) < rate).astype(int)
qualified = (rng.random(6000) < 0.2 + 0.5 * selected).astype(int)

# %%
# The report
# ----------
# ``reference`` is the group with which the others are compared. ``threshold`` is the limit of the
# rule. "No" means that the whole interval of the ratio is below the limit; "cannot tell" that the
# interval contains the limit.

report = fairness_report(
    qualified,
    {"model": selected},
    sensitive_features={"race": race},
    metrics=[selection_rate],
    reference="A",
    threshold=0.8,
)
print(report)

# %%
plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")

GroupMetricsDisplay.from_report(report, "selection_rate")
plt.suptitle("Selection rate of each group, with 95 % intervals")
plt.show()

# %%
# A confusion matrix of each group
# --------------------------------
# The selection rate does not say who was qualified. The report with all metrics does: the true
# positive rate and the false positive rate of a group are the rows of its confusion matrix.

print(fairness_report(qualified, {"model": selected}, sensitive_features={"race": race}))

# %%
# A ratio of .8 or more is no proof that a model is lawful, and a ratio below .8 is no proof that it
# is not: :doc:`/user_guide/fairness_report` says what the numbers mean.
