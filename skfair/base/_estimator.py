"""The base of what trains a torch network in ``fit``."""

from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from skfair.base._fresh_fit import FreshFit
from skfair.base._notebook import NotebookView
from skfair.base._portable import PortableState
from skfair.base._saved import SavedState
from skfair.utils._random_state import refuse_generator


class TorchEstimator(NotebookView, SavedState, PortableState, FreshFit, BaseEstimator):
    """Estimator that trains a torch network in ``fit``.

    Its networks are fitted attributes; they travel on the CPU.
    """

    # Group labels reach `fit` through Pipeline and GridSearchCV without `set_fit_request`.
    __metadata_request__fit = {"sensitive_features": True}

    _parameter_constraints: dict = {
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _validate_params(self) -> None:
        refuse_generator(getattr(self, "random_state", None))  # scikit-learn says not what to do
        super()._validate_params()
