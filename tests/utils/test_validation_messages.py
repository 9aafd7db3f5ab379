"""Errors quote only a little of the data, also errors from other packages."""

import numpy as np
import pandas as pd
import pytest
import torch

from skfair import ClusterMarginClassifier, PatchAttributionMasker, ThresholdDebiaser

ODD = ["\x1b[2J", "\u202e", "\ud800", "a" * 10**5]
N = 12


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd[:9]))
@pytest.mark.parametrize("said", ["X", "y", "names", "one class", "weights"])
def test_messages_are_short_text_alone(odd, said):
    X = pd.DataFrame(np.eye(N, 3), columns=["a", "b", "c"])
    y = np.array([f"{odd}{i % 2}" for i in range(N)], dtype=object)
    classifier = ClusterMarginClassifier(loss="cross_entropy", max_epochs=1, random_state=0)
    keywords = {}
    if said == "X":
        X = X.astype(object)
        X.iloc[0, 0] = odd
    elif said == "y":
        y[0] = 1
    elif said == "names":
        classifier.fit(X, y)
        # Not as text of pyarrow, which pandas 3 would use: it refuses half of a surrogate pair.
        X.columns = pd.Index([f"{odd}z", "b", "c"], dtype=object)
    elif said == "one class":
        y[:] = odd
    else:
        keywords["sample_weight"] = (y == y[0]).astype(float)
    with pytest.raises((ValueError, TypeError)) as refused:
        classifier.predict(X) if said == "names" else classifier.fit(X, y, **keywords)
    text = str(refused.value)
    assert text.replace("\n", "").isprintable()
    assert len(text) < 2000
    assert odd not in str(refused.value.__cause__)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd[:9]))
def test_messages_about_one_class_or_attribute(odd):
    network = torch.nn.Linear(3, 1)
    y, groups = np.full(N, odd, dtype=object), np.full(N, odd, dtype=object)
    X = np.eye(N, 3, dtype=np.float32)
    with pytest.raises(ValueError, match="y holds one class only") as refused:
        ThresholdDebiaser(network).fit(X, y, sensitive_features=groups)
    assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match="sensitive_features holds one group only") as refused:
        ThresholdDebiaser(network).fit(X, np.arange(N) % 2, sensitive_features=groups)
    assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match="has one class only") as refused:
        PatchAttributionMasker(patch_size=2).fit(
            np.zeros((N, 3, 6, 6), dtype=np.uint8), sensitive_features=groups
        )
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


def test_rows_are_not_quoted():
    with pytest.raises(ValueError, match="Reshape your data") as refused:
        ClusterMarginClassifier().fit(np.arange(N) + 1234.5, np.arange(N) % 2)
    assert "1234" not in str(refused.value)
    assert refused.value.__cause__ is None
