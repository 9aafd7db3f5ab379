"""Fitted attributes of debiasers against populations with known rates."""

import warnings
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_ratio,
    selection_rate,
)
from scipy.stats import binom
from sklearn.metrics import zero_one_loss
from torch import nn

from skfair.intraprocessing import (
    BiasGradientDebiaser,
    DistillationDebiaser,
    LayerwiseDebiaser,
    RandomPerturbationDebiaser,
    ThresholdDebiaser,
    _base,
)
from skfair.metrics import fairness_certificate, fairness_report
from skfair.utils import (
    FallbackWarning,
    InfeasibleConstraintWarning,
    OverfitWarning,
    SmallGroupWarning,
)
from skfair.utils._random import seeded

CPU = torch.device("cpu")
threshold = partial(ThresholdDebiaser, random_state=0)
quiet = pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
uncertain = pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
small = pytest.mark.filterwarnings("ignore::skfair.utils.SmallGroupWarning")


def gap(positive, groups, y=None, label=None):
    """The selection rate of the first group minus that of the second."""
    rows = np.ones(len(groups), bool) if label is None else y == label
    return positive[rows & (groups == 0)].mean() - positive[rows & (groups == 1)].mean()


def read_logit():
    """A network of one weight that returns the first column as the logit."""
    network = nn.Sequential(nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.fill_(1.0), network[0].bias.zero_()
    return network


def with_logit(n, seed, shares=(0.5, 0.5), shift=0.0, base=0.5):
    """Labels, groups, and a logit that is shifted in the second group."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(len(shares), size=n, p=shares)
    y = (rng.random(n) < base).astype(np.int64)
    logit = 2.4 * (y - 0.5) + shift * (groups == 1) + rng.normal(size=n)
    return logit[:, None].astype(np.float32), y, groups


# Memorised rows ---------------------------------------------------------------------------

LEVELS, COLUMNS = 300, 8


class Tokens(nn.Module):
    """A network that can memorise rows."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(COLUMNS * LEVELS, 16)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.head(self.embedding(x.long()))


@pytest.fixture(scope="module")
def tokens():
    """Rows of tokens with information about group and label, and a network trained on others."""
    rng, n = np.random.default_rng(0), 44_000
    share = 1 / np.arange(3, LEVELS + 3)
    level = rng.choice(LEVELS, size=(n, COLUMNS), p=share / share.sum())
    of_group, of_label = 0.45 * rng.normal(size=(2, COLUMNS, LEVELS))
    tell = [sum(w[j][level[:, j]] for j in range(COLUMNS)) for w in (of_group, of_label)]
    group = (rng.random(n) < 1 / (1 + np.exp(-tell[0]))).astype(int)
    y = (rng.random(n) < 1 / (1 + np.exp(0.5 - tell[1] - 0.7 * tell[0]))).astype(int)
    ids = level + np.arange(COLUMNS) * LEVELS
    with seeded(0):
        network = Tokens()
        optimizer = torch.optim.Adam(network.parameters(), 8e-3)
        rows, labels = torch.tensor(ids[:12_000]), torch.tensor(y[:12_000]).float()
        for _ in range(3):
            for part in torch.randperm(12_000).split(256):
                optimizer.zero_grad()
                out = network(rows[part])[:, 0]
                nn.functional.binary_cross_entropy_with_logits(out, labels[part]).backward()
                optimizer.step()
    optimizer.zero_grad()
    return network.eval(), ids[12_000:], y[12_000:], group[12_000:]


@uncertain
@quiet
@pytest.mark.filterwarnings("ignore::skfair.utils.OverfitWarning")
@pytest.mark.parametrize("kind", [DistillationDebiaser, BiasGradientDebiaser])
def test_memorised_rows_do_not_measure_the_network(tokens, kind):
    network, ids, y, group = tokens
    new = slice(2000, None)
    debiaser = kind(network, random_state=0, lr=3e-3, max_epochs=10)
    debiaser.fit(ids[:2000], y[:2000], sensitive_features=group[:2000])
    bias = gap(debiaser.predict(ids[new]), group[new])
    low, high = debiaser.bias_interval_
    assert low - 0.01 <= bias <= high + 0.01  # measured on 30,000 rows, error .006
    assert high - low > 0.03  # and not a few thousandths
    positive = debiaser.predict(ids[new])
    right = (np.mean(positive[y[new] == 1]) + 1 - np.mean(positive[y[new] == 0])) / 2
    assert debiaser.performance_ == pytest.approx(right, abs=0.05)
    if debiaser.feasible_:
        assert abs(bias) < 0.1


@uncertain
@quiet
def test_the_warning_has_the_measures_on_both_kinds_of_rows(tokens):
    # Twenty epochs at a learning rate at which an embedding memorises its rows.
    network, ids, y, group = tokens
    rows = slice(0, 1500)
    debiaser = DistillationDebiaser(network, random_state=0, lr=3e-2, max_epochs=20)
    with pytest.warns(OverfitWarning) as record:
        debiaser.fit(ids[rows], y[rows], sensitive_features=group[rows])
    (message,) = [str(w.message) for w in record if w.category is OverfitWarning]
    assert "tuned its weights: there its bias is " in message
    tuned, held_out = message.split("; on held-out rows ")
    told = [
        float(text.split(" and ")[0].split(" ")[-1]) for text in (tuned.split("its bias is ")[1],)
    ]
    honest = float(held_out.split(" ")[0])
    bias = gap(debiaser.predict(ids[1500:]), group[1500:])
    # The bias on held-out rows is closer to the bias on new rows.
    assert abs(honest - bias) < abs(told[0] - bias)


# The untouched network --------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("confidence", ["auto", 0.9])
def test_a_network_that_holds_already_is_not_replaced_by_a_near_constant_one(confidence):
    X, y, groups = with_logit(4000, 0, shift=0.05)
    debiaser = threshold(
        read_logit(), constraint="equalized_odds", epsilon=0.1, confidence=confidence
    )
    debiaser.fit(X, y, sensitive_features=groups)
    right = [(X[y == 1] > 0).mean(), (X[y == 0] <= 0).mean()]
    assert debiaser.performance_ > np.mean(right) - 0.02 > 0.8
    assert debiaser.feasible_
    new, labels, others = with_logit(60_000, 1, shift=0.05)
    positive = debiaser.predict(new)
    assert max(abs(gap(positive, others, labels, label)) for label in (0, 1)) < 0.1


@quiet
@uncertain
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("confidence", ["auto", None])
def test_an_unlikely_constraint_is_never_feasible(shift, n, confidence):
    for seed in range(3):
        X, y, groups = with_logit(n, seed, shift=shift)
        debiaser = threshold(read_logit(), confidence=confidence)
        debiaser.fit(X, y, sensitive_features=groups)
        best = debiaser.trials_.loc[debiaser.best_trial_]
        assert debiaser.feasible_ is bool(best.probability >= 0.8)
        assert debiaser.feasible_ is bool(best.feasible)


def test_the_infeasible_warning_gives_the_interval():
    X, y, groups = with_logit(200, 0, shift=0.8)
    debiaser = threshold(read_logit(), epsilon=0.02)
    with pytest.warns(InfeasibleConstraintWarning, match=r"95 % interval [+-]\d\.\d{3} to"):
        debiaser.fit(X, y, sensitive_features=groups)
    assert not debiaser.feasible_


# Many groups ------------------------------------------------------------------------------

SHARES = (0.4, 0.25, 0.15, 0.12, 0.08)


def six_groups(n=2500, seed=0, shift=0.35):
    """Five groups and one of three rows."""
    X, y, groups = with_logit(n, seed, SHARES, shift)
    groups[:3], y[:3] = 5, [0, 1, 1]
    names = np.array(["a", "b", "c", "d", "e", "tiny"])
    return X, y, groups, names[groups]


@uncertain
@quiet
@pytest.mark.parametrize("small_groups", ["shrink", "exclude"])
def test_a_group_of_three_rows_does_not_spoil_the_others(small_groups):
    X, y, _, names = six_groups()
    debiaser = threshold(read_logit(), epsilon=0.1, small_groups=small_groups)
    with pytest.warns(SmallGroupWarning, match=r"fewer than 10 samples: \{'tiny': 3\}"):
        debiaser.fit(X, y, sensitive_features=names)
    # There is a good candidate: the original network has .88, near-constant candidates .5.
    assert debiaser.performance_ > 0.8
    compared = "abcde" if small_groups == "exclude" else [*"abcde", "tiny"]
    pairs = debiaser.pairs_
    n = len(compared)
    assert len(pairs) == n * (n - 1) / 2
    assert {*zip(pairs.group_1, pairs.group_2, strict=True)} == {
        (one, two) for place, one in enumerate(compared) for two in compared[place + 1 :]
    }
    new, _, others = with_logit(60_000, 1, SHARES, 0.35)
    positive = debiaser.predict(new)
    rates = [positive[others == group].mean() for group in range(5)]
    low, high = debiaser.bias_interval_
    assert low - 0.01 <= np.ptp(rates) <= high + 0.01
    # The intervals of the pairs, too, up to chance: at 95 % each, one of ten may miss.
    covered = [
        row.low
        <= rates[compared.index(row.group_1)] - rates[compared.index(row.group_2)]
        <= row.high
        for row in pairs.itertuples()
        if row.group_2 != "tiny"
    ]
    assert np.sum(covered) >= 8


def test_small_groups_are_an_error_if_asked_for():
    X, y, _, names = six_groups()
    with pytest.raises(ValueError, match=r"small_groups='error'.*fewer than 10.*'tiny': 3"):
        threshold(read_logit(), small_groups="error").fit(X, y, sensitive_features=names)


def test_groups_without_a_label_are_left_out_if_asked_for():
    X, y, _, names = six_groups()
    y[:3] = 0  # no positive row
    options = {"constraint": "equal_opportunity", "epsilon": 0.15}
    with pytest.raises(ValueError, match=r"without any in y.*small_groups='exclude'"):
        threshold(read_logit(), **options).fit(X, y, sensitive_features=names)
    debiaser = threshold(read_logit(), **options, small_groups="exclude")
    with pytest.warns(SmallGroupWarning, match="leaves these groups out"):
        debiaser.fit(X, y, sensitive_features=names)
    assert "tiny" not in set(debiaser.pairs_.group_2)


@small
def test_all_groups_left_out():
    X, y, groups = with_logit(24, 0, (0.35, 0.35, 0.3))
    with pytest.raises(ValueError, match=r"small_groups='exclude' leaves [01] of 3 groups"):
        threshold(read_logit(), small_groups="exclude").fit(X, y, sensitive_features=groups)


@uncertain
@quiet
def test_pairs_are_those_of_fairlearn():
    X, y, groups = with_logit(900, 0, (0.3, 0.3, 0.4), shift=0.1)
    debiaser = threshold(read_logit(), epsilon=0.3).fit(X, y, sensitive_features=groups)
    positive = (X[:, 0] > 0).astype(int) if debiaser.best_trial_ == 0 else None
    assert positive is not None  # the original network holds, and predicts each row itself
    frame = MetricFrame(
        metrics=selection_rate, y_true=y, y_pred=positive, sensitive_features=groups
    )
    rates = frame.by_group
    for row in debiaser.pairs_.itertuples():
        expected = rates[int(row.group_1)] - rates[int(row.group_2)]
        assert row.difference == pytest.approx(expected, abs=1e-12)
        assert row.low < row.difference < row.high
        assert 0 <= row.probability <= 1
    assert debiaser.pairs_.difference.abs().max() == pytest.approx(frame.difference())
    assert set(debiaser.pairs_.rate) == {"selection"}


# Certificates -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "constraint", ["demographic_parity", "equal_opportunity", "equalized_odds", "average_odds"]
)
@quiet
def test_a_certified_constraint_holds_in_the_population(constraint):
    X, y, groups = with_logit(6000, 3, shift=0.15)
    debiaser = threshold(
        read_logit(), constraint=constraint, epsilon=0.12, confidence=0.95, random_state=0
    ).fit(X, y, sensitive_features=groups)
    certificate = debiaser.certificate_
    assert debiaser.feasible_ is True
    assert certificate.holds is True
    assert certificate.constraint == constraint
    assert (certificate.epsilon, certificate.confidence) == (0.12, 0.95)
    assert certificate.delta == pytest.approx(0.05)
    assert certificate.rows_needed is None
    sizes = certificate.group_sizes
    assert sizes.index.tolist() == [0, 1]
    both_labels = constraint in ("demographic_parity", "average_odds")
    assert sizes.to_numpy().min() > (1400 if both_labels else 700)  # half of the rows calibrate
    assert (certificate.pairs.bound <= 0.12).all()
    assert (certificate.pairs.bound >= certificate.pairs.difference.abs()).all()
    # All fitted measures come from the calibration rows.
    if constraint in ("demographic_parity", "equal_opportunity"):
        assert debiaser.bias_ == pytest.approx(certificate.pairs.difference[0], abs=1e-12)
    new, labels, others = with_logit(60_000, 4, shift=0.15)
    positive = debiaser.predict(new)
    both = [gap(positive, others, labels, label) for label in (1, 0)]
    largest = {
        "demographic_parity": abs(gap(positive, others)),
        "equal_opportunity": abs(both[0]),
        "average_odds": abs(np.mean(both)),
        "equalized_odds": np.max(np.abs(both)),
    }[constraint]
    assert largest <= 0.12
    html = certificate._repr_html_()
    assert "0.12" in html
    report = fairness_report(labels, positive, sensitive_features=others, certificate=certificate)
    assert str(certificate).splitlines()[0] in str(report)
    assert "0.12" in report._repr_html_()


