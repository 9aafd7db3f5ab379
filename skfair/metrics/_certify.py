"""The making of a certificate: a test of each pair of groups."""

from collections.abc import Sequence
from itertools import combinations
from numbers import Real
from typing import Any
from warnings import warn

import numpy as np

from skfair.metrics._binomial_tests import upper_bound
from skfair.metrics._certificate import FairnessCertificate, error_level
from skfair.metrics._rate_tests import (
    RateCounts,
    estimates,
    least_rows,
    pair_p_value,
    rows_for,
    table_rates,
)
from skfair.metrics._rates import CONSTRAINTS, positive_position
from skfair.metrics._samples import encode_samples
from skfair.utils._rows import check_rows
from skfair.utils._settings import with_own_settings
from skfair.utils._shown import shown, shown_all
from skfair.utils._warnings import SmallGroupWarning

MOST_CONFIDENCE = 0.99999  # p-values are not accurate enough for more
EXACT = "two one-sided exact tests of two binomial rates (score statistic, Berger and Boos)"
APPROXIMATE = "two one-sided adjusted Wald tests of a mean of differences (approximate)"
AFTERWARDS = ", done after earlier tests had failed, so it proves nothing"
_OF_EACH_CLASS = ("demographic_parity", "equalized_odds")  # defined for more than two classes


@with_own_settings
def fairness_certificate(
    y_true: Any,
    y_pred: Any,
    *,
    sensitive_features: Any,
    constraint: str = "demographic_parity",
    epsilon: float = 0.05,
    confidence: float = 0.95,
    pos_label: Any = None,
) -> FairnessCertificate:
    """Test whether predictions differ between groups by no more than epsilon in the population.

    The model must be final. The rows must be held-out: neither used to train the model nor to
    choose it. If the same rows are used to choose one of several models, the stated confidence
    holds for none of them.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_pred : array-like of shape (n_samples,)
        Predicted labels.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds", "average_odds"}, \
default="demographic_parity"
        What is compared between groups, as in the debiasers: the selection rate (share of
        positive predictions); the true positive rate; the true positive rate and the false
        positive rate; the mean of these two rates. With more than two classes and without
        `pos_label`, "demographic_parity" compares the share predicted as each class, and
        "equalized_odds" compares this share within each true class.
    epsilon : float, default=0.05
        Largest difference between two groups that is allowed, between 0 and 1.
    confidence : float, default=0.95
        If a difference in the population is larger than `epsilon`, the certificate does not hold
        with at least this probability. At most 0.99999.
    pos_label : label, default=None
        The positive class, compared with all other classes. None means 1 if labels are 0 and 1,
        -1 and 1, or False and True.

    Returns
    -------
    FairnessCertificate
        The verdict, the bound on each pair of groups and, if the certificate does not hold, the
        number of rows that would be enough.

    Raises
    ------
    TypeError
        `constraint` is a function, labels are text on one side only, or `epsilon` or `confidence`
        is not a number.
    ValueError
        `constraint` is unknown, `epsilon` or `confidence` is out of range, arguments have
        different lengths, values are missing or continuous, there is one group only, a group has
        no row behind a rate, or the positive label does not occur or is not clear.

    Warns
    -----
    SmallGroupWarning
        A group is too small for any certificate; the warning gives the number of rows needed.

    Notes
    -----
    Rows must be a sample of the population, each drawn independently. Nothing else is assumed
    about the rows or the model. For each rate and pair of groups, two one-sided tests reject the
    hypothesis that the rates differ by `epsilon` or more, each at level ``1 - confidence``. All
    tests have to reject. The probability of a wrong verdict is therefore at most that level,
    however many tests there are. The tests are exact. Only the test of "average_odds", which is
    about four rates at once, is approximate; it may reject at .06 instead of .05 where rates are 0
    or 1.

    There is no `sample_weight`: no such bound is known for weighted rows.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> group = rng.choice(["f", "m"], 4000)
    >>> y_pred = (rng.random(4000) < 0.3).astype(int)
    >>> fairness_certificate(y_pred, y_pred, sensitive_features=group)
    FairnessCertificate(demographic_parity within 0.05 at 95 %: holds)
    """
    if not isinstance(constraint, str):
        raise TypeError(
            f"constraint is a {type(constraint).__name__}, and there is no test for it. Give one "
            f"of {list(CONSTRAINTS)}."
        )
    if constraint not in CONSTRAINTS:
        ratio = " A ratio cannot be certified, only a difference." if "ratio" in constraint else ""
        raise ValueError(
            f"constraint={shown(constraint)} is not one of {list(CONSTRAINTS)}. Give one of "
            f"these.{ratio}"
        )
    for name, value in (("epsilon", epsilon), ("confidence", confidence)):
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name}={shown(value)} is not a number. Give one between 0 and 1.")
        if not 0 < value < 1:
            raise ValueError(
                f"{name}={value!r} is not between 0 and 1, both excluded. Give for instance "
                f"{name}={0.05 if name == 'epsilon' else 0.95}."
            )
    if confidence > MOST_CONFIDENCE:
        raise ValueError(
            f"confidence={confidence!r} is more than can be computed. Give at most "
            f"{MOST_CONFIDENCE}."
        )
    check_rows(y_true=y_true, y_pred=y_pred, sensitive_features=sensitive_features)
    samples = encode_samples(y_true, sensitive_features)
    groups = samples.groups.labels
    if len(groups) < 2:
        raise ValueError(
            f"sensitive_features has one group, {shown(groups[0])}, in these {len(samples.y)} "
            "samples, and a certificate compares two or more. Give rows of all groups."
        )
    prediction, labels = samples.encode_prediction(y_pred)
    table = samples.table(prediction, len(labels))
    positive = None
    if len(labels) <= 2 or pos_label is not None or constraint not in _OF_EACH_CLASS:
        positive = positive_position(labels, pos_label, constraint)
    rates = table_rates(constraint, table, labels, positive)
    for rate in rates:
        empty = np.flatnonzero((rate.sizes == 0).reshape(-1, len(groups)).any(0))
        if len(empty):
            names = shown_all([groups[g] for g in empty])
            raise ValueError(
                f"There is no row behind the {rate.name} of [{names}], so nothing can be said "
                "about that rate. Give rows of each group and class, or choose demographic_parity."
            )
    return certify(
        rates, groups, constraint=constraint, epsilon=float(epsilon), confidence=float(confidence)
    )


