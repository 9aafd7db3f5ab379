"""Sphinx configuration: `python -m sphinx -W -b html docs docs/_build/html`.

The build downloads nothing. Where the pages are published, set the environment variable
SKFAIR_DOCS_URL to their address: then each page states its address, and names of other projects
(scikit-learn, fairlearn, NumPy, pandas, PyTorch) link to the pages of these projects.
"""

import os
import re
import sys
import warnings
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.util import logging

import skfair

# The output of an example shows the text of a warning, and no path of this machine.
warnings.formatwarning = lambda message, category, *_: f"{category.__name__}: {message}\n"

sys.path.insert(0, str(Path(__file__).parents[1]))  # for benchmarks._sphinx

project = "skfair"
copyright = "2026, the skfair developers"
author = "The skfair developers"
version = release = skfair.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "myst_parser",  # for the changelog
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxext.opengraph",
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
    "subsection_order": [  # the quickstart stands before them
        f"../examples/{name}" for name in ("images", "tables", "text", "choose", "report", "ship")
    ],
    "within_subsection_order": "FileNameSortKey",
    # Not run: what needs transformers and a minute (a slow test runs it), and what needs dask.
    "filename_pattern": r"[\\/](?!debias_a_text_|features_on_)\w+\.py$",
    "ignore_pattern": r"train_",
    "backreferences_dir": "api/examples",
    "doc_module": ("skfair",),
    "default_thumb_file": str(Path(__file__).parent / "_static" / "favicon.svg"),
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "reset_modules": (),
}

copybutton_exclude = ".linenos, .gp, .go"  # no prompts and no output of a session
ogp_site_name = "skfair"
ogp_image = "_images/quickstart.png"
ogp_image_alt = "Accuracy of three models in four groups of coloured digits"
ogp_social_cards = {"enable": False}  # pictures of titles need fonts
if url := os.environ.get("SKFAIR_DOCS_URL"):
    html_baseurl = ogp_site_url = url.rstrip("/") + "/"
    extensions += ["sphinx.ext.intersphinx"]
    intersphinx_mapping = {
        "fairlearn": ("https://fairlearn.org/main/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

html_math_renderer = "mathml"  # browsers show MathML without a script of another host
html_theme = "pydata_sphinx_theme"
html_title = "skfair"
html_show_sourcelink = False
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
# A page without pages below it needs no sidebar of its section.
html_sidebars = {page: [] for page in ("changelog", "coming_from", "faq", "glossary", "install")}
html_css_files = ["skfair.css"]
html_js_files = [("skfair.js", {"defer": "defer"})]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_context = {"default_mode": "auto"}


def escape_shapes(app, what, name, obj, options, lines):
    """Keep docutils from taking the `n_features_in_` of a shape for the name of a link."""
    lines[:] = [
        re.sub(r"(\w)_(?=[,)])", r"\1\\_", line) if " of shape (" in line else line
        for line in lines
    ]


def write_math(writer, node):
    """Write a formula as MathML."""
    block = node.tagname == "math_block"
    tex = node.astext()
    mathml = latex2mathml.converter.convert(tex, display="block" if block else "inline")
    if "\\" in mathml:
        logging.getLogger(__name__).warning("unknown LaTeX command in %s", tex, location=node)
    # Browsers put no space around the log in `s log P`, and too much around the bars in `|b|`.
    mathml = mathml.replace("<mi>log</mi>", '<mo lspace="0.17em" rspace="0.17em">log</mo>')
    mathml = re.sub(r"<mo[^>]*>(&#x0007C;|&#x02016;)", r'<mo lspace="0" rspace="0">\1', mathml)
    # A wide formula scrolls, also by the keyboard.
    writer.body.append(f'<div class="math" tabindex="0">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("autodoc-process-docstring", escape_shapes, priority=400)  # before numpydoc
