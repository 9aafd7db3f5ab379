"""A saved monitor continues as if it had never stopped, and a hostile file is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from skfair.monitoring import FairnessMonitor, InvalidMonitorError

RULES = ["min(accuracy) >= 0.7", "difference(selection_rate) <= 0.1"]


def _continue(monitor, weeks):
    for week in weeks:
        rng = np.random.default_rng(week)
        n = 60
        sex = rng.choice(["f", "m", "x"] if week > 3 else ["f", "m"], size=n)
        city = rng.choice(["A", "B"], size=n)
        y = rng.integers(2, size=n)
        wrong = (sex == "m") & (rng.random(n) < 0.6) & (week > 4)
        features = {"sex": sex, "old": rng.integers(2, size=n) == 1}
        monitor.update(
            y,
            {"a": np.where(wrong, 1 - y, y), "b": y},
            sensitive_features=features,
            control_features={"city": city},
            window=f"W{week % 3}",
        )
    return monitor


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("monitor") / "monitor.json"
    return _continue(FairnessMonitor(RULES), range(20)).save(path).read_text()


def test_continuing_after_a_load_equals_never_having_stopped(tmp_path):
    whole = _continue(FairnessMonitor(RULES), range(20))
    part = _continue(FairnessMonitor(RULES), range(6))
    for week in range(6, 20):
        part = FairnessMonitor.load(part.save(tmp_path / "monitor.json"))
        _continue(part, [week])
    assert whole.alarms_
    assert part.alarms_ == whole.alarms_
    first, second = whole.save(tmp_path / "1.json"), part.save(tmp_path / "2.json")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.json", "2.json", "monitor.json"]


def test_a_monitor_without_counts(tmp_path):
    path = FairnessMonitor("ratio(selection_rate) >= 0.8", confidence=0.9).save(tmp_path / "m")
    loaded = FairnessMonitor.load(path)
    assert (loaded.windows, loaded.confidence) == ((), 0.9)


def test_types_of_labels_are_kept(tmp_path):
    monitor = FairnessMonitor("min(accuracy) >= 0.7", pos_label="1")
    monitor.update(["1", "2"], ["1", "1"], sensitive_features=[1, True and "1"], window=1)
    loaded = FairnessMonitor.load(monitor.save(tmp_path / "m"))
    assert [type(label) for label in loaded.counts().groups] == [int, str]
    assert [type(label) for label in loaded.counts().classes] == [str, str]


def test_labels_that_python_takes_for_equal(tmp_path):
    # In the order of arrival True comes first, in the order of windows 1.
    monitor = FairnessMonitor("min(accuracy) >= 0.7")
    for window, group in ((1, 0), (2, True), (1, 1), (3, "\ud800")):
        monitor.update([1], [1], sensitive_features=[group], window=window)
    path = monitor.save(tmp_path / "m")
    content = path.read_bytes()
    assert FairnessMonitor.load(path).save(path).read_bytes() == content


def test_tuples_in_tuples_are_refused_before_they_are_written(tmp_path):
    groups = np.empty(2, dtype=object)
    groups[:] = [(1, "x"), (2, "x")]
    monitor = FairnessMonitor("min(accuracy) >= 0.7")
    monitor.update([1, 1], [1, 1], sensitive_features={"a": groups, "b": [0, 0]}, window=1)
    with pytest.raises(TypeError, match=r"tuple in a tuple.*astype\(str\)"):
        monitor.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_window_beyond_all_floats():
    monitor = FairnessMonitor("min(accuracy) >= 0.7")
    with pytest.raises(ValueError, match=r"window is 1000.*finite number"):
        monitor.update([1], [1], sensitive_features=[0], window=10**400)


def test_labels_that_no_file_can_hold(tmp_path):
    monitor = FairnessMonitor("min(accuracy) >= 0.7")
    monitor.update([1], [1], sensitive_features=[frozenset("a")], window=1)
    with pytest.raises(TypeError, match=r"frozenset.*astype\(str\)"):
        monitor.save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path):
    monitor = FairnessMonitor(RULES)
    with pytest.raises(OSError, match=r"no folder/m' is in a folder that does not exist"):
        monitor.save(tmp_path / "no folder" / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder' is a folder\. Name a file in it"):
        monitor.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_of_a_replaced_file_stay(tmp_path):
    path = FairnessMonitor(RULES).save(tmp_path / "m")
    path.chmod(0o640)
    FairnessMonitor(RULES).save(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_of_two_processes_that_save_one_wins_wholly(tmp_path):
    code = """
