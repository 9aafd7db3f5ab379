"""Stored results of benchmarks: complete, shown in the documentation, and what its texts say."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skfair

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text(encoding="utf-8")
    for folder in ("user_guide", "benchmarks", "papers", ".")
    for path in sorted((ROOT / "docs" / folder).glob("**/*.rst" if folder != "." else "*.rst"))
}
STORED = sorted(path.stem for path in (ROOT / "docs" / "results").glob("*.json"))


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._results")


@pytest.fixture
def dots(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._dots")


@pytest.fixture
def stored(results, tmp_path, monkeypatch):
    """Two small tables, in place of the stored ones."""
    table = {
        "title": "Speed, 3 draws",
        "columns": ["method", "``worst`` group", "seconds"],
        "rows": [
            ["``Ours``", "48.7 ± 6.1 / 64.2 ± 1.8", "1,035 (0.95 to 1.05)"],
            ["**theirs**, 50 %", "-0.053", "-"],
        ],
        "below": "The goal was **missed**.\n",
    }
    result = {
        "command": "python -m benchmarks speed --data PATH",
        "versions": {"python": "3.12.1", "numpy": "2.3"},
        "seeds": "0 to 2",
        "machine": {"cores": 2, "processor": "x86_64", "system": "Linux"},
        "tables": [table, {**table, "title": "Speed, 4 draws"}],
    }
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "speed.json").write_text(json.dumps(result))
    return result


def test_there_are_results_and_pages():
    assert len(STORED) >= 50
    assert "benchmarks.rst" in PAGES


@pytest.mark.parametrize("name", STORED)
def test_a_stored_result_is_complete_and_shown(results, name):
    results.check(results.load(name))
    assert any(name in results.directives(page) for page in PAGES.values())


@pytest.mark.parametrize("page", PAGES)
def test_pages_agree_with_results(results, dots, page):
    for name in results.directives(PAGES[page]):
        results.load(name)
    for content in results.roles(PAGES[page]):
        results.role(content)
    plots = re.findall(r"^( *)\.\. dots:: (.*)\n((?:\n|\1 +.*\n)*)", PAGES[page], re.MULTILINE)
    assert len(plots) == PAGES[page].count(".. dots::")
    for _, title, content in plots:
        rows = dots.parse(title, content.splitlines()).readings()
        assert all(sum(found is not None for found in row) >= 2 for row in rows)


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_traced_or_marked(results, page):
    found = results.untraced(PAGES[page])
    assert not found, "write these as :cell:, :given: or literals: docs/developers/add_a_benchmark"


def test_the_readme_has_no_measured_numbers(results):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    for given in (  # versions, levels of intervals and tests, and what was set
        "Python 3.11",
        f"version {skfair.__version__}",
        "95 % intervals",
        "at most 5 %",
        "With 5 % wrong",
        "confidence of 80 %",
        "right in 80 %",
    ):
        assert given in text
        text = text.replace(given, "")
    assert not results.untraced(text)


def test_numbers_that_look_measured_are_found(results):
    page = """Of 3 draws, 12 % failed. It took 3.2 s and 96 MiB, 1.4 times as long,
with -.87 ± .02, and held in 7 of 8 draws.

.. list-table::

   * - 0.5
     - 1,200 points

.. code-block:: python

    share = 0.5

.. result:: my_speed

