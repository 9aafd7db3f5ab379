"""Files are written completely or not at all."""

import os

import pytest

from skfair.utils._write import write_whole

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes of POSIX")


@pytest.mark.parametrize("content", ["é\r\n\n", b"\xff\r\n", ""])
def test_content_is_written_as_it_is(tmp_path, content):
    path = tmp_path / "ab\u202e [x]"
    path.write_text("a longer old content")
    assert write_whole(str(path), content) == path
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_permissions_stay_and_a_link_is_replaced(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_whole(link, "new")
    assert (path.read_text(), link.read_text(), link.is_symlink()) == ("old", "new", False)
    write_whole(path, "newer")
    assert path.stat().st_mode & 0o777 == 0o640


@POSIX
def test_targets_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, error, words in (
        (tmp_path / "pipe", ValueError, "is a device or a pipe"),
        (tmp_path, IsADirectoryError, "is a folder. Name a file in it"),
        (tmp_path / "none" / "a", FileNotFoundError, "in a folder that does not exist"),
        (tmp_path / "pipe" / "a", FileNotFoundError, "in a folder that does not exist"),
    ):
        with pytest.raises(error, match=words):
            write_whole(path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_after_an_error_the_old_file_is_there_alone(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"No space left on device\); an existing file is unchanged"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
