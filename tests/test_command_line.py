"""The command line: files of strangers, exit codes, and messages that say where the mistake is."""

import gzip
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from skfair._command_line import _open as opening
from skfair._command_line import main
from skfair._command_line._parser import parse
from skfair.metrics import FairnessReport, FairnessRule, fairness_report

ROOT = Path(__file__).parents[1]
CSV = """\
id,y,old,new,sex,region,w
001,1,1,1,f,007,1
002,0,1,0,f,NA,2
003,1,0,1,m,7,1
004,0,0,0,m,NA,0.5
"""
COLUMNS = ["--y-true", "y", "--y-pred", "new", "--groups", "sex"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made(monkeypatch):
    """The reports that commands make."""
    reports = []
    from_counts = FairnessReport.from_counts.__func__

    def keep(cls, *arguments, **settings):
        reports.append(from_counts(cls, *arguments, **settings))
        return reports[-1]

    monkeypatch.setattr(FairnessReport, "from_counts", classmethod(keep))
    return reports


def write(content, name="p.csv", encoding="utf-8"):
    data = content if isinstance(content, bytes) else content.encode(encoding)
    Path(name).write_bytes(data)
    return name


def run(capsys, *arguments):
    """Run a command that succeeds; return what it printed."""
    assert main([str(argument) for argument in arguments]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return output


def fail(capsys, *arguments):
    """Run a command with a mistake; return its one line."""
    assert main([str(argument) for argument in arguments]) == 3
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("python -m skfair: error: ")
    assert errors.count("\n") == 1
    return errors


def accuracy(report, model="new"):
    return report.summary.loc["overall_accuracy", model]


def test_the_report_is_that_of_the_same_arrays(capsys, made):
    printed = run(
        capsys, "report", write(CSV), *COLUMNS, "--y-pred", "old", "--weight", "w",
        "--control", "region",
    )  # fmt: skip
    expected = fairness_report(
        [1, 0, 1, 0],
        {"new": [1, 0, 1, 0], "old": [1, 1, 0, 0]},
        sensitive_features={"sex": [*"ffmm"]},
        control_features={"region": ["007", "NA", "7", "NA"]},
        sample_weight=[1, 2, 1, 0.5],
    )
    report = made[0]
    pd.testing.assert_frame_equal(report.by_feature, expected.by_feature)
    pd.testing.assert_frame_equal(report.disparities, expected.disparities)
    assert printed == f"{expected}\n"


@pytest.mark.parametrize(
    "name, separator",
    [("p.csv", ","), ("p.CSV", ","), ("p.txt", ","), ("p.tsv", "\t"), ("p.csv.gz", ",")],
)
def test_text_files(capsys, made, name, separator):
    content = CSV.replace(",", separator).encode()
    write(gzip.compress(content) if name.endswith(".gz") else content, name)
    run(capsys, "report", name, *COLUMNS)
    assert accuracy(made[0]) == 1


@pytest.mark.parametrize("typed, separator", [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("|", "|")])
def test_separators(capsys, made, typed, separator):
    run(capsys, "report", write(CSV.replace(",", separator)), *COLUMNS, "--separator", typed)
    assert accuracy(made[0]) == 1


@pytest.mark.parametrize(
    "written, given",
    [
        ("utf-8-sig", None),
        ("utf-8-sig", "UTF8"),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
    ],
)
def test_encodings(capsys, made, written, given):
    content = CSV.replace("id,y", "y").replace("00", "").replace("f,", "ü,")
    content = "\n".join(line.split(",", 1)[1] if i else line for i, line in
                        enumerate(content.splitlines()))  # fmt: skip
    option = [] if given is None else ["--encoding", given]
    run(capsys, "report", write(content, encoding=written), *COLUMNS, *option)
    assert made[0].counts.groups == ("m", "ü")
    assert accuracy(made[0]) == 1


def test_standard_input(capsys, made, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(CSV.encode())))
    run(capsys, "report", "-", *COLUMNS)
    assert accuracy(made[0]) == 1


def test_json_lines(capsys, made):
    lines = [
        {"y": 1, "new": True, "sex": "f"},
        {"y": 0, "new": 0.0, "sex": "NA"},
        {"new": "1", "y": "1", "sex": 1, "more": {"nested": [1]}},
        {"y": False, "new": 0, "sex": "1"},
    ]
    text = "\n\n".join(map(json.dumps, lines))
    for name in ("p.jsonl", "p.ndjson", "p.json"):
        run(capsys, "report", write(text, name), *COLUMNS)
        report = made.pop()
        assert accuracy(report) == 1
        assert report.counts.classes == (0, 1)
        assert set(report.counts.groups) == {"f", "NA", 1, "1"}


def test_missing_groups_of_json_lines(capsys, made):
    lines = [
        '{"y": 1, "new": 1, "sex": null}',
        '{"y": 0, "new": 0}',
        '{"y": 0, "new": 1, "sex": "f"}',
    ]
    name = write("\n".join(lines), "p.jsonl")
    message = fail(capsys, "report", name, *COLUMNS)
    assert "p.jsonl, column 'sex', line 1: the value is missing, as in 2 rows in all" in message
    run(capsys, "report", name, *COLUMNS, "--missing", "group")
    assert sorted(made[0].by_feature.loc["accuracy"][("", "count")]) == [1, 2]


def test_parquet(capsys, made):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "y": pd.array([1, 0, 1, 0], dtype="Int64"),
            "new": [1.0, 0.0, 0.0, 0.0],
            "sex": pd.Categorical(["f", "f", "m", "m"]),
            "a.b": ["x", None, "x", "y"],
            "nested": [[1], [2], [3], [4]],
            "money": [Decimal("1.0"), Decimal("0.0"), Decimal("1.0"), Decimal("0.0")],
        }
    )
    frame.to_parquet("p.parquet", row_group_size=2)
    both = ["--groups", "sex", "--y-true", "y", "--y-pred", "new"]
    run(capsys, "report", "p.parquet", *both, "--y-pred", "money")
    assert accuracy(made[0]) == 0.75
    assert accuracy(made[0], "money") == 1
    message = fail(capsys, "report", "p.parquet", *both, "--control", "a.b")
    assert "p.parquet, column 'a.b', row 2: the value is missing." in message
    message = fail(capsys, "report", "p.parquet", *both, "--control", "nested")
    assert "p.parquet, column 'nested': the values are nested (list" in message
    os.rename("p.parquet", "p.data")
    assert "does not tell the format" in fail(capsys, "report", "p.data", *both)
    run(capsys, "report", "p.data", *both, "--format", "parquet")
    assert "is a parquet file. Give --format parquet" in fail(
        capsys, "report", "p.data", *both, "--format", "csv"
    )
    assert "cannot be read from the standard input" in fail(
        capsys, "report", "-", *both, "--format", "parquet"
    )
    write(CSV, "p.parquet")
    assert "p.parquet cannot be read as a parquet file" in fail(
        capsys, "report", "p.parquet", *COLUMNS
    )


