"""The fairness report: metrics of one or several models in each group, with intervals."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._check import FairnessCheck, check_rules
from skfair.metrics._counts import GroupCounts, count_predictions
from skfair.metrics._reporting import _html
from skfair.metrics._reporting._card import add_to_card
from skfair.metrics._reporting._functions import ReportMetric, metric_frames
from skfair.metrics._reporting._json import to_json
from skfair.metrics._reporting._measures import measure, resolve_metrics
from skfair.metrics._reporting._summarize import ReportTables, summarize
from skfair.metrics._reporting._tables import (
    HIGHEST,
    class_tables,
    feature_tables,
    reference_table,
)
from skfair.metrics._reporting._text import text
from skfair.metrics._rules import FairnessRule
from skfair.utils._imports import import_optional
from skfair.utils._random_state import check_random_state, draw_seed
from skfair.utils._settings import with_own_settings
from skfair.utils._shown import shown, shown_all
from skfair.utils._write import write_whole

N_BOOT = 1000


@dataclass(frozen=True, eq=False)
class FairnessReport:
    """Metrics of one or several models in each group; made by :func:`fairness_report`.

    ``print`` shows the report as text, and a notebook shows it as tables: first the verdict (the
    worst group, the largest gap, who pays), then each metric with the worst group first. The text
    fits the terminal; of a metric with more than 20 groups, it shows the 10 worst. All numbers are
    computed from counts. The report of a sum of counts is therefore the report of all samples.
    Intervals are 95 % intervals for the draw of the samples. A change is the difference from the
    first model.

    Attributes
    ----------
    by_group : DataFrame
        One row for each class and group of the sensitive features that occurs. Columns:
        ``("", "count")``, the number of samples; for each model ``accuracy`` and the ends of its
        interval, ``low`` and ``high``; for each model except the first ``change``, ``change_low``
        and ``change_high``, and ``change_p``, the p-value of the change, adjusted for the number of
        groups.
    summary : DataFrame
        ``overall_accuracy``, ``worst_group_accuracy`` and ``average_group_accuracy`` of each
        model.
    by_feature : DataFrame
        The metrics by sensitive features alone, and by control features if any. Index: metric,
        control features, sensitive features. Columns: ``("", "count")``; for each model
        ``value``, ``low`` and ``high``; for each model except the first ``change``, ``change_low``
        and ``change_high``. NaN where a metric is undefined, such as a true positive rate without
        positives; fairlearn's functions return 0 there.
    disparities : DataFrame
        The metrics of all samples, and compared between the groups. Index: metric, control
        features, and a statistic: ``overall``; ``difference``, the largest value minus the
        smallest; ``ratio``, the smallest value divided by the largest. Columns as in `by_feature`,
        without the count. Groups in which a metric is undefined are left out.
    gaps : DataFrame
        The differences and ratios between the estimable groups, which the report shows. Index and
        columns as in `disparities`; and ``("", "left_out")``, the number of groups that are not
        estimable, and for each model ``lowest`` and ``highest``, the groups with the smallest and
        the largest value. If no group is left out, the numbers are those of `disparities`.
    estimable : DataFrame of bool
        For each row of `by_feature` and each model, whether at least `min_count` samples are behind
        the value.
    by_reference : DataFrame or None
        Each group compared with the reference group; None without `reference` and `threshold`.
        Index as in `by_feature`. Columns for each model: ``difference``, the value minus that of
        the reference, and ``ratio``, the value divided by that of the reference, with ``_low`` and
        ``_high``; ``reference``, the reference group; with `threshold`, ``meets``: "yes", "no" or
        "cannot tell" by the interval of the ratio, or "not estimable".
    counts : GroupCounts
        The counts that all numbers were computed from.
    min_count : int
        As in :func:`fairness_report`.
    threshold : float or None
        As in :func:`fairness_report`.
    certificates : dict of str to FairnessCertificate
        The certificates that were given, by model.

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
    gaps: pd.DataFrame
    estimable: pd.DataFrame
    by_reference: pd.DataFrame | None
    counts: GroupCounts
    min_count: int
    threshold: float | None
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
        min_count: int = 10,
        reference: Any = None,
        threshold: float | None = None,
    ) -> "FairnessReport":
        """Make a report from counts, for instance from the sum over several batches.

        Parameters
        ----------
        counts : GroupCounts
            Result of :func:`count_groups`, or a sum of such results.
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
        min_count : int, default=10
            As in :func:`fairness_report`.
        reference : label, tuple of labels or "highest", default=None
            As in :func:`fairness_report`.
        threshold : float, default=None
            As in :func:`fairness_report`.

        Returns
        -------
        FairnessReport
            The same report, bit for bit, as from all samples at once.

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
                "of such results."
            )
        random_state = check_random_state(random_state)
        draws = _check_n_boot(n_boot)
        min_count = _check_min_count(min_count)
        reference, threshold = _check_reference(reference, threshold, counts)
        certificates = _check_certificate(certificate, counts.models)
        names = (*counts.control_names, *counts.group_names)
        for name in names:
            if name in ("y_true", "y_pred"):  # MetricFrame would overwrite the labels with it
                raise ValueError(
                    f"A feature is called {shown(name)}, a name that fairlearn's MetricFrame "
                    "reserves. Rename the column of sensitive_features or control_features."
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"sensitive_features and control_features both have a column {shown(name)}. "
                    "Rename or drop one of them."
                )
        for m, model in enumerate(counts.models):
            if not model.isascii() and model.encode(errors="replace").decode() != model:
                raise ValueError(
                    f"The name of a model, {shown(model)}, has half of a surrogate pair, which is "
                    "no text. Rename it."
                )
            occurring = np.unique(counts.cells[:, 3 + m])
            if len(counts.classes) > 1 and occurring.min() >= len(counts.classes):
                raise ValueError(
                    f"No prediction of {shown(model)} is a label of y_true: predicted labels are "
                    f"[{shown_all([counts.predicted[i] for i in occurring])}], true labels are "
                    f"[{shown_all(counts.classes)}]. Spell both in the same way."
                )
        resolved = resolve_metrics(metrics, counts, pos_label)
        seed = draw_seed(random_state)
        measures = measure(counts, resolved, pos_label, draws, n_boot or 0, seed, min_count)
        by_group, summary = class_tables(counts, measures)
        by_feature, disparities, gaps, estimable = feature_tables(
            counts, resolved, measures, min_count
        )
        by_reference = None
        if reference is not None:
            by_reference = reference_table(
                counts, resolved, measures, min_count, reference, threshold
            )
        return cls(
            by_group=by_group,
            summary=summary,
            by_feature=by_feature,
            disparities=disparities,
            gaps=gaps,
            estimable=estimable,
            by_reference=by_reference,
            counts=counts,
            min_count=min_count,
            threshold=threshold,
            _metrics=resolved,
            _pos_label=pos_label,
            _n_boot=draws,
            certificates=certificates,
        )

    @cached_property
    def metric_frames(self) -> dict[str, MetricFrame]:
        """Metrics of each model by sensitive and control features, for fairlearn's plots.

        fairlearn computes them at the first use, which takes hundreds of times longer than the
        report. They have no intervals: the report has them. For ``by_group_ci``, make a MetricFrame
        with ``n_boot`` and ``ci_quantiles``, as in the example.

        Returns
        -------
        dict of str to fairlearn.metrics.MetricFrame

        Examples
        --------
        >>> from fairlearn.metrics import MetricFrame, selection_rate
        >>> samples = {"y_true": [0, 1] * 50, "y_pred": [0, 1, 1, 1] * 25}
        >>> features = {"sex": [*"ffmm"] * 25}
        >>> report = fairness_report(*samples.values(), sensitive_features=features)
        >>> report.metric_frames["model"].by_group["selection_rate"].to_dict()
        {'f': 0.5, 'm': 1.0}
        >>> frame = MetricFrame(
        ...     metrics=selection_rate, **samples, sensitive_features=features,
        ...     n_boot=100, ci_quantiles=[0.025, 0.975], random_state=0,
        ... )
        >>> low, high = frame.by_group_ci
        >>> bool(low["f"] < 0.5 < high["f"])
        True
        """
        return metric_frames(self.counts, self._metrics, self._pos_label)

    def check(
        self,
        rules: str | FairnessRule | Sequence[str | FairnessRule],
        *,
        confidence: float = 0.95,
        model: str | None = None,
        min_count: int = 0,
    ) -> FairnessCheck:
        """Check rules about the groups in the population: each passes, fails, or cannot be told.

        Parameters
        ----------
        rules : str, FairnessRule, or list of these
            Limits, fractions from 0 to 1, such as ``"difference(selection_rate) <= 0.05"`` (all
            two groups), ``"ratio(selection_rate) >= 0.8"`` (all two groups), ``"min(accuracy) >=
            0.7"`` (every group), ``"max(false_positive_rate) <= 0.1"`` (every group),
            ``"overall(accuracy) >= 0.8"`` (all samples), and ``"change(accuracy) >= -0.02"`` (every
            group, compared with the first model). Metrics are those of the report that are
            computed from counts; and accuracy, zero_one_loss, balanced_accuracy, selection_rate,
            true_positive_rate, false_positive_rate, true_negative_rate, false_negative_rate,
            precision and f1.
        confidence : float, default=0.95
            Confidence of each verdict, above 0 and at most 0.99999.
        model : str, default=None
            Name of the checked model; None means the last.
        min_count : int, default=0
            Groups with fewer samples behind the metric are left out, and the result names them. The
            samples behind a true positive rate are the positives. With 0, a group of three samples
            usually gives "cannot tell".

        Returns
        -------
        FairnessCheck
            ``raise_if_failed`` raises an error unless the status is "passes".

        Raises
        ------
        TypeError
            An argument has the wrong type.
        ValueError
            A text is not a rule, a metric is unknown or not computed from counts, the model is
            unknown, or the samples have unequal weights.

        Notes
        -----
        The samples must be drawn independently from the population, and must not have trained or
        chosen the model. A rule then passes by mistake with a probability of at most
        ``1 - confidence``, and fails by mistake with a probability of at most ``1 - confidence``,
        for every number of groups, every number of samples and every distribution. Each rule has
        its own error. Levels of control features are checked separately, and a rule must pass in
        each level.

        Differences in a share are tested as in :func:`fairness_certificate`. All other metrics
        have bounds made of Clopper and Pearson's one-sided limits. For "passes", every group or
        pair must be proven, so that no correction is needed. For "fails", the error is shared among
        the groups or pairs (Bonferroni).

        Examples
        --------
        >>> report = fairness_report(
        ...     [0, 1] * 300, [0, 1, 0, 0] * 150, sensitive_features=[*"ffmm"] * 150
        ... )
        >>> print(report.check("min(accuracy) >= 0.7"))
        fails: 1 rule for the model 'model' at a confidence of 95 %
        fails: min(accuracy) >= 0.7
          'm': 0.5000 (n = 300)
          0.5000, confidence bounds [0.4510, 0.5580]
        """
        return check_rules(
            self.counts,
            self._metrics,
            self._pos_label,
            self.certificates,
            rules,
            confidence=confidence,
            model=model,
            min_count=min_count,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the table by class and group as numbers; the other tables are attributes.

        Returns
        -------
        DataFrame
            A copy of `by_group`.
        """
        return self.by_group.copy()

    def to_html(self, path: str | os.PathLike, *, title: str = "Fairness report") -> Path:
        """Write the report as one self-contained HTML file, which loads nothing.

        Each metric has a table and a chart. Without scripts, the file shows everything. A small
        script in the file sorts the tables, filters the groups and offers the tables as CSV and
        JSON; the file forbids the browser to run any other script. All tables are printed, closed
        parts included.

        The same report gives the same file. The file is written completely or not at all; an
        existing file is replaced only when the new one is complete.

        Parameters
        ----------
        path : str or path-like
            Path of the file. Its folder must exist.
        title : str, default="Fairness report"
            Title of the page, for instance the models, the data and the date.

        Returns
        -------
        Path
            Path of the file.

        Raises
        ------
        FileNotFoundError
            The folder does not exist.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> report = fairness_report([0, 1], [0, 1], sensitive_features={"sex": ["f", "m"]})
        >>> with TemporaryDirectory() as folder:
        ...     path = report.to_html(f"{folder}/report.html", title="Hiring model 7, May")
        ...     print(path.read_text(encoding="utf-8")[:15])
        <!DOCTYPE html>
        """
        return write_whole(path, _html.page(summarize(self._tables()), title))

    def to_json(self, path: str | os.PathLike | None = None) -> str | Path:
        """Write the report as JSON, with all its numbers.

        The same report gives the same bytes. A file is written completely or not at all.

        Parameters
        ----------
        path : str or path-like, default=None
            Path of the file. Its folder must exist. None returns the text.

        Returns
        -------
        str or Path
            The text, or the path of the file.

        Raises
        ------
        FileNotFoundError
            The folder does not exist.

        Notes
        -----
        The object has ``schema``, "skfair.fairness_report/1", and:

        - ``title``, ``notes`` (a list of texts), and ``verdict``, a list of objects with ``key``
          and ``text``;
        - ``models``, ``sensitive_features``, ``control_features`` and ``metrics``: lists of names;
          ``min_count``, ``threshold`` and ``n_samples``: numbers;
        - ``summary``: for each model an object of numbers;
        - ``by_group``, ``by_feature``, ``disparities``, ``gaps`` and ``by_reference`` (null if
          there is none): a list of rows. A row has ``labels``, an object of the names and labels
          in the index of the attribute; the columns without a model, such as ``count``; and
          ``models``, for each model an object of its columns. Rows of ``by_feature`` also have
          ``estimable``;
        - ``certificates``: for each model the result of `FairnessCertificate.to_dict`.

        Shares are numbers from 0 to 1, not percent. NaN and infinity are null. A label keeps its
        type if it is a number, a text or a truth value. A tuple becomes a list, and any other label
        becomes text.

        Examples
        --------
        >>> import json
        >>> report = fairness_report([0, 1], [0, 1], sensitive_features={"sex": ["f", "m"]})
        >>> json.loads(report.to_json())["summary"]["model"]["overall_accuracy"]
        1.0
        """
        tables = self._tables()
        written = to_json(tables, summarize(tables))
        return written if path is None else write_whole(path, written)

    def to_model_card(self, card: Any = None, *, section: str = "Fairness") -> Any:
        """Write the report into a model card of skops (extra ``report``).

        Parameters
        ----------
        card : skops.card.Card, default=None
            The card, which is changed in place. None makes a new card without other content.
        section : str, default="Fairness"
            Title of the section; ``"Evaluation/Fairness"`` is a section within another section.
            An existing section with this title is replaced. Each table is a section within it.

        Returns
        -------
        skops.card.Card
            The card.

        Raises
        ------
        ImportError
            skops is not installed.
        TypeError
            `card` is not a card of skops.

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
        add_to_card(summarize(self._tables()), card, section)
        return card

    def __str__(self) -> str:
        return text(summarize(self._tables()))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return _html.body(summarize(self._tables()))

    def _tables(self) -> ReportTables:
        return ReportTables(
            by_group=self.by_group,
            summary=self.summary,
            by_feature=self.by_feature,
            disparities=self.disparities,
            gaps=self.gaps,
            estimable=self.estimable,
            by_reference=self.by_reference,
            counts=self.counts,
            min_count=self.min_count,
            threshold=self.threshold,
            metrics=self._metrics,
            n_boot=self._n_boot,
            certificates=self.certificates,
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
    min_count: int = 10,
    reference: Any = None,
    threshold: float | None = None,
) -> FairnessReport:
    """Report metrics of one or several models in each group.

    The report shows two kinds of groups. `by_group` has the accuracy of each combination of class
    and sensitive features, as in the literature on group robustness. `by_feature` and
    `disparities` have `metrics` by sensitive features alone, as fairlearn's ``MetricFrame``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    predictions : array-like of shape (n_samples,) or dict of str to array-like
        Predicted labels of one model, or of several models by name. The other models are
        compared with the first model. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    metrics : dict of str to callable or list of callable, default=None
        Metrics, ``metric(y_true, y_pred)`` -> float, from scikit-learn, from fairlearn or your
        own. A metric with a parameter ``sample_weight`` receives the weights, and a metric with a
        parameter ``pos_label`` receives `pos_label`, if you give them. A function receives the
        samples of a group in no particular order. None means the accuracy and, if the positive
        class is clear, the selection rate and the true and false positive rates.
    control_features : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
        Labels, such as a region. Groups are compared within each level of these labels.
        `by_group` and `summary` are not split by them.
    pos_label : label, default=None
        The positive class of rates. None means 1 if labels are 0 and 1, -1 and 1, or False and
        True.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; samples of weight zero are left out. With weights, Wilson's
        intervals use the effective number of samples, (sum of weights)² / (sum of squared weights).
    missing : {"error", "group"}, default="error"
        How missing labels of groups and of control levels are treated: as an error, or as a group
        of their own.
    n_boot : int, default=None
        Number of bootstrap draws for the intervals that are not Wilson's; 0 for none. None
        means 1,000 draws for metrics that can be computed from counts (accuracy, balanced accuracy,
        zero-one loss, recall, precision and F1 of two classes, and fairlearn's rates), which take
        well under a second for 20,000 samples, and 0 draws for other functions. If you give a
        number, other functions get intervals from fairlearn's bootstrap, which takes minutes: five
        to ten for 1,000 draws of one function, one model, ten groups and 20,000 samples.
    random_state : int, RandomState or None, default=0
        Seed of the draws.
    certificate : FairnessCertificate or dict of str to FairnessCertificate, default=None
        Certificate of the model, or of some models by name, from :func:`fairness_certificate` or
        from `certificate_` of a debiaser. The report shows it.
    min_count : int, default=10
        A metric of a group with fewer samples behind it is "not estimable": the report shows no
        value, and leaves the group out of `gaps`. The samples behind a share are those in its
        denominator: the positives of a true positive rate, the positive predictions of a precision.
        0 compares all groups. `by_group`, `by_feature` and `disparities` hold all values.
    reference : label, tuple of labels or "highest", default=None
        The group that each group is compared with, as in `by_feature`; a tuple if there are several
        sensitive features. "highest" is the estimable group with the highest value of a metric.
        See `FairnessReport.by_reference`.
    threshold : float, default=None
        Smallest acceptable ratio of the value of a group to that of the reference, above 0 and at
        most 1. For selection rates, 0.8 is the four-fifths rule. Without `reference`, the reference
        is "highest". The verdict then has a fourth line.

    Returns
    -------
    FairnessReport
        Tables by group and over all, text, HTML, model card, and the fairlearn ``MetricFrame``
        of each model.

    Raises
    ------
    TypeError
        Labels are text on one side only, a metric is not a function or does not return a number
        (NaN is a number and means "undefined"), or `certificate` is not a certificate.
    ValueError
        Arguments have different lengths, labels are missing, values are continuous, there are no
        samples or no models, the positive label does not occur or is not clear, or there are so
        many groups and classes that tables have more than 2**26 numbers or the bootstrap more than
        2**28. The model of a certificate is unknown, or several models are given and the
        certificate does not name one. `min_count` is negative, `reference` is no group, or
        `threshold` is not a ratio.

    Notes
    -----
    The arguments with one value for each sample may be dask collections, such as columns of one
    dask frame (extra ``dask``). Each partition is counted where it is, and the report is that of
    all samples, bit for bit.

    Shares (accuracies and rates, by group and over all) have Wilson's interval. All other numbers
    have the percentile interval of a bootstrap: samples are drawn with replacement, and the same
    samples are drawn for all models, so that a change is not blurred by errors that the models
    share. If a group has no samples in a draw, or a metric is undefined there, this draw leaves the
    group out.

    A difference between groups is the largest value minus the smallest. The difference and its
    interval are never below 0. If groups hardly differ, chance alone makes some difference, and
    more so with many or small groups: small differences and their intervals are overstated. To see
    whether two models differ in a difference, read ``change_low`` and ``change_high`` of
    `disparities`: if 0 lies between them, the models may not differ.

    ``change_p`` tests whether the accuracy of a group changed, by McNemar's exact test of the
    samples that only one of both models gets right. Holm's method adjusts the p-values, so that
    the probability of any p-value of at most 0.05, if no group changed, is at most 0.05. With
    unequal weights, the test is approximate.

    The intervals of `by_reference` are made of Clopper and Pearson's limits of both shares. They
    cover the true difference and ratio with a probability of at least 0.95, also if the reference
    is the highest of many groups. With unequal weights, they are approximate. Metrics that are not
    shares have none.

    Changes of differences and ratios have no interval for metrics that are not computed from
    counts.

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
        min_count=min_count,
        reference=reference,
        threshold=threshold,
    )


