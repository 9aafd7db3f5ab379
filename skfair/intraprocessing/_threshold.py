"""Intra-processing, the baseline: another threshold on the original network."""

from torch import nn

from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._inputs import Inputs
from skfair.intraprocessing._search import Search


@fill_docstring
class ThresholdDebiaser(IntraprocessingDebiaser):
    """Give a trained network the threshold at which a fairness constraint holds.

    The weights do not change. This is the baseline of intra-processing [1]_: a search over
    weights has to gain more than this. One threshold for all groups lowers most disparities
    only by giving nearly all rows the same prediction; :class:`DistillationDebiaser` does
    better.

    Parameters
    ----------
    {estimator}
        Such a net learns from 70 % of the debiasing rows, and the other rows judge it.
    {constraint}
    {epsilon}
    {performance}
    {confidence}
    {margin}
    {small_groups}
    {calibration_fraction}
    {output}
    {classes}
    {device}
    {random_state}
        Seeds the folds that cross-validate the choice, and the split of the rows for a
        certificate.
    verbose : int, default=0
        Without effect here.

    Attributes
    ----------
    {classes_}
    {n_features_in_}
    {module_}
    {threshold_}
    {bias_}
    {performance_}
    {objective_}
    {bias_interval_}
    {feasible_}
    {pairs_}
        Empty for a callable constraint.
    {certificate_}
    {interrupted_}
    {trials_}
    {best_trial_}

    Warns
    -----
    {LabelOrderWarning}
    {InfeasibleConstraintWarning}
    {SmallGroupWarning}

    See Also
    --------
    fairlearn.postprocessing.ThresholdOptimizer : One threshold for each group; predictions
        need the group.

    References
    ----------
    {Savani_2020}

    Examples
    --------
    {biased_network}
    >>> debiaser = ThresholdDebiaser(network, epsilon=0.1, random_state=0)
    >>> debiaser = debiaser.fit(X, y, sensitive_features=group)
    >>> debiaser.feasible_, round(debiaser.performance_, 2)
    (True, 0.55)
    >>> debiaser.predict(X[:3]).shape
    (3,)
    """

    def _check_network(self, network: nn.Module, rows: Inputs) -> None:
        """Accept any network: its weights do not change."""

    def _search(self, search: Search) -> None:
        """Do nothing: the original network with its best threshold is a candidate already."""
