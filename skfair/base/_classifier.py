"""The base of classifiers around a torch network that is trained on rows of features."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair.base._blocks import BlockRows, in_file, validate_block_rows
from skfair.base._estimator import TorchEstimator
from skfair.base._kept_copy import converted
from skfair.base._net import forward_batches
from skfair.base._networks import copied, floating_dtype
from skfair.base._onnx import export_onnx
from skfair.base._trace import of_torch_alone
from skfair.utils._device import resolve_device
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown
from skfair.utils._validation import (
    check_logits,
    validate_labels,
    validate_rows,
    validate_weight,
)

_PREDICT_BATCH = 512


def _check_shape(X: Any) -> None:
    """Refuse what scikit-learn refuses too, with the name of the argument and what to do."""
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) > 2:
        raise ValueError(
            f"X has shape {shape} where rows of features, shape (n_samples, n_features), were "
            "expected. Encode images first, for instance with FrozenEncoderFeaturizer, or flatten "
            "each sample into one row."
        )
    if len(shape) == 2 and shape[0] == 0:
        raise ValueError(f"X is empty: its shape is {shape}. Give at least one row of features.")


class TorchClassifier(ClassifierMixin, TorchEstimator):
    """Base of classifiers around a torch network that is trained on rows of features.

    Subclass it to write a classifier. A subclass writes the constructor, with a parameter
    ``device``, and ``fit``. There it calls ``_validate_training_data(X, y, sample_weight)``, which
    checks the data, sets ``classes_`` and ``n_features_in_`` and returns the rows in float32, the
    position of each label in ``classes_``, and the weights. Then it sets ``module_``, a network
    from rows to ``len(classes_)`` logits.

    The base does the rest: predictions, probabilities, scores, export, pickles. Probabilities are
    the softmax of the logits in float64, so that they sum to one and agree with :meth:`predict`.
    A ``fit`` that raises, or is interrupted, leaves the estimator as it was before; the base wraps
    each ``fit`` for this. Networks in fitted attributes are pickled on the CPU.

    Predictions run a copy of ``module_`` in float64. After a prediction of up to 256 rows, the copy
    stays in memory for the next prediction, up to 256 MiB for each network. It is not part of the
    estimator: it is neither pickled nor copied, and it is freed with ``module_``. The copy gets the
    weights of ``module_`` again at each prediction, so predictions follow all changes of
    ``module_``, in place too.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Number of features.
    module_ : torch.nn.Module
        The network, which the subclass sets.

    See Also
    --------
    skfair.intraprocessing.IntraprocessingDebiaser : The base of methods that change a trained
        network.

    Examples
    --------
    A classifier by the nearest class mean:

    >>> import numpy as np, torch
    >>> from skfair.base import TorchClassifier
    >>> class NearestMean(TorchClassifier):
    ...     def __init__(self, *, device="auto"):
    ...         self.device = device
    ...
    ...     def fit(self, X, y, sample_weight=None):
    ...         X, codes, weight = self._validate_training_data(X, y, sample_weight)
    ...         means = [
    ...             np.average(X[codes == code], axis=0, weights=weight[codes == code])
    ...             for code in range(len(self.classes_))
    ...         ]
    ...         means = torch.tensor(np.array(means), dtype=torch.float32)
    ...         self.module_ = torch.nn.Linear(X.shape[1], len(means))
    ...         with torch.no_grad():
    ...             self.module_.weight.copy_(means)
    ...             self.module_.bias.copy_(-means.square().sum(1) / 2)
    ...         return self
    >>> X, y = np.array([[0.0], [1.0], [4.0], [5.0]]), ["low", "low", "high", "high"]
    >>> classifier = NearestMean().fit(X, y)
    >>> classifier.predict([[2.0], [3.0]]).tolist()
    ['low', 'high']
    """

    def _validate_training_data(
        self, X: Any, y: Any, sample_weight: Any, *, in_blocks: bool = False
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        """Check X, y and the weights; set ``classes_`` and ``n_features_in_``.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32
            With ``in_blocks=True``, an X in a file is not read, and comes as
            :class:`~skfair.base._blocks.BlockRows`.
        codes : ndarray of shape (n_samples,), int64, the position of each label in ``classes_``
        weight : ndarray of shape (n_samples,), float32
        """
        resolve_device(self.device)  # an error there should not wait for the networks
        _check_shape(X)
        y = validate_labels(self, X, y)
        if in_blocks and in_file(X):
            X = validate_block_rows(self, X, reset=True, least=2)
        else:
            X = validate_rows(self, X, reset=True, dtype=np.float32, ensure_min_samples=2)
        classes, codes = np.unique(y, return_inverse=True)
        names = classes.tolist()
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class only ({shown(names[0])}); a classifier needs samples of at "
                "least two classes."
            )
        weight = validate_weight(sample_weight, y)
        missing = np.flatnonzero(np.bincount(codes, weights=weight, minlength=len(classes)) == 0)
        if len(missing):
            raise ValueError(
                f"sample_weight is zero on every sample of class {shown(names[missing[0]])}. "
                "Leave that class out of X and y, or give its samples a weight."
            )
        self.classes_ = classes
        return X, codes, weight

    def _validate_features(self, X: Any) -> np.ndarray | BlockRows:
        """Check that X has the features of :meth:`fit`; float32, read in blocks from a file."""
        check_is_fitted(self)
        _check_shape(X)
        if in_file(X):
            return validate_block_rows(self, X, reset=False)
        return validate_rows(self, X, reset=False, dtype=np.float32)

    def _logits(self, X: Any) -> np.ndarray:
        """Logits of shape (n_samples, n_classes), float64."""
        X = self._validate_features(X)
        logits = self._run(self.module_, X).astype(np.float64, copy=False)
        check_logits(logits)
        return logits

    def _run(self, module: nn.Module, X: np.ndarray | BlockRows) -> np.ndarray:
        device = resolve_device(self.device)
        # In float64, which all but MPS have: in float32 the same row would come out a little
        # different with every set of rows it is predicted with.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        with converted(module, device, dtype, n_rows=len(X)) as network:
            return forward_batches(
                network, X, batch_size=_PREDICT_BATCH, device=device, dtype=dtype
            ).numpy()

    def to_module(self) -> nn.Module:
        """Export the network that predicts.

        Returns
        -------
        torch.nn.Module
            A copy of ``module_`` on the CPU in eval mode, threshold included: its inputs and
            outputs are those of ``module_``. It needs nothing of skfair.
        """
        check_is_fitted(self)
        return of_torch_alone(copied(self.module_).cpu().eval()).eval()

    def to_onnx(self, path: str | os.PathLike) -> None:
        """Export the network that predicts as an ONNX file.

        Parameters
        ----------
        path : path-like
            The file. Its input ``X``, or its inputs with the names in X, and its ``output`` are
            those of :meth:`to_module`, for any number of rows.

        Raises
        ------
        FileNotFoundError, IsADirectoryError
            The directory of the file does not exist, or the path is a directory.
        ImportError
            The packages that write ONNX are not installed (extra ``onnx``).
        ValueError
            The network has operations that ONNX has not.
        """
        module = self.to_module()
        export_onnx(module, self._rows_to_export(floating_dtype(module) or torch.float32), path)

    def _rows_to_export(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Make two rows of each input of :meth:`to_module`, by the name of the input."""
        return {"X": torch.zeros(2, self.n_features_in_, dtype=dtype)}

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float64
            With two classes, the logit of ``classes_[1]`` less that of ``classes_[0]``; with
            more, the logit of each class in the order of ``classes_``.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy of the predictions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample; None counts each once.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        ValueError
            Bad data, or two arguments whose index has the rows in another order.
        """
        check_rows(X=X, y=y, sample_weight=sample_weight)
        return super().score(X, y, sample_weight)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute class probabilities, the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In the order of ``classes_``.
        """
        logits = self._logits(X)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute the logarithms of class probabilities, the log-softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            In the order of ``classes_``; finite also where a probability is too small for a
            float and comes out as 0.
        """
        logits = self._logits(X)
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict the class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from ``classes_``.
        """
        codes = self._logits(X).argmax(axis=1)
        return self.classes_[codes]
