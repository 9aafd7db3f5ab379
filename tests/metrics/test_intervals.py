"""Wilson's interval against scipy, the bootstrap against drawing rows and against fairlearn."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate, true_positive_rate
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

from skfair.metrics import fairness_report
from skfair.metrics._intervals import percentile_interval, resample_sizes, wilson_interval
from skfair.utils import draw_seed


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    n = 400
    y = rng.integers(0, 2, n)
    group = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    first = np.where(rng.random(n) < np.where(group == "c", 0.6, 0.8), y, 1 - y)
    second = np.where(rng.random(n) < 0.5, first, np.where(rng.random(n) < 0.8, y, 1 - y))
    return y, {"first": first, "second": second}, group


def test_wilson_interval_equals_scipys():
    right, total = np.array([0, 1, 7, 10, 250]), np.array([10, 1, 9, 10, 1000])
    low, high = wilson_interval(right / total, total)
    for i in range(len(total)):
        expected = binomtest(int(right[i]), int(total[i])).proportion_ci(0.95, "wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share, n", [(0.5, 20), (0.9, 40), (0.05, 100)])
def test_wilson_interval_covers_the_truth(share, n):
    right = np.random.default_rng(0).binomial(n, share, 20_000)
    low, high = wilson_interval(right / n, np.full(len(right), n))
    assert 0.92 < np.mean((low <= share) & (share <= high)) < 0.98


@pytest.mark.parametrize("size", [[500, 300, 0, 200], [1, 2, 1, 3]], ids=["by cells", "by rows"])
def test_resampled_sizes_are_multinomial(size):
    size, n_boot = np.array(size), 4000
    draws = np.concatenate(list(resample_sizes(size, n_boot, seed=1)))
    n = size.sum()
    assert draws.shape == (n_boot, 4)
    assert (draws.sum(axis=1) == n).all()
    share = size / n
    variance = n * share * (1 - share)
    np.testing.assert_allclose(draws.mean(axis=0), size, atol=5 * np.sqrt(variance.max() / n_boot))
    covariance = n * (np.diag(share) - np.outer(share, share))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * variance.max())


def test_draws_come_in_bounded_pieces_that_are_all_there():
    size = np.ones(100_000, dtype=int)
    pieces = [draws.shape for draws in resample_sizes(size, 100, seed=0)]
    assert sum(n for n, _ in pieces) == 100
    assert max(n * m for n, m in pieces) <= 2**22


def test_percentiles_leave_out_what_is_undefined_and_what_says_nothing():
    nan = np.nan
    draws = np.array([[0, nan, nan, 1], [1, 4, nan, 1], [2, 6, nan, 1]], dtype=float)
    low, high = percentile_interval(draws)
    np.testing.assert_allclose(low, [0.05, 4.05, nan, nan])
    np.testing.assert_allclose(high, [1.95, 5.95, nan, nan])


def _by_hand(y, prediction, weight):
    """Accuracy, true positive rate and F1 of some rows."""
    hit, positive, chosen = weight @ (y * prediction), weight @ y, weight @ prediction
    return weight @ (y == prediction) / weight.sum(), hit / positive, 2 * hit / (positive + chosen)


def _reference(y, predictions, group, weight, n_boot):
    """Draw rows, one draw at a time; (n_boot, models, metrics, groups and statistics)."""
    rng, draws = np.random.default_rng(5), []
    for _ in range(n_boot):
        rows = rng.integers(len(y), size=len(y))
        parts = [rows[group[rows] == label] for label in "abc"] + [rows]
        draw = []
        for prediction in predictions.values():
            values = np.transpose([_by_hand(y[r], prediction[r], weight[r]) for r in parts])
            low, high = values[:, :3].min(axis=1), values[:, :3].max(axis=1)
            draw.append(np.column_stack([values, high - low, low / high]))
        draws.append(draw)
    return np.array(draws)


@pytest.mark.parametrize("weighted", [False, True])
def test_bootstrap_agrees_with_drawing_rows(data, weighted):
    y, predictions, group = data
    weight = np.random.default_rng(1).uniform(0.2, 2, len(y)) if weighted else np.ones(len(y))
    metrics = {"accuracy": accuracy_score, "rate": true_positive_rate, "f1": f1_score}
    draws = _reference(y, predictions, group, weight, 2500)
    report = fairness_report(
        y,
        predictions,
        sensitive_features=group,
        metrics=metrics,
        sample_weight=weight,
        n_boot=2500,
    )
    ends = np.quantile(draws, [0.025, 0.975], axis=0)
    change_ends = np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975], axis=0)
    # The ends of two such runs differ by a twelfth of a standard deviation or so.
    bound, change_bound = draws.std(axis=0) / 3, (draws[:, 1] - draws[:, 0]).std(axis=0) / 3
    for k, name in enumerate(metrics):
        tables = report.by_feature.loc[name], report.disparities.loc[name]
        resampled = slice(0, 6) if name == "f1" else slice(4, 6)  # shares have Wilson's
        for end, column in enumerate(("low", "high")):
            for m, model in enumerate(predictions):
                found = np.concatenate([table[model, column] for table in tables])[resampled]
                error = np.abs(found - ends[end, m, k, resampled])
                assert (error < bound[m, k, resampled]).all(), (name, model, column)
            found = np.concatenate([table["second", f"change_{column}"] for table in tables])
            assert (np.abs(found - change_ends[end, k]) < change_bound[k]).all(), (name, column)


def test_bootstrap_agrees_with_fairlearns(data):
    y, predictions, group = data
    metrics = {"rate": selection_rate, "balanced": balanced_accuracy_score}
    frame = MetricFrame(
        metrics=metrics,
        y_true=y,
        y_pred=predictions["first"],
        sensitive_features=group,
        n_boot=80,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    report = fairness_report(y, predictions["first"], sensitive_features=group, metrics=metrics)
    for end, column in enumerate(("low", "high")):
        found = report.disparities["model", column]
        for name in metrics:
            assert found[name, "difference"] == pytest.approx(
                frame.difference_ci()[end][name], abs=0.03
            )
            assert found[name, "ratio"] == pytest.approx(frame.ratio_ci()[end][name], abs=0.05)
        by_group = report.by_feature["model", column].loc["balanced"]
        np.testing.assert_allclose(by_group, frame.by_group_ci[end]["balanced"], atol=0.03)


def test_other_functions_have_fairlearns_intervals(data):
    y, predictions, group = data
    report = fairness_report(
        y, predictions, sensitive_features=group, metrics=[matthews_corrcoef], n_boot=30
    )
    order = np.lexsort([predictions["second"], predictions["first"], y, group])  # of the cells
    frame = MetricFrame(
        metrics={"m": matthews_corrcoef},
        y_true=y[order],
        y_pred=predictions["second"][order],
        sensitive_features=group[order],
        n_boot=30,
        ci_quantiles=[0.025, 0.975],
        random_state=draw_seed(0),
    )
    by_feature = report.by_feature.loc["matthews_corrcoef"]["second"]
    disparities = report.disparities.loc["matthews_corrcoef"]["second"]
    for end, column in enumerate(("low", "high")):
        np.testing.assert_allclose(by_feature[column], frame.by_group_ci[end]["m"], atol=1e-12)
        expected = [
            ci[end]["m"] for ci in (frame.overall_ci, frame.difference_ci(), frame.ratio_ci())
        ]
        np.testing.assert_allclose(disparities[column], expected, atol=1e-12)
    assert (by_feature["change_low"] < by_feature["change"]).all()
    assert (by_feature["change"] < by_feature["change_high"]).all()
    assert disparities["change_low"].notna().tolist() == [True, False, False]


def test_paired_changes_of_other_functions():
    """With one function the change is that of the same rows: here it never varies."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 60), rng.choice(["a", "b"], 60)

    def level(y_true, y_pred):
        return 10.0 * y_pred[0].item() + y_true.mean()

    report = fairness_report(
        y,
        {"zero": np.zeros(60, int), "one": np.ones(60, int)},
        sensitive_features=group,
        metrics=[level],
        n_boot=20,
    )
    table = report.by_feature["one"]
    np.testing.assert_allclose(table["change"], 10)
    assert (table["high"] - table["low"] > 0.05).all()
    assert table[["change_low", "change_high"]].isna().all(axis=None)  # no spread at all


