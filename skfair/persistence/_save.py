"""Saved estimators: ``save`` and ``load``."""

import os
import platform
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from skfair.persistence._files import is_old_model, read_model, write_model
from skfair.persistence._old_format import read_old_model
from skfair.persistence._reader import EstimatorReader, match_factories
from skfair.persistence._schema import check_nesting
from skfair.persistence._writer import EstimatorWriter
from skfair.utils._errors import InvalidModelError
from skfair.utils._settings import with_own_settings

_MOST_FACTORIES = 100
_VERSION = re.compile(r"[\w.+-]{1,50}", re.ASCII)


@with_own_settings
def save(estimator: BaseEstimator, path: str | os.PathLike, *, training_rows: bool = False) -> None:
    """Save an estimator as a file of data, which can be loaded without trust.

    The folder gets one file, ``model.safetensors``: weights and arrays, and in its header, as
    JSON, classes, parameters, fitted attributes and versions. An encoder that is an ``.onnx`` file
    goes into it. A model of an earlier save is replaced, in one step: a process that is killed
    leaves the old model or the new one.

    Parameters
    ----------
    estimator : estimator of skfair or of scikit-learn
        Fitted or not. Of scikit-learn these are known, by themselves and in one another:
        ``Pipeline``, ``FrozenEstimator``, ``StandardScaler``, ``MinMaxScaler``, ``PCA`` and
        ``LogisticRegression``; an error names what is not. Of a search, give
        ``best_estimator_``.
    path : path-like
        The folder: new, empty, or with a model to replace.
    training_rows : bool, default=False
        Whether what belongs to single rows of the training data goes along: of
        ``ClusterMarginClassifier`` the ``labels_``, the row numbers behind ``suggest_labels``, and
        those ``cluster_centers_`` that are the mean of fewer than ten rows, from which a row can be
        rebuilt. Without these the centres are NaN, ``predict_cluster`` takes the nearest of the
        others, and all other predictions are the same bits.

    Raises
    ------
    TypeError
        The estimator, or something in it, cannot be saved as data; use joblib for it.
    ValueError
        A parameter is not one that the estimator takes, or the description is too long.
    FileExistsError
        `path` is a file or a link, or holds something else than a model.
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

    A process that is killed while it saves may leave a file ``.model.<letters>.part`` beside the
    model. Nothing reads such a file, and since a save removes only what it made itself, it stays
    until you delete it.

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
    writer = EstimatorWriter(estimator, training_rows=training_rows)
    written = writer.estimator(estimator, "")
    check_nesting(written)
    body = {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "estimator": written,
        "made_by_caller": writer.made_by_caller,
    }
    write_model(Path(path).absolute(), body, writer.values.tensors)


@with_own_settings
def load(
    path: str | os.PathLike,
    *,
    factories: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Load an estimator that :func:`save` has saved, without running code from the file.

    Parameters
    ----------
    path : path-like
        The folder. Models of skfair 0.1, which were two files, are loaded as well.
    factories : callable or dict of str to callable, default=None
        Functions without arguments that make what was not saved, anew at each call: your network,
        whose weights are then replaced by those that were saved, or a function. By the name of
        the parameter, as ``set_params`` has it: ``{"estimator": make_network}``, in a pipeline
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
        The file is damaged, altered, a link, of an unknown schema, names a class that is not
        known, or holds anything that such an estimator does not have: an attribute of another
        name, type, shape or range, or weights that are not those of the networks, those that
        `factories` make included. It is a ``ValueError``.
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
    The digest finds damage, not malice: whoever makes a file can make its digest. What protects
    from malice is that the file holds no code, and that each attribute of each class is held
    against a table of what it may be. An ``.onnx`` encoder is a program for onnxruntime, though,
    which runs when the loaded model does.

    The file is read once and whole: what happens to it later does not matter to the estimator.

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
    folder = Path(path).absolute()
    body, tensors = read_old_model(folder) if is_old_model(folder) else read_model(folder)
    needed, versions = body.get("made_by_caller"), body.get("versions")
    saved_with = versions.get("scikit-learn") if isinstance(versions, dict) else None
    if not (
        isinstance(needed, dict)
        and len(needed) <= _MOST_FACTORIES
        and all(isinstance(kind, str) for kind in needed.values())
        and isinstance(saved_with, str)
        and _VERSION.fullmatch(saved_with)
    ):
        raise InvalidModelError("The model does not say what it needs, or what it was saved with.")
    reader = EstimatorReader(tensors, match_factories(factories, needed))
    estimator = reader.root(body.get("estimator"))
    if reader.made_sklearn and saved_with != sklearn.__version__:
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=type(estimator).__name__,
                current_sklearn_version=sklearn.__version__,
                original_sklearn_version=saved_with,
            )
        )
    return estimator
