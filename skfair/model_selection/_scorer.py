"""Performance and a limit on disparity as one scorer, for searches that take only one."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, NoReturn

import numpy as np
from sklearn import config_context
from sklearn.metrics import check_scoring
from sklearn.metrics._scorer import _BaseScorer, _cached_call
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from skfair.metrics._group_metric import unwrap
from skfair.metrics._search_scores import SIGN
from skfair.model_selection._constrained import check_not_negative
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown


def make_constrained_scorer(
    performance: str | Callable,
    disparity: Callable,
    *,
    max_disparity: float,
    penalty: float = 10.0,
) -> Callable:
    """Make one scorer of performance and a limit on the disparity.

    The score is ``performance - penalty * max(0, disparity - max_disparity)`` on each fold. Use it
    where a single number is required: in ``cross_val_score``; in the halving searches, which ignore
    a callable `refit` and refuse several scorers; and in ``TunedThresholdClassifierCV``, for one
    common threshold under a limit on the disparity. In other searches :class:`constrained_refit` is
    better: it limits the mean over the folds, while this score penalises each fold that is above
    the limit, also by chance. And it warns if no candidate meets the limit.

    Parameters
    ----------
    performance : str or callable
        Scorer of the performance, or the name of a scikit-learn scorer.
    disparity : callable
        Scorer of the disparity. A larger score is better: a difference between groups has a
        negative score, as from ``skfair.metrics.make_fairness_scorer``.
    max_disparity : float
        Largest disparity without a penalty, 0 or more.
    penalty : float, default=10.0
        Cost, in performance, of one unit of disparity above the limit; above 0. With 10, a
        disparity of 0.01 above the limit costs 0.1.

    Returns
    -------
    callable
        Scorer with the signature ``(estimator, X, y, **params)``. Under metadata routing it
        requests what its two scorers request. In a direct call, it passes `params` to its scorers
        in the same way. If both scorers use the same method of the estimator, the estimator
        predicts once.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type or value. When called: the score of disparity is above zero.

    Notes
    -----
    If the disparity is NaN, the score is NaN. Halving over ``resource="n_samples"`` scores on
    random parts of the test folds, which may miss a small group; take another resource, such as
    ``max_iter``, or a large `min_resources`. If all scores are NaN, a halving search still chooses
    a candidate, with scikit-learn's warnings only.

    If no candidate or threshold meets the limit, there is no warning: the one with the largest
    score is chosen. Measure the disparity of the result with its scorer.

    A threshold can be tuned only if both scorers use predicted labels and come from
    ``make_scorer``, from ``skfair.metrics.make_fairness_scorer`` or from a name. With the scorer of
    disparity alone, the tuned threshold would select everybody or nobody.

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

    One threshold, with a limit on the difference in selection rates:

    >>> import sklearn
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import TunedThresholdClassifierCV
    >>> rng = np.random.default_rng(0)
    >>> sex = rng.choice(["f", "m"], 1000)
    >>> X = rng.normal(size=(1000, 2)) + (sex == "m")[:, None] * [1, 0]
    >>> y = (X.sum(axis=1) + rng.normal(size=1000) > 0.5).astype(int)
    >>> scorer = make_constrained_scorer("accuracy", parity, max_disparity=0.2)
    >>> tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring=scorer)
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     tuned = tuned.fit(X, y, sensitive_features=sex)
    >>> default = LogisticRegression().fit(X, y)
    >>> for model in (default, tuned):
    ...     gap = -parity(model, X, y, sensitive_features=sex)
    ...     print(f"accuracy {model.score(X, y):.2f}, disparity {gap:.2f}")
    accuracy 0.82, disparity 0.33
    accuracy 0.66, disparity 0.19
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
        raise ValueError("penalty is 0, so the disparity has no effect. Give a number above 0.")
    return _ConstrainedScorer(performance, disparity, max_disparity, penalty)


