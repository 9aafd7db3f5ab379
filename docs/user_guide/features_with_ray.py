"""Image files become features on two processes of Ray Data. Needs ``ray[data]`` and Pillow."""

import tempfile

import numpy as np
import ray
from PIL import Image

from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.featurize import FrozenEncoderFeaturizer


class Encode:  # Ray makes one object in each process, so that no batch loads the encoder again
    def __init__(self, featurizer):
        self.featurizer = featurizer

    def __call__(self, batch):
        return {**batch, "features": self.featurizer.transform(batch["item"].tolist())}


with tempfile.TemporaryDirectory() as folder:
    files = [f"{folder}/{row:03}.png" for row in range(800)]
    for path, image in zip(files, make_colored_digits(random_state=0).X_train, strict=True):
        Image.fromarray(image).save(path)
    featurizer = FrozenEncoderFeaturizer(load_digits_encoder(), batch_size=64).fit(files[:1])
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    settings = {"compute": ray.data.ActorPoolStrategy(size=2), "fn_constructor_args": [featurizer]}
    rows = ray.data.from_items(files).map_batches(Encode, batch_size=64, **settings)
    X = np.stack(rows.to_pandas()["features"])
    print(X.shape, X.dtype, "equal to transform:", np.array_equal(X, featurizer.transform(files)))
