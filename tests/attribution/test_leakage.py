"""Whether a network still tells the attribute: the measurement, the choice and the warnings."""

import copy

import numpy as np
import pytest
import torch

from skfair.attribution import _masker
from skfair.attribution._decisions import describe_leakage, worst_leakage
from skfair.attribution._leakage import Leakage, comparable_images, measure_leakage
from skfair.utils import LeakageWarning, UninformativeAttributionWarning

pytestmark = pytest.mark.thorough


def measured(X, has, y=None, seed=0):
    return measure_leakage(
        torch.from_numpy(X),
        np.asarray(has, dtype=int),
        np.zeros(len(X), dtype=int) if y is None else np.asarray(y, dtype=int),
        n_classes=2,
        mean=X.mean((0, 2, 3)),
        std=X.std((0, 2, 3)),
        seed=seed,
        device=torch.device("cpu"),
    )


def hide(data):
    """Images whose true pixels have one grey."""
    X = data.X.copy()
    X[:, :, data.inside] = 50
    return X


@pytest.fixture(scope="module")
def stamped(planted):
    return planted(n=160, seed=11)


# The measurement --------------------------------------------------------------------------


def test_what_is_untouched_is_told(stamped):
    found = measured(stamped.X, stamped.has)
    assert found.accuracy > 0.95
    assert found.low > 0.85
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
    assert found.chance == 0.5


def test_what_is_hidden_is_not(stamped):
    hidden = [measured(hide(stamped), stamped.has, seed=seed) for seed in range(4)]
    assert np.mean([one.accuracy for one in hidden]) == pytest.approx(0.5, abs=0.06)
    # Each interval misses one half with a probability of one in twenty.
    assert sum(one.low <= 0.5 <= one.high for one in hidden) >= 3


def test_a_part_that_is_left_is_told(stamped):
    X = hide(stamped)
    left = np.zeros_like(stamped.inside)
    left[4, 6:10] = True  # one row of four
    X[:, :, left] = stamped.X[:, :, left]
    assert measured(X, stamped.has).low > 0.6


def test_the_same_seed_gives_the_same_bits_and_moves_nothing(stamped):
    before = torch.get_rng_state()
    first, second = (measured(hide(stamped), stamped.has, seed=5) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert first != measured(hide(stamped), stamped.has, seed=6)


def test_what_goes_along_with_the_class_is_no_leak(planted):
    # The image shows the class clearly, and the attribute only as far as the class predicts it.
    data = planted(n=240, seed=6)
    y = np.where(np.random.default_rng(1).random(240) < 0.85, data.has, ~data.has)
    X = hide(data)
    X[y] += 60
    assert measured(X, data.has).low > 0.7
    within = measured(X, data.has, y)
    assert within.low <= 0.5 <= within.high
    # A rest of the attribute itself is a leak.
    X = data.X.copy()
    X[y] += 20
    assert measured(X, data.has, y).low > 0.7


def test_the_interval_by_hand(monkeypatch):
    # Networks that are right about eight of ten images without, and ten of ten with it.
    has = np.repeat([0, 1], 10)
    X = np.zeros((20, 1, 4, 4), dtype=np.float32)
    X[:, 0, 0, 0] = np.r_[1, 1, np.zeros(8), np.ones(10)]

    class Reads(torch.nn.Module):
        def forward(self, images):
            return torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0]], 1)

    monkeypatch.setattr(
        "skfair.attribution._leakage.train_with_adam", lambda *args, **kwargs: (Reads(), None)
    )
    found = measured(X, has)
    assert found.accuracy == pytest.approx(0.9)
    # Recalls of (8 + 2) / 14 and 12 / 14 have variances of 40 / 14**3 and 24 / 14**3.
    error = 1.959964 * (64 / 14**3) ** 0.5 / 2
    assert found.low == pytest.approx(0.9 - error, rel=1e-6)
    assert found.high == min(0.9 + error, 1.0)


