"""Only regular files are opened. Anything else is refused at once, with a clear error."""

import os
import socket

import pytest

from skfair.utils._regular_files import open_regular


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"a\r\n\x1ab")
    link.symlink_to(file)
    for path in (file, str(link), os.fsencode(file)):
        with open_regular(path, "path") as opened:
            assert opened.read() == b"a\r\n\x1ab"


def test_what_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for path, kind in {
            "pipe": "a pipe",
            "socket": "a socket",
            "/dev/zero": "a device",
            ".": "a folder",
        }.items():
            with pytest.raises(ValueError, match=f"^X\\[3\\]='{path}' is {kind}, not a file"):
                open_regular(path, "X[3]")


def test_what_takes_the_place_of_a_file_is_refused(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    monkeypatch.setattr(os, "stat", lambda path: os.lstat(__file__))
    with pytest.raises(ValueError, match="is a pipe"):
        open_regular(pipe, "path")
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("absent", FileNotFoundError, "path='absent' does not exist"),
        ("a\0b", ValueError, r"path='a\\x00b' is not a path"),
        ("\ud800", ValueError, r"path='\\ud800' is not a path"),
        ("x" * 9999, OSError, r"^path='x{200}'\.\.\. cannot be opened"),
        (f"{__file__}/below", NotADirectoryError, "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named(path, error, said):
    with pytest.raises(error, match=said):
        open_regular(path, "path")
