"""Check sdist and wheel: all files are in them, and the metadata are complete and valid.

Usage: python .ci/check_distribution.py SOURCE SDIST WHEEL, where SOURCE has the committed files
only. Needs packaging and trove-classifiers.
"""

import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata
from trove_classifiers import classifiers, deprecated_classifiers

source, sdist, wheel = map(Path, sys.argv[1:])
problems = []


def expect(condition, problem):
    if not condition:
        problems.append(problem)


committed = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
with tarfile.open(sdist) as archive:
    members = [PurePosixPath(member.name) for member in archive.getmembers() if member.isfile()]
found = {str(PurePosixPath(*member.parts[1:])) for member in members}
for name in sorted(committed - found):
    problems.append(f"{sdist.name} lacks {name}: see the targets in pyproject.toml")
for name in sorted(found - committed - {"PKG-INFO"}):
    problems.append(f"{sdist.name} has {name}, which is not committed")

with zipfile.ZipFile(wheel) as archive:
    files = {name: archive.read(name) for name in archive.namelist()}
info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
package = {name for name in committed if name.startswith("skfair/")}
installed = {name for name in files if not name.startswith(f"{info}/")}
for name in sorted(package ^ installed):
    problems.append(f"{name} is in one of source and {wheel.name} only")

metadata = Metadata.from_email(files[f"{info}/METADATA"], validate=True)
expect(metadata.license_files, "the wheel names no license file")
for name in metadata.license_files or []:
    same = files.get(f"{info}/licenses/{name}") == (source / name).read_bytes()
    expect(same, f"the license file {name} in the wheel is not that of the source")
readme = (source / "README.md").read_text()
expect(metadata.description.strip() == readme.strip(), "the description is not README.md")
for name in metadata.classifiers or []:
    valid = name in classifiers and name not in deprecated_classifiers
    expect(valid, f"PyPI does not know the classifier {name!r}")
expect(metadata.project_urls, "the metadata have no address")
for label, url in (metadata.project_urls or {}).items():
    expect(url.startswith("https://"), f"{label} in the metadata is no https address: {url}")

sys.exit("\n".join(problems) or 0)
