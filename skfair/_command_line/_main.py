"""The entry point of the command line: mistakes become one line and an exit code."""

import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

from skfair._command_line._parser import parse
from skfair.utils._shown import plain

MISTAKE, INTERRUPTED = 3, 130
# What messages of skfair.metrics call arguments, and what the command line calls them.
_OPTIONS = {
    "y_true": "--y-true",
    "predictions": "--y-pred",
    "sensitive_features": "--groups",
    "control_features": "--control",
    "sample_weight": "--weight",
    "pos_label": "--pos-label",
    "min_count": "--min-count",
    "reference": "--reference",
    "threshold": "--threshold",
    "confidence": "--confidence",
    "rules": "--rule",
}
_NAMES = re.compile(rf"(?<![\w'\"-])({'|'.join(_OPTIONS)})(?=[=\[ ,.:;])(?!-)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        Command and options. None means those of the process.

    Returns
    -------
    int
        Exit code: 0 done, or all rules pass; 1 a rule fails; 2 a rule cannot be decided; 3 a
        mistake, in one line on the standard error; 130 interrupted.

    Examples
    --------
    >>> main(["report", "no.csv", "--y-true", "y", "--y-pred", "p", "--groups", "sex"])
    3
    """
    try:
        options = parse(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return options.run(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except MemoryError:
        return _complain("There is not enough memory for this file.")
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _complain(str(error))
    except Exception:  # a fault of skfair; Python's exit code would be 1, which means "fails"
        for line in traceback.format_exc().splitlines():
            print(plain(line), file=sys.stderr)
        return MISTAKE


def _complain(message: str) -> int:
    message = _NAMES.sub(lambda match: _OPTIONS[match[1]], message)
    print(f"python -m skfair: error: {plain(message)}", file=sys.stderr)
    return MISTAKE


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"python -m skfair: warning: {plain(str(message))}", file=sys.stderr)
