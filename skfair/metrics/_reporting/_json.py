"""The report as JSON, with all its numbers."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._certificate import jsonable
from skfair.metrics._reporting._summarize import ReportTables
from skfair.metrics._reporting._view import View

SCHEMA = "skfair.fairness_report/1"


def to_json(report: ReportTables, view: View) -> str:
    """Write a report as strict JSON.

    Returns
    -------
    str
    """
    counts = report.counts
    tables = {
        "by_group": report.by_group,
        "by_feature": report.by_feature,
        "disparities": report.disparities,
        "gaps": report.gaps,
        "by_reference": report.by_reference,
    }
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "title": view.title,
        "verdict": [{"key": key, "text": text} for key, text in view.verdict],
        "notes": list(view.notes),
        "models": list(counts.models),
        "sensitive_features": list(counts.group_names),
        "control_features": list(counts.control_names),
        "metrics": [metric.name for metric in report.metrics],
        "min_count": report.min_count,
        "threshold": report.threshold,
        "n_samples": int(counts.size.sum()),
        "summary": {model: _numbers(report.summary[model]) for model in counts.models},
    }
    for name, table in tables.items():
        estimable = report.estimable if table is report.by_feature else None
        content[name] = None if table is None else list(_records(table, counts.models, estimable))
    content["certificates"] = {
        model: certificate.to_dict() for model, certificate in report.certificates.items()
    }
    return json.dumps(content, ensure_ascii=True, allow_nan=False, indent=1) + "\n"


def _numbers(values: pd.Series) -> dict[str, Any]:
    return {str(name): _value(value) for name, value in values.items()}


def _records(
    table: pd.DataFrame, models: tuple[str, ...], estimable: pd.DataFrame | None
) -> Iterator[dict[str, Any]]:
    """Write the rows of a table: labels by name, then the numbers of each model."""
    names = [str(name) for name in table.index.names]
    columns: dict[str, list[str]] = {model: [] for model in ("", *models)}
    for model, name in table.columns:
        columns[model].append(name)
    for i, labels in enumerate(table.index):
        row = table.iloc[i]
        record: dict[str, Any] = {"labels": dict(zip(names, map(_value, labels), strict=True))}
        record |= {name: _value(row["", name]) for name in columns[""] if name}
        record["models"] = {
            model: {name: _value(row[model, name]) for name in columns[model]} for model in models
        }
        if estimable is not None:
            for model in models:
                record["models"][model]["estimable"] = bool(estimable[model].iloc[i])
        yield record


def _value(value: Any) -> Any:
    """Convert a number or a label to what JSON can hold; NaN and infinity become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value is None else jsonable(value)
