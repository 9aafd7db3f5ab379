"""The fairness report: one or several models, group by group, with counts and intervals."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from skfair.metrics import _report_faces
from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._counts import GroupCounts, count_predictions
from skfair.metrics._report_format import Content
from skfair.metrics._report_functions import ReportMetric, metric_frames
from skfair.metrics._report_metrics import measure, resolve_metrics
from skfair.metrics._report_tables import class_tables, feature_tables
from skfair.utils._imports import import_optional
from skfair.utils._random import draw_seed
from skfair.utils._random_state import check_random_state
from skfair.utils._settings import with_own_settings
from skfair.utils._shown import plain, shown, shown_all

N_BOOT = 1000


@dataclass(frozen=True, eq=False)
class FairnessReport:
    """How one or several models fare in each group; made by :func:`fairness_report`.

    Printing it gives text, a notebook shows tables. All numbers are functions of the counts
    alone, so that a report of counts that were added up is the report of all samples. Intervals
    are 95 % intervals, and say how far chance in the draw of these samples goes; changes are
    those against the first model.

    Attributes
    ----------
    by_group : DataFrame
        One row for each class and group of the sensitive features that occurs. Columns:
        ``("", "count")``, the number of samples; for each model ``accuracy``, ``low`` and
        ``high``, its interval; for each model but the first ``change``, ``change_low`` and
        ``change_high``.
    summary : DataFrame
        ``overall_accuracy``, ``worst_group_accuracy`` and ``average_group_accuracy`` of each
        model.
    by_feature : DataFrame
        The metrics by sensitive features alone, and by control features if any. Index: metric,
        control features, sensitive features. Columns: ``("", "count")``; for each model
        ``value``, ``low`` and ``high``; for each model but the first ``change``, ``change_low``
        and ``change_high``. NaN where a metric is undefined, such as a true positive rate where
        there are no positives; fairlearn's functions say 0 there.
    disparities : DataFrame
        The metrics of all samples, and compared between the groups. Index: metric, control
        features, and a statistic: ``overall``; ``difference``, the largest value less the
        smallest; ``ratio``, the smallest value by the largest. Columns as in `by_feature`,
        without the count. Groups in which a metric is undefined are left out.
    counts : GroupCounts
        What all of it was computed from.
    certificates : dict of str to FairnessCertificate
        Those that were given, by model.

    Examples
    --------
    >>> report = fairness_report(
    ...     [0, 1, 0, 1], {"old": [0, 1, 1, 1], "new": [0, 1, 0, 1]}, sensitive_features=[*"ffmm"]
    ... )
    >>> report.disparities.loc[("accuracy", "difference"), ("new", "change")]
    np.float64(-0.5)
    """

    by_group: pd.DataFrame
    summary: pd.DataFrame
    by_feature: pd.DataFrame
    disparities: pd.DataFrame
    counts: GroupCounts
    _metrics: list[ReportMetric] = field(repr=False)
    _pos_label: Any = field(repr=False)
    _n_boot: int = field(repr=False)
    certificates: dict[str, FairnessCertificate] = field(default_factory=dict)

    @classmethod
    @with_own_settings
    def from_counts(
        cls,
        counts: GroupCounts,
        *,
        metrics: Mapping[str, Callable] | Sequence[Callable] | None = None,
        pos_label: Any = None,
        n_boot: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
        certificate: FairnessCertificate | Mapping[str, FairnessCertificate] | None = None,
    ) -> "FairnessReport":
        """Make a report of counts, for instance of several batches added up.

        Parameters
        ----------
        counts : GroupCounts
            From :func:`count_groups`, or a sum of such.
        metrics : dict of str to callable, or list of callables, default=None
            As in :func:`fairness_report`.
        pos_label : label, default=None
            As in :func:`fairness_report`.
        n_boot : int, default=None
            As in :func:`fairness_report`.
        random_state : int, RandomState or None, default=0
            As in :func:`fairness_report`.
        certificate : FairnessCertificate or dict of str to FairnessCertificate, default=None
            As in :func:`fairness_report`.

        Returns
        -------
        FairnessReport
            The same, bit for bit, as of all samples at once.

        Raises
        ------
        TypeError, ValueError
            See :func:`fairness_report`.

        Examples
        --------
        >>> from skfair.metrics import count_groups
        >>> monday = count_groups([0, 1], [0, 0], sensitive_features=["f", "m"])
        >>> tuesday = count_groups([1, 1], [1, 1], sensitive_features=["f", "m"])
        >>> FairnessReport.from_counts(monday + tuesday).summary.loc["overall_accuracy", "model"]
        np.float64(0.75)
        """
        if not isinstance(counts, GroupCounts):
            raise TypeError(
                f"counts is a {type(counts).__name__}; give what count_groups returns, or a sum "
                "of such."
            )
        random_state = check_random_state(random_state)
        draws = _check_n_boot(n_boot)
        certificates = _check_certificate(certificate, counts.models)
        names = (*counts.control_names, *counts.group_names)
        for name in names:
            if name in ("y_true", "y_pred"):  # there it would take the place of the labels
                raise ValueError(
                    f"A feature is called {shown(name)}, a name that fairlearn's MetricFrame "
                    "keeps for itself. Rename the column of sensitive_features or control_features."
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"sensitive_features and control_features both have a column {shown(name)}. "
                    "Rename or drop one of them."
                )
        for m, model in enumerate(counts.models):
            occurring = np.unique(counts.cells[:, 3 + m])
            if len(counts.classes) > 1 and occurring.min() >= len(counts.classes):
                raise ValueError(
                    f"No prediction of {shown(model)} is a label of y_true: predicted are "
                    f"[{shown_all([counts.predicted[i] for i in occurring])}], true are "
                    f"[{shown_all(counts.classes)}]. Spell both alike."
                )
        resolved = resolve_metrics(metrics, counts, pos_label)
        seed = draw_seed(random_state)
        measures = measure(counts, resolved, pos_label, draws, n_boot or 0, seed)
        by_group, summary = class_tables(counts, measures)
        by_feature, disparities = feature_tables(counts, resolved, measures)
        tables = (by_group, summary, by_feature, disparities)
        return cls(*tables, counts, resolved, pos_label, draws, certificates)

    @cached_property
    def metric_frames(self) -> dict[str, MetricFrame]:
        """For each model, the metrics by sensitive and control features, for fairlearn's plots.

        Made by fairlearn at first use: it takes hundreds of times longer than the report.

        Returns
        -------
        dict of str to fairlearn.metrics.MetricFrame
        """
        return metric_frames(self.counts, self._metrics, self._pos_label)

    def to_frame(self) -> pd.DataFrame:
        """Give the table by class and group as numbers; the other tables are attributes.

        Returns
        -------
        DataFrame
            A copy of `by_group`.
        """
        return self.by_group.copy()

    def to_html(self, path: str | os.PathLike, *, title: str = "Fairness report") -> Path:
        """Write the report as one HTML file that needs no other, nor the net, nor scripts.

        The same report gives the same file. It is there as a whole or not at all: an older
        file is replaced at the end.

        Parameters
        ----------
        path : str or path-like
            Where to; the folder must exist.
        title : str, default="Fairness report"
            Title of the page: of which models and data it is, and of when.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        FileNotFoundError
            There is no such folder.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {plain(str(path.parent))}. Make it first.")
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(_report_faces.page(self._content(), title), encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def to_model_card(self, card: Any = None, *, section: str = "Fairness") -> Any:
        """Write the report into a model card of skops (extra ``report``).

        Parameters
        ----------
        card : skops.card.Card, default=None
            The card, which is changed; None for a new one that holds nothing else.
        section : str, default="Fairness"
            Title of the section; ``"Evaluation/Fairness"`` is one within another. What the
            card has there is replaced. The tables are sections within it.

        Returns
        -------
        skops.card.Card
            The card, to be rendered or saved.

        Raises
        ------
        ImportError
            skops is not installed.
        TypeError
            `card` is no card.

        Examples
        --------
        >>> report = fairness_report([0, 1], [0, 1], sensitive_features={"sex": ["f", "m"]})
        >>> print(report.to_model_card().render()[:12])
        # Fairness
        """
        skops = import_optional("skops.card", extra="report", purpose="A model card")
        if card is None:
            card = skops.Card(None, template=None)
        if not isinstance(card, skops.Card):
            raise TypeError(f"card is a {type(card).__name__}; give a skops.card.Card.")
        _report_faces.add_to_card(self._content(), card, section)
        return card

    def __str__(self) -> str:
        return _report_faces.text(self._content())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _report_faces.body(self._content())

    def _content(self) -> Content:
        return Content(
            self.by_group,
            self.summary,
            self.by_feature,
            self.disparities,
            self.counts,
            self._metrics,
            self._n_boot,
            self.certificates,
        )


@with_own_settings
def fairness_report(
    y_true: Any,
    predictions: Any,
    *,
    sensitive_features: Any,
    metrics: Mapping[str, Callable] | Sequence[Callable] | None = None,
    control_features: Any = None,
    pos_label: Any = None,
    sample_weight: Any = None,
    missing: Literal["error", "group"] = "error",
    n_boot: int | None = None,
    random_state: int | np.random.RandomState | None = 0,
    certificate: FairnessCertificate | Mapping[str, FairnessCertificate] | None = None,
) -> FairnessReport:
    """Report how one or several models fare in each group.

    Two kinds of groups are shown. As in the literature on group robustness, `by_group` has the
    accuracy of each combination of a class and of the sensitive features. `by_feature` and
    `disparities` have `metrics` by sensitive features alone, as fairlearn's ``MetricFrame``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    predictions : array-like of shape (n_samples,) or dict of str to array-like
        Predicted labels of one model, or of several by name. The first one is what the
        others are compared with. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    metrics : dict of str to callable or list of callable, default=None
        Metrics, ``metric(y_true, y_pred)`` -> float, from scikit-learn, fairlearn or your own.
        Those with a parameter ``sample_weight`` are given the weights, those with a parameter
        ``pos_label`` are given `pos_label`, where you give them. A function gets the samples of
        a group in no particular order. None means the accuracy, and where the positive class is
        clear the selection rate, true and false positive rate as well.
    control_features : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
        Labels within whose levels groups are compared, such as a region. They do not cut up
        `by_group` and `summary`.
    pos_label : label, default=None
        The positive class of rates. None means 1 where labels are 0 and 1, -1 and 1, or False
        and True.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; samples of weight zero are left out. Wilson's intervals then rest
        on the effective number of samples, (sum of weights)² / (sum of squared weights).
    missing : {"error", "group"}, default="error"
        What missing labels of groups and of control levels mean: an error, or a group of their
        own.
    n_boot : int, default=None
        Number of bootstrap draws for the intervals that are not Wilson's; 0 for none. None
        means 1,000 for metrics that can be computed from counts (accuracy, balanced accuracy,
        zero-one loss, recall, precision and F1 of two classes, and fairlearn's rates), which
        takes well under a second for 20,000 samples, and 0 for other functions. These get
        intervals from fairlearn's own bootstrap where a number is given, which takes minutes:
        1,000 draws of one function of one model, ten groups and 20,000 samples five to ten.
    random_state : int, RandomState or None, default=0
        Seed of the draws.
    certificate : FairnessCertificate or dict of str to FairnessCertificate, default=None
        What is proven of the model, or of some models by name, from :func:`fairness_certificate`
        or a debiaser's `certificate_`; it is printed with the rest.

    Returns
    -------
    FairnessReport
        Tables by group and over all, text, HTML, model card, and the fairlearn ``MetricFrame``
        of each model.

    Raises
    ------
    TypeError
        Labels are text on one side only, a metric is no function or returns something else
        than a number (NaN is one: "undefined"), or `certificate` is no certificate.
    ValueError
        Another number of predictions, groups or weights than of labels, missing labels,
        continuous values, no samples or no models, a positive label that does not occur, a
        metric of one class where it is not clear which, or so many groups and classes that tables
        have more than 2**26 numbers or the bootstrap more than 2**28. A certificate of a model that
        is not there, or of which of several is not said.

    Notes
    -----
    Shares (accuracies and rates, by group and over all) have Wilson's interval. All else has the
    percentile interval of a bootstrap, in which samples are drawn with replacement, the same
    ones for all models, so that what models have in common does not blur their change. A draw
    in which a group has no samples, or a metric is undefined, leaves the group out.

    A difference between groups, the largest value less the smallest, is never below 0, and
    neither is its interval. Where groups hardly differ, chance alone makes some difference, the
    more so the more and the smaller the groups are: small differences are overstated, in value
    and interval. Whether models differ in it is told by ``change_low`` and ``change_high`` of
    `disparities`, which are on both sides of 0 where they may not.

    Changes of differences and ratios of functions other than the counted ones have no interval.

    Examples
    --------
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> report = fairness_report(
    ...     y,
    ...     {"plain": ["cat", "dog", "dog", "dog"], "robust": y},
    ...     sensitive_features={"fur": ["black", "white", "black", "white"]},
    ... )
    >>> report.summary
                            plain  robust
    overall_accuracy         0.75     1.0
    worst_group_accuracy     0.00     1.0
    average_group_accuracy   0.75     1.0
    >>> print(report.by_group["robust", "change"].loc["cat", "white"])
    1.0
    >>> report.disparities.xs("value", axis=1, level=1)
                          plain  robust
    metric   statistic
    accuracy overall       0.75     1.0
             difference    0.50     0.0
             ratio         0.50     1.0
    """
    random_state = check_random_state(random_state)
    counts = count_predictions(
        y_true,
        predictions,
        sensitive_features=sensitive_features,
        control_features=control_features,
        sample_weight=sample_weight,
        missing=missing,
        name="predictions",
    )
    return FairnessReport.from_counts(
        counts,
        metrics=metrics,
        pos_label=pos_label,
        n_boot=n_boot,
        random_state=random_state,
        certificate=certificate,
    )


def _check_certificate(certificate: Any, models: Sequence[str]) -> dict[str, FairnessCertificate]:
    """Give the certificates by the names of their models."""
    if certificate is None:
        return {}
    if not isinstance(certificate, Mapping):
        if len(models) > 1:
            raise ValueError(
                f"There is one certificate and {len(models)} models, [{shown_all(models)}]. Say of "
                f"which it is, for instance certificate={{{shown(models[-1])}: certificate}}."
            )
        certificate = {models[0]: certificate}
    for model, value in certificate.items():
        if str(model) not in models:
            raise ValueError(
                f"certificate has {shown(model)}, which is none of the models "
                f"[{shown_all(models)}]. Spell it alike."
            )
        if not isinstance(value, FairnessCertificate):
            raise TypeError(
                f"certificate is a {type(value).__name__}. Give what fairness_certificate returns, "
                "or a dict of model to such."
            )
    return {str(model): value for model, value in certificate.items()}


def _check_n_boot(n_boot: Any) -> int:
    if n_boot is None:
        return N_BOOT
    if not isinstance(n_boot, Integral) or isinstance(n_boot, bool) or n_boot < 0:
        raise ValueError(
            f"n_boot={n_boot!r} is no number of draws. Give an integer, 0 for no bootstrap, or "
            "None for the default."
        )
    return int(n_boot)
