"""Evaluation of a region classifier: temperature, accuracy of positions, test against chance."""

import numpy as np
import pytest
import torch

from skfair.attribution._attributes import (
    balanced_weight,
    encode_attributes,
    encode_classes,
    positive_classes,
)
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import (
    auc_of_classes,
    best_threshold,
    choose_positive,
    fit_temperature,
    highest_probability,
    is_informative,
    position_accuracy,
)


def logits_and_labels(n, n_classes, scale, seed=0):
    """Labels drawn from the softmax of logits, and these logits times a scale."""
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
    # The temperature of a calibrated network is 1, times the scale.
    assert found == pytest.approx(scale, rel=0.2)


def test_an_overconfident_network_is_cooled_and_a_timid_one_heated():
    weight = torch.full((400,), 1 / 400)
    assert fit_temperature(*logits_and_labels(400, 2, 5.0), weight) > 2
    assert fit_temperature(*logits_and_labels(400, 2, 0.2), weight) < 0.5


def test_weights_decide_which_images_count():
    # Half of the images say one class, half the other.
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


def drawn(rng, n, n_classes):
    """Probabilities of a region classifier that learned nothing: some of them are high."""
    logits = 2 * rng.normal(size=(n, n_classes, 1, 1)) + rng.normal(size=(n, n_classes, 4, 5))
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "n, n_classes, share",
    [(8, 2, 0.5), (40, 2, 0.5), (60, 2, 0.1), (400, 2, 0.1), (60, 3, 0.4), (80, 4, 0.3)],
)
def test_false_alarms_are_as_rare_as_promised(n, n_classes, share):
    rng = np.random.default_rng(0)
    rest = (1 - share) / (n_classes - 1)
    sizes = [round(n * rest)] * (n_classes - 1) + [round(n * share)]
    alarms, draws = 0, 400
    for _ in range(draws):
        code = rng.permutation(np.repeat(np.arange(n_classes), sizes))
        alarms += is_informative(drawn(rng, len(code), n_classes), code)
    assert alarms / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5


@pytest.mark.parametrize("shuffle", range(3))
def test_a_classifier_that_says_the_same_of_all_images_is_not_informative(shuffle):
    code = np.random.default_rng(shuffle).permutation(np.repeat([0, 1], [95, 5]))
    one = drawn(np.random.default_rng(shuffle), 1, 2)
    assert not is_informative(np.broadcast_to(one, (100, 2, 4, 5)), code)


