"""Intra-processing, all methods: find the user's network, read its outputs, shift its threshold."""

import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import skorch
import torch
from sklearn.frozen import FrozenEstimator
from torch import fx, nn

from skfair.base import TorchClassifier
from skfair.base._trace import of_torch_alone
from skfair.intraprocessing._half import HALF
from skfair.intraprocessing._inputs import ONE_TENSOR, ONLY, Batch, Signature, call, read_answer
from skfair.utils._labels import describe_rows

_PROBABILITY_FLOOR = 1e-7  # so that a saturated probability still has a finite logit
# The training loss of a skorch net tells the kind of its outputs.
Kind = Literal["logits", "probabilities"]
_KIND_OF_CRITERION: dict[type[nn.Module], Kind] = {
    nn.BCEWithLogitsLoss: "logits",
    nn.CrossEntropyLoss: "logits",
    nn.BCELoss: "probabilities",
    nn.NLLLoss: "probabilities",  # skorch takes the logarithm itself
}


class Output(NamedTuple):
    """Outputs of a network: logits or probabilities, and how many in a row."""

    kind: Kind
    n_columns: int


class Trained(NamedTuple):
    """The network that the user gave: its module, its kind of output and its classes."""

    module: nn.Module
    kind: Kind | None
    classes: np.ndarray | None


def find_network(estimator: Any) -> Trained | None:
    """Find the trained network in `estimator`.

    Parameters
    ----------
    estimator : torch.nn.Module, skorch net, skfair classifier, or FrozenEstimator of one

    Returns
    -------
    Trained or None
        None for a skorch net that is not fitted yet.

    Raises
    ------
    TypeError
        `estimator` holds no network.
    ValueError
        A frozen estimator or a skfair classifier is not fitted.
    """
    inner = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    if isinstance(inner, nn.Module):
        return Trained(inner, None, None)
    if isinstance(inner, skorch.NeuralNet):
        if getattr(inner, "initialized_", False):
            kinds = (k for c, k in _KIND_OF_CRITERION.items() if isinstance(inner.criterion_, c))
            # Not `classes_`, which may be names in any order: skorch trains on positions of
            # outputs as labels, and predicts such positions.
            classes = getattr(inner, "classes_inferred_", None)
            return Trained(inner.module_, next(kinds, None), classes)
        if inner is estimator:
            return None
    elif isinstance(inner, TorchClassifier):
        if hasattr(inner, "module_"):
            output = getattr(inner, "_output", None)
            classes = inner.classes_.copy()
            classes[getattr(inner, "_order", ...)] = inner.classes_  # in the order of the outputs
            return Trained(inner.module_, output.kind if output else "logits", classes)
    else:
        raise TypeError(
            f"estimator is {type(inner).__name__}, expected a trained torch.nn.Module, a skorch "
            "net or a fitted skfair classifier (each also in FrozenEstimator). Put scalers and "
            "other transformers before the debiaser in a Pipeline. For a model without a network, "
            "see fairlearn.postprocessing.ThresholdOptimizer."
        )
    raise ValueError(
        f"estimator holds a {type(inner).__name__} that is not fitted. Fit the "
        f"{type(inner).__name__} first: debiasing starts from a trained network."
    )


