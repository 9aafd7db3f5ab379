"""Image files that nobody can mean: refused at once and by name, before they are decoded."""

import io
import os
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from skfair._images._files import FILE_FORMATS
from skfair._images._open import open_images

ZEROS = zlib.compress(bytes(10**7))


def _png(width, height, data=ZEROS, extra=b""):
    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _text(kind, content=ZEROS):
    data = b"a\0\0" + content
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(tile, *, kind=4):
    """Make a picture of 6 x 6 that is stored as one tile of `tile` x `tile`."""
    tags = [(256, 3, 6), (257, 3, 6), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    tags += [(322, kind, tile), (323, kind, tile), (324, 4, 8), (325, 4, len(ZEROS))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start = struct.pack("<I", 8 + len(ZEROS))
    return b"II*\0" + start + ZEROS + struct.pack("<H", len(tags)) + entries + bytes(4)


def _saved(kind):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


_GIF = b"GIF89a" + struct.pack("<HHBBB", 6, 6, 0x80, 0, 0) + bytes(6)
_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"
_BMP = struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
ABSURD = {
    "more pixels than Pillow takes": _png(50_000, 50_000),
    "more pixels than Pillow likes": _png(10_000, 12_000),
    "text of ten megabytes": _png(6, 6, extra=_text(b"zTXt")),
    "profile of ten megabytes": _png(6, 6, extra=_text(b"iCCP")),
    "cut off": _saved("PNG")[:-30],
    "empty": b"",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n",
    "PDF": b"%PDF-1.4\n",
    "icon": _saved("ICO"),
    "icons of Apple": _saved("ICNS"),
    "Targa": _saved("TGA"),
    "JPEG 2000": _saved("JPEG2000"),
    "frame larger than its screen": _GIF + _FRAME,
    "tile larger than its picture": _tiff(30_000),
    "tile of a size that is text": _tiff(30_000, kind=2),
    "bitmap without end": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + _BMP,
    "pixmap without end": b"P6\n99999999 99999999\n255\n",
    "number without end": b"P6\n" + b"9" * 10**5,
}


@pytest.mark.parametrize("content", ABSURD.values(), ids=ABSURD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_absurd_files_are_refused_by_name_before_they_are_decoded(content, tmp_path):
    path = tmp_path / "a\x1b[2J.png"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^X\[0\] = '.*a\\x1b\[2J\.png'") as refused:
            open_images([path])
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


def test_no_other_format_is_even_tried(tmp_path, monkeypatch):
    def fail(*args):
        raise AssertionError("another format was tried")

    Image.init()
    for name, (_, accept) in list(Image.OPEN.items()):
        if name not in FILE_FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (fail, fail if accept else None))
    path = tmp_path / "0.png"
    path.write_bytes(ABSURD["PostScript"])
    with pytest.raises(ValueError, match="formats BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"):
        open_images([path])


@pytest.mark.parametrize("kind", [*FILE_FORMATS, "MPO"])
def test_formats_that_people_have_are_read(kind, tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    Image.new("RGB", (6, 8), (255, 0, 0)).save(path, kind)
    link.symlink_to(path)
    for given in (path, str(link)):
        image = open_images([given]).read(0, 1)
        assert image.shape == (1, 3, 8, 6)
        np.testing.assert_allclose(image.mean((0, 2, 3)), [255, 0, 0], atol=2)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff_is_read(compression, tmp_path):
    path = tmp_path / "0.tif"
    Image.new("RGB", (6, 8), (255, 0, 0)).save(path, compression=compression)
    assert open_images([path]).read(0, 1)[0, 0].min() > 250


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device", "a folder"])
def test_what_is_no_file_is_refused_without_waiting(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"a device": "/dev/zero", "a folder": "."}
    path = paths.get(kind, "here")
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "a socket":
            listening.bind(path)
        if kind == "a pipe":
            os.mkfifo(path)
        with pytest.raises(ValueError, match=rf"^X\[0\]='{path}' is {kind}"):
            open_images([path])


def test_a_file_that_takes_no_room_on_the_disk(tmp_path):
    path = tmp_path / "0.webp"
    with path.open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"0\.webp' has 1,099,511,627,776 bytes"):
        open_images([path])


def test_the_limit_is_that_of_pillow_which_is_left_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "0.png"
    path.write_bytes(_png(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert open_images([path]).shape == (3, 100, 100)
    with pytest.raises(ValueError, match=r"^image_shape=\(3, 101, 100\) has 10,100 pixels"):
        open_images([path], image_shape=(3, 101, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_999)
    with (
        pytest.raises(ValueError, match="100 x 100 pixels, and no more than 9,999"),
        pytest.warns(Image.DecompressionBombWarning),
    ):
        open_images([path])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_images([path]).shape == (3, 100, 100)


def test_pictures_that_the_caller_opened_are_named_by_their_row(tmp_path):
    path = tmp_path / "0.png"
    path.write_bytes(ABSURD["cut off"])
    with (
        Image.open(path) as picture,
        pytest.raises(ValueError, match=r"^X\[0\] is not an image that can be read \(OSError"),
    ):
        open_images([picture])


@pytest.mark.parametrize("shape", [(3, 10**6, 10**6), (10**9, 10**9, -1), (3, 2**62, 4)])
def test_absurd_shapes_of_rows_and_arrays_take_no_memory(shape):
    with pytest.raises(ValueError, match="image_shape"):
        open_images(np.zeros((4, 12)), image_shape=shape)
    with pytest.raises(ValueError, match="image_shape"):
        open_images(np.zeros((4, 3, 2, 2)), image_shape=shape)
    with pytest.raises(ValueError, match="image_shape"):
        open_images([Image.new("RGB", (6, 6))], image_shape=shape)
