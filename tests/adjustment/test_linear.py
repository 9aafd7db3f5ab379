"""The projection and the regressions against scikit-learn and a written-out loss."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from skfair.adjustment import _linear
from skfair.adjustment._linear import (
    Linear,
    balanced_weight,
    fit_softmax,
    log_softmax,
    mean_map,
    principal_components,
    project,
)


def generator(seed=0):
    return np.random.RandomState(seed)


def data(n=200, width=5, n_classes=3, seed=0):
    rng = generator(seed)
    codes = np.arange(n) % n_classes
    Z = rng.randn(n, width)
    Z[:, 0] += codes
    return Z, codes, rng.uniform(0.2, 3, n)


def probabilities(linear, Z):
    return softmax(linear(Z), axis=1)


# Regression -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("ridge", [0.02, 1.0])
def test_without_offsets_it_is_scikit_learn_s_logistic_regression(n_classes, ridge):
    Z, codes, weight = data(n_classes=n_classes)
    # skfair takes the mean of the losses, scikit-learn the sum. With two classes scikit-learn
    # penalises one row of coefficients. Here each class has half of that row: half the squares.
    C = (2 if n_classes == 2 else 1) / (ridge * weight.sum())
    expected = LogisticRegression(C=C, tol=1e-8, max_iter=1000).fit(Z, codes, weight)
    found = fit_softmax(Z, codes, weight, n_classes, ridge=ridge)
    np.testing.assert_allclose(probabilities(found, Z), expected.predict_proba(Z), atol=1e-3)
    np.testing.assert_allclose(found.coef.sum(axis=0), 0, atol=1e-3)
    assert found.intercept.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_with_offsets_it_minimises_the_written_out_loss(n_classes):
    Z, codes, weight = data(60, 3, n_classes)
    offset = generator(1).randn(60, n_classes)
    ridge = 0.1

    def loss(theta):
        W, b = theta[:-n_classes].reshape(n_classes, 3), theta[-n_classes:]
        total = 0.0
        for z, y, w, o in zip(Z, codes, weight, offset, strict=True):
            total -= w * scipy_log_softmax(W @ z + b + o)[y]
        return total / weight.sum() + ridge / 2 * (W**2).sum()

    slow = minimize(loss, np.zeros(4 * n_classes), tol=1e-9)
    W, b = slow.x[:-n_classes].reshape(n_classes, 3), slow.x[-n_classes:]
    found = fit_softmax(Z, codes, weight, n_classes, ridge=ridge, offset=offset)
    np.testing.assert_allclose(found.coef, W, atol=1e-3)
    np.testing.assert_allclose(found.intercept, b - b.mean(), atol=1e-3)
    assert loss(np.concatenate([found.coef.ravel(), found.intercept])) < slow.fun + 1e-6


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_weight_is_a_number_of_repetitions_and_has_no_unit(n_classes):
    Z, codes, _ = data(n_classes=n_classes)
    repeats = 1 + np.arange(len(Z)) % 3
    offset = generator(1).randn(len(Z), n_classes)
    expected = fit_softmax(
        np.repeat(Z, repeats, axis=0),
        np.repeat(codes, repeats),
        np.ones(repeats.sum()),
        n_classes,
        ridge=0.05,
        offset=np.repeat(offset, repeats, axis=0),
    )
    for weight in (repeats, 1e-4 * repeats, 1e4 * repeats):
        found = fit_softmax(Z, codes, weight, n_classes, ridge=0.05, offset=offset)
        np.testing.assert_allclose(found.coef, expected.coef, atol=1e-3)
        np.testing.assert_allclose(found.intercept, expected.intercept, atol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_where_it_starts_does_not_matter(n_classes):
    Z, codes, weight = data(n_classes=n_classes)
    expected = fit_softmax(Z, codes, weight, n_classes, ridge=0.05)
    far = Linear(generator(1).randn(n_classes, 5), generator(2).randn(n_classes))
    found = fit_softmax(Z, codes, weight, n_classes, ridge=0.05, start=far)
    np.testing.assert_allclose(found.coef, expected.coef, atol=1e-3)
    short = fit_softmax(Z, codes, weight, n_classes, ridge=0.05, max_iter=1)
    assert np.abs(short.coef - expected.coef).max() > 1e-2


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_of_rows_change_nothing(n_classes, dtype, monkeypatch):
    Z, codes, weight = data(400, n_classes=n_classes)
    Z = Z.astype(dtype)
    offset = generator(1).randn(len(Z), n_classes)

    def fit():
        return fit_softmax(Z, codes, weight, n_classes, ridge=0.05, offset=offset)

    whole = fit()
    monkeypatch.setattr(_linear, "_BLOCK", 37)
    parts = fit()
    np.testing.assert_allclose(parts.coef, whole.coef, atol=1e-3)
    np.testing.assert_allclose(parts(Z), whole(Z), atol=1e-2)


def test_a_class_that_does_not_occur_is_never_predicted():
    Z, codes, weight = data(n_classes=3)
    found = fit_softmax(Z, np.minimum(codes, 1), weight, 3, ridge=0.05)
    assert (found(Z).argmax(axis=1) < 2).all()


def test_balanced_weights_give_each_class_the_same():
    codes, weight = np.array([0, 0, 0, 2]), np.array([1.0, 2.0, 3.0, 9.0])
    assert balanced_weight(codes, weight).tolist() == [1 / 6, 1 / 3, 1 / 2, 1]


def test_log_softmax_of_large_numbers():
    scores = np.array([[1e4, 0.0], [-1e4, -1e4]])
    np.testing.assert_allclose(log_softmax(scores), [[0, -1e4], [np.log(0.5)] * 2])


# Maps -------------------------------------------------------------------------------------


def test_maps_one_after_the_other_and_their_mean():
    rng = generator()
    first = Linear(rng.randn(3, 4), rng.randn(3))
    second = Linear(rng.randn(2, 3), rng.randn(2))
    X = rng.randn(10, 4)
    np.testing.assert_allclose(second.after(first)(X), second(first(X)))
    other = Linear(rng.randn(3, 4), rng.randn(3))
    np.testing.assert_allclose(mean_map([first, other])(X), (first(X) + other(X)) / 2)


def test_many_rows_in_float32_are_mapped_in_blocks(monkeypatch):
    rng = generator()
    linear = Linear(rng.randn(3, 4), rng.randn(3))
    X = rng.randn(100, 4).astype(np.float32)
    expected = X.astype(np.float64) @ linear.coef.T + linear.intercept
    monkeypatch.setattr(_linear, "_BLOCK", 7)
    assert linear(X).dtype == np.float64
    np.testing.assert_allclose(linear(X), expected, rtol=1e-12)


# Components -------------------------------------------------------------------------------


def assert_same_up_to_signs(found, expected, tolerance):
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=tolerance)


def unequal(n, width, seed=0):
    """Rows whose directions have clearly different variances, far from zero."""
    rng = generator(seed)
    rotation = np.linalg.qr(rng.randn(width, width))[0]
    rows = (rng.randn(n, width) * 0.7 ** np.arange(width)) @ rotation
    return (rows + rng.randn(width)).astype(np.float32)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("n_components", [1, 4, 12])
def test_components_are_those_of_scikit_learn_up_to_one_factor(exact, n_components, monkeypatch):
    X = unequal(300, 12)
    if not exact:
        monkeypatch.setattr(_linear, "_EXACT", 11)
    found = principal_components(X, np.ones(300), n_components, generator())
    expected = PCA(n_components).fit(X.astype(np.float64))
    expected = expected.transform(X.astype(np.float64))
    expected *= np.sqrt(256 / np.square(expected).sum(axis=1).mean())
    Z = found(X)
    np.testing.assert_allclose(np.square(Z).sum(axis=1).mean(), 256)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-9)
    assert_same_up_to_signs(Z, expected, 1e-3)


def test_more_than_2048_features():
    rng = generator()
    X = (rng.randn(120, 3) * [30, 20, 10]) @ rng.randn(3, 2500) + 0.1 * rng.randn(120, 2500)
    X = X.astype(np.float32)
    found = principal_components(X, np.ones(120), 3, generator())
    expected = PCA(3).fit_transform(X.astype(np.float64))
    expected *= np.sqrt(256 / np.square(expected).sum(axis=1).mean())
    assert_same_up_to_signs(found(X), expected, 1e-3)


def test_more_than_one_block_of_rows():
    # A block has 8,192 rows.
    X = unequal(8192 + 500, 6)
    found = principal_components(X, np.ones(len(X)), 3, generator())
    expected = PCA(3, svd_solver="full").fit_transform(X.astype(np.float64))
    expected *= np.sqrt(256 / np.square(expected).sum(axis=1).mean())
    assert_same_up_to_signs(found(X), expected, 1e-3)
    np.testing.assert_allclose(project(found, X), found(X))


@pytest.mark.parametrize("exact", [True, False])
def test_weights_are_repetitions(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(_linear, "_EXACT", 3)
    X = unequal(100, 6)
    repeats = np.arange(100) % 4
    weighted = principal_components(X, repeats, 3, generator())
    repeated = principal_components(
        np.repeat(X, repeats, axis=0), np.ones(repeats.sum()), 3, generator()
    )
    np.testing.assert_allclose(weighted.coef, repeated.coef, atol=1e-6)
    np.testing.assert_allclose(weighted.intercept, repeated.intercept, atol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_the_scale_the_origin_and_the_axes_of_the_features_do_not_matter(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(_linear, "_EXACT", 3)
    X = unequal(200, 6)
    rotation = np.linalg.qr(generator(5).randn(6, 6))[0]

    def components(X):
        return principal_components(X.astype(np.float32), np.ones(200), 4, generator())(X)

    expected = components(X)
    for changed in (1000 * X, X + 3, X @ rotation, 1e-8 * X):
        assert_same_up_to_signs(components(changed), expected, 1e-2)


@pytest.mark.parametrize("exact", [True, False])
def test_constant_features_are_mapped_to_zero(exact, monkeypatch):
    if not exact:
        monkeypatch.setattr(_linear, "_EXACT", 2)
    X = np.full((5, 4), 3.7, dtype=np.float32)
    found = principal_components(X, np.ones(5), 3, generator())
    assert np.isfinite(found.coef).all()
    np.testing.assert_allclose(found(X), 0, atol=1e-6)


def test_a_large_projection_is_kept_in_float32(monkeypatch):
    X = unequal(50, 6)
    projection = principal_components(X, np.ones(50), 4, generator())
    assert project(projection, X).dtype == np.float64
    monkeypatch.setattr(_linear, "_DOUBLE", 199)
    assert project(projection, X).dtype == np.float32
    np.testing.assert_allclose(project(projection, X), projection(X), rtol=1e-4, atol=1e-4)
