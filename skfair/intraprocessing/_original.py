"""Intra-processing, all methods: the user's network is run as it is, before anything changes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from skfair.base._networks import are_alike, rounding
from skfair.intraprocessing._inputs import Inputs, call
from skfair.intraprocessing._search import named_parameters
from skfair.utils._shown import shown_all

_ASKED_AGAIN = 16  # rows that the network has to map alike in another batch
_MOST_BAD = 6  # rows that are looked for where the network does not run


def run_original(network: torch.nn.Module, rows: Inputs) -> torch.Tensor:
    """Run the user's network over all rows. An error of the network there is about X.

    Parameters
    ----------
    network : torch.nn.Module
        The copy, in eval mode.
    rows : Inputs
        X as the network takes it.

    Returns
    -------
    tensor of shape (n_samples, ...)
        The outputs, on the CPU.

    Raises
    ------
    ValueError
        The network does not run, or does not map each row by itself.
    """

    def run(batch: Any) -> Any:
        out = call(network, batch)
        return out.cpu() if isinstance(out, torch.Tensor) else out

    # The first row alone, too, and some rows together: predictions come so later.
    with torch.no_grad():
        outs = [
            run_one(run, rows, range(size), network) for size in (1, min(_ASKED_AGAIN, len(rows)))
        ]
        outs += run_all(run, rows, network)
    wrong = [type(out).__name__ for out in outs if not isinstance(out, torch.Tensor)]
    if wrong or min(out.ndim for out in outs) == 0:
        raise ValueError(
            f"The network in estimator returns a {wrong[0] if wrong else 'single number'}; "
            "expected one tensor with a row for each row of X, alone, as .logits of an object or "
            "a dict, or first in a tuple. Wrap the network in a torch.nn.Module whose forward "
            "returns the logits or probabilities alone."
        )
    raw = torch.cat(outs[2:])
    if len(raw) != len(rows):
        raise ValueError(
            f"The network in estimator returns {len(raw)} rows for the {len(rows)} rows of X. "
            "Give a network that maps each row by itself."
        )
    tolerance = rounding(network, rows)
    for again in outs[:2]:
        one, two = again.double(), raw[: len(again)].double()
        if one.shape != two.shape or not are_alike(one, two, tolerance, raw):
            raise ValueError(
                "The network in estimator returns other values for the same rows of X in another "
                "batch: it uses the other rows, as BatchNorm with track_running_stats=False does, "
                "or draws at random, as dropout does in functional form with training=True. Give "
                "a network that maps each row by itself, the same each time."
            )
    return raw


def run_all(run: Callable[[Any], Any], rows: Inputs, network: torch.nn.Module) -> list:
    """Run a network over all rows, a batch at a time.

    Parameters
    ----------
    run : callable
        Takes a batch.
    rows : Inputs
    network : torch.nn.Module
        The user's network, for messages.

    Returns
    -------
    list
        What `run` returned for each batch.

    Raises
    ------
    ValueError
        `run` raises. The message has the error, and names the rows.
    """
    size = rows.rows_at_once
    starts = range(0, max(len(rows), 1), size)
    return [
        run_one(run, rows, range(start, min(start + size, len(rows))), network) for start in starts
    ]


def run_one(
    run: Callable[[Any], Any], rows: Inputs, numbers: range, network: torch.nn.Module
) -> Any:
    """Run a network on one batch; see :func:`run_all`."""
    batch = rows[numbers.start : numbers.stop]
    try:
        return run(batch)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        advice = "Give X as the network takes it, and a network for any number of rows."
        if isinstance(batch, Mapping) and isinstance(error, TypeError):
            taken = inspect.signature(network.forward).parameters
            advice = (
                f"X has the inputs [{shown_all(batch)}], forward of the network takes "
                f"[{shown_all(taken)}]. Give an input for each of these."
            )
        bad = _bad_rows(run, rows, numbers, error)
        where = f" First rows that fail: {', '.join(map(str, bad))}." if bad else ""
        raise ValueError(
            f"The network in estimator does not run on X, {_described(batch, len(rows))}, "
            f"in eval mode, or not on its first row alone ({found}).{where} {advice}"
        ) from error


def _bad_rows(
    run: Callable[[Any], Any], rows: Inputs, numbers: range, error: Exception
) -> list[int]:
    """Find the first rows on which a network raises the same type of error, by halves.

    Returns
    -------
    list of int
        Empty where no single row is at fault.
    """
    bad: list[int] = []
    # After an error of its own, an accelerator runs nothing more.
    left = [numbers] if rows.device.type == "cpu" else []
    while left and len(bad) < _MOST_BAD:
        part = left.pop()
        try:
            run(rows[part.start : part.stop])
        except type(error):
            if len(part) == 1:
                bad.append(part.start)
                continue
            middle = part.start + len(part) // 2
            left += [range(middle, part.stop), range(part.start, middle)]
        except Exception:  # of whatever kind: the network is the user's
            break
    return [] if bad == list(numbers)[:_MOST_BAD] else bad


def _described(batch: Any, n_rows: int) -> str:
    if isinstance(batch, torch.Tensor):
        return f"of shape {(n_rows, *batch.shape[1:])} as {batch.dtype}"
    named = batch if isinstance(batch, Mapping) else dict(enumerate(batch))
    return ", ".join(
        f"[{name!r}] of shape {(n_rows, *part.shape[1:])} as {part.dtype}"
        for name, part in named.items()
    )


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
