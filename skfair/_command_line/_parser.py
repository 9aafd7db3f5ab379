"""The options of the commands, and their help."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from skfair._command_line._commands import card, check, report
from skfair._command_line._open import FORMATS
from skfair._version import __version__
from skfair.metrics._rates import METRIC_NAMES
from skfair.utils._shown import plain

_FILES = """\
files:
  CSV with a header (.csv, .tsv, .txt), JSON lines (.jsonl, .ndjson, .json) and parquet (.parquet,
  needs pyarrow). Text files may be compressed (.gz). "-" is CSV from the standard input.
  Only an empty field is a missing value: a group may be called NA. Labels that are equal as numbers
  are one label, for instance 1 and 1.0. Groups of text files stay text, for instance 007.
"""
_EXITS = """\
exit codes:
  0  all rules pass                1  a rule fails
  2  a rule cannot be decided      3  a mistake in the command or in the file
"""
_COLUMNS = "--y-true label --y-pred model --groups sex,race"
_EXAMPLES = {
    "report": f"""\
examples:
  python -m skfair report predictions.csv {_COLUMNS} --html report.html
  python -m skfair report predictions.csv --y-true label --y-pred old --y-pred new --groups sex
""",
    "check": f"""\
example:
  python -m skfair check predictions.csv {_COLUMNS} \\
      --rule "difference(selection_rate) <= 0.05" --rule "min(accuracy) >= 0.7"

The last --y-pred is checked. "change(...)" compares it with the first --y-pred. A rule passes or
fails by its confidence bounds, not by the observed value.
""",
    "card": f"""\
example:
  python -m skfair card predictions.csv {_COLUMNS} -o card.md

Needs skops: pip install "skfair-debias[report]"
""",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, with exit code 3: code 2 means "cannot tell"."""

    def error(self, message: str) -> NoReturn:
        self.exit(3, f"{self.prog}: error: {plain(message)}. See {self.prog} --help.\n")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line.

    Returns
    -------
    ArgumentParser
        Its result has the attribute `run`, the function of the command.
    """
    parser = _Parser(
        prog="python -m skfair",
        description="Fairness reports, checks and model cards from files of predictions.",
        epilog="Each command has a help text with examples: python -m skfair check --help",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"skfair {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    command = _add_command(commands, "report", "Print the metrics of models in each group.")
    command.set_defaults(run=report)
    command.add_argument(
        "--metrics",
        metavar="NAMES",
        help=f"metrics, separated by commas: {', '.join(METRIC_NAMES)}. Default: accuracy and, if "
        "the positive class is clear, selection, true positive and false positive rate",
    )
    command.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="a group with fewer samples is not estimable (default: 10)",
    )
    command.add_argument(
        "--reference", metavar="GROUP", help='compare each group with this one, or with "highest"'
    )
    command.add_argument(
        "--threshold",
        type=float,
        metavar="RATIO",
        help="smallest ratio to the reference group: 0.8 for the four-fifths rule",
    )
    command.add_argument("--html", metavar="FILE", help="write the report as an HTML file")
    command.add_argument("--json", metavar="FILE", help="write the report as a JSON file")
    command.add_argument("--title", metavar="TEXT", help="title of the HTML file")

    command = _add_command(commands, "check", "Check rules; the exit code tells the result.")
    command.set_defaults(run=check)
    command.add_argument(
        "--rule",
        action="append",
        required=True,
        metavar="RULE",
        help='for instance "difference(selection_rate) <= 0.05"; give one or several',
    )
    command.add_argument(
        "--confidence",
        type=float,
        metavar="LEVEL",
        help="confidence of the decisions (default: 0.95)",
    )
    command.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="leave out groups with fewer samples; the result names them (default: 0)",
    )
    command.add_argument("--json", metavar="FILE", help="write the result as a JSON file")

    command = _add_command(commands, "card", "Write the report as a Markdown model card.")
    command.set_defaults(run=card)
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="the Markdown file")
    return parser


def _add_command(commands: argparse._SubParsersAction, name: str, help: str) -> _Parser:
    exits = _EXITS if name == "check" else "exit codes:\n  0  done\n  3  a mistake\n"
    command: _Parser = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog="\n".join((_EXAMPLES[name], _FILES, exits)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("file", help='file of predictions, a row for each sample; "-": see below')
    command.add_argument("--y-true", required=True, metavar="COLUMN", help="true labels")
    command.add_argument(
        "--y-pred",
        required=True,
        action="append",
        metavar="COLUMN",
        help="predicted labels; give it once for each model",
    )
    command.add_argument(
        "--groups",
        required=True,
        action="append",
        metavar="COLUMNS",
        help="sensitive features, separated by commas",
    )
    command.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="COLUMNS",
        help="control features: groups are compared within each of their levels",
    )
    command.add_argument("--weight", metavar="COLUMN", help="weights of the samples")
    command.add_argument(
        "--pos-label", metavar="LABEL", help="positive class (default: 1, if labels are 0 and 1)"
    )
    command.add_argument(
        "--missing",
        choices=("error", "group"),
        default="error",
        help="a missing group is a mistake (default) or a group of its own",
    )
    command.add_argument("--format", choices=tuple(FORMATS), help="default: by the suffix")
    command.add_argument("--separator", metavar="CHARACTER", help="of CSV fields (default: comma)")
    command.add_argument("--encoding", metavar="NAME", help="of text files (default: utf-8)")
    return command


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; a mistake exits with code 3.

    Parameters
    ----------
    arguments : sequence of str or None
        None means ``sys.argv``.

    Returns
    -------
    Namespace
    """
    return make_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
