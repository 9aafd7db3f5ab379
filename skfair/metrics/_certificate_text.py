"""The faces of a certificate: one line, text and HTML."""

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skfair.metrics._html import escape, html_table
from skfair.utils._shown import as_label, plain, tell_apart

if TYPE_CHECKING:
    from skfair.metrics._certificate import FairnessCertificate

_SHOWN = 6  # pairs in a table, those with the largest bounds
_WIDTH = 100


def claim(certificate: "FairnessCertificate") -> str:
    """Say in one line what was asked and what came out.

    Returns
    -------
    str
    """
    verdict = "holds" if certificate.holds else "not certified"
    return (
        f"{certificate.constraint} within {certificate.epsilon:g} at "
        f"{100 * certificate.confidence:g} %: {verdict}"
    )


def text(certificate: "FairnessCertificate") -> str:
    """Make the text of a certificate.

    Returns
    -------
    str
    """
    words = [textwrap.fill(remark, _WIDTH) for remark in remarks(certificate)]
    return "\n\n".join([claim(certificate), table(certificate).to_string(), "\n".join(words)])


def body(certificate: "FairnessCertificate") -> str:
    """Make the table and remarks of a certificate in HTML.

    Returns
    -------
    str
    """
    parts = [f"<p><b>{escape(claim(certificate))}</b></p>"]
    parts += [f"<p>{escape(remark)}</p>" for remark in remarks(certificate)]
    return "\n".join([*parts, f"<div>{html_table(table(certificate))}</div>"])


def table(certificate: "FairnessCertificate") -> pd.DataFrame:
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


def remarks(certificate: "FairnessCertificate") -> list[str]:
    """Say what the numbers are, and what it would take where it does not hold.

    Returns
    -------
    list of str
    """
    pairs, epsilon = certificate.pairs, f"{100 * certificate.epsilon:g}"
    percent = f"{100 * certificate.confidence:g} %"
    more = f" {len(pairs) - _SHOWN} pairs with smaller bounds are left out." * (len(pairs) > _SHOWN)
    words = [
        f"Rates, differences and their upper bounds at {percent} in percent.{more} "
        f"Test: {certificate.test}."
    ]
    if certificate.holds:
        return [
            f"No two groups differ by more than {epsilon} points, at a confidence of {percent}.",
            *words,
        ]
    open_ = int((~pairs["holds"]).sum())
    words.insert(
        0, f"Of {len(pairs)} comparisons {open_} may differ by more than {epsilon} points."
    )
    widest = pairs["difference"].abs().max()
    if not np.isfinite(widest) or (certificate.group_sizes == 0).any(axis=None):
        words.append("A group has no rows behind a rate, so that nothing can be said about it.")
    elif certificate.rows_needed is None:
        words.append(
            f"The largest observed difference is {100 * widest:.1f} points. If that is the one in "
            "the population, no number of rows would do."
        )
    else:
        rows = _rows(certificate, certificate.rows_needed)
        words.append(f"Enough, if rates in the population are those observed: {rows}.")
    if certificate.rows_at_parity is not None:
        rows = _rows(certificate, certificate.rows_at_parity)
        words.append(f"Enough, if there is no difference in the population: {rows}.")
    return [plain(remark) for remark in words]


def _names(certificate: "FairnessCertificate") -> dict[Any, str]:
    return tell_apart(certificate.group_sizes.index, write=_label)


def _rows(certificate: "FairnessCertificate", needed: pd.DataFrame) -> str:
    """Name the groups whose rows would do, with the numbers."""
    most = needed.max(axis=1)
    if most.nunique() == 1:
        return f"{most.iloc[0]:,} rows behind each rate of each group"
    names = _names(certificate)
    named = [f"{names[group]}: {rows:,}" for group, rows in most.items()]
    more = ["..."] if len(named) > _SHOWN else []
    return f"rows behind each rate of {', '.join([*named[:_SHOWN], *more])}"


def _label(group: Any) -> str:
    return ", ".join(as_label(part) for part in (group if isinstance(group, tuple) else (group,)))