def test_the_certificate_is_that_of_the_predictions_on_calibration_rows(monkeypatch):
    X, y, groups = with_logit(3000, 5)
    seen, split = [], _base.split_rows

    def kept(*arguments, **settings):
        seen.append(split(*arguments, **settings))
        return seen[-1]

    monkeypatch.setattr(_base, "split_rows", kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        debiaser = threshold(read_logit(), epsilon=0.1, confidence=0.9, random_state=0)
        debiaser.fit(X, y, sensitive_features=groups)
    rows = seen[0].calibrate
    expected = fairness_certificate(
        y[rows],
        debiaser.predict(X[rows]),
        sensitive_features=groups[rows],
        epsilon=0.1,
        confidence=0.9,
    )
    assert debiaser.certificate_.to_dict() == expected.to_dict()
    assert len(rows) == pytest.approx(1500, abs=2)


def test_without_a_certificate_the_needed_rows_are_given():
    X, y, groups = with_logit(600, 6)
    debiaser = threshold(read_logit(), confidence=0.99, random_state=0)
    with pytest.warns(InfeasibleConstraintWarning) as record:
        debiaser.fit(X, y, sensitive_features=groups)
    assert debiaser.feasible_ is False
    assert debiaser.certificate_.holds is False
    needed = debiaser.certificate_.rows_needed
    (message,) = [str(w.message) for w in record if w.category is InfeasibleConstraintWarning]
    if needed is not None:
        assert (
            f"{needed.to_numpy().max()} calibration rows of each group would be enough" in message
        )
    assert debiaser.certificate_.rows_at_parity.to_numpy().min() > 600
    # All rows take part in the choice, as without a certificate.
    assert debiaser.performance_ > 0.8


def test_a_fit_without_a_confidence_has_no_certificate():
    X, y, groups = with_logit(600, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        debiaser = threshold(read_logit()).fit(X, y, sensitive_features=groups)
    assert debiaser.certificate_ is None


@pytest.mark.thorough
@quiet
@uncertain
@pytest.mark.parametrize("constraint", ["demographic_parity", "equal_opportunity"])
def test_false_certificates_are_as_rare_as_was_stated(constraint):
    # The logit is the sign of the first column. All thresholds between -1 and 1 give the same
    # predictions, with a gap of exactly epsilon. All other thresholds give constant predictions.
    n_fits, delta, epsilon = 40, 0.1, 0.1
    certified = 0
    for seed in range(n_fits):
        rng = np.random.default_rng(seed)
        groups = rng.integers(2, size=700)
        y = rng.integers(2, size=700)
        rate = np.where(groups == 0, 0.4 + epsilon, 0.4)
        X = np.where(rng.random(700) < rate, 1, -1)[:, None].astype(np.float32)
        debiaser = threshold(
            read_logit(),
            constraint=constraint,
            epsilon=epsilon,
            confidence=1 - delta,
            random_state=seed,
        )
        debiaser.fit(X, y, sensitive_features=groups)
        assert debiaser.feasible_ == debiaser.certificate_.holds
        certified += debiaser.certificate_.holds and 0 < debiaser.predict(X).mean() < 1
    assert certified <= binom(n_fits, delta).ppf(0.999)


# Bad input --------------------------------------------------------------------------------


@uncertain
@small
def test_groups_that_are_too_small_for_any_certificate():
    X, y, groups = with_logit(400, 0)
    groups[groups == 1] = 0
    groups[:20] = 1
    debiaser = threshold(read_logit(), confidence=0.95, random_state=0)
    with pytest.warns(SmallGroupWarning, match=r"too small for any .*\(1: 10\)") as record:
        debiaser.fit(X, y, sensitive_features=groups)
    least = debiaser.certificate_.least_rows
    assert any(f"it takes {least} rows" in str(w.message) for w in record)
    assert not debiaser.certificate_.holds
    assert least > 10


@small
def test_calibration_rows_without_some_group():
    X, y, groups = with_logit(200, 0)
    groups[0] = 2  # its only row
    with pytest.raises(
        ValueError, match=r"confidence=0.9 asks for a certificate.*there are none for 1 of"
    ):
        threshold(read_logit(), confidence=0.9).fit(X, y, sensitive_features=groups)


def test_a_confidence_in_a_callable():
    def my_gap(y_true, y_pred, *, sensitive_features):
        return 0.0

    X, y, groups = with_logit(100, 0)
    with pytest.raises(ValueError, match=r"confidence=0.9 .* callable, my_gap.*Give one of"):
        threshold(read_logit(), constraint=my_gap, confidence=0.9).fit(
            X, y, sensitive_features=groups
        )


@pytest.mark.parametrize("ratio", [demographic_parity_ratio, equalized_odds_ratio])
def test_a_ratio_in_place_of_a_difference(ratio):
    X, y, groups = with_logit(100, 0)
    name = ratio.__name__
    instead = name.replace("ratio", "difference")
    with pytest.raises(ValueError, match=rf"constraint={name} is a ratio.*Use {instead}"):
        threshold(read_logit(), constraint=ratio).fit(X, y, sensitive_features=groups)


KINDS = [
    ThresholdDebiaser,
    partial(RandomPerturbationDebiaser, n_trials=2),
    partial(LayerwiseDebiaser, n_calls=2),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameter", ["constraint", "performance"])
@pytest.mark.parametrize(
    "value, message",
    [(np.inf, "returned inf, expected a finite"), (np.nan, "returned nan at every threshold")],
)
def test_a_callable_without_a_finite_value(kind, parameter, value, message):
    def strange(y_true, y_pred, **_):
        return value

    X, y, groups = with_logit(100, 0)
    with pytest.raises(ValueError, match=f"^{parameter}=strange.*{message}"):
        kind(read_logit(), **{parameter: strange}).fit(X, y, sensitive_features=groups)


def difference(y_true, y_pred, *, sensitive_features):
    return demographic_parity_difference(y_true, y_pred, sensitive_features=sensitive_features)


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(False),
        "0.1",
        None,
        0.1 + 0j,
        np.array([0.1]),
        np.array([0.1, 0.2]),
        torch.tensor([0.1]),
        [0.1],
    ],
)
@pytest.mark.parametrize("parameter", ["constraint", "performance"])
def test_a_callable_that_returns_no_number(parameter, value):
    X, y, groups = with_logit(100, 0)
    debiaser = threshold(read_logit(), **{parameter: lambda y_true, y_pred, **_: value})
    with pytest.raises(ValueError, match=rf"^{parameter}=<lambda>.* expected one number"):
        debiaser.fit(X, y, sensitive_features=groups)


@uncertain
@pytest.mark.parametrize("kind", [np.float32, np.array, torch.tensor, Fraction])
def test_a_callable_may_return_any_kind_of_number(kind):
    def gap(y_true, y_pred, *, sensitive_features):  # called for many resamples, so without tables
        rates = [np.mean(y_pred[sensitive_features == group]) for group in (0, 1)]
        return abs(rates[0] - rates[1])

    X, y, groups = with_logit(30, 0)
    debiaser = threshold(
        read_logit(),
        constraint=lambda *args, **features: kind(gap(*args, **features)),
        epsilon=0.3,
        random_state=0,
    ).fit(X, y, sensitive_features=groups)
    found = difference(y, debiaser.predict(X), sensitive_features=groups)
    assert debiaser.bias_ == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("labels", ["fm", "012"])
def test_a_ratio_by_another_name_is_found_by_equal_groups(labels):
    def fairness(y_true, y_pred, *, sensitive_features):
        return demographic_parity_ratio(y_true, y_pred, sensitive_features=sensitive_features)

    X, y, _ = with_logit(120, 0)
    groups = np.resize(list(labels), len(y))
    with pytest.raises(ValueError, match=r"constraint=fairness is a ratio.*one minus the ratio"):
        threshold(read_logit(), constraint=fairness).fit(X, y, sensitive_features=groups)
    partly = partial(demographic_parity_ratio, method="to_overall")
    with pytest.raises(ValueError, match="constraint=demographic_parity_ratio is a ratio"):
        threshold(read_logit(), constraint=partly).fit(X, y, sensitive_features=groups)
    both = {"sex": groups, "old": groups}
    with pytest.raises(ValueError, match="constraint=fairness is a ratio"):
        threshold(read_logit(), constraint=fairness).fit(X, y, sensitive_features=both)


def test_a_loss_in_place_of_a_score():
    X, y, groups = with_logit(200, 0)
    with pytest.raises(ValueError, match="performance=zero_one_loss is a loss"):
        threshold(read_logit(), performance=zero_one_loss).fit(X, y, sensitive_features=groups)

    def cost(y_true, y_pred):
        return 5 * (y_true > y_pred).mean() + (y_true < y_pred).mean()

    with pytest.raises(ValueError, match="performance=cost is a loss"):
        threshold(read_logit(), performance=cost).fit(X, y, sensitive_features=groups)
    # A measure whose minimum is not at right predictions is no loss.
    for performance in (
        lambda y_true, y_pred: -cost(y_true, y_pred),
        lambda y_true, y_pred: y_pred.mean(),
    ):
        with pytest.warns(InfeasibleConstraintWarning):
            threshold(read_logit(), performance=performance, epsilon=1e-9).fit(
                X, y, sensitive_features=groups
            )


def test_a_callable_that_is_undefined_where_it_counts():
    X, y, groups = with_logit(200, 0)

    def unless_constant(y_true, y_pred, **_):
        return 0.0 if len(np.unique(y_pred)) == 1 else np.nan

    with pytest.raises(ValueError, match="returned nan at the chosen predictions"):
        threshold(read_logit(), constraint=unless_constant).fit(X, y, sensitive_features=groups)

    def on_these_rows(y_true, y_pred, *, sensitive_features):
        return 0.0 if np.array_equal(y_true, y) else np.nan

    with pytest.raises(ValueError, match="returned a number for 0 of 50 resamples"):
        threshold(read_logit(), constraint=on_these_rows).fit(X, y, sensitive_features=groups)
