"""
Thresholds for each group, or a network that needs no group
===========================================================

fairlearn's ``ThresholdOptimizer`` gives each group a threshold of its own. It is simple and exact,
and it needs the group of every person at prediction. Where the group is not known at prediction, or
must not be used, :class:`~skfair.intraprocessing.DistillationDebiaser` returns a network that needs
no group. This example compares both on the same rows.

The data are generated. Nothing is downloaded, and no file is left behind. Run it with::

    python examples/tables/with_and_without_the_group.py
"""

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer

from skfair import DistillationDebiaser, LogitAdjustedClassifier
from skfair.metrics import GroupMetricsDisplay, fairness_report
from skfair.utils import import_optional

# %%
# A network that learned from unequal decisions
# ---------------------------------------------
# The group is not a feature, but four of the features tell it. ``LogitAdjustedClassifier`` with
# ``strength=0`` is an ordinary network here; a torch module or a skorch net would do as well.


def draw(n):
    """Features, past decisions, groups."""
    group = rng.integers(2, size=n)
    X = rng.standard_normal((n, 5)).astype("float32")
    y = (X[:, 0] + group + 0.5 * rng.standard_normal(n) > 0.5).astype(int)
    X[:, 1:] += group[:, None]
    return X, y, np.where(group, "b", "a")


rng = np.random.default_rng(0)
X_train, y_train, _ = draw(4000)  # the groups are not needed here
X_debias, y_debias, group_debias = draw(4000)
X_test, y_test, group_test = draw(6000)
network = LogitAdjustedClassifier(strength=0, random_state=0).fit(X_train, y_train)

# %%
# Both methods get the same rows
# ------------------------------
# Only ``ThresholdOptimizer`` gets the groups of the test rows.

thresholds = ThresholdOptimizer(
    estimator=network, constraints="demographic_parity", predict_method="predict_proba", prefit=True
)
thresholds.fit(X_debias, y_debias, sensitive_features=group_debias)
debiaser = DistillationDebiaser(
    network, constraint="demographic_parity", epsilon=0.05, random_state=0
)
debiaser.fit(X_debias, y_debias, sensitive_features=group_debias)

predictions = {
    "original": network.predict(X_test),
    "group thresholds": thresholds.predict(X_test, sensitive_features=group_test, random_state=0),
    "distilled": debiaser.predict(X_test),
}
report = fairness_report(y_test, predictions, sensitive_features={"group": group_test})
print(report.disparities.loc["selection_rate"].round(3).to_string())
print(report.summary.round(3).to_string())

# %%
# Which one?
# ----------
# Both make the selection rates equal, at a similar cost in accuracy. If you know the group at
# prediction and may use it, take ``ThresholdOptimizer``: it has a few numbers for each group, and
# is easy to explain. The distilled network answers for people whose group nobody knows.
# :doc:`/coming_from` maps more of fairlearn to skfair.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")

GroupMetricsDisplay.from_report(report, "selection_rate")
plt.suptitle("Selection rate of each group with each model")
plt.show()
