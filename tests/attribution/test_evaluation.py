"""What a region classifier is worth: temperature, accuracy of positions, whether it is chance."""

import numpy as np
import pytest
import torch

from skfair.attribution._attributes import balanced_weight, encode_attributes
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import fit_temperature, is_informative, position_accuracy


def logits_and_labels(n, n_classes, scale, seed=0):
    """Labels that are drawn from the softmax of the logits, which are then scaled."""
    rng = np.random.default_rng(seed)
    code = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes, 2, 3))
    # Gaussian logits with a shift of one for the true class: exactly calibrated.
    logits[np.arange(n), code] += 1
    return torch.from_numpy(scale * logits), torch.from_numpy(code)


@pytest.mark.parametrize("n_classes, scale", [(2, 1.0), (2, 4.0), (3, 0.3)])
def test_the_temperature_is_that_of_a_slow_search(n_classes, scale):
    logits, code = logits_and_labels(300, n_classes, scale)
    weight = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight /= weight.sum()
    candidates = np.exp(np.linspace(-3, 3, 6001))
    labels = code.numpy()
    losses = []
    true = logits.numpy()[np.arange(300), labels]  # (300, 2, 3)
    for temperature in candidates[::20]:
        norm = np.log(np.exp(logits.numpy() / temperature).sum(1))
        losses.append(weight.numpy() @ (norm - true / temperature).mean((1, 2)))
    slow = candidates[::20][np.argmin(losses)]
    found = fit_temperature(logits, code, weight)
    assert found == pytest.approx(slow, rel=0.03)
    # A network that is right about its confidence has one of its own scale.
    assert found == pytest.approx(scale, rel=0.2)


def test_an_overconfident_network_is_cooled_and_a_timid_one_heated():
    weight = torch.full((400,), 1 / 400)
    assert fit_temperature(*logits_and_labels(400, 2, 5.0), weight) > 2
    assert fit_temperature(*logits_and_labels(400, 2, 0.2), weight) < 0.5


def test_weights_decide_which_images_count():
    # Half of the images say one thing, half the contrary.
    right, wrong = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    logits = torch.stack([right] * 3 + [wrong])[:, :, None, None]
    code = torch.zeros(4, dtype=torch.int64)
    even = fit_temperature(logits, code, torch.full((4,), 0.25))
    # Three of four right is a probability of 3/4: 2 / T = log 3.
    assert even == pytest.approx(2 / np.log(3), rel=1e-3)
    skewed = fit_temperature(logits, code, torch.tensor([0.3, 0.3, 0.3, 0.1]))
    assert skewed == pytest.approx(2 / np.log(9), rel=1e-3)


def test_temperatures_are_bounded():
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)[:, :, None, None]
    one = torch.ones(1)
    assert fit_temperature(logits, torch.tensor([0]), one) == pytest.approx(0.05, rel=0.05)
    assert fit_temperature(logits, torch.tensor([1]), one) == pytest.approx(20, rel=0.05)


def test_the_accuracy_of_positions_by_hand():
    hits = np.array([[[True, False]], [[True, True]], [[False, True]]])
    found = position_accuracy(hits, np.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(found, [[0.75, 0.5]])
    assert found.dtype == np.float64


def test_balanced_weights_by_hand():
    found = balanced_weight(np.array([3, 0, 3, 3]))
    np.testing.assert_allclose(found, [1 / 6, 1 / 2, 1 / 6, 1 / 6])
    # Cells that do not occur have no share.
    assert balanced_weight(np.array([0, 7])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("n, n_classes, share", [(40, 2, 0.5), (200, 2, 0.1), (120, 3, 0.4)])
def test_false_alarms_are_as_rare_as_promised(n, n_classes, share):
    rng = np.random.default_rng(0)
    rest = (1 - share) / (n_classes - 1)
    alarms, draws = 0, 600
    for _ in range(draws):
        sizes = [round(n * rest)] * (n_classes - 1) + [round(n * share)]
        code = rng.permutation(np.repeat(np.arange(n_classes), sizes))
        # Nothing but guesses at many positions, some of which look good by chance.
        guesses = rng.integers(n_classes, size=(len(code), 6, 6))
        alarms += is_informative(guesses == code[:, None, None], code)
    assert alarms / draws < 0.01 + 4 * (0.01 * 0.99 / draws) ** 0.5


@pytest.mark.parametrize("n, n_classes", [(40, 2), (60, 3)])
def test_a_single_good_position_is_found(n, n_classes):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(50):
        code = np.arange(n) % n_classes
        guesses = rng.integers(n_classes, size=(n, 6, 6))
        guesses[:, 4, 1] = np.where(rng.random(n) < 0.95, code, guesses[:, 4, 1])
        found.append(is_informative(guesses == code[:, None, None], code))
    assert np.mean(found) > 0.95


def test_always_the_larger_class_is_not_informative():
    code = np.repeat([0, 1], [95, 5])
    assert not is_informative(np.broadcast_to(code == 0, (4, 5, 100)).transpose(2, 0, 1), code)


def test_confidences_by_hand():
    probability = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.1, 0.2], [0.0, 1.0, 0.0]])
    assert CONFIDENCES["top"](probability).tolist() == pytest.approx([0.5, 0.7, 1.0])
    assert CONFIDENCES["margin"](probability).tolist() == pytest.approx([0.0, 0.5, 1.0])
    expected = [np.log(0.5), 0.7 * np.log(0.7) + 0.1 * np.log(0.1) + 0.2 * np.log(0.2), 0.0]
    assert CONFIDENCES["negative_entropy"](probability).tolist() == pytest.approx(expected)


def test_columns_are_one_attribute_or_several():
    columns = {"glasses": ["y", "n", "y", "n"], "hat": [1, 1, 0, 1]}
    joint = encode_attributes(columns, n_samples=4, combine=True)
    assert joint.codes[:, 0].tolist() == [2, 0, 1, 0]
    assert list(joint.classes[0]) == [("n", 1), ("y", 0), ("y", 1)]
    apart = encode_attributes(columns, n_samples=4, combine=False)
    assert apart.names == ("glasses", "hat")
    assert apart.codes.tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]
    assert [list(classes) for classes in apart.classes] == [["n", "y"], [0, 1]]
    for attributes in (joint, apart):
        assert attributes.cell.tolist() == [2, 0, 1, 0]
        assert attributes.take(np.array([1, 2])).cell.tolist() == [0, 1]
