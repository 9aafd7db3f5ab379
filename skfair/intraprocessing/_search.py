"""Intra-processing, all methods: the copy of the network that is searched, and what was found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from skfair.intraprocessing._network import LogitNetwork
from skfair.intraprocessing._objective import Choice, Objective
from skfair.utils._net import rows_at_once


class Search:
    """The copy of a network that a debiaser changes, and the judge of what it becomes.

    Parameters
    ----------
    network : LogitNetwork
        Of a copy of the user's network, on the device where the search runs.
    X : tensor of shape (n_samples, ...)
        Debiasing rows, on the same device.
    objective : Objective
        On all rows.
    scores : ndarray of shape (n_samples,)
        Logits of the original network.
    tune, select : ndarray of int
        Rows that may tune weights, and those that judge the candidates.
    seed : int
        Of whatever is random in the search.
    verbose : int
        Whether to show progress.

    Attributes
    ----------
    known : ndarray of int
        Rows whose labels may be looked at for how to change weights: all of them, unless
        `select` is to be measured on without having been looked at.
    """

    def __init__(
        self,
        network: LogitNetwork,
        X: torch.Tensor,
        objective: Objective,
        *,
        scores: np.ndarray,
        tune: np.ndarray,
        select: np.ndarray,
        seed: int,
        verbose: int,
    ):
        self.network = network
        self.X = X
        self.objective = objective
        self.scores = scores
        self.tune = tune
        self.select = select
        self.known = tune if len(select) < len(X) else np.arange(len(X))
        self.judge = objective.take(select)
        self.seed = seed
        self.verbose = verbose
        self.device = X.device
        self.original = self.state()
        self.best: tuple[int, Choice] | None = None
        self.best_state = self.original
        self._choices: list[Choice] = []
        self._columns: list[dict[str, Any]] = []

    def state(self) -> dict[str, torch.Tensor]:
        """Copy the weights as they are.

        Returns
        -------
        dict of str to tensor
        """
        return {k: v.detach().clone() for k, v in self.network.state_dict().items()}

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
        scores : ndarray of shape (n_candidates, n_select), optional
            Their logits on the rows of `select`; those of the network as it is now if not
            given.
        state : callable, optional
            From the position of a candidate to its weights; asked only for one that is the
            best so far. The weights of the network as they are now if not given.
        **columns
            What to note in ``trials_`` beside the measures.

        Returns
        -------
        Choice
            The threshold of each candidate and what it gives on the rows of `select`.
        """
        if scores is None:
            scores = self.score(self.select)[None]
        finite = np.isfinite(scores).all(axis=1)
        choices = self.judge.choose(np.where(finite[:, None], scores, 0.0))
        if not finite.all():
            # Networks that overflow are noted, and never chosen.
            choices = choices._replace(
                constant=choices.constant | ~finite, feasible=choices.feasible & finite
            )
        best = choices.best()
        choice = choices.take(slice(best, best + 1))
        if self.best is None or Choice.join([self.best[1], choice]).best() == 1:
            self.best = len(self._columns) + best, choice
            self.best_state = self.state() if state is None else state(best)
        self.note(choices, **columns)
        return choices

    def note(self, choices: Choice, **columns: Any) -> None:
        """Put something into ``trials_``, whether it may be chosen or not."""
        self._choices.append(choices)
        self._columns += [columns] * len(choices.bias)

    def trials(self) -> pd.DataFrame:
        """Everything that was considered, in order.

        Returns
        -------
        DataFrame
        """
        choices = Choice.join(self._choices)
        shown = ("threshold", "bias", "performance", "probability", "objective", "feasible")
        measures = pd.DataFrame({name: getattr(choices, name) for name in shown})
        return pd.concat([pd.DataFrame(self._columns), measures], axis=1).rename_axis("trial")


def named_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a search may change: floating, and not frozen by the user.

    Returns
    -------
    dict of str to Parameter
    """
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
