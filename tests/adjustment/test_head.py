"""Heads: which one the data ask for, how one is trained, and what becomes of it."""

import numpy as np
import pytest
import torch
from spurious import spurious
from torch import nn

from skfair.adjustment import _head
from skfair.adjustment._head import (
    as_layer,
    first_projected,
    fit_hidden_layer,
    hidden_layer_is_better,
)
from skfair.adjustment._linear import Linear, fit_softmax, principal_components

CPU = torch.device("cpu")


def projected(X, n_components=None):
    n_components = n_components or X.shape[1]
    return principal_components(X, np.ones(len(X)), n_components, np.random.RandomState(0))(X)


def xor(n, seed=0):
    """Rows whose class is told by the signs of two features together."""
    X = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    X[:, :2] *= 3
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def better(X, y, seed=0, weight=None):
    weight = np.ones(len(y)) if weight is None else weight
    return hidden_layer_is_better(
        projected(X), y, weight, ridge=0.02, random_state=np.random.RandomState(seed), device=CPU
    )


def hidden(Z, y, offset=None, weight=None, n_classes=2, seed=0):
    return fit_hidden_layer(
        Z,
        y,
        np.ones(len(y)) if weight is None else weight,
        np.zeros((len(y), n_classes)) if offset is None else offset,
        seed=seed,
        device=CPU,
        description=None,
    )


def logits(module, Z):
    with torch.no_grad():
        return module(torch.from_numpy(Z.astype(np.float32))).numpy()


# The choice -------------------------------------------------------------------------------


def test_only_what_is_not_linear_gets_a_hidden_layer():
    assert better(*xor(1500)) is True
    for seed in range(3):
        X, y, _ = spurious(1500, agree=0.5, seed=seed)
        assert better(X, y, seed) is False


def test_the_choice_is_made_for_all_classes_alike():
    # Nothing can be learnt. A head that ignores the rare class is right more often, but not better.
    X = np.random.default_rng(0).normal(size=(1500, 6)).astype(np.float32)
    assert not better(X, (np.arange(1500) % 20 == 0).astype(int))


def test_many_samples_are_compared_by_a_part(monkeypatch):
    seen = []
    fit = _head.fit_softmax

    def noted(Z, *args, **kwargs):
        seen.append(len(Z))
        return fit(Z, *args, **kwargs)

    monkeypatch.setattr(_head, "fit_softmax", noted)
    monkeypatch.setattr(_head, "_MOST_COMPARED", 400)
    assert better(*xor(1500)) is True
    assert seen == [200, 200]


@pytest.mark.parametrize("sizes", [(30, 1), (1, 1), (20, 20, 1)])
def test_a_class_of_one_sample_cannot_be_compared(sizes):
    y = np.repeat(np.arange(len(sizes)), sizes)
    X = np.random.default_rng(0).normal(size=(len(y), 3)).astype(np.float32)
    assert better(X, y) is False


# Training ---------------------------------------------------------------------------------


def test_a_hidden_layer_learns_what_a_line_cannot():
    X, y = xor(1500)
    Z = projected(X)
    line = fit_softmax(Z, y, np.ones(1500), 2, ridge=0.02)
    assert (line(Z).argmax(axis=1) == y).mean() < 0.65
    assert (logits(hidden(Z, y), Z).argmax(axis=1) == y).mean() > 0.85


def test_offsets_belong_to_training_only():
    # The rows tell nothing. Three of four are of class 0, and the offsets hold this share.
    Z, y = np.zeros((400, 3)), (np.arange(400) % 4 == 0).astype(int)
    plain = logits(hidden(Z, y), Z)[0]
    assert plain[0] - plain[1] == pytest.approx(np.log(3), abs=0.2)
    offset = np.log([[0.75, 0.25]] * 400)
    adjusted = logits(hidden(Z, y, offset), Z)[0]
    assert adjusted[0] - adjusted[1] == pytest.approx(0, abs=0.2)
    # Weights have the same effect.
    weighted = logits(hidden(Z, y, weight=np.where(y == 1, 3.0, 1.0)), Z)[0]
    assert weighted[0] - weighted[1] == pytest.approx(0, abs=0.2)


def test_the_same_seed_gives_the_same_bits_and_generators_are_left_alone():
    X, y = xor(200)
    Z = projected(X)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = (logits(hidden(Z, y, seed=seed), Z) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# As networks ------------------------------------------------------------------------------


def test_a_linear_map_as_a_layer():
    rng = np.random.default_rng(0)
    linear = Linear(rng.normal(size=(3, 4)), rng.normal(size=3))
    X = rng.normal(size=(5, 4))
    layer = as_layer(linear)
    assert type(layer) is nn.Linear
    assert not layer.training
    assert layer.weight.dtype == torch.float32
    np.testing.assert_allclose(logits(layer, X), linear(X), rtol=1e-5, atol=1e-6)


def test_a_head_of_components_becomes_one_of_rows():
    X, y = xor(300)
    projection = principal_components(X + 5, np.ones(300), 4, np.random.RandomState(0))
    head = hidden(projection(X + 5), y)
    expected = logits(head, projection(X + 5))
    whole = first_projected(head, projection)
    assert not whole.training
    assert [type(layer) for layer in whole] == [nn.Linear, nn.ReLU, nn.Linear]
    np.testing.assert_allclose(logits(whole, X + 5), expected, rtol=1e-3, atol=1e-3)
