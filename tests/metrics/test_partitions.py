"""Counts and reports from the partitions of dask collections."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef

from skfair.metrics import assert_fair, count_groups, fairness_report


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def make_frame():
    """Groups and labels that do not occur in all partitions, and an order that is not sorted."""
    rng = np.random.default_rng(0)
    n = 600
    frame = pd.DataFrame(
        {
            "y": rng.integers(0, 2, n),
            "old": rng.integers(0, 2, n),
            "new": rng.integers(0, 2, n),
            "sex": rng.choice(["m", "f"], n),
            "place": np.where(np.arange(n) < 150, "z", rng.choice(["b", "a"], n)),
            "region": np.where(np.arange(n) > 450, "north", "south"),
            "weight": rng.random(n),
        }
    )
    frame.loc[300:449, "weight"] = 0.0
    frame.loc[590:, "y"] = 2  # a class of the last partition
    return frame


FRAME = make_frame()
# Four partitions of the frame, among them one without a row and one of weight zero.
PARTS = [
    FRAME[start:stop] for start, stop in [(0, 150), (150, 150), (150, 300), (300, 450), (450, 600)]
]
LAZY = dd.from_delayed([dask.delayed(part) for part in PARTS], meta=FRAME[:0], verify_meta=False)


def arguments(frame, *, weights):
    made = {
        "y_true": frame["y"],
        "sensitive_features": {"sex": frame["sex"], "place": frame["place"]},
        "control_features": frame[["region"]],
    }
    return made | ({"sample_weight": frame["weight"]} if weights else {})


@pytest.mark.parametrize("weights", [False, True])
def test_a_report_of_partitions_is_that_of_the_whole(weights):
    assert LAZY.map_partitions(len).compute().tolist() == [150, 0, 150, 150, 150]

    def report(frame):
        return fairness_report(
            predictions={"old": frame["old"], "new": frame["new"]},
            metrics={"accuracy": accuracy_score, "correlation": matthews_corrcoef},
            **arguments(frame, weights=weights),
        )

    whole, parts = report(FRAME), report(LAZY)
    assert parts.to_json() == whole.to_json()
    for name in ("by_group", "by_feature", "disparities", "summary"):
        pd.testing.assert_frame_equal(
            getattr(parts, name), getattr(whole, name), check_exact=True, obj=name
        )
    assert parts.counts.left_out == whole.counts.left_out


def test_counts_of_arrays_and_of_one_series():
    y, pred, group = (da.from_array(FRAME[name].to_numpy(), 70) for name in ("y", "old", "new"))
    counts = count_groups(y, pred, sensitive_features=group)
    whole = count_groups(FRAME["y"], FRAME["old"], sensitive_features=FRAME["new"].to_numpy())
    np.testing.assert_array_equal(counts.table(), whole.table())
    assert (counts.groups, counts.group_names) == (whole.groups, whole.group_names)
    named = count_groups(LAZY["y"], LAZY["old"], sensitive_features=LAZY["sex"])
    assert named.group_names == ("sex",)


def test_a_gate_takes_partitions():
    assert_fair(LAZY["y"], LAZY["y"], "min(accuracy) >= 0.7", sensitive_features=LAZY["sex"])


def test_errors():
    with pytest.raises(TypeError, match=r"sensitive_features is a Series, .*one dask frame"):
        count_groups(LAZY["y"], LAZY["old"], sensitive_features=FRAME["sex"])
    with pytest.raises(ValueError, match="y_true 5, y_pred 5, sensitive_features 1"):
        count_groups(
            LAZY["y"], LAZY["old"], sensitive_features=LAZY["sex"].repartition(npartitions=1)
        )
    none = LAZY[LAZY["y"] > 5]
    with pytest.raises(ValueError, match="y_true is empty"):
        count_groups(none["y"], none["old"], sensitive_features=none["sex"])
    with pytest.raises(ValueError, match="sample_weight is zero for all"):
        count_groups(
            LAZY["y"],
            LAZY["old"],
            sensitive_features=LAZY["sex"],
            sample_weight=LAZY["weight"] * 0,
        )
    three, two = da.zeros(3, chunks=3, dtype=int), da.zeros(2, chunks=2, dtype=int)
    with pytest.raises(ValueError, match="y_pred has 2 values, y_true has 3"):
        count_groups(three, two, sensitive_features=three)
    columns = da.zeros((6, 2), chunks=(3, 1), dtype=int)  # as many chunks as 12 labels
    with pytest.raises(ValueError, match=r"sensitive_features .* 2 chunks along axis 1"):
        count_groups(*[da.zeros(12, 3, dtype=int)] * 2, sensitive_features=columns)
    weight = da.from_array(np.array([1.0, 1, 1, 0, 0]), chunks=(3, 2))
    y = da.zeros(6, chunks=3, dtype=int)
    with pytest.raises(ValueError, match=r"sample_weight .*\(2,\).* y_true has 3"):
        count_groups(y, y, sensitive_features=y, sample_weight=weight)
    backwards = LAZY["weight"].map_partitions(lambda part: part[::-1])
    with pytest.raises(ValueError, match="sample_weight has the index of y_true in another order"):
        count_groups(
            LAZY["y"], LAZY["old"], sensitive_features=LAZY["sex"], sample_weight=backwards * 0
        )


def test_an_index_in_another_order_over_several_partitions():
    whole = pd.DataFrame({"y": [0, 1] * 20, "p": [0, 1, 1, 1] * 10, "g": ["a", "b"] * 20})
    whole.index = [f"row {number}" for number in range(40)]
    frame = dd.from_pandas(whole, npartitions=4, sort=False)

    def in_parts(series):
        return dd.from_pandas(series, npartitions=4, sort=False)

    for moved in (whole[::-1], pd.concat([whole[20:], whole[:20]])):
        with pytest.raises(ValueError, match=r"y_pred has .* in another order"):
            count_groups(frame["y"], in_parts(moved["p"]), sensitive_features=frame["g"])
        features = {"g": in_parts(moved["g"])}
        with pytest.raises(ValueError, match=r"sensitive_features\['g'\].* in another order"):
            count_groups(frame["y"], frame["p"], sensitive_features=features)
    # As in memory, other labels say nothing about the order.
    other = in_parts(whole["p"].set_axis([f"line {number}" for number in range(40)]))
    found = count_groups(frame["y"], other, sensitive_features=frame["g"])
    expected = count_groups(whole["y"], whole["p"], sensitive_features=whole["g"])
    np.testing.assert_array_equal(found.table(), expected.table())
    position = in_parts(whole[::-1]["p"]).to_dask_array()
    count_groups(frame["y"], position, sensitive_features=frame["g"])
