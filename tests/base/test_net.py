"""The sliced iterator, the weighted loss and the best epoch, against slow references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skfair.base._net import (
    EpochBar,
    TensorBatches,
    TensorData,
    TensorNet,
    as_tensor,
    forward_batches,
    rows_at_once,
)


def data(n, **inputs):
    return TensorData(torch.arange(n), X=torch.arange(n).float()[:, None], **inputs)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), shuffle=st.booleans())
@settings(deadline=None)
def test_a_pass_gives_every_sample_once(n, batch_size, shuffle):
    batches = TensorBatches(data(n), batch_size, shuffle=shuffle)
    seen = []
    for inputs, (target, weight) in batches:
        assert len(target) <= batch_size
        assert torch.equal(inputs["X"][:, 0], target.float())
        assert torch.equal(weight, torch.ones(len(target)))
        seen += target.tolist()
    assert sorted(seen) == list(range(n))
    assert shuffle or seen == list(range(n))
    assert len(batches) == len(list(batches))


def test_every_pass_is_shuffled_anew():
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    batches = TensorBatches(data(100), 10, shuffle=True)
    first, second = ([t.tolist() for _, (t, _) in batches] for _ in range(2))
    torch.set_rng_state(torch_state)
    assert first != second


def test_sampling_weights_set_the_shares():
    # Sample 2 of weight 3 among weights 0, 1, 3: three of four draws, sample 0 never.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dataset = TensorData(torch.tensor([0, 1, 2]).repeat(4000), X=torch.zeros(12000, 1))
        weight = torch.tensor([0.0, 1.0, 3.0]).repeat(4000)
        drawn = torch.cat([t for _, (t, _) in TensorBatches(dataset, 512, sampling_weight=weight)])
    counts = torch.bincount(drawn, minlength=3)
    assert len(drawn) == 12000
    assert counts[0] == 0
    assert counts[2] / 12000 == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 12000) ** 0.5)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, X):
        return X[:, 0] * self.slope


def line_net(**kwargs):
    return TensorNet(
        Line, nn.MSELoss, criterion__reduction="none", optimizer=torch.optim.SGD, **kwargs
    )


def test_the_loss_is_the_mean_of_weighted_losses():
    # One full-batch SGD step from slope 0 on x=1, targets 2 and 6, weights 1.5 and .5:
    # gradient = mean(w * -2 * t) = -(3 + 3) = -6, so the slope becomes lr * 6.
    dataset = TensorData(torch.tensor([2.0, 6.0]), torch.tensor([1.5, 0.5]), X=torch.ones(2, 1))
    net = line_net(lr=0.01, max_epochs=1, batch_size=2).fit(dataset, None)
    assert net.module_.slope.item() == pytest.approx(0.06)


def test_the_bar_counts_epochs(capsys):
    dataset = TensorData(torch.ones(4), X=torch.ones(4, 1))
    line_net(max_epochs=3, callbacks=[EpochBar("a stage")]).fit(dataset, None)
    assert "a stage: 100%" in capsys.readouterr().err


@given(n=st.integers(0, 30), batch_size=st.integers(1, 40))
@settings(deadline=None)
def test_forward_in_batches_equals_one_pass(n, batch_size):
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).double().eval()
    X = torch.arange(3.0 * n).double().reshape(n, 3)
    out = forward_batches(module, X.numpy(), batch_size=batch_size, device=torch.device("cpu"))
    np.testing.assert_allclose(out.numpy(), module[0](X).detach().numpy(), rtol=1e-12)
    assert not out.requires_grad


@pytest.mark.parametrize(
    "shape, rows",
    [
        ((100, 98), 8192),
        ((100, 3, 32, 32), 1365),
        ((0, 3, 32, 32), 1365),
        ((100, 3, 224, 224), 27),
        ((5, 3, 4096, 4096), 1),
        ((7,), 8192),
    ],
)
def test_images_go_through_a_network_in_smaller_batches_than_features(shape, rows):
    assert rows_at_once(math.prod(shape[1:])) == rows


def test_a_tensor_of_an_array_lies_row_by_row():
    array = np.arange(6.0).reshape(2, 3)
    for other in (
        np.asfortranarray(array),
        array[::-1].copy()[::-1],
        np.repeat(array, 2, 1)[:, ::2],
    ):
        tensor = as_tensor(other)
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert np.shares_memory(as_tensor(array).numpy(), array)