def test_n_boot_says_how_many_and_which(data):
    y, predictions, group = data
    arguments = {"sensitive_features": group, "metrics": [accuracy_score, matthews_corrcoef]}
    none = fairness_report(y, predictions, n_boot=0, **arguments)
    assert none.by_feature.loc["accuracy_score"]["second"][["low", "high"]].notna().all(axis=None)
    assert none.by_feature["second", "change_low"].isna().all()
    assert none.by_group["second", "change_low"].isna().all()
    assert none.disparities.loc["accuracy_score"]["first", "low"].notna().tolist() == [
        True,
        False,
        False,
    ]
    default = fairness_report(y, predictions, **arguments)
    assert default.by_group["second", "change_low"].notna().all()
    assert default.disparities.loc["accuracy_score"]["second"].notna().all(axis=None)
    assert default.disparities.loc["matthews_corrcoef"]["second", "low"].isna().all()


def test_seed(data):
    y, predictions, group = data
    one, same, other = (
        fairness_report(y, predictions, sensitive_features=group, random_state=seed, n_boot=50)
        for seed in (1, 1, 2)
    )
    column = ("second", "change_low")
    assert one.disparities[column].equals(same.disparities[column])
    assert not one.disparities[column].equals(other.disparities[column])


def test_identical_models_do_not_differ(data):
    y, predictions, group = data
    report = fairness_report(
        y, {"a": predictions["first"], "b": predictions["first"]}, sensitive_features=group
    )
    assert (report.disparities["b", "change"] == 0).all()
    assert (report.by_feature["b", "change"] == 0).all()
    assert report.disparities["b"][["change_low", "change_high"]].isna().all(axis=None)


def test_small_groups_without_spread_have_no_interval():
    """Three rows that all change are the same in each draw: that is no certainty."""
    y = [0] * 3 + [1] * 3
    report = fairness_report(
        y, {"bad": [1 - label for label in y], "good": y}, sensitive_features=list("ababab")
    )
    assert (report.by_group["good", "change"] == 1).all()
    assert report.by_group["good", "change_low"].isna().all()
