"""A check of rules: passes, fails or cannot tell, by exact tests, with the groups that decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np

from skfair.metrics._bounds import Changes, Shares, count_changes, count_shares
from skfair.metrics._certificate import FairnessCertificate, error_level, jsonable
from skfair.metrics._certify import MOST_CONFIDENCE
from skfair.metrics._counts import GroupCounts
from skfair.metrics._html import escape, group_label
from skfair.metrics._rates import METRIC_NAMES
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import resolve_metrics
from skfair.metrics._rules import FairnessRule
from skfair.metrics._verdicts import (
    Status,
    bounded_gap,
    each_group,
    enough_samples,
    exact_difference,
)
from skfair.utils._shown import as_label, plain, shown, shown_all

# Constraint of the certificate that answers a rule about the difference in a rate.
_CERTIFIED = {
    "demographic_parity": "selection rate",
    "equal_opportunity": "true positive rate",
}


class FairnessCheckError(AssertionError):
    """A model breaks a rule, or the samples cannot tell whether it does.

    Attributes
    ----------
    check : FairnessCheck
        The check with all its results.
    """

    def __init__(self, check: "FairnessCheck"):
        super().__init__(str(check))
        self.check = check

    def __reduce__(self) -> tuple:
        return type(self), (self.check,)


@dataclass(frozen=True)
class FairnessRuleResult:
    """The verdict on one rule, and the groups that decide it.

    Attributes
    ----------
    rule : FairnessRule
        The rule.
    status : {"passes", "fails", "cannot tell"}
        The verdict.
    value : float
        What the rule limits, as observed in the deciding groups; NaN if undefined.
    low, high : float
        Confidence bounds on the value of the deciding groups in the population. The rule passes if
        the bound on the side of the limit keeps the limit, in every group or pair. The rule fails
        if the other bound breaks the limit; that bound is corrected for the number of groups.
    groups : tuple
        Labels of the deciding groups: none, one, or the group that may be too high and the group
        that may be too low. If the rule fails, they break it most clearly. Otherwise they are the
        hardest to tell.
    values : tuple of float
        Value of each deciding group.
    counts : tuple of int
        Number of samples behind each value: the positives of a true positive rate.
    control : label or None
        Level of the control features; None without control features.
    enough : tuple of int or None
        Numbers of samples behind the values with which the rule would pass in about 8 of 10 cases,
        as far as these groups are concerned and if the population has the observed values. None
        if the rule does not wait for more samples, or the number is not known.
    left_out : tuple
        Labels of the groups with fewer samples than `min_count`; with control features, tuples of
        the level and the group.
    reason : str
        Why the samples cannot tell; empty for other verdicts.
    certificate : str
        Whether a certificate of the report answers the same rule; empty if there is none.

    Examples
    --------
    >>> from skfair.metrics import fairness_report
    >>> report = fairness_report([0, 1] * 200, [0, 1] * 200, sensitive_features=[*"ffmm"] * 100)
    >>> [result] = report.check("min(accuracy) >= 0.9").results
    >>> result.status, result.counts, round(result.low, 3)
    ('passes', (200,), 0.985)
    """

    rule: FairnessRule
    status: Status
    value: float
    low: float
    high: float
    groups: tuple
    values: tuple[float, ...]
    counts: tuple[int, ...]
    control: Any
    enough: tuple[int, ...] | None
    left_out: tuple
    reason: str
    certificate: str

    def __str__(self) -> str:
        lines = [f"{self.status}: {plain(str(self.rule))}"]
        lines += [f"  {line}" for line in self._details()]
        return "\n".join(lines)

    def _details(self) -> list[str]:
        details = []
        names = [f"'{group_label(group)}'" for group in self.groups]
        if len(set(names)) < len(names):  # 1 and '1'
            names = [shown(group) for group in self.groups]
        if self.counts:
            who = names or ["all samples"]
            each = [
                f"{name}: {_shown_number(value)} (n = {n:,})"
                for name, value, n in zip(who, self.values, self.counts, strict=True)
            ]
            where = f" in '{group_label(self.control)}'" if self.control is not None else ""
            what = f"{self.rule.statistic} " if len(names) == 2 else ""
            details.append(f"{', '.join(each)}{where}")
            details.append(
                f"{what}{_shown_number(self.value)}, confidence bounds "
                f"[{_shown_number(self.low)}, {_shown_number(self.high)}]"
            )
        if self.reason:
            details.append(self.reason)
        if self.enough is not None:
            needed = [
                f"{n:,} of {name}"
                for n, name in zip(self.enough, names or ["all samples"], strict=True)
            ]
            details.append(f"about enough samples behind the metric: {', '.join(needed)}")
        if self.left_out:
            some = [f"'{group_label(group)}'" for group in self.left_out[:5]]
            more = f", ... ({len(self.left_out)} in all)" if len(self.left_out) > 5 else ""
            details.append(f"left out, since they have too few samples: {', '.join(some)}{more}")
        if self.certificate:
            details.append(self.certificate)
        return details


@dataclass(frozen=True)
class FairnessCheck:
    """Verdicts on some rules about one model; made by :meth:`FairnessReport.check`.

    Attributes
    ----------
    status : {"passes", "fails", "cannot tell"}
        "fails" if any rule fails; else "cannot tell" if any rule cannot be told; else "passes".
    model : str
        Name of the model.
    confidence : float
        The probability that "passes" is wrong is at most 1 - `confidence` for each rule, and the
        probability that "fails" is wrong, too.
    results : tuple of FairnessRuleResult
        The verdict on each rule.

    Examples
    --------
    >>> from skfair.metrics import fairness_report
    >>> report = fairness_report([0, 1] * 200, [0, 1] * 200, sensitive_features=[*"ffmm"] * 100)
    >>> check = report.check(["min(accuracy) >= 0.9", "difference(selection_rate) <= 0.05"])
    >>> [result.status for result in check.results]
    ['passes', 'cannot tell']
    >>> check.status
    'cannot tell'
    """

    status: Status
    model: str
    confidence: float
    results: tuple[FairnessRuleResult, ...]

    def raise_if_failed(self, *, allow_cannot_tell: bool = False) -> None:
        """Raise an error unless the check passes.

        Parameters
        ----------
        allow_cannot_tell : bool, default=False
            True raises no error if the samples cannot tell.

        Raises
        ------
        FairnessCheckError
            A rule fails, or the samples cannot tell.
        """
        allowed = ("passes", "cannot tell") if allow_cannot_tell else ("passes",)
        if self.status not in allowed:
            raise FairnessCheckError(self)

    def to_dict(self) -> dict[str, Any]:
        """Convert the check to values that JSON can hold.

        Returns
        -------
        dict
            Numbers, texts, lists and None; None for a number that is undefined.
        """
        results = [
            {
                "rule": str(result.rule),
                "status": result.status,
                "value": _number(result.value),
                "low": _number(result.low),
                "high": _number(result.high),
                "groups": [jsonable(group) for group in result.groups],
                "values": [_number(value) for value in result.values],
                "counts": list(result.counts),
                "control": None if result.control is None else jsonable(result.control),
                "enough": None if result.enough is None else list(result.enough),
                "left_out": [jsonable(group) for group in result.left_out],
                "reason": result.reason,
                "certificate": result.certificate,
            }
            for result in self.results
        ]
        return {
            "status": self.status,
            "model": self.model,
            "confidence": self.confidence,
            "results": results,
        }

    def _headline(self) -> str:
        percent = f"{100 * self.confidence:g} %"
        return f"{self.status}: {len(self.results)} {_rules(self.results)} for the model " + (
            f"'{as_label(self.model)}' at a confidence of {percent}"
        )

    def __str__(self) -> str:
        return "\n".join([self._headline(), *map(str, self.results)])

    def _repr_html_(self) -> str:
        rows = []
        for result in self.results:
            details = "<br>".join(escape(line) for line in result._details())
            cells = f"<td>{escape(result.status)}</td><td><code>{escape(str(result.rule))}</code>"
            rows.append(f"<tr>{cells}</td><td>{details}</td></tr>")
        head = '<tr><th scope="col">verdict</th><th scope="col">rule</th>'
        head += '<th scope="col">deciding groups</th></tr>'
        table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        return f"<div><p><b>{escape(self._headline())}</b></p>{table}</div>"


def check_rules(
    counts: GroupCounts,
    metrics: Sequence[ReportMetric],
    pos_label: Any,
    certificates: Mapping[str, FairnessCertificate],
    rules: Any,
    *,
    confidence: Any,
    model: Any,
    min_count: Any,
) -> FairnessCheck:
    """Do the work of :meth:`FairnessReport.check`.

    Returns
    -------
    FairnessCheck
    """
    parsed = parse_rules(rules)
    if not isinstance(confidence, Real) or isinstance(confidence, bool):
        raise TypeError(f"confidence={shown(confidence)} is not a number. Give for instance 0.95.")
    if not 0 < float(confidence) <= MOST_CONFIDENCE:
        raise ValueError(
            f"confidence={confidence!r} is not above 0 and at most {MOST_CONFIDENCE}. Give for "
            "instance confidence=0.95."
        )
    if not isinstance(min_count, Integral) or isinstance(min_count, bool) or min_count < 0:
        raise ValueError(
            f"min_count={shown(min_count)} is not a number of samples. Give an integer, 0 to leave "
            "no group out."
        )
    if model is None:
        model = counts.models[-1]
    elif model not in counts.models:
        raise ValueError(
            f"model={shown(model)} is not a model of the report. Give one of "
            f"[{shown_all(counts.models)}], or None for the last model."
        )
    if len(counts.weight) and np.any(counts.weight != counts.weight[0]):
        raise ValueError(
            "The samples have unequal weights, and there is no exact test for weighted samples. "
            "Make the report without sample_weight, and check its rules."
        )
    level = error_level(float(confidence))
    results = []
    for rule in parsed:
        metric = _find_metric(rule, counts, metrics, pos_label)
        certificate = _answer(certificates.get(model), rule, metric, float(confidence))
        results.append(_check_rule(counts, rule, metric, model, level, int(min_count), certificate))
    statuses = [result.status for result in results]
    overall = next((s for s in ("fails", "cannot tell") if s in statuses), "passes")
    return FairnessCheck(overall, model, float(confidence), tuple(results))  # type: ignore[arg-type]


def parse_rules(rules: Any) -> tuple[FairnessRule, ...]:
    """Read one rule or several.

    Returns
    -------
    tuple of FairnessRule
    """
    several = [rules] if isinstance(rules, str | FairnessRule) else rules
    if not isinstance(several, list | tuple):
        raise TypeError(
            f"rules is a {type(rules).__name__}, expected a rule or a list of rules, for instance "
            "'difference(selection_rate) <= 0.05'."
        )
    if not several:
        raise ValueError("rules is empty. Give at least one rule.")
    return tuple(
        rule if isinstance(rule, FairnessRule) else FairnessRule.parse(rule) for rule in several
    )


def _check_rule(
    counts: GroupCounts,
    rule: FairnessRule,
    metric: ReportMetric,
    model: str,
    level: float,
    min_count: int,
    certificate: str,
) -> FairnessRuleResult:
    shares: Shares | Changes
    if rule.statistic == "change":
        if model == counts.models[0]:
            raise ValueError(
                f"The rule {shown(str(rule), 80)} is about the change from the first model, and "
                f"{shown(model)} is the first model. Report two models, the old one first."
            )
        shares = count_changes(counts, metric, model)
    else:
        shares = count_shares(counts, metric, model)
    occurs = counts.tables(None, counts.size.astype(np.float64)).sum((-2, -1)) > 0
    if rule.statistic == "overall":
        assert isinstance(shares, Shares)
        shares = Shares(
            shares.hits.sum(1, keepdims=True), shares.sizes.sum(1, keepdims=True), shares.is_f1
        )
        occurs = occurs.any(1, keepdims=True)
        min_count = 0
    used = occurs & (shares.behind >= min_count)
    left_out = tuple(
        (counts.controls[c], counts.groups[g]) if counts.control_names else counts.groups[g]
        for c, g in np.argwhere(occurs & ~used)
    )
    alone = ""
    if rule.statistic in ("difference", "ratio"):
        lonely = np.flatnonzero(occurs.any(1) & (used.sum(1) < 2))
        if len(lonely):
            where = f" where {_control(counts, lonely[0])}" if counts.control_names else ""
            alone = f"There are not two groups to compare{where}."
    verdict = None
    if isinstance(shares, Shares) and rule.statistic == "difference" and shares.is_single:
        verdict = exact_difference(shares, used, rule.value, level)
    elif isinstance(shares, Shares) and rule.statistic in ("difference", "ratio"):
        verdict = bounded_gap(shares, used, rule, level)
    elif used.any():
        verdict = each_group(shares, used, rule, level)
    status: Status = verdict.status if verdict else "cannot tell"
    if alone and status == "passes":
        status = "cannot tell"
    reason = ""
    if status == "cannot tell":
        reason = alone
    if verdict is None:
        reason = reason or "There is no group with enough samples."
        nan = float("nan")
        return FairnessRuleResult(
            rule, status, nan, nan, nan, (), (), (), None, None, left_out, reason, certificate
        )
    c, groups = verdict.control, verdict.groups
    behind = tuple(int(shares.behind[c, g]) for g in groups)
    values = tuple(float(shares.values()[c, g]) for g in groups)
    labels = () if rule.statistic == "overall" else tuple(counts.groups[g] for g in groups)
    enough = None
    if status == "cannot tell" and not reason:
        if 0 in behind:
            who = f" of '{group_label(labels[behind.index(0)])}'" if labels else ""
            reason = f"There are no samples behind the {_words(metric)}{who}."
        elif isinstance(shares, Shares) and shares.is_single:
            enough = enough_samples(shares, c, groups, rule, level)
    return FairnessRuleResult(
        rule=rule,
        status=status,
        value=verdict.value,
        low=verdict.low,
        high=verdict.high,
        groups=labels,
        values=values,
        counts=behind,
        control=counts.controls[c] if counts.control_names else None,
        enough=enough,
        left_out=left_out,
        reason=reason,
        certificate=certificate,
    )


def _find_metric(
    rule: FairnessRule, counts: GroupCounts, metrics: Sequence[ReportMetric], pos_label: Any
) -> ReportMetric:
    """Look up the metric of a rule: a metric of the report, or else a name that skfair knows."""
    own = {metric.name: metric for metric in metrics}
    found = own.get(rule.metric)
    if found is None and rule.metric in METRIC_NAMES:
        function = METRIC_NAMES[rule.metric]
        [found] = resolve_metrics({rule.metric: function}, counts, pos_label)
    usable = [name for name, metric in own.items() if metric.from_counts]
    known = list(dict.fromkeys([*usable, *METRIC_NAMES]))
    if found is None:
        near = get_close_matches(rule.metric[:100].lower(), known, n=3)
        advice = f"Did you mean {' or '.join(map(shown, near))}? " if near else ""
        raise ValueError(
            f"The rule {shown(str(rule), 80)} has an unknown metric, {shown(rule.metric)}. {advice}"
            f"Give one of {', '.join(map(shown, known))}."
        )
    if not found.from_counts:
        raise ValueError(
            f"The rule {shown(str(rule), 80)} is about {shown(rule.metric)}, which is not computed "
            "from counts of these labels, and there is no exact test for it. Metrics that can be "
            f"checked: {', '.join(map(shown, known))}; precision, recall and F1 only of two labels."
        )
    return found


def _answer(
    certificate: FairnessCertificate | None,
    rule: FairnessRule,
    metric: ReportMetric,
    confidence: float,
) -> str:
    """Say whether the certificate of the model answers a rule, besides the samples."""
    rate = None if metric.counted is None else metric.counted.name
    if (
        certificate is None
        or rule.statistic != "difference"
        or _CERTIFIED.get(certificate.constraint) != rate
        or certificate.epsilon > rule.value
        or certificate.confidence < confidence
        or not certificate.holds
    ):
        return ""
    return (
        f"The certificate of the model proves the same on its own rows: {certificate.constraint} "
        f"within {certificate.epsilon:g} at {100 * certificate.confidence:g} %."
    )


def _words(metric: ReportMetric) -> str:
    return as_label(metric.name).replace("_", " ")


def _control(counts: GroupCounts, position: int) -> str:
    names = ", ".join(map(as_label, counts.control_names))
    return f"{names} is '{group_label(counts.controls[position])}'"


def _rules(results: Sequence) -> str:
    return "rule" if len(results) == 1 else "rules"


def _shown_number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
