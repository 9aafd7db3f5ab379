"""The display of a metric by group: what is drawn is what was given, and can be read."""

import subprocess
import sys
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from fairlearn.metrics import false_positive_rate, selection_rate, true_positive_rate
from fairlearn.postprocessing import ThresholdOptimizer
from matplotlib import pyplot as plt
from scipy.stats import binomtest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, matthews_corrcoef

from skfair.metrics import GroupMetricsDisplay, fairness_report
from skfair.utils import MissingGlyphWarning


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y, sex = rng.integers(2, size=400), rng.choice(["f", "m"], 400, p=[0.3, 0.7])
    predictions = {
        "plain": np.where(rng.random(400) < 0.8, y, 1 - y),
        "fair": np.where(rng.random(400) < 0.7, y, 1 - y),
    }
    return y, predictions, sex


def legend(display):
    found = display.ax_.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def lengths(display, model):
    return [
        bar.get_width() if display.horizontal_ else bar.get_height()
        for bar in display.bars_[model].patches
    ]


def interval_ends(display, model):
    axis = 0 if display.horizontal_ else 1
    (lines,) = display.intervals_[model].lines[2]
    return np.array([segment[:, axis] for segment in lines.get_segments()])


def display_of(n_groups, n_models=1, **parameters):
    values = {f"m{i}": np.linspace(0.5, 0.9, n_groups) for i in range(n_models)}
    return GroupMetricsDisplay(values, [f"g{i}" for i in range(n_groups)], **parameters)


def test_draws_a_report(data):
    y, predictions, sex = data
    report = fairness_report(y, predictions, sensitive_features={"sex": sex})
    display = GroupMetricsDisplay.from_report(report)
    for model in predictions:
        table = report.by_group[model]
        np.testing.assert_array_equal(lengths(display, model), table["accuracy"])
        np.testing.assert_allclose(interval_ends(display, model), table[["low", "high"]])
        height = display.overall_[model].get_ydata()
        np.testing.assert_array_equal(height, np.mean(predictions[model] == y))
    sizes = [((y == c) & (sex == s)).sum() for c in (0, 1) for s in "fm"]
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    groups = ["0, f", "0, m", "1, f", "1, m"]
    assert labels == [f"{g}\n(n={n})" for g, n in zip(groups, sizes, strict=True)]
    assert display.ax_.get_xlabel() == "class, sex"
    assert display.ax_.get_ylabel() == "accuracy"
    assert legend(display) == ["plain", "fair", "95 % interval", "overall, 95 % interval"]
    assert not display.horizontal_
    assert display.figure_ is display.ax_.figure


def test_draws_a_metric_of_a_report(data):
    y, predictions, sex = data
    report = fairness_report(
        y, predictions, sensitive_features=sex, metrics=[selection_rate, f1_score]
    )
    display = GroupMetricsDisplay.from_report(report, "f1_score")
    for model, y_pred in predictions.items():
        wanted = [f1_score(y[sex == s], y_pred[sex == s]) for s in "fm"]
        np.testing.assert_allclose(lengths(display, model), wanted)
        np.testing.assert_allclose(display.overall_[model].get_ydata(), f1_score(y, y_pred))
        assert (np.diff(interval_ends(display, model)) > 0).all()
    assert display.ax_.get_ylabel() == "f1"
    assert display.ax_.get_xlabel() == "sensitive_feature_0"
    display = GroupMetricsDisplay.from_report(report, "selection_rate")
    np.testing.assert_allclose(
        lengths(display, "plain"), [predictions["plain"][sex == s].mean() for s in "fm"]
    )


def test_control_levels_are_part_of_the_labels(data):
    y, predictions, sex = data
    region = np.repeat(["north", "south"], 200)
    report = fairness_report(
        y, predictions, sensitive_features={"sex": sex}, control_features={"region": region}
    )
    display = GroupMetricsDisplay.from_report(report, "selection_rate")
    assert display.groups == [("north", "f"), ("north", "m"), ("south", "f"), ("south", "m")]
    assert display.ax_.get_xlabel() == "region, sex"
    assert display.overall_ == {}
    wanted = predictions["fair"][(region == "north") & (sex == "m")].mean()
    assert lengths(display, "fair")[1] == pytest.approx(wanted)


