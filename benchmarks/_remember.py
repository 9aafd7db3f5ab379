"""What a benchmark has measured, by the code that it measured, so that a run can go on."""

import ast
import functools
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path


def library_code(module):
    """The code of a module of skfair and of all that it imports of skfair's."""
    modules = [module]
    for name in modules:  # grows
        modules += [found for found in parsed(name)[1] if found not in modules]
    return "".join(parsed(name)[0] for name in modules)


@functools.cache
def parsed(module):
    """A module's code, which comments and docstrings leave the same, and what it imports of us."""
    tree = ast.parse(Path(find_spec(module).origin).read_text())
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skfair":
            imported.append(node.module)
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree), list(dict.fromkeys(imported))


def short_digest(*texts):
    """Sixteen hexadecimal digits that change with any of the texts."""
    state = hashlib.sha256()
    for text in texts:
        state.update(text.encode())
    return state.hexdigest()[:16]


class Remembered:
    """Records by key, each a line of JSON in a file, or in memory where there is no file.

    A line that a killed run left half written is measured again.
    """

    def __init__(self, path=None):
        self.path = path
        self.records = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    key, record = json.loads(line)
                except ValueError:
                    continue
                self.records[tuple(key)] = record

    def measured(self, key, measure):
        """The record of `key`, a tuple of texts and numbers; `measure` makes it if need be."""
        if key not in self.records:
            self.records[key] = measure()
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps([key, self.records[key]]) + "\n")
        return self.records[key]