def test_parquet_without_pyarrow(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = fail(capsys, "report", write(CSV, "p.parquet"), *COLUMNS)
    assert "needs the package 'pyarrow'" in message
    assert 'pip install "skfair-debias[parquet]"' in message


@pytest.mark.parametrize(
    "true, predicted, classes",
    [
        (["0", "1", "1"], ["0.0", "1.0", "1"], (0, 1)),
        (["0", "1", "1"], ["False", "TRUE", " 1"], (0, 1)),
        (["True", "False", "True"], ["true", "FALSE", "TRUE"], (False, True)),
        (["-1", "1", "+1"], ["-1", "1e0", "1."], (-1, 1)),
        (["007", "7", "10"], ["7", "07", "10"], (7, 10)),
        (["01", "2", "other"], ["1.0", "02", "other"], ("01", "2", "other")),
        (["NA", "a", "b"], ["NA", "a", "b"], ("NA", "a", "b")),
        (["1.5 mm", "2", "a"], ["1.5 mm", "2", "a"], ("1.5 mm", "2", "a")),
    ],
)
def test_equal_labels_agree(capsys, made, true, predicted, classes):
    rows = [f"{y},{p},{g}" for y, p, g in zip(true, predicted, "abc", strict=True)]
    run(capsys, "report", write("\n".join(["y,new,sex", *rows])), *COLUMNS)
    assert accuracy(made[0]) == 1
    assert made[0].counts.classes == classes
    assert [type(label) for label in made[0].counts.classes] == [type(c) for c in classes]


def test_groups_stay_text_and_only_empty_is_missing(capsys, made):
    names = ["NA", "None", "null", "nan", "007", "7", "1.0", "1", "-", " "]
    content = "\n".join(["y,new,sex", *(f"1,1,{name}" for name in names)])
    run(capsys, "report", write(content), *COLUMNS)
    assert set(made[0].counts.groups) == set(names)
    message = fail(capsys, "report", write(content + "\n0,1,\n0,1,\n"), *COLUMNS)
    assert "p.csv, column 'sex', line 12: the value is missing, as in 2 rows in all" in message
    assert "--missing group" in message
    run(capsys, "report", "p.csv", *COLUMNS, "--missing", "group")
    assert len(made[-1].counts.groups) == len(names) + 1


def test_many_numbers_are_no_groups(capsys, made):
    def content(names):
        return "\n".join(["y,new,sex", *(f"1,1,{name}" for name in names)])

    message = fail(capsys, "report", write(content(range(19, 75))), *COLUMNS)
    assert "p.csv, column 'sex': the values are 56 different numbers, from 19 to 74." in message
    assert "Bin the values first" in message
    assert "'clinic 12'" in message
    names = [[*range(30)], [f"{i:05}" for i in range(56)], [*range(56), "old"]]
    for few_or_no_numbers in names:
        run(capsys, "report", write(content(few_or_no_numbers)), *COLUMNS)
        assert len(made[-1].counts.groups) == len(few_or_no_numbers)


def test_positive_label_and_metrics(capsys, made):
    name = write(CSV.replace("1,1,1,f", "yes,yes,yes,f").replace("1,0,1,m", "yes,0,yes,m"))
    metrics = ["--metrics", "selection_rate, precision"]
    message = fail(capsys, "report", name, *COLUMNS, *metrics)
    assert "--pos-label=" in message
    run(capsys, "report", name, *COLUMNS, *metrics, "--pos-label", "yes")
    frame = made[0].by_feature["new", "value"]
    assert frame["selection_rate"].tolist() == [0.5, 0.5]
    assert frame["precision"].tolist() == [1, 1]
    run(capsys, "report", name, *COLUMNS, *metrics, "--pos-label", "0.0")
    assert made[1].disparities.loc[("selection_rate", "overall"), ("new", "value")] == 0.5
    message = fail(capsys, "report", name, *COLUMNS, "--pos-label", "no")
    assert "--pos-label 'no' does not occur; the labels are ['yes', '0']" in message
    message = fail(capsys, "report", name, *COLUMNS, "--metrics", "selectionrate")
    assert "Did you mean 'selection_rate'?" in message


def test_column_names_with_commas(capsys, made):
    name = write('y,new,"sex, at birth",sex\n1,1,f,m\n0,1,m,m\n')
    both = ["--y-true", "y", "--y-pred", "new"]
    run(capsys, "report", name, *both, "--groups", "sex, at birth")
    assert made[0].counts.group_names == ("sex, at birth",)
    run(capsys, "report", name, *both, "--groups", "sex, at birth", "--groups", "sex")
    assert made[1].counts.group_names == ("sex, at birth", "sex")
    run(capsys, "report", name, *both, "--groups", "sex , new")
    assert made[2].counts.group_names == ("sex", "new")


@pytest.mark.parametrize(
    "content, says",
    [
        ("", ["p.csv is empty"]),
        ("\n\n", ["p.csv is empty"]),
        ("y,new,sex\n", ["p.csv has columns but no rows"]),
        ("y,neu,sex\n1,1,f\n", ["no column 'new'", "--y-pred", "mean 'neu'", "'y', 'neu', 'sex'"]),
        ("y;new;sex\n1;1;f\n", ["no column 'y'", "--separator ';'"]),
        ("y\tnew\tsex\n1\t1\tf\n", ["no column 'y'", "--separator tab"]),
        ("y,new,sex,new\n1,1,f,0\n", ["2 columns 'new'", "positions 2, 4"]),
        ("y,new,sex\n1,1,f\n\n1,1\n", ["p.csv, line 4: the row has 2 fields", "header has 3"]),
        ("y,new,sex\n1,1,f\n1,1,m,x\n", ["p.csv, line 3: the row has 4 fields", "in quotes"]),
        ('y,new,sex\n1,1,"f\n1,1,m\n', ["p.csv, line 2", "never closed"]),
        ('y,new,sex\n1,1,"f"x\n', ["p.csv, line 2: the row is not CSV"]),
        ('y,new,sex\n1,1,"f\nm"\n,1,m\n', ["column 'y', line 4: the value is missing."]),
        ("y,new,sex\n1,1,f\n1,,m\n0,,m\n", ["column 'new', line 3", "as in 2 rows in all"]),
        ("y,new,sex\n1,0.7,f\n", ["column 'new', line 2: '0.7' is not a label, but a continuous"]),
        ("y,new,sex\n0.5,1,f\n", ["column 'y', line 2: '0.5' is not a label"]),
        ('y,new,sex\n1,1,f\n1,"0,7",f\n', ["column 'new', line 3: '0,7' has a decimal comma"]),
        ("y,new,sex\n1,1,2\n1,1,20\n0,1,31.5\n", ["column 'sex', line 4: '31.5' is not", "Bin"]),
        ('y,new,sex\n1,1,"31,5"\n', ["column 'sex', line 2: '31,5' has a decimal comma", "Bin"]),
        ("y,new,sex\n1,1,f\n0,NA,f\n", ["'new', line 3: 'NA'", "missing", "among numbers"]),
        ("y,new,sex\ncat,cat,f\ndog,nan,f\n", ["'new', line 3: 'nan'", "never a true label"]),
        ("y,new,sex\na,A,f\nb,B,f\n", ["No prediction of 'new' is a label of --y-true"]),
        ("y,new,sex\n1,1,f\0\n", ["p.csv, line 2: a character is NUL"]),
        (
            "y,new,sex\n1,1,ü\n".encode("latin-1"),
            ["line 2: character 5 is the byte 0xfc", "cp1252"],
        ),
        ("y,new,sex\n1,1,f\n".encode("utf-16"), ["UTF-16", "--encoding utf-16"]),
        (b"PK\x03\x04rest", ["zip archive or an Excel workbook"]),
        (b"\x1f\x8brest", ["compressed with gzip"]),
        (b"\x89PNG\r\n\x1a\n\0\0", ["p.csv, line 1: character 1 is the byte 0x89"]),
        ("[1, 2]", ["no column 'y'"]),
    ],
    ids=range(28),
)
def test_bad_csv(capsys, content, says):
    message = fail(capsys, "report", write(content), *COLUMNS)
    assert [words for words in says if words not in message] == [], message


@pytest.mark.parametrize(
    "content, says",
    [
        ("", ["p.jsonl is empty"]),
        ('{"y": 1, "new": 1, "sex": "f"}\n[1]', ["line 2: the line is not a JSON object", "jq -c"]),
        ('[\n{"y": 1}\n]', ["line 1: the line is not JSON"]),
        ('{"y": 1, "neu": 1, "sex": "f"}', ["line 1, has no column 'new'", "mean 'neu'"]),
        (r'{"y": 1, "new": 1, "sex": "\ud800"}', [r"column 'sex', line 1: '\ud800' has half of"]),
        ('{"y": 1, "new": 1, "sex": {"a": 1}}', ["column 'sex', line 1", "a nested object"]),
        ('{"y": 1, "new": [1], "sex": "f"}', ["column 'new', line 1", "a nested list"]),
        ('{"y": 1, "y": 0, "new": 1, "sex": "f"}', ["line 1: the key 'y' occurs twice"]),
        ("[" * 100_000, ["line 1", "jq -c"]),
        ('{"y": 1, "new": NaN, "sex": "f"}', ["column 'new', line 1: the value is missing"]),
        ('{"y": 1, "new": 0.5, "sex": "f"}', ["column 'new', line 1: 0.5 is not a label"]),
        ('{"y": 1, "new": 1, "sex": "f"}\n{"y" 1}', ["line 2: the line", "at character 6"]),
        ('{"y": %s, "new": 1, "sex": "f"}' % ("9" * 5000), ["line 1: the line is not JSON"]),
    ],
    ids=range(13),
)  # fmt: skip
def test_bad_json_lines(capsys, content, says):
    message = fail(capsys, "report", write(content, "p.jsonl"), *COLUMNS)
    assert [words for words in says if words not in message] == [], message


@pytest.mark.parametrize(
    "weight, says",
    [
        ("", "the value is missing"),
        ("-1", "'-1' is not a weight"),
        ("a", "'a' is not a weight"),
        ("1e999", "'1e999' is not a weight"),
        ("true", "'true' is not a weight"),
        ('"0,5"', "with a decimal point"),
    ],
)
def test_bad_weights(capsys, weight, says):
    name = write(f"y,new,sex,w\n1,1,f,1\n0,1,f,{weight}\n")
    message = fail(capsys, "report", name, *COLUMNS, "--weight", "w")
    assert "p.csv, column 'w', line 3: " in message
    assert says in message


def test_names_that_are_wanted_twice(capsys):
    name = write(CSV)
    for options, says in (
        (["--groups", "sex"], "--groups names the column 'sex' twice"),
        (["--y-pred", "new"], "--y-pred names the column 'new' twice"),
        (["--y-pred", "y"], "--y-true and --y-pred both name the column 'y'"),
        (["--control", "sex"], "--groups and --control both name the column 'sex'"),
    ):
        assert says in fail(capsys, "report", name, *COLUMNS, *options)


def test_paths_that_are_no_files(capsys, tmp_path):
    assert "does not exist" in fail(capsys, "report", "no.csv", *COLUMNS)
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in fail(capsys, "report", "folder.csv", *COLUMNS)
    assert "does not tell the format. Save an Excel workbook as CSV" in fail(
        capsys, "report", "p.xlsx", *COLUMNS
    )
    assert "is not a path" in fail(capsys, "report", "a\0.csv", *COLUMNS)
    write(gzip.compress(CSV.encode())[:-12], "p.csv.gz")
    assert "the gzip file is damaged or cut off" in fail(capsys, "report", "p.csv.gz", *COLUMNS)
    write(CSV, "p.csv.gz")
    assert "the gzip file is damaged" in fail(capsys, "report", "p.csv.gz", *COLUMNS)


def test_no_permission(capsys, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    name = write(CSV)
    monkeypatch.setattr(os, "open", refuse)
    assert "p.csv' cannot be opened: Permission denied" in fail(capsys, "report", name, *COLUMNS)


def test_long_lines(capsys, monkeypatch):
    monkeypatch.setattr(opening, "_LONGEST", 100)
    message = fail(capsys, "report", write(CSV + "0," * 60 + "\n"), *COLUMNS)
    assert "p.csv, line 6: the line is longer than 100 characters" in message


@pytest.mark.parametrize("name", ["hex", "utf-99", "undefined", "a\0b"])
def test_unknown_encodings(capsys, name):
    assert "--encoding" in fail(capsys, "report", write(CSV), *COLUMNS, "--encoding", name)


def test_options_that_do_not_fit(capsys):
    name = write(CSV)
    for options, says in (
        (["--separator", "ab"], "--separator 'ab' is not one character"),
        (["--format", "jsonl", "--separator", ";"], "--separator is for CSV"),
        (["--format", "parquet", "--encoding", "utf-8"], "--encoding is for text files"),
        (["--title", "a"], "Give --html, too"),
    ):
        assert says in fail(capsys, "report", name, *COLUMNS, *options)


def test_outputs_are_refused_before_reading(capsys, tmp_path):
    name = write(CSV)
    os.link("p.csv", "link.html")
    (tmp_path / "folder").mkdir()
    for options, says in (
        (["--html", "p.csv"], "--html 'p.csv' is the input file"),
        (["--html", "-"], "--html '-' is not a path"),
        (["--html", "link.html"], "--html 'link.html' is the input file"),
        (["--json", "no/out.json"], "the folder does not exist"),
        (["--json", "folder"], "is a folder"),
        (["--json", os.devnull], "is a device"),
        (["--html", "same", "--json", "./same"], "is also the file of --html"),
    ):
        assert says in fail(capsys, "report", name, *COLUMNS, *options)
    assert Path("p.csv").read_text() == CSV
    assert "the folder does not exist" in fail(
        capsys, "report", "unread.csv", *COLUMNS, "--html", "no/out.html"
    )


def test_html(capsys):
    run(capsys, "report", write(CSV), *COLUMNS, "--html", "out.html", "--title", "Cats & dogs")
    assert "<title>Cats &amp; dogs</title>" in Path("out.html").read_text(encoding="utf-8")
    assert sorted(os.listdir()) == ["out.html", "p.csv"]


def test_json(capsys, made):
    run(capsys, "report", write(CSV), *COLUMNS, "--json", "out.json")
    written = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert written == json.loads(made[0].to_json())
    assert written["summary"]["new"]["overall_accuracy"] == 1
    assert sorted(os.listdir()) == ["out.json", "p.csv"]


def test_card(capsys):
    pytest.importorskip("skops")
    assert run(capsys, "card", write(CSV), *COLUMNS, "-o", "card.md") == ""
    assert Path("card.md").read_text(encoding="utf-8").startswith("# Fairness")
    assert sorted(os.listdir()) == ["card.md", "p.csv"]


def test_names_of_strangers_never_reach_the_terminal_raw(capsys):
    escape = "\x1b[2J"
    header = f"y,new{escape},sex{escape}"
    name = write(f"{header}\n1,1,f{escape}\n0,1,m\u202e\n", f"p{escape}.csv")
    printed = run(
        capsys, "report", name, "--y-true", "y", "--y-pred", f"new{escape}", "--groups",
        f"sex{escape}",
    )  # fmt: skip
    assert "\\x1b[2J" in printed
    assert not set(printed) & {"\x1b", "\u202e"}
    for options in (COLUMNS, [*COLUMNS, "--rows", escape], ["--y-true", f"x{escape}"]):
        try:
            code = main(["report", name, *options])
        except SystemExit as error:
            code = error.code
        errors = capsys.readouterr().err
        assert code == 3
        assert "\x1b" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rapport"],
        ["report"],
        ["report", "p.csv", "--y-true", "y"],
        ["report", "p.csv", *COLUMNS, "--missing", "drop"],
        ["check", "p.csv", *COLUMNS],
        ["check", "p.csv", *COLUMNS, "--rule", "min(accuracy) >= 0.5", "--confidence", "high"],
        ["card", "p.csv", *COLUMNS],
    ],
    ids=range(8),
)
def test_usage_mistakes_exit_with_3(capsys, arguments):
    with pytest.raises(SystemExit, match="3"):
        main(arguments)
    output, errors = capsys.readouterr()
    assert output == ""
    assert "error: " in errors
    assert errors.count("\n") == 1
    assert "--help" in errors


