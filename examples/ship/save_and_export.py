"""
Save a model, and export it to programs without skfair
======================================================

A pipeline of a frozen encoder and a debiased classifier is saved as one file that holds data and no
code. The classifier alone becomes a module of plain torch, which predicts without skfair. Both give
the same predictions as the fitted model.

The images are the coloured digits that skfair ships. Nothing is downloaded, and no file is left
behind. Run it with::

    python examples/ship/save_and_export.py
"""

import tempfile
from pathlib import Path

import torch
from sklearn.pipeline import make_pipeline

import skfair
from skfair import FrozenEncoderFeaturizer, LogitAdjustedClassifier
from skfair.datasets import load_digits_encoder, make_colored_digits

data = make_colored_digits(random_state=0)
model = make_pipeline(
    FrozenEncoderFeaturizer(load_digits_encoder()), LogitAdjustedClassifier(random_state=0)
).fit(data.X_train, data.y_train)

# %%
# One file, without code
# ----------------------
# This encoder belongs to skfair, so that the file has all that is needed. For an encoder of your
# own, ``load`` gets a function that makes the encoder, and puts the saved weights into it:
# :doc:`/user_guide/save_and_export`.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model"
    skfair.save(model, path)
    loaded = skfair.load(path)
    print(*sorted(file.name for file in path.iterdir()))
same = (loaded.predict(data.X_test) == model.predict(data.X_test)).mean()
print(f"the loaded model: {same:.0%} of the predictions are the same")

# %%
# Plain torch
# -----------
# ``to_module`` returns the classifier with its threshold, as a module that knows nothing of skfair.
# ``model[-1].to_onnx(path)`` writes the same as an ONNX file (extra ``onnx``).

features = model[0].transform(data.X_test)
module = model[-1].to_module()
with torch.no_grad():
    largest = module(torch.from_numpy(features)).argmax(1).numpy()
same = (model.classes_[largest] == model.predict(data.X_test)).mean()
print(f"plain torch: {same:.0%} of the predictions are the same")
