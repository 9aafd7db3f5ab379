"""Intra-processing, all methods: the copy of the network that is searched, and what was found."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from skfair.base._net import rows_at_once
from skfair.intraprocessing._choice import PLAIN, Certify, Choice, Rule
from skfair.intraprocessing._counting import find_strata
from skfair.intraprocessing._gaps import SURE
from skfair.intraprocessing._network import LogitNetwork
from skfair.intraprocessing._objective import Objective


class Rows(NamedTuple):
    """Which debiasing rows do what.

    Attributes
    ----------
    tune : ndarray of int
        Rows that tune weights.
    select : ndarray of int
        Rows that judge candidates; the same ones where no weights are tuned.
    calibrate : ndarray of int
        Rows of a certificate, which nothing is decided on before.
    stratum : ndarray of shape (n_samples,), int
        Rows of a group and label that are alike to the original network; zero of those of
        `calibrate`.
    """

    tune: np.ndarray
    select: np.ndarray
    calibrate: np.ndarray
    stratum: np.ndarray

    @property
    def held_out(self) -> bool:
        """Whether candidates are judged on rows that tuned nothing."""
        return len(np.union1d(self.tune, self.select)) > len(self.select)

    @property
    def scored(self) -> np.ndarray:
        """Rows on which candidates are to be scored: those that judge, then those that tuned."""
        return np.concatenate([self.select, self.tune]) if self.held_out else self.select

    def judges(self, objective: Objective) -> tuple[Objective, Objective]:
        """The objective on rows that tuned nothing, to measure by and to choose by.

        Returns
        -------
        honest, choosing : Objective
            On the rows of `select`, which stand for all but the calibration rows. The second
            also hears what the tuned rows say.
        """
        if not self.held_out:
            choosing = objective.take(self.select)
            return _cross_validated(choosing), choosing
        every = np.union1d(self.tune, self.select)
        honest, tuned = (
            objective.stand_for(rows, every, self.stratum) for rows in (self.select, self.tune)
        )
        return _cross_validated(honest), honest.hearing(tuned)


# Shares of epsilon that are kept free in the choice. How much it takes depends on the network and
# the rows, and is found by cross-validation of the choice.
_ROOM = 0.25, 0.5, 0.75
# For a certificate at most so much performance is given up, the most first: the candidates that
# each makes the best are tested on the calibration rows.
_WORTH = (0.04, 0.02, 0.01, 0.005)
_RIVALS, _FOLDS = 8, 5


def _cross_validated(objective: Objective) -> Objective:
    """The same question of predictions by what was chosen on other folds.

    What is chosen on all rows but one fold shares its errors with those rows, and the errors of all
    folds cancel in their mean: it varies less than what is chosen on all rows differs from it.
    """
    result = copy.copy(objective)
    result.uncertainty = _FOLDS / (_FOLDS - 1)
    return result


class Candidate(NamedTuple):
    """One network at one threshold: its row of ``trials_``, its measures and its weights.

    Attributes
    ----------
    trial : int
        Row of ``trials_``.
    choice : Choice
        Of length 1: the threshold and what it gives on the rows of `select`.
    state : dict of str to tensor
        Weights.
    predicted : ndarray of shape (n_select,), bool
        What is predicted positive on the rows of `select`, by what was chosen on others.
    """

    trial: int
    choice: Choice
    state: dict[str, torch.Tensor]
    predicted: np.ndarray


class _Contest:
    """The best candidates by one rule: their rows of ``trials_``, and the weights of the best."""

    def __init__(self) -> None:
        self.trials: list[int] = []
        self.choices: Choice | None = None
        self.state: dict[str, torch.Tensor] = {}

    def enter(self, first: int, choices: Choice, state: Callable) -> None:
        """Keep the best of what was there and of what comes.

        Parameters
        ----------
        first : int
            Row of ``trials_`` of the first that comes.
        choices : Choice
            What comes.
        state : callable
            From the position of one that comes to its weights.
        """
        trials = [*self.trials, *range(first, first + len(choices.bias))]
        every = choices if self.choices is None else Choice.join([self.choices, choices])
        order = every.ranking()[:_RIVALS]
        if trials[order[0]] >= first:
            self.state = state(trials[order[0]] - first)
        self.trials = [trials[place] for place in order]
        self.choices = every.take(order)

    @property
    def best(self) -> Choice:
        """Measures of the best one, on the rows that it was chosen on."""
        assert self.choices is not None
        return self.choices.take(slice(1))


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
    rows : Rows
        Which rows tune weights, and which judge.
    seed : int
        Of whatever is random in the search.
    verbose : int
        Whether to show progress.
    delta : float, optional
        The risk of a false certificate, where one is asked for.

    Attributes
    ----------
    tune, scored : ndarray of int
        Rows that tune weights, and rows on which candidates are scored.
    judge, choosing : Objective
        On the rows that judge candidates: to measure them by, and to choose one by.
    dtype : torch.dtype
        Of the logits, single precision at least.
    """

    def __init__(
        self,
        network: LogitNetwork,
        X: torch.Tensor,
        objective: Objective,
        *,
        scores: np.ndarray,
        rows: "Rows",
        seed: int,
        verbose: int,
        delta: float | None = None,
    ):
        self.network = network
        self.X = X
        self.objective = objective
        self.scores = scores
        self.rows = rows
        self.tune, self.scored = rows.tune, rows.scored
        self.judge, self.choosing = rows.judges(objective)
        self.seed = seed
        self.verbose = verbose
        self.device = X.device
        self.dtype = torch.from_numpy(scores).dtype
        self.original = self.state()
        self._choices: list[Choice] = []
        self._columns: list[dict[str, Any]] = []
        self._rules = [PLAIN]
        if delta is not None:
            sizes = objective.take(rows.calibrate).rows_of_statistics()
            asked = [Certify(worth, sizes, delta) for worth in _WORTH]
            self._rules += [Rule(certify=certify) for certify in asked]
        elif objective.confidence == "auto" and not callable(objective.constraint):
            self._rules += [Rule(room) for room in _ROOM]
        self._contests = [_Contest() for _ in self._rules]
        self._rivals: dict[int, np.ndarray] = {}
        # With the certificate of the last rule, where one is asked for.
        rule = self._rules[-1]._replace(room=0.0, enough=SURE)
        self._untouched = self.judge.measure(scores[rows.select], 0.0, rule)
        self.note(self.judge.measure(scores[rows.select], 0.0), candidate="original")
        objective.check_defined(self.consider(scores[None, self.scored], candidate="threshold"))

    def choose(self) -> tuple[Candidate, Objective]:
        """Choose the best candidate, and say what it is on rows that chose nothing.

        The best of many on some rows looks better there than it is. What is chosen by each rule
        on four fifths of the rows predicts the last fifth: so the rule is found that does best,
        and it is known how well.

        Returns
        -------
        best : Candidate
        judge : Objective
            What it is to be measured by.
        """
        folds, scores = self._folds(), np.stack(list(self._rivals.values()))
        n = len(folds)
        predicted = np.empty((len(self._rules), n), dtype=bool)
        for fold in range(_FOLDS):
            here = folds == fold
            others = np.flatnonzero(~here)
            columns = np.concatenate([others, np.arange(n, scores.shape[1])])
            chosen = self.choosing.part(others).choose(scores[:, columns], self._rules)
            for place, choice in enumerate(chosen):
                best = choice.best()
                predicted[place, here] = scores[best, :n][here] > choice.threshold[best]
        candidates, judges = [self._original()], [self.judge]
        for contest, row in zip(self._contests, predicted, strict=True):
            threshold = contest.best.threshold
            judge = self._judge_of(row, self._rivals[contest.trials[0]][:n] > threshold[0])
            honest = judge.measure(row.astype(float), 0.5, Rule(enough=SURE))
            honest = honest._replace(threshold=threshold)
            candidates.append(Candidate(contest.trials[0], honest, contest.state, row))
            judges.append(judge)
        best = Choice.join([each.choice for each in candidates]).best()
        return candidates[best], judges[best]

    def _judge_of(self, predicted: np.ndarray, handed_back: np.ndarray) -> Objective:
        """The judge of cross-validated predictions, which are not those that are handed back.

        Where the two are differently biased, the truth may be on either side.
        """
        cross_validated, apparent = (
            self.judge.measure(each.astype(float), 0.5) for each in (predicted, handed_back)
        )
        apart = float(cross_validated.bias[0] - apparent.bias[0]) / 2
        result = copy.copy(self.judge)
        result.uncertainty *= 1 + (apart / max(float(cross_validated.error[0]), 1e-9)) ** 2
        return result

    def to_certify(self) -> list[Candidate]:
        """What is worth testing for a certificate, the likeliest to get it first.

        Returns
        -------
        list of Candidate
        """
        none = np.empty(0, dtype=bool)
        found = [
            Candidate(contest.trials[0], contest.best, contest.state, none)
            for contest in self._contests[1:]
        ]
        return sorted([self._original(), *found], key=lambda each: -each.choice.power[0])

    def choose_without(self) -> tuple[Candidate, Objective]:
        """Choose without a certificate: the calibration rows, which tuned nothing, judge as well.

        Returns
        -------
        best : Candidate
        judge : Objective
            What the candidate was judged by.
        """
        rows = self.rows._replace(
            select=np.union1d(self.rows.select, self.rows.calibrate), calibrate=np.empty(0, int)
        )
        if not self.rows.held_out:
            rows = rows._replace(tune=rows.select)
        elif rows.stratum.any():  # now of all rows; of a network that knows them there are none
            part = min(len(rows.tune), len(rows.select)) / len(self.scores)
            rows = rows._replace(stratum=find_strata(self.objective.cell, self.scores, part))
        again = Search(
            self.network,
            self.X,
            self.objective,
            scores=self.scores,
            rows=rows,
            seed=self.seed,
            verbose=self.verbose,
        )
        trials = [0, 1]  # the original network, and with another threshold
        for contest in self._contests:
            self.go_to(contest.state)
            again.consider()
            trials.append(contest.trials[0])
        best, judge = again.choose()
        return best._replace(trial=trials[best.trial]), judge

    def _original(self) -> Candidate:
        return Candidate(0, self._untouched, self.original, self.scores[self.rows.select] > 0)

    def _folds(self) -> np.ndarray:
        """Folds of the rows of `select`, alike in groups, labels and strata."""
        kind = self.judge.cell * self.judge.sizes.shape[1] + self.judge.stratum
        order = np.random.RandomState(self.seed).permutation(len(kind))
        order = order[np.argsort(kind[order], kind="stable")]
        folds = np.empty(len(kind), dtype=np.int64)
        folds[order] = np.arange(len(kind)) % _FOLDS
        return folds

    def state(self) -> dict[str, torch.Tensor]:
        """Copy the weights as they are.

        Returns
        -------
        dict of str to tensor
        """
        return {name: tensor.detach().clone() for name, tensor in self._tensors()}

    @torch.no_grad()
    def go_to(self, state: dict[str, torch.Tensor]) -> None:
        """Give the network the weights that :meth:`state` gave, or some of another kind.

        Parameters
        ----------
        state : dict of str to tensor
        """
        for name, tensor in self._tensors():
            if not torch.equal(tensor, state[name]):  # buffers may be views that none can write to
                tensor.copy_(state[name])

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        # Not its `state_dict`, which may hold anything, in networks that are quantised say.
        return chain(self.network.named_parameters(), self.network.named_buffers())

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
        finite = np.isfinite(scores).all(axis=1)
        scores = np.where(finite[:, None], scores, 0.0)

        first = len(self._columns)
        # Networks that overflow are noted, and never chosen.
        every = [
            choices._replace(
                constant=choices.constant | ~finite,
                eligible=choices.eligible & finite,
                probability=choices.probability * finite,
            )
            for choices in self.choosing.choose(scores, self._rules)
        ]
        self._rivals |= dict(enumerate(scores, start=first))
        for contest, choices in zip(self._contests, every, strict=True):
            contest.enter(first, choices, state or (lambda _: self.state()))
        kept = {trial for contest in self._contests for trial in contest.trials}
        self._rivals = {trial: row for trial, row in self._rivals.items() if trial in kept}
        choices = every[0]
        self.note(choices, **columns)
        return choices

    def note(self, choices: Choice, **columns: Any) -> None:
        """Put something into ``trials_``, whether it may be chosen or not."""
        self._choices.append(choices)
        self._columns += [columns] * len(choices.bias)

    def replace(self, candidate: Candidate) -> None:
        """Have ``trials_`` say of a network what was taken of it, at which threshold."""
        start = 0
        for place, choices in enumerate(self._choices):
            at = candidate.trial - start
            if 0 <= at < len(choices.bias):
                parts = choices.take(slice(at)), candidate.choice, choices.take(slice(at + 1, None))
                self._choices[place] = Choice.join(parts)
            start += len(choices.bias)

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
