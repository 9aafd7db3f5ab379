"""Saved estimators: the weights of networks, and whether a network is the one that was saved."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from skfair.utils._persistence._files import InvalidModelError

Network = TypeVar("Network", bound=nn.Module)


def load_weights(module: Network, weights: dict[str, torch.Tensor], what: str) -> Network:
    """Give a network the weights from a file, if they are its own.

    Parameters
    ----------
    module : torch.nn.Module
        On the device "meta", where no memory is taken before the shapes are compared, or ready.
    weights : dict of str to tensor
        The state of such a network.
    what : str
        What it is, for messages.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    InvalidModelError
        The names, shapes or types are others.
    """
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in module.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in weights.items()}
    if wanted != found:
        differing = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        name = differing[0]
        raise InvalidModelError(
            f"{what} is not the network whose weights were saved: {name!r} is "
            f"{_shape(wanted.get(name))} in the network and {_shape(found.get(name))} in the file"
            f"{f', and so on for {len(differing)} tensors' if len(differing) > 1 else ''}."
        )
    on_meta = any(tensor.is_meta for tensor in module.state_dict().values())
    module.load_state_dict(weights, assign=on_meta)
    return module


def probe(compute: Callable[[np.random.Generator], np.ndarray | None]) -> np.ndarray | None:
    """Compute a few outputs that are saved, so that a loaded network can be told from another.

    Parameters
    ----------
    compute : callable
        Runs the network on what it draws from a generator, or returns None.

    Returns
    -------
    ndarray or None
        None where the network does not run on such data, or puts out no finite numbers.
    """
    try:
        outputs = compute(np.random.default_rng(0))
    except Exception:  # it is the user's network
        return None
    return outputs if outputs is not None and np.isfinite(outputs).all() else None


def check_probe(
    compute: Callable[[np.random.Generator], np.ndarray | None], saved: np.ndarray | None, what: str
) -> None:
    """Compare outputs with those that :func:`probe` gave when the network was saved.

    Parameters
    ----------
    compute : callable
        As for :func:`probe`.
    saved : ndarray or None
        None compares nothing.
    what : str
        What made the network, for the message.

    Raises
    ------
    InvalidModelError
        They differ by more than a hundredth of the largest.
    """
    if saved is None:
        return
    found = probe(compute)
    close = found is not None and found.shape == saved.shape
    if not close or np.abs(found - saved).max() > 0.01 * np.abs(saved).max() + 1e-6:
        raise InvalidModelError(
            f"{what} computes other values than it did when it was saved, with the same weights: "
            "what has no weights is another, such as an activation, the preprocessing or a buffer "
            "that is not in the state_dict. Let factories make the same."
        )


def _shape(described: tuple | None) -> str:
    return "not" if described is None else f"{described[1]} of shape {described[0]}"
