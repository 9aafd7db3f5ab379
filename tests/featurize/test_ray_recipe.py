"""The recipe for Ray Data in the guide, without Ray: what Ray calls still fits the featurizer."""

import ast
from pathlib import Path

import numpy as np
from PIL import Image

from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.featurize import FrozenEncoderFeaturizer

RECIPE = Path(__file__).parents[2] / "docs" / "user_guide" / "features_with_ray.py"


def test_a_batch_gets_the_features_of_its_files(tmp_path):
    lines = RECIPE.read_text().splitlines()
    assert len(lines) <= 30
    (recipe,) = (
        node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.ClassDef)
    )
    names = {}
    exec(ast.unparse(recipe), names)
    files = [str(tmp_path / f"{row}.png") for row in range(5)]
    for path, image in zip(files, make_colored_digits(random_state=0).X_train, strict=False):
        Image.fromarray(image).save(path)
    featurizer = FrozenEncoderFeaturizer(load_digits_encoder()).fit(files[:1])
    batch = names["Encode"](featurizer)({"item": np.array(files)})  # as Ray gives it
    assert batch["item"].tolist() == files
    np.testing.assert_array_equal(batch["features"], featurizer.transform(files))
