"""Files of features that lie: refused by name, before the memory that they claim is taken."""

import io
import json
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from skfair.datasets import load_features

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
VALUES, ALL = X.tobytes(), X.tobytes() + Y.tobytes()


def _npy(shape=(4, 3), descr="<f4", data=VALUES, *, fortran=False, header=None, version=1):
    if header is None:
        header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + b"\n" + data


def _write(folder, kind, content, labels=Y, compression=zipfile.ZIP_DEFLATED):
    """Put an array of features into an archive or a folder."""
    saved = io.BytesIO()
    np.save(saved, labels)
    if kind == "npz":
        path = folder / "data.npz"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("features.npy", content)
            archive.writestr("labels.npy", saved.getvalue())
        return path
    (folder / "features.npy").write_bytes(content)
    (folder / "labels.csv").write_text("labels\n0\n1\n1\n0\n")
    return folder


def _assert_refused(path, match, **keywords):
    """Assert that a file is refused by a short printable message, within 32 MiB of memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as refused:
            load_features(path, sensitive_features=None, **keywords)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1500


LIES = {
    "more than there is": _npy((2**40, 3)),
    "a little more than there is": _npy((4, 4)),
    "a product that overflows": _npy((2**33, 2**33)),
    "no rows of endless length": _npy((0, 2**63), data=b""),
    "negative": _npy((-4, -3)),
    "minus one": _npy((-1, 3)),
    "truth values": _npy((True, 12)),
    "seventy dimensions": _npy((1,) * 70 + (4, 3)),
    "objects": _npy(descr="|O", data=b"cos\nsystem\n"),
    "records": _npy((4,), [("a", "<f4"), ("b", "<f8")], bytes(48)),
    "arrays as values": _npy((4,), ("<f4", (2**20,))),
    "bytes": _npy(descr="|V4"),
    "values without size": _npy((2**60, 3), "<U0", b""),
    "deep header": _npy(header=b"{'descr':" + b"(" * 8000),
    "long header": _npy(header=b" " * 60_000),
    "very long header": _npy(header=b" " * 10**7, version=2),
    "other keys": _npy(header=b"{1: 2, 'a': 3}"),
    "keys that cannot be": _npy(header=b"{[]: 1}"),
    "cut off": _npy()[:-5],
    "cut off in the header": _npy()[:20],
    "unknown version": _npy(version=9),
    "no array": b"hello" * 20,
    "empty": b"",
}


@pytest.mark.parametrize("kind", ["npz", "folder", "folder as a map"])
@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_arrays_that_lie_are_assert_refused(content, kind, tmp_path):
    path = _write(tmp_path, kind, content)
    match = "'features' in .*data.npz' cannot be read" if kind == "npz" else "features.npy' is not"
    _assert_refused(path, match, **({"mmap": True} if kind == "folder as a map" else {}))


GOOD = {
    "Fortran order": _npy(data=np.asfortranarray(X).tobytes(order="F"), fortran=True),
    "big-endian": _npy(descr=">f4", data=X.astype(">f4").tobytes()),
    "second version": _npy(version=2),
    "more at the end": _npy() + b"more",
    "integers": _npy(descr="|i1", data=bytes(range(12))),
}


@pytest.mark.parametrize("kind", ["npz", "folder"])
@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_unusual_arrays_are_as_numpy_reads_them(content, kind, tmp_path):
    expected = np.load(io.BytesIO(content))
    data = load_features(_write(tmp_path, kind, content), sensitive_features=None)
    np.testing.assert_array_equal(data.X, expected)
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == expected.dtype
    assert data.X.flags.f_contiguous == expected.flags.f_contiguous


@pytest.mark.parametrize("n_rows", [0, 1, 30_000])
def test_arrays_of_any_size_are_read_whole(n_rows, tmp_path):
    big = np.random.default_rng(0).normal(size=(n_rows, 30))
    path = tmp_path / "data.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, features=big, labels=np.full(n_rows, "é"))
        data = load_features(path, sensitive_features=None)
        np.testing.assert_array_equal(data.X, big)
        assert data.y.tolist() == ["é"] * n_rows


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_directory_that_lies(compression, tmp_path):
    path = _write(tmp_path, "npz", _npy((10**9 // 3, 3)), compression=compression)
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", content, content.index(mark) + at, 4 * 10**9 + 128)
    path.write_bytes(content)
    _assert_refused(path, "cannot be read .*claims 3,999,999,996 bytes and has [0-9,]* at most")


def test_archives_that_numpy_does_not_write(tmp_path):
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        _assert_refused(
            _write(tmp_path, "npz", _npy(), compression=compression), "compressed in a way"
        )
    path = _write(tmp_path, "npz", _npy())
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    _assert_refused(path, "cannot be read .*encrypted")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("features.npy", _npy((3, 4)))
    _assert_refused(path, "has 'features' 2 times")


def _tensors(path, header, data=ALL, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def test_safetensors_that_lie(tmp_path):
    path = tmp_path / "data.safetensors"
    good = {
        "features": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]},
        "labels": {"dtype": "I64", "shape": [4], "data_offsets": [48, 80]},
    }
    _tensors(path, good)
    np.testing.assert_array_equal(load_features(path, sensitive_features=None).X, X)
    text = json.dumps(good)
    for shape in ("[NaN, 3]", "[Infinity, 3]", "[-4, -3]", "[4294967296, 4294967296]", "[4.0, 3]"):
        _tensors(path, text.replace("[4, 3]", shape).encode())
        _assert_refused(path, "data.safetensors' is not a safetensors file")
    empty = text.replace("[4, 3]", "[0, 9223372036854775808]").replace("[0, 48]", "[0, 0]")
    empty = empty.replace("[48, 80]", "[0, 32]")
    _tensors(path, empty.encode(), Y.tobytes())
    _assert_refused(path, "data.safetensors' is not a safetensors file")
    _tensors(path, good, length=2**62)
    _assert_refused(path, "data.safetensors' is not a safetensors file")
    _tensors(path, b"[" * 10**5)
    _assert_refused(path, "data.safetensors' is not a safetensors file")
    _tensors(path, (text[:-1] + f', "labels": {json.dumps(good["labels"])}}}').encode())
    _assert_refused(path, "has 'labels' 2 times")
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    _tensors(path, {f"\x1b[2J{i}": nothing for i in range(10_000)}, b"")
    _assert_refused(path, r"lacks 'features', 'labels'; it has .*\(10000 in all\)")


@pytest.mark.parametrize("name", ["data.npz", "data.safetensors"])
def test_a_pipe_is_refused_without_waiting(name, tmp_path):
    os.mkfifo(tmp_path / name)
    _assert_refused(tmp_path / name, f"^path='.*{name}' is a pipe")


def test_tables_that_lie(tmp_path):
    path = _write(tmp_path, "folder", _npy())
    table = path / "labels.csv"
    table.write_text("labels,a,labels\n0,0,1\n1,0,1\n1,0,1\n0,0,1\n")
    _assert_refused(path, "labels.csv' has 'labels' 2 times")
    table.write_text(",".join(f"\x1b[2J{i}" for i in range(20_000)) + "\n")
    _assert_refused(path, r"lacks 'labels'; it has .*\(20000 in all\)")
    table.write_text('labels,a\n"' + "a" * 10**6)
    _assert_refused(path, "labels.csv' is not a table")
    table.write_bytes(b"labels,\xff\n0,1\n")
    _assert_refused(path, "labels.csv' is not a table")
    table.write_text(",labels\n7,0\n8,1\n8,1\n7,0\n")
    data = load_features(path, sensitive_features="Unnamed: 0")
    assert data.sensitive_features.tolist() == [7, 8, 8, 7]
    table.write_text("\ufefflabels\n0\n1\n1\n0\n")
    assert load_features(path, sensitive_features=None).y.tolist() == Y.tolist()