def _last_module(module: nn.Module) -> nn.Module:
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def find_output(
    network: nn.Module, raw: torch.Tensor, kind: Kind | None, n_classes: int = 2
) -> Output:
    """Find the kind of a network's outputs, or check the kind that was given.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    raw : tensor of shape (n_samples, ...)
        Its outputs for all debiasing rows.
    kind : {"logits", "probabilities"} or None
        Kind of the outputs. None finds it: outputs are probabilities after a final ``Sigmoid`` or
        ``Softmax`` of a ``Sequential``, or if the values of each row lie in [0, 1] and sum to
        one; outputs are logits if a value lies outside [0, 1].
    n_classes : int, default=2
        Number of classes. Each class has an output; two classes may share one.

    Returns
    -------
    Output

    Raises
    ------
    ValueError
        The number of outputs in a row does not fit the classes. Outputs are not finite. Outputs
        of kind "probabilities" lie outside [0, 1]. Outputs of unknown kind could be either.
    """
    shape = tuple(raw.shape)
    if n_classes == 2 and (raw.ndim not in (1, 2) or (raw.ndim == 2 and shape[1] not in (1, 2))):
        raise ValueError(
            f"The network in estimator returns an array of shape {shape}, expected one or two "
            f"values for each row, shape ({shape[0]},), ({shape[0]}, 1) or ({shape[0]}, 2): y "
            "holds two classes, and this is binary classification. Give a network for two classes."
        )
    if n_classes > 2 and shape != (len(raw), n_classes):
        raise ValueError(
            f"The network in estimator returns an array of shape {shape}, expected {n_classes} "
            f"values for each row, shape ({shape[0]}, {n_classes}): y holds {n_classes} classes, "
            f"or the network was trained for {n_classes}. Give a network with an output for each "
            "class, or labels of as many classes as the network has outputs."
        )
    n_columns = shape[1] if raw.ndim == 2 else 1
    finite = raw.reshape(len(raw), -1).isfinite().all(1)
    if not finite.all():
        raise ValueError(
            "The network in estimator returns NaN or infinity for "
            f"{describe_rows(~finite.numpy())}. Check these rows of X, and that the network was "
            "trained without overflow."
        )
    close = max(1e-3, torch.finfo(raw.dtype).eps) if raw.is_floating_point() else 1e-3
    raw = at_least_single(raw)
    low, high = raw.min().item(), raw.max().item()
    sums = n_columns > 1 and bool((raw.sum(1) - 1).abs().max() < close)
    bounded = low >= 0 and high <= 1 and (n_columns == 1 or sums)
    if kind == "probabilities" and not bounded:
        raise ValueError(
            f"The outputs of estimator are expected to be probabilities, but reach from {low:.3g} "
            f"to {high:.3g}{'' if n_columns == 1 else f', {n_columns} in a row'}. Probabilities "
            "lie in [0, 1], and several in a row sum to one. Set output='logits' if the outputs "
            "are logits."
        )
    last = _last_module(network)
    if kind == "logits" and isinstance(last, nn.Sigmoid | nn.Softmax):
        raise ValueError(
            "The outputs of estimator are expected to be logits (by the parameter output, or by "
            "the training loss of the skorch net), but the last module of the network is "
            f"{type(last).__name__}. Set output='probabilities', or give the network without its "
            "last module."
        )
    if kind is None and isinstance(last, nn.Sigmoid | nn.Softmax):
        kind = "probabilities"
    if kind is None and bounded and n_columns == 1:
        raise ValueError(
            "The network in estimator returns one value for each row, and all values lie between "
            "0 and 1 on these data. They may be probabilities or small logits. Set "
            "output='probabilities' or output='logits'."
        )
    return Output(kind or ("probabilities" if bounded else "logits"), n_columns)


def at_least_single(raw: torch.Tensor) -> torch.Tensor:
    """Convert half precision to float32: NumPy lacks bfloat16, and 1 - 1e-7 is 1 in half."""
    if isinstance(raw, fx.Proxy):  # one step of a trace: conditions cannot be traced
        return raw.tracer.create_proxy("call_function", at_least_single, (raw,), {})
    return raw.float() if raw.dtype in HALF else raw


def as_logits(raw: torch.Tensor, output: Output) -> torch.Tensor:
    """Convert outputs of a network to logits.

    Parameters
    ----------
    raw : tensor of shape (n_samples, n_columns), or (n_samples,) for one column
        Outputs.
    output : Output
        Their kind.

    Returns
    -------
    tensor of the same shape
        The log-odds of one probability, the logarithms of several; logits as they are.
    """
    if output.kind == "logits":
        return raw
    if output.n_columns == 1:
        return torch.special.logit(raw, eps=_PROBABILITY_FLOOR)
    return raw.clamp_min(_PROBABILITY_FLOOR).log()


def as_logit(raw: torch.Tensor, output: Output) -> torch.Tensor:
    """Convert outputs of a network to one logit for each row: second class minus first class.

    Parameters
    ----------
    raw : tensor of shape (n_samples, n_columns), or (n_samples,) for one column
        Outputs.
    output : Output
        Their kind.

    Returns
    -------
    tensor of shape (n_samples,)
    """
    logits = as_logits(at_least_single(raw), output)
    return logits[:, 1] - logits[:, 0] if output.n_columns == 2 else logits.reshape(-1)