def test_of_predictions(data):
    y, predictions, sex = data
    weight = np.where(y == 1, 2.0, 0.5)
    display = GroupMetricsDisplay.from_predictions(
        y, predictions["fair"], sensitive_features=sex, metric=selection_rate, sample_weight=weight
    )
    wanted = [
        np.average(predictions["fair"][sex == s], weights=weight[sex == s]) for s in ("f", "m")
    ]
    np.testing.assert_allclose(lengths(display, "model"), wanted)
    assert legend(display) == ["95 % interval", "overall, 95 % interval"]  # "model" says nothing
    display = GroupMetricsDisplay.from_predictions(y, predictions, sensitive_features=sex)
    assert display.groups == [(0, "f"), (0, "m"), (1, "f"), (1, "m")]


def test_positive_label(data):
    y, predictions, sex = data
    names = np.array(["no", "yes"])
    display = GroupMetricsDisplay.from_predictions(
        names[y],
        names[predictions["plain"]],
        sensitive_features=sex,
        metric=selection_rate,
        pos_label="no",
    )
    wanted = [1 - predictions["plain"][sex == s].mean() for s in ("f", "m")]
    np.testing.assert_allclose(lengths(display, "model"), wanted)


def test_a_metric_without_intervals_may_be_negative(data):
    y, predictions, sex = data
    display = GroupMetricsDisplay.from_predictions(
        y, {"wrong": 1 - predictions["plain"]}, sensitive_features=sex, metric=matthews_corrcoef
    )
    assert max(lengths(display, "wrong")) < 0
    assert display.ax_.get_ylim()[0] < min(lengths(display, "wrong"))
    assert display.ax_.get_ylim()[1] == 0


def test_of_estimators(data):
    y, _, sex = data
    X = np.column_stack([y + np.random.default_rng(1).normal(size=400), sex == "m"])
    plain = LogisticRegression().fit(X, y)
    display = GroupMetricsDisplay.from_estimator(
        plain, X, y, sensitive_features=sex, metric=selection_rate
    )
    assert legend(display)[0] == "LogisticRegression"
    wanted = [plain.predict(X)[sex == s].mean() for s in ("f", "m")]
    np.testing.assert_allclose(lengths(display, "LogisticRegression"), wanted)
    asks = ThresholdOptimizer(estimator=plain, prefit=True, predict_method="predict_proba")
    asks.fit(X, y, sensitive_features=sex)
    display = GroupMetricsDisplay.from_estimator(
        {"plain": plain, "threshold": asks}, X, y, sensitive_features=sex, metric=selection_rate
    )
    y_pred = asks.predict(X, sensitive_features=sex, random_state=0)
    wanted = [y_pred[sex == s].mean() for s in ("f", "m")]
    np.testing.assert_allclose(lengths(display, "threshold"), wanted)


def test_models_stand_side_by_side_and_look_different():
    display = display_of(3, n_models=6).plot()
    spans = sorted(
        (bar.get_x(), bar.get_x() + bar.get_width())
        for bars in display.bars_.values()
        for bar in bars.patches
    )
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(spans))
    for group in range(3):  # around the tick
        own = spans[6 * group : 6 * group + 6]
        assert (own[0][0] + own[-1][1]) / 2 == pytest.approx(group)
    first = [bars.patches[0] for bars in display.bars_.values()]
    assert len({bar.get_facecolor() for bar in first}) == 6
    assert len({bar.get_hatch() for bar in first}) == 6
    assert legend(display) == [f"m{i}" for i in range(6)]


