"""The points that the surrogate of the layerwise search proposes."""

import numpy as np

from skfair.intraprocessing._surrogate import propose


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