def _check_certificate(certificate: Any, models: Sequence[str]) -> dict[str, FairnessCertificate]:
    """Collect the certificates by the names of their models."""
    if certificate is None:
        return {}
    if not isinstance(certificate, Mapping):
        if len(models) > 1:
            raise ValueError(
                f"There is one certificate and {len(models)} models, [{shown_all(models)}]. Name "
                f"its model, for instance certificate={{{shown(models[-1])}: certificate}}."
            )
        certificate = {models[0]: certificate}
    for model, value in certificate.items():
        if str(model) not in models:
            raise ValueError(
                f"certificate has the model {shown(model)}, expected one of "
                f"[{shown_all(models)}]. Use the name that predictions use."
            )
        if not isinstance(value, FairnessCertificate):
            raise TypeError(
                f"certificate is a {type(value).__name__}. Give what fairness_certificate returns, "
                "or a dict of model names to such certificates."
            )
    return {str(model): value for model, value in certificate.items()}


def _check_n_boot(n_boot: Any) -> int:
    if n_boot is None:
        return N_BOOT
    if not isinstance(n_boot, Integral) or isinstance(n_boot, bool) or n_boot < 0:
        raise ValueError(
            f"n_boot={n_boot!r} is not a number of draws. Give an integer, 0 for no bootstrap, or "
            "None for the default."
        )
    return int(n_boot)


