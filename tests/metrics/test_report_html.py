"""The report in HTML as text; tests/browser shows it in a browser."""

import base64
import dataclasses
import hashlib
import os
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from skfair.metrics import fairness_report
from skfair.metrics._reporting._html import body, chart, page
from skfair.metrics._reporting._view import Cell, PlainTable, Row, Section, View

NAN = float("nan")


def make_cell(value, low=NAN, high=NAN, **more):
    return Cell(value, low, high, NAN, NAN, NAN, f"{value}", "", **more)


def make_section(values, overall=(), unit=""):
    """A section of one model: a value and an interval for each group, and the overall values."""
    groups = [Row((f"g{i}",), 9, (make_cell(*v),)) for i, v in enumerate(values)]
    statistics = [
        Row((f"level {i}", "overall"), None, (make_cell(v),)) for i, v in enumerate(overall)
    ]
    return Section("Rate by g", "rate", unit, ("g",), "count", tuple(groups), tuple(statistics))


def make_view(*sections, models=("model",), **more):
    summary = PlainTable("Summary", (), ("a",), ((),), (("1.0",),))
    view = View("Report: 10 samples", models, (), None, summary, sections, (), (), ())
    return dataclasses.replace(view, **more)


@pytest.fixture
def hostile():
    """A report whose every name is meant to break what it is written into."""
    rng = np.random.default_rng(0)
    y = rng.choice(["cat", "dog"], 300)
    features = pd.DataFrame(
        {"<script>": rng.choice(["</td>|", "white"], 300), "old": rng.random(300) < 0.2}
    )
    return fairness_report(
        y,
        {"<b>": rng.choice(["cat", "dog"], 300), "a&b|c/d": y},
        sensitive_features=features,
        metrics={"</style>|/x": accuracy_score},
        n_boot=20,
    )


class Tags(HTMLParser):
    """Fails on tags that do not match; keeps text, tags, and the number of cells of each row."""

    VOID = {"meta", "path", "circle"}
    OPTIONAL = {"tr", "td", "th", "thead", "tbody"}

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.tags, self.rows = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID | self.OPTIONAL:
            self.open.append(tag)
        if tag == "table":
            self.rows.append([])
        if tag == "tr":
            self.rows[-1].append(0)
        if tag in ("td", "th"):
            self.rows[-1][-1] += 1

    def handle_endtag(self, tag):
        if tag not in self.VOID | self.OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_notebook_shows_well_formed_and_escaped_tables(hostile):
    tags = Tags(hostile._repr_html_())
    assert {"<script>", "<b>", "a&b|c/d", "</td>|"} <= set(tags.text)
    names = [tag for tag, _ in tags.tags]
    assert names.count("script") == names.count("style") == 1
    assert not {"main", "html", "h1", "meta"} & set(names)
    assert len(tags.rows) == 3
    assert all(len(set(rows)) == 1 for rows in tags.rows)
    # Strangers' names are isolated, so that their direction of writing stays theirs.
    cells = re.findall(r"<th scope=row>(.*?)<td>", hostile._repr_html_())
    assert all(re.fullmatch(r"(<bdi>[^<]*</bdi>(, )?)+", cell) for cell in cells)


def test_file_stands_alone(hostile, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert hostile.to_html(path) == path
    assert os.listdir(tmp_path) == ["report.html"]
    text = path.read_text(encoding="utf-8")
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    tags = Tags(text)
    names = [tag for tag, _ in tags.tags]
    assert not {"link", "img", "iframe", "a", "use", "image"} & set(names)
    attributes = [(tag, name) for tag, attrs in tags.tags for name in attrs]
    assert not {"src", "href", "style", "onclick", "onload"} & {name for _, name in attributes}
    assert "url(" not in text.replace("url(#fr-", "")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        tags.tags
    )
    again = hostile.to_html(str(tmp_path / "again.html"))
    assert again.read_bytes() == path.read_bytes()
    assert b"\r" not in path.read_bytes()


def test_the_browser_may_run_only_the_script_of_the_report(hostile, tmp_path):
    text = hostile.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    policy = dict(rule.split(maxsplit=1) for rule in policy.replace("&#39;", "'").split("; "))
    assert policy["default-src"] == "'none'"
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert "Content-Security-Policy" not in hostile._repr_html_()


