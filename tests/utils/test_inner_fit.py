"""Tools that wrap scikit-learn's classes do not see a fit inside another fit."""

import functools

import pytest
import sklearn.utils
from sklearn.cluster import KMeans

from skfair.discovery import all_estimators
from skfair.estimator_checks._case import make_case, small_instance
from skfair.utils._inner_fit import fit_inner


@pytest.fixture
def seen(monkeypatch):
    """Record the scikit-learn classes whose fit is called. Wraps fit as MLflow does."""
    names = []

    def wrapped(fit):
        @functools.wraps(fit)
        def recorded(self, *args, **kwargs):
            names.append(type(self).__name__)
            return fit(self, *args, **kwargs)

        return recorded

    for _, kind in sklearn.utils.all_estimators():
        if kind.__module__.startswith("sklearn.preprocessing"):
            continue  # scikit-learn's metrics use it, and MLflow does not wrap it either
        for method in {"fit", "fit_transform", "fit_predict"} & vars(kind).keys():
            monkeypatch.setattr(kind, method, wrapped(getattr(kind, method)))
    return names


def test_what_is_fitted_itself_is_seen(seen):
    KMeans(2, random_state=0).fit([[0.0], [1.0]])
    assert seen == ["KMeans"]
    model = KMeans(2, random_state=0)
    assert fit_inner(model, [[0.0], [1.0]]) is model
    assert sorted(model.cluster_centers_.ravel()) == [0, 1]
    assert seen == ["KMeans"]


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
@pytest.mark.parametrize("name, kind", all_estimators())
def test_nothing_is_seen_inside_of_a_fit(name, kind, seen):
    case = make_case(small_instance(kind))
    if "n_calls" in case.estimator.get_params():
        case = case.with_parameters(n_calls=12)  # enough calls for the surrogate to propose points
    case.fit()
    assert seen == []
