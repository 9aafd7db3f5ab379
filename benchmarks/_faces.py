"""Pixels, labels and landmarks of the MTFL faces."""

import functools
import io

import numpy as np
import pandas as pd
from PIL import Image

_SIZE = 128  # of the stored images


@functools.cache
def load_faces(data, size):
    """Faces of size x size pixels, uint8 of shape (n, 3, size, size), and a table of the rest.

    The table has the columns of the file but the image; landmarks are in pixels of the result.
    """
    table = pd.read_parquet(data / "images" / "mtfl_aligned_128.parquet")
    X = np.empty((len(table), 3, size, size), dtype=np.uint8)
    for row, jpeg in enumerate(table.pop("jpeg")):
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        if size != _SIZE:
            image = image.resize((size, size), Image.Resampling.BOX)
        X[row] = np.asarray(image).transpose(2, 0, 1)
    landmarks = [column for column in table if column.endswith(("_x", "_y"))]
    table[landmarks] *= size / _SIZE
    return X, table
