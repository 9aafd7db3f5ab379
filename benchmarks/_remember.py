"""The cache of the benchmarks: records and trained networks, in the folder of ``--cache``.

A run that was stopped goes on where it was. Records have a key that names the code that was
measured, so that they are measured again after a change.
"""

import ast
import functools
import hashlib
import json
import os
from importlib.util import find_spec
from pathlib import Path

import torch


def library_code(module):
    """The code of a module of skfair and of all modules of skfair that it imports."""
    modules = [module]
    for name in modules:  # grows
        modules += [found for found in parsed(name)[1] if found not in modules]
    return "".join(parsed(name)[0] for name in modules)


@functools.cache
def parsed(module):
    """A module's code without comments and docstrings, and the modules of skfair it imports."""
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
    """Records by key, each a line of JSON in the file `name`.jsonl of a folder.

    Without a folder, records are kept in memory only. Several processes can append to one file,
    since each line is a single write. A line that a killed process left incomplete is skipped, and
    its record is measured again.
    """

    def __init__(self, folder, name):
        self.path = None if folder is None else folder / f"{name}.jsonl"
        self.records = {}
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    key, record = json.loads(line)
                except ValueError:
                    continue
                self.records[tuple(key)] = record

    def measured(self, key, measure):
        """The record of `key`, a tuple of texts and numbers; `measure` makes what is missing."""
        if key not in self.records:
            self.records[key] = measure()
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                line = "\n" + json.dumps([key, self.records[key]]) + "\n"
                with self.path.open("ab", buffering=0) as file:
                    file.write(line.encode())
        return self.records[key]


def remembered_network(folder, name, build, train):
    """The network that `train` returns; its weights are kept in the file `name`.pt of `folder`.

    Where that file exists, its weights go into the network that `build` returns. Without a folder,
    nothing is kept.
    """
    path = None if folder is None else folder / f"{name}.pt"
    if path is not None and path.exists():
        network = build()
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    network = train()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        torch.save(network.state_dict(), partial)
        partial.replace(path)  # the whole file or none
    return network
