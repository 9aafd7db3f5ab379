"""What a report looks like: text, HTML, the file and the model card."""

import html
import json
import os
import re
import sys
from functools import partial
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import false_positive_rate
from markdown_it import MarkdownIt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, hamming_loss, roc_auc_score
from skops.card import Card

from skfair.metrics import GroupMetricsDisplay, count_groups, fairness_report
from skfair.metrics._reporting._card import escape

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


def _line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_text(data):
    y, predictions, features = data
    text = str(fairness_report(y, predictions, sensitive_features=features))
    assert "300 samples, 8 groups (class x fur x old), 2 models" in text
    count = ((y == "cat") & (features["fur"] == "black") & ~features["old"]).sum()
    row = _line(text, "cat    black  False")
    assert row.split()[3:5] == [str(count), "100.0"]
    assert text.index("Worst group") < text.index("Accuracy by class")
    summary = text[text.index("Summary, percent") :].split("\n\n")[0]
    worst = [float(line.split()[2]) for line in summary.splitlines() if line.startswith("plain")]
    assert worst == [0.0]


def test_text_fits_100_columns_where_there_is_no_terminal(data):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features["fur"], pos_label="dog")
    assert max(map(len, str(report).splitlines())) <= 100
    six = {f"a model with a long name, number {i}": predictions["robust"] for i in range(6)}
    report = fairness_report(y, six, sensitive_features=features, pos_label="dog")
    assert max(map(len, str(report).splitlines())) <= 100


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_text_fits_the_terminal(data, monkeypatch, columns):
    y, predictions, features = data
    report = fairness_report(y, predictions, sensitive_features=features, pos_label="dog")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= min(max(columns, 60), 120)


def test_wide_letters_keep_the_columns_straight():
    y, names = [0, 1] * 60, ["\u7b2c\u4e00\u7d44", "group", "\u0645\u062c\u0645"]
    report = fairness_report(y, y, sensitive_features={"g": np.repeat(names, 40)})
    rows = str(report).split("Accuracy by g, percent\n")[1].splitlines()[1:4]
    ends = {line.index("]") + sum("\u4e00" <= c <= "\u9fff" for c in line) for line in rows}
    assert len(ends) == 1


def test_verdict_names_the_worst_group_the_gap_and_who_pays():
    # Group a: 60 of 100 right before, 80 after; group b: 90 of 100 before, 70 after.
    y = np.ones(200, dtype=int)
    group = np.repeat([*"ab"], 100)
    old = np.r_[np.arange(100) < 60, np.arange(100) < 90].astype(int)
    new = np.r_[np.arange(100) < 80, np.arange(100) < 70].astype(int)
    report = fairness_report(y, {"old": old, "new": new}, sensitive_features={"g": group})
    text = _flat(str(report))
    assert "Worst group class 1, b (100 samples): accuracy 70.0 [60.4, 78.1] % with new" in text
    assert "90.0 [82.6, 94.5] % with old. The worst group of old was class 1, a: 60.0" in text
    gap = report.gaps.loc[("accuracy", "difference"), "new"]
    interval = f"[{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"
    change = f"[{100 * gap['change_low']:+.1f}, {100 * gap['change_high']:+.1f}]"
    assert f"10.0 {interval} points between a (80.0 %) and b (70.0 %) with new" in text
    assert f"30.0 with old, change -20.0 {change}" in text
    row = report.by_group.loc[(1, "b"), "new"]
    change = f"[{100 * row['change_low']:+.1f}, {100 * row['change_high']:+.1f}]"
    assert f"Who pays 1 of 2 groups lost accuracy beyond chance: class 1, b -20.0 {change}." in text
    assert "1 gained beyond chance, 0 cannot be told. new against old." in text


def test_loss_in_a_small_group_is_not_beyond_chance():
    y = [0] * 12
    losing = {"good": y, "bad": [1] * 5 + [0] * 7}  # five losses, no gain: p = 2 / 32
    report = fairness_report(y, losing, sensitive_features=["f"] * 12)
    assert report.by_group["bad", "change_p"].item() == 0.0625
    assert "none of 1 group lost accuracy beyond chance. 0 gained" in _flat(str(report))


