"""Cluster margins, stages 1 and 3: the adapter, the two heads, and the margin itself."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skfair.utils._random import generator


def margin_logits(cosine: torch.Tensor, margin: torch.Tensor, scale: float) -> torch.Tensor:
    """Add a margin to the angle to every class, and return the scaled cosine.

    Parameters
    ----------
    cosine : tensor of shape (n_samples, n_classes)
        Cosine of the angle between each sample and each class weight.
    margin : tensor broadcastable to `cosine`
        Margin of each sample and class, in radians.
    scale : float
        The factor *s* on the cosine.

    Returns
    -------
    tensor of shape (n_samples, n_classes)
        ``scale * cos(angle + margin)``. Past ``angle + margin = pi`` the cosine would rise
        again. There the logit is linear, ``scale * (cos(angle) - margin * sin(margin))``, as in
        the guard of ArcFace, so that a wider angle never scores higher.

    Notes
    -----
    The logit inside the loss of equation 4 in [1]_, with the guard of [2]_.

    References
    ----------
    .. [1] A. Basu, S. S. Mallick, V. B. Radhakrishnan, "Mitigating Biases in Blackbox Feature
       Extractors for Image Classification Tasks", NeurIPS 2024.
    .. [2] J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for
       Deep Face Recognition", CVPR 2019.

    Examples
    --------
    >>> import math, torch
    >>> right_angle = torch.tensor([[0.0]])
    >>> round(margin_logits(right_angle, torch.tensor(math.pi / 6), scale=8.0).item(), 4)
    -4.0
    """
    # The derivative of the sine is infinite at a cosine of +-1; the clamp makes it zero there.
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    cos_m, sin_m = margin.cos(), margin.sin()
    widened = cosine * cos_m - sine * sin_m
    return scale * torch.where(cosine > -cos_m, widened, cosine - margin * sin_m)


class Adapter(nn.Module):
    """Scale the features and map them through one hidden layer.

    Parameters
    ----------
    n_features : int
        Width of the frozen features.
    n_units : int
        Neurons of the hidden layer.
    activation : {"tanh", "relu"}
        Non-linearity; the released code has tanh in the amplifier and ReLU in the classifier.
    mean : tensor of shape (n_features,)
        Subtracted from the features.
    spread : tensor of shape ()
        Divisor of the centred features.

    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, n_features, n_units, activation, mean, spread):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.linear = nn.Linear(n_features, n_units)
        self.activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]()

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.activation(self.linear((X - self.mean) / self.spread))


class LinearNet(nn.Module):
    """Adapter and linear head: the amplifier, or a classifier without margins."""

    def __init__(self, n_classes, **adapter):
        super().__init__()
        self.adapter = Adapter(**adapter)
        self.head = nn.Linear(adapter["n_units"], n_classes)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.head(self.adapter(X))


class FeaturesAndLogits(nn.Module):
    """The features of the adapter and the logits of a :class:`LinearNet`, in this order."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        network: Any = self.network
        features = network.adapter(X)
        return torch.cat([features, network.head(features)], dim=1)


class MarginNet(nn.Module):
    """Adapter and cosine head; in training, the margin of each sample's cluster is added.

    With clusters, :meth:`forward` returns the logits inside equation 4 of the paper. Without
    clusters, it returns the scaled cosines, which predict.

    Parameters
    ----------
    margins : tensor of shape (n_clusters, n_classes)
        Margin of each class in each cluster, in radians.
    margin_std : float
        Standard deviation of the noise on the margins, in radians. Each step draws new noise
        for each sample and class.
    scale : float
        The factor *s* on the cosine.
    **adapter
        Arguments of :class:`Adapter`.
    """

    margins: torch.Tensor

    def __init__(self, margins, margin_std, scale, **adapter):
        super().__init__()
        self.adapter = Adapter(**adapter)
        self.weight = nn.Parameter(torch.empty(margins.shape[1], adapter["n_units"]))
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("margins", margins, persistent=False)
        self.margin_std = margin_std
        self.scale = scale

    def forward(self, X: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor:
        cosine = F.linear(F.normalize(self.adapter(X)), F.normalize(self.weight))
        if cluster is None:
            return self.scale * cosine
        margin = self.margins[cluster]
        if self.margin_std:
            own = generator(margin.device)
            noise = torch.empty_like(margin).normal_(generator=own)
            margin = margin + self.margin_std * noise
        return margin_logits(cosine, margin, self.scale)