def test_each_image_is_judged_by_a_network_that_has_not_seen_it(monkeypatch):
    seen, judged = [], []

    class Notes(torch.nn.Module):
        def forward(self, images):
            judged.append(images[:, 0, 0, 0].tolist())
            return torch.zeros(len(images), 2)

    def train(module, data, **kwargs):
        seen.append(data)
        sizes.append(len(data))
        weights.append(kwargs["iterator_train__sampling_weight"])
        return Notes(), None

    sizes, weights = [], []
    monkeypatch.setattr("skfair.attribution._leakage.TensorData", lambda y, images: images)
    monkeypatch.setattr("skfair.attribution._leakage.train_with_adam", train)
    X = np.broadcast_to(np.arange(48.0, dtype=np.float32)[:, None, None, None], (48, 1, 2, 2))
    has, y = np.arange(48) % 4 == 0, np.arange(48) % 3 == 0
    measured(X.copy(), has, y)
    trained = [images[:, 0, 0, 0].tolist() for images in seen]
    assert sizes == [24, 24]
    tested = [set(judged[0]), set(judged[1])]
    assert set(trained[0]) == tested[1]
    assert set(trained[1]) == tested[0]
    assert tested[0] | tested[1] == set(range(48))
    for rows, weight in zip(trained, weights, strict=True):
        cell = 2 * y[np.array(rows, int)] + has[np.array(rows, int)]
        share = np.bincount(cell, weights=weight.numpy())
        np.testing.assert_allclose(share / share.sum(), 0.25)  # all cells alike


def test_classes_with_too_few_images_do_not_count():
    code = np.array([0] * 4 + [1] * 4 + [0] * 9 + [1] * 3)
    strata = np.repeat([0, 1], [8, 12])
    assert comparable_images(code, strata).tolist() == list(range(8))
    assert comparable_images(code, np.zeros(20, int)).tolist() == list(range(20))
    assert len(comparable_images(code, code)) == 0


def test_of_several_attributes_the_worst(stamped):
    X = hide(stamped)
    bright = np.arange(160) % 2
    X[bright == 1] += 60
    codes = np.stack([stamped.has, bright], 1).astype(int)
    how = {"mean": X.mean((0, 2, 3)), "std": X.std((0, 2, 3)), "seed": 0}
    found = worst_leakage(
        torch.from_numpy(X), codes, np.zeros(160, int), device=torch.device("cpu"), **how
    )
    assert found == measured(X, bright)


# The warnings -----------------------------------------------------------------------------


FULL, NONE = Leakage(0.9, 0.85, 0.95, 0.5), Leakage(0.52, 0.45, 0.59, 0.5)
UNKNOWN = Leakage(np.nan, np.nan, np.nan, 0.5)


def test_nothing_is_said_where_all_is_hidden():
    assert describe_leakage(FULL, NONE, swapped=False) is None
    assert describe_leakage(FULL, Leakage(0.4, 0.3, 0.5, 0.5), swapped=False) is None


@pytest.mark.parametrize(
    "after, left",
    [
        (Leakage(0.6, 0.55, 0.65, 0.5), "25%"),
        (Leakage(0.7, 0.6, 0.8, 0.5), "50%"),
        (Leakage(0.95, 0.9, 1.0, 0.5), "100%"),
    ],
)
def test_the_share_that_is_left(after, left):
    message = describe_leakage(FULL, after, swapped=False)
    accuracy = f"{after.accuracy:.2f} ({after.low:.2f} to {after.high:.2f})"
    assert f"balanced accuracy of {accuracy}" in message
    assert f"{left} of the leak is left. Hide more (quantile, margin)" in message
    assert "Guessing gets 0.50, and untouched images get 0.90" in message


def test_what_cannot_be_measured():
    message = describe_leakage(UNKNOWN, UNKNOWN, swapped=False)
    assert "leakage_ is NaN" in message
    assert "only perturbation='swap' can separate them" in message
    message = describe_leakage(UNKNOWN, UNKNOWN, swapped=True)
    assert "leakage_ is NaN" in message
    assert "perturbation='swap'" not in message
    message = describe_leakage(NONE, NONE, swapped=False)
    assert "do not tell the attribute from untouched images either" in message


# In fit -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checked(stamped, quick):
    masker = quick(check_leakage=True, quantile=0.85)
    return masker.fit(stamped.X, sensitive_features=stamped.has)


def test_fit_says_how_much_is_left(checked):
    assert checked.leakage_before_ > 0.95
    assert isinstance(checked.leakage_, float)
    low, high = checked.leakage_interval_
    assert low <= 0.5 <= high
    assert low <= checked.leakage_ <= high
    assert checked.quantile_ == 0.85


