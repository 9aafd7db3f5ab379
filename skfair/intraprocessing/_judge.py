"""Intra-processing in closed form: how biased predictions are, and which to take."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from skfair.intraprocessing._gaps import Statistic, gap_interval, measure_gap, table_of_pairs
from skfair.intraprocessing._group_blind import Events
from skfair.utils._shown import shown


class Judge:
    """Rows to judge predictions of any number of classes on, and what is wanted of them.

    Parameters
    ----------
    codes, groups : ndarray of shape (n_samples,), int
        Class and group of each row.
    sizes : tuple of two int
        Number of classes and of groups.
    events : Events
        What the constraint compares.
    parameters : dict
        Of the debiaser: constraint, epsilon, performance, confidence and margin.
    """

    def __init__(
        self,
        codes: np.ndarray,
        groups: np.ndarray,
        sizes: tuple[int, int],
        events: Events,
        parameters: dict[str, Any],
    ):
        self.codes, self.groups, self.sizes, self.events = codes, groups, sizes, events
        self.parameters = parameters
        self._trials: list[dict[str, Any]] = []
        self._statistics: list[list[Statistic]] = []

    def add(self, predicted: np.ndarray, **columns: Any) -> None:
        """Judge a candidate by its predictions, which no row judged here has had a part in.

        Parameters
        ----------
        predicted : ndarray of shape (n_samples,), int
        **columns
            What to note beside the measures.
        """
        epsilon, confidence = self.parameters["epsilon"], self.parameters["confidence"]
        statistics = self._rates(predicted)
        bias, _, probability, excess = map(float, measure_gap(statistics, epsilon))
        performance, chance = self._performance(predicted)
        gain, size = max(performance - chance, 0.0), abs(bias)
        if confidence is None:
            eligible, objective = size < epsilon - self.parameters["margin"], performance
        elif isinstance(confidence, Real):
            eligible, objective = probability >= confidence, performance
        elif self.sizes[1] > 2:
            # That all of many differences hold is hardly ever likely: what is over counts.
            eligible, objective = True, gain - excess
        else:
            eligible, objective = size < epsilon, gain * probability
        least = confidence if isinstance(confidence, Real) else 0.5
        self._statistics.append(statistics)
        self._trials.append(
            {
                **columns,
                "bias": bias,
                "performance": performance,
                "probability": probability,
                "objective": objective if eligible else 0.0,
                "feasible": probability >= least,
                "eligible": eligible,
                "constant": bool((predicted == predicted[0]).all()),
            }
        )

    def best(self) -> int:
        """Position of the candidate to take; a constant prediction only if there is no other.

        Returns
        -------
        int
        """
        order = [
            (t["constant"], not t["eligible"], -t["objective"], abs(t["bias"]))
            for t in self._trials
        ]
        return min(range(len(order)), key=order.__getitem__)

    def report(self, best: int, groups: Sequence, classes: Sequence) -> dict[str, Any]:
        """What a debiaser says of the candidate that was taken.

        Parameters
        ----------
        best : int
            Its position.
        groups, classes : list
            Labels.

        Returns
        -------
        dict of str to object
            Fitted attributes.
        """
        trials = pd.DataFrame(self._trials).rename_axis("trial")
        trials = trials.drop(columns=["eligible", "constant"])
        taken, epsilon = self._trials[best], self.parameters["epsilon"]
        labels = [shown(label) for label in groups]
        statistics = self._statistics[best]
        return {
            "bias_": taken["bias"],
            "bias_interval_": gap_interval(statistics, epsilon),
            "performance_": taken["performance"],
            "objective_": taken["objective"],
            "feasible_": bool(taken["feasible"]),
            "pairs_": table_of_pairs(self._names(classes), labels, statistics, epsilon),
            "trials_": trials,
        }

    def _performance(self, predicted: np.ndarray) -> tuple[float, float]:
        """The performance, and what a constant prediction would have."""
        n_classes = self.sizes[0]
        totals = np.bincount(self.codes, minlength=n_classes)
        right = np.bincount(self.codes[predicted == self.codes], minlength=n_classes)
        if self.parameters["performance"] == "accuracy":
            return float(right.sum() / totals.sum()), float(totals.max() / totals.sum())
        occurs = totals > 0
        return float((right[occurs] / totals[occurs]).mean()), float(1 / occurs.sum())

    def _rates(self, predicted: np.ndarray) -> list[Statistic]:
        """Each compared rate by group, and its variance."""
        n_classes = self.sizes[0]
        table = np.bincount(
            self.events.cell * n_classes + predicted, minlength=self.events.n_cells * n_classes
        ).reshape(-1, n_classes)
        statistics = []
        for cells in self.events.families:
            of = table[cells].sum(1)
            for k in self.events.classes:
                hits = table[cells, k]
                # A rate of 0 or 1 among a few rows is not certain.
                inner = np.clip(hits, 0.5, of - 0.5) / of
                statistics.append((hits / of, inner * (1 - inner) / of))
        return statistics

    def _names(self, classes: Sequence) -> list[str]:
        given = [""]
        if self.parameters["constraint"] != "demographic_parity":
            given = [f" of {shown(classes[cells[0]])}" for cells in self.events.families]
        return [f"predicted {shown(classes[k])}{of}" for of in given for k in self.events.classes]
