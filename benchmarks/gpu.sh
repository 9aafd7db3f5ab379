#!/usr/bin/env bash
# From a machine with CUDA torch to a table of what skfair does there (see gpu.py):
#
#     bash benchmarks/gpu.sh [--wheels FOLDER] [--output FILE] [arguments of the benchmark gpu]
#
# Missing packages are installed from the wheels in FOLDER, without a network, into a virtual
# environment of its own (VENV, .gpu-venv by default) that sees the packages of PYTHON (python3 by
# default). torch has to be installed already, and is never changed.
set -euo pipefail

wheels='' arguments=()
while (($#)); do
    case $1 in
        --wheels) wheels=$(realpath -- "${2:?--wheels wants a folder}"); shift 2 ;;
        --output) arguments+=(--output "$(realpath -m -- "${2:?--output wants a file}")"); shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3} venv=${VENV:-.gpu-venv}

# Requirements of pyproject.toml that this Python does not meet, one a line; torch may not be one.
missing() {
    "$1" - <<'PYTHON'
import sys, tomllib
from importlib import metadata

try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
tests = [r for r in project["optional-dependencies"]["test"] if r.startswith("pytest")]
for requirement in map(Requirement, project["dependencies"] + tests):
    try:
        met = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        met = False
    if not met and requirement.name == "torch":
        sys.exit(f"{sys.executable} lacks {requirement}, which this script does not install.")
    if not met:
        print(requirement)
PYTHON
}

needed=$(missing "$python")
if [[ -n $needed ]]; then
    mapfile -t needed <<<"$needed"
    if [[ -z $wheels ]]; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        {
            echo "Missing: ${needed[*]}. On a machine with a network, collect the wheels with"
            printf '    pip download --only-binary=:all: --python-version %s -d wheels' "$version"
            printf " '%s'" "${needed[@]}"
            echo; echo 'and run this script again with --wheels wheels'
        } >&2
        exit 2
    fi
    "$python" -m venv --system-site-packages "$venv"
    # Where PYTHON is itself of a virtual environment, the new one sees only what lies under that.
    "$python" -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))' \
        >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
    "$python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))' \
        >"$venv/torch.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \
        --find-links "$wheels" --constraint "$venv/torch.txt" "${needed[@]}"
    python=$venv/bin/python
fi
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m benchmarks gpu "${arguments[@]}"
