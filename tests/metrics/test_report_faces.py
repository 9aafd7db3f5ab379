"""What a report looks like: text, HTML, the file and the model card."""

import html
import sys
from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, hamming_loss, roc_auc_score
from skops.card import Card

from skfair.metrics import GroupMetricsDisplay, count_groups, fairness_report

mpl.use("agg")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    n = 300
    y = rng.choice(["cat", "dog"], n)
    features = pd.DataFrame({"fur": rng.choice(["black", "white"], n), "old": rng.random(n) < 0.2})
    plain = np.where(features["fur"] == "black", "cat", y)
    robust = np.where(rng.random(n) < 0.9, y, "dog")
    return y, {"plain": plain, "robust": robust}, features


@pytest.fixture
def hostile(data):
    """A report whose every name is meant to break what it is written into."""
    y, predictions, features = data
    return fairness_report(
        y,
        {"<b>": predictions["plain"], "a&b|c/d": predictions["robust"]},
        sensitive_features=features.rename(columns={"fur": "<script>"}).replace("black", "</td>|"),
        metrics={"</style>|/x": accuracy_score},
        n_boot=20,
    )


def _flat(text):
    return " ".join(text.split())


def test_text(data):
    y, predictions, features = data
    text = str(fairness_report(y, predictions, sensitive_features=features))
    assert "300 samples, 8 groups (class x fur x old), 2 models" in text
    count = ((y == "cat") & (features["fur"] == "black") & ~features["old"]).sum()
    row = next(line for line in text.splitlines() if line.startswith("cat   black False"))
    assert row.split()[3:5] == [str(count), "100.0"]
    worst = next(line for line in text.splitlines() if line.startswith("worst group accuracy"))
    assert worst.split()[3] == "0.0"
    assert "levelled down" in text
    small = (features.assign(y=y).value_counts() < 30).sum()
    assert small > 1
    assert "Fewer than 30 samples" in text


def test_text_is_readable_at_100_columns(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features["fur"], pos_label="dog")
    assert max(map(len, str(report).splitlines())) <= 100


def test_change_and_levelling_down_in_words():
    y, color = [0, 0, 0, 0, 1, 1], ["r", "r", "b", "b", "r", "b"]
    models = {"plain": [0, 0, 1, 1, 1, 1], "robust": [0, 1, 0, 0, 1, 1]}
    groups = pd.Series(color, name="color")
    text = _flat(str(fairness_report(y, models, sensitive_features=groups, n_boot=0)))
    assert "robust against plain: 1 group gained, 1 lost (levelled down: 0, r -50.0)." in text
    assert "* Fewer than 30 samples, too few for a reliable value." in text
    assert "0 b 2* 0.0" in text

    models = {name: values * 50 for name, values in models.items()}
    report = fairness_report(y * 50, models, sensitive_features=pd.concat([groups] * 50))
    low, high = 100 * report.by_group.loc[(0, "r"), "robust"][["change_low", "change_high"]]
    text = _flat(str(report))
    assert (
        "1 group gained, 1 lost; beyond chance 1 gained and 1 lost (levelled down: 0, r -50.0 "
        f"[{low:.1f}, {high:.1f}])." in text
    )
    assert -65 < low < -50 < high < -35
    row = report.disparities.loc[("accuracy", "difference"), "robust"]
    interval = [f"{100 * row[name]:+.1f}" for name in ("change_low", "change_high")]
    assert f"accuracy: 66.7 -> 33.3 (-33.3 [{', '.join(interval)}])" in text
    assert "Fewer than" not in text


def test_loss_in_a_small_group_is_not_beyond_chance():
    y = [0] * 12
    report = fairness_report(y, {"good": y, "bad": [1] * 11 + [0]}, sensitive_features=["f"] * 12)
    assert report.by_group["bad", "change_high"].item() < 0
    assert "0 groups gained, 1 lost; beyond chance 0 gained and 0 lost." in str(report)


def test_what_is_beyond_chance_comes_first():
    rng = np.random.default_rng(0)
    group, place = rng.integers(2, size=4000), np.repeat(["near", "far"], 2000)
    old = rng.integers(2, size=4000)
    new = np.where((place == "near") & (group == 1), 1, old)  # all of one group, in one place
    report = fairness_report(
        rng.integers(2, size=4000),
        {"old": old, "new": new},
        sensitive_features={"group": group},
        control_features={"place": place},
    )
    row = report.disparities.loc[("selection_rate", "near", "difference"), "new"]
    assert row["change_low"] > 0
    text = _flat(str(report))
    first = text[text.index("difference between groups (group) of ") :].split(";")[0]
    assert "(near)" in first
    assert "accuracy" not in first


def test_rates_within_a_class_rest_on_its_members():
    y, prediction = [1, 1, 1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0]
    report = fairness_report(y, prediction, sensitive_features={"sex": [*"ffffmmmm"]}, n_boot=0)
    text = str(report)
    for heading, column, first, second in (
        ("True positive rate", "positives", "3*", "1*"),
        ("False positive rate", "negatives", "1*", "3*"),
        ("Selection rate", "count", "4*", "4*"),
    ):
        block = text[text.index(f"{heading} by sex") :].splitlines()
        assert block[1].split()[0] == column
        assert [line.split()[1] for line in block[3:5]] == [first, second]


