"""Names that data bring along: nothing that a terminal or a browser acts on leaves skfair."""

import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from skfair.datasets import make_balanced_subset, make_biased_subset
from skfair.metrics import (
    GroupMetricsDisplay,
    count_groups,
    expected_calibration_error,
    fairness_report,
    make_fairness_scorer,
    worst_group_accuracy_score,
)
from skfair.metrics._reporting._measures import resolve_metrics
from skfair.model_selection import GroupStratifiedKFold
from skfair.utils import SmallGroupWarning, encode_groups

mpl.use("agg")

# No half of a pair such as "\\ud800": pandas before 3 takes all texts with one for the same.
ODD = [
    "\x1b[2J\x1b]0;owned\x07",
    "\r\nFairness report: all is well",
    "\u202egnp.exe\u2066",
    "<script>alert(1)</script><img src=x onerror=y>",
    "](http://evil) | **bold** &amp; \x9b31m",
    "$\\frac$",
    "a" * 10**5,
]
N = 40


def _data(odd):
    """Labels, predictions and groups whose every name is odd."""
    y = np.array([f"{odd}{i % 2}" for i in range(N)], dtype=object)
    predicted = np.array([f"{odd}{i % 3}" for i in range(N)], dtype=object)
    groups = pd.DataFrame({f"{odd}sex": [f"{odd}{i % 4 < 2}" for i in range(N)]})
    return y, predicted, groups


@pytest.fixture(params=range(len(ODD)), ids=lambda i: ascii(ODD[i])[:20])
def odd(request):
    return ODD[request.param]


def _is_plain(text, widest=2000):
    assert all(line.isprintable() for line in text.split("\n"))
    assert max(map(len, text.split("\n"))) < widest


@pytest.mark.thorough
def test_reports_are_text_alone(odd, tmp_path):
    y, predicted, groups = _data(odd)
    control = pd.DataFrame({f"{odd}region": [f"{odd}{i % 5}" for i in range(N)]})
    report = fairness_report(
        y,
        {f"{odd}old": predicted, f"{odd}new": y},
        sensitive_features=groups,
        control_features=control,
        metrics={f"{odd}score": lambda a, b: np.mean(a == b)},
        n_boot=20,
    )
    n_blocks = len(str(fairness_report_of_plain_names()).split("\n\n"))
    text = str(report)
    _is_plain(text, widest=101)
    assert not any(line.startswith("Fairness report: all") for line in text.split("\n"))
    assert len(text.split("\n\n")) == n_blocks  # names are wrapped; no block is forged
    page = report.to_html(tmp_path / "report.html", title=odd[:99]).read_text(encoding="utf-8")
    for html in (page, report._repr_html_()):
        _is_plain(html, widest=10_000)
        body = html.rpartition("</style>")[2].rpartition("<script>")[0]
        assert "<script" not in body
        assert "<img" not in body
    card = report.to_model_card().render()
    assert all(line.isprintable() for line in card.split("\n"))
    assert "<script" not in card
    assert "](http" not in card


def fairness_report_of_plain_names():
    y, predicted, groups = _data("")
    control = pd.DataFrame({"region": [f"{i % 5}" for i in range(N)]})
    return fairness_report(
        y,
        {"old": predicted, "new": y},
        sensitive_features=groups,
        control_features=control,
        metrics={"score": lambda a, b: np.mean(a == b)},
        n_boot=20,
    )


