"""Features from files: each format, missing values, memory-mapping, refusals."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from skfair.datasets import load_features

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
GROUPS = np.array([1, 1, 2, 2])


def write(path, kind, **arrays):
    """Write arrays in one of the three formats and return the path."""
    if kind == "npz":
        np.savez(path / "data.npz", **arrays)
        return path / "data.npz"
    if kind == "safetensors":
        save_file(arrays, path / "data.safetensors")
        return path / "data.safetensors"
    np.save(path / "features.npy", arrays.pop("features"))
    pd.DataFrame(arrays).to_csv(path / "labels.csv", index=False)
    return path


KINDS = ["npz", "safetensors", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path, kind):
    path = write(tmp_path, kind, features=X, labels=Y, groups=GROUPS)
    for given in (path, str(path)):
        data = load_features(given)
        np.testing.assert_array_equal(data.X, X)
        assert data.X.dtype == np.float32
        np.testing.assert_array_equal(data.y, Y)
        np.testing.assert_array_equal(data.sensitive_features, GROUPS)


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_and_several_groups(tmp_path, kind):
    path = write(tmp_path, kind, features=X, smiling=Y, sex=GROUPS, old=Y)
    data = load_features(path, target="smiling", sensitive_features=["sex", "old"])
    expected = pd.DataFrame({"sex": GROUPS, "old": Y})
    pd.testing.assert_frame_equal(data.sensitive_features, expected)
    assert load_features(path, target="old", sensitive_features=None).sensitive_features is None


def test_other_name_of_the_features(tmp_path):
    path = write(tmp_path, "npz", clip=X, labels=Y)
    data = load_features(path, features="clip", sensitive_features=None)
    np.testing.assert_array_equal(data.X, X)


def test_missing_groups_stay_missing(tmp_path):
    path = write(tmp_path, "folder", features=X, labels=list("abab"), groups=["f", None, "m", None])
    data = load_features(path)
    assert data.y.tolist() == list("abab")
    assert pd.isna(data.sensitive_features).tolist() == [False, True, False, True]


def test_memory_map(tmp_path):
    path = write(tmp_path, "folder", features=X, labels=Y, groups=GROUPS)
    data = load_features(path, mmap=True)
    assert isinstance(data.X, np.memmap)
    assert not data.X.flags.writeable
    np.testing.assert_array_equal(data.X, X)
    assert not isinstance(load_features(path).X, np.memmap)


def test_objects_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    bombs = np.array([Bomb()] * 4, dtype=object)
    path = write(tmp_path, "npz", features=X, labels=bombs, groups=GROUPS)
    with pytest.raises(ValueError, match=r"'labels' in .*data.npz.*objects are refused"):
        load_features(path)
    np.save(tmp_path / "features.npy", bombs)
    (tmp_path / "labels.csv").write_text("labels,groups\n0,1\n")
    with pytest.raises(ValueError, match=r"features.npy.*not an array of plain numbers"):
        load_features(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_name(tmp_path, kind):
    path = write(tmp_path, kind, features=X, labels=Y)
    with pytest.raises(ValueError, match=r"lacks 'groups'; it has .*'labels'"):
        load_features(path)


@pytest.mark.parametrize("kind", KINDS)
def test_another_length(tmp_path, kind):
    path = write(tmp_path, kind, features=X, labels=Y[:3], groups=GROUPS[:3])
    with pytest.raises(ValueError, match=r"'labels' in .* has shape \(3,\), expected \(4,\)"):
        load_features(path)


@pytest.mark.parametrize("features", [X[:, 0], X.astype(str)])
def test_features_that_are_no_table_of_numbers(tmp_path, features):
    path = write(tmp_path, "npz", features=features, labels=Y, groups=GROUPS)
    with pytest.raises(ValueError, match="expected numbers of shape"):
        load_features(path)


@pytest.mark.parametrize("name", ["data.npz", "data.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not what it should be", b"PK\x03\x04 cut off"])
def test_damaged_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' is not an? "):
        load_features(tmp_path / name)


def test_damaged_array_in_an_archive(tmp_path):
    path = write(tmp_path, "npz", features=X, labels=Y, groups=GROUPS)
    content = path.read_bytes()
    at = content.index(X.tobytes())
    path.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
    with pytest.raises(ValueError, match=r"'features' in .* cannot be read"):
        load_features(path)
    np.savez_compressed(path, features=X, labels=Y, groups=GROUPS)
    content = path.read_bytes()
    at = content.index(b"features.npy") + 60
    path.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
    with pytest.raises(ValueError, match=r"'features' in .* cannot be read"):
        load_features(path)


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(ValueError, match=r"data.npz' is not an .npz archive"):
        load_features(tmp_path / "data.npz")


def test_damaged_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"lacks features.npy"):
        load_features(tmp_path)
    write(tmp_path, "folder", features=X, labels=Y, groups=GROUPS)
    (tmp_path / "features.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"features.npy"):
        load_features(tmp_path)
    np.save(tmp_path / "features.npy", X)
    (tmp_path / "labels.csv").write_text("")
    with pytest.raises(ValueError, match=r"labels.csv' is not a table"):
        load_features(tmp_path)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks labels.csv"):
        load_features(tmp_path)


def test_wrong_path_or_format(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_features(tmp_path / "nothing.npz")
    (tmp_path / "data.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="neither a folder nor"):
        load_features(tmp_path / "data.pkl")
    path = write(tmp_path, "npz", features=X, labels=Y, groups=GROUPS)
    with pytest.raises(ValueError, match="mmap=True needs a folder"):
        load_features(path, mmap=True)