def test_a_report_says_which_groups_are_too_small():
    y, group = np.array([0, 1] * 50), np.array(["f"] * 90 + ["m"] * 10)
    for min_count, words in ((10, []), (11, ["not estimable"])):
        report = fairness_report(y, y, sensitive_features=group, min_count=min_count)
        display = GroupMetricsDisplay.from_report(report, metric="accuracy")
        labels = [label.get_text() for label in display.ax_.get_xticklabels()]
        assert labels == ["f\n(n=90)", "m\n(n=10)"]
        assert [text.get_text() for text in display.undefined_] == words


def test_undefined_is_written(data):
    display = GroupMetricsDisplay(
        {"a": [0.5, np.nan, np.nan], "b": [0.5, 0.6, np.nan]},
        ["x", "y", "z"],
        low={"a": [0.4, np.nan, np.nan], "b": [0.4, 0.5, np.nan]},
        high={"a": [0.6, np.nan, np.nan], "b": [0.6, 0.7, np.nan]},
    ).plot()
    assert [text.get_text() for text in display.undefined_] == ["undefined"] * 2
    bar = display.bars_["a"].patches[1]
    assert display.undefined_[0].xy == pytest.approx((bar.get_x() + bar.get_width() / 2, 0))
    assert display.undefined_[1].xy == (2, 0)  # once for both models
    assert lengths(display, "a") == [0.5, 0, 0]
    y, predictions, sex = data
    nobody = np.where(sex == "f", 0, y)
    display = GroupMetricsDisplay.from_predictions(
        nobody, predictions, sensitive_features=sex, metric=true_positive_rate
    )
    assert [text.xy for text in display.undefined_] == [(0, 0)]


def test_nothing_defined():
    display = GroupMetricsDisplay({"a": [np.nan, np.nan]}, ["x", "y"], overall={"a": np.nan}).plot()
    assert len(display.undefined_) == 2
    assert display.overall_ == {}
    display.figure_.canvas.draw()


def test_an_interval_need_not_contain_the_value():
    display = GroupMetricsDisplay({"a": [0.5]}, ["x"], low={"a": [0.6]}, high={"a": [0.8]}).plot()
    np.testing.assert_allclose(interval_ends(display, "a"), [[0.6, 0.8]])


@pytest.mark.parametrize(("most", "top"), [(0.3, 0.315), (0.9, 1.02), (1.0, 1.02), (3.0, 3.15)])
def test_values_begin_at_zero(most, top):
    display = GroupMetricsDisplay({"a": [0.2, most]}, ["x", "y"]).plot()
    assert display.ax_.get_ylim() == pytest.approx((0, top))


def test_many_groups_lie_below_each_other():
    assert not display_of(6).plot().horizontal_
    low = {"m0": np.full(7, 0.4), "m1": np.full(7, 0.3)}
    high = {"m0": np.full(7, 0.95), "m1": np.full(7, 0.96)}
    display = display_of(
        7, 2, low=low, high=high, count=np.full(7, 50), overall={"m0": 0.6, "m1": 0.7}
    ).plot()
    assert display.horizontal_
    np.testing.assert_allclose(lengths(display, "m1"), np.linspace(0.5, 0.9, 7))
    np.testing.assert_allclose(interval_ends(display, "m1"), np.tile([0.3, 0.96], (7, 1)))
    np.testing.assert_array_equal(display.overall_["m1"].get_xdata(), 0.7)
    assert display.ax_.get_yticklabels()[0].get_text() == "g0 (n=50)"
    assert display.ax_.yaxis_inverted()  # the first on top
    first, second = (display.bars_[m].patches[0].get_y() for m in ("m0", "m1"))
    assert first < second
    assert display.ax_.get_xlabel() == "metric"


def test_long_names_lie_below_each_other():
    names = ["landbird, water background", "waterbird, water background", "c", "d"]
    assert GroupMetricsDisplay({"a": [0.5] * 4}, names).plot().horizontal_


@pytest.mark.parametrize(("n_groups", "n_models"), [(2, 1), (4, 2), (6, 3), (12, 3), (30, 2)])
def test_labels_do_not_overlap(n_groups, n_models):
    display = display_of(n_groups, n_models, count=np.full(n_groups, 1234)).plot()
    display.figure_.canvas.draw()
    axis = display.ax_.yaxis if display.horizontal_ else display.ax_.xaxis
    boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
    assert len(boxes) == n_groups
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    assert display.ax_.get_legend().get_window_extent().x1 <= display.figure_.bbox.x1


