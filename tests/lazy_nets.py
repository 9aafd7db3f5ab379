"""A skorch net for data of any width, such as those of scikit-learn's checks."""

import torch
from skorch import NeuralNetClassifier
from torch import nn


class LazyNet(nn.Module):
    """A network for any number of features."""

    def __init__(self, n_outputs=2):
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, n_outputs))

    def forward(self, X):
        return self.layers(X)


class NetForAnyClasses(NeuralNetClassifier):
    """A net with an output for each class that it is given, two at least."""

    def fit(self, X, y=None, **fit_params):
        self.set_params(module__n_outputs=max(2, len(set(y.tolist()))))
        return super().fit(X, y, **fit_params)


def lazy_net(kind=NeuralNetClassifier):
    return kind(
        LazyNet,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.05,
        max_epochs=4,
        batch_size=32,
        train_split=None,
        verbose=0,
    )
