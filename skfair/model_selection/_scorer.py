"""One scorer of performance and a limit on disparity, where a search takes one only."""

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

    The score is ``performance - penalty * max(0, disparity - max_disparity)`` on each fold. It
    is for what takes a single number: ``cross_val_score``, the halving searches, which
    ignore a callable `refit` and refuse several scorers, and ``TunedThresholdClassifierCV``: one
    threshold for everybody under a limit on the disparity. Elsewhere :class:`constrained_refit`
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
    as ``max_iter``, or a large `min_resources`. If all scores are NaN, a halving search takes
    some candidate all the same, with no more than scikit-learn's warnings.

    Where no candidate or threshold holds the limit, nothing says so: the one with the largest
    score is taken. Read the disparity of what was chosen with its scorer.

    A threshold is tuned only if both are made by ``make_scorer`` or
    ``skfair.metrics.make_fairness_scorer`` (or named), of predicted labels. With the scorer of the
    disparity alone, the threshold chosen is one that selects everybody or nobody.

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
        raise ValueError("penalty is 0, with which the disparity would not count. Raise it.")
    return _ConstrainedScorer(performance, disparity, max_disparity, penalty)


# Of this private base for the reasons that FairnessScorer has, and without its constructor: what
# scikit-learn reads of a scorer whose threshold it tunes follows from the two parts.
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
                    f"{part!r} is a function of an estimator, and thresholds are tuned by what is "
                    "computed of labels. Give a scorer that make_scorer or make_fairness_scorer "
                    "has made."
                )
            return part._sign * part._score_func(y_true, y_pred, **part._kwargs, **params)

        return self._constrain(score, params)

    def _constrain(self, score: Callable, params: dict[str, Any]) -> float:
        # Only with routing does each of the two get what it requests, and no more; here it also
        # makes a call by hand work where the caller has it off.
        with config_context(enable_metadata_routing=True):
            routed = process_routing(self, "score", **params)
            scores = {name: score(part, routed[name].score) for name, part in self._parts.items()}
        for name, value in scores.items():
            number = unwrap(value)
            if not isinstance(number, Real) or np.isinf(float(number)):
                raise ValueError(
                    f"{self._parts[name]!r} scored {shown(number)} as {name}, where one finite "
                    "number was wanted. Give a scorer that returns one."
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
            "behind these, before make_constrained_scorer is given them."
        )

    def __repr__(self) -> str:
        return (
            f"make_constrained_scorer({self.performance!r}, {self.disparity!r}, "
            f"max_disparity={self.max_disparity!r}, penalty={self.penalty!r})"
        )