def test_the_figure_grows_beyond_twelve_groups():
    default = tuple(plt.rcParams["figure.figsize"])
    assert tuple(display_of(12, 3).plot().figure_.get_size_inches()) == pytest.approx(default)
    width, height = display_of(20, 2).plot().figure_.get_size_inches()
    assert width == default[0]
    assert height > default[1]


def test_draws_into_given_axes_and_changes_no_settings():
    before = dict(plt.rcParams)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    display = display_of(12).plot(right, bar_kw={"color": "red", "linewidth": 2})
    assert display.ax_ is right
    assert display.figure_ is figure
    assert tuple(figure.get_size_inches()) == (9, 3)
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]
    assert display.bars_["m0"].patches[0].get_facecolor() == (1, 0, 0, 1)
    assert display.bars_["m0"].patches[0].get_linewidth() == 2
    part = plt.figure().subfigures(1, 2)[1]
    assert display_of(2).plot(part.subplots()).figure_ is part
    assert dict(plt.rcParams) == before


def dots(display, model):
    return np.asarray(display.dots_[model].get_offsets())


def test_more_than_twelve_groups_have_dots_with_intervals():
    assert display_of(12).plot().dots_ == {}
    low, high = {"m0": np.full(13, 0.4)}, {"m0": np.full(13, 0.95)}
    display = display_of(13, low=low, high=high).plot()
    assert display.bars_ == {}
    np.testing.assert_allclose(dots(display, "m0")[:, 0], np.linspace(0.5, 0.9, 13))
    np.testing.assert_allclose(dots(display, "m0")[:, 1], np.arange(13))
    np.testing.assert_allclose(interval_ends(display, "m0"), np.tile([0.4, 0.95], (13, 1)))
    left, right = display.ax_.get_xlim()
    assert 0 < left < 0.4 < 0.95 < right  # dots need no zero


def test_dot_settings_win():
    display = display_of(13).plot(dot_kw={"color": "red", "s": 50}, bar_kw={"hatch": "x"})
    np.testing.assert_array_equal(display.dots_["m0"].get_facecolors(), [[1, 0, 0, 1]])
    assert display.dots_["m0"].get_sizes() == [50]


def test_worst_group_first_of_any_model():
    values = {"a": [0.7, 0.6, np.nan, 0.1, 0.9], "b": [0.5, 0.8, 0.4, 0.2, 0.9]}
    estimable = {"a": [True, True, True, False, True], "b": [True, True, True, False, True]}
    groups = ["x", "y", "half", "few", "z"]
    display = GroupMetricsDisplay(values, groups, estimable=estimable).plot(sort="worst")
    assert display.groups_ == ["half", "x", "y", "z", "few"]
    assert lengths(display, "b") == [0.4, 0.5, 0.8, 0.9, 0]
    assert [text.get_text() for text in display.undefined_] == ["undefined", "not estimable"]
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == display.groups_
    lower = GroupMetricsDisplay(values, groups, lower_is_better=True).plot(sort="worst")
    assert lower.groups_ == ["z", "y", "x", "half", "few"]
    assert GroupMetricsDisplay(values, groups).plot().groups_ == groups


def test_the_direction_of_a_rate_of_errors(data):
    y, predictions, sex = data
    arguments = {"sensitive_features": sex, "sort": "worst"}
    rates = [np.mean(predictions["plain"][(y == 0) & (sex == s)]) for s in "fm"]
    display = GroupMetricsDisplay.from_predictions(
        y, predictions["plain"], metric=false_positive_rate, **arguments
    )
    assert display.groups_[0] == "fm"[int(np.argmax(rates))]
    rates = [np.mean(predictions["plain"][sex == s]) for s in "fm"]
    display = GroupMetricsDisplay.from_predictions(
        y, predictions["plain"], metric=selection_rate, **arguments
    )
    assert display.groups_[0] == "fm"[int(np.argmin(rates))]


