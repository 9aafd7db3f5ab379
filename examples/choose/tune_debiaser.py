"""
Choose a debiaser under a fairness constraint
=============================================

Hyperparameters decide how strongly a debiaser corrects a trained network. A grid search chooses
them on data with known groups. It takes the best balanced accuracy among the candidates whose
selection rates differ by little enough on held-out rows. Then the same two lines, ``scoring=`` and
``refit=``, choose a ``LogisticRegression`` and fairlearn's ``ThresholdOptimizer`` and
``ExponentiatedGradient``.

The data are generated. Run it with::

    python examples/choose/tune_debiaser.py
"""

import numpy as np
import sklearn
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skfair import AdversarialFinetuneDebiaser
from skfair.metrics import (
    GroupMetricsDisplay,
    TradeoffDisplay,
    fairness_report,
    make_fairness_scorer,
)
from skfair.model_selection import GroupStratifiedKFold, constrained_refit, pareto_front
from skfair.utils import import_optional

# %%
# A trained network
# -----------------
# Applications, with past decisions that favoured the north; the region itself is not a feature.


def draw(n, rng):
    north, merit = rng.integers(2, size=n), rng.standard_normal(n)
    X = 10 + 3 * rng.standard_normal((n, 8))
    X[:, :3] += 3 * merit[:, None]
    X[:, 3:6] += 3 * north[:, None]
    y = merit + 1.5 * north + 0.5 * rng.standard_normal(n) > 0.75
    return X, y.astype(int), np.where(north, "north", "south")


rng = np.random.default_rng(0)
X_train, y_train, _ = draw(4000, rng)
X_debias, y_debias, region_debias = draw(4000, rng)
X_test, y_test, region_test = draw(8000, rng)

scaler = StandardScaler().fit(X_train)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
inputs = torch.from_numpy(scaler.transform(X_train)).float()
labels = torch.from_numpy(y_train).float()
for _ in range(10):
    for rows in torch.randperm(len(labels)).split(64):
        logits = network(inputs[rows])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# The two lines
# -------------
# ``scoring=`` has two scores: the balanced accuracy of all rows, and the difference between the
# selection rates of the regions, which is negative as a score. ``refit=`` takes the candidate with
# the best balanced accuracy among those whose difference is at most .1. The folds contain each
# decision of each region. Both scorers request the regions by themselves. Only scikit-learn's
# metadata routing has to be switched on.

scoring = {
    "balanced accuracy": make_fairness_scorer(balanced_accuracy_score, "overall"),
    "demographic parity": make_fairness_scorer("demographic_parity"),
}
refit = constrained_refit(
    performance="balanced accuracy", disparity="demographic parity", max_disparity=0.1
)
folds = GroupStratifiedKFold(4, shuffle=True, random_state=0)


def choose(estimator, grid):
    search = GridSearchCV(estimator, grid, scoring=scoring, refit=refit, cv=folds, n_jobs=2)
    with sklearn.config_context(enable_metadata_routing=True):
        return search.fit(X_debias, y_debias, sensitive_features=region_debias)


search = choose(
    make_pipeline(
        FrozenEstimator(scaler),  # fitted before the network was trained
        AdversarialFinetuneDebiaser(network, constraint="demographic_parity", random_state=0),
    ),
    {
        "adversarialfinetunedebiaser__epsilon": [0.03, 0.1, 0.3],
        "adversarialfinetunedebiaser__penalty": [2.0, 20.0],
    },
)
print(f"chosen: {search.best_params_}")
front = pareto_front(search, performance="balanced accuracy", disparity="demographic parity")
print(front.to_string(index=False, float_format="{:.3f}".format))

# %%
# The picture shows every candidate with its standard error over the folds, the constraint, and the
# Pareto front: the candidates that no other candidate beats in both scores.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
TradeoffDisplay.from_estimator(search)
plt.suptitle("Balanced accuracy and difference of the selection rates, each candidate")
plt.show()

# %%
# The chosen model and the plain one
# ----------------------------------
# Both models are compared on rows that chose nothing. The constraint was parity, and the chosen
# model has parity. The report shows who pays, group by group. Measured by the past decisions, which
# favoured the north, the errors of the chosen model are more unequal than those of the plain one.
# Whether that is an objection depends on the quality of these decisions.

with torch.no_grad():
    logits = network(torch.from_numpy(scaler.transform(X_test)).float())[:, 0]
predictions = {"plain": (logits > 0).numpy().astype(int), "chosen": search.predict(X_test)}
report = fairness_report(y_test, predictions, sensitive_features={"region": region_test})
print(report)

# %%

GroupMetricsDisplay.from_report(report)
plt.suptitle("Accuracy of the plain and the chosen network in each group")
plt.show()

# %%
# The same two lines for other estimators
# ---------------------------------------
# A ``LogisticRegression`` takes no groups: only the scorers see them. fairlearn's
# ``ThresholdOptimizer`` needs groups to predict, too, and gets them after it has requested them.
# ``ExponentiatedGradient`` of fairlearn does not name the argument in ``fit``, so that it needs a
# subclass with the request. Both estimators draw their predictions at random. They request a seed,
# so that all scores are of the same predictions.


class RoutedExponentiatedGradient(ExponentiatedGradient):
    __metadata_request__fit = {"sensitive_features": True}
    __metadata_request__predict = {"random_state": True}


with sklearn.config_context(enable_metadata_routing=True):
    threshold = ThresholdOptimizer(estimator=LogisticRegression(), predict_method="predict_proba")
    threshold.set_fit_request(sensitive_features=True)
    threshold.set_predict_request(sensitive_features=True, random_state=True)

others = {
    "LogisticRegression": (LogisticRegression(), {"logisticregression__C": [1e-4, 1e-3, 1.0]}),
    "ThresholdOptimizer": (threshold, {"thresholdoptimizer__tol": [0.05, 0.1, 0.2]}),
    "ExponentiatedGradient": (
        RoutedExponentiatedGradient(LogisticRegression(), DemographicParity()),
        {"routedexponentiatedgradient__eps": [0.02, 0.05, 0.1]},
    ),
}
for name, (estimator, grid) in others.items():
    search = choose(make_pipeline(StandardScaler(), estimator), grid)
    accuracy, parity = (
        search.cv_results_[f"mean_test_{score}"][search.best_index_] for score in scoring
    )
    print(f"{name:>21}: balanced accuracy {accuracy:.3f}, difference {-parity:.3f}")

# %%
# No ``LogisticRegression`` meets the constraint. The search takes the least biased one, and warns.
