"""Write the models that later versions must load: run this script once per version.

Each folder below ``archive/<version>/`` is a saved model. The file ``expected.safetensors`` beside
them holds the outputs of the models for ``X``, ``images`` or ``features``.
"""

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.append(str(Path(__file__).parents[1]))  # pytest has this folder on its path, too

from saved_models import GROUPS, IMAGES, X, Y, fitted, outputs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skfair

ARCHIVE = Path(__file__).parent / "archive"
KEPT = 12  # number of samples whose outputs are stored


def models():
    """Yield (name, fitted estimator, samples)."""
    for name, _ in skfair.discovery.all_estimators():
        yield (name, *fitted(name))
    for loss in ("cross_entropy", "loss_weighted"):
        yield (f"ClusterMarginClassifier-{loss}", *fitted("ClusterMarginClassifier", loss=loss))
    yield "LogitAdjustedClassifier-mlp", *fitted("LogitAdjustedClassifier", head="mlp")
    words = np.array(["no", "yes"])
    pipeline = make_pipeline(StandardScaler(), fitted("ClusterMarginClassifier")[0])
    yield "pipeline", pipeline.fit(X, words[Y]), X
    masker, _ = fitted("PatchAttributionMasker", combine_attributes=False)
    columns = {"a": GROUPS, "b": words[Y]}
    yield "PatchAttributionMasker-two", masker.fit(IMAGES, sensitive_features=columns), IMAGES


def main():
    folder = ARCHIVE / skfair.__version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    expected = {"X": X[:KEPT], "images": IMAGES[:KEPT]}
    for name, estimator, samples in models():
        # Without its training rows, a saved model may have fewer clusters than the fitted one.
        skfair.save(estimator, folder / name, training_rows=True)
        for method, values in outputs(estimator, samples[:KEPT]).items():
            if values.dtype.kind == "U":
                values = np.searchsorted(estimator.classes_, values)
            expected[f"{name}.{method}"] = np.ascontiguousarray(values)
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore", skfair.utils.FairnessWarning)
    torch.set_num_threads(1)
    main()