@pytest.mark.parametrize(("n_groups", "max_groups", "n_more"), [(60, 12, 48), (5, 2, 3), (5, 9, 0)])
def test_groups_that_are_left_out_are_counted(n_groups, max_groups, n_more):
    display = display_of(n_groups).plot(max_groups=max_groups)
    axis = display.ax_.yaxis if display.horizontal_ else display.ax_.xaxis
    labels = [label.get_text() for label in axis.get_ticklabels()]
    shown = [f"g{i}" for i in range(min(max_groups, n_groups))]
    assert labels == shown + [f"and {n_more} more"] * bool(n_more)
    assert display.groups_ == shown
    assert display.left_out_ == [f"g{i}" for i in range(len(shown), n_groups)]
    assert len(lengths(display, "m0")) == len(shown)


@pytest.mark.parametrize("max_groups", [0, -1, 2.5, True, "3"])
def test_settings_of_the_order(max_groups):
    with pytest.raises(ValueError, match=r"max_groups=.* is not a number of groups.*None"):
        display_of(3).plot(max_groups=max_groups)
    with pytest.raises(ValueError, match=r"sort='best' is unknown.*'worst'"):
        display_of(3).plot(sort="best")
    assert plt.get_fignums() == []


def test_groups_with_few_samples_are_not_estimable(data):
    y, predictions, _ = data
    group = np.repeat(["few", "many"], [9, 391])
    report = fairness_report(y, predictions, sensitive_features=group)
    display = GroupMetricsDisplay.from_report(report, "selection_rate")
    assert [text.get_text() for text in display.undefined_] == ["not estimable"]
    assert lengths(display, "plain") == [0, predictions["plain"][9:].mean()]
    assert display.values["plain"][0] == predictions["plain"][:9].mean()
    report = fairness_report(y, predictions, sensitive_features=group, min_count=9)
    assert GroupMetricsDisplay.from_report(report, "selection_rate").undefined_ == []


def test_the_band_is_the_interval_of_the_overall_value(data):
    y, predictions, sex = data
    report = fairness_report(y, predictions, sensitive_features=sex)
    for metric in (None, "accuracy"):
        display = GroupMetricsDisplay.from_report(report, metric)
        for model in predictions:
            hits = (predictions[model] == y).sum()
            ends = binomtest(int(hits), len(y)).proportion_ci(method="wilson")
            band = display.bands_[model].get_extents()
            band = band.transformed(display.ax_.transData.inverted())
            assert (band.y0, band.y1) == pytest.approx((ends.low, ends.high))
    three = predictions | {"third": predictions["plain"]}
    assert GroupMetricsDisplay.from_predictions(y, three, sensitive_features=sex).bands_ == {}


@pytest.mark.parametrize("n_groups", [4, 12, 60])
def test_long_names_are_broken_and_do_not_overlap(n_groups):
    names = [
        f"{i:02d} people of the northern districts who are older than sixty-five years"
        for i in range(n_groups)
    ]
    assert min(map(len, names)) >= 70
    display = GroupMetricsDisplay({"a": [0.5] * n_groups}, names, count=[1234] * n_groups).plot()
    display.figure_.canvas.draw()
    labels = display.ax_.get_yticklabels()
    assert [" ".join(label.get_text().split("\n")) for label in labels] == [
        f"{name} (n=1234)" for name in names
    ]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)
    assert min(label.get_fontsize() for label in labels) == plt.rcParams["font.size"]
    # The names do not take the room of the values.
    assert display.ax_.get_window_extent().width > 0.4 * display.figure_.bbox.width


def test_names_in_small_axes_do_not_overlap():
    figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
    display = GroupMetricsDisplay({"a": [0.5] * 20}, [f"group number {i}" for i in range(20)])
    display.plot(ax)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    overlaps = [min(a.y1, b.y1) - max(a.y0, b.y0) for a, b in pairwise(boxes)]
    assert max(overlaps) < 1  # pixels


