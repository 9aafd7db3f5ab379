"""Saved estimators: ``save`` and ``load``."""

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

import skfair
from skfair.utils._persistence._classes import class_name
from skfair.utils._persistence._files import InvalidModelError, read_model, write_model
from skfair.utils._persistence._reader import EstimatorReader, match_factories
from skfair.utils._persistence._values import MALFORMED
from skfair.utils._persistence._writer import EstimatorWriter


def save(estimator: BaseEstimator, path: str | os.PathLike) -> None:
    """Save an estimator as a directory of data, which can be loaded without trust.

    The directory holds ``config.json`` (class, parameters, fitted attributes, versions) and
    ``model.safetensors`` (weights and arrays), and the files of an encoder that is an ``.onnx``
    file. What is there of an earlier save is replaced, in one step: a process that is killed
    leaves the old model or the new one.

    Parameters
    ----------
    estimator : estimator of skfair, or a scikit-learn pipeline with such
        Fitted or not. Of scikit-learn the usual steps before a classifier are known: scalers,
        encoders, imputers, ``PCA``, ``ColumnTransformer``, linear classifiers; an error names
        what is not. Of a search, give ``best_estimator_``.
    path : path-like
        The directory: new, empty, or with a model to replace.

    Raises
    ------
    TypeError
        The estimator, or something in it, cannot be saved as data; use joblib for it.
    FileExistsError
        `path` is a file, or holds something else than a model.
    OSError
        The disk is full or cannot be written to; a model that was there is as it was.

    Warns
    -----
    UserWarning
        A parameter `memory` is left out, which says where this machine keeps what it has
        computed.

    See Also
    --------
    load : The way back.

    Notes
    -----
    Code is not saved: of a network of your own, the weights are, and the network is made again
    by a function that you pass to :func:`load`; the same goes for functions (`preprocess`, an
    encoder that is a callable, a callable constraint).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import skfair
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(100, 3)), np.arange(100) % 2
    >>> X[:, 0] += 3 * y
    >>> model = skfair.ClusterMarginClassifier(loss="cross_entropy").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skfair.save(model, f"{folder}/model")
    ...     loaded = skfair.load(f"{folder}/model")
    >>> bool((loaded.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, where an estimator of skfair or a "
            "pipeline was wanted."
        )
    writer = EstimatorWriter(estimator)
    body = {
        "class": class_name(type(estimator)),
        "versions": _versions(),
        "estimator": writer.estimator(estimator, ""),
        "made_by_caller": writer.made_by_caller,
    }
    write_model(Path(path), body, writer.values.tensors, writer.files)


def load(
    path: str | os.PathLike,
    *,
    factories: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Load an estimator that :func:`save` has saved, without running code from the files.

    Parameters
    ----------
    path : path-like
        The directory.
    factories : callable or dict of str to callable, default=None
        Functions without arguments that make what was not saved: your network, whose saved
        weights are then loaded into it, or a function. By the name of the parameter, as
        ``set_params`` has it: ``{"estimator": make_network}``, in a pipeline
        ``{"featurizer__encoder": make_encoder}``; the function alone where it is one only.

    Returns
    -------
    estimator
        It predicts the same bits as the one that was saved, on the same kind of device.

    Raises
    ------
    FileNotFoundError
        There is no saved model at `path`.
    InvalidModelError
        The files are damaged, altered, of an unknown schema, name a class that is not known or
        a file outside of the directory, or hold tensors of other names or shapes than the
        networks have, those that `factories` make included. It is a ``ValueError``.
    TypeError, ValueError
        `factories` lacks what is needed, has a name that is not, or holds no functions.

    Warns
    -----
    InconsistentVersionWarning
        A step of scikit-learn was saved with another version of it.

    See Also
    --------
    save : The way there.

    Notes
    -----
    Digests find damage, not malice: whoever makes a file can make its digests. What protects
    from malice is that the files hold no code, and that only classes of skfair and a list of
    scikit-learn's are made of them. An ``.onnx`` encoder is a program for onnxruntime, though.

    Examples
    --------
    A network of your own is made by your own code:

    >>> import tempfile
    >>> import numpy as np, torch
    >>> import skfair
    >>> def make_network():
    ...     return torch.nn.Linear(2, 1)
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 200))
    >>> X = np.column_stack([y + rng.normal(size=200), group]).astype("float32")
    >>> model = skfair.ThresholdDebiaser(make_network(), epsilon=0.5)
    >>> model = model.fit(X, y, sensitive_features=group)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skfair.save(model, f"{folder}/model")
    ...     loaded = skfair.load(f"{folder}/model", factories=make_network)
    >>> bool((loaded.predict(X) == model.predict(X)).all())
    True
    """
    body, tensors, files = read_model(Path(path).absolute())
    reader = EstimatorReader(tensors, files, match_factories(factories, body["made_by_caller"]))
    try:
        estimator = reader.estimator(body["estimator"], "")
    except InvalidModelError:
        raise
    except MALFORMED as error:
        raise InvalidModelError(
            f"config.json does not describe an estimator ({type(error).__name__}: {error})."
        ) from error
    saved_with = str(body["versions"].get("scikit-learn"))
    if reader.made_sklearn and saved_with != sklearn.__version__:
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=type(estimator).__name__,
                current_sklearn_version=sklearn.__version__,
                original_sklearn_version=saved_with,
            )
        )
    return estimator


def _versions() -> dict[str, str]:
    return {
        "skfair": skfair.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