def test_labels_that_are_not_there():
    y, groups = ["no", "yes"] * 2, {"sex": [*"ffmm"]}
    with pytest.raises(
        ValueError, match=r"No prediction of 'b' is a label.*'no\.'.*\['no', 'yes'\]"
    ):
        fairness_report(y, {"a": y, "b": ["no.", "yes."] * 2}, sensitive_features=groups)
    report = fairness_report(y, ["no", "YES", "no", "yes"], sensitive_features=groups)
    assert "1 prediction of model: not a label of y_true, so counted as wrong: 'YES'." in str(
        report
    )
    # One class only: that the model never says it can be.
    fairness_report(["no", "no"], ["yes", "yes"], sensitive_features={"sex": [*"fm"]})


def test_rates_that_need_a_positive_class_are_missed():
    y, groups = ["no", "yes"] * 2, {"sex": [*"ffmm"]}
    hint = "name the positive class, for instance pos_label='yes'"
    assert hint in _flat(str(fairness_report(y, y, sensitive_features=groups)))
    told = fairness_report(y, y, sensitive_features=groups, pos_label="no")
    assert hint not in _flat(str(told))
    assert hint not in _flat(
        str(fairness_report([0, 1, 2], [0, 1, 2], sensitive_features=[*"ffm"]))
    )


