"""Real handwritten digits with colour as a planted shortcut, for examples, docs and tests."""

from numbers import Real
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions

from skfair.utils._labels import encode_labels
from skfair.utils._random_state import check_random_state
from skfair.utils._typed import validate_params

# The encoder that comes with skfair was trained only on the images before this row.
N_ENCODER_IMAGES = 597
_N_TRAIN = 800
_ZOOM = 4

COLOR_NAMES = np.array(
    ["red", "blue", "green", "yellow", "purple", "cyan", "orange", "pink", "brown", "gray"]
)
_PALETTE = np.array(
    [
        (230, 57, 70),
        (46, 134, 222),
        (60, 170, 80),
        (250, 190, 40),
        (150, 80, 200),
        (20, 190, 190),
        (240, 130, 40),
        (230, 90, 170),
        (140, 100, 60),
        (180, 190, 190),
    ]
)


@validate_params(
    {
        "target": [StrOptions({"parity", "digit"})],
        "correlation": [Interval(Real, 0, 1, closed="both")],
        "jitter": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_colored_digits(
    *,
    target: str = "parity",
    correlation: float = 0.98,
    jitter: float = 0.05,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make real handwritten digits whose colour is a shortcut to the class.

    In training each class has its own colour. The share `correlation` of its images has this
    colour; the other images have the other colours, evenly. In the test set colour is independent
    of the class: each test image occurs once in every colour. Within one group (class and colour)
    all test images are distinct.

    The images are the 1,200 of scikit-learn's bundled digits that the encoder of
    :func:`~skfair.datasets.load_digits_encoder` has never seen: 800, drawn at random, for
    training, and 400 for testing.

    Parameters
    ----------
    target : {"parity", "digit"}, default="parity"
        The class: even or odd (two colours, four test groups of about 200 images), or the
        digit (ten colours, 100 test groups of about 40).
    correlation : float, default=0.98
        Share of each class's training images in the class's own colour, kept exactly up to
        rounding. One over the number of classes is an unbiased training set.
    jitter : float, default=0.05
        Standard deviation of the Gaussian noise on each image's colour, per channel, where
        1 is full intensity.
    random_state : int, RandomState or None, default=None
        Decides the split, the colour of each image, and the noise.

    Returns
    -------
    Bunch
        - ``X_train``, ``X_test``: ndarray of shape (n, 32, 32, 3), uint8
        - ``y_train``, ``y_test``: ndarray of shape (n,), the class: ``"even"`` and ``"odd"``,
          or 0 to 9
        - ``color_train``, ``color_test``: ndarray of shape (n,), names of the colours: the
          sensitive feature
        - ``digit_train``, ``digit_test``: ndarray of shape (n,), int, 0 to 9

    Raises
    ------
    ValueError
        A parameter is out of its range.

    Examples
    --------
    >>> data = make_colored_digits(random_state=0)
    >>> data.X_train.shape, data.X_test.shape
    ((800, 32, 32, 3), (800, 32, 32, 3))
    >>> round(float((data.color_train[data.y_train == "even"] == "red").mean()), 2)
    0.98
    """
    generator = check_random_state(random_state)
    images, digits = load_digits(return_X_y=True)
    order = N_ENCODER_IMAGES + generator.permutation(len(digits) - N_ENCODER_IMAGES)
    train, test = order[:_N_TRAIN], order[_N_TRAIN:]
    images = enlarge(images.reshape(-1, 8, 8) / 16)
    y = np.array(["even", "odd"])[digits % 2] if target == "parity" else digits
    n_classes = len(np.unique(y))

    X_train, color_train = color_digits(
        images[train],
        y[train],
        correlation=correlation,
        jitter=jitter,
        random_state=generator,
    )
    test = np.repeat(test, n_classes)
    every_color = np.tile(np.arange(n_classes), len(test) // n_classes)
    return Bunch(
        X_train=X_train,
        y_train=y[train],
        color_train=color_train,
        digit_train=digits[train],
        X_test=_paint(images[test], every_color, jitter, generator),
        y_test=y[test],
        color_test=COLOR_NAMES[every_color],
        digit_test=digits[test],
    )


@validate_params(
    {
        "images": ["array-like"],
        "labels": ["array-like"],
        "correlation": [Interval(Real, 0, 1, closed="both")],
        "jitter": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def color_digits(
    images: Any,
    labels: Any,
    *,
    correlation: float = 0.98,
    jitter: float = 0.05,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Colour grey images, such as MNIST's, so that colour correlates with the labels.

    Parameters
    ----------
    images : array-like of shape (n_samples, height, width)
        Bright strokes on black: uint8, or floating from 0 to 1.
    labels : array-like of shape (n_samples,)
        Labels of two to ten classes. The sorted classes have the own colours red, blue, green,
        yellow, purple, cyan, orange, pink, brown and gray.
    correlation : float, default=0.98
        Share of each class's images in the class's own colour, kept exactly up to rounding;
        the other colours share the rest evenly. One over the number of classes makes colour
        and label independent, as for an unbiased test set.
    jitter : float, default=0.05
        Standard deviation of the Gaussian noise on each image's colour, per channel, where
        1 is full intensity.
    random_state : int, RandomState or None, default=None
        Decides the colour of each image, and the noise.

    Returns
    -------
    images : ndarray of shape (n_samples, height, width, 3), uint8
        The coloured images.
    color : ndarray of shape (n_samples,), str
        Name of the colour of each image: the sensitive feature.

    Raises
    ------
    ValueError
        The images are not grey images in one of the two ranges, `labels` has another length than
        `images`, or there are not two to ten classes.

    Examples
    --------
    >>> import numpy as np
    >>> grey = np.full((4, 2, 2), 255, dtype=np.uint8)
    >>> images, color = color_digits(grey, [0, 0, 1, 1], correlation=1.0, random_state=0)
    >>> images.shape, color.tolist()
    ((4, 2, 2, 3), ['red', 'red', 'blue', 'blue'])
    """
    images = _check_grey(images)
    own, classes = encode_labels(labels, name="labels")
    if len(own) != len(images):
        raise ValueError(
            f"labels has {len(own)} values for {len(images)} images. Give one label for each image."
        )
    if own.min() < 0:
        raise ValueError("labels has missing values. Drop these images.")
    if not 2 <= len(classes) <= len(COLOR_NAMES):
        raise ValueError(
            f"labels has {len(classes)} classes, expected 2 to {len(COLOR_NAMES)}, the number "
            "of colours. Choose or merge classes first."
        )
    generator = check_random_state(random_state)
    color = own.copy()
    for code in range(len(classes)):
        members = generator.permutation(np.flatnonzero(own == code))
        astray = members[round(correlation * len(members)) :]
        others = generator.permutation(np.delete(np.arange(len(classes)), code))
        color[astray] = np.resize(others, len(astray))
    return _paint(images, color, jitter, generator), COLOR_NAMES[color]


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge 8 x 8 images to 32 x 32 by linear interpolation.

    Parameters
    ----------
    images : ndarray of shape (n, 8, 8)

    Returns
    -------
    ndarray of shape (n, 32, 32)
    """
    return ndimage.zoom(images, (1, _ZOOM, _ZOOM), order=1, grid_mode=True, mode="nearest")


def _paint(
    images: np.ndarray, color: np.ndarray, jitter: float, random_state: np.random.RandomState
) -> np.ndarray:
    """Colour grey images (0 to 1) by the codes of their colours."""
    rgb = _PALETTE[color] / 255 + random_state.normal(scale=jitter, size=(len(images), 3))
    painted = np.empty((*images.shape, 3), dtype=np.uint8)
    for channel in range(3):
        level = 255 * rgb[:, channel].clip(0, 1)
        painted[..., channel] = np.rint(images * level[:, None, None])
    return painted


def _check_grey(images: Any) -> np.ndarray:
    """Convert images of either range to floats from 0 to 1."""
    images = np.asarray(images)
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(
            f"images has shape {images.shape}, expected (n_samples, height, width) with at least "
            "one sample. Reshape rows of pixels, and drop a channel axis of one."
        )
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 255
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images has dtype {images.dtype}, expected uint8 or floating. Convert 0 to 255 with "
            "images.astype('uint8')."
        )
    if not (images.min() >= 0 and images.max() <= 1):  # also for NaN
        raise ValueError(
            "images has floating values outside of 0 to 1, or NaN. Divide values from 0 to 255 by "
            "255, and remove NaN."
        )
    return images
