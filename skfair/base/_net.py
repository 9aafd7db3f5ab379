"""The skorch net that trains every skfair estimator: it slices tensors and weights losses."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import skorch
import torch
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import nn
from torch.optim.lr_scheduler import LinearLR, OneCycleLR
from torch.utils.data import Dataset

from skfair.base._blocks import BlockRows
from skfair.base._threads import few_threads
from skfair.utils._progress import progress_bar
from skfair.utils._random import draws_nothing, generator, own_draws, own_generators
from skfair.utils._shown import shown

# The value of the released code of cluster margins. On held-out training faces it improved the
# worst group by 1 to 5 points.
_GRADIENT_NORM = 0.25
_ALIGNMENT = 64  # bytes, as memory of torch has on the CPU
_NUMBERS_AT_ONCE = 1 << 22
_NUMBERS_OF_NOISE = 1 << 18
_ROWS_OF_NOISE = 3

Network = TypeVar("Network", bound=nn.Module)


def rows_at_once(n_numbers: int) -> int:
    """Tell how many rows to run through a network at once.

    Parameters
    ----------
    n_numbers : int
        Numbers in a row. Larger rows give fewer at once, since the layers' outputs for images are
        larger still.

    Returns
    -------
    int
        From 1 to 8192.
    """
    return min(max(1, _NUMBERS_AT_ONCE // max(1, n_numbers)), 8192)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """View an array as a tensor, or copy the array if torch cannot view it.

    Torch has no read-only tensors, and warns for each read-only array (a memmap, joblib's). It has
    no negative strides, no long doubles and only the native byte order. The rows of the tensor are
    contiguous, so that equal values give equal bits whatever the layout of the array.
    """
    dtype = np.float64 if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # too large values become infinity, which later checks report
        array = array.astype(dtype, copy=False)
    # One row of an array in reverse is contiguous, and has a negative stride all the same.
    viewed = (
        array.flags.writeable and array.flags.c_contiguous and min(array.strides, default=0) >= 0
    )
    return torch.from_numpy(array if viewed else array.copy())


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose memory starts where that of a new tensor would; copy it if needed.

    Kernels treat numbers in front of the first aligned address apart. Without this function, a
    slice of an array can give other bits than its copy.
    """
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def load_weights(module: Network, weights: Mapping[str, torch.Tensor], what: str) -> Network:
    """Load weights from a file into a network, if names, shapes and dtypes match.

    Parameters
    ----------
    module : torch.nn.Module
        A ready network, or one on the device "meta", which takes no memory before the shapes are
        compared.
    weights : dict of str to tensor
        The state of such a network.
    what : str
        Its name in messages.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    ValueError
        The names, shapes or dtypes differ.
    """
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in module.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in weights.items()}
    if wanted != found:
        differing = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        name = differing[0]
        raise ValueError(
            f"{what} is not the network whose weights were saved: {shown(name)} is "
            f"{_described(wanted.get(name))} in the network and {_described(found.get(name))} in "
            "the file"
            f"{f', and {len(differing)} tensors differ in all' if len(differing) > 1 else ''}. "
            "Pass the network that was saved."
        )
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        # The tensors become the weights. Names that share a weight go on sharing it.
        own = dict(module.named_parameters(remove_duplicate=False))
        made: dict[int, torch.Tensor] = {}
        assigned = {
            name: made.setdefault(id(own[name]), nn.Parameter(tensor, own[name].requires_grad))
            if name in own
            else tensor
            for name, tensor in weights.items()
        }
        module.load_state_dict(assigned, assign=True)
    else:
        for buffer in module.buffers():
            steps = zip(buffer.stride(), buffer.shape, strict=True)
            if any(step == 0 and size > 1 for step, size in steps):
                buffer.data = buffer.clone()  # torch does not write to an expanded tensor
        module.load_state_dict(weights)
    return module


def _described(tensor: tuple | None) -> str:
    return "not" if tensor is None else f"{tensor[1]} of shape {tensor[0]}"


