"""The script that checks the built pages finds what is wrong, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_pages.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_pages", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def problems(script, tmp_path):
    """Write one page beside a correct one, and return the problems of that page."""
    (tmp_path / "a b.html").write_text('<title>other</title><h2 id="part">Part</h2>')
    (tmp_path / "dot.png").write_bytes(b"")

    def find(body, title="<title>page</title>", paths=("/secret/place/",)):
        (tmp_path / "page.html").write_text(f"<html><head>{title}</head><body>{body}</body></html>")
        return script.check_pages(tmp_path, paths=paths)

    return find


@pytest.mark.parametrize(
    "body",
    [
        '<a href="a%20b.html#part">x</a>',
        '<a href="#here">x</a><p id="here">',
        '<a href="#">x</a>',
        '<a href="https://example.org/gone#x">x</a> <a href="mailto:a@b.c">x</a>',
        '<img src="dot.png?v=1" alt="a dot"><img src="dot.png" alt="">',
        '<img src="data:image/png;base64,AA" alt="a dot">',
        "a/secret/place/ is relative, and /home alone tells nothing",
    ],
)
def test_a_correct_page_has_no_problem(problems, body):
    assert problems(body) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="gone.html">x</a>', "dead link gone.html"),
        ('<a href="../outside.html">x</a>', "dead link ../outside.html"),
        ('<a href="a%20b.html#gone">x</a>', "dead anchor a%20b.html#gone"),
        ('<a href="#gone">x</a>', "dead anchor #gone"),
        ('<a href="/page.html">x</a>', "link /page.html leaves the site"),
        ('<img src="gone.png" alt="a dot">', "dead link gone.png"),
        ('<img src="dot.png">', "no alternative text for the image dot.png"),
        ('<img src="dot.png" alt="_images/dot.png">', "no alternative text for the image dot.png"),
        ("<pre>saved in /secret/place/x.png</pre>", "path of a machine: /secret/place/"),
        ("<pre>&#47;secret/place/x.png</pre>", "path of a machine: /secret/place/"),
        ("<pre>/home/somebody/x.py:3</pre>", "path of a machine: /home/somebody/"),
    ],
)
def test_what_is_wrong_is_found_once(problems, body, problem):
    (found,) = problems(body)
    assert found.startswith(f"page.html: {problem}")


@pytest.mark.parametrize("title", ["", "<title> </title>"])
def test_a_page_needs_a_title(problems, title):
    assert problems("", title=title) == ["page.html: no title"]


def test_the_folders_of_this_machine_are_found(problems, script):
    root = SCRIPT.parents[1]
    found = problems(f"<pre>{root / 'skfair'}</pre>", paths=None)
    assert f"page.html: path of a machine: {root}/" in found
    assert all(len(Path(path).parts) > 1 for path in script.machine_paths())


def test_an_empty_folder_is_a_problem(script, tmp_path):
    (problem,) = script.check_pages(tmp_path)
    assert problem.endswith("no pages")


def test_the_exit_code_tells_whether_there_are_problems(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "find_browser", lambda: (None, "a browser"))
    (tmp_path / "page.html").write_text("<title>page</title>")
    assert script.main(tmp_path) == 0
    (tmp_path / "page.html").write_text('<title>page</title><a href="gone.html">x</a>')
    assert script.main(tmp_path) == 1
    assert "page.html: dead link gone.html\nProblems: 1" in capsys.readouterr().out
