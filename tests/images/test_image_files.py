"""Files as people have them: of many sizes, turned, damaged, deep, in folders."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from skfair._images._files import oriented_size
from skfair._images._open import open_images


@pytest.fixture
def save(tmp_path):
    def save(name, size=(6, 8), colour=(10, 20, 30), **options):
        Image.new("RGB", size, colour).save(tmp_path / name, **options)
        return tmp_path / name

    return save


def cut(path, n_bytes=30):
    path.write_bytes(path.read_bytes()[:-n_bytes])
    return path


# Sizes ------------------------------------------------------------------------------------


def test_sizes_are_compared_before_any_pixel_is_read(save, monkeypatch):
    sizes = [(30, 20), (10, 40), (30, 20), (30, 20), (8, 9)]
    files = [save(f"{row}.png", size) for row, size in enumerate(sizes)]
    monkeypatch.setattr(
        PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("pixels were read")
    )
    # Widths 8, 10, 30, 30, 30; heights 9, 20, 20, 20, 40: of each the middle one.
    match = (
        r"^X has images of 3 sizes, from 8 x 9 pixels \(X\[4\] = .*4\.png'\) to 30 x 20 "
        r"\(X\[0\] = .*0\.png'\).*image_shape=\(3, 20, 30\).*resize='pad' or 'crop'"
    )
    with pytest.raises(ValueError, match=match):
        open_images(files)
    with pytest.raises(ValueError, match="3 sizes"):
        open_images([Image.new("RGB", size) for size in sizes], image_shape=(3, -1, 20))


@pytest.mark.parametrize(
    "resize, expected",
    [
        # Four columns, dark to bright, and two rows, to 4 x 4 pixels.
        ("pad", [[0, 80, 160, 240]] * 4),
        # By two, then the middle columns: 60, 100 ... lie a quarter between two pixels.
        ("crop", [[60, 100, 140, 180]] * 4),
        ("stretch", [[0, 80, 160, 240]] * 4),
    ],
)
def test_ratio_of_the_sides(resize, expected):
    X = [Image.fromarray(np.array([[0, 80, 160, 240]] * 2, dtype=np.uint8))]
    image = open_images(X, image_shape=(1, 4, 4), resize=resize).read(0, 1)[0, 0]
    np.testing.assert_allclose(image, expected, atol=1)


def test_the_border_is_repeated_on_both_sides():
    rows = np.array([[10, 10], [50, 50], [90, 90], [200, 200]], dtype=np.uint8)
    X = [Image.fromarray(rows)]  # half as wide as it is high
    image = open_images(X, image_shape=(1, 4, 5), resize="pad").read(0, 1)[0, 0]
    np.testing.assert_array_equal(image, np.repeat(rows[:, :1], 5, axis=1))
    columns = [Image.fromarray(np.ascontiguousarray(rows.T))]
    image = open_images(columns, image_shape=(1, 5, 4), resize="pad").read(0, 1)[0, 0]
    np.testing.assert_array_equal(image, [[10, 50, 90, 200]] * 5)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (4, 5), (7, 7)])
def test_every_size_becomes_the_one_that_is_wanted(resize, size):
    X = [Image.new("RGB", size, (10, 20, 30))]
    image = open_images(X, image_shape=(3, 5, 4), resize=resize).read(0, 1)[0]
    np.testing.assert_array_equal(image, np.full((3, 5, 4), [[[10]], [[20]], [[30]]]))


# Which way up -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "orientation, turned",
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: a[::-1].T),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: a.T[::-1]),
    ],
)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_images_are_turned_as_exif_says(orientation, turned, kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 5), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"0.{kind}"
    # Pillow itself misreads turned TIFF without compression that it opens by name.
    options = {"compression": "tiff_lzw"} if kind == "tif" else {}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    expected = turned(pixels)
    with Image.open(path) as picture:
        assert oriented_size(picture) == expected.shape[::-1]
        for X in ([path], [picture]):
            images = open_images(X)
            assert images.shape == (3, *expected.shape)
            np.testing.assert_array_equal(images.read(0, 1)[0, 1], expected)


def test_turned_images_and_upright_ones_are_of_one_size(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [save("0.jpg", (16, 24)), save("1.jpg", (24, 16), exif=exif)]
    assert open_images(files).read(0, 2).shape == (2, 3, 24, 16)


# Damaged files ----------------------------------------------------------------------------


def test_all_files_that_cannot_be_opened_are_named(save, tmp_path):
    files = [save(f"{row}.png") for row in range(20)]
    for row in (3, 7):
        files[row].write_text("no image")
    files[12] = tmp_path / "missing.png"
    with pytest.raises(ValueError, match=r"^X has 3 images of 20 that cannot be read") as error:
        open_images(files)
    for name in ("3.png", "7.png", "missing.png"):
        assert name in str(error.value)
    assert "11.png" not in str(error.value)
    for file in files[:12]:
        file.write_text("no image")
    with pytest.raises(
        ValueError, match=r"^X has 13 images of 20 [^$]*\n- and 3 more, rows 10 to 12$"
    ) as error:
        open_images(files)
    assert str(error.value).count("\n- X[") == 10


@pytest.mark.parametrize("rows", [(0, 5), (4, 5), (0, 1, 2)])
def test_all_truncated_files_are_named(rows, save):
    files = [save(f"{row}.png") for row in range(6)]
    for row in rows:
        cut(files[row])
    with pytest.raises(ValueError, match=f"^X has {len(rows)} images of 6") as error:
        open_images(files).read(0, 6)
    for row in range(6):
        assert (f"X[{row}]" in str(error.value)) == (row in rows)


def test_of_a_dataset_no_other_items_are_read_for_that(save):
    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, row):
            if row == 2:
                raise KeyError("not this one")
            return cut(save(f"{row}.png"))

    with pytest.raises(ValueError, match=r"^X\[0\] = .* is not an image that can be read"):
        open_images(Files())


# More than eight bits ---------------------------------------------------------------------


def test_deep_files_are_all_named_before_any_of_their_pixels_is_read(save, tmp_path, monkeypatch):
    files = [save(f"{row}.png") for row in range(4)]
    for row in (1, 3):
        Image.fromarray(np.zeros((8, 6), dtype=np.uint16)).save(files[row])
    load = PngImagePlugin.PngImageFile.load

    def load_others(self):
        assert self.mode == "RGB"
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load_others)
    with pytest.raises(ValueError, match=r"^X has 2 images of 4[^$]*astype\('float32'\)") as error:
        open_images(files)
    assert str(error.value).count("16 or more bits a pixel (Pillow mode 'I;16')") == 2


def test_the_advice_on_deep_files_works(tmp_path):
    paths = [tmp_path / f"{row}.png" for row in range(3)]  # as many as an image may have channels
    for path in paths:
        Image.fromarray(np.full((8, 6), 65535, dtype=np.uint16)).save(path)
    with pytest.raises(ValueError, match="16 or more bits") as error:
        open_images(paths[:1])
    line = str(error.value).split("(16 bits: 65535, 12 bits: 4095): ")[1].rstrip(".")
    images = open_images(eval(line, {"np": np, "Image": Image, "paths": paths}))
    assert (images.n_samples, images.shape, images.dtype) == (3, (1, 8, 6), np.float32)
    assert (images.read(0, 3) == 1).all()


def deep_png(pixels, colour_type):
    """Pillow writes no PNG of 16 bits a channel, but for grey ones."""

    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def deep_tiff(pixels):
    """Pillow writes no TIFF of 16 bits a channel, but for grey ones."""
    height, width, n_channels = pixels.shape
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 122), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, n_channels), (278, 3, 1, height)]
    tags += [(279, 4, 1, pixels.nbytes)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack("<3H", 16, 16, 16) + pixels.astype("<u2").tobytes()


@pytest.mark.parametrize(
    "name, make",
    [
        ("colour.png", lambda rgb: deep_png(rgb, 2)),
        ("colour and alpha.png", lambda rgb: deep_png(rgb[..., [0, 1, 2, 2]], 6)),
        ("grey and alpha.png", lambda rgb: deep_png(rgb[..., [0, 0]], 4)),
        ("colour.tif", deep_tiff),
    ],
)
def test_deep_colours_are_not_cut_off_in_silence(name, make, tmp_path):
    path = tmp_path / name
    path.write_bytes(make(np.full((8, 6, 3), 4095)))  # 12 bits: 15 would be left of 255
    with pytest.raises(ValueError, match="16 bits a channel, and Pillow reads only the") as error:
        open_images([path])
    with Image.open(path) as picture, pytest.raises(ValueError, match="16 bits a channel"):
        open_images([picture])
    path.write_bytes(make(np.full((8, 6, 3), 65535)))
    line = "[Image.open(path).convert('RGB') for path in paths]"
    assert line in str(error.value)
    images = open_images(eval(line, {"Image": Image, "paths": [path]}))
    assert (images.read(0, 1) == 255).all()


def test_sixteen_bits_for_all_colours_together_are_no_deep_ones(tmp_path):
    white = struct.pack("<4H", *[0xFFFF] * 4)  # 5, 6 and 5 bits; four pixels, in three rows
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    head = struct.pack("<IiiHHIIiiII", 40, 4, 3, 1, 16, 3, 24, 0, 0, 0, 0) + masks
    (tmp_path / "0.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 90, 0, 0, 66) + head + white * 3)
    assert (open_images([tmp_path / "0.bmp"]).read(0, 1) == 255).all()


@pytest.mark.parametrize(
    "X, line",
    [
        (np.full((2, 3, 5, 5), 65535, dtype=np.uint16), "(X / 257).astype('uint8')"),
        (np.full((2, 3, 5, 5), 255, dtype=np.int32), "X.astype('uint8')"),
        (np.full((2, 3, 5, 5), 255, dtype=np.int64), "X.astype('uint8')"),
        (np.full((2, 5, 5), 255, dtype=np.int64), "X.astype('uint8')"),
        (torch.full((2, 3, 5, 5), 255, dtype=torch.int64), "X.byte()"),
        (torch.full((2, 3, 5, 5), 65535, dtype=torch.uint16), "(X.float() / 257).byte()"),
    ],
    ids=["uint16", "int32", "int64", "grey", "tensor", "tensor of uint16"],
)
def test_the_advice_on_other_integers_works(X, line):
    with pytest.raises(ValueError, match=r"uint8 .* or floating") as error:
        open_images(X)
    assert line in str(error.value)
    images = open_images(eval(line, {"X": X}))
    assert images.dtype == np.uint8
    assert (images.read(0, 2) == 255).all()
    line = line.replace("X", "image")
    with pytest.raises(ValueError, match=r"^X\[0\] has dtype") as error:
        open_images(list(X))
    assert line in str(error.value)
    images = open_images([eval(line, {"image": image}) for image in X])
    assert (images.read(0, 2) == 255).all()


@pytest.mark.parametrize(
    "X, line",
    [
        (np.full((2, 3, 5, 5), 65535, dtype=np.uint16), "(X / 65535).astype('float32')"),
        (torch.full((2, 3, 5, 5), 65535, dtype=torch.uint16), "X.float() / 65535"),
    ],
    ids=["array", "tensor"],
)
def test_floats_of_sixteen_bits_go_from_zero_to_one(X, line):
    with pytest.raises(ValueError, match=r"has dtype .*uint16") as error:
        open_images(X)
    assert line in str(error.value)
    images = open_images(eval(line, {"X": X}))
    assert images.dtype == np.float32
    assert (images.read(0, 2) == 1).all()


# Folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, lambda path: path], ids=["str", "Path"])
def test_a_folder_is_its_image_files_by_name(form, save, tmp_path):
    for number, name in enumerate(("b.png", "10.BMP", "9.png", "a.jfif")):
        save(name, colour=(40 * number,) * 3)
    save(".hidden.png")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "more").mkdir()
    images = open_images(form(tmp_path)).read(0, 4)
    np.testing.assert_allclose(images.mean((1, 2, 3)), [40, 80, 120, 0], atol=2)


def test_folders_without_images_and_single_files_are_refused(save, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"^X = '.*empty' is a folder without image files"):
        open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"0\.png' is a file; .* as \[path\]"):
        open_images(str(save("0.png")))
    for nothing in (tmp_path / "nothing", ""):
        with pytest.raises(ValueError, match=r"^X = '.*' does not exist"):
            open_images(nothing)


# Grey images ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_grey_arrays_have_one_channel(dtype):
    X = np.random.default_rng(0).integers(0, 256, size=(5, 7, 6)).astype(dtype)
    for form in (X, torch.from_numpy(X), X.transpose(0, 2, 1)[:, :, ::-1].transpose(0, 2, 1)):
        images = open_images(form)
        assert (images.n_samples, images.shape) == (5, (1, 7, 6))
        np.testing.assert_array_equal(images.read(1, 3)[:, 0], form[1:3])
        array, view = images.to_array(copy=True)
        view[4] = 1
        assert array.shape == (5, 7, 6)
        assert (array[4] == 1).all()


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7, 3), (9, 7, 4), (3, 9, 7), (4, 9, 7)])
def test_what_may_be_one_image_is_refused(shape):
    X = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(ValueError, match=r"one image with channels\? .* X\[None\].*X\[:, None\]"):
        open_images(X)
    assert open_images(X[None]).n_samples == 1
    # After a fit on such images there is no doubt.
    assert open_images(X, expected_shape=(1, *shape[1:])).n_samples == shape[0]
