"""A certificate: a proven bound on the difference between groups, as numbers, text and HTML."""

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._html import escape, group_label, html_table
from skfair.utils._labels import as_objects
from skfair.utils._shown import as_label, plain, tell_apart

_PAIR_COLUMNS = (
    *("rate", "group_1", "group_2", "n_1", "n_2", "rate_1", "rate_2", "difference"),
    *("bound", "p_value", "holds"),
)
_SHOWN = 6  # pairs in a table, those with the largest bounds
_WIDTH = 100


@dataclass(frozen=True, eq=False)
class FairnessCertificate:
    """Whether groups differ by no more than epsilon in the population, with a stated confidence.

    :func:`~skfair.metrics.fairness_certificate` makes it. `holds` is True by mistake with a
    probability of at most `delta`: a mistake means that two groups in the population from which
    the rows were drawn differ by more than `epsilon`. This is true for every model and every
    distribution.

    Attributes
    ----------
    holds : bool
        The verdict: True if every pair of groups holds.
    constraint : str
        Name of the constraint.
    epsilon : float
        Largest difference between groups that is allowed.
    confidence : float
        1 - `delta`.
    test : str
        Name of the test of a pair.
    group_sizes : DataFrame of int64
        Number of rows behind each rate (column) of each group (row).
    pairs : DataFrame
        One row for each rate and each two groups. Columns: ``rate``, name of the rate;
        ``group_1`` and ``group_2``, labels; ``n_1`` and ``n_2``, numbers of rows; ``rate_1``,
        ``rate_2`` and ``difference``, as observed; ``bound``, the smallest epsilon that the test
        would certify for this pair, which is an upper confidence bound on the absolute
        difference; ``p_value``, of the hypothesis that the absolute difference is `epsilon` or
        more; ``holds``, True if the p-value is at most `delta`. If a debiaser could certify no
        candidate, ``holds`` is False in all rows: the debiaser chose the candidate in the table
        after its tests had failed, and `test` says so.
    rows_needed : DataFrame of int64 or None
        Laid out as `group_sizes`: numbers of rows that would give a certificate with a
        probability of 0.8, if the rates in the population are the observed rates. None if
        `holds` is True, and if the observed differences are too large for any number of rows.
    rows_at_parity : DataFrame of int64 or None
        The same numbers if there is no difference in the population. None if `holds` is True.
    least_rows : int
        Nothing can be certified with fewer rows than this behind a rate of a group.

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
        """Largest probability that the certificate is wrong.

        Returns
        -------
        float
        """
        return error_level(self.confidence)

    def to_dict(self) -> dict[str, Any]:
        """Convert the certificate to values that JSON can hold.

        Returns
        -------
        dict
            Numbers, texts, lists and None. A group label becomes a text unless it is a number,
            a text, a truth value or a tuple of these.
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
            "groups": [jsonable(label) for label in labels],
            "rates": list(self.group_sizes.columns),
            "group_sizes": sizes,
            "rows_needed": needed,
            "rows_at_parity": parity,
            "pairs": pairs,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "FairnessCertificate":
        """Make a certificate from the result of :meth:`to_dict`.

        Parameters
        ----------
        content : dict
            Result of :meth:`to_dict`, also after a round trip through JSON.

        Returns
        -------
        FairnessCertificate
        """
        labels = [tuple(x) if isinstance(x, list) else x for x in content["groups"]]
        index = pd.Index(as_objects(labels), name="group", tupleize_cols=False)
        rates = list(content["rates"])

        def table(values: list | None) -> pd.DataFrame | None:
            if values is None:
                return None
            return pd.DataFrame(np.array(values, dtype=np.int64), index=index, columns=rates)

        pairs = {name: content["pairs"][name] for name in _PAIR_COLUMNS}
        for name in ("group_1", "group_2"):
            pairs[name] = as_objects([labels[i] for i in pairs[name]])
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
        return f"FairnessCertificate({claim(self)})"

    def __str__(self) -> str:
        paragraphs = [textwrap.fill(remark, _WIDTH) for remark in remarks(self)]
        return "\n\n".join([claim(self), pair_table(self).to_string(), "\n".join(paragraphs)])

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(claim(self))}</b></p>"]
        parts += [f"<p>{escape(remark)}</p>" for remark in remarks(self)]
        return "\n".join([*parts, f"<div>{html_table(pair_table(self))}</div>"])


