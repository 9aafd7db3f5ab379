"""A saved model."""

import pytest
from saved_models import fitted

import skfair


@pytest.fixture
def saved(tmp_path):
    """A saved ClusterMarginClassifier."""
    skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / "model")
    return tmp_path / "model"