def as_outputs(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """Convert logits to outputs of a kind, the reverse of :func:`as_logits`.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_columns), or (n_samples,) for one column
        Logits.
    output : Output
        The kind of the outputs.

    Returns
    -------
    tensor of the same shape
    """
    if output.kind == "logits":
        return logits
    return torch.sigmoid(logits) if output.n_columns == 1 else torch.softmax(logits, dim=1)


class LogitNetwork(nn.Module):
    """A network that returns one logit for each row: second class minus first class.

    Parameters
    ----------
    network : torch.nn.Module
        The user's network, or a copy.
    output : Output
        The kind of its outputs.
    """

    def __init__(self, network: nn.Module, output: Output):
        super().__init__()
        self.network = network
        self.output = output
        self.eval()

    def train(self, mode: bool = True) -> "LogitNetwork":
        """Keep the eval mode.

        Debiasing sets are small: batch statistics and dropout would add more noise than they
        regularise. Candidates are measured in eval mode.
        """
        return super().train(False)

    def forward(self, X: Batch) -> torch.Tensor:
        return as_logit(call(self.network, X), self.output)


class _Shift(nn.Module):
    """Shift the logit in outputs and return outputs of the same kind.

    Outputs in half precision become float32: a threshold lies between two of their values, and
    half precision would round it to one of these.
    """

    # Known beforehand, since a graph of operations cannot ask for the type of a tensor.
    _of_half = False

    def __init__(self, output: Output, threshold: torch.Tensor, *, of_half: bool):
        super().__init__()
        self.output = output
        self._of_half = of_half
        shift = [0.0, threshold.item()] if output.n_columns == 2 else threshold.item()
        self.register_buffer("shift", torch.tensor(shift, dtype=threshold.dtype))

    def forward(self, raw):
        logits = as_logits(raw.float() if self._of_half else raw, self.output)
        return as_outputs(logits - self.shift, self.output)


class CalledAsGiven(nn.Sequential):
    """Parts in a sequence, whose first is called as the user's network is.

    Parameters
    ----------
    first, *others : torch.nn.Module
        The user's network, or one that is called like it, and what changes its outputs.
    signature : Signature
    names : sequence of str
        Names of the arguments of a call by name, for an export.
    """

    def __init__(self, *parts: nn.Module, signature: Signature, names: Sequence[str]):
        super().__init__(*parts)
        self.signature, self.names = signature, tuple(names)

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        first, *others = self
        raw = read_answer(first(*args, **kwargs))
        for other in others:
            raw = other(raw)
        return raw

    def written_out(self) -> nn.Module:
        """Write the module as a graph, without skfair; its arguments have their names."""
        parts = dict(self.named_children())
        graph = fx.Graph()
        form, _, answer = self.signature
        order = [f"X{name}" if form == "tuple" else name for name in self.names]
        inputs = [graph.placeholder(name) for name in order]
        by_name = form == "dict"
        raw = graph.call_module(
            "0",
            () if by_name else tuple(inputs),
            dict(zip(self.names, inputs, strict=True)) if by_name else {},
        )
        if answer == "attribute":
            raw = graph.call_function(getattr, (raw, "logits"))
        elif answer != "tensor":
            raw = graph.call_function(operator.getitem, (raw, "logits" if answer == "item" else 0))
        parts = {name: of_torch_alone(part) for name, part in parts.items()}
        for name in list(parts)[1:]:
            raw = graph.call_module(name, (raw,))
        graph.output(raw)
        return fx.GraphModule(nn.ModuleDict(parts), graph)


def in_sequence(
    *parts: nn.Module, signature: Signature, names: Sequence[str] = (ONLY,)
) -> nn.Sequential:
    """Put modules behind the user's network; the result is called as the network is.

    Parameters
    ----------
    *parts : torch.nn.Module
        The network, or one that is called like it, then modules of one tensor.
    signature : Signature
    names : sequence of str
        Names of the parts of a batch.

    Returns
    -------
    torch.nn.Sequential
        In eval mode; it returns a tensor.
    """
    if (signature.form, signature.answer) == ("array", "tensor"):
        return nn.Sequential(*parts).eval()
    return CalledAsGiven(*parts, signature=signature, names=names).eval()


def fold_threshold(
    network: nn.Module,
    output: Output,
    threshold: float,
    signature: Signature = ONE_TENSOR,
    names: Sequence[str] = (ONLY,),
) -> nn.Sequential:
    """Shift the outputs of a network, so that the usual threshold, 0 or 0.5, is the right one.

    Parameters
    ----------
    network : torch.nn.Module
        A network like the user's; the result contains it, not a copy.
    output : Output
        The kind of its outputs.
    threshold : float
        Threshold on the logit of :class:`LogitNetwork`.
    signature : Signature, optional
        How the network is called; by default with one tensor, which gives one tensor.
    names : sequence of str, optional
        Names of the parts of a batch.

    Returns
    -------
    torch.nn.Sequential
        The network and the shift, called as the network is. It returns a tensor, in float32 for a
        network in half precision.
    """
    weight = next((p for p in network.parameters() if p.is_floating_point()), None)
    dtype, device = (torch.float32, None) if weight is None else (weight.dtype, weight.device)
    exact = dtype if dtype == torch.float64 else torch.float32
    of_half = any(tensor.dtype in HALF for tensor in (*network.parameters(), *network.buffers()))
    shift = _Shift(output, torch.tensor(threshold, dtype=exact), of_half=of_half)
    return in_sequence(network, shift.to(device), signature=signature, names=names)