# The private base class has the same reasons as in FairnessScorer. Its constructor is not used: the
# attributes that scikit-learn reads to tune a threshold follow from the two scorers.
class _ConstrainedScorer(_BaseScorer):
    _sign = 1
    _kwargs: dict[str, Any] = {}

    def __init__(
        self, performance: Any, disparity: Any, max_disparity: float, penalty: float
    ) -> None:
        self.performance = performance
        self.disparity = disparity
        self.max_disparity = max_disparity
        self.penalty = penalty
        self._parts = {
            "performance": check_scoring(None, scoring=performance),
            "disparity": check_scoring(None, scoring=disparity),
        }
        self._response_method = getattr(disparity, "_response_method", "predict")
        name = performance if isinstance(performance, str) else None
        self.__name__ = f"constrained_{name or getattr(performance, '__name__', 'score')}"

    def __call__(self, estimator: Any, X: Any, y_true: Any, **params: Any) -> float:
        return self._score(partial(_cached_call, None), estimator, X, y_true, **params)

    def _score(
        self, method_caller: Callable, estimator: Any, X: Any, y_true: Any, **params: Any
    ) -> float:
        check_rows(X=X, y_true=y_true, **params)
        made: dict[str, Any] = {}

        def predict_once(estimator: Any, method: str, X: Any, **options: Any) -> Any:
            if method not in made:
                made[method] = method_caller(estimator, method, X, **options)
            return made[method]

        def score(part: Any, params: dict[str, Any]) -> Any:
            if isinstance(part, _BaseScorer):
                return part._score(predict_once, estimator, X, y_true, **params)
            return part(estimator, X, y_true, **params)

        return self._constrain(score, params)

    def _score_func(self, y_true: Any, y_pred: Any, **params: Any) -> float:
        """Score labels, as scikit-learn does at each threshold."""
        check_rows(y_true=y_true, y_pred=y_pred, **params)

        def score(part: Any, params: dict[str, Any]) -> Any:
            if not isinstance(part, _BaseScorer):
                raise TypeError(
                    f"{part!r} is a function of an estimator, but a threshold is tuned with scores "
                    "of labels. Give a scorer from make_scorer or make_fairness_scorer."
                )
            return part._sign * part._score_func(y_true, y_pred, **part._kwargs, **params)

        return self._constrain(score, params)

    def _constrain(self, score: Callable, params: dict[str, Any]) -> float:
        # With routing, each scorer receives exactly what it requests. Routing is switched on here,
        # so that a direct call also works if the caller has routing off.
        with config_context(enable_metadata_routing=True):
            routed = process_routing(self, "score", **params)
            scores = {name: score(part, routed[name].score) for name, part in self._parts.items()}
        for name, value in scores.items():
            number = unwrap(value)
            if not isinstance(number, Real) or np.isinf(float(number)):
                raise ValueError(
                    f"{self._parts[name]!r} scored {shown(number)} as {name}, expected one finite "
                    "number. Give a scorer that returns such a number."
                )
        if scores["disparity"] > 0:
            raise ValueError(
                f"{self.disparity!r} scored {scores['disparity']:.4g}, above zero. {SIGN}"
            )
        excess = -scores["disparity"] - self.max_disparity
        return scores["performance"] - self.penalty * np.maximum(0.0, excess)  # NaN stays NaN

    def get_metadata_routing(self) -> MetadataRouter:
        return MetadataRouter(owner=self).add(
            **self._parts, method_mapping=MethodMapping().add(caller="score", callee="score")
        )

    def set_score_request(self, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "This scorer requests what its two scorers request. Write .set_score_request(...) "
            "after these scorers, before you give them to make_constrained_scorer."
        )

    def __repr__(self) -> str:
        return (
            f"make_constrained_scorer({self.performance!r}, {self.disparity!r}, "
            f"max_disparity={self.max_disparity!r}, penalty={self.penalty!r})"
        )
