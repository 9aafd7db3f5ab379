"""
Stop a release that makes a group worse
=======================================

A plain scikit-learn model shall replace an older one. The new model is more accurate, and nobody
looked at the groups. A report shows what each group gets. A rule decides whether the release may
go on: it passes, it fails, or the test set is too small to tell.

The data are generated, so that the truth is known. Nothing is downloaded, and no file is left
behind. Run it with::

    python examples/ship/gate_a_release.py
"""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from skfair.metrics import (
    FairnessCheckError,
    GroupMetricsDisplay,
    assert_fair,
    fairness_report,
)
from skfair.utils import import_optional

# %%
# Two models
# ----------
# In the rural region, the relation between the first feature and the label is another one. Few
# training samples come from there.


def draw(n, rng, rural=0.1):
    """Applicants: features, whether they pay back, and their region."""
    region = np.where(rng.random(n) < rural, "rural", "city")
    X = rng.standard_normal((n, 5))
    slope = np.where(region == "rural", 0.3, 1.5)
    curve = np.where(region == "rural", 0.0, 1.0)
    score = slope * X[:, 0] + curve * (X[:, 0] ** 2 - 1) + X[:, 1] + 0.5 * rng.standard_normal(n)
    return X, (score > 0).astype(int), region


rng = np.random.default_rng(0)
X_train, y_train, _ = draw(4000, rng)
old = LogisticRegression().fit(X_train, y_train)
new = HistGradientBoostingClassifier(random_state=0).fit(X_train, y_train)

# %%
# The report
# ----------
# The new model is much better on the whole, because most samples come from the city. The verdict
# names the group that pays.

X, y, region = draw(4000, rng, rural=0.25)
predictions = {"old": old.predict(X), "new": new.predict(X)}
report = fairness_report(y, predictions, sensitive_features={"region": region})
print(report)

# %%
plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
GroupMetricsDisplay.from_report(report, "accuracy")
plt.suptitle("Accuracy of the old and the new model in each region")
plt.show()

# %%
# The gate
# --------
# ``change`` limits the change of every group. A group may lose one point here, and no group may
# have an accuracy below .6.

rules = ["change(accuracy) >= -0.01", "min(accuracy) >= 0.6"]
print(report.check(rules))

# %%
# In a test or a script, :func:`~skfair.metrics.assert_fair` raises an error, which stops the
# release. From the command line, ``python -m skfair check`` does the same with its exit code.

try:
    assert_fair(y, predictions, rules, sensitive_features={"region": region})
except FairnessCheckError as error:
    print(f"The release stops. The check: {error.check.status}")

# %%
# Too few samples are no permission
# ---------------------------------
# With 200 samples the same rules cannot be decided. "Cannot tell" is not "passes": the check names
# the group that is too small, and how many samples would be about enough.

few = slice(200)
small = fairness_report(
    y[few],
    {name: predicted[few] for name, predicted in predictions.items()},
    sensitive_features={"region": region[few]},
)
print(small.check(rules))