@pytest.mark.parametrize("command", [[], ["report"], ["check"], ["card"]])
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert "python -m skfair " in capsys.readouterr().out


def test_faults_do_not_look_like_a_failed_check(capsys, monkeypatch):
    def fault(*_, **__):
        raise KeyError("\x1b[2J")

    monkeypatch.setattr("skfair._command_line._commands.fairness_report", fault)
    assert main(["report", write(CSV), *COLUMNS]) == 3
    assert "KeyError" in capsys.readouterr().err


def test_warnings_are_one_line(capsys, monkeypatch):
    def warn(*arguments, **settings):
        warnings.warn("small\x1b[2J", UserWarning)
        return fairness_report(*arguments, **settings)

    monkeypatch.setattr("skfair._command_line._commands.fairness_report", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["report", write(CSV), *COLUMNS]) == 0
    assert capsys.readouterr().err == "python -m skfair: warning: small\\x1b[2J\n"


def test_interruption_is_quiet(capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("skfair._command_line._commands.read_columns", interrupt)
    assert main(["report", write(CSV), *COLUMNS]) == 130
    assert capsys.readouterr() == ("", "")


def start(*arguments, **settings):
    command = [sys.executable, "-W", "error", "-m", "skfair", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, env=environment | settings.pop("env", {}), **{**pipes, **settings}
    )


def test_a_terminal_of_another_encoding(tmp_path):
    content = "y,new,sex\n1,1,größer\n0,0,женщина\n"
    process = start("report", write(content), *COLUMNS, env={"PYTHONIOENCODING": "ascii"})
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, b"")
    assert b"gr\\xf6\\xdfer" in output


