"""
Debias a network that is already trained
========================================

A network of plain torch decides who is invited. It learned from past decisions that favoured the
north. The region of an application is not among the features, but other features reveal it. The
region is known for a small set of applications. With this set, a debiaser returns a network that
invites about the same share of both regions. That network needs no region to decide.

The data are generated, so that the truth is known. Nothing is downloaded, and no file is left
behind. Run it with::

    python examples/tables/debias_a_trained_network.py
"""

import io

import numpy as np
import torch
from fairlearn.metrics import selection_rate
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from skfair.intraprocessing import DistillationDebiaser, ThresholdDebiaser
from skfair.metrics import TradeoffDisplay, fairness_certificate, fairness_report
from skfair.utils import import_optional

# %%
# The network, trained without skfair
# -----------------------------------
# An application has three features that reveal its merit, four that reveal its region, and four
# without information. Past decisions were about merit, with a bonus for the north.


def draw(n, rng):
    """Applications, the decisions of the past, and the regions."""
    north, merit = rng.integers(2, size=n), rng.standard_normal(n)
    X = rng.standard_normal((n, 11))
    X[:, :3] += merit[:, None]
    X[:, 3:7] += 1.5 * north[:, None]
    y = merit + 0.9 * north + 0.5 * rng.standard_normal(n) > 0.75
    return X.astype("float32"), y.astype(int), np.where(north, "north", "south")


rng = np.random.default_rng(0)
X_train, y_train, _ = draw(4000, rng)  # the regions are not known here
X_debias, y_debias, region_debias = draw(2000, rng)
X_test, y_test, region_test = draw(6000, rng)

torch.manual_seed(0)
network = nn.Sequential(
    nn.Linear(11, 32), nn.ReLU(), nn.BatchNorm1d(32),
    nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.2),
    nn.Linear(32, 1),  # one logit
)  # fmt: skip
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
inputs, labels = torch.from_numpy(X_train), torch.from_numpy(y_train).float()
for _ in range(10):
    for rows in torch.randperm(len(labels)).split(64):
        logits = network(inputs[rows])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
network.eval()


def predict(module, X):
    """Predict as in production, without skfair."""
    with torch.no_grad():
        return (module(torch.from_numpy(X))[:, 0] > 0).numpy().astype(int)


# %%
# Another threshold is not enough
# -------------------------------
# Both debiasers get the trained network, rows that it was not trained on, and the regions of these
# rows. The constraint is that the selection rates differ by less than .05. The debiasers do not
# change the given network.

threshold = ThresholdDebiaser(network, constraint="demographic_parity", epsilon=0.05)
threshold.fit(X_debias, y_debias, sensitive_features=region_debias)

distilled = DistillationDebiaser(
    network, constraint="demographic_parity", epsilon=0.05, random_state=0
)
distilled.fit(X_debias, y_debias, sensitive_features=region_debias)

predictions = {
    "original": predict(network, X_test),
    "threshold": threshold.predict(X_test),  # no regions from here on
    "distilled": distilled.predict(X_test),
}
for name, predicted in predictions.items():
    shares = [predicted[region_test == region].mean() for region in ("north", "south")]
    print(
        f"{name:>9}: invites {shares[0]:4.0%} of the north and {shares[1]:4.0%} of the south, "
        f"balanced accuracy {balanced_accuracy_score(y_test, predicted):.3f}"
    )

# %%
# With one threshold for everybody, the selection rates are similar only where hardly anybody is
# invited. That meets the constraint, and is useless. The distilled network has changed in all its
# layers: it has learned to subtract the effect of the region from its features.

# %%
# Who pays
# --------
# In the report a group is a past decision and a region: "1, north" are the applications of the
# north that were accepted. The debiased network invites more of the south, both of the accepted and
# of the rejected applications, and fewer of the north. Hence two groups are "right" less often,
# where "right" means that the network agrees with decisions that favoured the north. From such
# labels no report can tell who is better off, and whether the right applications are invited.

report = fairness_report(
    y_test,
    {name: predictions[name] for name in ("original", "distilled")},
    sensitive_features={"region": region_test},
    metrics={"share invited": selection_rate},
)
print(report)

# %%
# How sure is it?
# ---------------
# ``bias_`` was measured on those of the 2,000 debiasing rows that tuned no weights. The interval
# shows how well so few rows determine the bias. A larger set would make the interval narrower.

low, high = distilled.bias_interval_
print(f"bias {distilled.bias_:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")
print(f"feasible: {distilled.feasible_}, threshold on the logit: {distilled.threshold_:+.2f}")

# %%
# There are more test rows, and neither the network nor the debiaser has seen them. They can prove
# that the selection rates of all such applications differ by less than .05, with a risk of error of
# 5 %. With ``confidence=0.95`` a debiaser keeps rows for such a proof of its own.

certificate = fairness_certificate(
    y_test, predictions["distilled"], sensitive_features=region_test, epsilon=0.05
)
print(certificate)

# %%
# ``trials_`` has all candidates. Here the candidates lie on the line from the original network
# (``step`` 0) to the distilled one (``step`` 1) and beyond, each with its best threshold. Steps
# beyond 1 can help because the features reveal the region only in part, so that the distilled
# network removes only a part of the bias. Candidates have the values that they had in the choice;
# the chosen one has the values that were measured afterwards.

columns = ["candidate", "step", "bias", "performance", "probability", "feasible"]
print(distilled.trials_[columns].to_string(float_format="{:.3f}".format))

# %%

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
TradeoffDisplay.from_estimator(distilled)
plt.suptitle("Balanced accuracy and bias of each candidate, with the constraint")
plt.show()

# %%
# Back to where the network came from
# -----------------------------------
# ``to_module`` returns a network of plain torch with the same inputs and outputs. The threshold is
# included, so that zero is the threshold of its logit. A saved network runs without skfair.

file = io.BytesIO()
torch.save(distilled.to_module(), file)
file.seek(0)
module = torch.load(file, weights_only=False)  # runs code: only from a source that you trust
same = (predict(module, X_test) == predictions["distilled"]).mean()
print(f"{same:.1%} of the predictions are those of the debiaser")
