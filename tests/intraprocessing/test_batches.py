"""Sizes of the batches that a network gets."""

import numpy as np
import pytest
import torch
from torch import nn

from skfair.intraprocessing import RandomPerturbationDebiaser, ThresholdDebiaser


class Watched(nn.Module):
    """A linear network on the mean colour that records the sizes of its inputs."""

    seen = []

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[4.0, 2.0, 0.0]]))
            self.linear.bias.fill_(-3.0)

    def forward(self, X):
        self.seen.append(X.numel())
        return self.linear(X.mean((2, 3)))


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
@pytest.mark.parametrize(
    "kind, parameters", [(ThresholdDebiaser, {}), (RandomPerturbationDebiaser, {"n_trials": 2})]
)
def test_large_images_do_not_all_go_through_a_network_at_once(kind, parameters):
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, 400))
    X = np.zeros((400, 3, 64, 64), dtype=np.float32)
    X[:, 0] += (y + rng.normal(0, 0.3, 400))[:, None, None]
    X[:, 1] += group[:, None, None]
    Watched.seen.clear()
    debiaser = kind(Watched(), output="logits", random_state=0, **parameters)
    debiaser.fit(X, y, sensitive_features=group).predict(X)
    assert max(Watched.seen) <= 1 << 22 < X.size
