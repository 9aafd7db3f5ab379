"""Sphinx configuration: `python -m sphinx -W -b html docs docs/_build/html`."""

import re
import sys
from pathlib import Path

import skfair

sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks._sphinx

project = "skfair"
copyright = "2026, the skfair developers"
author = "The skfair developers"
version = release = skfair.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "benchmarks._sphinx",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
default_role = "py:obj"
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False  # _templates/autosummary/class.rst lists the methods
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Not the text classifier, which needs transformers and a minute; a slow test runs it.
    "filename_pattern": r"quickstart\.py|debias_a_trained_|gate_|hide_|look_|monitor_|tune_",
    "ignore_pattern": r"train_|__init__",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "reset_modules": (),
}

html_theme = "pydata_sphinx_theme"
html_title = "skfair"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["skfair.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_context = {"default_mode": "light"}


def escape_shapes(app, what, name, obj, options, lines):
    """Keep docutils from taking the `n_features_in_` of a shape for the name of a link."""
    lines[:] = [
        re.sub(r"(\w)_(?=[,)])", r"\1\\_", line) if " of shape (" in line else line
        for line in lines
    ]


def setup(app):
    app.connect("autodoc-process-docstring", escape_shapes, priority=400)  # before numpydoc
