"""Intra-processing, all methods: the user's network is run as it is, before anything changes."""

import torch

from skfair.base._net import rows_at_once
from skfair.base._networks import are_alike, rounding
from skfair.intraprocessing._search import named_parameters

_ASKED_AGAIN = 16  # rows that the network has to map alike in another batch
_EMBEDDINGS = torch.nn.Embedding, torch.nn.EmbeddingBag


def dtype_that_runs(network: torch.nn.Module, row: torch.Tensor) -> torch.dtype:
    """Find a type that a network without floating weights takes; single precision if possible."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        try:
            with torch.no_grad():
                network(row.to(dtype))
        except Exception:  # of whatever kind: the network is the user's
            continue
        return dtype
    return torch.float32


def run_original(network: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Run the user's network over all rows. An error of the network there is about X.

    Parameters
    ----------
    network : torch.nn.Module
        The copy, in eval mode.
    rows : tensor of shape (n_samples, ...)
        X on the device of the network, in the type that the network takes.

    Returns
    -------
    tensor of shape (n_samples, ...)
        The outputs, on the CPU.

    Raises
    ------
    ValueError
        The network does not run, or does not map each row by itself.
    """
    # The first row alone, too, and some rows together: predictions come so later.
    parts = rows[:1], rows[:_ASKED_AGAIN], *rows.split(rows_at_once(rows))
    try:
        with torch.no_grad():
            outs = [network(part) for part in parts]
    except Exception as error:
        embeds = any(isinstance(m, _EMBEDDINGS) for m in network.modules())
        advice = (
            "The network gets numbers of any type as floating ones, and its embeddings take "
            "integers. Give it in a torch.nn.Module with `def forward(self, X): return "
            "self.network(X.long())`; float32 holds integers up to 2**24 exactly."
            if embeds and rows.is_floating_point()
            else "Give X as the network takes it, and a network for any number of rows."
        )
        raise ValueError(
            f"The network in estimator does not run on X, of shape {tuple(rows.shape)} as "
            f"{rows.dtype}, in eval mode, or not on its first row alone "
            f"({type(error).__name__}: {error}). {advice}"
        ) from error
    wrong = [type(out).__name__ for out in outs if not isinstance(out, torch.Tensor)]
    if wrong or min(out.ndim for out in outs) == 0:
        raise ValueError(
            f"The network in estimator returns a {wrong[0] if wrong else 'single number'}; "
            "expected one tensor with a row for each row of X. Wrap the network in a "
            "torch.nn.Module whose forward returns the logits or probabilities alone."
        )
    raw = torch.cat([out.cpu() for out in outs[2:]])
    if len(raw) != len(rows):
        raise ValueError(
            f"The network in estimator returns {len(raw)} rows for the {len(rows)} rows of X. "
            "Give a network that maps each row by itself."
        )
    tolerance = rounding(network, rows)
    for again in outs[:2]:
        one, two = again.cpu().double(), raw[: len(again)].double()
        if one.shape != two.shape or not are_alike(one, two, tolerance, raw):
            raise ValueError(
                "The network in estimator returns other values for the same rows of X in another "
                "batch: it uses the other rows, as BatchNorm with track_running_stats=False does, "
                "or draws at random, as dropout does in functional form with training=True. Give "
                "a network that maps each row by itself, the same each time."
            )
    return raw


def check_weights(network: torch.nn.Module, who: str) -> None:
    """Refuse a network without weights to change, before any weight is changed."""
    weights = named_parameters(network)
    if not weights:
        raise ValueError(
            f"estimator holds a {type(network).__name__} without floating parameters, and "
            f"{who} changes parameters. Use ThresholdDebiaser, or keep each weight in a "
            "torch.nn.Parameter."
        )
    for name, weight in weights.items():
        if not isinstance(weight, torch.nn.Parameter):
            raise ValueError(
                f"estimator holds a {type(network).__name__} whose {name} is no "
                f"torch.nn.Parameter but belongs to TorchScript, and {who} changes parameters. "
                "Give the module that was scripted or traced, or use ThresholdDebiaser."
            )