def error_level(confidence: float) -> float:
    """Compute the largest probability of an error that a confidence allows.

    Returns
    -------
    float
    """
    return round(1 - confidence, 12)  # 0.05, and not 0.05000000000000004


def claim(certificate: FairnessCertificate) -> str:
    """Write the question and the verdict in one line.

    Returns
    -------
    str
    """
    verdict = "holds" if certificate.holds else "not certified"
    return (
        f"{certificate.constraint} within {certificate.epsilon:g} at "
        f"{100 * certificate.confidence:g} %: {verdict}"
    )


def pair_table(certificate: FairnessCertificate) -> pd.DataFrame:
    """Format the pairs with the largest bounds, in percent.

    Returns
    -------
    DataFrame
    """
    pairs = certificate.pairs
    pairs = pairs.iloc[np.argsort(-pairs["bound"], kind="stable")[:_SHOWN]]
    names = _names(certificate)
    index = [[as_label(rate) for rate in pairs["rate"]]]
    index += [[names[group] for group in pairs[name]] for name in ("group_1", "group_2")]
    shown = pd.DataFrame(index=pd.MultiIndex.from_arrays(index, names=["rate", "group", "other"]))
    shown["rows"] = [f"{a}, {b}" for a, b in zip(pairs["n_1"], pairs["n_2"], strict=True)]
    for name, digits in (("rate_1", 1), ("rate_2", 1), ("difference", 1), ("bound", 2)):
        sign = "+" if name == "difference" else ""
        words = {"rate_1": "rate", "rate_2": "other rate"}.get(name, name)
        shown[words] = [f"{100 * value:{sign}.{digits}f}" for value in pairs[name]]
    shown["p-value"] = [f"{value:.3f}" for value in pairs["p_value"]]
    return shown


def remarks(certificate: FairnessCertificate) -> list[str]:
    """Explain the numbers and, if it does not hold, say how many rows would be enough.

    Returns
    -------
    list of str
    """
    pairs, epsilon = certificate.pairs, f"{100 * certificate.epsilon:g}"
    percent = f"{100 * certificate.confidence:g} %"
    n_more = len(pairs) - _SHOWN
    more = f" {n_more} pairs with smaller bounds are left out." if n_more > 0 else ""
    legend = (
        f"Rates, differences and their upper bounds at {percent} are in percent.{more} "
        f"Test: {certificate.test}."
    )
    if certificate.holds:
        return [
            f"No two groups differ by more than {epsilon} points, at a confidence of {percent}.",
            legend,
        ]
    n_open = int((~pairs["holds"]).sum())
    found = [
        f"{n_open} of {len(pairs)} comparisons may differ by more than {epsilon} points.",
        legend,
    ]
    widest = pairs["difference"].abs().max()
    if not np.isfinite(widest) or (certificate.group_sizes == 0).any(axis=None):
        found.append("A group has no rows behind a rate, so nothing can be said about that rate.")
    elif certificate.rows_needed is None:
        found.append(
            f"The largest observed difference is {100 * widest:.1f} points. If the difference in "
            "the population is as large, no number of rows is enough."
        )
    else:
        rows = _rows(certificate, certificate.rows_needed)
        found.append(f"Enough rows, if rates in the population are as observed: {rows}.")
    if certificate.rows_at_parity is not None:
        rows = _rows(certificate, certificate.rows_at_parity)
        found.append(f"Enough rows, if there is no difference in the population: {rows}.")
    return [plain(remark) for remark in found]


def _names(certificate: FairnessCertificate) -> dict[Any, str]:
    return tell_apart(certificate.group_sizes.index, write=group_label)


def _rows(certificate: FairnessCertificate, needed: pd.DataFrame) -> str:
    """Write numbers of rows: one for all groups where they agree, else one for each group."""
    most = needed.max(axis=1)
    if most.nunique() == 1:
        return f"{most.iloc[0]:,} behind each rate of each group"
    names = _names(certificate)
    named = [f"{names[group]}: {rows:,}" for group, rows in most.items()]
    more = ["..."] if len(named) > _SHOWN else []
    return f"behind each rate of {', '.join([*named[:_SHOWN], *more])}"


def jsonable(label: Any) -> Any:
    """Convert a label to what JSON can hold: a number, a text, a truth value or a list of these.

    Returns
    -------
    object
    """
    if isinstance(label, tuple):
        return [jsonable(part) for part in label]
    return label if isinstance(label, str | bool | int | float) else str(label)
