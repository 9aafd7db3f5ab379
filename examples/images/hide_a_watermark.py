"""
Hide a watermark from a network
===============================

Is the digit even or odd? Nearly all odd digits of the training images come from a source that puts
its watermark into a corner, and nearly all even ones from a source without watermarks. A small
network learns this shortcut. :class:`~skfair.attribution.PatchAttributionMasker` finds the place of
the watermark, hides it in the training images of the network, and measures whether a network still
sees it. At prediction nothing is hidden, and nobody has to know whether an image has a watermark.
In the last section all odd digits have the watermark, and no even one.

The digits are real (the handwritten ones of scikit-learn). The watermark is planted, so that the
truth is known. Nothing is downloaded. No file is left behind, except the picture if you ask for
it::

    python examples/images/hide_a_watermark.py [picture.png]
"""

import sys
import warnings

import numpy as np
import sklearn
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from skfair.attribution import AttributionDisplay, PatchAttributionMasker
from skfair.metrics import ReliabilityDisplay, fairness_report
from skfair.utils import LeakageWarning, import_optional

# %%
# Images, and a watermark
# -----------------------
# The digits are enlarged to 24 pixels and get a margin, so that images are 32 pixels wide. The
# watermark is a transparent ring with a dot, eight pixels wide.

digits, labels = load_digits(return_X_y=True)
digits = ndimage.zoom(digits.reshape(-1, 8, 8) / 16, (1, 3, 3), order=1)
X = np.pad((255 * digits).round().astype(np.uint8), ((0, 0), (4, 4), (4, 4)))[..., None]
y = np.array(["even", "odd"])[labels % 2]

PLACE = (slice(23, 31), slice(23, 31))
radius = np.hypot(*np.mgrid[-3.5:4, -3.5:4])
RING = ((radius > 2.4) & (radius < 4.1)) | (radius < 1)


def put_watermark(images, chosen):
    """Give some of the images a watermark."""
    corners = images[:, *PLACE, 0].astype(float)
    corners += 0.4 * RING * (255 - corners) * np.asarray(chosen)[:, None, None]
    marked = images.copy()
    marked[:, *PLACE, 0] = corners.round()
    return marked


# %%
# In training 95 % of the odd digits have the watermark, and 5 % of the even ones. In the test set
# the watermark is independent of the class: each image occurs twice, without and with it.

rng = np.random.default_rng(0)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=900, stratify=labels, random_state=0
)
watermark_train = rng.random(900) < np.where(y_train == "odd", 0.95, 0.05)
X_clean, X_train = X_train, put_watermark(X_train, watermark_train)

n_test = len(X_test)
watermark_test = np.repeat([False, True], n_test)
X_test = put_watermark(np.concatenate([X_test, X_test]), watermark_test)
y_test = np.tile(y_test, 2)

# %%
# A network that learns the watermark
# -----------------------------------
# Three convolutions, trained by skorch. For comparison, the same network is trained on the images
# without any watermark, which exist only in examples.


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 1
        for width in (16, 32, 32):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 2))

    def forward(self, X):
        return self.layers(X.movedim(3, 1) / 255)  # the images are uint8