def test_the_summary_says_that_it_includes_groups_without_a_value():
    # 3 of 23 samples are of group b, and all three are wrong.
    y, group = np.repeat([1], 23), np.repeat(["a", "b"], [20, 3])
    report = fairness_report(y, (group == "a").astype(int), sensitive_features=group)
    remark = "The summary includes 1 group with fewer than 10 samples."
    assert report.summary.loc["worst_group_accuracy", "model"] == 0
    for shown in (str(report), report._repr_html_(), report.to_model_card().render()):
        assert remark in shown.replace("\n", " ")
    everybody = fairness_report(y, y, sensitive_features=group, min_count=0)
    assert "The summary includes" not in str(everybody)


def test_each_model_has_a_row_against_the_reference_group():
    # Selected with "old": 300 of 600 in a, 120 of 600 in b. With "new.": 240 of 600 in each.
    group = np.repeat(["a", "b"], 600)
    old = np.r_[np.arange(600) < 300, np.arange(600) < 120].astype(int)
    new = np.r_[np.arange(600) < 240, np.arange(600) < 240].astype(int)
    report = fairness_report(
        old, {"old": old, "new.": new}, sensitive_features={"g": group}, threshold=0.8, n_boot=0
    )
    text = str(report)
    table = text[text.index("Selection rate against") :].split("\n\n")[0].splitlines()
    assert table[0] == "Selection rate against a reference group"
    heads = ["g", "model", "ratio", "difference,", "points", "reference", "at", "least", "0.8"]
    assert table[1].split() == heads
    rows = [line.split() for line in table[2:]]
    assert [row[:2] for row in rows] == [["a", "old"], ["a", "new."], ["b", "old"], ["b", "new."]]
    assert rows[2][2] == "0.40"
    assert [row[-1] for row in rows if row[1] == "old"] == ["yes", "no"]
    verdict = text[: text.index("Accuracy by class")]
    assert "new.." not in verdict  # the name has a full stop already
    assert "new. against old." in verdict
    assert "old against" not in verdict


def test_nobody_is_named_when_nothing_can_be_estimated():
    y = [0, 1, 1]
    text = _flat(str(fairness_report(y, y, sensitive_features={"g": [*"abc"]})))
    assert "Worst group not estimable: each of 3 groups has fewer than 10 samples." in text
    assert "Largest gap none: there are no two groups with a value to compare." in text
    assert "Not estimable 3 of 3 groups, by the rule: fewer than 10 samples." in text
    assert "Not estimable: a value with fewer than 10 samples behind it" in text
    assert "accuracy by class, 3 of 3; accuracy, 3 of 3" in text


def test_gaps_of_metrics_without_a_common_unit_are_not_ranked():
    y = [0, 1] * 20
    mine = {"mine": lambda a, b: float(np.mean(a == b))}
    text = str(fairness_report(y, y, sensitive_features={"g": [*"aabb"] * 10}, metrics=mine))
    assert "Largest gap    not named: metrics of your own have no common unit." in text


def test_the_worst_group_comes_first_and_groups_without_a_value_last():
    group = np.repeat([*"abcd"], [50, 50, 50, 5])
    y = np.ones(155, dtype=int)
    prediction = np.r_[np.arange(50) < 45, np.arange(50) < 20, np.arange(50) < 30, np.zeros(5)]
    report = fairness_report(y, prediction.astype(int), sensitive_features={"g": group})
    assert rows_of(report, "Accuracy by g, percent") == [*"bcad", "overall", "difference", "ratio"]
    assert _line(str(report), "d ").split() == ["d", "5", "not", "estimable"] or "1" in str(report)
    assert "Difference and ratio: a against b." in str(report)
    false_positives = fairness_report(
        1 - y, prediction.astype(int), sensitive_features={"g": group}, pos_label=1,
        metrics=[false_positive_rate],
    )  # fmt: skip
    assert rows_of(false_positives, "False positive rate by g, percent")[:4] == [*"acbd"]


