"""The state of a monitor as a JSON file: written whole or not at all, every value checked on load.

The file is data from strangers. Its size, its depth, each type, each position and each number is
checked before it is used, so that a hostile file can neither run code nor fill the memory.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from skfair.metrics._counts import GroupCounts
from skfair.metrics._rules import FairnessRule
from skfair.monitoring._alarm import FairnessAlarm
from skfair.monitoring._watch import ANYONE, MEMORY, MOST_UNITS, Cell, RuleWatch
from skfair.monitoring._windows import window_name
from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown

_FORMAT, _VERSION = "skfair.FairnessMonitor", 1
_MOST_BYTES = 1 << 26
_MOST_PARTS = 1_000_000  # lists and objects; each takes 20 times its size in memory
_MOST_LABELS = 100_000
_LONGEST = 10_000  # characters of a label
_MOST = 2**53  # larger numbers are not exact as floats


class InvalidMonitorError(ValueError):
    """A saved monitor is refused: it is damaged, of a later version, or no saved monitor."""


# -- writing -------------------------------------------------------------------------------------


def pack(monitor: Any) -> bytes:
    """Write the state of a monitor as JSON.

    Returns
    -------
    bytes

    Raises
    ------
    TypeError
        A label cannot be written so that it comes back as the same label.
    ValueError
        The file would have more than 64 MiB.
    """
    counts = list(monitor._windows.values())
    names = list(monitor._windows)
    first = counts[0] if counts else None
    state = {
        "format": _FORMAT,
        "version": _VERSION,
        "rules": [
            [rule.statistic, rule.metric, rule.comparison, float(rule.value)]
            for rule in monitor.rules
        ],
        "confidence": monitor.confidence,
        "pos_label": None if monitor.pos_label is None else _label(monitor.pos_label),
        "models": list(first.models) if first else [],
        "group_names": list(first.group_names) if first else [],
        "control_names": list(first.control_names) if first else [],
        "windows": [_window(name, part) for name, part in zip(names, counts, strict=True)],
        "watches": [_watch(watch) for watch in monitor._watches],
        "alarms": [
            _alarm(alarm, monitor.rules.index(alarm.rule), names) for alarm in monitor.alarms_
        ],
    }
    text = json.dumps(state, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    if len(text) > _MOST_BYTES or text.count("[") + text.count("{") > _MOST_PARTS:
        raise ValueError(
            f"The state of the monitor would take {len(text):,} bytes, but load reads at most "
            f"{_MOST_BYTES:,} bytes and {_MOST_PARTS:,} lists. Merge rare groups, or start a new "
            "monitor."
        )
    return text.encode("ascii") + b"\n"


def _label(label: Any) -> Any:
    if isinstance(label, tuple):
        if any(isinstance(part, tuple) for part in label):
            raise TypeError(
                f"The label {shown(label)} has a tuple in a tuple, which a file of a monitor "
                "cannot hold. Give text, for example sensitive_features.astype(str)."
            )
        return [_label(part) for part in label]
    if isinstance(label, np.generic):
        label = label.item()
    if type(label) not in (str, int, bool) or (type(label) is int and abs(label) >= _MOST):
        raise TypeError(
            f"The label {shown(label)} is a {type(label).__name__}, which a file of a monitor "
            "cannot hold. Give labels that are text, integers below 2**53 or truth values, for "
            "example sensitive_features.astype(str)."
        )
    if type(label) is str and len(label) > _LONGEST:
        raise TypeError(f"A label has {len(label):,} characters, expected at most {_LONGEST:,}.")
    return label


def _window(name: Any, counts: GroupCounts) -> dict:
    return {
        "name": name,
        **{
            key: [_label(label) for label in getattr(counts, key)]
            for key in ("groups", "controls", "predicted")
        },
        "n_classes": len(counts.classes),
        "cells": counts.cells.ravel().tolist(),
        "size": counts.size.tolist(),
    }


def _cell(cell: Cell) -> list:
    return [cell.model, _label(cell.control), _label(cell.group)]


def _watch(watch: RuleWatch) -> dict:
    evidence = watch.evidence
    return {
        "cohorts": watch.cohorts,
        "units": [[_cell(cell) for cell in unit] for unit in watch.units],
        "log_share": watch.log_share.tolist(),
        "clock": evidence.clock.tolist(),
        "wealth": evidence.wealth.ravel().tolist(),
        "run": evidence.run.ravel().tolist(),
        "start": evidence.start.ravel().tolist(),
        "levels": [[_cell(cell), *level] for cell, level in watch.levels.items()],
    }


def _alarm(alarm: FairnessAlarm, rule: int, names: list) -> dict:
    finite = {key: getattr(alarm, key) for key in ("estimate", "low", "high")}
    return {
        "rule": rule,
        "model": alarm.model,
        "control": _label(alarm.control),
        "groups": [_label(group) for group in alarm.groups],
        "window": names.index(alarm.window),
        "since": names.index(alarm.since),
        **{key: value if math.isfinite(value) else None for key, value in finite.items()},
        "n_samples": list(alarm.n_samples),
    }


# -- reading -------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """Read a file of :func:`write` as plain JSON values.

    Returns
    -------
    object

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    InvalidMonitorError
        The file is too large, or is not strict JSON.
    """
    try:
        with open_regular(path, "path") as stream:
            content = stream.read(_MOST_BYTES + 2)
    except ValueError as error:
        raise InvalidMonitorError(str(error)) from error
    if len(content) > _MOST_BYTES + 1 or content.count(b"[") + content.count(b"{") > _MOST_PARTS:
        raise InvalidMonitorError(
            f"The file has more than {_MOST_BYTES:,} bytes or {_MOST_PARTS:,} lists; no saved "
            "monitor has. Give a file that FairnessMonitor.save wrote."
        )
    try:
        return json.loads(
            content.decode("ascii"),
            parse_constant=_refuse,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        raise InvalidMonitorError(
            f"The file is not the JSON of a monitor ({plain(str(error))[:200]}). Give a file that "
            "FairnessMonitor.save wrote."
        ) from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > 20:  # the time to convert grows with the square of the length
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return found


def unpack(cls: type, state: Any) -> Any:
    """Make a monitor from the values of :func:`read`.

    Returns
    -------
    FairnessMonitor

    Raises
    ------
    InvalidMonitorError
        A value is not what a saved monitor has.
    """
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise InvalidMonitorError(
            "The file does not hold a monitor. Give a file that FairnessMonitor.save wrote."
        )
    if not _is_int(state.get("version")) or state["version"] != _VERSION:
        raise InvalidMonitorError(
            f"The file has the version {shown(state.get('version'))}; this version of skfair reads "
            f"{_VERSION}. Load it with the version of skfair that saved it, or a later one."
        )
    try:
        return _monitor(cls, state)
    except InvalidMonitorError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise InvalidMonitorError(
            "The file does not describe a monitor "
            f"({type(error).__name__}: {plain(str(error))[:500]})."
        ) from error


def _monitor(cls: type, state: dict) -> Any:
    fields = "rules confidence pos_label models group_names control_names windows watches alarms"
    _keys(state, f"format version {fields}")
    rules = []
    for rule in _list(state["rules"], 100):
        statistic, metric, comparison, value = _list(rule, 4)
        _check(all(type(part) is str for part in (statistic, metric, comparison)), "a rule")
        rules.append(FairnessRule(statistic, metric, comparison, _number(value)))
    _check(type(state["confidence"]) is float, "confidence")
    pos_label = None if state["pos_label"] is None else _read_label(state["pos_label"])
    monitor = cls(rules, confidence=state["confidence"], pos_label=pos_label)
    names = {key: _texts(state[key]) for key in ("models", "group_names", "control_names")}
    total = None
    for window in _list(state["windows"], _MOST_LABELS):
        name, counts = _read_window(window, **names)
        _check(name not in monitor._windows, "a window that occurs twice")
        kinds = {isinstance(other, str) for other in (name, *monitor._windows)}
        _check(len(kinds) == 1, "windows of two kinds")
        monitor._windows[name] = counts
        total = counts if total is None else total + counts
    _check((total is None) == (not names["models"] and not any(names.values())), "the windows")
    monitor._total = total
    if total is not None:
        for watch in monitor._watches:  # the positive class must be clear, as in add
            monitor._positive(watch.metric, total, total)
    watches = _list(state["watches"], len(rules))
    _check(len(watches) == len(rules), "the number of watches")
    for watch, written in zip(monitor._watches, watches, strict=True):
        _read_watch(watch, written, total, len(monitor._windows))
    for written in _list(state["alarms"], MOST_UNITS * len(rules)):
        _read_alarm(monitor, written)
    return monitor


def _read_window(
    written: Any, models: tuple, group_names: tuple, control_names: tuple
) -> tuple[Any, GroupCounts]:
    _keys(written, "name groups controls predicted n_classes cells size")
    _check(type(written["name"]) in (str, int, float), "the name of a window")
    name = window_name(written["name"])
    groups, controls, predicted = (
        tuple(map(_read_label, _list(written[key], _MOST_LABELS)))
        for key in ("groups", "controls", "predicted")
    )
    for labels in (groups, controls, predicted):
        _check(len(set(labels)) == len(labels) > 0, "labels of a window")
    _check(not any(isinstance(label, tuple) for label in predicted), "labels of a window")
    if len(group_names) > 1:
        _check(all(_width(label) == len(group_names) for label in groups), "groups")
    if len(control_names) > 1:
        _check(all(_width(label) == len(control_names) for label in controls), "controls")
    if not control_names:
        _check(controls == ((),), "controls")
    n_classes = _whole(written["n_classes"], 1, len(predicted))
    width = 3 + len(models)
    _check(width > 3 and len(group_names) > 0, "models or features")
    size = _integers(written["size"], 1, _MOST)
    cells = _integers(written["cells"], 0, _MOST)
    _check(len(size) > 0 and len(cells) == width * len(size), "the number of cells")
    _check(sum(written["size"]) < _MOST, "the number of samples")
    cells = cells.reshape(-1, width)
    most = [len(controls), len(groups), n_classes, *[len(predicted)] * len(models)]
    _check(bool((cells < most).all()), "a cell")
    _check(np.array_equal(np.unique(cells, axis=0), cells), "the order of cells")
    for column, n in zip(cells.T[:3], most[:3], strict=True):
        _check(len(np.unique(column)) == n, "a label without samples")
    counts = GroupCounts(
        cells,
        size,
        np.ones(len(size)),
        models,
        groups,
        group_names,
        controls,
        control_names,
        predicted[:n_classes],
        predicted,
    )
    return name, counts


def _read_watch(watch: RuleWatch, written: Any, total: GroupCounts | None, n_windows: int) -> None:
    _keys(written, "cohorts units log_share clock wealth run start levels")
    n_cells = 2 if watch.paired else 1
    for unit in _list(written["units"], MOST_UNITS):
        cells = tuple(_read_cell(cell, total, watch) for cell in _list(unit, n_cells))
        _check(len(cells) == n_cells and len(set(cells)) == n_cells, "a unit")
        _check(len({cell[:2] for cell in cells}) == 1 and cells not in watch.units, "a unit")
        watch.units[cells] = len(watch.units)
    n, width = len(watch.units), watch.evidence.wealth.shape[1]
    watch.cohorts = _whole(written["cohorts"], min(1, n), n)
    watch.log_share = _numbers(written["log_share"], n)
    _check(bool((watch.log_share < 0).all()), "log_share")
    _check(np.exp(watch.log_share).sum() <= 1 + 1e-9, "log_share")
    evidence = watch.evidence
    evidence.clock = _integers(written["clock"], 1, _MOST)
    _check(len(evidence.clock) == n, "the number of clocks")
    evidence.wealth = _numbers(written["wealth"], n * width).reshape(n, width)
    evidence.run = _numbers(written["run"], n * width).reshape(n, width)
    start = _integers(written["start"], 0, max(0, n_windows - 1))
    _check(len(start) == n * width, "the number of starts")
    evidence.start = start.reshape(n, width)
    for level in _list(written["levels"], 2 * MOST_UNITS):
        cell, hits, size = _list(level, 3)
        cell = _read_cell(cell, total, watch)
        hits, size = _number(hits), _number(size)
        _check(watch.paired and cell not in watch.levels, "a level")
        _check(0 <= hits <= size * (1 + 1e-9) and 0 < size <= MEMORY * (1 + 1e-9), "a level")
        watch.levels[cell] = (hits, size)


def _read_cell(written: Any, total: GroupCounts | None, watch: RuleWatch) -> Cell:
    model, control, group = _list(written, 3)
    cell = Cell(model, _read_label(control), _read_label(group))
    _check(total is not None and _is_int(model), "a cell of a rule")
    assert total is not None
    _whole(model, 0, len(total.models) - 1)
    groups = (ANYONE,) if watch.rule.statistic == "overall" else total.groups
    for label, known in ((cell.control, total.controls), (cell.group, groups)):
        _check(label in known, "a label")
    return cell


def _read_alarm(monitor: Any, written: Any) -> None:
    _keys(written, "rule model control groups window since estimate low high n_samples")
    names, total = list(monitor._windows), monitor._total
    _check(total is not None and type(written["model"]) is str, "an alarm")
    assert total is not None
    r = _whole(written["rule"], 0, len(monitor.rules) - 1)
    watch, rule = monitor._watches[r], monitor.rules[r]
    model = total.models.index(written["model"])
    control = _read_label(written["control"])
    groups = tuple(map(_read_label, _list(written["groups"], 2)))
    unit = tuple(
        Cell(model, control, group)
        for group in ((ANYONE,) if rule.statistic == "overall" else groups)
    )
    key = (r, watch.units[unit])
    _check(key not in monitor._alarmed, "an alarm that occurs twice")
    n_samples = _list(written["n_samples"], 2)
    _check(len(n_samples) == len(unit), "an alarm")
    monitor._alarmed.add(key)
    value, low, high = (
        math.inf if written[name] is None else _number(written[name])
        for name in ("estimate", "low", "high")
    )
    monitor.alarms_.append(
        FairnessAlarm(
            rule,
            written["model"],
            control,
            groups,
            names[_whole(written["window"], 0, len(names) - 1)],
            names[_whole(written["since"], 0, len(names) - 1)],
            value,
            low,
            high,
            tuple(_whole(n, 1, _MOST) for n in n_samples),
        )
    )


# -- checks --------------------------------------------------------------------------------------


def _check(fine: bool, what: str) -> None:
    if not fine:
        raise ValueError(f"{what} is not as save writes it")


def _keys(written: Any, names: str) -> None:
    _check(isinstance(written, dict) and set(written) == set(names.split()), "an object")


def _list(written: Any, most: int) -> list:
    _check(isinstance(written, list) and len(written) <= most, "a list")
    return written


def _is_int(written: Any) -> bool:
    return type(written) is int  # True is an int, too


def _whole(written: Any, low: int, high: int) -> int:
    _check(_is_int(written) and low <= written <= high, "an integer")
    return written


def _number(written: Any) -> float:
    _check(type(written) in (int, float) and abs(written) <= 1e300, "a number")
    return float(written)


def _array(written: Any, dtype: type, kinds: Callable[[type], bool]) -> np.ndarray:
    _check(isinstance(written, list) and all(map(kinds, map(type, written))), "a list of numbers")
    return np.array(written, dtype=dtype)


def _integers(written: Any, low: int, high: int) -> np.ndarray:
    found = _array(written, np.int64, lambda kind: kind is int)
    _check(bool(((found >= low) & (found <= high)).all()), "a list of integers")
    return found


def _numbers(written: Any, n: int) -> np.ndarray:
    found = _array(written, np.float64, lambda kind: kind in (int, float))
    _check(len(found) == n and bool((np.abs(found) <= 1e300).all()), "a list of numbers")
    return found


def _texts(written: Any) -> tuple[str, ...]:
    found = tuple(_list(written, 1000))
    _check(all(type(text) is str and len(text) <= _LONGEST for text in found), "names")
    _check(len(set(found)) == len(found), "names")
    return found


def _read_label(written: Any) -> Any:
    if isinstance(written, list):
        parts = tuple(written)
        _check(not any(isinstance(part, list) for part in parts) and len(parts) <= 1000, "a label")
        return tuple(_read_label(part) for part in parts)
    _check(type(written) in (str, int, bool), "a label")
    _check(type(written) is not int or abs(written) < _MOST, "a label")
    _check(type(written) is not str or len(written) <= _LONGEST, "a label")
    return written


def _width(label: Any) -> int:
    return len(label) if isinstance(label, tuple) else 1
