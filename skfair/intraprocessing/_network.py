"""Intra-processing, all methods: the user's network, read as one logit a row, and handed back."""

from typing import Any, Literal, NamedTuple

import numpy as np
import skorch
import torch
from sklearn.frozen import FrozenEstimator
from torch import fx, nn

from skfair.base import TorchClassifier
from skfair.base._networks import check_initialised, copied
from skfair.utils._labels import describe_rows

PROBABILITY_FLOOR = 1e-7  # so that a saturated probability still has a finite logit
# What the outputs of a skorch net are follows from the loss it was trained with.
Kind = Literal["logits", "probabilities"]
_KIND_OF_CRITERION: dict[type[nn.Module], Kind] = {
    nn.BCEWithLogitsLoss: "logits",
    nn.CrossEntropyLoss: "logits",
    nn.BCELoss: "probabilities",
    nn.NLLLoss: "probabilities",  # skorch takes the logarithm itself
}


class Output(NamedTuple):
    """What comes out of a network: logits or probabilities, of one class or of both."""

    kind: Kind
    n_columns: int


class Trained(NamedTuple):
    """A trained network as it was given: its module, its kind of output and its classes."""

    module: nn.Module
    kind: Kind | None
    classes: np.ndarray | None


def find_network(estimator: Any) -> Trained | None:
    """Take the network out of whatever holds it.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net, skfair classifier, or FrozenEstimator of one

    Returns
    -------
    Trained or None
        None where the estimator is a skorch net that has yet to be fitted.

    Raises
    ------
    TypeError
        It is nothing that holds a trained network.
    ValueError
        It is frozen, or a skfair classifier, and not fitted.
    """
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if isinstance(inner, nn.Module):
        return Trained(inner, None, None)
    if isinstance(inner, skorch.NeuralNet):
        if getattr(inner, "initialized_", False):
            kinds = (k for c, k in _KIND_OF_CRITERION.items() if isinstance(inner.criterion_, c))
            # Not its `classes_`, which may be names in any order: it trains on labels that are
            # positions of outputs, and predicts these.
            classes = getattr(inner, "classes_inferred_", None)
            return Trained(inner.module_, next(kinds, None), classes)
        if inner is estimator:
            return None
    elif isinstance(inner, TorchClassifier):
        if hasattr(inner, "module_"):
            output = getattr(inner, "_output", None)
            classes = inner.classes_.copy()
            classes[getattr(inner, "_order", ...)] = inner.classes_  # as the outputs are
            return Trained(inner.module_, output.kind if output else "logits", classes)
    else:
        raise TypeError(
            f"estimator is {type(inner).__name__}, where a trained torch.nn.Module, a skorch net "
            "or a fitted skfair classifier was wanted (each also in FrozenEstimator). Put scalers "
            "and other transformers before the debiaser in a Pipeline. For a model without a "
            "network see fairlearn.postprocessing.ThresholdOptimizer."
        )
    raise ValueError(
        f"estimator holds a {type(inner).__name__} that is not fitted. Fit it first: debiasing "
        "starts from a trained network."
    )


def copy_network(module: nn.Module) -> nn.Module:
    """Copy a network, so that the user's is never changed.

    Parameters with ``requires_grad=False`` stay frozen, unless all of them are.

    Raises
    ------
    ValueError
        It cannot be copied, or has no weights yet.
    """
    check_initialised(module, "estimator")
    try:
        network = copied(module)
    except Exception as error:
        raise ValueError(
            f"estimator holds a {type(module).__name__} that cannot be deep-copied "
            f"({type(error).__name__}: {error}), and the network itself is never changed. Give one "
            "without open files, locks, or tensors in the middle of a computation."
        ) from error
    parameters = [p for p in network.parameters() if p.is_floating_point()]
    if not any(p.requires_grad for p in parameters):
        for parameter in parameters:
            parameter.requires_grad_(True)
    return network