def test_leakage_is_that_of_the_images_that_mask_gives(stamped, checked):
    drawn = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    X = checked.mask(stamped.X)
    found = measure_leakage(
        torch.from_numpy(X),
        stamped.has.astype(int),
        np.zeros(160, dtype=int),
        n_classes=2,
        mean=checked.channel_mean_,
        std=checked.channel_std_,
        seed=drawn,
        device=torch.device("cpu"),
    )
    assert found.accuracy == checked.leakage_
    assert (found.low, found.high) == checked.leakage_interval_


def test_the_same_seed_gives_the_same_leakage(stamped, checked, quick):
    again = quick(check_leakage=True, quantile=0.85)
    again.fit(stamped.X, sensitive_features=stamped.has)
    for name in ("leakage_", "leakage_interval_", "leakage_before_", "scope_", "quantile_"):
        assert getattr(again, name) == getattr(checked, name)
    np.testing.assert_array_equal(again._donor_maps, checked._donor_maps)


def test_fit_warns_of_what_is_left(stamped, quick):
    # The hole covers two of the sixteen pixels of the stamp.
    masker = quick(check_leakage=True, quantile=0.99, margin=0)
    with pytest.warns(LeakageWarning, match=r"still tells .* of the leak is left") as record:
        masker.fit(stamped.X, sensitive_features=stamped.has)
    assert masker.leakage_ > 0.8
    (one,) = record
    assert one.filename == __file__


def test_an_attribute_that_coincides_with_the_class(stamped, quick):
    masker = quick(check_leakage=True)
    match = r"leakage_ is NaN.*only perturbation='swap' can separate them"
    with pytest.warns(LeakageWarning, match=match):
        masker.fit(stamped.X, stamped.has, sensitive_features=stamped.has)
    assert np.isnan(masker.leakage_)
    assert np.isnan(masker.leakage_interval_).all()
    assert np.isnan(masker.leakage_before_)


def test_nothing_is_measured_if_not_asked_for(fitted):
    for name in ("leakage_", "leakage_interval_", "leakage_before_"):
        assert not hasattr(fitted, name)


@pytest.fixture
def strata_seen(monkeypatch):
    """The classes that the measurement gets; nothing is measured."""
    seen = []

    def note(images, codes, strata, **how):
        seen.append(strata)
        return NONE if seen[1:] else FULL

    monkeypatch.setattr(_masker, "worst_leakage", note)
    return seen


@pytest.mark.parametrize(
    "kind, n_classes", [("binary", 2), ("words", 3), ("continuous", 1), ("none", 1)]
)
def test_classes_that_are_given(stamped, quick, strata_seen, kind, n_classes):
    rng = np.random.default_rng(0)
    y = {
        "binary": rng.integers(2, size=160),
        "words": rng.choice(["cat", "dog", "fish"], size=160),
        "continuous": rng.normal(size=160),
        "none": None,
    }[kind]
    masker = quick(check_leakage=True, max_epochs=2)
    masker.fit(stamped.X, y, sensitive_features=stamped.has)
    for strata in strata_seen:
        assert len(np.unique(strata)) == n_classes
        if n_classes > 1:
            assert strata.tolist() == np.unique(y, return_inverse=True)[1].tolist()


def test_classes_of_other_images(stamped, quick):
    masker = quick(check_leakage=True)
    with pytest.raises(ValueError, match="y has 159 values and X 160 images"):
        masker.fit(stamped.X, stamped.has[1:], sensitive_features=stamped.has)
    assert not hasattr(masker, "module_")


# quantile="auto" --------------------------------------------------------------------------