def _check_min_count(min_count: Any) -> int:
    if not isinstance(min_count, Integral) or isinstance(min_count, bool) or min_count < 0:
        raise ValueError(
            f"min_count={min_count!r} is not a number of samples. Give an integer, 0 to compare "
            "groups of any size."
        )
    return int(min_count)


def _check_reference(
    reference: Any, threshold: Any, counts: GroupCounts
) -> tuple[Any, float | None]:
    """Check the reference group and the threshold of its ratios."""
    if threshold is not None:
        is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
        if not is_number or not 0 < float(threshold) <= 1:
            raise ValueError(
                f"threshold={threshold!r} is not a ratio above 0 and at most 1. Give for instance "
                "0.8, the four-fifths rule."
            )
        threshold = float(threshold)
        reference = HIGHEST if reference is None else reference
    if reference is None:
        return None, threshold
    named = reference if isinstance(reference, str) else None
    groups = list(counts.groups)
    if named == HIGHEST:
        if HIGHEST in groups:
            raise ValueError(
                "reference='highest' is the name of a group, and also means the group with the "
                "highest value. Rename the group."
            )
        return HIGHEST, threshold
    wanted = tuple(reference) if isinstance(reference, list) else reference
    for group in groups:
        if type(wanted) is type(group) and wanted == group:
            return group, threshold
    alike = [group for group in groups if wanted == group]
    if len(alike) == 1:
        return alike[0], threshold
    names = {shown(group): group for group in groups}
    near = get_close_matches(shown(wanted), names, n=3) or list(names)[:5]
    raise ValueError(
        f"reference={shown(wanted)} is not a group of {', '.join(map(shown, counts.group_names))}. "
        f"Give a group as in by_feature, such as {' or '.join(near)}, or 'highest'."
    )
