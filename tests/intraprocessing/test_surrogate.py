"""The points that the surrogate of the layerwise search proposes."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from skfair.intraprocessing._surrogate import boosted_quantile, propose


def test_proposals_lie_in_the_cube_and_differ():
    rng = np.random.RandomState(0)
    points, values = rng.uniform(-1, 1, (12, 40)), rng.normal(size=12)
    proposals = propose(points, values, rng, 5)
    assert len(proposals) == 5
    assert all(p.shape == (40,) and (np.abs(p) <= 1).all() for p in proposals)
    assert len({p.tobytes() for p in proposals}) == 5


def test_equal_values_give_proposals_without_warning():
    rng = np.random.RandomState(0)
    points = rng.uniform(-1, 1, (6, 3))
    assert np.isfinite(propose(points, np.zeros(6), rng, 2)).all()


def test_proposals_are_better_than_chance():
    proposed, uniform = [], []
    for seed in range(40):
        rng = np.random.RandomState(seed)
        points = rng.uniform(-1, 1, (10, 2))
        found = propose(points, value(points), rng, 5)
        proposed.append(value(np.stack(found)).mean())
        uniform.append(value(points).mean())
    # The optimum is zero.
    assert np.mean(proposed) > np.mean(uniform) / 2


def value(points):
    return -((points[:, 0] - 0.6) ** 2) - (points[:, 1] + 0.3) ** 2


@pytest.mark.parametrize("quantile", [0.16, 0.5, 0.84])
@pytest.mark.parametrize("shape", [(2, 1), (7, 3), (20, 40), (20, 1000)])
def test_boosting_is_that_of_scikit_learn(shape, quantile):
    for seed in range(5):
        data = np.random.RandomState(seed)
        points, values = data.uniform(-1, 1, shape), data.normal(size=shape[0])
        values[: seed // 2] = values[0]
        at = data.uniform(-1, 1, (50, shape[1]))
        rng, same = np.random.RandomState(seed), np.random.RandomState(seed)
        predict = boosted_quantile(points, values, quantile, rng)
        model = GradientBoostingRegressor(
            loss="quantile",
            alpha=quantile,
            n_estimators=10,
            learning_rate=0.3,
            max_depth=1,
            random_state=same,
        ).fit(points, values)
        np.testing.assert_array_equal(predict(at), model.predict(at))
        np.testing.assert_array_equal(predict(points), model.predict(points))
        assert rng.uniform() == same.uniform()
