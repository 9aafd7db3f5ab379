"""A proven bound on a difference between groups: the tests of all pairs, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from warnings import warn

import numpy as np
import pandas as pd

from skfair.metrics import _certificate_text
from skfair.metrics._binomial_tests import upper_bound
from skfair.metrics._rate_tests import (
    RateCounts,
    estimates,
    least_rows,
    pair_p_value,
    rows_for,
)
from skfair.utils._shown import shown
from skfair.utils._warnings import SmallGroupWarning

MOST_CONFIDENCE = 0.99999  # of more no p-value is known well enough
EXACT = "two one-sided exact tests of two binomial rates (score statistic, Berger and Boos)"
APPROXIMATE = "two one-sided adjusted Wald tests of a mean of differences (approximate)"
AFTERWARDS = ", done after those in order had failed, so that it proves nothing"
_PAIR_COLUMNS = (
    *("rate", "group_1", "group_2", "n_1", "n_2", "rate_1", "rate_2", "difference"),
    *("bound", "p_value", "holds"),
)


@dataclass(frozen=True, eq=False)
class FairnessCertificate:
    """Whether groups differ by no more than epsilon in the population, with a stated confidence.

    Made by :func:`~skfair.metrics.fairness_certificate`. Where `holds` is True, a difference larger
    than `epsilon` between any two groups in the population that the rows were drawn from would
    have led to such a certificate with a probability of at most `delta`, whatever the model and
    the distribution.

    Attributes
    ----------
    holds : bool
        The verdict: whether each pair of groups holds.
    constraint : str
        Name of the constraint.
    epsilon : float
        Largest difference between groups that is allowed.
    confidence : float
        1 - `delta`.
    test : str
        The test of a pair.
    group_sizes : DataFrame of int64
        Rows behind each rate (column) of each group (row).
    pairs : DataFrame
        A row for each rate and two groups. Columns: ``rate``, its name; ``group_1`` and
        ``group_2``, labels; ``n_1`` and ``n_2``, rows; ``rate_1``, ``rate_2`` and
        ``difference``, as observed; ``bound``, the smallest epsilon that the test would certify
        for this pair, which is an upper confidence bound of the difference without its sign;
        ``p_value``, of the hypothesis that the difference is `epsilon` or more; ``holds``,
        whether that is at most `delta`. Of a debiaser that certified none of its candidates
        nothing holds: then the one that was taken, to which the table belongs, was chosen after
        the test had failed, and `test` says so.
    rows_needed : DataFrame of int64 or None
        Where it does not hold, as `group_sizes`: rows with which it would, with a probability
        of 0.8, if rates in the population are those observed. None where it holds, and
        where the observed differences are too large for any number of rows.
    rows_at_parity : DataFrame of int64 or None
        The same if there is no difference in the population. None where it holds.
    least_rows : int
        Rows behind a rate of a group below which nothing can be certified.

    Examples
    --------
    >>> from skfair.metrics import fairness_certificate
    >>> certificate = fairness_certificate(
    ...     [0, 1] * 2000, [0] * 1000 + [1] * 3000, sensitive_features=["f", "m"] * 2000
    ... )
    >>> certificate
    FairnessCertificate(demographic_parity within 0.05 at 95 %: holds)
    >>> float(certificate.pairs["bound"].round(3)[0])
    0.023
    >>> FairnessCertificate.from_dict(certificate.to_dict()).holds
    True
    """

    holds: bool
    constraint: str
    epsilon: float
    confidence: float
    test: str
    group_sizes: pd.DataFrame
    pairs: pd.DataFrame
    rows_needed: pd.DataFrame | None
    rows_at_parity: pd.DataFrame | None
    least_rows: int

    @property
    def delta(self) -> float:
        """Largest probability of a certificate that is wrong.

        Returns
        -------
        float
        """
        return _delta(self.confidence)

    def to_dict(self) -> dict[str, Any]:
        """Give what it consists of as values that JSON has.

        Returns
        -------
        dict
            Of numbers, texts, lists and None. Labels of groups that are no numbers, texts or
            truth values, or tuples of such, become texts.
        """
        labels = list(self.group_sizes.index)
        position = {label: i for i, label in enumerate(labels)}
        pairs = {name: self.pairs[name].tolist() for name in self.pairs}
        for name in ("group_1", "group_2"):
            pairs[name] = [position[label] for label in pairs[name]]
        for name in ("rate_1", "rate_2", "difference"):
            pairs[name] = [None if value != value else value for value in pairs[name]]
        tables = (self.group_sizes, self.rows_needed, self.rows_at_parity)
        sizes, needed, parity = (t if t is None else t.to_numpy().tolist() for t in tables)
        return {
            "holds": self.holds,
            "constraint": self.constraint,
            "epsilon": self.epsilon,
            "confidence": self.confidence,
            "test": self.test,
            "least_rows": self.least_rows,
            "groups": [_jsonable(label) for label in labels],
            "rates": list(self.group_sizes.columns),
            "group_sizes": sizes,
            "rows_needed": needed,
            "rows_at_parity": parity,
            "pairs": pairs,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "FairnessCertificate":
        """Make a certificate of what :meth:`to_dict` gave.

        Parameters
        ----------
        content : dict
            From :meth:`to_dict`, also by way of JSON.

        Returns
        -------
        FairnessCertificate
        """
        labels = [tuple(x) if isinstance(x, list) else x for x in content["groups"]]
        index, rates = _group_index(labels), list(content["rates"])

        def table(values: list | None) -> pd.DataFrame | None:
            if values is None:
                return None
            return pd.DataFrame(np.array(values, dtype=np.int64), index=index, columns=rates)

        pairs = {name: content["pairs"][name] for name in _PAIR_COLUMNS}
        for name in ("group_1", "group_2"):
            pairs[name] = _objects([labels[i] for i in pairs[name]])
        for name in ("rate_1", "rate_2", "difference", "bound", "p_value"):
            pairs[name] = np.array(pairs[name], dtype=np.float64)
        sizes = table(content["group_sizes"])
        assert sizes is not None
        return cls(
            holds=content["holds"],
            constraint=content["constraint"],
            epsilon=content["epsilon"],
            confidence=content["confidence"],
            test=content["test"],
            group_sizes=sizes,
            pairs=pd.DataFrame(pairs),
            rows_needed=table(content["rows_needed"]),
            rows_at_parity=table(content["rows_at_parity"]),
            least_rows=content["least_rows"],
        )

    def __repr__(self) -> str:
        return f"FairnessCertificate({_certificate_text.claim(self)})"

    def __str__(self) -> str:
        return _certificate_text.text(self)

    def _repr_html_(self) -> str:
        return _certificate_text.body(self)


def certify(
    rates: Sequence[RateCounts],
    labels: Sequence,
    *,
    constraint: str,
    epsilon: float,
    confidence: float,
    proves: bool = True,
) -> FairnessCertificate:
    """Test all pairs of groups and write down what came out; nothing is checked.

    Parameters
    ----------
    rates : sequence of RateCounts
        Of one candidate.
    labels : sequence of length n_groups
        Labels of the groups.
    constraint : str
        What it is called.
    epsilon, confidence : float
    proves : bool, default=True
        False where the rows had a say in the choice of the candidate, or tests of others came
        before this one and failed: then nothing holds, whatever the p-values are.

    Returns
    -------
    FairnessCertificate

    Warns
    -----
    SmallGroupWarning
        A group is too small for any certificate.
    """
    delta = _delta(confidence)
    rows = [
        (rate.name, labels[g], labels[h], *_test_pair(rate, g, h, epsilon, delta))
        for rate in rates
        for g, h in combinations(range(len(labels)), 2)
    ]
    columns = dict(zip(_PAIR_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    if not proves:
        columns["holds"] = [False] * len(rows)
    pairs = pd.DataFrame({**columns, **{c: _objects(columns[c]) for c in ("group_1", "group_2")}})
    index, names = _group_index(labels), [rate.name for rate in rates]

    def table(sizes: list[np.ndarray] | None) -> pd.DataFrame | None:
        if sizes is None:
            return None
        return pd.DataFrame(np.stack(sizes, 1).astype(np.int64), index=index, columns=names)

    sizes = table([rate.sizes.sum(-2) if rate.is_mean else rate.sizes for rate in rates])
    assert sizes is not None
    proven, least = bool(pairs["holds"].all()), least_rows(epsilon, delta, rates[0].is_mean)
    smallest = np.min([rate.sizes.min(-2) if rate.is_mean else rate.sizes for rate in rates], 0)
    needed = parity = None
    if not proven and smallest.min() > 0:
        needed = table(rows_for(rates, epsilon, delta))
        parity = table(rows_for(rates, epsilon, delta, at_parity=True))
    small = [f"{shown(g)}: {int(n)}" for g, n in zip(labels, smallest, strict=True) if n < least]
    if small:
        warn(
            f"Groups are too small for any certificate of {constraint} within {epsilon:g} at a "
            f"confidence of {confidence:g}: it takes {least} rows behind each rate of each group "
            f"at the very least, and there are ({', '.join(small[:5])}"
            f"{', ...' if len(small) > 5 else ''}). Collect more rows of them, put groups "
            "together, or allow a larger epsilon.",
            SmallGroupWarning,
        )
    return FairnessCertificate(
        holds=proven,
        constraint=constraint,
        epsilon=epsilon,
        confidence=confidence,
        test=(APPROXIMATE if rates[0].is_mean else EXACT) + AFTERWARDS * (not proves),
        group_sizes=sizes,
        pairs=pairs,
        rows_needed=needed,
        rows_at_parity=parity,
        least_rows=least,
    )


def _test_pair(rate: RateCounts, g: int, h: int, epsilon: float, delta: float) -> tuple:
    """What `pairs` says of two groups, behind their labels."""
    hits, sizes = rate.hits[..., [g, h]], rate.sizes[..., [g, h]]
    n = sizes.sum(-2) if rate.is_mean else sizes
    if not np.all(sizes > 0):
        nan = float("nan")
        return (*map(int, n), nan, nan, nan, 1.0, 1.0, False)
    value, variance = estimates(RateCounts("", hits, sizes, rate.is_mean), sizes)
    difference, error = float(value[0] - value[1]), float(np.sqrt(variance.sum()))
    p = pair_p_value(rate, g, h, epsilon, delta)
    bound = upper_bound(
        lambda other: pair_p_value(rate, g, h, other, delta),
        delta,
        abs(difference),
        error,
        (epsilon, p),
    )
    return (*map(int, n), *map(float, value), difference, bound, p, p <= delta)


def _delta(confidence: float) -> float:
    return round(1 - confidence, 12)  # 0.05, and not 0.05000000000000004


def _group_index(labels: Sequence) -> pd.Index:
    return pd.Index(_objects(labels), name="group", tupleize_cols=False)


def _objects(values: Sequence) -> np.ndarray:
    """Make an array of labels, of which some may be tuples."""
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def _jsonable(label: Any) -> Any:
    if isinstance(label, tuple):
        return [_jsonable(part) for part in label]
    return label if isinstance(label, str | bool | int | float) else str(label)
