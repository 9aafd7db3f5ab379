"""Packages that store fitted estimators: what comes back is the same to the last bit."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skfair import BiasGradientDebiaser

# What these packages warn of is not skfair's.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_joblib(fitted, tmp_path):
    estimator, assert_same = fitted
    joblib.dump(estimator, tmp_path / "model", compress=1)
    assert_same(joblib.load(tmp_path / "model"))


def test_cloudpickle(fitted):
    cloudpickle = pytest.importorskip("cloudpickle")
    estimator, assert_same = fitted
    assert_same(cloudpickle.loads(cloudpickle.dumps(estimator)))


def test_skops(fitted, tmp_path):
    skops = pytest.importorskip("skops.io")
    estimator, assert_same = fitted
    skops.dump(estimator, tmp_path / "model.skops")
    types = skops.get_untrusted_types(file=tmp_path / "model.skops")
    # The estimator's, and those of the networks in it.
    assert {name.split(".")[0] for name in types} <= {"skfair", "torch", "numpy"}
    with pytest.raises(Exception, match="Untrusted types"):
        skops.load(tmp_path / "model.skops")
    assert_same(skops.load(tmp_path / "model.skops", trusted=types))


def test_mlflow(fitted, tmp_path):
    mlflow = pytest.importorskip("mlflow.sklearn")
    skops = pytest.importorskip("skops.io")
    estimator, assert_same = fitted
    types = skops.get_untrusted_types(data=skops.dumps(estimator))
    mlflow.save_model(
        estimator, tmp_path / "model", skops_trusted_types=types, pip_requirements=["skfair-debias"]
    )
    assert (tmp_path / "model" / "model.skops").exists()
    assert_same(mlflow.load_model(str(tmp_path / "model")))


class Network(nn.Module):
    """A network of a user's, in half precision, with weights that are shared."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(3, 3), nn.Linear(3, 3)
        self.again.weight = self.first.weight
        self.head = nn.Linear(3, 1)
        self.register_buffer("centre", torch.zeros(3), persistent=False)
        self.activation = torch.tanh

    def forward(self, X):
        return self.head(self.activation(self.again(self.first(X - self.centre))))


def test_skops_of_a_pipeline_with_a_network_of_one_s_own():
    skops = pytest.importorskip("skops.io")
    rng = np.random.default_rng(0)
    y, sex = rng.integers(2, size=(2, 200))
    X = rng.normal(size=(200, 3)) + y[:, None] + sex[:, None]
    with torch.random.fork_rng():
        network = Network().bfloat16()
    debiaser = BiasGradientDebiaser(network, max_epochs=1, output="logits", random_state=0)
    pipeline = make_pipeline(StandardScaler(), debiaser)
    pipeline.fit(X, y, biasgradientdebiaser__sensitive_features=sex)
    data = skops.dumps(pipeline)
    types = skops.get_untrusted_types(data=data)
    assert f"{__name__}.Network" in types
    opened = skops.loads(data, trusted=types)
    np.testing.assert_array_equal(opened.predict_proba(X), pipeline.predict_proba(X))
    assert opened[-1].estimator.again.weight is opened[-1].estimator.first.weight


WATCHED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import mlflow.sklearn
import numpy as np
import skops.io
from sklearn.model_selection import GridSearchCV
mlflow.set_tracking_uri("file://" + sys.argv[1])
mlflow.set_experiment("skfair")
mlflow.sklearn.autolog(log_models=False, silent=True)
import skfair
from skfair.estimator_checks._case import make_case, small_instance
for name, kind in skfair.discovery.all_estimators():
    case = make_case(small_instance(kind))
    if "n_calls" in case.estimator.get_params():
        case = case.with_parameters(n_calls=12)
    case.fit()
print("inside:", len(mlflow.search_runs()))
X = np.random.default_rng(0).normal(size=(60, 3))
search = GridSearchCV(skfair.ClusterMarginClassifier(max_epochs=1), {"scale": [2.0]}, cv=2)
search.fit(X, X[:, 0] > 0)
runs = mlflow.search_runs()
names = runs["tags.estimator_name"].dropna()
print("search:", *sorted(set(names)))
with mlflow.start_run():
    mlflow.log_metric("accuracy", search.best_score_)
    types = skops.io.get_untrusted_types(data=skops.io.dumps(search.best_estimator_))
    info = mlflow.sklearn.log_model(
        search.best_estimator_, name="model", skops_trusted_types=types, pip_requirements=[]
    )
loaded = mlflow.sklearn.load_model(info.model_uri)
same = np.array_equal(loaded.predict_proba(X), search.best_estimator_.predict_proba(X))
print("logged:", same)
"""


def test_mlflow_s_autologging_records_what_the_user_fits(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("skops.io")
    # In a process of its own: autologging changes scikit-learn's classes.
    run = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        env=os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"},
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "inside: 0" in lines
    # Also the candidate of the search that was best, as a part of it.
    assert "search: ClusterMarginClassifier GridSearchCV" in lines
    assert "logged: True" in lines
