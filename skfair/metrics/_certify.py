"""The certificate of a model that exists, from its predictions."""

from numbers import Real
from typing import Any

import numpy as np

from skfair.metrics._certificate import MOST_CONFIDENCE, FairnessCertificate, certify
from skfair.metrics._rate_tests import table_rates
from skfair.metrics._rates import CONSTRAINTS, positive_position
from skfair.metrics._samples import encode_samples
from skfair.utils._rows import check_rows
from skfair.utils._settings import with_own_settings
from skfair.utils._shown import shown, shown_all

_OF_EACH_CLASS = ("demographic_parity", "equalized_odds")  # where there are more than two


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

    For a model that exists and is not changed any more, on rows that it was neither trained nor
    chosen on. If the same rows tell which of several models to take, the confidence is that of none
    of them.

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
        What is to be alike in all groups, as in the debiasers: the share of positive predictions;
        the true positive rate; that and the false positive rate; the mean of both. Of more than
        two classes and without `pos_label`, the share predicted as each class, and for
        "equalized_odds" that share of each true class.
    epsilon : float, default=0.05
        Largest difference between two groups, between 0 and 1.
    confidence : float, default=0.95
        Probability with which no certificate is given where a difference is larger than that;
        at most 0.99999.
    pos_label : label, default=None
        The positive class, as against all others. None means 1 where labels are 0 and 1, -1 and 1,
        or False and True.

    Returns
    -------
    FairnessCertificate
        The verdict, the bound on each pair of groups, and, where it does not hold, the number of
        rows that would do.

    Raises
    ------
    TypeError
        A function as constraint, labels that are text on one side only, or numbers that are none.
    ValueError
        An unknown constraint, `epsilon` or `confidence` out of range, another number of
        predictions or groups than of labels, missing or continuous values, one group, a group
        without a row behind a rate, or a positive label that does not occur or is not clear.

    Warns
    -----
    SmallGroupWarning
        A group is too small for any certificate; the warning says how many rows it takes.

    Notes
    -----
    Rows must be a sample of the population, each drawn by itself; nothing else is assumed about
    them or the model. For each rate and pair of groups two one-sided tests reject that the rates
    differ by `epsilon` or more, each at level ``1 - confidence``. Since all have to reject, the
    probability that they do wrongly is at most that level, however many there are. The tests are
    exact; that of "average_odds", which is about four rates at a time, is approximate, and may
    reject at .06 in place of .05 where rates are 0 or 1.

    There are no sample weights: of weighted rows no such bound is known.

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
            f"constraint is a {type(constraint).__name__}, for which there is no test. Give one of "
            f"{list(CONSTRAINTS)}, which can be certified."
        )
    if constraint not in CONSTRAINTS:
        ratio = " A ratio cannot be certified, only a difference." if "ratio" in constraint else ""
        raise ValueError(
            f"constraint={shown(constraint)} is not one of {list(CONSTRAINTS)}, which can be "
            f"certified.{ratio}"
        )
    for name, value in (("epsilon", epsilon), ("confidence", confidence)):
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name}={shown(value)} is no number. Give one between 0 and 1.")
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
                f"There is no row behind the {rate.name} of [{names}], so that nothing can be said "
                "about it. Give rows of each group and class, or choose demographic_parity."
            )
    return certify(
        rates, groups, constraint=constraint, epsilon=float(epsilon), confidence=float(confidence)
    )
