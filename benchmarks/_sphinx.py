"""Sphinx extension: stored results in pages, and numbers of texts that are checked against them.

- ``.. result:: NAME`` shows the tables of ``docs/results/NAME.json``;
- ``:cell:`value <file | row | column>``` writes the value, and warns if the cell has another;
- ``:given:`number``` writes a number that nobody measured;
- ``.. dots:: TITLE`` draws a plot: lines ``* label <text>`` are the series, lines
  ``label <file | row | column>`` the rows, in which the text of a series replaces ``{}``.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from benchmarks import _dots, _results

logger = logging.getLogger(__name__)


class Result(SphinxDirective):
    """Put the tables of a result in the place of the directive, as ``include`` does."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        path = _results.RESULTS / f"{name}.json"
        self.env.note_dependency(str(path))
        try:
            text = _results.as_rst(_results.load(name))
        except LookupError as error:
            raise self.error(str(error)) from None
        self.state_machine.insert_input(text.splitlines(), str(path))
        return []


class DotPlot(SphinxDirective):
    """A dot plot with the values of stored results."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {"class": directives.class_option}

    def run(self):
        try:
            dots = _dots.parse(" ".join(self.arguments[0].split()), self.content)
            for _, address in dots.rows:
                path = _results.RESULTS / f"{address.partition('|')[0].strip()}.json"
                self.env.note_dependency(str(path))
            drawn = _dots.svg(dots)
        except (LookupError, ValueError) as error:
            raise self.error(str(error)) from None
        figure = nodes.figure(classes=["dots", *self.options.get("class", [])])
        figure += nodes.raw("", drawn, format="html")
        figure += nodes.caption(dots.title, dots.title)
        return [figure]


class Cell(SphinxRole):
    """A number in the text that has to agree with a stored cell."""

    def run(self):
        try:
            value, _ = _results.role(self.text)
        except LookupError as error:
            logger.warning("%s", error, location=self.get_location())
            value = self.text
        return [nodes.inline(value, value, classes=["cell"])], []


class Given(SphinxRole):
    """A number that was not measured; `benchmarks._results.untraced` looks for the others."""

    def run(self):
        return [nodes.Text(self.text)], []


def setup(app):
    app.add_directive("result", Result)
    app.add_directive("dots", DotPlot)
    app.add_role("cell", Cell())
    app.add_role("given", Given())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
