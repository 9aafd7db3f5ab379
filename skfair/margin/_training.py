"""Cluster margins, stages 1 and 3: the samples of a fit, and the training of one network."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from skfair.base._net import TensorData, as_tensor, train_with_adam
from skfair.margin._modules import MarginNet


@dataclass(frozen=True)
class Samples:
    """What the networks are trained on.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Frozen features.
    codes : ndarray of shape (n_samples,), int64
        Classes.
    weight : ndarray of shape (n_samples,), float32
        Weights of the user, all above zero.
    clusters : ndarray of shape (n_samples,), int64, or None
        Clusters, after stage 2.
    boost : ndarray of shape (n_samples,), or None
        Factor on the weight in a weighted cross-entropy.
    """

    X: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    clusters: np.ndarray | None = None
    boost: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: np.ndarray) -> "Samples":
        """The samples of some rows."""
        parts = {name: part[rows] for name, part in vars(self).items() if part is not None}
        return replace(self, **parts)


def train_network(
    module: type[nn.Module], samples: Samples, *, weight: np.ndarray, **training: Any
) -> tuple[nn.Module, pd.DataFrame]:
    """Train one network on scaled features.

    Parameters
    ----------
    module : type
        :class:`LinearNet` or :class:`MarginNet`.
    samples : Samples
        Training data.
    weight : ndarray of shape (n_samples,)
        Weight of each sample in the loss; only their ratios count.
    **training
        What ``train_with_adam`` takes.

    Returns
    -------
    module : torch.nn.Module
        Trained, in eval mode, on the device.
    history : DataFrame
        Training loss of each epoch.
    """
    scaled = samples.X - training["module__mean"].numpy()
    scaled /= training["module__spread"].numpy()
    inputs = {"X": as_tensor(scaled)}
    if module is MarginNet:
        assert samples.clusters is not None  # the margins are by cluster
        inputs["cluster"] = as_tensor(samples.clusters)
    in_loss = as_tensor((weight / weight.mean()).astype(np.float32))
    data = TensorData(as_tensor(samples.codes), in_loss, **inputs)
    return train_with_adam(module, data, **training)
