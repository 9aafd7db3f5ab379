"""A generator as random_state is refused everywhere, with the code that draws a seed from it."""

import numpy as np
import pytest
import torch

from skfair.datasets import color_digits, make_balanced_subset
from skfair.margin import ClusterMarginClassifier
from skfair.metrics import fairness_report
from skfair.model_selection import GroupStratifiedKFold, GroupStratifiedShuffleSplit
from skfair.utils._random_state import check_random_state

Y = np.arange(8) % 2
GROUPS = np.arange(8) // 2 % 2
CALLS = {
    "estimator": lambda seed: ClusterMarginClassifier(random_state=seed).fit(Y[:, None], Y),
    "report": lambda seed: fairness_report(Y, Y, sensitive_features=GROUPS, random_state=seed),
    "folds": lambda seed: GroupStratifiedKFold(2, shuffle=True, random_state=seed),
    "split": lambda seed: GroupStratifiedShuffleSplit(2, random_state=seed),
    "subset": lambda seed: make_balanced_subset(Y, GROUPS, random_state=seed),
    "digits": lambda seed: color_digits(np.zeros((4, 8, 8)), [0, 0, 1, 1], random_state=seed),
}
GENERATORS = {
    "int(rng.integers(2**31))": lambda: np.random.default_rng(0),
    "int(numpy.random.Generator(rng).integers(2**31))": lambda: np.random.PCG64(0),
    "int(rng.generate_state(1)[0])": lambda: np.random.SeedSequence(0),
    "int(torch.randint(2**31 - 1, (), generator=rng))": torch.Generator,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("seed", GENERATORS)
def test_a_generator_is_refused_with_a_seed_that_does(call, seed):
    rng = GENERATORS[seed]()
    with pytest.raises(
        (ValueError, TypeError), match=r"^random_state is a .* Draw a seed"
    ) as error:
        call(rng)
    assert f"random_state={seed}." in str(error.value)
    drawn = eval(seed, {"rng": rng, "numpy": np, "torch": torch})
    assert isinstance(check_random_state(drawn), np.random.RandomState)


@pytest.mark.parametrize("call", [CALLS[name] for name in ("report", "folds", "split")])
@pytest.mark.parametrize("value", [-1, "a", 0.5])
def test_anything_else_is_named(call, value):
    with pytest.raises(ValueError, match=rf"^random_state={value!r} is not an int from 0 to"):
        call(value)
