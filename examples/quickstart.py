"""
Quickstart
==========

Is a digit even or odd? In training, 98 % of the even digits are red and 98 % of the odd digits are
blue. Ordinary training on the features of a frozen encoder learns the colour, a spurious
correlation. :class:`~skfair.adjustment.LogitAdjustedClassifier` relies less on the colour: without
any colour labels, and better with 50.

Nothing is downloaded. Run it with::

    python examples/quickstart.py
"""

import numpy as np

from skfair import FrozenEncoderFeaturizer, LogitAdjustedClassifier
from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.metrics import GroupMetricsDisplay, fairness_report

data = make_colored_digits(random_state=0)  # stands for your images
featurizer = FrozenEncoderFeaturizer(load_digits_encoder())  # stands for your encoder
X, X_test = featurizer.fit_transform(data.X_train), featurizer.transform(data.X_test)

# %%
# Three models
# ------------
# With ``strength=0`` the classifier is ordinary training.

ordinary = LogitAdjustedClassifier(strength=0, random_state=0).fit(X, data.y_train)
model = LogitAdjustedClassifier(random_state=0).fit(X, data.y_train)
predictions = {"ordinary": ordinary.predict(X_test), "no labels": model.predict(X_test)}

asked = model.suggest_labels(50)  # the row numbers of the images to look at
colors = np.full(len(X), None)  # None: the colour is not known
colors[asked] = data.color_train[asked]  # with your images: you look at 50 of them
model.fit(X, data.y_train, sensitive_features=colors)
predictions["50 labels"] = model.predict(X_test)  # needs no colour

# %%
# The report
# ----------
# A group is a class in a colour. The first lines name the worst group, the largest gap between two
# colours, and the groups that pay for the better model.

report = fairness_report(data.y_test, predictions, sensitive_features={"colour": data.color_test})
print(report)

# %%
# :doc:`images/colour_shortcut` repeats this with five draws of the data. Before you use skfair on
# your own data, read :doc:`/user_guide/which_head`, and when to use none of the classifiers.

display = GroupMetricsDisplay.from_report(report)
display.figure_.suptitle("Accuracy of three models in each class and colour")
display.figure_.savefig("quickstart.png")
print("The picture is in quickstart.png")
