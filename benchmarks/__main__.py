"""Run a benchmark: ``python -m benchmarks NAME [its own options]``.

Run this command from the root of the repository. Without a name, it lists the benchmarks.
``python -m benchmarks NAME --help`` has the options of one.
"""

import ast
import importlib
import sys
from pathlib import Path


def first_lines():
    """The first line of each benchmark's docstring, by name; no benchmark is imported for it."""
    modules = {path.stem: path for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))}
    docstrings = {name: ast.get_docstring(ast.parse(modules[name].read_text())) for name in modules}
    return {name: docstring.partition("\n")[0] for name, docstring in docstrings.items()}


def main(arguments):
    known = first_lines()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        print("\n".join(f"  {name:18} {line}" for name, line in known.items()))
        return 0
    name, *rest = arguments
    if name not in known:
        print(f"NAME is {name!r}, expected one of {', '.join(known)}.", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *rest]  # what the benchmark parses, and its usage
    return importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
