"""Cluster margins, stages 1 and 3: the samples of a fit, and the training of one network."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from skfair.base._block_batches import BlockData
from skfair.base._blocks import BlockRows
from skfair.base._net import TensorData, as_tensor, train_with_adam
from skfair.margin._modules import MarginNet


@dataclass(frozen=True)
class Samples:
    """Training data of the networks.

    Attributes
    ----------
    X : ndarray or BlockRows of shape (n_samples, n_features), float32
        Frozen features.
    codes : ndarray of shape (n_samples,), int64
        Classes, as positions in ``classes_``. Each class has at least one sample.
    weight : ndarray of shape (n_samples,), float32
        Sample weights from the user, all above zero.
    clusters : ndarray of shape (n_samples,), int64, or None
        Clusters; None before stage 2.
    boost : ndarray of shape (n_samples,), or None
        Factor on the weight in a weighted cross-entropy; None for the other losses.
    """

    X: np.ndarray | BlockRows
    codes: np.ndarray
    weight: np.ndarray
    clusters: np.ndarray | None = None
    boost: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.codes.max()) + 1

    def take(self, rows: np.ndarray) -> "Samples":
        """Select the samples at some positions."""
        parts = {name: part[rows] for name, part in vars(self).items() if part is not None}
        return replace(self, **parts)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that the amplifier and the classifier share.

    Attributes
    ----------
    network_parameters : dict of str to object
        Arguments of :class:`~skfair.margin._modules.Adapter` except the activation; each name
        has the prefix ``module__``.
    lr : float
        Learning rate of Adam.
    batch_size : int
        Largest number of samples in a batch.
    device : torch.device
        Where the networks train.
    verbose : int
        Above zero, each network shows a progress bar.
    """

    network_parameters: dict[str, Any]
    lr: float
    batch_size: int
    device: torch.device
    verbose: int


def train_network(
    name: str,
    module: type[nn.Module],
    samples: Samples,
    settings: TrainingSettings,
    *,
    weight: np.ndarray,
    **training: Any,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train one network.

    Parameters
    ----------
    name : str
        Name on the progress bar.
    module : type
        :class:`LinearNet` or :class:`MarginNet`.
    samples : Samples
        Training data.
    settings : TrainingSettings
        Settings that both networks share.
    weight : ndarray of shape (n_samples,)
        Weight of each sample in the loss; only the ratios of the weights count.
    **training
        The other arguments of ``train_with_adam``.

    Returns
    -------
    module : torch.nn.Module
        Trained, in eval mode, on the device.
    history : DataFrame
        Training loss of each epoch.
    """
    inputs = {}
    if module is MarginNet:
        assert samples.clusters is not None  # the margins are by cluster
        inputs["cluster"] = as_tensor(samples.clusters)
    in_loss = as_tensor((weight / weight.mean()).astype(np.float32))
    codes, X = as_tensor(samples.codes), samples.X
    if isinstance(X, BlockRows):
        data: TensorData = BlockData(codes, in_loss, X=X, **inputs)
    else:
        data = TensorData(codes, in_loss, X=as_tensor(X), **inputs)
    return train_with_adam(
        module,
        data,
        device=settings.device,
        batch_size=settings.batch_size,
        lr=settings.lr,
        description=name if settings.verbose else None,
        **training,
        **settings.network_parameters,
    )
