"""A task on which fine-tuning has something to gain: groups with unlike shares of positives."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from skfair.intraprocessing import ThresholdDebiaser
from skfair.utils._random import seeded


def pytest_collection_modifyitems(items):
    # Most networks here were never trained, and half of such are worse than guessing.
    ignored = pytest.mark.filterwarnings("ignore::skfair.utils.LabelOrderWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != "test_label_order.py":
            item.add_marker(ignored)


class Task:
    """Two thousand rows, fresh ones, and a small network trained for a moment on others.

    The groups are features, and the share of positives goes from .3 in the first to .7 in the
    last, so that a network trained without regard to them shifts its scores by group.
    """

    def __init__(self, n_groups: int):
        self.n_groups = n_groups
        self.X, self.y, self.groups = self.draw(2000, seed=0)
        self.fresh = self.draw(20_000, seed=1)
        self.network = self._train()
        self.threshold_only = cache(self._threshold_only)

    def draw(self, n: int, seed: int):
        rng = np.random.default_rng(seed)
        groups = rng.integers(self.n_groups, size=n)
        y = (rng.random(n) < 0.3 + 0.4 * groups / (self.n_groups - 1)).astype(np.int64)
        shown = groups[:, None] == np.arange(1, self.n_groups)
        X = np.column_stack([2 * y + rng.normal(size=n), shown, rng.normal(size=n)])
        return X.astype(np.float32), y, groups

    def _train(self) -> nn.Module:
        X, y, _ = self.draw(4000, seed=2)
        X, y = torch.tensor(X), torch.tensor(y, dtype=torch.float32)
        with seeded(0):
            network = nn.Sequential(nn.Linear(X.shape[1], 32), nn.ReLU(), nn.Linear(32, 1))
            optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
            for _ in range(100):
                optimizer.zero_grad()
                loss = nn.functional.binary_cross_entropy_with_logits(network(X)[:, 0], y)
                loss.backward()
                optimizer.step()
        optimizer.zero_grad()
        return network.eval()

    def on_fresh_rows(self, debiaser, constraint: str) -> tuple[float, float]:
        """Bias without a sign, and balanced accuracy."""
        X, y, groups = self.fresh
        predicted = debiaser.predict(X)
        bias = self.gap(y, groups, predicted, constraint)
        return bias, balanced_accuracy_score(y, predicted)

    def gap(self, y, groups, predicted, constraint: str) -> float:
        """The largest difference between groups."""

        def spread(*labels):
            rates = np.array(
                [
                    [predicted[(groups == g) & np.isin(y, label)].mean() for label in labels]
                    for g in range(self.n_groups)
                ]
            )
            return rates

        largest = {
            "demographic_parity": lambda: np.ptp(spread([0, 1])),
            "equal_opportunity": lambda: np.ptp(spread([1])),
            "average_odds": lambda: np.ptp(spread([0], [1]).mean(1)),
            "equalized_odds": lambda: np.ptp(spread([0], [1]), axis=0).max(),
        }[constraint]()
        return float(largest)

    def fit(self, debiaser):
        return debiaser.fit(self.X, self.y, sensitive_features=self.groups)

    def _threshold_only(self, constraint: str) -> float:
        """Balanced accuracy on fresh rows of the best threshold that meets the constraint."""
        if self.n_groups == 2:
            debiaser = ThresholdDebiaser(self.network, constraint=constraint, random_state=0)
            self.fit(debiaser)
            return self.on_fresh_rows(debiaser, constraint)[1]
        with torch.no_grad():
            logit = self.network(torch.tensor(self.X))[:, 0].numpy()
            fresh = self.network(torch.tensor(self.fresh[0]))[:, 0].numpy()
        found = []
        for threshold in np.quantile(logit, np.linspace(0.01, 0.99, 99)):
            predicted = logit > threshold
            bias = self.gap(self.y, self.groups, predicted, constraint)
            if bias < 0.05:
                found.append((balanced_accuracy_score(self.y, predicted), threshold))
        return balanced_accuracy_score(self.fresh[1], fresh > max(found)[1])


@pytest.fixture(scope="session")
def task():
    """Makes the task for a number of groups, once."""
    return cache(Task)
