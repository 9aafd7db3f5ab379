"""Gaps of groups against Monte Carlo, and held-out rows as a sample of all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import norm

from skfair.intraprocessing._counting import combine_tuned, find_strata
from skfair.intraprocessing._gaps import (
    gap_interval,
    measure_gap,
    power_to_certify,
    shrink,
    table_of_pairs,
    within,
)
from skfair.intraprocessing._objective import Objective
from skfair.metrics._rates import CONSTRAINTS
from skfair.utils._split import split_cells

# Gaps -------------------------------------------------------------------------------------


def test_two_groups_are_taken_as_they_are():
    measured = [(np.array([0.3, 0.45]), np.array([0.01, 0.03]))]
    bias, error, probability, excess = measure_gap(measured, 0.1)
    assert bias == pytest.approx(-0.15)
    assert error == pytest.approx(0.2)
    on_new = norm(-0.15, 0.2 * np.sqrt(1.5))
    assert probability == pytest.approx(on_new.cdf(0.1) - on_new.cdf(-0.1))
    assert excess == pytest.approx(0.05)
    assert gap_interval(measured, 0.1) == pytest.approx(tuple(norm(-0.15, 0.2).ppf([0.025, 0.975])))
    # The second rate differs more: the bias is its size, with its error. Both rates have to hold.
    both = [*measured, (np.array([0.7, 0.5]), np.array([0.02, 0.02]))]
    bias, error, probability, excess = measure_gap(both, 0.1)
    assert (bias, error, excess) == pytest.approx((0.2, 0.2, 0.1))
    other = norm(0.2, 0.2 * np.sqrt(1.5))
    expected = on_new.cdf(0.1) - on_new.cdf(-0.1), other.cdf(0.1) - other.cdf(-0.1)
    assert probability == pytest.approx(np.prod(expected))
    assert gap_interval(both, 0.1) == pytest.approx((0.0, norm(0.2, 0.2).ppf(0.975)))


@pytest.mark.parametrize(
    ("truth", "rows"),
    [
        ([[0.8, 0.7], [0.1, 0.14]], [[15, 15], [700, 700]]),  # few rows, largest difference
        ([[0.8, 0.8], [0.2, 0.2]], [[200, 200], [600, 600]]),
        ([[0.8, 0.7], [0.2, 0.25]], [[200, 200], [600, 600]]),
    ],
)
def test_intervals_of_several_rates_of_two_groups_cover_the_largest_difference(truth, rows):
    rng = np.random.default_rng(0)
    truth, rows = np.array(truth), np.array(rows)
    largest, covered = np.abs(np.diff(truth, axis=1)).max(), []
    for _ in range(600):
        hits = rng.binomial(rows, truth)
        inner = np.clip(hits, 0.5, rows - 0.5) / rows
        measured = list(zip(hits / rows, inner * (1 - inner) / rows, strict=True))
        low, high = gap_interval(measured, 0.05)
        covered.append(low <= largest <= high)
        assert low <= measure_gap(measured, 0.05).bias <= high
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 600)


def density(x, mean, deviation):
    return np.exp(-(((x - mean) / deviation) ** 2) / 2) / (np.sqrt(2 * np.pi) * deviation)


@settings(deadline=None, max_examples=30)
@given(
    means=st.lists(st.floats(0, 0.2), min_size=2, max_size=4),
    sizes=st.lists(st.integers(5, 10**6), min_size=4, max_size=4),
    epsilon=st.sampled_from([0.02, 0.1, 0.5]),
)
def test_probability_with_groups_of_very_different_sizes(means, sizes, epsilon):
    means = np.array(means)
    variance = (means + 0.01) * (0.99 - means) / sizes[: len(means)]
    deviations = np.sqrt(1.5 * variance)
    expected = 0.0
    for lowest, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        # A dense grid around each edge of the integrand: narrow variables make it a step function.
        edges = np.array([mean, *means, *(means - epsilon)])
        fine = edges[:, None, None] + np.outer(np.linspace(-8, 8, 301), deviations)
        x = np.unique(np.clip(fine, mean - 9 * deviation, mean + 9 * deviation))
        z = (x[:, None] - means) / deviations
        above = np.delete(ndtr(z + epsilon / deviations) - ndtr(z), lowest, axis=1)
        expected += np.trapezoid(density(x, mean, deviation) * above.prod(axis=1), x)
    found = within(means[None], variance[None], epsilon)[0]
    # The deviation of the narrowest variables is at least 1/64 of the widest. Several of them shift
    # an edge by a few such deviations, at a density of 0.4.
    assert found == pytest.approx(expected, abs=0.03)
    assert 0 <= found <= 1


class Counted(np.ndarray):
    """Counts the numbers that NumPy computes from it."""

    computed = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        inputs = [np.asarray(each) for each in inputs]
        if keywords.get("out"):
            keywords["out"] = tuple(np.asarray(each) for each in keywords["out"])
        result = getattr(ufunc, method)(*inputs, **keywords)
        Counted.computed += max(np.size(each) for each in (*inputs, result))
        return np.asarray(result).view(Counted)


def test_the_probability_of_many_groups_takes_work_that_grows_with_their_number_alone():
    work = {}
    for n_groups in (8, 64):
        mean = np.tile(np.linspace(0, 0.1, 4), n_groups // 4)[None].view(Counted)
        Counted.computed = 0
        within(mean, np.full_like(mean, 1e-3), 0.2)
        work[n_groups] = Counted.computed
    assert 4 < work[64] / work[8] < 12


def test_shrinking_by_hand():
    # Weights 100, 100 and 25, centre .3. The variance between groups is estimated from the scatter
    # beyond chance: Q - 2 = 100 * .04 + 100 * .01 + 25 * .04 - 2 = 4.
    mean, variance = np.array([0.1, 0.4, 0.5]), np.array([0.01, 0.01, 0.04])
    centre = (10 + 40 + 12.5) / 225
    q = 100 * (0.1 - centre) ** 2 + 100 * (0.4 - centre) ** 2 + 25 * (0.5 - centre) ** 2
    between = (q - 2) / (225 - (100**2 + 100**2 + 25**2) / 225)
    assert between > 0.02**2
    weight = 1 / (between + variance)
    centre = (weight * mean).sum() / weight.sum()
    share = between / (between + variance)
    rates, left = shrink(mean, variance, 0.04)
    np.testing.assert_allclose(rates, share * mean + (1 - share) * centre)
    np.testing.assert_allclose(left, share * variance + (1 - share) ** 2 / weight.sum())
    # The spread between groups with the same rates counts as half of epsilon.
    alike, left = shrink(np.array([0.3, 0.3, 0.3001]), np.full(3, 0.01), 0.2)
    np.testing.assert_allclose(alike, [0.3, 0.3, 0.3001], atol=1e-4)
    np.testing.assert_allclose(left, 0.5 * 0.01 + 0.5**2 / (3 / 0.02), rtol=1e-6)


def test_only_inaccurate_rates_are_shrunk():
    mean = np.array([0.2, 0.4, 0.5, 0.0])
    rates, variance = shrink(mean, np.array([1e-8, 1e-8, 1e-8, 10.0]), 0.05)
    np.testing.assert_allclose(rates[:3], mean[:3], atol=1e-4)
    # The last group has almost no weight: its rate is the mean of the others, with their spread.
    assert rates[3] == pytest.approx(mean[:3].mean(), abs=0.01)
    assert 0.003 < variance[3] < 0.1


def test_shrunk_rates_are_nearer_to_the_truth_and_cover_it():
    rng = np.random.default_rng(0)
    truth = rng.normal(0.4, 0.08, size=(2000, 6))
    variance = np.broadcast_to(np.array([0.0005, 0.001, 0.002, 0.004, 0.01, 0.05]), truth.shape)
    mean = truth + np.sqrt(variance) * rng.normal(size=truth.shape)
    rates, left = shrink(mean, variance, 0.05)
    before, after = ((np.array(r) - truth) ** 2 for r in (mean, rates))
    assert (after.mean(0)[2:] < before.mean(0)[2:]).all()
    assert after.mean(0)[5] < 0.25 * before.mean(0)[5]
    # The stated error is close to the real one: the spread between groups is uncertain.
    assert left.mean() < after.mean() < 1.3 * left.mean()
    # The largest difference is too large by chance alone, and much less so after shrinking.
    gap = np.ptp(truth, axis=1).mean()
    found = measure_gap([(mean, variance)], 0.05)
    assert np.ptp(mean, axis=1).mean() - gap > 0.1
    assert found.bias.mean() == pytest.approx(gap, abs=0.03)


@pytest.mark.thorough
@pytest.mark.parametrize("spread", [0.02, 0.08])
@pytest.mark.parametrize("n_groups", [3, 6])
def test_intervals_of_many_groups_cover_the_largest_difference(spread, n_groups):
    rng = np.random.default_rng(0)
    variance = np.array([0.0005, 0.001, 0.05, 0.002, 0.004, 0.01])[:n_groups]
    covered = []
    for _ in range(300):
        truth = rng.normal(0.4, spread, size=n_groups)
        measured = [(truth + np.sqrt(variance) * rng.normal(size=n_groups), variance)]
        low, high = gap_interval(measured, 0.05)
        covered.append(low <= np.ptp(truth) <= high)
        assert low <= measure_gap(measured, 0.05).bias <= high
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)


def test_draws_of_the_largest_difference_against_monte_carlo():
    mean, variance = np.array([[0.3, 0.4, 0.5], [0.02, 0.01, 0.9]]), np.full((2, 3), 0.002)
    bias, error, probability, excess = measure_gap([(mean, variance)], 0.15)
    rng = np.random.default_rng(1)
    for row in range(2):
        rates, left = shrink(mean[row], variance[row], 0.15)
        drawn = rates + np.sqrt(left) * rng.normal(size=(100_000, 3))
        largest = np.ptp(drawn.clip(0, 1), axis=1)
        half = largest.std() / 2  # 64 draws, in pairs
        assert bias[row] == pytest.approx(largest.mean(), abs=0.5 * half)
        assert error[row] == pytest.approx(largest.std(), rel=0.3)
        assert excess[row] == pytest.approx(np.maximum(largest - 0.15, 0).mean(), abs=0.5 * half)
        wider = rates + np.sqrt(1.5 * left) * rng.normal(size=(100_000, 3))
        assert probability[row] == pytest.approx(np.mean(np.ptp(wider, axis=1) < 0.15), abs=0.01)
    # Rates are never below zero.
    low, high = gap_interval([(mean[1], variance[1])], 0.15)
    assert 0 <= low < high <= 1


def test_pairs_are_not_shrunk():
    measured = [
        (np.array([0.5, 0.2, 0.9]), np.array([0.0, 0.01, 0.03])),
        (np.array([0.1, 0.1, 0.1]), np.full(3, 0.0002)),
    ]
    table = table_of_pairs(["tpr", "fpr"], ["a", "b", "c"], measured, 0.1)
    assert table.rate.tolist() == ["tpr"] * 3 + ["fpr"] * 3
    assert (table.group_1 + table.group_2).tolist() == ["ab", "ac", "bc"] * 2
    np.testing.assert_allclose(table.difference, [0.3, -0.4, -0.7, 0, 0, 0], atol=1e-15)
    third = norm(-0.7, 0.2)
    assert table.loc[2, ["low", "high"]].tolist() == pytest.approx(third.ppf([0.025, 0.975]))
    on_new = norm(0, np.sqrt(1.5 * 0.0004))
    np.testing.assert_allclose(table.probability[3:], on_new.cdf(0.1) - on_new.cdf(-0.1))


def test_no_pairs_are_a_table_too():
    none = table_of_pairs([], ["a", "b"], [], 0.1)
    one = table_of_pairs(["tpr"], ["a", "b"], [(np.array([0.5, 0.2]), np.full(2, 0.1))], 0.1)
    assert len(none) == 0
    assert list(none) == list(one)
    numbers = ["difference", "low", "high", "probability"]
    assert (none[numbers].dtypes == one[numbers].dtypes).all()


def test_power_against_simulation():
    # Rates are measured on some rows, and two one-sided z tests are made on other rows.
    rng = np.random.default_rng(2)
    n, sizes, epsilon = np.array([300, 500]), np.array([400, 250]), 0.12
    truth = np.column_stack([np.full(60_000, 0.4), rng.uniform(0.1, 0.7, size=60_000)])
    measured = rng.binomial(n, truth) / n
    power = power_to_certify([(measured, measured * (1 - measured) / n)], [sizes], epsilon, 0.1)
    drawn = rng.binomial(sizes, truth) / sizes
    error = np.sqrt((drawn * (1 - drawn) / sizes).sum(1))
    passed = np.abs(drawn[:, 0] - drawn[:, 1]) + norm.ppf(0.9) * error < epsilon
    # Among tests with a stated probability to pass, that share passes.
    for low in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        these = (power > low) & (power <= low + 0.1)
        assert these.sum() > 1000
        assert passed[these].mean() == pytest.approx(power[these].mean(), abs=0.04)
    # Far too few rows, or a gap that is far too large: the power is zero.
    few = power_to_certify([(np.array([0.5, 0.5]), np.full(2, 0.01))], [np.array([9, 9])], 0.1, 0.1)
    assert few == 0
    far = power_to_certify([(np.array([0.2, 0.7]), np.full(2, 1e-4))], [sizes], 0.1, 0.1)
    assert far < 1e-6
    # With several pairs and rates, the worst one counts.
    three = np.array([0.3, 0.32, 0.4]), np.full(3, 0.001)
    sizes = np.array([900, 800, 300])
    pairs = [
        power_to_certify([(three[0][[g, h]], three[1][[g, h]])], [sizes[[g, h]]], epsilon, 0.1)
        for g, h in [(0, 1), (0, 2), (1, 2)]
    ]
    assert power_to_certify([three], [sizes], epsilon, 0.1) == pytest.approx(min(pairs))


# A part of the rows as a sample of all -------------------------------------------------------


def objective_of(y, groups, constraint="demographic_parity", **options):
    return Objective(
        y,
        groups,
        n_groups=int(groups.max()) + 1,
        constraint=constraint,
        performance="balanced_accuracy",
        epsilon=0.1,
        confidence="auto",
        margin=0.01,
        **options,
    )


def test_strata_are_rows_of_a_cell_with_neighbouring_scores():
    rng = np.random.default_rng(0)
    cell, score = rng.choice(4, size=900, p=[0.02, 0.08, 0.3, 0.6]), rng.normal(size=900)
    stratum = find_strata(cell, score)
    for one in range(4):
        inside = np.flatnonzero(cell == one)
        order = inside[np.argsort(score[inside])]
        assert (np.diff(stratum[order]) >= 0).all()
        sizes = np.bincount(stratum[inside])
        assert len(sizes) == np.clip(len(inside) // 20, 1, 20)
        assert sizes.max() - sizes.min() <= 1


def population(n, seed=0, shift=0.5):
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(2, size=n), rng.choice(2, size=n, p=[0.35, 0.65])
    score = y + shift * groups + rng.normal(size=n)
    return rng, y, groups, score


@pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))
def test_post_stratified_rates_by_hand(constraint):
    rng, y, groups, score = population(1500)
    stratum = find_strata(2 * groups + y, score)
    part = np.sort(rng.permutation(1500)[:500])
    predicted = score + 0.4 * rng.normal(size=1500) > 0.7

    def rate(group, *labels):
        """The share in each stratum of the part, times the size of the stratum in all rows."""
        total, size = 0.0, 0
        for label in labels:
            for one in range(stratum.max() + 1):
                every = (groups == group) & (y == label) & (stratum == one)
                here = every[part]
                if every.any():
                    total += every.sum() * (predicted[part][here].mean() if here.any() else 0)
                    size += every.sum()
        return total / size

    tpr, fpr, selected = ([rate(g, *labels) for g in (0, 1)] for labels in ([1], [0], [0, 1]))
    expected = {
        "demographic_parity": selected[0] - selected[1],
        "equal_opportunity": tpr[0] - tpr[1],
        "average_odds": (tpr[0] - tpr[1] + fpr[0] - fpr[1]) / 2,
        "equalized_odds": max(abs(tpr[0] - tpr[1]), abs(fpr[0] - fpr[1])),
    }[constraint]
    whole = objective_of(y, groups, constraint)
    judge = whole.stand_for(part, np.arange(1500), stratum)
    choice = judge.measure(score[part] * 0 + predicted[part], 0.5)
    assert choice.bias[0] == pytest.approx(expected, abs=1e-12)
    positives = [(y[groups == g] == 1).sum() for g in (0, 1)]
    negatives = [(y[groups == g] == 0).sum() for g in (0, 1)]
    right = np.average(tpr, weights=positives), 1 - np.average(fpr, weights=negatives)
    assert choice.performance[0] == pytest.approx(np.mean(right), abs=1e-12)


@pytest.mark.parametrize("constraint", ["demographic_parity", "equal_opportunity"])
def test_post_stratified_rates_are_unbiased_and_vary_less(constraint):
    # 30 % of a population are held out many times. The network predicts nearly the same as the
    # original network.
    rng, y, groups, score = population(1000)
    other = score + 0.3 * rng.normal(size=1000) - 0.2 * groups
    whole = objective_of(y, groups, constraint)
    stratum = find_strata(whole.cell, score)
    truth = whole.measure(other, 0.6).bias[0]
    key = np.unique(whole.cell * (stratum.max() + 1) + stratum, return_inverse=True)[1]
    strata = [np.flatnonzero(key == one) for one in range(key.max() + 1)]
    found, errors, plain, covered = [], [], [], []
    for _ in range(300):
        rows = [rng.permutation(each)[: round(0.3 * len(each))] for each in strata]
        part = np.sort(np.concatenate(rows))
        judge = whole.stand_for(part, np.arange(1000), stratum)
        choice = judge.measure(other[part], 0.6)
        low, high = judge.interval(choice, other[part] > 0.6)
        covered.append(low <= truth <= high)
        found.append(choice.bias[0])
        errors.append(choice.error[0])
        kept = rng.permutation(1000)[:300]
        plain.append(whole.take(kept).measure(other[kept], 0.6).bias[0])
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(300))
    assert np.var(found) < 0.5 * np.var(plain)
    # The errors contain the sampling of these 1,000 rows, too.
    assert np.mean(errors) > np.std(found)
    assert np.mean(covered) > 0.97


def test_errors_of_a_part_are_those_of_new_rows():
    # Many populations, with a part of each held out: the errors contain all that varies.
    found, errors, covered = [], [], []
    big = population(200_000, seed=99)
    truth = objective_of(big[1], big[2]).measure(big[3] - 0.2 * big[2], 0.6).bias[0]
    for seed in range(250):
        rng, y, groups, score = population(600, seed)
        whole = objective_of(y, groups)
        stratum = find_strata(whole.cell, score)
        part = np.sort(rng.permutation(600)[:200])
        judge = whole.stand_for(part, np.arange(600), stratum)
        other = score - 0.2 * groups
        choice = judge.measure(other[part], 0.6)
        low, high = judge.interval(choice, other[part] > 0.6)
        covered.append(low <= truth <= high)
        found.append(choice.bias[0])
        errors.append(choice.error[0])
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    assert np.mean(covered) >= 0.92
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(250))


def test_all_rows_represent_themselves():
    _, y, groups, score = population(400)
    whole = objective_of(y, groups, "equalized_odds")
    every = whole.stand_for(np.arange(400), np.arange(400), find_strata(whole.cell, score))
    for threshold in (-0.5, 0.7, 2.0):
        one, two = (judge.measure(score, threshold) for judge in (whole, every))
        assert two.bias[0] == pytest.approx(one.bias[0], abs=1e-12)
        assert two.performance[0] == pytest.approx(one.performance[0], abs=1e-12)
        # The variances within and between strata nearly add up to the total variance.
        assert two.error[0] == pytest.approx(one.error[0], rel=0.05)


@pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))
def test_a_group_without_rows_gets_the_rate_of_the_others(constraint):
    _, y, groups, score = population(600)
    third = np.where(np.arange(600) < 3, 2, groups)
    y[:3] = [0, 1, 1]
    whole = objective_of(y, third, constraint)
    others = np.arange(3, 600)
    pairs = {}
    for judge in (
        whole.take(others),
        whole.stand_for(others, np.arange(600), np.zeros(600, np.int64)),
    ):
        table = judge.pairs(["a", "b", "c"], score[others] > 0.7)
        rates = table.groupby("rate", sort=False)
        assert (rates.difference.apply(lambda d: d.iloc[1] * d.iloc[2]) <= 0).all()  # in between
        about = table[table.group_2 == "c"]
        assert (about.low < -0.5).all()
        assert (about.high > 0.5).all()
        (choice,) = judge.choose(score[None, others])
        assert np.isfinite(choice.objective).all()
        pairs[id(judge)] = choice.performance[0]
    assert min(pairs.values()) > 0.6
    # The same with two groups.
    alone = objective_of(y, np.where(third == 2, 1, 0), constraint).take(others)
    (choice,) = alone.choose(score[None, others])
    assert choice.bias[0] == pytest.approx(0, abs=1e-12)
    assert choice.probability[0] < 0.5


def test_tuned_rows_count_where_they_agree():
    mean, variance = np.array([0.3, 0.4]), np.full(2, 0.002)
    # Twice as many tuned rows that agree: the mean of all rows, with a third of the variance.
    heard, left = combine_tuned(mean, variance, mean + 0.001, variance / 2)
    np.testing.assert_allclose(heard, mean + 0.001 * 2 / 3, atol=1e-6)
    np.testing.assert_allclose(left, variance / 3, rtol=1e-4)
    # A distance that chance explains does not reduce their weight.
    moved = mean + np.sqrt(0.003) * np.array([1, -1]) * 0.99
    heard, left = combine_tuned(mean, variance, moved, variance / 2)
    np.testing.assert_allclose(heard, mean + (moved - mean) * 2 / 3, atol=1e-6)
    # Far from the held-out rows, they have almost no weight.
    heard, left = combine_tuned(mean, variance, mean + np.array([0.6, -0.3]), variance / 2)
    np.testing.assert_allclose(heard, mean, atol=0.01)
    np.testing.assert_allclose(left, variance, rtol=0.02)


def test_optimism_in_standard_errors():
    _, y, groups, score = population(4000)
    tune, held = np.arange(2800), np.arange(2800, 4000)
    whole, stratum = objective_of(y, groups, "equal_opportunity"), np.zeros(4000, np.int64)
    honest, tuned = (whole.stand_for(rows, np.arange(4000), stratum) for rows in (held, tune))
    judge = honest.hearing(tuned)
    predicted = score > 0.7
    truly = judge.optimism(predicted[held], predicted[tune])
    assert truly < 3
    shares = [
        np.array([predicted[rows][(groups[rows] == g) & (y[rows] == 1)].mean() for g in (0, 1)])
        for rows in (held, tune)
    ]
    sizes = [
        [((groups[rows] == g) & (y[rows] == 1)).sum() for g in (0, 1)] for rows in (held, tune)
    ]
    moved = (shares[0][0] - shares[0][1]) - (shares[1][0] - shares[1][1])
    variance = sum((p * (1 - p) / n).sum() for p, n in zip(shares, sizes, strict=True))
    assert truly == pytest.approx(abs(moved) / np.sqrt(variance), rel=1e-9)
    by_heart = np.where(groups == 0, score > 0.2, score > 1.0)[tune]
    assert judge.optimism(predicted[held], by_heart) > 5


def test_what_tuned_rows_say_by_heart_does_not_choose():
    # The first network is perfect on the tuned rows, and noise with a bias on the held-out rows.
    # The second network is good on both. There are twice as many tuned rows.
    rng, y, groups, score = population(1800, shift=0.0)
    tune, held = np.arange(1200), np.arange(1200, 1800)
    by_heart = np.where(np.arange(1800) < 1200, 3.0 * y, rng.normal(size=1800) + groups)
    whole = objective_of(y, groups, "equal_opportunity")
    stratum = find_strata(whole.cell, score)
    honest, tuned = (whole.stand_for(rows, np.arange(1800), stratum) for rows in (held, tune))
    columns = np.concatenate([held, tune])
    (choice,) = honest.hearing(tuned).choose(np.stack([by_heart, score])[:, columns])
    assert choice.best() == 1
    # The performance is measured on held-out rows alone.
    threshold = choice.threshold[1]
    assert choice.performance[1] == honest.measure(score[held], threshold).performance[0]


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.97])
def test_a_part_of_few_rows_knows_how_little_it_knows(fraction):
    rng = np.random.default_rng(0)
    groups, y = rng.integers(2, size=(2, 1500))
    score = rng.normal(size=1500)
    share = ndtr(score)  # of rows with such a score that are predicted positive
    objective = Objective(
        y,
        groups,
        n_groups=2,
        constraint="demographic_parity",
        performance="accuracy",
        epsilon=0.05,
        confidence="auto",
        margin=0.0,
    )
    stratum = find_strata(objective.cell, score, min(fraction, 1 - fraction))
    kind = np.unique(objective.cell * (stratum.max() + 1) + stratum, return_inverse=True)[1]
    found = []
    for seed in range(200):
        rows = split_cells(kind, fraction, seed)[1]
        if not seed:
            sizes = [np.bincount(kind[part]) for part in (rows, np.delete(np.arange(1500), rows))]
            assert np.min(sizes) >= min(4, fraction * 300)
        predicted = rng.random(1500) < share
        judge = objective.stand_for(rows, np.arange(1500), stratum)
        measured = judge.measure(predicted[rows].astype(float), 0.5)
        found.append((measured.bias[0], measured.error[0]))
    bias, error = np.array(found).T
    # Rates of four rows vary by the root of 4 / 3 more than their estimated error.
    assert bias.std() <= 1.15 * np.sqrt((error**2).mean())
