"""The debiasers of trained networks on the tasks of their literature: bias, accuracy, speed.

    python -m benchmarks intraprocessing --data PATH --cache FOLDER                # ten seeds
    python -m benchmarks intraprocessing --data PATH --cache FOLDER --development  # other seeds
    python -m benchmarks intraprocessing --data PATH --cache FOLDER --images
    python -m benchmarks intraprocessing --data PATH --cache FOLDER --speed        # ratios
    python -m benchmarks intraprocessing --data PATH --cache FOLDER --trust        # intervals
    python -m benchmarks intraprocessing --data PATH --cache FOLDER --groups --classes --peers

A seed splits a data set. The network is trained on 60 % of the rows, debiased on 20 %, and judged
on the last 20 %, on which nothing is chosen. ``--cache`` keeps the networks and all records, so
that a run that was stopped goes on where it was. Records of other code or of other networks are
measured again. ``--write FOLDER`` also stores the tables.
"""

import argparse
from pathlib import Path

from benchmarks._intraprocessing import comparisons, speed, trust
from benchmarks._intraprocessing.run import DEVELOPMENT_SEED, TABULAR, compare


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds tabular/ and images/")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of networks and results")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--trust", action="store_true", help="what debiasers say of themselves")
    parser.add_argument("--groups", action="store_true", help="five and ten groups")
    parser.add_argument("--classes", action="store_true", help="three classes")
    parser.add_argument("--peers", action="store_true", help="beside other packages")
    parser.add_argument("--development", action="store_true", help="other seeds: 100, 101, ...")
    parser.add_argument("--seeds", type=int, help="how many; default 10, on images 3")
    parser.add_argument(
        "--tasks", nargs="+", choices=[*TABULAR, "digits", "faces", *trust.NETWORKS]
    )
    parser.add_argument("--constraints", nargs="+", metavar="NAME", help="of --trust and the like")
    parser.add_argument(
        "--methods", nargs="+", metavar="WORD", help="only rows whose names contain one"
    )
    parser.add_argument("--jobs", type=int, default=2, help="splits at once")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.data is None and not (arguments.images and arguments.tasks == ["digits"]):
        parser.error("--data is required, except with --images --tasks digits")
    if arguments.methods and arguments.write:
        parser.error("--write needs complete tables: leave --methods out")
    first = DEVELOPMENT_SEED if arguments.development else 0
    if arguments.trust:
        trust.run(arguments, DEVELOPMENT_SEED)
    elif kinds := [k for k in ("groups", "classes", "peers") if getattr(arguments, k)]:
        for kind in kinds:
            comparisons.run(arguments, kind, first)
    elif arguments.speed:
        speed.run(arguments)
    else:
        compare(arguments)
