"""A check of rules: passes, fails or cannot tell, by exact tests, with the groups that decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from skfair.metrics._binomial_tests import exact_p_value, score, upper_bound
from skfair.metrics._bounds import Changes, Shares, count_changes, count_shares
from skfair.metrics._certificate import FairnessCertificate, error_level, jsonable
from skfair.metrics._certify import MOST_CONFIDENCE
from skfair.metrics._counts import GroupCounts
from skfair.metrics._html import escape, group_label
from skfair.metrics._rate_tests import RateCounts, estimates, rows_for
from skfair.metrics._rates import COUNT_METRICS
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import resolve_metrics
from skfair.metrics._rules import FairnessRule
from skfair.utils._shown import as_label, plain, shown, shown_all

Status = Literal["passes", "fails", "cannot tell"]
# Metrics that a rule can name in every report, besides the metrics of the report.
METRIC_NAMES: dict[str, Callable] = {
    counted.name.lower().replace(" ", "_").replace("-", "_"): function
    for function, counted in COUNT_METRICS.items()
}
# Constraint of the certificate that answers a rule about the difference in a rate.
_CERTIFIED = {
    "demographic_parity": "selection rate",
    "equal_opportunity": "true positive rate",
}
_POWER = 0.8  # probability of a verdict with the number of samples that is called enough
_MOST_SAMPLES = 10**9
_NEAR = 1e-4  # tolerance of the lower bound on a difference


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

    def __reduce__(self):
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
        Labels of the deciding groups: none, one, or the group with the higher and the group with
        the lower value. If the rule fails, they break it most clearly. Otherwise they are the
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
    if not 0 < confidence <= MOST_CONFIDENCE:
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
        results.append(_check_rule(counts, rule, metric, model, level, min_count, certificate))
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


class _Verdict(NamedTuple):
    """The verdict on one rule, and positions of what decides it."""

    status: Status
    value: float
    low: float
    high: float
    control: int
    groups: tuple[int, ...]


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
        verdict = _exact_difference(shares, used, rule.value, level)
    elif isinstance(shares, Shares) and rule.statistic in ("difference", "ratio"):
        verdict = _gap(shares, used, rule, level)
    elif used.any():
        verdict = _each(shares, used, rule, level)
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
            enough = _enough(shares, c, groups, rule, level)
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


def _each(shares: Shares | Changes, used: np.ndarray, rule: FairnessRule, level: float) -> _Verdict:
    """Check a limit on every group.

    "passes" needs all groups to reject, and therefore no correction. "fails" needs one group of
    many, and therefore shares its error among the groups.
    """
    n_tested = max(1, int((used & (shares.behind > 0)).sum()))
    low, high = shares.bounds(level)
    strict_low, strict_high = shares.bounds(level / n_tested)
    if rule.comparison == ">=":
        margin, broken, high = low - rule.value, strict_high - rule.value, strict_high
    else:
        margin, broken, low = rule.value - high, rule.value - strict_low, strict_low
    status: Status
    if np.any(used & (broken < 0)):
        status, least = "fails", np.where(used, broken, np.inf)
    else:
        status = "passes" if np.all(margin[used] >= 0) else "cannot tell"
        least = np.where(used, margin, np.inf)
    c, g = map(int, np.unravel_index(np.argmin(least), least.shape))
    value = float(shares.values()[c, g])
    return _Verdict(status, value, float(low[c, g]), float(high[c, g]), c, (g,))


def _gap(shares: Shares, used: np.ndarray, rule: FairnessRule, level: float) -> _Verdict | None:
    """Check a limit on the difference or ratio of all two groups, by bounds on both groups.

    "passes": each ordered pair is bounded by two bounds, which share the error. "fails": the bounds
    of all groups hold at once, so that any pair may be looked at.
    """
    is_ratio = rule.statistic == "ratio"
    n_tested = max(1, int((used & (shares.behind > 0)).sum()))
    low, high = shares.bounds(level / 2)
    strict_low, strict_high = shares.bounds(level / 2 / n_tested)
    values = shares.values()

    def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Compare each group (row) with each other group (column)."""
        one, other = first[:, :, None], second[:, None, :]
        if not is_ratio:
            return one - other
        ratio = np.full(np.broadcast_shapes(one.shape, other.shape), np.nan)
        return np.divide(other, one, out=ratio, where=one > 0)

    # Row: the group with the higher value. A ratio is lower divided by higher.
    pair = used[:, :, None] & used[:, None, :] & ~np.eye(used.shape[1], dtype=bool)
    if not pair.any():
        return None
    if is_ratio:
        worst, mildest = apart(high, low), apart(strict_low, strict_high)
        margin, broken = worst - rule.value, mildest - rule.value
        bounds = worst, np.where(np.isnan(mildest), np.inf, mildest)
    else:
        worst, mildest = apart(high, low), apart(strict_low, strict_high)
        margin, broken = rule.value - worst, rule.value - mildest
        bounds = np.maximum(mildest, 0), worst
    broken = np.where(pair & ~np.isnan(broken), broken, np.inf)
    status: Status
    if np.any(broken < 0):
        status, least = "fails", broken
    else:
        status = "passes" if np.all(margin[pair] >= 0) else "cannot tell"
        least = np.where(pair, margin, np.inf)
    c, g, h = map(int, np.unravel_index(np.argmin(least), least.shape))
    value = float(apart(values, values)[c, g, h])
    return _Verdict(status, value, float(bounds[0][c, g, h]), float(bounds[1][c, g, h]), c, (g, h))


