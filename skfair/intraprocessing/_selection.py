"""Intra-processing, all methods: what is kept of the candidates, and which one is taken."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from skfair.intraprocessing._choice import PLAIN, Certify, Choice, Rule
from skfair.intraprocessing._gaps import SURE
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._rows import Rows
from skfair.utils._split import draw_folds

# Shares of epsilon that are kept free in the choice. How much it takes depends on the network and
# the rows, and is found by cross-validation of the choice.
_ROOM = 0.25, 0.5, 0.75
# How much performance may be given up for a certificate, the most first. The best candidate by each
# of these is tested on the calibration rows.
_WORTH = (0.04, 0.02, 0.01, 0.005)
_RIVALS, _FOLDS = 8, 5


def _cross_validated(objective: Objective) -> Objective:
    """Adapt the objective to out-of-fold predictions, whose uncertainty is larger.

    A choice on all rows but one fold shares its errors with those rows, and over all folds these
    errors cancel in the mean. So the mean varies less than the choice on all rows differs from it.
    """
    result = copy.copy(objective)
    result.uncertainty = _FOLDS / (_FOLDS - 1)
    return result


def _judges(rows: Rows, objective: Objective) -> tuple[Objective, Objective]:
    """Restrict the objective to rows that tuned nothing, to measure by and to choose by.

    Returns
    -------
    honest, choosing : Objective
        Both are on the rows of `select`, which stand for all but the calibration rows. The second
        also counts the rows that tuned the weights.
    """
    if not rows.held_out:
        choosing = objective.take(rows.select)
        return _cross_validated(choosing), choosing
    every = np.union1d(rows.tune, rows.select)
    honest, tuned = (
        objective.stand_for(part, every, rows.stratum) for part in (rows.select, rows.tune)
    )
    return _cross_validated(honest), honest.hearing(tuned)


# Weights and buffers by name, or a function without arguments that makes them.
State = dict[str, torch.Tensor] | Callable[[], dict[str, torch.Tensor]]


class Candidate(NamedTuple):
    """One network at one threshold: its row of ``trials_``, its measures and its weights.

    Attributes
    ----------
    trial : int
        Row of ``trials_``.
    choice : Choice
        Of length 1: the threshold and its measures on the rows of `select`.
    state : dict of str to tensor, or callable
        Weights, or a function that makes them.
    predicted : ndarray of shape (n_select,), bool
        Whether each row of `select` is predicted positive, by a choice on other rows.
    """

    trial: int
    choice: Choice
    state: State
    predicted: np.ndarray


class _Contest:
    """The best candidates by one rule: their rows of ``trials_``, and the weights of the best."""

    def __init__(self) -> None:
        self.trials: list[int] = []
        self.choices: Choice | None = None
        self.state: State = {}

    def enter(self, first: int, choices: Choice, state: Callable) -> None:
        """Keep the best of the old and the new candidates.

        Parameters
        ----------
        first : int
            Row of ``trials_`` of the first new candidate.
        choices : Choice
            The new candidates.
        state : callable
            Takes the position of a new candidate and returns its weights.
        """
        trials = [*self.trials, *range(first, first + len(choices.bias))]
        every = choices if self.choices is None else Choice.join([self.choices, choices])
        order = every.ranking()[:_RIVALS]
        if trials[order[0]] >= first:
            self.state = state(trials[order[0]] - first)  # the user may interrupt while this writes
        self.trials = [trials[place] for place in order]
        self.choices = every.take(order)

    @property
    def best(self) -> Choice:
        """Measures of the best candidate, on the rows of the choice."""
        assert self.choices is not None
        return self.choices.take(slice(1))


class Selection:
    """Judge candidates, keep the best ones by each rule, and choose one at the end.

    Parameters
    ----------
    objective : Objective
        On all rows.
    scores : ndarray of shape (n_samples,)
        Logits of the original network.
    rows : Rows
        Which rows tune weights, and which judge.
    original : dict of str to tensor
        Weights of the original network.
    seed : int
        Draws the folds of the choice.
    delta : float, optional
        The risk of a false certificate, where a certificate is asked for.

    Attributes
    ----------
    judge, choosing : Objective
        On the rows that judge candidates: to measure candidates by, and to choose one by.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        scores: np.ndarray,
        rows: Rows,
        original: dict[str, torch.Tensor],
        seed: int,
        delta: float | None = None,
    ):
        self.objective = objective
        self.scores = scores
        self.rows = rows
        self.original = original
        self.seed = seed
        self.judge, self.choosing = _judges(rows, objective)
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
        self._note(self.judge.measure(scores[rows.select], 0.0), {"candidate": "original"})
        same = self.enter(scores[None, rows.scored], lambda _: original, candidate="threshold")
        objective.check_defined(same)

    def enter(
        self,
        scores: np.ndarray,
        state: Callable[[int], State],
        **columns: Any,
    ) -> Choice:
        """Judge candidates, and keep the best one seen so far by each rule.

        Parameters
        ----------
        scores : ndarray of shape (n_candidates, n_scored)
            Their logits on the rows of ``rows.scored``.
        state : callable
            Takes the position of a candidate and returns its weights, or a function that makes
            them. It is called only for a candidate that is the best so far.
        **columns
            Columns of ``trials_`` beside the measures.

        Returns
        -------
        Choice
            The threshold of each candidate, and its measures on the rows that judge.
        """
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
        # Before weights are kept, which takes time: then an interrupted search has the row of each
        # candidate that it kept.
        self._note(every[0], columns)
        once = functools.cache(state)  # several rules may find the same candidate the best
        for contest, choices in zip(self._contests, every, strict=True):
            contest.enter(first, choices, once)
        kept = {trial for contest in self._contests for trial in contest.trials}
        self._rivals = {trial: row for trial, row in self._rivals.items() if trial in kept}
        return every[0]

    def choose(self) -> tuple[Candidate, Objective]:
        """Choose the best candidate, and measure it on rows that chose nothing.

        The best of many candidates looks better than it is, on the rows of the choice. So each
        rule chooses on four fifths of the rows and predicts the last fifth. These out-of-fold
        predictions show which rule does best, and how well.

        Returns
        -------
        best : Candidate
        judge : Objective
            Measures the candidate.
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
        """Widen the uncertainty where out-of-fold predictions differ from the returned ones.

        If the two differ in bias, the bias of the returned network may be on either side.
        """
        cross_validated, apparent = (
            self.judge.measure(each.astype(float), 0.5) for each in (predicted, handed_back)
        )
        apart = float(cross_validated.bias[0] - apparent.bias[0]) / 2
        result = copy.copy(self.judge)
        result.uncertainty *= 1 + (apart / max(float(cross_validated.error[0]), 1e-9)) ** 2
        return result

    def to_certify(self) -> list[Candidate]:
        """List the candidates to test for a certificate, the likeliest to get it first.

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

    @property
    def leaders(self) -> list[tuple[int, State]]:
        """Row of ``trials_`` and weights of the best candidate by each rule."""
        return [(contest.trials[0], contest.state) for contest in self._contests]

    def _original(self) -> Candidate:
        return Candidate(0, self._untouched, self.original, self.scores[self.rows.select] > 0)

    def _folds(self) -> np.ndarray:
        """Folds of the rows of `select`, alike in groups, labels and strata."""
        kind = self.judge.cell * self.judge.sizes.shape[1] + self.judge.stratum
        return draw_folds(kind, _FOLDS, self.seed)

    def _note(self, choices: Choice, columns: dict[str, Any]) -> None:
        """Add rows to ``trials_``, whether they may be chosen or not."""
        self._choices.append(choices)
        self._columns += [columns] * len(choices.bias)

    def replace(self, candidate: Candidate) -> None:
        """Replace a row of ``trials_`` by the measures and the threshold of the choice."""
        start = 0
        for place, choices in enumerate(self._choices):
            at = candidate.trial - start
            if 0 <= at < len(choices.bias):
                parts = choices.take(slice(at)), candidate.choice, choices.take(slice(at + 1, None))
                self._choices[place] = Choice.join(parts)
            start += len(choices.bias)

    def trials(self) -> pd.DataFrame:
        """Tabulate all candidates, in order.

        Returns
        -------
        DataFrame
        """
        choices = Choice.join(self._choices)
        shown = ("threshold", "bias", "performance", "probability", "objective", "feasible")
        measures = pd.DataFrame({name: getattr(choices, name) for name in shown})
        return pd.concat([pd.DataFrame(self._columns), measures], axis=1).rename_axis("trial")
