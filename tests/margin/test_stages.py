"""The pieces of the three stages against arithmetic done by hand or by slow loops."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.margin._amplifier import (
    MAX_CLUSTERED,
    Scatter,
    balanced_accuracy,
    class_shares,
    class_tilt,
    cluster_features,
    effective_rank,
    feature_scale,
    nearest_centre,
    unit_rows,
)
from skfair.margin._modules import LinearNet, MarginNet, margin_logits
from skfair.margin._stages import check_memory, find_centres, run_amplifier
from skfair.margin._training import Samples

ANGLES = st.floats(0.01, math.pi - 0.01)
MARGINS = st.floats(0, 1.3)


@given(angle=ANGLES, margin=MARGINS, scale=st.floats(0.5, 20))
def test_the_margin_widens_the_angle(angle, margin, scale):
    cosine = torch.tensor([[math.cos(angle)]], dtype=torch.float64)
    logit = margin_logits(cosine, torch.tensor([[margin]], dtype=torch.float64), scale).item()
    if angle + margin < math.pi - 1e-6:
        assert logit == pytest.approx(scale * math.cos(angle + margin), abs=1e-5 * scale)
    else:  # the guard: a line that goes on down
        expected = scale * (math.cos(angle) - margin * math.sin(margin))
        assert logit == pytest.approx(expected, abs=1e-5 * scale)


@given(first=ANGLES, second=ANGLES, margin=MARGINS)
def test_a_wider_angle_never_scores_higher(first, second, margin):
    near, far = sorted((first, second))
    cosines = torch.tensor([[math.cos(near)], [math.cos(far)]], dtype=torch.float64)
    near_logit, far_logit = margin_logits(cosines, torch.tensor(margin), 1.0)[:, 0].tolist()
    assert far_logit <= near_logit + 1e-9


def test_the_margin_has_finite_gradients_at_the_poles():
    cosine = torch.tensor([[1.0, -1.0]], requires_grad=True)
    margin_logits(cosine, torch.tensor([[0.5, 0.5]]), 8.0).sum().backward()
    assert torch.isfinite(cosine.grad).all()


@pytest.fixture
def seeded():
    """Draws of torch's default generator that do not depend on the tests before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.usefixtures("seeded")
def test_training_adds_the_margin_of_the_cluster_and_prediction_does_not():
    margins = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    net = MarginNet(
        margins, 0.0, 8.0, n_features=3, n_units=5, activation="tanh",
        mean=torch.zeros(3), spread=torch.tensor(1.0),
    )  # fmt: skip
    X = torch.randn(7, 3)
    cluster = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    plain = net(X)
    widened = net(X, cluster)
    assert plain.abs().max() <= 8 + 1e-5
    for i in range(7):
        for k in range(2):
            angle = math.acos(plain[i, k].item() / 8) + margins[cluster[i], k].item()
            if angle < math.pi:
                assert widened[i, k].item() == pytest.approx(8 * math.cos(angle), abs=1e-3)


@pytest.mark.usefixtures("seeded")
def test_the_noise_is_drawn_for_each_sample_and_class():
    margins = torch.full((1, 3), 0.5)
    net = MarginNet(
        margins, 0.1, 1.0, n_features=2, n_units=4, activation="tanh",
        mean=torch.zeros(2), spread=torch.tensor(1.0),
    )  # fmt: skip
    X = torch.ones(500, 2)
    noisy = net(X, torch.zeros(500, dtype=torch.long)).detach()
    assert len(torch.unique(noisy[:, 0])) > 490
    assert abs(np.corrcoef(noisy[:, 0], noisy[:, 1])[0, 1]) < 0.2


@pytest.mark.usefixtures("seeded")
def test_networks_run_on_raw_features():
    X = torch.tensor([[1000.0, 2000.0], [1002.0, 2004.0]])
    mean, spread = feature_scale(X.numpy())
    assert mean.tolist() == [1001.0, 2002.0]
    assert spread.item() == pytest.approx(math.sqrt((1 + 4) / 2))
    net = LinearNet(2, n_features=2, n_units=3, activation="relu", mean=mean, spread=spread)
    same = LinearNet(
        2, n_features=2, n_units=3, activation="relu", mean=torch.zeros(2), spread=torch.tensor(1.0)
    )
    same.adapter.linear.load_state_dict(net.adapter.linear.state_dict())
    same.head.load_state_dict(net.head.state_dict())
    raw = net.eval()(X)
    torch.testing.assert_close(raw, same.eval()((X - mean) / spread))
    torch.testing.assert_close(raw, net.train()(X))


