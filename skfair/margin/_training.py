"""Cluster margins, stages 1 and 3: the samples of a fit, and the training of one network."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from skorch.callbacks import GradientNormClipping, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from skfair.margin._modules import MarginNet
from skfair.utils import seeded
from skfair.utils._net import EpochBar, TensorData, TensorNet, as_tensor

# The released code's. On held-out training faces it was worth 1 to 5 points in the worst group.
_GRADIENT_NORM = 0.25


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
    module: type[nn.Module],
    samples: Samples,
    *,
    weight: np.ndarray,
    seed: int,
    device: torch.device,
    batch_size: int,
    max_epochs: int,
    anneal: bool,
    description: str | None,
    **net_parameters: Any,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train one network in a skorch net.

    Parameters
    ----------
    module : type
        :class:`LinearNet` or :class:`MarginNet`.
    samples : Samples
        Training data.
    weight : ndarray of shape (n_samples,)
        Weight of each sample in the loss; only their ratios count.
    seed : int
        Seeds the initial weights, the batches and the noise.
    device : torch.device
        Where to train.
    batch_size : int
        At most so many samples in a batch, and at least ten batches in an epoch: a fixed
        number of epochs is then a sensible number of steps for small data too.
    max_epochs : int
        Passes over the data.
    anneal : bool
        Let the learning rate fall linearly, to zero after the last batch, and clip the norm
        of the gradient: what stage 3 does.
    description : str or None
        Name on the progress bar; None shows none.
    **net_parameters
        Parameters of the skorch net.

    Returns
    -------
    module : torch.nn.Module
        Trained, in eval mode, on `device`.
    history : DataFrame
        Training loss of each epoch.
    """
    scaled = samples.X - net_parameters["module__mean"].numpy()
    scaled /= net_parameters["module__spread"].numpy()
    inputs = {"X": as_tensor(scaled)}
    if module is MarginNet:
        assert samples.clusters is not None  # the margins are by cluster
        inputs["cluster"] = as_tensor(samples.clusters)
    in_loss = as_tensor((weight / weight.mean()).astype(np.float32))
    batch_size = min(batch_size, max(1, len(samples) // 10))
    callbacks = []
    if anneal:
        n_steps = max_epochs * -(-len(samples) // batch_size)
        decay = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": n_steps}
        callbacks += [
            LRScheduler(LinearLR, step_every="batch", event_name=None, **decay),
            GradientNormClipping(_GRADIENT_NORM),
        ]
    if description is not None:
        callbacks.append(EpochBar(description))
    net = TensorNet(
        module,
        nn.CrossEntropyLoss,
        criterion__reduction="none",
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        batch_size=batch_size,
        max_epochs=max_epochs,
        callbacks=callbacks,
        device=device,
        **net_parameters,
    )
    with seeded(seed, device):
        net.fit(TensorData(as_tensor(samples.codes), in_loss, **inputs).to(device), None)
    history = pd.DataFrame({"train_loss": net.history[:, "train_loss"]}).rename_axis("epoch")
    return net.module_.eval(), history