def test_of_many_groups_the_text_shows_the_worst_ten():
    group = np.repeat([f"g{i:02}" for i in range(30)], 20)
    y = np.ones(600, dtype=int)
    prediction = (np.arange(600) % 20 < np.repeat(np.arange(30) % 20, 20)).astype(int)
    report = fairness_report(y, prediction, sensitive_features={"g": group})
    values = report.by_feature["model", "value"].loc["accuracy"]
    found = rows_of(report, "Accuracy by g, percent")[:10]
    assert values[found].max() <= values.drop(found).min()
    assert "These are the 10 worst groups. The other 20 are in the attributes" in _flat(str(report))


def test_three_models_have_a_verdict_each(data):
    y, predictions, features = data
    report = fairness_report(
        y, {**predictions, "same": predictions["plain"]}, sensitive_features=features["fur"]
    )
    block = str(report).split("Each model, percent\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in block.splitlines() if line[0] != " "][1:] == [
        "plain", "robust", "same",
    ]  # fmt: skip
    lost = (report.by_group["robust", "change_p"] <= 0.05) & (
        report.by_group["robust", "change"] < 0
    )
    gained = (report.by_group["robust", "change_p"] <= 0.05) & ~lost
    assert _line(block, "robust").split()[-2:] == [str(lost.sum()), str(gained.sum())]
    assert _line(block, "same").split()[-2:] == ["0", "0"]


def test_rates_within_a_class_rest_on_its_members():
    y, prediction = [1, 1, 1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0]
    report = fairness_report(
        y, prediction, sensitive_features={"sex": [*"ffffmmmm"]}, n_boot=0, min_count=0
    )
    text = str(report)
    for heading, column, counts in (
        ("True positive rate", "positives", {"f": "3", "m": "1"}),
        ("False positive rate", "negatives", {"f": "1", "m": "3"}),
        ("Selection rate", "count", {"f": "4", "m": "4"}),
    ):
        block = text[text.index(f"{heading} by sex") :].splitlines()
        assert block[1].split()[1] == column
        assert {line.split()[0]: line.split()[1] for line in block[2:4]} == counts


def test_values_in_words():
    y, prediction = [1, 1, 1, 0, 1, 0], [1, 0, 1, 0, 1, 1]
    report = fairness_report(
        y,
        prediction,
        sensitive_features=pd.Series(list("ffffmm"), name="sex"),
        metrics=[accuracy_score, hamming_loss],
        n_boot=0,
        min_count=0,
    )
    text = str(report)
    block = text[text.index("Accuracy score by sex, percent") :].splitlines()
    assert [line.split() for line in block[2:8]] == [
        ["m", "2", "50.0", "[9.5,", "90.5]"],
        ["f", "4", "75.0", "[30.1,", "95.4]"],
        ["overall", "66.7", "[30.0,", "90.3]"],
        ["difference", "25.0"],
        ["ratio", "0.67"],
        ["Difference", "and", "ratio:", "f", "against", "m."],
    ]
    block = text[text.index("Hamming loss by sex") :].splitlines()
    assert [line.split() for line in block[2:5]] == [
        ["m", "2", "0.500"],  # the highest loss is the worst
        ["f", "4", "0.250"],
        ["overall", "0.333"],
    ]


def test_json_has_the_numbers_of_the_tables(data, tmp_path):
    y, predictions, features = data
    report = fairness_report(
        y, predictions, sensitive_features=features, pos_label="dog", threshold=0.8
    )
    text = report.to_json()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["schema"] == "skfair.fairness_report/1"
    assert content["n_samples"] == 300
    assert [line["key"] for line in content["verdict"]] == [
        "Worst group",
        "Largest gap",
        "Who pays",
        "Threshold",
    ]
    for name in ("by_group", "by_feature", "disparities", "gaps", "by_reference"):
        table = getattr(report, name)
        assert len(content[name]) == len(table)
        for row, labels, (_, values) in zip(
            content[name], table.index, table.iterrows(), strict=True
        ):
            assert list(row["labels"].values()) == list(labels)
            for (model, column), value in values.items():
                found = row["models"][model][column] if model else row[column]
                if isinstance(value, float) and not np.isfinite(value):
                    assert found is None
                else:
                    assert found == (list(value) if isinstance(value, tuple) else value)
    whether = [row["models"]["robust"]["estimable"] for row in content["by_feature"]]
    assert whether == report.estimable["robust"].tolist()
    path = report.to_json(tmp_path / "report.json")
    assert path.read_bytes().decode("utf-8") == text
    assert os.listdir(tmp_path) == ["report.json"]
    with pytest.raises(FileNotFoundError, match="Make it first"):
        report.to_json(tmp_path / "none" / "report.json")