def test_a_reader_that_goes_away():
    process = start("report", "-", *COLUMNS)
    process.stdout.close()
    process.stdin.write(CSV.encode())
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=300) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal of POSIX")
def test_control_c_while_it_waits_for_input():
    # A shell starts jobs in the background with this signal ignored, and children inherit that.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start("report", "-", *COLUMNS)
    finally:
        signal.signal(signal.SIGINT, heard)
    process.stdin.write(b"y,new,sex\n" + b"1,1,f\n" * 100_000)  # more than a pipe holds: it reads
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    try:
        returncode = process.wait(timeout=300)
    finally:
        process.kill()
    errors = process.stderr.read()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    assert (returncode, errors) == (130, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk():
    with open("/dev/full", "wb") as full:
        process = start("report", write(CSV), *COLUMNS, stdout=full)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 3
    assert errors.decode().count("\n") == 1
    assert "cannot be printed" in errors.decode()


def test_the_commands_of_the_pages_and_of_the_help_are_valid(capsys):
    pages = {"README.md": 2, "docs/user_guide/command_line.rst": 4}
    texts = [((ROOT / page).read_text(encoding="utf-8"), least) for page, least in pages.items()]
    helps = []
    for command in ("report", "check", "card"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        helps.append(capsys.readouterr().out)
    for text, least in (*texts, ("\n".join(helps), 4)):
        lines = re.sub(r"\\\n\s*", " ", text).splitlines()
        found = [line.strip() for line in lines if line.strip().startswith("python -m skfair ")]
        assert len(found) >= least
        for line in found:
            options = parse(shlex.split(line)[3:])
            assert options.run.__name__ == line.split()[3]


@pytest.mark.parametrize("status, code", [("passes", 0), ("fails", 1), ("cannot tell", 2)])
def test_the_exit_code_is_the_status(capsys, monkeypatch, status, code):
    asked = []

    class Result:
        def __init__(self):
            self.status = status

        def to_dict(self):
            return {"status": status, "group": "женщина"}

        def __str__(self):
            return f"the rule {status}"

    def check(report, rules, **settings):
        asked.append((report.counts.models, rules, settings))
        return Result()

    monkeypatch.setattr(FairnessReport, "check", check, raising=False)
    rules = ["min(accuracy) >= 0.5", "change(accuracy) >= 0"]
    arguments = ["check", write(CSV), *COLUMNS, "--rule", rules[0], "--rule", rules[1]]
    assert main(arguments) == code
    assert capsys.readouterr() == (f"the rule {status}\n", "")
    numbers = ["--confidence", "0.9", "--min-count", "5", "--json", "out.json"]
    assert main([*arguments, *numbers]) == code
    assert asked == [
        (("new",), rules, {}),
        (("new",), rules, {"confidence": 0.9, "min_count": 5}),
    ]
    written = Path("out.json").read_text(encoding="utf-8")
    assert json.loads(written) == {"status": status, "group": "женщина"}
    assert sorted(os.listdir()) == ["out.json", "p.csv"]


def test_the_reference_has_the_type_of_the_groups(capsys, made):
    lines = ['{"y": 1, "new": 1, "sex": "f", "old": true}', '{"y": 0, "new": 1, "sex": 7}']
    name = write("\n".join(lines), "p.jsonl")
    command = ["report", name, *COLUMNS[:4], "--min-count", "0"]
    both = ["--groups", "sex,old", "--missing", "group"]

    def reference():
        table = made[-1].by_reference
        return set(table["new", "reference"].loc["selection_rate"])

    run(capsys, *command, "--groups", "sex", "--reference", "7", "--threshold", "0.8")
    assert reference() == {7}
    assert "meets" in made[-1].by_reference["new"]
    run(capsys, *command, *both, "--reference", "f,True")
    assert reference() == {("f", True)}
    run(capsys, *command, "--groups", "sex", "--reference", "highest")
    assert reference() <= {"f", 7}
    message = fail(capsys, *command, *both, "--reference", "f")
    assert "--reference 'f' has not one label for each of the 2 columns of --groups" in message
    message = fail(capsys, *command, *both, "--reference", '"f, m",True')
    assert "--reference=('f, m', True) is not a group of 'sex', 'old'" in message
    for option, value in (("--threshold", "2"), ("--min-count", "-1")):
        message = fail(capsys, *command, "--groups", "sex", option, value)
        assert f"error: {option}={value}" in message


def test_check_decides_by_confidence_bounds(capsys):
    # Both groups have an accuracy of 0.75, and 1,000 samples each.
    rows = ["1,1", "1,1", "0,1", "0,0"] * 500
    rows = [f"{row},{'fm'[i % 8 < 4]}" for i, row in enumerate(rows)]
    name = write("\n".join(["y,new,sex", *rows]))
    command = ["check", name, *COLUMNS, "--json", "out.json"]
    for limit, code, status in (
        ("0.7", 0, "passes"),
        ("0.8", 1, "fails"),
        ("0.74", 2, "cannot tell"),
    ):
        assert main([*command, "--rule", f"min(accuracy) >= {limit}"]) == code
        output, errors = capsys.readouterr()
        assert output.startswith(status)
        assert errors == ""
        assert json.loads(Path("out.json").read_text(encoding="utf-8"))["status"] == status
    assert "Did you mean 'accuracy'?" in fail(capsys, *command, "--rule", "min(acuracy) >= 0.5")
    assert "is not a rule" in fail(capsys, *command, "--rule", "__import__('os')")
    message = fail(capsys, *command, "--rule", "min(accuracy) > 0.7")
    assert "Write >= instead of >." in message
    assert "error: --confidence=2" in fail(
        capsys, *command, "--rule", "min(accuracy) >= 0.5", "--confidence", "2"
    )
    guide = (ROOT / "docs" / "user_guide" / "command_line.rst").read_text(encoding="utf-8")
    shown = re.findall(r'--rule "(.*?)"', guide)
    assert len(shown) == 3
    for rule in shown:
        FairnessRule.parse(rule)
