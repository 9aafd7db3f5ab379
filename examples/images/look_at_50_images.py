"""
Look at 50 images
=================

Is the digit even or odd? In the training images 98 % of the even digits are red and 98 % of the odd
ones blue, as in the
:doc:`quickstart </auto_examples/quickstart>`. Here somebody suspects that colour is
correlated with the class, and has the time to look at 50 of the 800 training images and to write
down their colours. :class:`~skfair.adjustment.LogitAdjustedClassifier` suggests these 50 images,
and uses their colours in training. To predict, it needs no colour.

The digits are real (the handwritten ones of scikit-learn). The colours are planted, so that the
truth is known. Nothing is downloaded. No file is left behind, except the picture if you ask for
it::

    python examples/images/look_at_50_images.py [picture.png]
"""

import sys

import numpy as np
from sklearn.pipeline import make_pipeline

from skfair.adjustment import LogitAdjustedClassifier
from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.metrics import (
    average_group_accuracy_score,
    fairness_report,
    worst_group_accuracy_score,
)
from skfair.utils import import_optional

SCORES = [worst_group_accuracy_score, average_group_accuracy_score]
encoder = load_digits_encoder()


def make_model(seed, **parameters):
    return make_pipeline(
        FrozenEncoderFeaturizer(encoder), LogitAdjustedClassifier(random_state=seed, **parameters)
    )


# %%
# Without any label
# -----------------
# Ordinary training is the same model with ``strength=0``. The other model knows no colour yet. It
# trains two classifiers, each on one half of the images, and takes what both agree on instead of
# the colour. That is enough to suggest images to look at.

data = make_colored_digits(random_state=0)
ordinary = make_model(0, strength=0).fit(data.X_train, data.y_train)
model = make_model(0).fit(data.X_train, data.y_train)
without = model.predict(data.X_test)

ask = model[-1].suggest_labels(50)  # positions in X_train

# %%
# The 50 images
# -------------
# Half of the suggested images are drawn at random: they show how frequent each colour is. The other
# half are unusual in their class: they are likely to contain the rare images. The picture shows the
# images by class, those in the rare colour of the class first.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
usual = {"even": "red", "odd": "blue"}
rows_of = {}
for label, color in usual.items():
    rows = ask[data.y_train[ask] == label]
    rows_of[label] = rows[np.argsort(data.color_train[rows] == color, kind="stable")]

n_rows = -(-max(len(rows) for rows in rows_of.values()) // 6)
figure = plt.figure(figsize=(9, 0.7 * n_rows + 0.6), layout="constrained")
figure.suptitle("The 50 suggested images")
for part, (label, rows) in zip(figure.subfigures(1, 2), rows_of.items(), strict=True):
    axes = part.subplots(n_rows, 6)
    for place in axes.flat:
        place.axis("off")
    for place, row in zip(axes.flat, rows, strict=False):
        place.imshow(data.X_train[row])
    n_rare = (data.color_train[rows] != usual[label]).sum()
    part.suptitle(f"{len(rows)} of class {label!r}: {n_rare} are not {usual[label]}", fontsize=11)
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=110)
plt.show()

# %%
# With their colours
# ------------------
# Pass a colour for each of the 50 images and None for all others, and call the same ``fit`` again.
# From the random half and a model of the colour, ``fit`` infers how colour is correlated with the
# class in all 800 images.


def look_at(rows):
    """Colours of some training images; None, not known, for the others."""
    colors = np.full(len(data.y_train), None, dtype=object)
    colors[rows] = data.color_train[rows]  # here you would look at the images
    return colors


colors = look_at(ask)
model.fit(data.X_train, data.y_train, logitadjustedclassifier__sensitive_features=colors)

classifier = model[-1]
for name, value in classifier.diagnostics_.items():
    print(f"{name}: {value:.4g}")
rare = data.color_train != np.where(data.y_train == "even", "red", "blue")
print(f"really in the rare colour of their class: {rare.sum()} of {len(rare)}, "
      f"of which {(rare & classifier.conflicting_).sum()} were found or inferred")  # fmt: skip

# %%
# Who gets what
# -------------
# In the test images colour is independent of the class: each digit occurs once in red and once in
# blue. The groups that the shortcut served lose some of their accuracy, and the report says so.

predictions = {
    "ordinary": ordinary.predict(data.X_test),
    "without labels": without,
    "50 labels": model.predict(data.X_test),
}
print(fairness_report(data.y_test, predictions, sensitive_features={"colour": data.color_test}))

# %%
# Is it luck?
# -----------
# Five draws: other training images, other ones in the rare colour, other images to look at.

runs = []
for seed in range(5):
    data = make_colored_digits(random_state=seed)
    ordinary = make_model(seed, strength=0).fit(data.X_train, data.y_train)
    model = make_model(seed).fit(data.X_train, data.y_train)
    predicted = [ordinary.predict(data.X_test), model.predict(data.X_test)]
    colors = look_at(model[-1].suggest_labels(50))
    model.fit(data.X_train, data.y_train, logitadjustedclassifier__sensitive_features=colors)
    predicted.append(model.predict(data.X_test))
    runs.append([[score(data.y_test, y, sensitive_features=data.color_test) for score in SCORES]
                 for y in predicted])  # fmt: skip

print("Accuracy in percent over 5 draws, mean ± standard deviation")
means, spreads = 100 * np.mean(runs, axis=0), 100 * np.std(runs, axis=0, ddof=1)
for name, mean, spread in zip(predictions, means, spreads, strict=True):
    print(
        f"{name:>14}: worst group {mean[0]:.1f} ± {spread[0]:.1f}, "
        f"average group {mean[1]:.1f} ± {spread[1]:.1f}"
    )

# %%
# What to take away
# -----------------
# - Half of the suggested images are *ordinary* on purpose. Label all 50: if you leave out those
#   that look uninteresting, the rare images seem more frequent than they are.
# - Here colour is far easier to see than parity. If the shortcut is not easier to see than the
#   class, fewer of the suggested images are rare, and you need more labels: see
#   :ref:`which-head-labels`. The method itself is in :doc:`/user_guide/logit_adjustment`.
# - Labels are for one attribute. They say nothing about other attributes.
# - :doc:`/user_guide/which_head` says which classifier to take with no labels, with some and with
#   all of them.
