"""Intra-processing, all methods: the copy of the network that a debiaser changes."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from skfair.base._net import rows_at_once
from skfair.intraprocessing._choice import Choice
from skfair.intraprocessing._network import LogitNetwork
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._selection import Selection


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
        of the search. Its ``forward`` takes rows of X and returns one logit a row, shape
        (n_rows,): that of the positive class less that of the other.
    X : tensor of shape (n_samples, ...)
        Debiasing rows, on the same device, in the type of the network.
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
        Weights and buffers of the original network.
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
    A debiaser that scales all weights:

    >>> import numpy as np, torch
    >>> from skfair.intraprocessing import IntraprocessingDebiaser
    >>> class ScalingDebiaser(IntraprocessingDebiaser):
    ...     def _search(self, search):
    ...         for factor in (0.5, 2.0):
    ...             search.go_to({name: w * factor for name, w in search.original.items()})
    ...             search.consider(candidate="scaled", step=factor)
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 200))
    >>> X = np.column_stack([y + rng.normal(size=200), group]).astype("float32")
    >>> debiaser = ScalingDebiaser(torch.nn.Linear(2, 1), epsilon=0.5)
    >>> debiaser.fit(X, y, sensitive_features=group).trials_.candidate.tolist()
    ['original', 'threshold', 'scaled', 'scaled']
    """

    def __init__(
        self,
        network: LogitNetwork,
        X: torch.Tensor,
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
        """
        return network_state(self.network)

    @torch.no_grad()
    def go_to(self, state: dict[str, torch.Tensor]) -> None:
        """Give the network the weights that :meth:`state` gave, or some of another kind.

        Parameters
        ----------
        state : dict of str to tensor
        """
        for name, tensor in _tensors(self.network):
            if not torch.equal(tensor, state[name]):  # buffers may be views that none can write to
                tensor.copy_(state[name])

    @torch.no_grad()
    def score(
        self, rows: np.ndarray, forward: Callable | None = None, *, n_networks: int = 1
    ) -> np.ndarray:
        """Compute logits in eval mode, in batches.

        Parameters
        ----------
        rows : ndarray of int
            Which rows.
        forward : callable, optional
            From a batch to logits of shape (..., n_in_batch); the network if not given.
        n_networks : int, default=1
            How many networks `forward` runs at once.

        Returns
        -------
        ndarray of shape (..., n_rows)
        """
        self.network.eval()
        forward = forward or self.network
        index = torch.as_tensor(rows, device=self.device)
        parts = index.split(rows_at_once(self.X, n_networks=n_networks))
        batches = [forward(self.X[part]).cpu() for part in parts]
        return torch.cat(batches, dim=-1).numpy()

    def consider(
        self,
        scores: np.ndarray | None = None,
        state: Callable[[int], dict[str, torch.Tensor]] | None = None,
        **columns: Any,
    ) -> Choice:
        """Judge candidates, and keep the best one seen so far.

        Parameters
        ----------
        scores : ndarray of shape (n_candidates, n_scored), optional
            Their logits on the rows of `scored`; those of the network as it is now if not
            given.
        state : callable, optional
            From the position of a candidate to its weights; asked only for one that is the
            best so far. The weights of the network as they are now if not given.
        **columns
            What to note in ``trials_`` beside the measures.

        Returns
        -------
        Choice
            The threshold of each candidate and what it gives on the rows that judge.
        """
        if scores is None:
            scores = self.score(self.scored)[None]
        return self.selection.enter(scores, state or (lambda _: self.state()), **columns)


def network_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights and buffers of a network as they are.

    Returns
    -------
    dict of str to tensor
    """
    return {name: tensor.detach().clone() for name, tensor in _tensors(network)}


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    # Not its `state_dict`, which may hold anything, in networks that are quantised say.
    return chain(network.named_parameters(), network.named_buffers())


def named_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a search may change: floating, and not frozen by the user.

    Returns
    -------
    dict of str to Parameter
    """
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
