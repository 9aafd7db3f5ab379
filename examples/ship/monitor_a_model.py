"""
Monitor a model over time
=========================

A plain scikit-learn model decides who gets an offer. After half a year, a form changes, and one
feature is no longer filled in for young customers. The accuracy of all customers falls only a
little, because few customers are young. A monitor of the accuracy of each group raises an alarm.

The data are generated, so that the truth is known. Nothing is downloaded, and no file is left
behind. Run it with::

    python examples/ship/monitor_a_model.py
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from skfair.monitoring import FairnessMonitor, FairnessMonitorDisplay
from skfair.utils import import_optional

# %%
# The model
# ---------


def draw(n, rng, broken=False):
    """Customers: features, whether they would accept, and their age."""
    age = rng.choice(["under 30", "30 to 60", "over 60"], size=n, p=[0.2, 0.5, 0.3])
    X = rng.standard_normal((n, 4))
    y = (X @ [1.5, 1.0, 0.5, 0.0] + 0.7 * rng.standard_normal(n) > 0).astype(int)
    if broken:
        X[age == "under 30", 0] = 0
    return X, y, age


rng = np.random.default_rng(0)
X_train, y_train, _ = draw(4000, rng)
model = LogisticRegression().fit(X_train, y_train)

# %%
# One year, week by week
# ----------------------
# The monitor may look every week: over all weeks, groups and rules, the probability of a false
# alarm is at most 5 %.

monitor = FairnessMonitor(
    ["min(accuracy) >= 0.8", "difference(selection_rate) <= 0.15"], confidence=0.95
)
for week in range(1, 53):
    X, y, age = draw(300, rng, broken=week > 26)
    for alarm in monitor.update(
        y, model.predict(X), sensitive_features={"age": age}, window=f"2026-W{week:02d}"
    ):
        print(alarm)

# %%
# What happened
# -------------
# Each panel is a group. The shaded part begins where the violation probably began.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
FairnessMonitorDisplay.from_monitor(monitor)
plt.show()

# %%
# The report of the weeks after the change shows all metrics.

print(monitor.report([window for window in monitor.windows if window > "2026-W26"]))

# %%
# The state is a JSON file
# ------------------------
# A weekly job loads it, updates it and saves it. The loaded monitor continues as if it had never
# stopped.

with tempfile.TemporaryDirectory() as folder:
    file = monitor.save(Path(folder) / "monitor.json")
    loaded = FairnessMonitor.load(file)
    print(f"{file.stat().st_size:,} bytes, {loaded!r}")
