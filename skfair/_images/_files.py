"""Image files and Pillow images: which may be opened, their orientation and size."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from skfair._images._sources import name_of, open_source
from skfair.utils._imports import import_optional
from skfair.utils._shown import plain, shown

# Pillow knows some forty formats. For one of them, EPS, it starts a PostScript interpreter.
FILE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
FILE_SUFFIXES = (
    *(".bmp", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".tif", ".tiff", ".webp"),
)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MOST_BYTES_A_PIXEL = 16  # four channels of 32 bits: more than any of these formats has
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap the sides
# Pillow's name for channels of 16 bits in a file. "BGR;16" has 16 bits for all of them together.
_DEEP = re.compile(";16[BLN]")
_EXIF_OF_PNG = {"exif", "Raw profile type exif", "xmp"}


class UnreadableImageError(ValueError):
    """An image file is damaged, missing, too large, or not an image.

    Attributes
    ----------
    row : int
        Its row in X, once it is known.
    """

    row: int


def files_of_folder(folder: str | os.PathLike) -> list[Path]:
    """List the image files of a folder, sorted by name.

    Parameters
    ----------
    folder : path-like
        Subfolders are not opened.

    Returns
    -------
    list of Path
        Files with the suffix of a supported format, without hidden ones (".a.png").

    Raises
    ------
    ValueError
        `folder` is not a folder, or has no images.
    """
    path = Path(folder)
    if not os.path.isdir(folder):  # not Path.is_dir: Path("") is the current folder
        what = "is a file" if os.path.exists(folder) else "does not exist"
        raise ValueError(
            f"X = {shown(os.fspath(folder), 200)} {what}; expected a folder of image files, "
            "or a list of them. Give a single image as [path]."
        )
    files = sorted(
        one
        for one in path.iterdir()
        if one.suffix.lower() in FILE_SUFFIXES and not one.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"X = {shown(os.fspath(folder), 200)} is a folder without image files "
            f"({', '.join(FILE_FORMATS)}, by their suffix). Subfolders are not opened. Give a "
            "list of files, for instance sorted(Path(folder).rglob('*.png'))."
        )
    return files


@contextmanager
def opened_image(source: str | os.PathLike | bytes, row: int) -> Iterator[Any]:
    """Open an encoded image. Pillow reads only its head until the caller asks for pixels.

    Parameters
    ----------
    source : path-like, str or bytes
        A regular file in one of `FILE_FORMATS`, an address of such a file, or its contents.
    row : int
        Its row in X.

    Yields
    ------
    PIL.Image.Image

    Raises
    ------
    UnreadableImageError
        The source is not a regular file in one of the formats, or has more than
        ``PIL.Image.MAX_IMAGE_PIXELS`` pixels.
    """
    pillow = import_optional("PIL.Image", extra="images", purpose="Reading image files")
    name = name_of(source, row)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_source(source, f"X[{row}]"))
        except OSError as error:
            raise UnreadableImageError(str(error)) from error
        most = pillow.MAX_IMAGE_PIXELS
        with _in_words(name):  # the file of an address may be one that cannot seek
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
        if (
            most is not None and n_bytes > most * _MOST_BYTES_A_PIXEL
        ):  # Pillow reads files of some formats whole
            raise UnreadableImageError(
                f"{name} has {n_bytes:,} bytes, more than an image of "
                f"{most:,} pixels (PIL.Image.MAX_IMAGE_PIXELS) can have. Give smaller images."
            )
        with _in_words(name):
            image = pillow.open(file, formats=FILE_FORMATS)
            tags = getattr(image, "tag_v2", {})  # a tile of a TIFF may be larger than the image
            tile = int(tags.get(322, 0)), int(tags.get(323, 0))
        for width, height in (image.size, tile):
            if most is not None and width * height > most:
                raise UnreadableImageError(
                    f"{name} has {width:,} x {height:,} pixels, and no more than "
                    f"{most:,} are read. Give smaller images, or, if you trust all of these "
                    "files, set PIL.Image.MAX_IMAGE_PIXELS."
                )
        yield image


def oriented_size(image: Any) -> tuple[int, int]:
    """Return width and height of an image after it is turned as its EXIF data say."""
    turned = False
    with suppress(Exception):  # damaged EXIF data are ignored
        if hasattr(
            image, "tag_v2"
        ):  # TIFF: Pillow has already swapped the size, and getexif undoes that
            if image.tag_v2.get(_ORIENTATION) in _TURNED:
                return int(image.tag_v2[257]), int(image.tag_v2[256])
            return image.size
        late = image.format == "PNG" and not _EXIF_OF_PNG & set(image.info)
        if not late:  # late EXIF data follow the pixels: Pillow would decode all of them
            turned = image.getexif().get(_ORIENTATION) in _TURNED
    return image.size[::-1] if turned else image.size


def check_depth(image: Any, name: str) -> None:
    """Refuse an image with more than 8 bits a channel; conversion would silently lose bits.

    Parameters
    ----------
    image : PIL.Image.Image
        Its pixels are not read.
    name : str
        Its name in messages.

    Raises
    ------
    UnreadableImageError
        The image has more than 8 bits a channel.
    """
    if image.mode.startswith(("I", "F")):
        raise UnreadableImageError(
            f"{name} has 16 or more bits a pixel (Pillow mode {shown(image.mode)}), "
            "more than the 8 bits that are read. Pass such images as a floating array from 0 to 1, "
            "divided by their highest possible value (16 bits: 65535, 12 bits: 4095): (np.stack("
            "[np.asarray(Image.open(path)) for path in paths])[:, None] / 65535).astype('float32')."
        )
    # The mode of colour images does not show 16 bits; Pillow drops the lower 8 when it reads.
    if _DEEP.search(str(getattr(image, "tile", [])[:1])):
        raise UnreadableImageError(
            f"{name} has 16 bits a channel, and Pillow reads only the upper 8. If the values use "
            "all 16 bits, these are enough: give [Image.open(path).convert('RGB') for path in "
            "paths]. Otherwise read the files with another package (tifffile, OpenCV), and give a "
            "floating array from 0 to 1, divided by the highest possible value."
        )


def pixels_of(
    image: Any, n_channels: int, size: tuple[int, int] | None, resize: str, name: str
) -> np.ndarray:
    """Turn, convert and resize an image.

    Parameters
    ----------
    image : PIL.Image.Image
    n_channels : int
        1, 3 or 4; any other number means RGB.
    size : tuple of two int, or None
        Width and height; None keeps the size of the image.
    resize : {"stretch", "pad", "crop"}
        How the image gets that size; see :func:`~skfair._images._open.open_images`.
    name : str
        Name of the image in messages.

    Returns
    -------
    ndarray of shape (n_channels, height, width), uint8

    Raises
    ------
    UnreadableImageError
        Its pixels cannot be read, or have more than 8 bits a channel.
    ValueError
        The size is too large.
    """
    ops = import_optional("PIL.ImageOps", extra="images", purpose="Reading images")
    check_depth(image, name)
    with _in_words(name):
        image.load()
    with suppress(Exception):  # damaged EXIF data are ignored
        image = ops.exif_transpose(image)
    with _in_words(name):
        image = image.convert(_MODES.get(n_channels, "RGB"))
    if size is not None and image.size != size:
        image = _resized(image, n_channels, size, resize)
    array = np.asarray(image)
    if size is not None and image.size != size:  # "pad": one side is shorter
        missing = [(want - have) for want, have in zip(size[::-1], array.shape, strict=False)]
        before = [side // 2 for side in missing]
        widths = [(b, side - b) for b, side in zip(before, missing, strict=True)]
        array = np.pad(array, [*widths, *[(0, 0)] * (array.ndim - 2)], mode="edge")
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _resized(image: Any, n_channels: int, size: tuple[int, int], resize: str) -> Any:
    pillow = import_optional("PIL.Image", extra="images", purpose="Resizing images")
    ops = import_optional("PIL.ImageOps", extra="images", purpose="Resizing images")
    most = pillow.MAX_IMAGE_PIXELS
    if most is not None and size[0] * size[1] > most:
        raise ValueError(
            f"image_shape={(n_channels, *size[::-1])} has {size[0] * size[1]:,} pixels, and images "
            f"are resized to at most {most:,} (PIL.Image.MAX_IMAGE_PIXELS). Give a smaller "
            "shape."
        )
    how = pillow.Resampling.BILINEAR
    if resize == "pad":
        factor = min(want / have for want, have in zip(size, image.size, strict=True))
        width, height = (max(1, round(factor * have)) for have in image.size)
        return image.resize((width, height), how)
    if resize == "crop":
        return ops.fit(image, size, how)
    return image.resize(size, how)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Name the image that Pillow cannot read; it raises errors of any type on damaged images."""
    try:
        yield
    except Exception as error:
        unknown = (
            type(error).__name__ == "UnidentifiedImageError"
        )  # whose text shows the open file object
        reason = f"{type(error).__name__}{'' if unknown else ': ' + plain(str(error))[:200]}"
        raise UnreadableImageError(
            f"{name} is not an image that can be read ({reason}). Files are read in "
            f"the formats {', '.join(FILE_FORMATS)}."
        ) from error