def certify(
    rates: Sequence[RateCounts],
    labels: Sequence,
    *,
    constraint: str,
    epsilon: float,
    confidence: float,
    proves: bool = True,
) -> FairnessCertificate:
    """Test all pairs of groups; arguments are not checked.

    Parameters
    ----------
    rates : sequence of RateCounts
        Rates of one candidate.
    labels : sequence of length n_groups
        Labels of the groups.
    constraint : str
        Name of the constraint.
    epsilon, confidence : float
        As in :func:`fairness_certificate`.
    proves : bool, default=True
        False if the rows were used to choose the candidate, or if tests of other candidates on
        these rows failed before. Nothing holds then, whatever the p-values are.

    Returns
    -------
    FairnessCertificate

    Warns
    -----
    SmallGroupWarning
        A group is too small for any certificate.
    """
    delta, is_mean = error_level(confidence), rates[0].is_mean
    pairs: list[dict[str, Any]] = []
    for rate in rates:
        for g, h in combinations(range(len(labels)), 2):
            tested = _test_pair(rate, g, h, epsilon, delta)
            holds = proves and tested["p_value"] <= delta
            pairs.append({"rate": rate.name, "group_1": g, "group_2": h, **tested, "holds": holds})
    proven, least = all(pair["holds"] for pair in pairs), least_rows(epsilon, delta, is_mean)
    smallest = np.min([rate.sizes.min(-2) if rate.is_mean else rate.sizes for rate in rates], 0)
    needed = parity = None
    if not proven and smallest.min() > 0:
        needed = rows_for(rates, epsilon, delta)
        parity = rows_for(rates, epsilon, delta, at_parity=True)
    small = [f"{shown(g)}: {int(n)}" for g, n in zip(labels, smallest, strict=True) if n < least]
    if small:
        warn(
            f"Groups are too small for any certificate of {constraint} within {epsilon:g} at a "
            f"confidence of {confidence:g}: it takes {least} rows behind each rate of each group "
            f"at the very least, and there are ({', '.join(small[:5])}"
            f"{', ...' if len(small) > 5 else ''}). Collect more rows of these groups, merge "
            "groups, or allow a larger epsilon.",
            SmallGroupWarning,
        )

    def by_group(sizes: Sequence[np.ndarray] | None) -> list | None:
        return None if sizes is None else np.stack(sizes, 1).astype(np.int64).tolist()

    return FairnessCertificate.from_dict(
        {
            "holds": proven,
            "constraint": constraint,
            "epsilon": epsilon,
            "confidence": confidence,
            "test": (APPROXIMATE if is_mean else EXACT) + ("" if proves else AFTERWARDS),
            "least_rows": least,
            "groups": labels,
            "rates": [rate.name for rate in rates],
            "group_sizes": by_group([r.sizes.sum(-2) if r.is_mean else r.sizes for r in rates]),
            "rows_needed": by_group(needed),
            "rows_at_parity": by_group(parity),
            "pairs": {name: [pair[name] for pair in pairs] for name in pairs[0]},
        }
    )


def _test_pair(rate: RateCounts, g: int, h: int, epsilon: float, delta: float) -> dict[str, float]:
    """Test two groups, by their positions."""
    hits, sizes = rate.hits[..., [g, h]], rate.sizes[..., [g, h]]
    n_1, n_2 = map(int, sizes.sum(-2) if rate.is_mean else sizes)
    rate_1 = rate_2 = float("nan")
    bound = p_value = 1.0
    if np.all(sizes > 0):
        value, variance = estimates(RateCounts("", hits, sizes, rate.is_mean), sizes)
        rate_1, rate_2 = map(float, value)
        p_value = pair_p_value(rate, g, h, epsilon, delta)
        bound = upper_bound(
            lambda other: pair_p_value(rate, g, h, other, delta),
            delta,
            abs(rate_1 - rate_2),
            float(np.sqrt(variance.sum())),
            (epsilon, p_value),
        )
    return {
        "n_1": n_1,
        "n_2": n_2,
        "rate_1": rate_1,
        "rate_2": rate_2,
        "difference": rate_1 - rate_2,
        "bound": bound,
        "p_value": p_value,
    }