def test_no_interval_away_from_its_value():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    groups = np.repeat([*"abcdefghij"], [364, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    prediction = np.where(np.arange(400) % 4 == 0, 1 - y, y)  # each group 3 of 4 right
    report = fairness_report(y, prediction, sensitive_features={"group": groups})
    row = report.disparities.loc[("accuracy", "difference"), "model"]
    assert row["value"] < 0.01
    assert np.isnan(row["low"])  # all draws are far above
    assert np.isnan(row["high"])
    assert "A difference or ratio has no interval if" in str(report)
    told = report.disparities["model"].dropna()
    assert ((told["low"] <= told["value"]) & (told["value"] <= told["high"])).all()


def test_a_report_refuses_metrics_of_scores():
    for metric in (roc_auc_score, partial(roc_auc_score, average="micro")):
        with pytest.raises(TypeError, match=r"roc_auc_score, a metric of scores.*MetricFrame"):
            fairness_report([0, 1], [0, 1], sensitive_features=[*"fm"], metrics={"auc": metric})


def test_values_in_words():
    y, prediction = [1, 1, 1, 0, 1, 0], [1, 0, 1, 0, 1, 1]
    report = fairness_report(
        y,
        prediction,
        sensitive_features=pd.Series(list("ffffmm"), name="sex"),
        metrics=[accuracy_score, hamming_loss],
        n_boot=0,
    )
    text = str(report)
    block = text[text.index("Accuracy score by sex, percent") :].splitlines()
    assert [line.split() for line in block[3:8]] == [
        ["f", "4*", "75.0", "[30.1,", "95.4]"],
        ["m", "2*", "50.0", "[9.5,", "90.5]"],
        ["overall", "66.7", "[30.0,", "90.3]"],
        ["difference", "25.0"],
        ["ratio", "0.67"],
    ]
    block = text[text.index("Hamming loss by sex") :].splitlines()
    assert [line.split() for line in block[3:6]] == [
        ["f", "4*", "0.250"],
        ["m", "2*", "0.500"],
        ["overall", "0.333"],
    ]


def test_model_card(data, tmp_path):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features, n_boot=20)
    card = Card(LogisticRegression().fit([[0], [1]], [0, 1]))
    assert report.to_model_card(card, section="Evaluation/Fairness") is card
    text = card.render()
    lines = text.splitlines()
    start = lines.index("## Fairness")
    assert "# Evaluation" in lines[:start]
    assert (
        lines[start + 2] == "Fairness report: 300 samples, 8 groups (class x fur x old), 2 models."
    )
    assert any(line.startswith("robust against plain: ") for line in lines[start:])
    headings = [line for line in lines[start:] if line.startswith("###")]
    assert headings == [
        "### Accuracy by class, fur, old, percent",
        "### Summary, percent",
        "### Accuracy by fur, old, percent",
    ]
    rows = [line for line in lines[start:] if line.startswith("|")]
    worst = next(line for line in rows if "worst group accuracy" in line)
    cells = [cell.strip() for cell in worst.strip("|").split("|")]
    expected = 100 * report.summary.loc["worst_group_accuracy"]
    assert cells[1:] == [f"{value:.1f}" for value in expected]
    report.to_model_card(card, section="Evaluation/Fairness")
    assert card.render() == text  # replaced, not added
    card.save(tmp_path / "README.md")


def test_model_card_of_its_own_with_names_that_mean_something_in_markdown(hostile):
    lines = hostile.to_model_card().render().splitlines()
    assert "# Fairness" in lines
    assert "## &lt;/style>\\|/x by &lt;script>, old, percent" in lines
    widths = {}
    for i, line in enumerate(lines):
        if line.startswith("|"):
            heading = max(j for j in range(i) if lines[j].startswith("#"))
            widths.setdefault(heading, set()).add(line.replace("\\|", "").count("|"))
    assert len(widths) == 3
    assert all(len(width) == 1 for width in widths.values())
    assert not any("<" in line for line in lines)


def test_model_card_needs_skops_and_a_card(hostile, monkeypatch):
    with pytest.raises(TypeError, match=r"card is a str; give a skops\.card\.Card"):
        hostile.to_model_card("README.md")
    monkeypatch.setitem(sys.modules, "skops.card", None)
    with pytest.raises(ImportError, match=r"skfair-debias\[report\]"):
        hostile.to_model_card()


# Labels that look alike --------------------------------------------------------------------


def rows_of(report, heading):
    """First words of the rows of a table in the text."""
    lines = str(report).split(f"{heading}\n")[1].split("\n\n")[0].splitlines()
    return [line.split()[0] for line in lines[2:]]


@pytest.mark.parametrize("name", ["overall", "difference", "ratio", "Overall", " ratio "])
def test_a_group_by_the_name_of_a_total_is_told_from_it(name):
    report = fairness_report([0, 1, 0, 1], [0, 1, 1, 1], sensitive_features=["a", "a", name, name])
    found = rows_of(report, "Accuracy by sensitive_feature_0, percent")
    assert len(set(found)) == len(found) == 5
    assert repr(name).split()[0] in found
    assert {"overall", "difference", "ratio"} <= set(found)
    page = report._repr_html_()
    assert page.count(f"<bdi>{html.escape(repr(name))}</bdi>") >= 1
    display = GroupMetricsDisplay.from_report(report, "accuracy")
    assert any(label.startswith(repr(name)) for label in display._tick_labels(" "))
    plt.close("all")


def test_numbers_and_their_texts_are_told_apart():
    y = [0, 1] * 6
    groups = [1, 1, "1", "1", "a", "a"] * 2
    report = fairness_report(y, y, sensitive_features=groups)
    found = rows_of(report, "Accuracy by sensitive_feature_0, percent")
    assert sorted(found[:3]) == ["'1'", "1", "a"]
    display = GroupMetricsDisplay.from_report(report, "accuracy")
    labels = [label.split("(")[0].strip() for label in display._tick_labels(" ")]
    assert sorted(labels) == ["'1'", "1", "a"]
    plt.close("all")
    by_class = GroupMetricsDisplay.from_report(report)
    assert len(set(by_class._tick_labels(" "))) == 6
    plt.close("all")
    # As predicted labels, and as labels of columns side by side.
    classes = [1, "1"] * 6
    report = fairness_report(classes, classes, sensitive_features=["a"] * 6 + ["b"] * 6)
    text = str(report).split("\n\n")[1]
    assert "'1'   a" in text
    pairs = {"one": ["a, b", "a"], "two": ["c", "b, c"]}
    display = GroupMetricsDisplay.from_report(
        fairness_report([1, 0], [1, 0], sensitive_features=pairs), "accuracy"
    )
    assert len(set(display._tick_labels(" "))) == 2
    plt.close("all")


def test_an_empty_label_is_seen_beside_the_blanks_of_totals():
    features = {"a": ["x", "overall"], "b": ["y", ""]}
    report = fairness_report([1, 0], [1, 0], sensitive_features=features)
    lines = str(report).split("percent\n")[1].split("\n\n")[0].splitlines()[2:]
    assert [line.split()[:2] for line in lines[:2]] == [["'overall'", "''"], ["x", "y"]]


# Groups without weight ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone, named",
    [
        (lambda y, g, c: g == "c", "weight 0: c"),
        (lambda y, g, c: (g == "c") & (y == 1), "weight 0: 1, c"),
        (lambda y, g, c: (g == "c") & (c == "south"), "weight 0: south, c"),
        (lambda y, g, c: (g == "c") | ((g == "a") & (y == 0)), "weight 0: c; 0, a"),
    ],
)
def test_what_has_no_weight_is_named(gone, named):
    y = np.arange(48) % 2
    groups = np.array(list("aabbcc"))[np.arange(48) % 6]
    control = np.array(["north", "south"])[np.arange(48) // 24]
    weight = (~gone(y, groups, control)).astype(float)
    arguments = {"sensitive_features": groups, "control_features": control, "n_boot": 0}
    report = fairness_report(y, y, sample_weight=weight, **arguments)
    for face in (str(report), html.unescape(report._repr_html_())):
        assert f"Left out, because all samples have {named}." in " ".join(face.split())
    assert "Left out" not in str(fairness_report(y, y, **arguments))
    # What other samples make up for is not left out any more.
    counts = [
        count_groups(y, y, sensitive_features=groups, control_features=control, sample_weight=each)
        for each in (weight, None)
    ]
    assert counts[0].left_out
    assert sum(counts).left_out == counts[1].left_out == ()
    assert (counts[0] + counts[0]).left_out == counts[0].left_out
