"""What fits inside of a fit is not seen by tools that wrap scikit-learn's classes."""

import functools

import pytest
import sklearn.utils
from sklearn.cluster import KMeans

from skfair.discovery import all_estimators
from skfair.estimator_checks._case import make_case, small_instance
from skfair.utils._inner_fit import fit_inner


@pytest.fixture
def seen(monkeypatch):
    """Names of the classes of scikit-learn whose fit was called, wrapped as MLflow wraps it."""
    names = []

    def wrapped(fit):
        @functools.wraps(fit)
        def recorded(self, *args, **kwargs):
            names.append(type(self).__name__)
            return fit(self, *args, **kwargs)

        return recorded

    for _, kind in sklearn.utils.all_estimators():
        if kind.__module__.startswith("sklearn.preprocessing"):
            continue  # which scikit-learn's metrics use, and MLflow leaves out, too
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
        case = case.with_parameters(n_calls=12)  # as many as it takes until points are proposed
    case.fit()
    assert seen == []
