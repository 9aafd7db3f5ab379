"""Coloured digits: the colours are as asked for, the test set is unbiased, nothing leaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from skfair.datasets import color_digits, make_colored_digits
from skfair.datasets._colored_digits import COLOR_NAMES, N_ENCODER_IMAGES

RGB = {"red": (230, 57, 70), "blue": (46, 134, 222)}


@pytest.fixture(scope="module")
def parity():
    return make_colored_digits(random_state=3)


@pytest.fixture(scope="module")
def digit():
    return make_colored_digits(target="digit", correlation=0.9, jitter=0, random_state=3)


def test_shapes_and_labels(parity, digit):
    for data, n_classes in ((parity, 2), (digit, 10)):
        assert data.X_train.shape == (800, 32, 32, 3)
        assert data.X_test.shape == (400 * n_classes, 32, 32, 3)
        assert data.X_train.dtype == data.X_test.dtype == np.uint8
        assert data.X_train.max() > 200
        for part in ("train", "test"):
            n = len(data[f"X_{part}"])
            assert len(data[f"y_{part}"]) == len(data[f"color_{part}"]) == n
            assert set(data[f"color_{part}"]) == set(COLOR_NAMES[:n_classes])
    assert (parity.y_test == np.where(parity.digit_test % 2, "odd", "even")).all()
    assert (digit.y_test == digit.digit_test).all()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95, 0.98, 1.0])
@pytest.mark.parametrize("target", ["parity", "digit"])
def test_correlation_is_kept_to_the_sample(target, correlation):
    data = make_colored_digits(target=target, correlation=correlation, random_state=0)
    classes = np.unique(data.y_train)
    for own, label in zip(COLOR_NAMES, classes, strict=False):
        color = data.color_train[data.y_train == label]
        assert (color == own).sum() == round(correlation * len(color))
        others = [(color == c).sum() for c in COLOR_NAMES[: len(classes)] if c != own]
        assert max(others) - min(others) <= 1


@pytest.mark.parametrize("name", ["parity", "digit"])
def test_every_test_image_wears_every_color(name, request):
    data = request.getfixturevalue(name)
    colors = COLOR_NAMES[: len(np.unique(data.y_test))]
    assert (data.color_test.reshape(-1, len(colors)) == colors).all()
    assert (np.ptp(data.digit_test.reshape(-1, len(colors)), axis=1) == 0).all()
    if name == "digit":  # without jitter the colours of one image differ by a factor a channel
        shapes = data.X_test.max(axis=(1, 2, 3), keepdims=True) > 0
        drawn = (data.X_test > 0).any(axis=3) & shapes[..., 0]
        first = drawn[:: len(colors)].repeat(len(colors), axis=0)
        assert (drawn != first).mean() < 0.05


def test_no_image_of_the_encoder_and_none_twice():
    grey = load_digits().images
    data = make_colored_digits(correlation=1.0, jitter=0, random_state=5)
    # The 8 x 8 image comes back from the means of 4 x 4 blocks, but for what rounding and
    # interpolation blur; its nearest neighbour among all digits is itself.
    level = np.concatenate([data.X_train, data.X_test[::2]]).max(axis=3).astype(float)
    level /= level.max(axis=(1, 2), keepdims=True)
    small = level.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(-1, 64)
    reference = grey.reshape(-1, 64) / grey.max(axis=(1, 2))[:, None]
    small -= small.mean(axis=1, keepdims=True)
    reference = reference - reference.mean(axis=1, keepdims=True)
    similar = small @ (reference / np.linalg.norm(reference, axis=1, keepdims=True)).T
    found = similar.argmax(axis=1)
    assert sorted(found) == list(range(N_ENCODER_IMAGES, len(grey)))


def test_colors_are_the_named_ones():
    images = np.full((4, 1, 1), 255, dtype=np.uint8)
    painted, color = color_digits(images, [0, 0, 1, 1], correlation=0.5, jitter=0, random_state=0)
    assert sorted(color) == ["blue", "blue", "red", "red"]
    assert [tuple(p) for p in painted[:, 0, 0]] == [RGB[c] for c in color]
    half, _ = color_digits(images / 510, [0, 0, 1, 1], correlation=1.0, jitter=0, random_state=0)
    assert half[0, 0, 0].tolist() == [115, 28, 35]


def test_jitter_moves_whole_images_and_stays_in_range():
    images = np.full((2000, 1, 2), 255, dtype=np.uint8)
    painted, _ = color_digits(
        images, np.arange(2000) % 2, correlation=1.0, jitter=0.05, random_state=0
    )
    assert (painted[:, :, 0] == painted[:, :, 1]).all()
    red = painted[::2, 0, 0].astype(float)
    np.testing.assert_allclose(red[:, 1:].mean(axis=0), RGB["red"][1:], atol=1.5)
    np.testing.assert_allclose(red[:, 1:].std(axis=0), 0.05 * 255, rtol=0.1)
    wild, _ = color_digits(images, np.arange(2000) % 2, jitter=5.0, random_state=0)
    assert {0, 255} <= set(wild.ravel())


@pytest.mark.parametrize("target", ["parity", "digit"])
def test_same_seed_same_data(target):
    first, again, other = (
        make_colored_digits(target=target, random_state=seed) for seed in (1, 1, 2)
    )
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert (first.X_train != other.X_train).any()
    assert (first.digit_train != other.digit_train).any()


@settings(deadline=None, max_examples=30)
@given(
    st.integers(2, 10), st.integers(0, 60), st.floats(0, 1), st.integers(0, 2**31), st.booleans()
)
def test_counts_of_any_labels(n_classes, n_more, correlation, seed, text):
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(n_classes), rng.integers(n_classes, size=n_more))
    given_labels = labels.astype(str) if text else labels
    images = np.zeros((len(labels), 1, 1))
    _, color = color_digits(images, given_labels, correlation=correlation, random_state=seed)
    for code in range(n_classes):
        worn = color[labels == code]
        assert (worn == COLOR_NAMES[code]).sum() == round(correlation * len(worn))
        counts = [(worn == c).sum() for c in COLOR_NAMES[:n_classes] if c != COLOR_NAMES[code]]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (np.zeros((3, 4)), [0, 1, 1], r"images has shape \(3, 4\)"),
        (np.zeros((0, 4, 4)), [], r"images has shape \(0, 4, 4\)"),
        (np.zeros((3, 4, 4), dtype=np.int64), [0, 1, 1], "images has dtype int64.*uint8"),
        (np.full((3, 4, 4), 255.0), [0, 1, 1], "Divide values from 0 to 255 by 255"),
        (np.full((3, 4, 4), np.nan), [0, 1, 1], "NaN"),
        (np.zeros((3, 4, 4)), [0, 1], "labels has 2 values for 3 images"),
        (np.zeros((3, 4, 4)), [0, 1, None], "labels has missing values"),
        (np.zeros((3, 4, 4)), [0, 0, 0], "labels has 1 classes"),
        (np.zeros((11, 4, 4)), range(11), "labels has 11 classes"),
    ],
    ids=str,
)
def test_bad_images_or_labels(images, labels, message):
    with pytest.raises(ValueError, match=message):
        color_digits(images, list(labels))


@pytest.mark.parametrize(
    "change", [{"target": "shape"}, {"correlation": 1.5}, {"jitter": -1}, {"random_state": "x"}]
)
def test_bad_parameters(change):
    with pytest.raises(ValueError, match=f"The '{next(iter(change))}' parameter"):
        make_colored_digits(**change)