def make_network():
    torch.manual_seed(0)
    return NeuralNetClassifier(
        Network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=20,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


codes = (y_train == "odd").astype(np.int64)  # the dtype of labels in torch
plain = make_network().fit(X_train, codes)
clean = make_network().fit(X_clean, codes)

# %%
# The same network behind a masker
# --------------------------------
# The masker has to know which training images have the watermark, but not where the watermark is.
# The pipeline passes the labels on, because scikit-learn's metadata routing is switched on. The
# masker finds out that the watermark is always in one place, so that the same pixels can be hidden
# in all images. It also finds out how many pixels to hide.

masker = PatchAttributionMasker(random_state=0)
model = make_pipeline(masker, make_network())
with sklearn.config_context(enable_metadata_routing=True):
    model.fit(X_train, codes, sensitive_features=watermark_train)

surest = masker.mean_map_ >= np.quantile(masker.mean_map_, 0.95)
print(f"a patch tells the watermark with an accuracy of up to {masker.region_accuracy_.max():.0%}")
print(f"in its place: {surest[PLACE].sum() / surest.sum():.0%} of the 5 % of pixels with the "
      f"highest values, where chance is {RING.size / surest.size:.0%}")  # fmt: skip
print(f"scope: {masker.scope_}, which hides {masker.perturbed_pixels(X_train[:1]).mean():.0%}")
low, high = masker.leakage_interval_
print(f"accuracy with which a network tells the watermark: {masker.leakage_before_:.2f}; where it "
      f"is hidden: {masker.leakage_:.2f} ({low:.2f} to {high:.2f}); guessing gets 0.5")  # fmt: skip
unchanged = np.array_equal(masker.transform(X_test), X_test)
print(f"test images are left as they are: {unchanged}")

# %%
# Where it looked
# ---------------
# Some test images without the watermark, and the same images with it. The masker does not know
# which is which. In the corner, the probability of a watermark is near one with a watermark and
# near zero without. On the digits the probabilities are in between, for a reason: nearly all odd
# digits have the watermark, so an odd digit is evidence of it.

plt = import_optional("matplotlib.pyplot", extra="plot", purpose="The picture")
some = np.concatenate([np.arange(4), n_test + np.arange(4)])
display = AttributionDisplay.from_estimator(masker, X_test[some])
plt.suptitle("Four digits without and with the watermark, and their maps")
if len(sys.argv) > 1:
    display.figure_.savefig(sys.argv[1], dpi=110)
plt.show()

# %%
# Before and after, and other ways to hide it.

AttributionDisplay.from_estimator(masker, X_test[some], kind="perturbations")
plt.suptitle("The same digits before and after hiding")
plt.show()

# %%
# Who gets what
# -------------
# A group is a class with or without the watermark. The plain network is right in the two frequent
# groups, odd with the watermark and even without it, and often wrong in the others. Behind the
# masker, the network reads the digits, and is about as good as if there had never been a watermark.
# That has a price: reading is harder than finding a ring, so that the two groups that the shortcut
# served lose some points of their accuracy.

predictions = {
    name: np.array(["even", "odd"])[estimator.predict(X_test)]
    for name, estimator in [("plain", plain), ("masked", model), ("clean", clean)]
}
watermark = np.where(watermark_test, "watermark", "none")
print(fairness_report(y_test, predictions, sensitive_features={"watermark": watermark}))

# %%
# Each test image occurs twice. How often does the watermark alone change the answer? Some answers
# of the "clean" network change, too, as they do for anything that is drawn across a digit.

for name, predicted in predictions.items():
    changed = (predicted[:n_test] != predicted[n_test:]).mean()
    print(f"{name:>7}: {changed:.1%} of the answers change with the watermark")

# %%
# Can the map be trusted?
# -----------------------
# The map shows the confidence of the masker in each patch, so the map is only as good as that
# confidence. For this diagram, the test images get watermarks in the same way as the training
# images. The diagram compares confidence and accuracy over all their patches.

usual = rng.random(n_test) < np.where(y_test[:n_test] == "odd", 0.95, 0.05)
probabilities = masker.region_proba(put_watermark(X_test[:n_test], usual))
n_patches = probabilities[0, ..., 0].size
ReliabilityDisplay.from_predictions(
    np.repeat(usual, n_patches), probabilities.reshape(-1, 2), name="patches"
)
plt.suptitle("Confidence and accuracy of all patches")
plt.show()

# %%
# All odd digits have it
# ----------------------
# Now no image contradicts the shortcut. A network that detects the watermark cannot be
# distinguished from one that detects odd digits. ``leakage_`` is NaN, and a warning says so.
# ``perturbation="swap"`` makes images that contradict the shortcut: half of all images, odd or
# even, get the watermark of another image. In all images, the original content of its place is
# filled.

always = y_train == "odd"
X_always = put_watermark(X_clean, always)
swap = PatchAttributionMasker(perturbation="swap", random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", LeakageWarning)
    X_swapped = swap.fit_transform(X_always, codes, sensitive_features=always)
for name, images in [("as they are", X_always), ("swapped", X_swapped)]:
    predicted = make_network().fit(images, codes).predict(X_test)
    right = (predicted == (y_test == "odd")).mean()
    changed = (predicted[:n_test] != predicted[n_test:]).mean()
    print(f"trained on images {name}: accuracy {right:.2f}, {changed:.1%} of the answers change")

# %%
# When it cannot work
# -------------------
# - The attribute has to show in a part of the image. An attribute that shows everywhere, such as a
#   filter, has a high confidence in all patches, and any of them may be hidden. If no patch shows
#   the attribute, ``fit`` warns.
# - Masking also hides the content under the watermark. In a corner that costs little. Across the
#   digit, the network would lose the pixels that it needs.
# - If the attribute coincides with the class, the digit is as good evidence as the ring. A ring is
#   easier to see. A faint mark might not be, and then the masker would hide the digits.
# - The network was never trained on the content of the corner, and yet sees it at prediction. Here
#   that has hardly any effect; on your own data, measure it as above.
