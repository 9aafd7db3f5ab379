"""
Digits whose colour gives the answer away
=========================================

Is the digit even or odd? In the training images 98 % of the even digits are red and 98 % of
the odd ones blue, and the encoder that turns images into features cannot be changed. Ordinary
training on its features learns the colour, a shortcut.
:class:`~skfair.adjustment.LogitAdjustedClassifier` learns more of the digit, first without any
colour labels, then with 50 colours that somebody wrote down. This is the comparison of the
:doc:`quickstart </auto_examples/quickstart>`, with pipelines and with five draws of the data.

The digits are real (the handwritten ones of scikit-learn). The colours are planted, so that the
truth is known. Nothing is downloaded. Run it with::

    python examples/images/colour_shortcut.py [picture.png]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline

from skfair.adjustment import LogitAdjustedClassifier
from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.metrics import fairness_report
from skfair.utils import import_optional

# %%
# Models with different information
# ---------------------------------
# All models are pipelines: the frozen encoder, then a classifier of its features. With ``memory``
# the features are kept in a file, so that each image is encoded once for all models. With
# ``strength=0`` the classifier is ordinary training. The third model gets the colours of the 50
# training images that ``suggest_labels`` names.

encoder = load_digits_encoder()
folder = tempfile.TemporaryDirectory()


def make_model(seed, **parameters):
    featurizer = FrozenEncoderFeaturizer(encoder, memory=Path(folder.name) / "features.sqlite")
    return make_pipeline(featurizer, LogitAdjustedClassifier(random_state=seed, **parameters))


def compare(seed):
    """Train the models on one draw of the data and report on its test images."""
    data = make_colored_digits(random_state=seed)
    model, predictions = make_model(seed), {}
    for name, fitted in [("ordinary", make_model(seed, strength=0)), ("no labels", model)]:
        predictions[name] = fitted.fit(data.X_train, data.y_train).predict(data.X_test)
    asked = model[-1].suggest_labels(50)
    colors = np.full(len(data.y_train), None)  # None: not known
    colors[asked] = data.color_train[asked]  # here you would look at 50 images
    model.fit(data.X_train, data.y_train, logitadjustedclassifier__sensitive_features=colors)
    predictions["50 labels"] = model.predict(data.X_test)
    report = fairness_report(
        data.y_test, predictions, sensitive_features={"colour": data.color_test}
    )
    return data, model, predictions, report


# %%
# Who gets what
# -------------
# In the test images colour is independent of the class: each digit occurs once in red and once in
# blue. A group is a class in a colour. The report shows the price, too: the groups with the usual
# colour of their class, which the shortcut served, lose some of their accuracy.

data, model, predictions, report = compare(seed=0)
print(report)

# %%
# Is it luck?
# -----------
# Five draws: other training images, and other ones in the unusual colour.

summaries = [compare(seed)[-1].summary for seed in range(5)]
print("Accuracy in percent over 5 draws, mean ± standard deviation")
for name in predictions:
    runs = 100 * np.array([summary[name] for summary in summaries])
    (_, worst, average), (_, worst_std, average_std) = runs.mean(axis=0), runs.std(axis=0, ddof=1)
    print(
        f"{name:>14}: worst group {worst:.1f} ± {worst_std:.1f}, "
        f"average group {average:.1f} ± {average_std:.1f}"
    )

# %%
# What the labels showed
# ----------------------
# ``diagnostics_`` says which data the fit is based on. Look at the number of labels that conflict
# with the usual colour. If there are only a few, the correction is weak, and more labels help.
# Without any labels the method can fail: if the classes are easier to see than the colour, it
# mistakes them for the colour. On your own data you will not know which is the case.
# :doc:`/user_guide/which_head` says which classifier to take for your labels, and the cost of a
# failure. :doc:`look_at_50_images` shows the 50 images.

found = model[-1].diagnostics_
print(
    f"{found['n_labelled']} colours looked at, {found['n_labelled_conflicting']} of them unusual "
    f"in their class; strength {found['strength']:.2f}"
)

# %%
# The picture
# -----------
# The picture has fifty training images of each class, one of them in the other colour. It has test
# images that ordinary training gets wrong and the model with 50 labels right. It has the four
# groups with their 95 % intervals.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")

MODELS = {"ordinary": "#7f868d", "no labels": "#63a797", "50 labels": "#00735c"}
USUAL = {"even": "red", "odd": "blue"}
UNUSUAL = {"even": "blue", "odd": "red"}
INK = {"red": "#c92a3a", "blue": "#1f6fbf"}
rng = np.random.default_rng(0)


def draw_images(place, images, title, color):
    """Draw images in rows of ten, with thin white lines between them."""
    gap, side = 2, images.shape[1] + 2
    canvas = np.full((side * (-(-len(images) // 10)) - gap, 10 * side - gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = side * (i // 10), side * (i % 10)
        canvas[top : top + side - gap, left : left + side - gap] = image
    axes = figure.add_axes(place)
    axes.imshow(canvas)
    axes.set_anchor("NW")
    axes.set_title(title, loc="left", color=color, fontsize=11, fontweight="bold", pad=4)
    axes.axis("off")


figure = plt.figure(figsize=(11, 5.4))
worst = 100 * report.summary.loc["worst_group_accuracy"]
cost = -100 * report.by_group["50 labels", "change"].min()
figure.suptitle(
    "Even or odd? In training, the colour all but tells.",
    x=0.02, y=0.945, ha="left", va="baseline", size=17, weight="bold",
)  # fmt: skip
figure.text(
    0.02, 0.893,
    f"Worst of four groups: {worst['ordinary']:.0f} % right in ordinary training, "
    f"{worst['no labels']:.0f} % without labels, {worst['50 labels']:.0f} % with 50. "
    f"The groups that colour favours lose up to {cost:.0f} points.",
    size=11, color="#444444",
)  # fmt: skip

figure.text(0.02, 0.815, "Training images", size=12.5)
figure.text(
    0.02, 0.365, "Test images that ordinary training gets wrong, and 50 labels right", size=12.5
)
rescued = (predictions["ordinary"] != data.y_test) & (predictions["50 labels"] == data.y_test)
for label, left in [("even", 0.02), ("odd", 0.305)]:
    usual, unusual = (
        np.flatnonzero((data.y_train == label) & (data.color_train == color[label]))
        for color in (USUAL, UNUSUAL)
    )
    rows = rng.permutation(np.append(rng.choice(usual, 49, replace=False), rng.choice(unusual)))
    place = (left, 0.44, 0.27, 0.31)
    draw_images(place, data.X_train[rows], f"{label}, 98 % {USUAL[label]}", INK[USUAL[label]])
    rows = rng.permutation(np.flatnonzero(rescued & (data.y_test == label)))[:40]
    draw_images((left, 0.01, 0.27, 0.29), data.X_test[rows], label, INK[UNUSUAL[label]])

axes = figure.add_axes((0.635, 0.115, 0.35, 0.605))
groups = [(label, color[label]) for color in (USUAL, UNUSUAL) for label in USUAL]
table = 100 * report.by_group.loc[groups]
for shift, (name, ink) in zip((-0.28, 0, 0.28), MODELS.items(), strict=True):
    numbers, x = table[name], np.arange(4) + shift
    interval = [numbers["accuracy"] - numbers["low"], numbers["high"] - numbers["accuracy"]]
    axes.bar(x, numbers["accuracy"], 0.27, color=ink, label=name)
    axes.errorbar(x, numbers["accuracy"], interval, fmt="none", color="#222222", capsize=3)
    for position, accuracy in zip(x, numbers["accuracy"], strict=True):
        axes.text(position, 4, f"{accuracy:.0f}", ha="center", color="white", size=8)
axes.set_xticks(np.arange(4), [f"{color} {label}" for label, color in groups], weight="bold")
for tick, (_, color) in zip(axes.get_xticklabels(), groups, strict=True):
    tick.set_color(INK[color])
for x, share in [(0.5, "98 % of training"), (2.5, "2 % of training")]:
    axes.text(x, -13, share, ha="center", color="#444444")
axes.set(ylim=(0, 101), yticks=range(0, 101, 25))
axes.tick_params(axis="x", length=0)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(loc="lower left", bbox_to_anchor=(-0.03, 0.99), ncols=3, frameon=False)
figure.text(0.605, 0.815, "Test accuracy in each group, %", size=12.5)

if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=110)
folder.cleanup()
