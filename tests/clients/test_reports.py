"""The recipes of the guide that log a report: each block of the page runs with the real package."""

import re
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

PAGE = Path(__file__).parents[2] / "docs" / "user_guide" / "report_elsewhere.rst"

# What these packages warn of is not skfair's.
pytestmark = pytest.mark.filterwarnings("ignore")

HOSTILE = ["a/../b", "<b>x</b>", "עברית", "100 % | `;", "accuracy", "🎉" * 70]


def recipe(title):
    """Return the code under a title of the page."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n{title}\n{'-' * len(title)}\n")
    section = re.split(r"\n-{3,}\n", section)[0]
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", section, re.M)
    assert len(blocks) == 1
    return textwrap.dedent(blocks[0])


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Every name that the page takes for given."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    X = rng.normal(size=(600, 3)) + y[:, None]
    names = {
        "X_test": X,
        "y_test": y,
        "sex": rng.choice(HOSTILE, 600),
        "old": LogisticRegression().fit(X[:20], y[:20]),
        "new": LogisticRegression().fit(X, y),
    }
    first = PAGE.read_text(encoding="utf-8").partition(".. code-block:: python\n")[2]
    exec(textwrap.dedent(first.partition("\nMLflow\n")[0]), names)
    return names


def selection_rate(names, group):
    return names["new"].predict(names["X_test"])[names["sex"] == group].mean()


def gap(names):
    rates = [selection_rate(names, group) for group in HOSTILE]
    return max(rates) - min(rates)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    package = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = package.get_tracking_uri()
    package.set_tracking_uri((tmp_path / "runs").as_uri())
    package.set_experiment("skfair")
    yield package
    package.set_tracking_uri(before)


def test_mlflow(names, mlflow):
    exec(recipe("MLflow"), names)
    run = mlflow.last_active_run()
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert metrics["selection_rate difference"] == pytest.approx(gap(names), abs=1e-12)
    assert metrics["accuracy overall"] == names["new"].score(names["X_test"], names["y_test"])
    assert len(metrics) == names["report"].disparities["new", "value"].notna().sum()
    table = mlflow.load_table("fairness.json", run_ids=[run.info.run_id])
    rates = table[table["metric"] == "selection_rate"].set_index("sensitive_feature_0")
    assert sorted(rates.index) == sorted(HOSTILE)
    for group in HOSTILE:
        expected = pytest.approx(selection_rate(names, group), abs=1e-9)
        assert rates.loc[group, "new value"] == expected
    page = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/fairness.html")
    assert page == Path("fairness.html").read_text(encoding="utf-8")


def test_mlflow_with_levels_and_labels_that_are_no_text(names, mlflow):
    ages = np.tile([20, 40, 60], 200)
    names["report"] = names["fairness_report"](
        names["y_test"],
        names["predictions"],
        sensitive_features={"age/band": pd.cut(ages, [0, 30, 50, 99])},
        control_features={"../region": np.repeat(["a+", "a-", "..", ""], 150)},
    )
    exec(recipe("MLflow"), names)
    run = mlflow.last_active_run()
    # "a+" and "a-" stay two levels, as do ".." and "".
    shares = {name for name in run.data.metrics if name.startswith("accuracy") and "over" in name}
    assert shares == {
        "accuracy a_2b_ overall",
        "accuracy a- overall",
        "accuracy _2e__2e_ overall",
        "accuracy  overall",
    }
    table = mlflow.load_table("fairness.json", run_ids=[run.info.run_id])
    assert set(table["age/band"]) == {"(0, 30]", "(30, 50]", "(50, 99]"}


def test_skore(names):
    skore = pytest.importorskip("skore")
    exec(recipe("skore"), names)
    expected = {f"selection rate of {group}": selection_rate(names, group) for group in HOSTILE}
    expected["selection rate, difference"] = gap(names)
    expected["accuracy"] = names["new"].score(names["X_test"], names["y_test"])
    shown = names["evaluation"].metrics.summarize().frame()
    stored = skore.Project("hiring", mode="local", workspace="audits").summarize().frame().iloc[0]
    for name, value in expected.items():
        assert shown[name] == pytest.approx(value, abs=1e-12)
        assert stored[name] == pytest.approx(value, abs=1e-12)


def test_skore_stores_the_rows_and_the_groups(names):
    pytest.importorskip("skore")
    exec(recipe("skore"), names)
    stored = [joblib.load(path) for path in Path("audits").rglob("datasets/*.joblib")]
    assert any(np.array_equal(rows, names["X_test"]) for rows in stored)
    (registry,) = Path("audits").rglob("registry.pickle")
    assert names["sex"].tobytes() in registry.read_bytes()


def test_a_card_of_skops(names):
    pytest.importorskip("skops.card")
    exec(recipe("skops"), names)
    text = Path("README.md").read_text(encoding="utf-8")
    assert re.search(r"^## Fairness$", text, re.M)
    assert "LogisticRegression" in text