def test_names_are_no_formulas():
    names = ["$x$", "a$b", "_hidden", "50 % $"]
    display = GroupMetricsDisplay({name: [0.5] * 4 for name in names}, names).plot()
    display.figure_.canvas.draw()
    assert legend(display) == [name.replace("$", r"\$") for name in names]


def test_a_hint_about_fonts():
    display = GroupMetricsDisplay({"a": [0.5] * 3}, ["\u7537\u6027", "\u5973", "Ελλάδα"])
    with (
        plt.rc_context({"font.family": ["DejaVu Sans"]}),
        pytest.warns(MissingGlyphWarning) as told,
    ):
        display.plot()
    (warning,) = told  # and none of matplotlib's
    assert "no glyph for these characters of the labels: \u5973\u6027\u7537." in str(
        warning.message
    )
    with plt.rc_context({"font.family": ["DejaVu Sans"]}):  # no warning
        GroupMetricsDisplay({"a": [0.5] * 2}, ["Ελλάδα", "größer"]).plot()


def test_numbers_that_do_not_fit():
    with pytest.raises(TypeError, match=r"values is a list, expected a dict of model names"):
        GroupMetricsDisplay([0.5], ["a"])
    with pytest.raises(ValueError, match="values has 0 models and groups has 1 groups"):
        GroupMetricsDisplay({}, ["a"])
    with pytest.raises(ValueError, match=r"values\['m'\] has shape \(2,\) for 1 groups"):
        GroupMetricsDisplay({"m": [0.5, 0.6]}, ["a"])
    with pytest.raises(ValueError, match=r"count has shape \(1,\) for 2 groups"):
        display_of(2, count=[3])
    with pytest.raises(ValueError, match="Give both or neither"):
        display_of(1, low={"m0": [0.1]})
    with pytest.raises(ValueError, match=r"high has the models \['other'\]"):
        display_of(1, low={"m0": [0.1]}, high={"other": [0.1]})
    with pytest.raises(ValueError, match=r"low\['m0'\] is above high\['m0'\]"):
        display_of(1, low={"m0": [0.9]}, high={"m0": [0.1]})
    with pytest.raises(ValueError, match=r"overall has the models \['other'\]"):
        display_of(1, overall={"other": 0.5})
    with pytest.raises(ValueError, match="overall_low and overall_high are the interval"):
        display_of(1, overall={"m0": 0.5}, overall_low={"m0": 0.4})
    with pytest.raises(ValueError, match="overall_low and overall_high are the interval"):
        display_of(1, overall_low={"m0": 0.4}, overall_high={"m0": 0.6})
    with pytest.raises(ValueError, match=r"estimable has the models \['other'\]"):
        display_of(1, estimable={"other": [True]})


def test_bad_input(data):
    y, predictions, sex = data
    report = fairness_report(y, predictions, sensitive_features=sex, n_boot=0)
    with pytest.raises(TypeError, match=r"report is a dict.*from_predictions"):
        GroupMetricsDisplay.from_report({})
    with pytest.raises(ValueError, match=r"'recall' is not in the report, which has.*'accuracy'"):
        GroupMetricsDisplay.from_report(report, "recall")
    with pytest.raises(TypeError, match="metric is 'selection_rate', expected a function"):
        GroupMetricsDisplay.from_predictions(
            y, predictions, sensitive_features=sex, metric="selection_rate"
        )
    with pytest.raises(TypeError, match="estimator 'a' is a str, which has no predict"):
        GroupMetricsDisplay.from_estimator({"a": "b"}, y, y, sensitive_features=sex)
    with pytest.raises(NotFittedError):
        GroupMetricsDisplay.from_estimator(LogisticRegression(), y, y, sensitive_features=sex)
    assert plt.get_fignums() == []


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"GroupMetricsDisplay needs .*skfair-debias\[plot\]"):
        display_of(1).plot()


def test_matplotlib_is_imported_only_to_plot():
    code = "import sys, skfair.metrics; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