import sys
from skfair.monitoring import FairnessMonitor
monitor = FairnessMonitor("min(accuracy) >= 0.7")
n = int(sys.argv[2])
monitor.update([1] * n, [1] * n, sensitive_features=["f"] * n, window=1)
for _ in range(20):
    monitor.save(sys.argv[1])
"""
    path = tmp_path / "m"
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(path), str(n)])
        for n in (1, 1000)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert FairnessMonitor.load(path).counts().size.sum() in (1, 1000)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def _places(value, path=()):
    """Paths of all values in JSON, the first two items of each list only."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:2])
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from _places(item, (*path, key))


def _replace(state, path, new):
    if not path:
        return new
    state = json.loads(json.dumps(state))
    *way, last = path
    target = state
    for key in way:
        target = target[key]
    target[last] = new
    return state


@pytest.mark.thorough
def test_every_value_is_checked(written, tmp_path):
    # Each place in turn gets values of other types or sizes. The file is refused, or it loads as
    # a monitor that can be used: no other error, whatever the place.
    state, path = json.loads(written), tmp_path / "m"
    places = list(_places(state))
    assert state["alarms"]
    assert len(places) > 150
    refused = 0
    for place in places:
        for new in (None, -1, 1e308, "x", [[]]):
            path.write_text(json.dumps(_replace(state, place, new)))
            try:
                loaded = FairnessMonitor.load(path)
            except InvalidMonitorError:
                refused += 1
            else:
                str(loaded)
                loaded.report()
                loaded.save(path)
    assert refused > 0.9 * len(places) * 5


def test_missing_and_further_names_are_refused(written, tmp_path):
    state, path = json.loads(written), tmp_path / "m"
    for name in state:
        path.write_text(json.dumps({key: state[key] for key in state if key != name}))
        with pytest.raises(InvalidMonitorError):
            FairnessMonitor.load(path)
    path.write_text(json.dumps({**state, "more": 1}))
    with pytest.raises(InvalidMonitorError, match="as save writes it"):
        FairnessMonitor.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95",
        b"null",
        b"[" * 100_000,
        b"[]" * 2_000_000,
        b'{"format": NaN}',
        b'{"format": 1, "format": 1}',
        b'{"version": ' + b"9" * 5000 + b"}",
        "{}é".encode(),
        b" " * (2**26 + 10),
    ],
    ids=["empty", "pickle", "null", "deep", "lists", "NaN", "twice", "digits", "text", "large"],
)
def test_files_that_are_no_monitor(content, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(InvalidMonitorError, match="The file"):
        FairnessMonitor.load(path)


def test_a_cut_file_and_other_versions(written, tmp_path):
    path = tmp_path / "m"
    for end in (1, len(written) // 2, len(written) - 3):
        path.write_text(written[:end])
        with pytest.raises(InvalidMonitorError, match="is not the JSON of a monitor"):
            FairnessMonitor.load(path)
    path.write_text(json.dumps({**json.loads(written), "version": 2}))
    with pytest.raises(InvalidMonitorError, match="version 2; this version of skfair reads 1"):
        FairnessMonitor.load(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        FairnessMonitor.load(tmp_path / "m")
    with pytest.raises(InvalidMonitorError, match="is a folder"):
        FairnessMonitor.load(tmp_path)