def test_plots_are_text_alone(odd):
    y, predicted, groups = _data(odd)
    report = fairness_report(
        y, {f"{odd}model".replace("$", ""): predicted, "b": y}, sensitive_features=groups
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        display = GroupMetricsDisplay.from_report(report).plot()
        display.figure_.draw_without_rendering()
    axes = display.ax_
    written = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    for text in [*written, *axes.get_legend().get_texts()]:
        _is_plain(text.get_text().replace("\n(n=", ""))


def _calls(odd):
    y, predicted, groups = _data(odd)
    many = pd.Series([f"{odd}{i}" for i in range(N)])
    name = groups.columns[0]
    holes = groups.assign(**{name: [None, *groups[name][1:]]})
    twice = pd.DataFrame([[1, 2]] * N, columns=[f"{odd}a", f"{odd}a"])
    return {
        "missing": lambda: encode_groups(holes.assign(b=1), n_samples=N),
        "equal names": lambda: encode_groups(twice, n_samples=N),
        "equal models": lambda: count_groups(y, {odd: y, _Same(odd): y}, sensitive_features=groups),
        "other kind": lambda: count_groups(y, np.arange(N), sensitive_features=groups),
        "other labels": lambda: fairness_report(y, np.full(N, odd), sensitive_features=groups),
        "pos_label": lambda: fairness_report(y, y, sensitive_features=groups, pos_label=odd),
        "positive": lambda: make_fairness_scorer("demographic_parity")(
            _Fixed(predicted), y, y, sensitive_features=groups
        ),
        "one group": lambda: make_fairness_scorer("demographic_parity")(
            _Fixed(y), y, y, sensitive_features=np.full(N, odd)
        ),
        "undefined": lambda: make_fairness_scorer("equal_opportunity", pos_label=y[1])(
            _Fixed(y), y, y, sensitive_features=y
        ),
        "classes": lambda: expected_calibration_error(many, np.full((N, 2), 0.5)),
        "unknown classes": lambda: expected_calibration_error(
            many, np.full((N, 2), 0.5), labels=["a", "b"]
        ),
        "no cell": lambda: make_balanced_subset(many, np.arange(N) % 3),
        "too many": lambda: make_biased_subset(
            y, groups, counts={(y[0], groups.iloc[0, 0]): 10**6}
        ),
        "key": lambda: make_biased_subset(y, groups, counts={odd: 1}),
        "two metrics": lambda: resolve_metrics(
            {odd: np.mean, _Same(odd): np.mean}, count_groups(y, y, sensitive_features=groups), None
        ),
        "metric": lambda: fairness_report(
            y, y, sensitive_features=groups, metrics={odd: lambda a, b: odd}
        ),
        "other counts": lambda: (
            count_groups(y, y, sensitive_features=groups)
            + count_groups(y, y, sensitive_features={"b": np.zeros(N, int)})
        ),
    }


class _Same:
    """A key that differs from a text and has its name."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


class _Fixed(ClassifierMixin, BaseEstimator):
    """A classifier with the predictions that it is given."""

    def __init__(self, predictions):
        self.predictions = predictions

    def fit(self, X, y):
        return self

    @property
    def classes_(self):
        return np.unique(self.predictions)

    def predict(self, X):
        return self.predictions


@pytest.mark.parametrize("call", list(_calls("")))
def test_errors_are_short_text_alone(odd, call):
    with pytest.raises((ValueError, TypeError)) as refused:
        _calls(odd)[call]()
    said = "\n".join([str(refused.value), *getattr(refused.value, "__notes__", [])])
    assert said.isprintable()
    assert len(said) < 1200


def test_warnings_are_short_text_alone(odd):
    y = np.array([f"{odd}{i % 20}" for i in range(N)], dtype=object)
    groups = [f"{odd}{i % 7}" for i in range(N)]
    with pytest.warns(SmallGroupWarning) as warned:
        list(GroupStratifiedKFold(5).split(y, y, sensitive_features=groups))
    for one in warned:
        assert str(one.message).isprintable()
        assert len(str(one.message)) < 1500


IDS = [f"person {i}" for i in range(20_000)]
BINARY = np.arange(20_000) % 2


@pytest.mark.parametrize(
    ("call", "said"),
    {
        "groups": (
            lambda: fairness_report(BINARY, BINARY, sensitive_features=IDS, n_boot=3000),
            "n_boot=3,000 draws",
        ),
        "draws": (
            lambda: fairness_report(BINARY, BINARY, sensitive_features=BINARY, n_boot=10**8),
            "n_boot=100,000,000 draws",
        ),
        "classes": (
            lambda: fairness_report(IDS, IDS, sensitive_features=BINARY, n_boot=0),
            "y_true 20,000 classes",
        ),
        "score": (
            lambda: worst_group_accuracy_score(IDS, IDS, sensitive_features=BINARY),
            "y_true 20,000 classes",
        ),
        "table": (
            lambda: count_groups(IDS, IDS, sensitive_features=IDS).table(),
            "sensitive_features has 20,000 groups",
        ),
        "bins": (
            lambda: expected_calibration_error([0, 1], [0.2, 0.8], n_bins=10**9),
            "n_bins=1000000000",
        ),
    }.values(),
)
def test_tables_of_absurd_size_are_refused_in_words(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_many_groups_are_counted_and_shown_in_linear_time():
    y, ids = BINARY[:3000], IDS[:3000]
    report = fairness_report(y, y, sensitive_features=y, control_features=ids, n_boot=0)
    assert str(report).count("person 2999") >= 2


def test_draws_do_not_depend_on_how_many_are_counted_at_once(monkeypatch):
    y, predicted, groups = _data("")
    whole = fairness_report(y, {"a": predicted, "b": y}, sensitive_features=groups, n_boot=50)
    monkeypatch.setattr("skfair.metrics._reporting._measures._AT_ONCE", 1)
    singly = fairness_report(y, {"a": predicted, "b": y}, sensitive_features=groups, n_boot=50)
    for table in ("by_group", "by_feature", "disparities"):
        pd.testing.assert_frame_equal(getattr(whole, table), getattr(singly, table))