def noise(draw: Callable[..., np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    """Draw a few samples whose outputs show whether two networks are the same.

    Parameters
    ----------
    draw : callable
        Method of a NumPy generator: ``standard_normal`` or ``random``.
    shape : tuple of int
        Shape of one sample.

    Returns
    -------
    ndarray of shape (3, *shape), float32, or None
        None if the samples are so large that a run of a network on them takes long.
    """
    if math.prod(shape) > _NUMBERS_OF_NOISE:
        return None
    return draw((_ROWS_OF_NOISE, *shape), dtype=np.float32)


class TensorData(Dataset):
    """Samples held as tensors, indexed a batch at a time.

    Parameters
    ----------
    target : tensor of shape (n_samples,)
        Targets of the loss.
    weight : tensor of shape (n_samples,), optional
        Weight of each sample in the loss; 1 by default.
    **inputs : tensors of shape (n_samples, ...), or other rows with an index
        Arguments of the module's ``forward``, by name. Data of a method for each sample (its
        cluster, its group) belong here: skorch passes whole fit parameters to each batch.
    """

    def __init__(self, target: torch.Tensor, weight: torch.Tensor | None = None, **inputs: Any):
        self.inputs = inputs
        self.target = target
        self.weight = torch.ones(len(target), device=target.device) if weight is None else weight

    def to(self, device: torch.device) -> "TensorData":
        """Return the data on a device; frozen features are small enough to stay there."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return TensorData(self.target.to(device), self.weight.to(device), **inputs)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index):
        inputs = {name: tensor[index] for name, tensor in self.inputs.items()}
        return inputs, (self.target[index], self.weight[index])

    def batches(self, order: torch.Tensor | None, batch_size: int) -> Iterator:
        """Yield the samples in batches, in an order; None is the order of the samples."""
        if order is not None:
            order = order.to(self.target.device)
        n = len(self) if order is None else len(order)
        for start in range(0, n, batch_size):
            batch = slice(start, start + batch_size)
            yield self[batch if order is None else order[batch]]


class TensorBatches:
    """Iterate over :class:`TensorData` in slices, as an iterator of skorch.

    A ``DataLoader`` collates single samples, which on frozen features takes several times
    longer than the training step.

    Parameters
    ----------
    dataset : TensorData
        The samples.
    batch_size : int
        Samples in a batch; the last one may be smaller.
    shuffle : bool, default=False
        Whether to use a new random order in each pass.
    sampling_weight : tensor of shape (n_samples,), optional
        Draw with replacement, each sample with a probability proportional to its weight,
        instead of going through all of them.
    """

    def __init__(
        self,
        dataset: TensorData,
        batch_size: int,
        shuffle: bool = False,
        sampling_weight: torch.Tensor | None = None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.cumulated = None
        if sampling_weight is not None:
            self.cumulated = sampling_weight.double().cumsum(0)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def _order(self) -> torch.Tensor | None:
        # Drawn on the CPU, so that a seed gives the same batches on every device.
        n = len(self.dataset)
        if self.cumulated is not None:
            # By bisection of the cumulated weights: torch.multinomial takes at most 2**24 samples.
            u = torch.rand(self._n_draws(), dtype=torch.float64, generator=generator())
            u *= self.cumulated[-1]
            return torch.searchsorted(self.cumulated, u, right=True).clamp_(max=n - 1)
        return torch.randperm(n, generator=generator()) if self.shuffle else None

    def _n_draws(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator:
        return self.dataset.batches(self._order(), self.batch_size)


class FullBatches(TensorBatches):
    """Draws enough samples to fill the last batch: batch normalisation fails on one sample."""

    def _n_draws(self) -> int:
        return len(self) * self.batch_size


class TensorNet(skorch.NeuralNet):
    """skorch net over :class:`TensorData` with a weighted loss and few callbacks.

    ``criterion`` is called with ``reduction="none"`` semantics: it returns one loss for each
    sample; the batch loss is their weighted mean.
    """

    def __init__(self, module, criterion, **kwargs):
        kwargs.setdefault("iterator_train", TensorBatches)
        kwargs.setdefault("iterator_valid", TensorBatches)
        kwargs.setdefault("train_split", None)
        kwargs.setdefault("verbose", 0)
        super().__init__(module, criterion, **kwargs)

    @property
    def _default_callbacks(self):
        return [
            ("train_loss", skorch.callbacks.PassthroughScoring(name="train_loss", on_train=True))
        ]

    def initialize(self):
        with own_draws():  # of the initial weights
            super().initialize()
        self.draws_nothing_ = draws_nothing(self.module_)
        return self

    def on_epoch_begin(self, net, **kwargs):
        if self.history:  # the losses of single batches; 10^6 samples have 16,000 in each epoch
            self.history[-1]["batches"].clear()
        super().on_epoch_begin(net, **kwargs)

    def _set_training(self, training=True):
        # skorch sets the mode of every layer at each step, a tenth of the step of a small network.
        parts = (getattr(self, f"{name}_") for name in self._modules + self._criteria)
        if any(layer.training != training for part in parts for layer in part.modules()):
            super()._set_training(training)

    def infer(self, x, **fit_params):
        with nullcontext() if self.draws_nothing_ else own_draws():
            return super().infer(x, **fit_params)

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        # skorch's method ends the training on KeyboardInterrupt without an error. Then a partly
        # trained network would look like a fitted one.
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, **fit_params)
            self.optimizer_.zero_grad()  # the last gradients take the memory of the network
            if not _are_finite(self.module_):
                raise ValueError(
                    f"Training diverged: the weights of the network are infinite or NaN after "
                    f"{len(self.history)} epochs with lr={self.lr:g}. Lower lr, or put a scaler "
                    "before the estimator if the features are not of the order of 1."
                )
        finally:
            self.notify("on_train_end", X=X, y=y)
        return self

    def get_loss(self, y_pred, y_true, X=None, training=False):
        target, weight = y_true
        return (self.criterion_(y_pred, target) * weight).mean()


def _are_finite(module: nn.Module) -> bool:
    # In pieces: `isfinite` makes tensors of more than the size of its argument.
    pieces = (
        piece
        for parameter in module.parameters()
        for piece in parameter.detach().reshape(-1).split(_NUMBERS_AT_ONCE)
    )
    return all(piece.isfinite().all() for piece in pieces)


class EpochBar(Callback):
    """A progress bar over the epochs, with the last training loss."""

    def __init__(self, description: str):
        self.description = description

    def on_train_begin(self, net, **kwargs):
        self.bar_ = progress_bar(self.description, total=net.max_epochs, unit="epoch")

    def on_epoch_end(self, net, **kwargs):
        self.bar_.set_postfix(loss=f"{net.history[-1, 'train_loss']:.3f}", refresh=False)
        self.bar_.update()

    def on_train_end(self, net, **kwargs):
        self.bar_.close()


def train_with_adam(
    module: type[nn.Module],
    data: TensorData,
    *,
    seed: int,
    device: torch.device,
    batch_size: int,
    max_epochs: int,
    anneal: bool,
    description: str | None,
    **net_parameters: Any,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train a classifier of features by cross-entropy.

    Parameters
    ----------
    module : type
        The network; its ``forward`` takes the inputs of `data` and returns logits.
    data : TensorData
        Classes, weights in the loss and inputs.
    seed : int
        Seeds the initial weights, the batches and the random draws of the network.
    device : torch.device
        Where to train.
    batch_size : int
        Largest number of samples in a batch. An epoch has at least ten batches, so that a fixed
        number of epochs gives enough steps for small data too.
    max_epochs : int
        Passes over the data.
    anneal : bool
        Whether the learning rate falls linearly, to zero after the last batch, and the norm of
        the gradient is clipped.
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
    batch_size = min(batch_size, max(1, len(data) // 10))
    callbacks: list[Callback] = []
    if anneal:
        n_steps = max_epochs * -(-len(data) // batch_size)
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
    with own_generators(seed):
        net.initialize()
        n_weights = sum(parameter.numel() for parameter in net.module_.parameters())
        with few_threads(batch_size * n_weights):
            net.partial_fit(data.to(device), None)
    history = pd.DataFrame({"train_loss": net.history[:, "train_loss"]}).rename_axis("epoch")
    return net.module_.eval(), history


def one_cycle(lr: float, n_steps: int, *, anneal: str) -> LRScheduler:
    """Let the learning rate rise over the first tenth of a training, then fall to zero.

    Parameters
    ----------
    lr : float
        The highest learning rate.
    n_steps : int
        Number of batches in the whole training, 1 or more.
    anneal : {"cos", "linear"}
        How it rises and falls.

    Returns
    -------
    skorch.callbacks.LRScheduler
    """
    return LRScheduler(
        OneCycleLR,
        step_every="batch",
        event_name=None,
        max_lr=lr,
        total_steps=n_steps + 1,
        # At least one step: torch divides by zero if the rise has no step.
        pct_start=max(0.1, 2 / (n_steps + 1)),
        anneal_strategy=anneal,
        cycle_momentum=False,
    )


@torch.no_grad()
def forward_batches(
    run: Callable[[torch.Tensor], torch.Tensor],
    X: np.ndarray | BlockRows,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Run rows through a network without gradients, a batch at a time.

    Parameters
    ----------
    run : callable
        The network, on `device` and in eval mode, or a function that runs the network.
    X : ndarray or BlockRows of shape (n_samples, ...)
        Rows; only a batch of them is on the device at once.
    batch_size : int
        Rows in a batch.
    device : torch.device
        Device of the network.
    dtype : torch.dtype, optional
        Dtype in which the network computes; each batch is cast to it.

    Returns
    -------
    tensor of shape (n_samples, ...)
        The outputs, on the CPU.
    """
    out = torch.empty(0)
    for start in range(0, max(len(X), 1), batch_size):
        found = run(aligned(as_tensor(X[start : start + batch_size]).to(device, dtype)))
        if start == 0:  # many small tensors between large ones would scatter the memory
            out = found.new_empty((len(X), *found.shape[1:]), device="cpu")
        out[start : start + batch_size] = found
    return out
