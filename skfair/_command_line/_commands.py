"""The commands: what each reads, computes, prints and writes."""

import argparse
import csv
import json
from typing import Any

from skfair._command_line._labels import encode_classes, find_label, get_groups, read_weights
from skfair._command_line._outputs import check_outputs, print_text
from skfair._command_line._read import read_columns
from skfair._command_line._table import Column, Wanted, near
from skfair.metrics import FairnessReport, fairness_report
from skfair.metrics._rates import METRIC_NAMES
from skfair.utils._shown import as_label, shown
from skfair.utils._write import write_whole

PASSES, FAILS, CANNOT_TELL = 0, 1, 2


def report(options: argparse.Namespace) -> int:
    """Print a report, and write it as HTML and JSON if asked to.

    Returns
    -------
    int
        The exit code.
    """
    check_outputs({"--html": options.html, "--json": options.json}, options.file)
    if options.title is not None and options.html is None:
        raise ValueError("--title is the title of the HTML file. Give --html, too.")
    settings = _given(options, "min_count", "threshold")
    if options.metrics is not None:
        settings["metrics"] = _find_metrics(options.metrics)
    made = _make_report(options, **settings)
    if options.html is not None:
        made.to_html(options.html, **_given(options, "title"))
    if options.json is not None:
        made.to_json(options.json)
    print_text(str(made))
    return 0


def check(options: argparse.Namespace) -> int:
    """Check rules, print the result, and write it as JSON if asked to.

    Returns
    -------
    int
        The exit code: 0 passes, 1 fails, 2 cannot tell.
    """
    check_outputs({"--json": options.json}, options.file)
    # The rules are decided from counts: the bootstrap would only take time.
    made = _make_report(options, metrics={"accuracy": METRIC_NAMES["accuracy"]}, n_boot=0)
    result = made.check(options.rule, **_given(options, "confidence", "min_count"))
    if options.json is not None:
        text = json.dumps(result.to_dict(), allow_nan=False, ensure_ascii=False, indent=2)
        write_whole(options.json, text + "\n")
    print_text(str(result))
    return {"passes": PASSES, "fails": FAILS, "cannot tell": CANNOT_TELL}[result.status]


def card(options: argparse.Namespace) -> int:
    """Write a report as a model card.

    Returns
    -------
    int
        The exit code.
    """
    check_outputs({"--output": options.output}, options.file)
    made = _make_report(options)
    write_whole(options.output, made.to_model_card().render().lstrip())
    return 0


def _make_report(options: argparse.Namespace, **settings: Any) -> FairnessReport:
    wanted = Wanted(
        options.y_true,
        tuple(options.y_pred),
        tuple(options.groups),
        tuple(options.control),
        options.weight,
    )
    found, columns = read_columns(
        options.file,
        wanted,
        format=options.format,
        separator=options.separator,
        encoding=options.encoding,
    )
    if options.missing == "error":
        for name in (*found.groups, *found.control):
            columns[name].check_complete("Fill it, or give --missing group.")
    classes = {name: columns[name] for name in (found.y_true, *found.y_pred)}
    arrays, labels = encode_classes(classes)
    if options.pos_label is not None:
        settings["pos_label"] = find_label(options.pos_label, labels, "--pos-label")
    if getattr(options, "reference", None) is not None:
        features = [columns[name] for name in found.groups]
        settings["reference"] = _find_reference(options.reference, features)
    return fairness_report(
        arrays[found.y_true],
        {name: arrays[name] for name in found.y_pred},
        sensitive_features=_features(found.groups, columns),
        control_features=_features(found.control, columns) if found.control else None,
        sample_weight=None if found.weight is None else read_weights(columns[found.weight]),
        missing=options.missing,
        **settings,
    )


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options that were given; the library knows the defaults of the others."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _features(names: tuple[str, ...], columns: dict[str, Column]) -> dict[str, Any]:
    return {name: get_groups(columns[name]) for name in names}


def _find_metrics(names: str) -> dict[str, Any]:
    found = {}
    for name in (part.strip() for part in names.split(",")):
        if name not in METRIC_NAMES:
            raise ValueError(
                f"--metrics has {shown(name)}, expected names of [{', '.join(METRIC_NAMES)}]."
                f"{near(name, METRIC_NAMES)}"
            )
        found[name] = METRIC_NAMES[name]
    return found


def _find_reference(typed: str, features: list[Column]) -> Any:
    """Find the labels of the reference group; an unknown label is left to the report's error."""
    if typed == "highest":
        return typed
    parts = [typed] if len(features) == 1 else next(csv.reader([typed]), [])
    if len(parts) != len(features):
        raise ValueError(
            f"--reference {shown(typed)} has not one label for each of the {len(features)} columns "
            "of --groups. Give one label for each column, separated by commas."
        )
    labels = tuple(
        next((label for label in feature.values if as_label(label) == part), part)
        for part, feature in zip(parts, features, strict=True)
    )
    return labels if len(features) > 1 else labels[0]
