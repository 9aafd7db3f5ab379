"""Intra-processing, all methods: the copy of the network that a debiaser changes."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from skfair.base._networks import have_same_bits
from skfair.intraprocessing._choice import Choice
from skfair.intraprocessing._inputs import Inputs
from skfair.intraprocessing._kept_weights import keep
from skfair.intraprocessing._network import LogitNetwork
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._selection import Selection, State


class Search:
    """What ``_search`` of a debiaser works on: a copy of the network, and a judge of candidates.

    A debiaser changes the weights of :attr:`network`, or computes the logits of changed networks
    itself, and hands each candidate to :meth:`consider`. The best candidate, with the best
    threshold for it, becomes the fitted network. Users never make one: ``fit`` of
    :class:`IntraprocessingDebiaser` does.

    Parameters
    ----------
    network : torch.nn.Module
        A copy of the user's network (and of what ``_prepare`` added), in eval mode, on the device
        of the search. Its ``forward`` takes a batch of X and returns one logit a row, shape
        (n_rows,): that of the positive class less that of the other.
    X : Inputs
        Debiasing rows. ``X[rows]`` is a batch as the network takes it, on the same device and in
        the type of the network: a tensor of shape (n_rows, ...), or a dict or a tuple of them.
    selection : Selection
        The judge of candidates.
    seed : int
        Seeds what the search draws with NumPy. Generators of torch are seeded already.
    verbose : int
        Whether to show progress.

    Attributes
    ----------
    tune : ndarray of shape (n_tune,), int
        Rows of X that may tune weights. The other rows judge candidates; a method must not look
        at them.
    group : ndarray of shape (n_samples,), int
        Group of each row: its position among the sorted groups.
    label : ndarray of shape (n_samples,), int
        Label of each row: 1 for the positive class, 0 for the other.
    scores : ndarray of shape (n_samples,)
        Logits of the original network.
    original : dict of str to tensor
        Weights and buffers of the original network: of its parameters that require gradients, and
        of all its buffers. Frozen parameters never change. The tensors may be those of the user's
        network: read them, and write to clones only.
    scored : ndarray of int
        Rows on which candidates are scored: those that judge, then those that tune.
    objective : Objective
        Counts of groups and labels on all rows, and the constraint.
    device : torch.device
        Where the network and X are.
    dtype : torch.dtype
        Type of the logits, single precision at least.

    Examples
    --------
    A debiaser that shrinks the weight of the second feature, which is the group here:

    >>> import numpy as np, torch
    >>> from skfair.intraprocessing import IntraprocessingDebiaser
    >>> class ShrinkingDebiaser(IntraprocessingDebiaser):
    ...     def _search(self, search):
    ...         for factor in (0.5, 0.0):
    ...             state = {name: weight.clone() for name, weight in search.original.items()}
    ...             state["network.weight"][:, 1] *= factor
    ...             search.go_to(state)
    ...             search.consider(candidate="shrunk", step=factor)
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 2000))
    >>> X = np.column_stack([y + rng.normal(size=2000), group]).astype("float32")
    >>> network = torch.nn.Linear(2, 1)
    >>> with torch.no_grad():
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 1.0]])), network.bias.fill_(-1.0)
    >>> debiaser = ShrinkingDebiaser(network, epsilon=0.2, random_state=0)
    >>> debiaser.fit(X, y, sensitive_features=group).best_trial_
    3
    """

    def __init__(
        self,
        network: LogitNetwork,
        X: Inputs,
        selection: Selection,
        *,
        seed: int,
        verbose: int,
    ):
        self.network = network
        self.X = X
        self.selection = selection
        self.seed = seed
        self.verbose = verbose
        self.objective: Objective = selection.objective
        self.group, self.label = self.objective.codes, self.objective.y
        self.scores = selection.scores
        self.original = selection.original
        self.tune, self.scored = selection.rows.tune, selection.rows.scored
        self.device = X.device
        self.dtype = torch.from_numpy(self.scores).dtype

    def state(self) -> dict[str, torch.Tensor]:
        """Copy the weights and buffers of the network as they are.

        Returns
        -------
        dict of str to tensor
            A copy of each buffer, and of each parameter that requires gradients, by its name in
            :attr:`network`.
        """
        return network_state(self.network)

    @torch.no_grad()
    def go_to(self, state: State) -> None:
        """Set the weights and buffers of the network.

        Parameters
        ----------
        state : dict of str to tensor, or callable
            As :meth:`state` returns it, with the same or with other values; or a function without
            arguments that returns it.
        """
        state = state() if callable(state) else state
        for name, tensor in _tensors(self.network):
            # Buffers may be views that none can write to.
            if not have_same_bits(tensor, state[name]):
                tensor.copy_(state[name])

    @torch.no_grad()
    def score(self, rows: np.ndarray, forward: Callable | None = None) -> np.ndarray:
        """Compute logits in eval mode, in batches.

        Parameters
        ----------
        rows : ndarray of int
            Positions of the rows in X.
        forward : callable, optional
            Takes a batch and returns logits of shape (..., n_in_batch); the network if not given.

        Returns
        -------
        ndarray of shape (..., n_rows)
            The logits.
        """
        self.network.eval()
        forward = forward or self.network
        batches = [forward(batch).cpu() for batch in self.X.take(rows).batches()]
        return torch.cat(batches, dim=-1).numpy()

    def consider(
        self,
        scores: np.ndarray | None = None,
        state: Callable[[int], State] | None = None,
        **columns: Any,
    ) -> Choice:
        """Judge candidates, and keep the best one seen so far.

        Parameters
        ----------
        scores : ndarray of shape (n_candidates, n_scored), optional
            Logits of the candidates on the rows of :attr:`scored`. If not given, there is one
            candidate: the network as it is now.
        state : callable, optional
            Takes the position of a candidate and returns its weights, as :meth:`state` does.
            It is called only for a candidate that is the best so far. Instead of the weights, it
            may return a function without arguments that makes them, the same each time: then no
            weights are kept. If not given, the weights are those of the network as it is now; over
            16 MiB of them wait in a temporary file.
        **columns
            Columns of ``trials_`` beside the measures: "candidate", "layer", "epoch" or "step".

        Returns
        -------
        Choice
            A named tuple of arrays of shape (n_candidates,): "threshold", the best one for each
            candidate, and at this threshold, on the rows that judge, "bias", "performance",
            "objective", "feasible" and others.
        """
        if scores is None:
            scores = self.score(self.scored)[None]
        if state is None:

            def state(_: int) -> State:
                return keep(dict(_tensors(self.network)), self.original)

        return self.selection.enter(scores, state, **columns)


def network_state(
    network: nn.Module, kept: Iterable[tuple[torch.Tensor, torch.Tensor]] = ()
) -> dict[str, torch.Tensor]:
    """Copy the weights and buffers of a network as they are: what a search may change.

    Parameters
    ----------
    network : torch.nn.Module
    kept : iterable of two tensors, default=()
        Tensors of the network, and such that stand for them if they have the same bits and are
        on the same device. These are not copied.

    Returns
    -------
    dict of str to tensor
    """
    stands_for = {id(ours): kept for ours, kept in kept}
    state = {}
    for name, tensor in _tensors(network):
        known = stands_for.get(id(tensor))
        if known is None or not have_same_bits(known, tensor):
            known = tensor.clone()
        state[name] = known.detach()
    return state


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    # Not its `state_dict`, which may hold anything, in networks that are quantised say.
    return chain(named_parameters(network).items(), network.named_buffers())


def named_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a search may change: floating, and not frozen by the user.

    Returns
    -------
    dict of str to Parameter
    """
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