def test_file_that_cannot_be_written_leaves_the_old_one(hostile, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Make it first"):
        hostile.to_html(tmp_path / "nowhere" / "report.html")
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        hostile.to_html(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_title_of_the_page(tmp_path):
    report = fairness_report([0, 1], [0, 1], sensitive_features={"sex": ["f", "m"]})
    text = report.to_html(tmp_path / "a.html", title="Model <7>, May").read_text(encoding="utf-8")
    assert "<title>Model &lt;7&gt;, May</title>" in text
    assert "<h1>Model &lt;7&gt;, May</h1>" in text


def test_sixty_groups_and_two_models_are_less_than_100_kb(tmp_path):
    rng = np.random.default_rng(0)
    group = rng.integers(60, size=20_000)
    y = rng.integers(2, size=len(group))
    models = {name: np.where(rng.random(len(y)) < 0.8, y, 1 - y) for name in ("before", "after")}
    groups = np.array([f"district {i // 2} {'fm'[i % 2]}" for i in range(60)])[group]
    report = fairness_report(y, models, sensitive_features={"group": groups})
    assert len(report.by_feature) == 4 * 60
    assert len(report.to_html(tmp_path / "report.html").read_bytes()) < 100_000


# Charts ------------------------------------------------------------------------------------


def test_dots_and_intervals_are_where_the_axis_says():
    drawn = chart(
        make_section([(0.5, 0.25, 0.75), (0.1,), (NAN,), (0.9, 0.8, 1.0)], [0.5], "percent")
    )
    assert (drawn.low, drawn.high) == ("0", "100")
    assert [(x, text) for x, text, _ in drawn.ticks] == [
        (8, "0"), (45, "20"), (82, "40"), (118, "60"), (155, "80"), (192, "100")
    ]  # fmt: skip
    # The axis is 184 pixels long and begins at 8.
    assert drawn.groups == [["M54 7H100 146"], ["M26 7H26 26"], [""], ["M155 7H174 192"]]
    assert drawn.lines == [(0, 100)]
    assert drawn.statistics == [["M100 7H100 100"]]


def test_no_line_where_each_control_level_has_an_overall_value():
    drawn = chart(make_section([(0.5,), (0.1,)], [0.4, 0.6]))
    assert drawn.lines == []
    assert len(drawn.statistics) == 2


@pytest.mark.parametrize(
    "values, low, high",
    [
        ([0.81, 0.84], "0.81", "0.84"),
        ([-3, 12], "-5", "15"),
        ([7, 7], "6.6", "7.4"),
        ([0, 0], "-0.06", "0.06"),
        ([1234567, 2234567], "1200000", "2400000"),
        ([1e-12, 3e-12], "1e-12", "3e-12"),
    ],
)
def test_axis_of_any_numbers(values, low, high):
    drawn = chart(make_section([(value,) for value in values]))
    assert (drawn.low, drawn.high) == (low, high)
    places = [x for x, _, _ in drawn.ticks]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (8, 192)
    assert 2 <= len(places) <= 7


@pytest.mark.parametrize("values", [[], [NAN], [float("inf"), NAN], [-1.7e308, 1.7e308]])
def test_no_chart_of_what_has_no_place(values):
    section = make_section([(value,) for value in values])
    assert chart(section) is None
    tags = Tags(page(make_view(section), "Report"))
    assert all(len(set(rows)) == 1 for rows in tags.rows)
    assert "svg" in {tag for tag, _ in tags.tags}  # the mark of the model
    assert not [attrs for tag, attrs in tags.tags if tag == "svg" and "role" in attrs]


def test_infinite_and_tiny_numbers_do_not_stop_the_others():
    drawn = chart(make_section([(float("inf"),), (5e-324,), (0.0,), (1.0, float("-inf"), 2.0)]))
    assert drawn.groups[0] == [""]
    assert drawn.groups[3] == ["M100 7H100 192"]


def test_36_models_have_36_marks():
    models = tuple(f"m{i}" for i in range(36))
    row = Row(("a",), 9, tuple(make_cell(0.5) for _ in models))
    section = dataclasses.replace(make_section([]), groups=(row,))
    text = page(make_view(section, models=models), "Report")
    marks = re.findall(r'<marker .*?class="(c\d)">(.*?)</marker>', text)
    assert len(set(marks)) == len(marks) == 36


# What a View can hold ----------------------------------------------------------------------


def test_verdict_comes_first_and_everything_is_shown():
    table = PlainTable("Pairs & more", ("a", "b"), ("value",), (("x", "y"),), (("<1",),), ("Hm.",))
    difference = Row(("difference",), None, (make_cell(0.4, between=("g1", "g0")),))
    section = dataclasses.replace(make_section([(0.1,), (0.5,)]), statistics=(difference,))
    text = body(
        make_view(
            section,
            section,
            verdict=(("Worst group", "g0, 10"), ("Who pays", "nobody")),
            verdict_table=table,
            references=(table,),
            certificates=(table,),
            notes=("First note.", "Second <note>."),
        )
    )
    tags = Tags(text)
    order = [
        "Report: 10 samples", "Worst group", "g0, 10", "Who pays", "Pairs & more", "Rate by g",
        "Summary", "Notes", "First note.", "Second <note>.",
    ]  # fmt: skip
    places = [tags.text.index(words) for words in order]
    assert places == sorted(places)
    assert text.count("<small><bdi>g1</bdi> against <bdi>g0</bdi></small>") == 2
    assert tags.text.count("Pairs & more") == 6  # three headings and three captions
    assert tags.text.count("Hm.") == 3
    labels = [attrs["aria-label"] for tag, attrs in tags.tags if "tabindex" in attrs]
    assert len(labels) == len(set(labels)) == 6
    assert [tag for tag, _ in tags.tags].count("details") == 4
    opened = [name for _, attrs in tags.tags for name in attrs if name == "open"]
    assert opened == ["open"]  # what was asked for, a reference, is seen at once


def test_the_page_says_nothing_twice():
    text = page(make_view(make_section([(1,)])), "Report")
    assert "<h1>Report</h1>" in text
    assert '<p class="n">10 samples</p>' in text
    assert "<dl>" not in text
    assert "Brackets" not in text  # no intervals
    assert "Brackets" in page(make_view(make_section([(1, 0, 2)])), "Report")


def test_words_from_right_to_left_are_isolated_in_sentences():
    verdict = (("Worst group", "مصر العربية, 12: 61.2 [57.0, 65.2]; was עברית"),)
    text = body(make_view(make_section([(1,)]), verdict=verdict, notes=("a\u202eb",)))
    assert (
        "<dd><bdi>مصر العربية</bdi>, 12: 61.2 <i>[57.0, 65.2]</i>; was <bdi>עברית</bdi></dd>"
        in text
    )
    assert "\u202e" not in text
    assert "a\\u202eb" in text


def test_ids_follow_from_the_report():
    one, other = (make_view(make_section([(value,)])) for value in (0.1, 0.2))
    assert body(one) == body(make_view(make_section([(0.1,)])))
    ids = [set(re.findall(r' id="(.*?)"', body(view))) for view in (one, other)]
    assert len(ids[0]) == 2
    assert not ids[0] & ids[1]
