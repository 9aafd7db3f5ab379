"""A skorch net for data of any width, such as those of scikit-learn's checks."""

import torch
from skorch import NeuralNetClassifier
from torch import nn


class LazyNet(nn.Module):
    """A network for any number of features."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, X):
        return self.layers(X)


def lazy_net():
    return NeuralNetClassifier(
        LazyNet,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.05,
        max_epochs=4,
        batch_size=32,
        train_split=None,
        verbose=0,
    )