@pytest.fixture
def measuring(monkeypatch):
    """Replace the leakage by one that falls with the share of pixels of the fill colour."""

    def put(least):
        areas = []

        def fake(images, codes, strata, **how):
            areas.append((images == 201).all(1).double().mean().item())
            if areas[-1] == 0:
                return FULL
            told = areas[-1] < least
            accuracy = 0.9 - areas[-1]
            return Leakage(accuracy, 0.51 if told else 0.4, 1.0, 0.5)

        monkeypatch.setattr(_masker, "worst_leakage", fake)
        return areas

    return put


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_the_smallest_area_that_hides_is_taken(stamped, quick, measuring, scope):
    parameters = {"quantile": "auto", "check_leakage": True, "fill": 201, "scope": scope}
    all_areas = measuring(2.0)  # never enough
    with pytest.warns(LeakageWarning, match="still tells"):
        masker = quick(**parameters).fit(stamped.X, sensitive_features=stamped.has)
    untouched, *areas = all_areas
    assert untouched == 0
    assert len(areas) == 4
    assert 0.02 < areas[0] < areas[1] <= areas[2] <= areas[3] < 0.9
    # If no area is enough, the area with the lowest leakage.
    assert masker.leakage_ == pytest.approx(0.9 - areas[3])
    for i, least in enumerate((areas[0], areas[1])):
        tried = measuring(least - 1e-9)
        masker = quick(**parameters).fit(stamped.X, sensitive_features=stamped.has)
        assert len(tried) == 2 + i
        assert masker.leakage_ == pytest.approx(0.9 - areas[i])
        hidden = masker.perturbed_pixels(stamped.X)
        assert hidden.mean() == pytest.approx(areas[i])
        assert masker.scope_ == scope
        # The parameter can be set to this quantile, and to another.
        explicit = copy.deepcopy(masker).set_params(quantile=masker.quantile_)
        np.testing.assert_array_equal(explicit.perturbed_pixels(stamped.X), hidden)
        other = copy.deepcopy(masker).set_params(quantile=0.5)
        assert other.perturbed_pixels(stamped.X).mean() > hidden.mean()


def test_an_area_without_a_measurement(stamped, quick, monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("measured")

    monkeypatch.setattr(_masker, "worst_leakage", fail)
    masker = quick(quantile="auto").fit(stamped.X, sensitive_features=stamped.has)
    # Three quarters of the height of the general map, from its median.
    middle, high = np.median(masker.mean_map_), masker.mean_map_.max()
    below = (masker.mean_map_ <= middle + 0.75 * (high - middle)).mean()
    assert masker.quantile_ == pytest.approx(below, abs=1e-6)


# Fits that fail, bad cases ----------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_fit_that_ends_in_the_measurement_leaves_the_last_one(
    data, fitted, quick, monkeypatch, error
):
    masker = copy.deepcopy(fitted).set_params(check_leakage=True)
    before, expected = dict(vars(masker)), masker.mask(data.X[:5])

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(_masker, "worst_leakage", fail)
    with pytest.raises(error):
        masker.fit(data.X / 255, sensitive_features=data.has)
    assert vars(masker) == before
    np.testing.assert_array_equal(masker.mask(data.X[:5]), expected)


def test_a_square_anywhere_is_found_and_hidden_without_a_warning(quick):
    """A case that failed before: the moving square was found, but a warning denied it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 3, 32, 32)).cumsum(2).cumsum(3)
    X = (255 * (X - X.min()) / np.ptp(X)).astype(np.uint8)
    has = np.arange(160) % 2 == 0
    for row, (y, x) in zip(np.flatnonzero(has), rng.integers(0, 27, size=(80, 2)), strict=True):
        X[row, :, y : y + 6, x : x + 6] = np.array([230, 40, 40])[:, None, None]
    masker = quick(
        patch_size=8, max_epochs=8, check_leakage=True, quantile="auto", validation_fraction=0.2
    )
    masker.fit(X, sensitive_features=has)  # warnings are errors
    assert masker.informative_
    assert masker.attribute_auc_ > 0.95
    assert masker.scope_ == "specific"
    assert masker.leakage_interval_[0] <= 0.5
    assert masker.leakage_before_ > 0.9


def test_swapped_images_do_not_tell(squares, quick):
    X, has, _ = squares(n=200, seed=3)
    masker = quick(
        stride=1, max_epochs=8, position_embedding=False, perturbation="swap", check_leakage=True
    )
    masker.fit(X, sensitive_features=has)
    assert masker.leakage_before_ > 0.95
    assert masker.leakage_interval_[0] <= 0.5


def test_what_is_not_told_from_untouched_images(stamped, quick):
    masker = quick(check_leakage=True)
    shuffled = np.random.default_rng(5).permutation(stamped.has)
    with (
        pytest.warns(LeakageWarning, match="untouched images either"),
        pytest.warns(UninformativeAttributionWarning),
    ):
        masker.fit(stamped.X, sensitive_features=shuffled)
    assert masker.informative_ is False
