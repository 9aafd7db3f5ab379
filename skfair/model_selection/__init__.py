"""Model selection by a group metric: splitters, constrained selection, the Pareto front."""

from skfair.model_selection._constrained import constrained_refit, pareto_front
from skfair.model_selection._scorer import make_constrained_scorer
from skfair.model_selection._split import GroupStratifiedKFold, GroupStratifiedShuffleSplit

__all__ = [
    "GroupStratifiedKFold",
    "GroupStratifiedShuffleSplit",
    "constrained_refit",
    "make_constrained_scorer",
    "pareto_front",
]
