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
def save(
    estimator: BaseEstimator,
    path: str | os.PathLike,
    *,
    training_rows: bool = False,
    frozen_weights: bool = True,
) -> None:
    """Save an estimator as a file of data, which is safe to load.

    The folder gets one file, ``model.safetensors``. It contains weights and arrays. Its header
    contains, as JSON, classes, parameters, fitted attributes and versions. An encoder that is an
    ``.onnx`` file is stored in it. An earlier model in the folder is replaced in one step: if the
    process is killed, the folder holds the old model or the new model.

    Parameters
    ----------
    estimator : estimator of skfair or of scikit-learn
        A fitted or unfitted estimator. Supported estimators of scikit-learn, alone or nested, are
        ``Pipeline``, ``FrozenEstimator``, ``StandardScaler``, ``MinMaxScaler``, ``PCA`` and
        ``LogisticRegression``. An error names any other. To save a search, pass its
        ``best_estimator_``.
    path : path-like
        The folder: new, empty, or with a model to replace.
    training_rows : bool, default=False
        Whether to save data about single training rows. For ``LogitAdjustedClassifier``, these are
        ``conflicting_`` and the row numbers for ``suggest_labels``. For
        ``ClusterMarginClassifier``, these are ``labels_``, the row numbers for ``suggest_labels``,
        and each of ``cluster_centers_`` that is the mean of fewer than ten rows, because a row can
        be computed from it. Without them, such centres are NaN, ``predict_cluster`` returns the
        nearest of the other centres, and all other predictions are the same bits.
    frozen_weights : bool, default=True
        Whether to save the weights with ``requires_grad=False`` of your own networks, for example
        of the base model below a LoRA adapter. Without them, the file of a debiased adapter has the
        size of the adapter, and the function that you pass to :func:`load` must return a network
        with the same frozen weights: the file has their digest. Keep these weights elsewhere.

    Raises
    ------
    TypeError
        The estimator, or a part of it, cannot be saved as data. Use joblib instead.
    ValueError
        A parameter has a value that the estimator does not accept, or the description of the model
        is too long.
    FileExistsError
        `path` is a file or a link, or holds anything other than a model.
    OSError
        The disk is full or not writable. An existing model is unchanged.

    Warns
    -----
    UserWarning
        The parameter `memory` is set. It is not saved, because it is a path on this machine.

    See Also
    --------
    load : Load a saved estimator.

    Notes
    -----
    Code is not saved. For a network of your own, only the weights are saved, and a function that
    you pass to :func:`load` makes the network again. The same is true for functions (`preprocess`,
    an encoder that is a callable, a callable constraint).

    Tensors with the same bytes are stored once, for example the weights that a debiaser did not
    change. At most two values share a stored tensor. After loading, each value has its own memory.

    A process that is killed during a save may leave a file ``.model.<letters>.part`` beside the
    model. skfair never reads such a file. It stays until you delete it, because `save` deletes only
    files that it has created itself.

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
            f"estimator is a {type(estimator).__name__}. Give an estimator of skfair or a pipeline."
        )
    writer = EstimatorWriter(estimator, training_rows=training_rows, frozen_weights=frozen_weights)
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
    """Load an estimator that :func:`save` saved, without running code from the file.

    Parameters
    ----------
    path : path-like
        The folder. Models of skfair 0.1, which consist of two files, are loaded as well.
    factories : callable or dict of str to callable, default=None
        Functions without arguments that return the parts that were not saved: your network, or a
        function. Each call must return a new object. The saved weights replace the weights of the
        network; what was saved without frozen weights needs a network that has them. The keys are
        names of parameters, as in ``set_params``:
        ``{"estimator": make_network}``, or in a pipeline ``{"featurizer__encoder": make_encoder}``.
        If the model needs only one function, you can pass the function itself. A function may
        create a network on the device "meta", which takes no time for initial weights, if its
        ``state_dict`` has all its tensors.

    Returns
    -------
    estimator
        The estimator. It predicts the same bits as the saved one, on the same kind of device.

    Raises
    ------
    FileNotFoundError
        There is no saved model at `path`.
    InvalidModelError
        The file is damaged, altered or a link. Its schema or a class in it is unknown. An
        attribute has a name, type, shape or range that such an estimator does not have. Or weights
        do not match the networks, including those that `factories` make. It is a ``ValueError``.
    TypeError, ValueError
        `factories` lacks a function, has a name that is not needed, or holds a value that is not a
        function.

    Warns
    -----
    InconsistentVersionWarning
        A step of scikit-learn was saved with another version of scikit-learn.

    See Also
    --------
    save : Save an estimator.

    Notes
    -----
    The digest finds damage, not malice: a person who makes a file can also make its digest. Two
    rules protect from malice: the file holds no code, and each attribute of each class is compared
    with a table of allowed values. But an ``.onnx`` encoder is a program, which onnxruntime runs
    when the loaded model runs.

    The whole file is read once. Later changes to the file do not affect the estimator.

    Examples
    --------
    Your own code makes your own network:

    >>> import tempfile
    >>> import numpy as np, torch
    >>> import skfair
    >>> def make_network():
    ...     return torch.nn.Linear(2, 1)
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 200))
    >>> X = np.column_stack([y + rng.normal(size=200), group]).astype("float32")
    >>> network = make_network()
    >>> with torch.no_grad():  # stands for your training
    ...     _ = network.weight.copy_(torch.tensor([[1.0, 0.0]])), network.bias.fill_(-0.5)
    >>> model = skfair.ThresholdDebiaser(network, epsilon=0.5)
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
        raise InvalidModelError(
            "The model does not name the parts that it needs, or the versions that saved it. Copy "
            "the model again from its source."
        )
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
