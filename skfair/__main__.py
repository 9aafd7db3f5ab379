"""The command line: ``python -m skfair``."""

import io
import sys

from skfair._command_line import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that a terminal cannot show are escaped
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