def test_labels_keep_their_type_in_json():
    y = [0, 1, 0, 1]
    report = fairness_report(y, y, sensitive_features={"g": [1, "1", 1, "1"]}, n_boot=0)
    labels = [row["labels"]["g"] for row in json.loads(report.to_json())["by_feature"]]
    assert set(map(type, labels)) == {int, str}
    hostile = fairness_report(y, y, sensitive_features={"\ud800": ["a", "b"] * 2}, n_boot=0)
    assert json.loads(hostile.to_json())["sensitive_features"] == ["\ud800"]


def test_json_has_whole_counts_and_keeps_them_apart_from_a_model_without_a_name():
    y, groups = [0, 1, 0], {"g": [*"abb"]}
    content = json.loads(fairness_report(y, {"": y}, sensitive_features=groups).to_json())
    for name, column, expected in (
        ("by_group", "count", [1, 1, 1]),
        ("by_feature", "count", [1, 2] * (len(content["by_feature"]) // 2)),
        ("gaps", "left_out", [2] * len(content["gaps"])),
    ):
        found = [row[column] for row in content[name]]
        assert set(map(type, found)) == {int}
        assert (found, name) == (expected, name)
        assert all(set(row) == {"labels", column, "models"} for row in content[name])
    assert content["by_group"][0]["models"][""]["accuracy"] == 1.0


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
        lines[start + 2] == "Fairness report: 300 samples, 8 groups (class x fur x old), 2 models"
    )
    assert [line.split("**")[1] for line in lines[start:] if line.startswith("- **")] == [
        "Worst group", "Largest gap", "Who pays",
    ]  # fmt: skip
    headings = [line for line in lines[start:] if line.startswith("###")]
    assert headings == [
        "### Accuracy by class, fur, old, percent",
        "### Summary, percent",
        "### Accuracy by fur, old, percent",
        "### How to read these numbers",
    ]
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    for model, values in report.summary.items():
        assert [model, *(f"{100 * value:.1f}" for value in values)] in rows
    report.to_model_card(card, section="Evaluation/Fairness")
    assert card.render() == text  # replaced, not added
    card.save(tmp_path / "README.md")


def test_model_card_of_its_own_with_names_that_mean_something_in_markdown(hostile):
    lines = hostile.to_model_card().render().splitlines()
    assert "# Fairness" in lines
    assert "## &lt;/style\\>\\|/x by &lt;script\\>, old, percent" in lines
    widths = {}
    for i, line in enumerate(lines):
        if line.startswith("|"):
            heading = max(j for j in range(i) if lines[j].startswith("#"))
            widths.setdefault(heading, set()).add(line.replace("\\|", "").count("|"))
    assert len(widths) == 3
    assert all(len(width) == 1 for width in widths.values())
    assert not any("<" in line for line in lines)


@pytest.mark.parametrize(
    "name", ["*a*", "_a_", "`a`", "[a](b)", "![a](b)", "~~a~~", "$a$", "# a", "- a", "1. a", "a\\b",
             "+ a", "<b>a</b>", "&amp;", "| a |", "1) a", "> a", "=== a", "---"]
)  # fmt: skip
def test_a_renderer_shows_names_in_a_card_as_they_are(name):
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(escape(name))
    assert html.unescape(shown) == f"<p>{name}</p>\n"


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
    hint = "for instance pos_label='yes'; on the command line, with --pos-label."
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
    report = fairness_report(y, prediction, sensitive_features={"group": groups}, min_count=0)
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


def test_model_card_needs_skops_and_a_card(hostile, monkeypatch):
    with pytest.raises(TypeError, match=r"card is a str; give a skops\.card\.Card"):
        hostile.to_model_card("README.md")
    monkeypatch.setitem(sys.modules, "skops.card", None)
    with pytest.raises(ImportError, match=r"skfair-debias\[report\]"):
        hostile.to_model_card()


# Labels that look alike --------------------------------------------------------------------


def drawn_labels(display):
    """The labels of the groups in a picture, without the line breaks."""
    axis = display.ax_.yaxis if display.horizontal_ else display.ax_.xaxis
    return [" ".join(label.get_text().split()) for label in axis.get_ticklabels()]


def rows_of(report, heading):
    """First words of the rows of a table in the text."""
    lines = str(report).split(f"{heading}\n")[1].split("\n\n")[0].splitlines()
    return [line.split()[0] for line in lines[1:] if not line.startswith("Difference and ratio")]


@pytest.mark.parametrize("name", ["overall", "difference", "ratio", "Overall", " ratio "])
def test_a_group_by_the_name_of_a_total_is_told_from_it(name):
    report = fairness_report([0, 1, 0, 1], [0, 1, 1, 1], sensitive_features=["a", "a", name, name])
    found = rows_of(report, "Accuracy by sensitive_feature_0, percent")
    assert len(set(found)) == len(found) == 5
    assert repr(name).split()[0] in found
    assert {"overall", "difference", "ratio"} <= set(found)
    page = html.unescape(report._repr_html_())
    assert page.count(f"<bdi>{name!r}</bdi>") >= 1
    display = GroupMetricsDisplay.from_report(report, "accuracy")
    assert any(label.startswith(repr(name)) for label in drawn_labels(display))
    plt.close("all")


def test_numbers_and_their_texts_are_told_apart():
    y = [0, 1] * 6
    groups = [1, 1, "1", "1", "a", "a"] * 2
    report = fairness_report(y, y, sensitive_features=groups)
    found = rows_of(report, "Accuracy by sensitive_feature_0, percent")
    assert sorted(found[:3]) == ["'1'", "1", "a"]
    display = GroupMetricsDisplay.from_report(report, "accuracy")
    labels = [label.split("(")[0].strip() for label in drawn_labels(display)]
    assert sorted(labels) == ["'1'", "1", "a"]
    plt.close("all")
    by_class = GroupMetricsDisplay.from_report(report)
    assert len(set(drawn_labels(by_class))) == 6
    plt.close("all")
    # As predicted labels, and as labels of columns side by side.
    classes = [1, "1"] * 6
    report = fairness_report(classes, classes, sensitive_features=["a"] * 6 + ["b"] * 6)
    assert "'1'    a" in str(report).split("\n\n")[2]
    pairs = {"one": ["a, b", "a"], "two": ["c", "b, c"]}
    display = GroupMetricsDisplay.from_report(
        fairness_report([1, 0], [1, 0], sensitive_features=pairs), "accuracy"
    )
    assert len(set(drawn_labels(display))) == 2
    plt.close("all")


def test_an_empty_label_is_seen_beside_the_blanks_of_totals():
    features = {"a": ["x", "overall"], "b": ["y", ""]}
    report = fairness_report([1, 0], [1, 0], sensitive_features=features, min_count=0)
    lines = str(report).split("Accuracy by a, b, percent\n")[1].split("\n\n")[0].splitlines()[1:]
    assert sorted(line.split()[:2] for line in lines[:2]) == [["'overall'", "''"], ["x", "y"]]


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


def test_names_in_the_verdict_are_those_of_the_tables():
    groups = np.array([1, "1", ""] * 20, dtype=object)
    report = fairness_report([0, 1] * 30, [0, 0] * 30, sensitive_features={"s": groups})
    worst, gap, _ = (line["text"] for line in json.loads(report.to_json())["verdict"])
    names = {"1", "'1'", "''"}
    assert worst.split(" (")[0] in {f"class 1, {name}" for name in names}
    ends = re.search(r"between (\S+) \(.*and (\S+) \(", gap)
    assert ends is not None
    assert set(ends.groups()) <= names
