"""The encoder that comes with skfair: small, safe to load, and it carries the bias."""

import hashlib
import pickle
from importlib import resources

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skfair.datasets import load_digits_encoder, make_colored_digits
from skfair.metrics import worst_group_accuracy_score


@pytest.fixture(scope="module")
def encoder():
    return load_digits_encoder()


def encode(encoder, images):
    with torch.inference_mode():
        return encoder(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def test_weights_are_small_and_no_pickle():
    file = resources.files("skfair.datasets") / "data" / "digits_encoder.safetensors"
    content = file.read_bytes()
    assert len(content) < 1_000_000
    header = int.from_bytes(content[:8], "little")
    assert content[8:9] == b"{"
    assert content[7 + header : 8 + header] in (b"}", b" ")


def test_a_module_in_eval_mode(encoder):
    assert isinstance(encoder, torch.nn.Module)
    assert not any(module.training for module in encoder.modules())
    features = encode(encoder, np.zeros((3, 32, 32, 3), dtype=np.uint8))
    assert features.shape == (3, 96)
    assert features.dtype == np.float32
    assert (features >= 0).all()


def test_bytes_and_floats_agree(encoder):
    images = torch.randint(256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), encoder(images.float() / 255))


def test_loading_twice_gives_equal_and_separate_encoders(encoder):
    def digest(module):
        weights = [t.numpy().tobytes() for t in module.state_dict().values()]
        return hashlib.sha256(b"".join(weights)).hexdigest()

    other = load_digits_encoder()
    before = digest(encoder)
    assert digest(other) == before == digest(pickle.loads(pickle.dumps(encoder)))
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert digest(encoder) == before != digest(other)


def test_global_generator_is_left_alone():
    state = torch.get_rng_state()
    load_digits_encoder()
    assert torch.equal(torch.get_rng_state(), state)


def test_features_carry_the_bias_and_the_way_out(encoder):
    def worst_group(correlation):
        data = make_colored_digits(correlation=correlation, random_state=7)
        model = LogisticRegression(C=0.1, max_iter=1000)
        model.fit(encode(encoder, data.X_train), data.y_train)
        return worst_group_accuracy_score(
            data.y_test,
            model.predict(encode(encoder, data.X_test)),
            sensitive_features=data.color_test,
        )

    assert worst_group(0.98) < 0.5
    assert worst_group(0.5) > 0.8