def test_constant_features_have_a_scale_of_one():
    mean, spread = feature_scale(np.full((5, 2), 3, dtype=np.float32))
    assert (mean.tolist(), spread.item()) == ([3.0, 3.0], 1.0)


def test_the_scale_is_taken_in_float64():
    X = (np.float32(10_000) + np.tile([[0.0], [1.0]], (50_000, 1))).astype(np.float32)
    assert feature_scale(X)[1].item() == pytest.approx(0.5, rel=1e-6)


@given(
    data=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0.1, 5)), min_size=1, max_size=40
    )
)
def test_class_shares_equal_a_loop(data):
    labels, codes, weight = (np.array(column) for column in zip(*data, strict=True))
    shares = class_shares(labels, codes, weight, n_clusters=4, n_classes=3)
    for z in range(4):
        total = sum(w for cluster, _, w in data if cluster == z)
        for c in range(3):
            part = sum(w for cluster, k, w in data if (cluster, k) == (z, c))
            assert shares[z, c] == pytest.approx((part + 1e-6) / (total + 1e-6))


def test_duplicate_points_make_fewer_clusters_without_a_word():
    points = unit_rows(np.repeat([[1.0, 0.0], [-2.0, 0.0]], 10, axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        centres, _ = cluster_features(points, np.ones(20), 6, np.random.RandomState(0))
    assert sorted(map(tuple, centres.round(9).tolist())) == [(-1.0, 0.0), (1.0, 0.0)]
    assert len(set(nearest_centre(points, centres)[:10])) == 1


def test_clusters_of_many_rows_come_from_a_subsample():
    rng = np.random.RandomState(0)
    n = MAX_CLUSTERED + 500
    blob = rng.randint(3, size=n)
    points = unit_rows(np.eye(3)[blob] + 0.01 * rng.randn(n, 3))
    sizes = []

    def space(rows):
        sizes.append(len(rows))
        return rows

    samples = Samples(points, blob, np.ones(n, dtype=np.float32))
    centres, _ = find_centres(points, samples, space, n_clusters=3, random_state=rng)
    labels = nearest_centre(points, centres)
    assert len({(b, z) for b, z in zip(blob, labels, strict=True)}) == 3
    assert sizes == [MAX_CLUSTERED]


@given(n=st.integers(1, 20), k=st.integers(1, 5), seed=st.integers(0, 100))
@settings(deadline=None)
def test_nearest_centre_equals_a_loop(n, k, seed):
    rng = np.random.RandomState(seed)
    points, centres = rng.randn(n, 3), rng.randn(k, 3)
    slow = [min(range(k), key=lambda j: ((p - centres[j]) ** 2).sum()) for p in points]
    assert nearest_centre(points, centres).tolist() == slow


def test_rows_of_zeros_stay_zero():
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]


def scatter(points, size=None):
    """The scatter matrix of points that come in blocks."""
    found = Scatter()
    for start in range(0, len(points), size or len(points)):
        found.add(points[start : start + (size or len(points))])
    return found.matrix()


def test_effective_rank_of_known_spectra():
    rng = np.random.RandomState(0)
    line = rng.randn(200, 1) @ rng.randn(1, 6)
    assert effective_rank(scatter(line + 5)) == pytest.approx(1)
    assert effective_rank(scatter(np.full((10, 3), 0.1, dtype=np.float32), 3)) == 0
    # Variances 3 and 1: shares 3/4 and 1/4, entropy by hand.
    points = np.array([[math.sqrt(3), 0], [-math.sqrt(3), 0], [0, 1], [0, -1]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(scatter(points)) == pytest.approx(math.exp(entropy))


@given(
    n=st.integers(1, 30),
    size=st.integers(1, 30),
    offset=st.sampled_from([0.0, 1.0, -4096.0, 1e6]),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_the_scatter_of_blocks_is_that_of_all_rows(n, size, offset, seed):
    points = (np.random.RandomState(seed).randn(n, 3) + offset).astype(np.float32)
    centred = points.astype(np.float64) - points.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(scatter(points, size), centred.T @ centred, rtol=1e-9, atol=1e-9)


@given(
    n=st.integers(2, 3000),
    offset=st.sampled_from([0.0, 3.0, -1000.0]),
    outlier=st.sampled_from([0.0, 1e6]),
    seed=st.integers(0, 100),
)
@settings(deadline=None, max_examples=30)
def test_the_scale_equals_that_of_all_rows_at_once(n, offset, outlier, seed):
    X = (np.random.RandomState(seed).randn(n, 4) + offset).astype(np.float32)
    X[0, 0] += outlier  # the row whose differences are summed
    mean, spread = feature_scale(X)
    exact = X.astype(np.float64)
    expected = math.sqrt(exact.var(axis=0).mean())
    assert spread.item() == pytest.approx(expected, rel=1e-6)
    # Rounded to a multiple of a power of two, at most an 8192nd of the scale.
    np.testing.assert_allclose(mean.numpy(), exact.mean(axis=0), atol=expected / 2**13, rtol=1e-7)


def test_accuracy_and_tilt_by_hand():
    codes, predicted = np.array([0, 0, 0, 0, 1, 2]), np.array([0, 0, 1, 0, 1, 0])
    weight = np.array([1.0, 1.0, 2.0, 1.0, 4.0, 1.0])
    # Classes 0, 1, 2: 3 of 4, 1 of 1 and 0 of 1 are right.
    assert balanced_accuracy(codes, codes == predicted) == pytest.approx((0.75 + 1 + 0) / 3)
    # Weights of the labels 5, 4, 1 and of the predictions 4, 6, 0, of 10.
    assert class_tilt(codes, predicted, weight) == pytest.approx((1 + 2 + 1) / 2 / 10)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("cluster_on", ["amplified", "input"])
@pytest.mark.parametrize("n", [5, 2500])
def test_one_pass_of_the_amplifier_equals_a_pass_for_each_result(cluster_on, n):
    rng = np.random.RandomState(0)
    X = rng.randn(n, 4).astype(np.float32)
    codes = np.arange(n) % 3
    mean, spread = feature_scale(X)
    net = LinearNet(3, n_features=4, n_units=5, activation="tanh", mean=mean, spread=spread).eval()
    centres = unit_rows(rng.randn(2, 5 if cluster_on == "amplified" else 4))

    def run(module, rows):
        with torch.no_grad():
            return module(torch.from_numpy(rows)).double().numpy()

    samples = Samples(X, codes, np.ones(n, dtype=np.float32))
    found = run_amplifier(net, X, samples, centres, cluster_on=cluster_on, run=run)
    logits, features = run(net, X), run(net.adapter, X)
    log_share = torch.from_numpy(logits).log_softmax(1).numpy()
    np.testing.assert_allclose(found.surprise, -log_share[np.arange(n), codes], atol=1e-5)
    assert found.right.tolist() == (logits.argmax(axis=1) == codes).tolist()
    points = features if cluster_on == "amplified" else (X - mean.numpy()) / spread.numpy()
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert (found.clusters == nearest_centre(points, centres)).mean() > 0.999
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(np.cov(unit.T))
    share = values[values > 0] / values[values > 0].sum()
    expected = math.exp(-(share * np.log(share)).sum())
    assert found.rank == pytest.approx(expected, rel=1e-4)


def test_memory_does_not_grow_with_the_number_of_samples(monkeypatch):
    monkeypatch.setattr("skfair.margin._stages.physical_memory", lambda: 1e9)
    check_memory(1000, 10**9, 512, 2, amplifier=True)  # 20,000 rows of 1,000 units are clustered
    with pytest.raises(ValueError, match=r"n_units=3000 takes 1,440,672,000 bytes .* Take fewer"):
        # 16 * 514 of weights, 20 * 20,000 of clustered rows and 24 * 3,000 of scatter, for a unit
        check_memory(3000, 10**9, 512, 2, amplifier=True)
    check_memory(3000, 10**9, 512, 2, amplifier=False)