@pytest.mark.parametrize("n, n_classes", [(40, 2), (60, 3), (200, 2)])
@pytest.mark.parametrize("where", ["fixed", "moving", "everywhere"])
def test_what_is_there_is_found(n, n_classes, where):
    """The last class shows in one patch, the same or another one in each image, or a bit in all."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        code = np.arange(n) % n_classes
        proba = 0.3 * drawn(rng, n, n_classes) + 0.7 / n_classes
        has = np.flatnonzero(code == n_classes - 1)
        if where == "everywhere":
            shift = np.where(np.arange(n_classes) == n_classes - 1, 0.4, 0.0)
            proba[has] = (proba[has] + shift[:, None, None]) / 1.4
        else:
            rows, columns = rng.integers(0, (4, 5), size=(len(has), 2)).T
            if where == "fixed":
                rows, columns = 2, 1
            proba[has, :, rows, columns] = 0.1 / (n_classes - 1)
            proba[has, -1, rows, columns] = 0.9
        found.append(is_informative(proba, code))
    assert np.mean(found) > 0.95


def test_what_is_known_of_absence_only_is_found_too():
    # Images without a logo have one patch that says so; images with a logo have no such patch.
    rng = np.random.default_rng(0)
    code = np.arange(60) % 2
    proba = np.full((60, 2, 3, 3), 0.5)
    absent = rng.uniform(0.6, 0.9, 30)
    proba[code == 0, :, 1, 1] = np.stack([absent, 1 - absent], 1)
    assert is_informative(proba, code)


def test_the_p_value_by_hand():
    # Four images a class whose highest probabilities are in the order of their class: of the
    # 70 orders of eight images one is like this, a p-value of 1 / 70. There are three tests.
    def probability(n):
        highest = np.linspace(0.6, 0.9, 2 * n)  # of the second class
        proba = np.full((2 * n, 2, 1, 2), 0.5)
        proba[:, 1, 0, 0], proba[:, 0, 0, 0] = highest, 1 - highest
        return proba

    assert 3 / 70 <= 0.05
    assert is_informative(probability(4), np.repeat([0, 1], 4))
    assert 3 / 20 > 0.05
    assert not is_informative(probability(3), np.repeat([0, 1], 3))


def test_probabilities_of_zero_and_one_are_no_trouble():
    code = np.arange(40) % 2
    proba = np.stack([1.0 - code, code], 1)[:, :, None, None]
    assert is_informative(proba.astype(np.float32), code)
    assert not is_informative(proba[:, ::-1], code)  # always wrong


def test_the_highest_probability_by_hand():
    proba = np.zeros((2, 2, 2, 3))
    proba[0, 1, 1, 2], proba[0, 0, 0, 0], proba[1, 0, 1, 1] = 0.75, 0.5, 0.25
    assert highest_probability(proba).tolist() == [[0.5, 0.75], [0.25, 0.0]]


def test_areas_by_hand():
    # Class 0: 0.9 is above two of three others, 0.1 is above none; a tie counts half.
    score = np.array([[0.9, 0.0], [0.1, 0.0], [0.1, 0.2], [0.95, 0.1], [0.2, 0.3]])
    found = auc_of_classes(score, np.array([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(found, [2.5 / 6, 1.0])


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (0, 20, 1),  # the second class tells
        (20, 0, 0),  # the first class tells
        (20, 20, 1),  # both tell, as if the attribute were at one place
        (0, 0, 1),
        # By chance an area of one half is off by sqrt(40 / 12 / 20 / 20), which is 0.0913.
        (7, 0, 1),
        (8, 0, 0),
        (20, 13, 1),
        (20, 12, 0),
    ],
)
def test_the_value_that_means_present(first, second, expected):
    code = np.repeat([0, 1], 20)
    score = np.zeros((40, 2))
    # This number of twenty is above all others, and the rest ties: areas of 1/2 + number / 40.
    score[:first, 0] = score[20 : 20 + second, 1] = 1
    np.testing.assert_allclose(auc_of_classes(score, code), [0.5 + first / 40, 0.5 + second / 40])
    assert choose_positive(score, code) == expected


@pytest.mark.parametrize(
    "score, has, expected",
    [
        ([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], 0.4),
        ([0.1, 0.8, 0.6, 0.2], [0, 1, 1, 0], 0.4),
        # "Half of those with, no other" is better than "all of those with, half of the others".
        ([0.1, 0.2, 0.3, 0.4, 0.35, 0.3, 0.9, 0.95], [0, 0, 0, 0, 1, 1, 1, 1], 0.65),
        # The only image without weighs as much as all images with the attribute.
        ([0.5, 0.4, 0.6, 0.7, 0.8], [0, 1, 1, 1, 1], 0.55),
    ],
)
def test_the_threshold_by_hand(score, has, expected):
    found = best_threshold(np.array(score), np.array(has, dtype=bool))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    score, has = rng.integers(0, 30, size=50) / 30, rng.random(50) < 0.4

    def balanced(threshold):
        found = score >= threshold
        return found[has].mean() + (~found[~has]).mean()

    best = max(balanced(t) for t in [*score, 2.0])
    assert balanced(best_threshold(score, has)) == best


def test_a_threshold_of_equal_scores():
    assert best_threshold(np.full(6, 0.5), np.arange(6) % 2 == 1) == 0.5


def test_confidences_by_hand():
    probability = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.1, 0.2], [0.0, 1.0, 0.0]])
    assert CONFIDENCES["top"](probability).tolist() == pytest.approx([0.5, 0.7, 1.0])
    assert CONFIDENCES["margin"](probability).tolist() == pytest.approx([0.0, 0.5, 1.0])
    expected = [np.log(0.5), 0.7 * np.log(0.7) + 0.1 * np.log(0.1) + 0.2 * np.log(0.2), 0.0]
    assert CONFIDENCES["negative_entropy"](probability).tolist() == pytest.approx(expected)
    # The highest probability, scaled from a third to one, or that of the class asked for.
    expected = [(0.5 - 1 / 3) * 1.5, (0.7 - 1 / 3) * 1.5, 1.0]
    assert CONFIDENCES["probability"](probability).tolist() == pytest.approx(expected)
    third = torch.full((1, 3), 1 / 3)
    assert CONFIDENCES["probability"](third).item() == pytest.approx(0, abs=1e-7)
    assert CONFIDENCES["probability"](probability, 2).tolist() == pytest.approx([0.0, 0.2, 0.0])
    for name in ("top", "margin", "negative_entropy"):
        assert torch.equal(CONFIDENCES[name](probability, 1), CONFIDENCES[name](probability))


def test_columns_are_one_attribute_or_several():
    columns = {
        "glasses": [*"ynyn", *"nnnn", *"nn", *"yyy", *"yyy"],
        "hat": [1, 1, 0, 1, *[0] * 4, *[1] * 2, *[0] * 3, *[1] * 3],
    }
    joint = encode_attributes(columns, n_samples=16, combine=True)
    assert joint.codes[:4, 0].tolist() == [3, 1, 2, 1]
    expected = [("n", 0), ("n", 1), ("y", 0), ("y", 1)]
    assert list(joint.classes[0]) == expected
    apart = encode_attributes(columns, n_samples=16, combine=False)
    assert apart.names == ("glasses", "hat")
    assert apart.codes[:4].tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]
    assert [list(classes) for classes in apart.classes] == [["n", "y"], [0, 1]]
    for attributes in (joint, apart):
        assert attributes.cell[:4].tolist() == [3, 1, 2, 1]
        assert attributes.take(np.array([1, 2])).cell.tolist() == [1, 2]


# Attributes and classes -------------------------------------------------------------------


def attributes_of(columns, combine=False):
    return encode_attributes(columns, n_samples=len(next(iter(columns.values()))), combine=combine)


@pytest.mark.parametrize(
    "values, pos_label, expected",
    [
        (["with", "without"], "with", 0),
        (["with", "without"], "without", 1),
        (["with", "without"], None, None),
        ([0, 1], 1, 1),
        ([0, 1], True, 1),
        ([False, True], 0, 0),
        ([-1.0, 1.0], -1, 0),
    ],
)
def test_the_class_that_is_asked_for(values, pos_label, expected):
    attributes = attributes_of({"a": np.array(values * 4)})
    assert positive_classes(attributes, pos_label) == [expected]


def test_a_label_holds_where_it_is_one():
    columns = {"a": ["x", "y"] * 8, "b": [0, 1] * 8, "c": ["x", "y", "z", "z"] * 4}
    assert positive_classes(attributes_of(columns), "y") == [1, None, None]


@pytest.mark.parametrize(
    "columns, pos_label",
    [
        ({"a": ["with", "without"] * 4}, "glasses"),
        ({"a": ["with", "without"] * 4}, 1),
        ({"a": [0, 1] * 4}, "1"),
        ({"a": ["x", "y", "z", "z"] * 4}, "x"),
    ],
)
def test_labels_that_no_attribute_has(columns, pos_label):
    match = rf"pos_label={pos_label!r} is not a value of an attribute that has two.*values are"
    with pytest.raises(ValueError, match=match):
        positive_classes(attributes_of(columns), pos_label)


@pytest.mark.parametrize(
    "y, expected",
    [
        (["cat", "dog", "cat"], [0, 1, 0]),
        ([7, 3, 5], [2, 0, 1]),
        (np.array([[1], [0], [1]]), [1, 0, 1]),
        ([True, False, False], [1, 0, 0]),
        (None, [0, 0, 0]),
        ([0.1, 0.25, 3.0], [0, 0, 0]),  # continuous
        (np.eye(3, dtype=int), [0, 0, 0]),  # several labels an image
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_classes_of_images(y, expected):
    found = encode_classes(y, n_samples=3)
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_classes_of_other_images():
    with pytest.raises(ValueError, match=r"y has 2 values and X 3 images\. Give the class of each"):
        encode_classes([0, 1], n_samples=3)
