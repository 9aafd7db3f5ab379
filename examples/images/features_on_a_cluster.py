"""
Encode images on a cluster
==========================

Image files become features on two worker processes of dask, and a report is made where the
predictions are. A cluster of several machines needs the same code: only the cluster is made in
another way, and the folders must be on a disk that all machines see.

The images are the coloured digits that skfair ships. Nothing is downloaded, and no file is left
behind. It needs the extras ``dask`` and ``images``. Run it with::

    python examples/images/features_on_a_cluster.py
"""

import tempfile
from pathlib import Path

import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster
from PIL import Image

from skfair import FrozenEncoderFeaturizer, LogitAdjustedClassifier
from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.metrics import fairness_report


def write_files(images, folder):
    """Write each image to a file of its own, as users have them."""
    paths = [str(folder / f"{row:05}.png") for row in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def main(folder):
    """Encode, fit, predict and report."""
    data = make_colored_digits(random_state=0)
    (folder / "features").mkdir()
    train, test = (folder / name for name in ("train", "test"))
    train.mkdir()
    test.mkdir()
    files, files_test = write_files(data.X_train, train), write_files(data.X_test, test)

    # `fit` reads the first file only. `transform` returns a lazy array; the workers encode when it
    # is computed. The files in the folder `features` hold what was encoded.
    featurizer = FrozenEncoderFeaturizer(load_digits_encoder(), memory=folder / "features").fit(
        files[:1]
    )
    lazy = featurizer.transform(dask.bag.from_sequence(files, npartitions=8))
    print("lazy:", lazy.dtype, lazy.numblocks[0], "partitions")
    X = lazy.compute()
    other = dask.bag.from_sequence(files, npartitions=5)
    again = featurizer.transform(other).compute()  # all rows are found in the folder
    print("features:", X.shape, "the same bits again:", np.array_equal(X, again))

    # Each partition is counted where it is, and the counts are added.
    model = LogitAdjustedClassifier(random_state=0).fit(X, data.y_train)
    X_test = featurizer.transform(dask.bag.from_sequence(files_test, npartitions=4)).compute()
    frame = pd.DataFrame(
        {"y": data.y_test, "prediction": model.predict(X_test), "colour": data.color_test}
    )
    parts = dask.dataframe.from_pandas(frame, npartitions=4)
    report = fairness_report(parts["y"], parts["prediction"], sensitive_features=parts["colour"])
    whole = fairness_report(frame["y"], frame["prediction"], sensitive_features=frame["colour"])
    print(report.summary)
    print("the report of all samples at once:", report.to_json() == whole.to_json())


# %%
# The workers are processes that import this file, so that the cluster starts in this block only.
if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as made,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        main(Path(made))
