"""One scorer of performance and a limit on disparity, where a search takes one only."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.metrics import check_scoring

from skfair.metrics._search_scores import SIGN
from skfair.model_selection._constrained import check_not_negative


def make_constrained_scorer(
    performance: str | Callable,
    disparity: Callable,
    *,
    max_disparity: float,
    penalty: float = 10.0,
) -> Callable:
    """Make one scorer of performance and a limit on the disparity.

    The score is ``performance - penalty * max(0, disparity - max_disparity)`` on each fold. It
    is for what takes a single number: ``cross_val_score`` and the halving searches, which
    ignore a callable `refit` and refuse several scorers. Elsewhere :class:`constrained_refit`
    is better: it limits the mean over the folds, where this one penalises every fold that is
    above the limit, by chance too, and it says so when no candidate holds the limit.

    Parameters
    ----------
    performance : str or callable
        Name of a scikit-learn scorer, or a scorer.
    disparity : callable
        Scorer of the disparity, larger is better: a difference between groups is scored
        negatively, as by ``skfair.metrics.make_fairness_scorer``.
    max_disparity : float
        Largest disparity without a penalty, 0 or more.
    penalty : float, default=10.0
        How much performance one unit of disparity above the limit costs, above 0. With 10, a
        disparity of 0.01 too much costs 0.1.

    Returns
    -------
    callable
        Scorer with the signature ``(estimator, X, y, **params)``. Under metadata routing it
        requests what its two scorers request, and called by itself it passes `params` on in
        the same way. The estimator predicts once for both scorers where they use the same
        method of it.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it must be. When called: the disparity scored above zero.

    Notes
    -----
    A disparity that is NaN makes the score NaN. Halving over ``resource="n_samples"`` scores on
    random parts of the test folds, which may miss a small group; take another resource, such
    as ``max_iter``, or a large `min_resources`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from skfair.metrics import make_fairness_scorer
    >>> from skfair.model_selection import make_constrained_scorer
    >>> parity = make_fairness_scorer("demographic_parity")
    >>> scorer = make_constrained_scorer("accuracy", parity, max_disparity=0.05)
    >>> X, y = np.zeros((4, 1)), [0, 1, 1, 1]
    >>> model = DummyClassifier().fit(X, y)
    >>> float(scorer(model, X, y, sensitive_features=list("aabb")))
    0.75
    """
    if not isinstance(performance, str) and not callable(performance):
        raise TypeError(
            "performance must be the name of a scikit-learn scorer or a scorer, got "
            f"{performance!r}."
        )
    if not callable(disparity):
        raise TypeError(
            f"disparity must be a scorer, got {disparity!r}. Make one, for instance with "
            "skfair.metrics.make_fairness_scorer('demographic_parity')."
        )
    check_not_negative("max_disparity", max_disparity)
    check_not_negative("penalty", penalty)
    if penalty == 0:
        raise ValueError("penalty is 0, with which the disparity would not count. Raise it.")
    return _ConstrainedScorer(performance, disparity, max_disparity, penalty)


class _ConstrainedScorer:
    def __init__(self, performance, disparity, max_disparity, penalty):
        self.performance = performance
        self.disparity = disparity
        self.max_disparity = max_disparity
        self.penalty = penalty
        # scikit-learn's own scorer of several: it routes to each, and predicts once.
        self._scorer = check_scoring(
            None, scoring={"performance": performance, "disparity": disparity}
        )

    def __call__(self, estimator: Any, X: Any, y: Any, **params: Any) -> float:
        # Only with routing does each of the two get what it requests, and no more; here it also
        # makes a call by hand work where the caller has it off.
        with config_context(enable_metadata_routing=True):
            scores = self._scorer(estimator, X, y, **params)
        if scores["disparity"] > 0:
            raise ValueError(
                f"{self.disparity!r} scored {scores['disparity']:.4g}, above zero. {SIGN}"
            )
        excess = -scores["disparity"] - self.max_disparity
        return scores["performance"] - self.penalty * np.maximum(0.0, excess)  # NaN stays NaN

    def get_metadata_routing(self):
        return self._scorer.get_metadata_routing()

    def __repr__(self) -> str:
        return (
            f"make_constrained_scorer({self.performance!r}, {self.disparity!r}, "
            f"max_disparity={self.max_disparity!r}, penalty={self.penalty!r})"
        )