def _last_module(module: nn.Module) -> nn.Module:
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def find_output(
    network: nn.Module, raw: torch.Tensor, kind: Kind | None, n_classes: int = 2
) -> Output:
    """Find out what a network puts out, or check what was said of it.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    raw : tensor of shape (n_samples, ...)
        Its outputs for all debiasing rows.
    kind : {"logits", "probabilities"} or None
        What they are; None to find out: probabilities come out of a final ``Sigmoid`` or
        ``Softmax`` of a ``Sequential``, or are pairs that sum to one; logits are what has a
        value outside [0, 1].
    n_classes : int, default=2
        Number of classes, each of which has an output; two may share one.

    Raises
    ------
    ValueError
        Another number of outputs a row, outputs that are not finite, or outside [0, 1] although
        they are said to be probabilities, or that could be either.
    """
    shape = tuple(raw.shape)
    if n_classes == 2 and (raw.ndim not in (1, 2) or (raw.ndim == 2 and shape[1] not in (1, 2))):
        raise ValueError(
            f"estimator puts out an array of shape {shape}, where one or two values a row, shape "
            f"({shape[0]},), ({shape[0]}, 1) or ({shape[0]}, 2), were wanted: y holds two classes, "
            "and this is binary classification. Give a network for two classes."
        )
    if n_classes > 2 and shape != (len(raw), n_classes):
        raise ValueError(
            f"estimator puts out an array of shape {shape}, where {n_classes} values a row, shape "
            f"({shape[0]}, {n_classes}), were wanted: there are {n_classes} classes in y, or that "
            "the network was trained for. Give a network with an output for each class, or labels "
            "of as many classes as it has outputs."
        )
    n_columns = shape[1] if raw.ndim == 2 else 1
    finite = raw.reshape(len(raw), -1).isfinite().all(1)
    if not finite.all():
        raise ValueError(
            "estimator puts out NaN or infinity for "
            f"{describe_rows(~finite.numpy())}. Check these rows of X, and that the network was "
            "trained without overflow."
        )
    low, high = raw.min().item(), raw.max().item()
    sums = n_columns > 1 and bool((raw.sum(1) - 1).abs().max() < 1e-3)
    bounded = low >= 0 and high <= 1 and (n_columns == 1 or sums)
    if kind == "probabilities" and not bounded:
        raise ValueError(
            f"The outputs of estimator are said to be probabilities and reach from {low:.3g} to "
            f"{high:.3g}{'' if n_columns == 1 else f', {n_columns} a row'}: probabilities lie in "
            "[0, 1], and several of a row sum to one. Set output='logits' if they are logits."
        )
    last = _last_module(network)
    if kind == "logits" and isinstance(last, nn.Sigmoid | nn.Softmax):
        raise ValueError(
            f"The outputs of estimator are said to be logits (by output, or by the loss that its "
            f"skorch net was trained with), and they come out of a final {type(last).__name__}. "
            "Set output='probabilities', or give the network without its last module."
        )
    if kind is None and isinstance(last, nn.Sigmoid | nn.Softmax):
        kind = "probabilities"
    if kind is None and bounded and n_columns == 1:
        raise ValueError(
            "estimator puts out one value a row, all of them between 0 and 1 on these data, which "
            "may be probabilities or small logits. Say which: output='probabilities' or "
            "output='logits'."
        )
    return Output(kind or ("probabilities" if bounded else "logits"), n_columns)


def at_least_single(raw: torch.Tensor) -> torch.Tensor:
    """Leave half precision, which NumPy lacks, and in which no probability is near one."""
    if isinstance(raw, fx.Proxy):  # one step of a trace, which cannot follow a condition
        return raw.tracer.create_proxy("call_function", at_least_single, (raw,), {})
    return raw.float() if raw.dtype in (torch.float16, torch.bfloat16) else raw


class LogitNetwork(nn.Module):
    """A network as one logit a row: that of the second class less that of the first.

    Parameters
    ----------
    network : torch.nn.Module
        The user's network, or a copy.
    output : Output
        What it puts out.
    """

    def __init__(self, network: nn.Module, output: Output):
        super().__init__()
        self.network = network
        self.output = output
        self.eval()

    def train(self, mode: bool = True) -> "LogitNetwork":
        """Stay in eval mode.

        Debiasing sets are small: batch statistics and dropout would add more noise than they
        regularise, and a network is judged in eval mode.
        """
        return super().train(False)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.read(self.network(X))

    def read(self, raw: torch.Tensor) -> torch.Tensor:
        """Turn what the network puts out into logits.

        Returns
        -------
        tensor of shape (n_samples,)
        """
        raw = at_least_single(raw)
        if self.output.kind == "probabilities":
            if self.output.n_columns == 1:
                return torch.special.logit(raw.reshape(-1), eps=PROBABILITY_FLOOR)
            raw = raw.clamp_min(PROBABILITY_FLOOR).log()
        return raw[:, 1] - raw[:, 0] if self.output.n_columns == 2 else raw.reshape(-1)


class _Shift(nn.Module):
    """Shift the logit in outputs of one kind and leave them of that kind."""

    def __init__(self, output: Output, threshold: torch.Tensor):
        super().__init__()
        self.output = output
        shift = [0.0, threshold.item()] if output.n_columns == 2 else threshold.item()
        self.register_buffer("shift", torch.tensor(shift, dtype=threshold.dtype))

    def forward(self, raw):
        if self.output.kind == "logits":
            return raw - self.shift
        if self.output.n_columns == 1:
            return torch.sigmoid(torch.special.logit(raw, eps=PROBABILITY_FLOOR) - self.shift)
        return torch.softmax(raw.clamp_min(PROBABILITY_FLOOR).log() - self.shift, dim=1)


def fold_threshold(network: nn.Module, output: Output, threshold: float) -> nn.Sequential:
    """Put a threshold on the logit into a network, so that the usual one, 0 or 0.5, is right.

    Parameters
    ----------
    network : torch.nn.Module
        The user's kind of network; taken into the result, not copied.
    output : Output
        What it puts out.
    threshold : float
        On the scale of :class:`LogitNetwork`.

    Returns
    -------
    torch.nn.Sequential
        The network and the shift.
    """
    weight = next((p for p in network.parameters() if p.is_floating_point()), None)
    dtype, device = (torch.float32, None) if weight is None else (weight.dtype, weight.device)
    shift = _Shift(output, torch.tensor(threshold, dtype=dtype))
    return nn.Sequential(network, shift.to(device)).eval()
