"""The report in HTML in a real browser: seen, printed, sorted, filtered, downloaded."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from collections import Counter

import pytest
from reports_to_show import HOSTILE, make_report

from skfair.utils._shown import plain

CASES = [(2, 1), (12, 2), (60, 2), (60, 6), (400, 2)]
OPEN_ALL = "document.querySelectorAll('details').forEach(part => { part.open = true; })"


def _sideways(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def _labels(table):
    """The labels of the groups that a table shows, from top to bottom."""
    rows = table.locator("tbody").first.locator("tr:visible > th")
    return rows.all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("n_groups, n_models", CASES)
def test_everything_fits(open_page, n_groups, n_models, width, scheme):
    report = make_report(n_groups, n_models)
    page = open_page(report, width, scheme)
    assert _sideways(page) <= 0
    first = page.locator("table.m").first
    assert first.is_visible()
    assert len(_labels(first)) == len(report.by_group) == 2 * n_groups - 1
    dots = first.locator("tbody path")
    assert dots.count() == n_models * (2 * n_groups - 1)
    assert first.locator("tbody svg").first.is_visible()
    page.evaluate(OPEN_ALL)
    assert page.locator("table:visible").count() == page.locator("table").count() >= 6
    assert _sideways(page) <= 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", paper)[:3])) < 3 * 128
    assert dark == (scheme == "dark")
    # The column of labels stays in place when a reader scrolls to the last column.
    label = first.locator("tbody th").first
    scroller = page.locator(".s").filter(has=first).first
    before = label.bounding_box()["x"]
    scroller.evaluate("element => { element.scrollLeft = 9999; }")
    assert label.bounding_box()["x"] == pytest.approx(before, abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("n_models", [2, 6])
def test_accessible(open_page, n_models, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="test-browser")
    report = make_report(12, 2, hostile=True) if n_models == 2 else make_report(12, 6)
    page = open_page(report, width, scheme)
    page.evaluate(OPEN_ALL)
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in found] == []
    charts = page.locator("svg[role=img]")
    assert charts.count() == page.locator("table.m").count() == 5
    assert all("interval" in text for text in charts.locator("title").all_text_contents())


def _contrast(one, other):
    """Contrast of two colours, as WCAG 2 defines it."""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_models_differ_in_shape_and_colour(open_page, scheme):
    page = open_page(make_report(12, 6), scheme=scheme)
    row = page.locator("table.m").first.locator("tbody tr").first
    styles = row.locator("path").evaluate_all(
        "paths => paths.map(p => [getComputedStyle(p).stroke, getComputedStyle(p).markerMid])"
    )
    assert len({stroke for stroke, _ in styles}) == len({marker for _, marker in styles}) == 6
    shapes = page.locator("marker").evaluate_all("all => all.map(marker => marker.innerHTML)")
    assert len(set(shapes)) == 6
    for paper in ("--paper", "--tint"):  # the latter below the pointer and in the rows of totals
        background = page.evaluate(
            f"""() => {{ const e = document.querySelector("dl");
            e.style.background = "var({paper})"; return getComputedStyle(e).backgroundColor; }}"""
        )
        assert min(_contrast(stroke, background) for stroke, _ in styles) >= 3


def test_readable_without_scripts(open_page):
    page = open_page(make_report(12), scripts=False)
    assert page.locator("button, input").count() == 0
    assert page.locator("table.m").first.is_visible()
    second = page.locator("table.m").nth(1)
    assert not second.is_visible()
    page.locator("summary").first.click()
    assert second.is_visible()
    assert second.locator("tbody svg").first.is_visible()


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("n_models, hostile", [(2, False), (6, False), (2, True)])
def test_print_loses_nothing(open_page, tmp_path, n_models, hostile, scripts):
    page = open_page(make_report(12, n_models, hostile), scripts=scripts)
    words = " ".join(page.locator("tr > :not(.a)").all_text_contents()).split()
    numbers = Counter(word for word in words if re.fullmatch(r"[-+\[]*\d+\.\d+[],]?", word))
    letters = Counter(letter for word in words for letter in word if letter.isascii())
    assert numbers.total() > 500
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True, print_background=False)
    if shutil.which("pdftotext") is None:
        pytest.skip("reading what was printed needs pdftotext")
    subprocess.run(["pdftotext", "-bbox", "report.pdf", "words.html"], cwd=tmp_path, check=True)
    text = (tmp_path / "words.html").read_text(encoding="utf-8")
    seen = Counter()
    for part in text.split("<page ")[1:]:
        width, height = map(float, re.findall(r'(?:width|height)="([\d.]+)"', part)[:2])
        assert width > height
        for *box, word in re.findall(
            r'<word xMin="(.+)" yMin="(.+)" xMax="(.+)" yMax="(.+)">(.*)</word>', part
        ):
            left, top, right, bottom = map(float, box)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            seen[html.unescape(word)] += 1
    # A long name may be broken into lines, a number may not.
    assert numbers - seen == Counter()
    assert letters - Counter("".join(seen.elements())) == Counter()


def test_print_is_dark_on_white(open_page):
    page = open_page(make_report(12), scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.querySelector('td')).color")
    assert _contrast(paper, ink) > 7


def test_hostile_names_are_text(open_page):
    page = open_page(make_report(12, hostile=True))
    page.evaluate(OPEN_ALL)
    assert page.evaluate("typeof hit") == "undefined"
    labels = page.locator("table.m").nth(1).locator("tbody").first.locator("th bdi")
    assert sorted(labels.all_text_contents()) == sorted(map(plain, HOSTILE))
    assert page.locator("main b:not(caption b), main script").count() == 0
    # A name from right to left leaves the numbers in their cells, and the cells in their order.
    row = page.locator("table.m").nth(1).locator("tr").filter(has_text="עברית").last
    boxes = [cell.bounding_box()["x"] for cell in row.locator("td").all()]
    assert boxes == sorted(boxes)


def test_sorting(open_page):
    report = make_report(12)
    page = open_page(report)
    page.evaluate(OPEN_ALL)
    rates = report.by_feature.loc["true_positive_rate", ("old", "value")].round(3)
    table = page.locator("table.m").filter(has=page.locator("caption", has_text="True positive"))
    button = table.locator("thead button").nth(2)
    head = table.locator("thead th").nth(2)
    values = dict(rates)
    undefined = next(group for group, value in values.items() if value != value)
    for direction in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        *shown, last = _labels(table)
        assert last == undefined  # a group without a value is never at the top
        numbers = [values[group] for group in shown]
        assert numbers == sorted(numbers, reverse=direction == "descending")
        assert len(numbers) == 11
    table.locator("thead button").first.click()
    assert head.get_attribute("aria-sort") is None
    assert _labels(table) == sorted(_labels(table))
    totals = table.locator("tbody").nth(1).locator("th").all_inner_texts()
    assert totals == ["overall", "difference", "ratio"]


def test_filter(open_page):
    page = open_page(make_report(12))
    box = page.get_by_label("Show groups with")
    box.fill("NORTH girls")
    assert {label.split(", ")[1] for label in _labels(page.locator("table.m").first)} == {
        "north girls 0"
    }
    assert page.get_by_role("status").inner_text() == "2 of 23 rows in the first table"
    page.evaluate(OPEN_ALL)
    assert _labels(page.locator("table.m").nth(1)) == ["north girls 0"]
    box.fill("")
    assert len(_labels(page.locator("table.m").first)) == 23
    assert page.get_by_role("status").inner_text() == ""


def _download(page, button):
    with page.expect_download() as event:
        button.click()
    with open(event.value.path(), encoding="utf-8-sig", newline="") as file:
        return event.value.suggested_filename, file.read()


@pytest.mark.parametrize("hostile", [False, True])
def test_downloads(open_page, hostile):
    report = make_report(12, hostile=hostile)
    page = open_page(report)
    page.evaluate(OPEN_ALL)
    name, text = _download(page, page.get_by_role("button", name="JSON"))
    assert name == "fairness-report.json"
    tables = json.loads(text)
    old, new = (plain(model) for model in report.counts.models)
    assert len(tables) == 5
    assert tables[0]["columns"][:6] == [
        "class", plain(report.counts.group_names[0]), "count", old, f"{old} low", f"{old} high",
    ]  # fmt: skip
    number = next(i for i, table in enumerate(tables) if table["table"].startswith("True pos"))
    columns, rows = tables[number]["columns"], tables[number]["rows"]
    assert tables[number]["unit"] == "percent"
    rates = report.by_feature.loc["true_positive_rate"]
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    for group, values in rates.iterrows():
        expected = [100 * values[old_or_new] for old_or_new in _keys(report)]
        names = [old, f"{old} low", f"{old} high", new, f"{new} change", f"{new} change high"]
        got = [found[plain(group)][name] for name in names]
        if all(value != value for value in expected):
            assert got == [None] * 6
        else:
            assert got == pytest.approx(expected, abs=0.0501)
    assert {"overall", "difference", "ratio"} <= set(found)

    button = page.get_by_role("button", name="CSV").nth(number)
    name, text = _download(page, button)
    assert name == f"fairness-report-{number + 1}.csv"
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == columns
    assert len(lines) == 1 + len(rows)
    for line, row in zip(lines[1:], rows, strict=True):
        label = row[0]
        assert line[0] == ("'" + label if label in ("=1+1", "@sum") else label)
        for cell, value in zip(line[1:], row[1:], strict=True):
            assert cell == "" if value is None else cell == value or float(cell) == value


def _keys(report):
    old, new = report.counts.models
    return [
        *((old, part) for part in ("value", "low", "high")),
        *((new, part) for part in ("value", "change", "change_high")),
    ]


def test_hover(open_page):
    report = make_report(12)
    page = open_page(report)
    row = page.locator("table.m").first.locator("tbody tr").first
    cell = row.locator("td").nth(1)
    cell.hover()
    lines = cell.get_attribute("title").split("\n")
    texts = [text for text in row.locator("> *").all_inner_texts() if text]
    heads = ["count", "old", "new", "new change"]
    assert lines == [texts[0], *(f"{h}: {t}" for h, t in zip(heads, texts[1:], strict=True))]


def test_keyboard_reaches_every_table(open_page):
    page = open_page(make_report(12, 6), 390)
    page.evaluate(OPEN_ALL)
    reached, n_tables = [], page.locator("table").count()
    for _ in range(300):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
        if reached[-1] and len(set(filter(None, reached))) == 1 and len(reached) < 50:
            page.keyboard.press("ArrowRight")
    assert len(set(filter(None, reached))) == n_tables
    page.wait_for_function("document.querySelector('.s').scrollLeft > 0", timeout=3000)


def test_two_reports_in_a_notebook(browser):
    bodies = [make_report(n)._repr_html_() for n in (2, 12)]
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    outside = "<p id='p'>a <table id='t'><tr><td>b</td></tr></table></p><dl id='d'><dt>c</dl>"
    style = """() => ["p", "t", "d"].map(id => JSON.stringify(
        Object.fromEntries([...getComputedStyle(document.getElementById(id))].map(
        name => [name, getComputedStyle(document.getElementById(id))[name]]))))"""
    shell = "<!DOCTYPE html><body {}><div>{}</div>{}"
    page.set_content(shell.format("", outside, ""))
    alone = page.evaluate(style)
    for theme in ("data-jp-theme-light=false", "class=vscode-dark", "data-jp-theme-light=true"):
        page.set_content(shell.format(theme, outside, "".join(bodies)))
        assert page.evaluate(style) == alone
        ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
        assert len(ids) == len(set(ids))
        ink = page.locator(".skfair-report").first.evaluate("e => getComputedStyle(e).color")
        dark = sum(map(int, re.findall(r"\d+", ink)[:3])) > 3 * 128
        assert dark == (not theme.endswith("true"))
        assert page.get_by_label("Show groups with").count() == 2
    page.get_by_label("Show groups with").first.fill("zzz")
    assert _labels(page.locator("table.m").first) == []
    assert len(_labels(page.locator(".skfair-report").nth(1).locator("table.m").first)) == 23
    context.close()