def _exact_difference(
    shares: Shares, used: np.ndarray, limit: float, level: float
) -> _Verdict | None:
    """Check a limit on the difference in a share of all two groups, by the certificate's test.

    "passes": the test of each pair rejects a difference of `limit` or more. "fails": the test of a
    pair rejects a difference of at most `limit`; each ordered pair has the same part of the error.
    """
    hits, sizes = shares.hits[..., 0], shares.sizes[..., 0]
    filled = used & (sizes > 0)
    per_level = filled.sum(1)
    n_ordered = max(1, int((per_level * (per_level - 1)).sum()))
    pairs = []
    for c in np.flatnonzero(per_level > 1):
        some = np.flatnonzero(filled[c])
        first, second = (some[i] for i in np.triu_indices(len(some), 1))
        swap = hits[c, first] / sizes[c, first] < hits[c, second] / sizes[c, second]
        pairs.append(
            np.stack(
                [
                    np.full(len(first), c),
                    np.where(swap, second, first),
                    np.where(swap, first, second),
                ]
            )
        )
    empty = np.argwhere(used & (sizes == 0) & (used.sum(1, keepdims=True) > 1))
    if not pairs:
        if not len(empty):
            return None
        c, g = map(int, empty[0])
        return _Verdict("cannot tell", float("nan"), 0.0, 1.0, c, (g,))
    control, higher, lower = np.concatenate(pairs, axis=1)
    x1, n1, x2, n2 = (array[control, group] for group in (higher, lower) for array in (hits, sizes))
    far = score(x1, n1, x2, n2, min(limit, 1 - 1e-9))
    order = np.argsort(-far, kind="stable")

    def counted(i: int) -> tuple[int, int, int, int]:
        return int(x1[i]), int(n1[i]), int(x2[i]), int(n2[i])

    def apart(i: int, epsilon: float) -> float:
        """P-value of a difference of at most epsilon."""
        a, m, b, n = counted(i)
        return exact_p_value(b, n, a, m, -epsilon, level / n_ordered, two_sided=False)

    def close(i: int, epsilon: float) -> float:
        """P-value of a difference of epsilon or more."""
        return (
            exact_p_value(*counted(i), epsilon, level) if 0 < epsilon < 1 else float(epsilon <= 0)
        )

    i = int(order[0])
    status: Status
    if far[i] > 0 and apart(i, limit) <= level / n_ordered:
        status = "fails"
    else:
        open_ = next((int(i) for i in order if far[i] >= 0 or close(int(i), limit) > level), None)
        status = "passes" if open_ is None and not len(empty) else "cannot tell"
        if open_ is None and len(empty):
            c, g = map(int, empty[0])
            return _Verdict("cannot tell", float("nan"), 0.0, 1.0, c, (g,))
        i = i if open_ is None else open_
    value = int(x1[i]) / int(n1[i]) - int(x2[i]) / int(n2[i])
    pair = RateCounts("", np.array([x1[i], x2[i]]), np.array([n1[i], n2[i]]))
    error = float(np.sqrt(estimates(pair, pair.sizes)[1].sum()))
    tested = (limit, close(i, limit) if limit > value else 1.0)
    high = upper_bound(lambda epsilon: close(i, epsilon), level, value, error, tested)
    low = _lower_bound(lambda e: apart(i, e), level / n_ordered, value, limit, status == "fails")
    groups = (int(higher[i]), int(lower[i]))
    return _Verdict(status, value, low, high, int(control[i]), groups)


def _lower_bound(
    p_value: Callable[[float], float], error: float, value: float, limit: float, fails: bool
) -> float:
    """Largest epsilon that a test of "at most epsilon" rejects, or somewhat less; at least 0."""
    low, high = (limit, value) if fails else (0.0, min(limit, value))
    if not fails and (high <= 0 or p_value(0.0) > error):
        return 0.0
    while high - low > _NEAR:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if p_value(middle) <= error else (low, middle)
    return low


def _enough(
    shares: Shares, c: int, groups: tuple[int, ...], rule: FairnessRule, level: float
) -> tuple[int, ...] | None:
    """Number of samples of the deciding groups with which the rule would probably pass."""
    hits, sizes = (array[c, list(groups), 0] for array in (shares.hits, shares.sizes))
    if rule.statistic == "difference":
        if not 0 < rule.value < 1:
            return None
        found = rows_for([RateCounts("", hits, sizes)], rule.value, level)
        return None if found is None else tuple(map(int, found[0]))
    if rule.statistic == "ratio":
        return None
    share = float(hits[0] / sizes[0])
    if (share <= rule.value) if rule.comparison == ">=" else (share >= rule.value):
        return None
    sign = 1 if rule.comparison == ">=" else -1

    def passes(n: int) -> bool:
        unlucky = share * n - sign * float(ndtri(_POWER)) * np.sqrt(n * share * (1 - share))
        x = int(np.clip(np.floor(unlucky) if sign > 0 else np.ceil(unlucky), 0, n))
        low, high = Shares(np.array([[[x]]]), np.array([[[n]]]), False).bounds(level)
        return bool(low[0, 0] >= rule.value if sign > 0 else high[0, 0] <= rule.value)

    low, high = 0, 1
    while not passes(high):
        low, high = high, 2 * high
        if high > _MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return (high,)


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
    return f"{', '.join(map(as_label, counts.control_names))} is '{group_label(counts.controls[position])}'"


def _rules(results: Sequence) -> str:
    return "rule" if len(results) == 1 else "rules"


def _shown_number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
