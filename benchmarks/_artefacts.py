"""Artefacts that a benchmark plants into images, so that the true pixels are known.

A sticker and faint text can be anywhere; a ruler with tick marks is in one place. The artefacts of
`DEVELOPMENT` are for choices, those of `REPORT` for tables. The two sets differ in colour, shape,
size and letters, and the ruler in its place.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE = 64  # of the images that sizes are given for


@dataclass(frozen=True)
class Artefact:
    """A stamp that is drawn over an image.

    Attributes
    ----------
    stamp : ndarray of shape (height, width, 4), uint8
        Red, green, blue and opacity.
    area : ndarray of shape (height, width), bool
        The pixels that count as the artefact; for text, the box around the letters.
    place : tuple of two int, or None
        Row and column of the upper left corner; None if it can be anywhere.
    """

    stamp: np.ndarray
    area: np.ndarray
    place: tuple[int, int] | None = None

    def plant(self, X, rng):
        """Draw the artefact into every image.

        Returns images of the shape of `X`, uint8 of (n, 3, height, width), and the true pixels,
        bool of (n, height, width).
        """
        height, width = self.area.shape
        X, true = X.copy(), np.zeros((len(X), *X.shape[2:]), dtype=bool)
        colour, opacity = self.stamp[..., :3].transpose(2, 0, 1), self.stamp[..., 3] / 255
        for image, pixels in zip(X, true, strict=True):
            if self.place is None:
                row, column = (
                    rng.integers(side - part + 1)
                    for side, part in zip(pixels.shape, self.area.shape, strict=True)
                )
            else:
                row, column = self.place
            here = np.s_[row : row + height, column : column + width]
            image[:, *here] = np.rint(opacity * colour + (1 - opacity) * image[:, *here])
            pixels[here] = self.area
        return X, true


def _sticker(size, draw_shape, colour, rim, side):
    """An opaque shape with a rim, drawn at eight times its size so that its edge is smooth."""
    side = round(side * size / _SIZE)
    image = Image.new("RGBA", (8 * side, 8 * side), (*rim, 0))
    getattr(ImageDraw.Draw(image), draw_shape)(
        (0, 0, 8 * side - 1, 8 * side - 1), fill=colour, outline=rim, width=8
    )
    stamp = np.asarray(image.resize((side, side), Image.Resampling.BOX))
    return Artefact(stamp, stamp[..., 3] > 0)


def _ruler(size, height, width, place, colour, ink, every):
    """A strip with tick marks at one of its long sides, every second one longer."""
    scale = size / _SIZE
    height, width, every = round(height * scale), round(width * scale), round(every * scale)
    lies = width > height
    strip = np.empty((min(height, width), max(height, width), 4), dtype=np.uint8)
    strip[:] = (*colour, 255)
    for i, column in enumerate(range(every // 2, strip.shape[1], every)):
        long = len(strip) * (2 if i % 2 else 3) // 5
        strip[:long, column] = (*ink, 255)
    stamp = strip if lies else strip.transpose(1, 0, 2)
    return Artefact(stamp, np.ones(stamp.shape[:2], bool), tuple(round(scale * i) for i in place))


def _text(size, letters, colour, opacity, height):
    """Transparent letters; `opacity` is the share of their colour in a pixel."""
    font = ImageFont.load_default(height * size / _SIZE)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(letters))
    image = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(image).text((-left, -top), letters, fill=255, font=font)
    drawn = np.asarray(image)
    stamp = np.empty((*drawn.shape, 4), dtype=np.uint8)
    stamp[..., :3] = colour
    stamp[..., 3] = np.rint(opacity * drawn)
    return Artefact(stamp, np.ones(drawn.shape, bool))


DEVELOPMENT = {
    "sticker": lambda size=_SIZE: _sticker(size, "rectangle", (230, 60, 50), (140, 20, 20), 8),
    "ruler": lambda size=_SIZE: _ruler(size, 5, 58, (58, 3), (240, 240, 235), (20, 20, 20), 4),
    "text": lambda size=_SIZE: _text(size, "COPY", (255, 255, 255), 0.4, 10),
}
REPORT = {
    "sticker": lambda size=_SIZE: _sticker(size, "ellipse", (40, 150, 160), (235, 235, 225), 10),
    "ruler": lambda size=_SIZE: _ruler(size, 48, 6, (7, 2), (225, 190, 90), (70, 35, 15), 3),
    "text": lambda size=_SIZE: _text(size, "No 75a", (170, 110, 210), 0.45, 11),
}
