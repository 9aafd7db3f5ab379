"""Logit adjustment, the head: linear or with a hidden layer, and the choice between the two."""

from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn

from skfair.adjustment._linear import Linear, balanced_weight, fit_softmax
from skfair.base._net import TensorData, as_tensor, train_with_adam
from skfair.utils import draw_seed

_N_UNITS = 128
_LR, _BATCH_SIZE = 5e-3, 64
_MOST_EPOCHS = 20
# The hidden layer is used above this value of McNemar's statistic.
_CLEARLY = 3.0
_MOST_COMPARED = 10_000  # samples; above that, a part of the samples is compared


class HiddenLayerNet(nn.Module):
    """One hidden layer; training adds an offset to the logits of each sample."""

    def __init__(self, n_inputs: int, n_classes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, _N_UNITS), nn.ReLU(), nn.Linear(_N_UNITS, n_classes)
        )

    def forward(self, X: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.layers(X) + offset


def fit_hidden_layer(
    Z: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    offset: np.ndarray,
    *,
    seed: int,
    device: torch.device,
    description: str | None,
) -> nn.Sequential:
    """Train a head with a hidden layer.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Projected rows.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    offset : ndarray of shape (n_samples, n_classes)
        Added to the logits in training.
    seed : int
        Seeds the initial weights and the batches.
    device : torch.device
        Where to train.
    description : str or None
        Name on the progress bar; None shows no bar.

    Returns
    -------
    torch.nn.Sequential
        Maps projected rows to logits, on `device`.
    """
    n_classes = offset.shape[1]
    data = TensorData(
        as_tensor(codes),
        as_tensor((weight / weight.mean()).astype(np.float32)),
        X=as_tensor(Z.astype(np.float32)),
        offset=as_tensor(offset.astype(np.float32)),
    )
    network, _ = train_with_adam(
        HiddenLayerNet,
        data,
        seed=seed,
        device=device,
        batch_size=_BATCH_SIZE,
        max_epochs=min(3 * n_classes, _MOST_EPOCHS),
        anneal=True,
        description=description,
        lr=_LR,
        iterator_train__shuffle=True,
        module__n_inputs=Z.shape[1],
        module__n_classes=n_classes,
    )
    layers: Any = network.layers
    return layers


def first_projected(head: nn.Sequential, projection: Linear) -> nn.Sequential:
    """Fold the projection into the head; the result is on the CPU in eval mode."""
    hidden, activation, output = (layer.cpu() for layer in head)
    weights, bias = (p.detach().numpy().astype(np.float64) for p in hidden.parameters())
    return nn.Sequential(
        as_layer(Linear(weights, bias).after(projection)), activation, output
    ).eval()


def as_layer(linear: Linear) -> nn.Linear:
    """Turn a linear map into a layer of torch, float32."""
    with torch.device("meta"):  # draws no initial weights, which would be replaced
        layer = nn.Linear(linear.coef.shape[1], len(linear.coef))
    weights = {"weight": linear.coef, "bias": linear.intercept}
    layer.load_state_dict(
        {name: torch.tensor(values, dtype=torch.float32) for name, values in weights.items()},
        assign=True,
    )
    return layer.eval()


def hidden_layer_is_better(
    Z: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    *,
    ridge: float,
    random_state: np.random.RandomState,
    device: torch.device,
) -> bool:
    """Compare both heads out-of-fold, trained without offsets.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Projected rows.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    ridge : float
        Ridge of the linear head.
    random_state : RandomState
        Draws the samples, the folds and the seed of the networks.
    device : torch.device
        Where the networks train.

    Returns
    -------
    bool
        Whether the hidden layer is clearly better in the mean over the classes: McNemar's
        statistic is above three, with the class-balanced weights of training. If one class is
        rare, unweighted accuracy would prefer the head that ignores this class.
    """
    n_classes = codes.max() + 1
    if len(Z) > _MOST_COMPARED:
        rows = train_test_split(
            np.arange(len(Z)), train_size=_MOST_COMPARED, random_state=random_state
        )[0]
        Z, codes, weight = Z[rows], codes[rows], weight[rows]
    seed, fold_seed = draw_seed(random_state), draw_seed(random_state)
    gain, variance = 0.0, 0.0
    if np.bincount(codes, minlength=n_classes).min() < 2:
        return False
    for train, test in StratifiedKFold(2, shuffle=True, random_state=fold_seed).split(Z, codes):
        balanced = balanced_weight(codes[train], weight[train])
        linear = fit_softmax(Z[train], codes[train], balanced, n_classes, ridge=ridge)
        hidden = fit_hidden_layer(
            Z[train],
            codes[train],
            balanced,
            np.zeros((len(train), n_classes)),
            seed=seed,
            device=device,
            description=None,
        )
        with torch.no_grad():
            logits = hidden(as_tensor(Z[test].astype(np.float32)).to(device)).cpu().numpy()
        before, after = (z.argmax(axis=1) == codes[test] for z in (linear(Z[test]), logits))
        change = (after.astype(float) - before) * balanced_weight(codes[test], weight[test])
        gain, variance = gain + change.sum(), variance + np.square(change).sum()
    return bool(gain > _CLEARLY * np.sqrt(variance))
