"""Packages that search, compute elsewhere and show scores."""

import functools

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from torch import nn

from skfair import BiasGradientDebiaser, LogitAdjustedClassifier
from skfair.metrics import make_fairness_scorer
from skfair.model_selection import GroupStratifiedKFold, make_constrained_scorer

# What these packages warn of is not skfair's.
pytestmark = pytest.mark.filterwarnings("ignore")


def make_data():
    rng = np.random.default_rng(0)
    sex = pd.Series(rng.choice(["f", "m"], 240), name="sex")
    X = pd.DataFrame(rng.normal(size=(240, 3)) + (sex == "m").to_numpy()[:, None])
    y = (X[0] + rng.normal(size=240) > 0.5).astype(int)
    labels = pd.Index([f"row {i}" for i in range(240)])
    X.columns = ["a", "b", "c"]
    return X.set_axis(labels), y.set_axis(labels), sex.set_axis(labels)


X, Y, SEX = make_data()
PARITY = make_fairness_scorer("demographic_parity")


def test_optuna():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def score(trial):
        model = LogitAdjustedClassifier(
            strength=trial.suggest_float("strength", 0.0, 1.0), random_state=0
        )
        with sklearn.config_context(enable_metadata_routing=True):
            return cross_validate(
                model,
                X,
                Y,
                cv=GroupStratifiedKFold(2),
                scoring={"accuracy": "accuracy", "parity": PARITY},
                params={"sensitive_features": SEX},
                error_score="raise",
            )["test_parity"].mean()

    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(score, n_trials=3, n_jobs=2)  # in threads
    values = {trial.params["strength"]: trial.value for trial in study.trials}
    assert len(values) == 3
    for strength, value in values.items():
        assert score(optuna.trial.FixedTrial({"strength": strength})) == value


def test_dask_s_backend_of_joblib():
    distributed = pytest.importorskip("distributed")
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(3, 1))
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            BiasGradientDebiaser(network, max_epochs=2, random_state=0),
            {"epsilon": [0.05, 0.1]},
            scoring=make_constrained_scorer("accuracy", PARITY, max_disparity=0.1),
            cv=GroupStratifiedKFold(2, shuffle=True, random_state=int(rng.integers(9))),
            error_score="raise",
        )
        rows = X.to_numpy(dtype=np.float32)
        here = sklearn.clone(search).fit(rows, Y, sensitive_features=SEX.to_numpy())
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=2, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster),
            joblib.parallel_config("dask"),
        ):
            there = search.fit(rows, Y, sensitive_features=SEX.to_numpy())
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(there.cv_results_[key], here.cv_results_[key])
    np.testing.assert_array_equal(there.predict_proba(rows), here.predict_proba(rows))


def test_skore_shows_bound_groups():
    skore = pytest.importorskip("skore")
    bound = functools.partial(PARITY, sensitive_features=SEX)
    model = LogisticRegression()
    report = skore.EstimatorReport(
        model, X_train=X[:160], y_train=Y[:160], X_test=X[160:], y_test=Y[160:], pos_label=1
    )
    report.metrics.add(bound)
    shown = report.metrics.summarize(metric="demographic_parity").frame(flat_index=True)
    fitted = sklearn.clone(model).fit(X[:160], Y[:160])
    expected = PARITY(fitted, X[160:], Y[160:], sensitive_features=SEX[160:])
    assert np.ravel(shown).tolist() == [expected]
    cross = skore.CrossValidationReport(model, X, Y, splitter=3, pos_label=1)
    cross.metrics.add(bound)
    shown = cross.metrics.summarize(metric="demographic_parity").frame(flat_index=True)
    expected = cross_val_score(model, X, Y, cv=3, scoring=bound)
    np.testing.assert_allclose(np.ravel(shown)[0], expected.mean())