See section 2, :math:`\\alpha = .05`, ``epsilon=0.05``, Python 3.11.2, :doc:`x 9 <a/0.5>`,
:given:`95 %` and :cell:`1.2 <my_speed | 0.3 | seconds>`. All 400 images of 2026.
"""
    assert results.untraced(page) == [
        (1, "12"), (1, "3.2"), (1, "96"), (1, "1.4"),
        (2, "-.87"), (2, ".02"), (2, "7"), (6, "0.5"), (7, "1,200"),
    ]  # fmt: skip


def test_stored_results_name_no_path_of_a_machine():
    for path in (ROOT / "docs" / "results").glob("*.json"):
        assert not re.search(r"(?<![\w/])/(home|root|tmp|mnt|Users)\b", path.read_text())


def test_the_fields_are_checked(results, stored):
    results.check(stored)
    for wrong in (
        {**stored, "command": ""},
        {**stored, "machine": "a laptop"},
        {**stored, "tables": []},
        {key: value for key, value in stored.items() if key != "seeds"},
        {**stored, "tables": [{**stored["tables"][0], "rows": [["one cell"]]}]},
        {**stored, "tables": [{**stored["tables"][0], "rows": [["Ours", "1", 2.0]]}]},
    ):
        with pytest.raises(ValueError, match=r"field|expected|row"):
            results.check(wrong)
    row = ["Ours, ``bias_interval_``", *stored["tables"][0]["rows"][0][1:]]
    results.check({**stored, "tables": [{**stored["tables"][0], "rows": [row]}]})
    row[0] = "Ours, bias_interval_"
    with pytest.raises(ValueError, match=r"refers to a link; write ``bias_interval_``"):
        results.check({**stored, "tables": [{**stored["tables"][0], "rows": [row]}]})


def test_tables_become_rst_with_their_source(results, stored):
    text = results.as_rst(stored)
    assert ".. list-table:: Speed, 3 draws\n   :class: result\n" in text
    assert "   :header-rows: 1\n\n   * - method\n" in text
    row = "   * - **theirs**, 50 %\n     - -0.053\n     - \\-\n"
    assert f"{row}\nThe goal was **missed**.\n" in text
    source = "Seeds: 0 to 2. python 3.12.1, numpy 2.3. 2 cores, x86_64, Linux."
    assert f"Command: ``python -m benchmarks speed --data PATH``. {source}\n" in text
    unknown = results.as_rst({**stored, "versions": "not recorded", "machine": "not recorded"})
    assert "Seeds: 0 to 2. Not recorded: versions, machine." in unknown


def test_a_cell_is_found_by_texts_of_its_row(results, stored):
    address = "speed | Speed, 4 draws | theirs, 50 % | worst group"
    assert results.cell(address) == "-0.053"
    for wrong, message in {
        "speed | theirs, 50 % | worst group": "2 rows",  # in both tables
        "speed | Speed, 3 draws | theirs | worst group": "0 rows",  # a part of a cell
        "speed | Speed, 3 draws | Ours | worst": "0 rows",
        "quick | Speed, 3 draws | Ours | worst group": "no quick.json",
    }.items():
        with pytest.raises(LookupError, match=message):
            results.cell(wrong)


@pytest.mark.parametrize(
    "value, cell, agrees",
    [
        ("48.7", "48.7 ± 6.1 / 64.2 ± 1.8", True),
        ("49", "48.7 ± 6.1 / 64.2 ± 1.8", True),
        ("64.2", "48.7 ± 6.1 / 64.2 ± 1.8", True),
        ("6.1", "48.7 ± 6.1 / 64.2 ± 1.8", False),  # the spread
        ("48.7 ± 6.1", "48.7 ± 6.1 / 64.2 ± 1.8", True),
        ("48.7 ± 6.2", "48.7 ± 6.1 / 64.2 ± 1.8", False),
        ("48", "48.7 ± 6.1", False),
        ("48.70", "48.7 ± 6.1", True),
        ("48.74", "48.7 ± 6.1", False),  # more digits than were stored
        (".05", "0.053", True),
        ("-.05", "-0.053", True),
        ("\N{MINUS SIGN}.05", "-0.053", True),
        (".05", "-0.053", False),
        ("13.2 points", "+13.2 (10 tasks)", True),
        ("1,035", "1,035", True),
        ("1035", "1,035", True),
        ("35", "1,035", False),
        ("60 % and 70 %", "70 % (60 % before)", True),
        ("18", "ResNet18", False),
        ("missed", "**missed**", True),
        ("met", "**missed**", False),
    ],
)
def test_a_number_agrees_with_a_cell_as_far_as_it_is_written_out(results, value, cell, agrees):
    assert results.shows(value, cell) == agrees


def test_a_role_tells_what_is_wrong(results, stored):
    source = "It is :cell:`48.7\n<speed | Speed, 3 draws | Ours | worst group>` points."
    (content,) = results.roles(source)
    assert results.role(content)[0] == "48.7"
    with pytest.raises(LookupError, match=r"says '48\.6', and the cell .* is '48\.7 ± 6\.1"):
        results.role(content.replace("48.7", "48.6"))
    with pytest.raises(LookupError, match="not of the form"):
        results.role("48.7")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("48.7 ± 6.1 / 64.2 ± 1.8", (48.7, 42.6, 54.8)),
        ("0.96 (0.95 to 1.05)", (0.96, 0.95, 1.05)),
        ("-0.053", (-0.053, -0.053, -0.053)),
        ("-", None),
    ],
)
def test_values_and_intervals_of_cells(results, text, expected):
    assert results.reading(text) == (expected if expected is None else pytest.approx(expected))


def test_a_plot_has_each_value_where_the_axis_says(dots, stored):
    lines = [
        "* ours <Ours>",
        "",
        "* theirs <theirs, 50 %>",
        "a & b <speed | Speed, 3 draws | {} | worst group>",
    ]
    plot = dots.parse("Worst group", lines)
    assert [name for name, _ in plot.series] == ["ours", "theirs"]
    assert plot.readings() == [[pytest.approx((48.7, 42.6, 54.8)), (-0.053,) * 3]]
    drawn = dots.svg(plot)
    assert 'aria-label="Worst group. a &amp; b, ours: 48.7; a &amp; b, theirs: -0.053."' in drawn
    # The interval is as long, compared with a step of the axis, as its numbers are.
    at = {
        text: float(x) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*middle">([^<]*)', drawn)
    }
    low, high = map(
        float, re.search(r'M([\d.]+) [\d.]+H([\d.]+)" stroke="currentColor', drawn).groups()
    )
    step = (at["40"] - at["0"]) / 40
    assert (high - low) / step == pytest.approx(12.2, abs=0.1)
    assert (low - at["0"]) / step == pytest.approx(42.6, abs=0.1)


@pytest.mark.parametrize(
    "low, high, expected",
    [(25, 78, [20, 40, 60, 80]), (-0.33, 0.33, [-0.4, -0.2, 0, 0.2, 0.4]), (1, 1, [1, 2])],
)
def test_ticks_are_round_and_enclose_the_values(dots, low, high, expected):
    found = dots.ticks(low, high)
    assert found == pytest.approx(expected)


def test_a_plot_needs_series_and_rows(dots):
    with pytest.raises(ValueError, match="not of the form"):
        dots.parse("Title", ["* ours"])
    with pytest.raises(ValueError, match="needs rows"):
        dots.parse("Title", ["* ours <Ours>"])


def test_publishing_stores_what_a_page_can_show(results, tmp_path, monkeypatch, capsys):
    tables = importlib.import_module("benchmarks._tables")
    folder = tmp_path / "new"
    monkeypatch.setattr(
        sys, "argv", ["python -m benchmarks speed", "--data", "/a/b", "--write", str(folder)]
    )
    table = tables.Table("Speed", ["method", "seconds"], [["ours", "1.0"]])
    tables.publish(None, "speed", table, seeds="0")
    assert "ours    1.0" in capsys.readouterr().out
    tables.publish(folder, "speed", table, seeds=tables.spelled(range(3)))
    monkeypatch.setattr(results, "RESULTS", folder)
    result = results.load("speed")
    results.check(result)
    assert result["command"] == "python -m benchmarks speed --data PATH --write PATH"
    assert result["seeds"] == "0 to 2"
    assert {"python", "skfair", "numpy", "torch"} <= set(result["versions"])
    assert results.cell("speed | ours | seconds") == "1.0"


def test_the_entry_lists_the_benchmarks_and_runs_one():
    def run(*arguments):
        command = [sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    listed = run()
    names = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")}
    assert listed.returncode == 0
    assert names <= set(re.findall(r"^  (\w+) +\S", listed.stdout, re.MULTILINE))
    unknown = run("no_such")
    assert unknown.returncode == 2
    assert "NAME is 'no_such', expected one of certificate," in unknown.stderr
    helped = run("certificate", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "python -m benchmarks certificate" in helped.stdout
    assert "--repetitions" in helped.stdout
