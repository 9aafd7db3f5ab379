"""The files around the code agree with the code: versions, paths, commands."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import skfair

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = sorted(path.name for path in ROOT.glob("*.md"))
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"[\w.-]+\.(md|txt|toml|cff|ya?ml)")


def linked_paths(text):
    """The targets of the Markdown links that lead to a file."""
    return {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}


def quoted_paths(text):
    """The paths between backticks, alone or in a command; blocks of code are left out."""
    words = [w for code in re.findall(r"`([^`]+)`", FENCED.sub("", text)) for w in code.split()]
    built = "docs/_build/"
    return {w for w in words if ("/" in w or FILE.fullmatch(w)) and not w.startswith(built)}


def missing(paths):
    return sorted(path for path in paths if not (ROOT / path).exists())


def test_paths_are_found_in_links_and_code():
    text = "[a](x/y.rst#z), [b](https://c.d), `e.toml`, `f g/h -i`, `k.py`, `n/`"
    text += "\n  ```bash\n  `l/m`\n  ```\n"
    assert linked_paths(text) == {"x/y.rst"}
    assert quoted_paths(text) == {"e.toml", "g/h", "n/"}


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page):
    assert missing(linked_paths((ROOT / page).read_text())) == []


def test_every_path_that_contributors_are_told_exists():
    paths = quoted_paths((ROOT / "CONTRIBUTING.md").read_text())
    assert {"skfair/utils", "constraints-oldest.txt", "tests/margin"} <= paths
    assert missing(paths) == []


def test_the_hosted_workflow_runs_every_declared_python():
    declared = [
        line.removeprefix("Programming Language :: Python :: ")
        for line in PROJECT["classifiers"]
        if re.search(r":: Python :: 3\.\d+$", line)
    ]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (versions,) = re.findall(r"python-version: \[(.*)\]", workflow)
    assert re.findall(r'"(.+?)"', versions) == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    assert "run: bash .ci/run\n" in workflow


def test_the_citation_has_the_version_and_licence_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    fields = dict(re.findall(r"^([\w-]+): (.+)$", citation, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert fields["version"] == skfair.__version__
    assert fields["license"] == PROJECT["license"]
    heading = "## [{version}] - {date-released}".format(**fields).replace('"', "")
    assert heading in (ROOT / "CHANGELOG.md").read_text().splitlines()


def test_commits_are_checked_by_the_tools_of_ci():
    # Without versions of their own, so that they are those of constraints.txt.
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.+)", hooks) == ["local"]
    entries = re.findall(r"entry: (.+)", hooks)
    script = (ROOT / ".ci" / "run").read_text()
    lint = re.search(r"== lint\\n'\n(.*?)\n}", script, re.DOTALL)[1]
    run = [line.strip() for line in lint.splitlines() if "pip install" not in line]
    assert entries == [line.removesuffix(" .").replace(" --check", "") for line in run]


def test_zenodo_shows_what_the_citation_and_the_package_say():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    head, _, papers = (ROOT / "CITATION.cff").read_text().partition("\nreferences:\n")
    assert zenodo["title"] == re.search(r'^title: "(.+)"', head, re.MULTILINE)[1]
    assert zenodo["title"].lower() == f"skfair: {zenodo['description'].lower().removesuffix('.')}"
    assert zenodo["description"] == PROJECT["description"]
    assert zenodo["license"] == PROJECT["license"]
    assert zenodo["keywords"] == PROJECT["keywords"]
    assert zenodo["keywords"] == re.findall(r"^  - (.+)", head.partition("\nkeywords:")[2], re.M)
    creators = [creator["name"] for creator in zenodo["creators"]]
    assert creators == [author["name"] for author in PROJECT["authors"]]
    assert creators == re.findall(r'^  - name: "(.+)"', head, re.MULTILINE)
    assert "version" not in zenodo  # Zenodo takes the version from the tag
    cited = []
    for paper in papers.split("  - type: ")[1:]:
        names = zip(
            re.findall(r"family-names: (.+)", paper),
            re.findall(r"given-names: (.+)", paper),
            strict=True,
        )
        authors = ", ".join(f"{family}, {given}" for family, given in names)
        title, collection = re.findall(r'title: "(.+)"', paper)
        cited.append(f"{authors} ({re.search(r'year: (.+)', paper)[1]}). {title}. {collection}.")
    assert zenodo["references"] == cited


def test_workflows_name_versions_of_actions_and_may_write_nothing_by_default():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = path.read_text()
        for action in re.findall(r"uses: (\S+)", workflow):
            assert re.fullmatch(r"[\w/-]+@(release/)?v\d+", action), path.name
        assert "\npermissions:\n  contents: read\n" in workflow, path.name


def test_the_hosted_documentation_is_built_as_ci_builds_it():
    workflow = (ROOT / ".github" / "workflows" / "docs.yml").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    (build,) = re.findall(r"run: (python -m sphinx .+)", workflow)
    assert f"  {build}\n" in script
    assert f"path: {build.split()[-1]}\n" in workflow


def test_the_hosted_release_publishes_what_the_script_has_checked():
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    build, publish = workflow.split("\n  publish:\n")
    assert "run: bash .ci/release\n" in build
    assert "id-token" not in build
    assert "needs: build\n" in publish
    assert "id-token: write" in publish
    assert 'tags: ["v*"]' in workflow


def test_the_tools_of_a_release_are_pinned():
    script = (ROOT / ".ci" / "release").read_text()
    (tools,) = re.findall(r"pip\" install -c constraints.txt (.+)", script)
    pinned = re.findall(r"^(.+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    tools = {tool.strip('"').partition("[")[0] for tool in tools.split()}
    assert {"build", "twine"} < tools <= set(pinned)
