"""Transformers that classify texts, with a LoRA adapter: token ids in, logits of an object out."""

import copy
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.helper import SliceDict
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.utils.data import DataLoader

import skfair
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning"),
    # peft asks transformers for it.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
WORDS = ["[PAD]", "[UNK]", "led", "joined", "the", "theatre", "theater", "club"]
SEED = {"random_state": 0}
DEBIASERS = {
    "ThresholdDebiaser": SEED,
    "DistillationDebiaser": {"max_epochs": 2, **SEED},
    "BiasGradientDebiaser": {"max_epochs": 2, **SEED},
    "AdversarialFinetuneDebiaser": {"max_epochs": 1, **SEED},
    "GroupDRODebiaser": {"max_epochs": 1, **SEED},
    "LayerwiseDebiaser": {"n_calls": 3, **SEED},
    "RandomPerturbationDebiaser": {"n_trials": 3, **SEED},
    "LinearPostDebiaser": SEED,
}


@cache
def tokenizer():
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"
    )


def encode(letters):
    return tokenizer()(
        list(letters),
        padding="max_length",
        max_length=6,
        return_tensors="np",
        return_token_type_ids=False,
    )


@cache
def letters():
    """Two hundred letters of three to six words, their labels and their groups."""
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, 200))
    texts = [
        f"{WORDS[3 - label]} the {WORDS[5 + british]}" + " club" * rng.integers(4)
        for label, british in zip(y, group, strict=True)
    ]
    return texts, y, group


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@cache
def bert():
    config = transformers.BertConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=8, **SIZES
    )
    with seeded(0):
        return transformers.BertForSequenceClassification(config).eval()


def with_lora():
    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    with seeded(1):
        return get_peft_model(copy.deepcopy(bert()), lora).eval()


def fit(debiaser, X, y=None, group=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)  # short fits on few rows
        return debiaser.fit(X, y, sensitive_features=group)


@cache
def fitted(name):
    """A fit that several tests look at and none changes, and its network."""
    texts, y, group = letters()
    network = with_lora()
    return fit(getattr(skfair, name)(network, **DEBIASERS[name]), encode(texts), y, group), network


@pytest.mark.parametrize("name", DEBIASERS)
def test_a_debiaser_changes_the_adapter_only(name):
    X, before = encode(letters()[0]), with_lora().state_dict()
    debiaser, network = fitted(name)
    after = dict(debiaser.module_.get_submodule("0").named_parameters())
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, before[key])
        assert parameter.requires_grad or torch.equal(after[key], before[key])
    with torch.no_grad():
        raw = debiaser.module_(**{key: torch.from_numpy(values) for key, values in X.items()})
    right = raw.argmax(1).numpy()
    np.testing.assert_array_equal(debiaser.predict(X), debiaser.classes_[right])


def test_texts_through_a_pipeline():
    """The tokenizer is a step, so that predictions take texts, shorter ones too."""
    texts, y, group = letters()
    debiaser = skfair.ThresholdDebiaser(with_lora(), **SEED)
    pipeline = make_pipeline(FunctionTransformer(encode), debiaser)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        pipeline.fit(texts, y, thresholddebiaser__sensitive_features=group)
    alone, _ = fitted("ThresholdDebiaser")
    np.testing.assert_array_equal(pipeline.predict(texts[:9]), alone.predict(encode(texts[:9])))
    short = tokenizer()(["led the club"], return_tensors="pt", return_token_type_ids=False)
    assert short["input_ids"].shape == (1, 3)
    np.testing.assert_allclose(
        alone.predict_proba(short), pipeline.predict_proba(["led the club"]), atol=1e-6
    )


def test_a_loader_of_encoded_texts():
    texts, y, group = letters()
    X = encode(texts)
    items = [
        ({key: values[row] for key, values in X.items()}, y[row], group[row])
        for row in range(len(y))
    ]
    loader = DataLoader(items, batch_size=64, shuffle=True)
    debiaser = fit(skfair.ThresholdDebiaser(with_lora(), **SEED), loader)
    alone, _ = fitted("ThresholdDebiaser")
    assert debiaser.bias_ == pytest.approx(alone.bias_)
    new = DataLoader(items, batch_size=50)
    np.testing.assert_array_equal(debiaser.predict(new), alone.predict(X))


def test_a_search_cuts_a_slice_dict():
    texts, y, group = letters()
    search = GridSearchCV(
        skfair.ThresholdDebiaser(with_lora(), **SEED), {"epsilon": [0.1, 0.3]}, cv=2, refit=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        search.fit(SliceDict(**encode(texts)), y, sensitive_features=group)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("name", ["DistillationDebiaser", "LinearPostDebiaser"])
def test_saved_and_loaded(name, tmp_path):
    X, (debiaser, _) = encode(letters()[0]), fitted(name)
    for frozen_weights in (True, False):
        path = tmp_path / str(frozen_weights)
        skfair.save(debiaser, path, frozen_weights=frozen_weights)
        loaded = skfair.load(path, factories=with_lora)
        np.testing.assert_array_equal(loaded.predict_proba(X), debiaser.predict_proba(X))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DistillationDebiaser", "LinearPostDebiaser"])
def test_as_an_onnx_file(name, tmp_path):
    texts, (debiaser, _) = letters()[0], fitted(name)
    X = encode(texts)
    debiaser.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == list(X)
    short = tokenizer()(texts[:3], padding=True, return_tensors="np", return_token_type_ids=False)
    for batch in (dict(X), {key: values[:1] for key, values in X.items()}, dict(short)):
        logits = torch.from_numpy(session.run(None, batch)[0])
        np.testing.assert_allclose(logits.softmax(1), debiaser.predict_proba(batch), atol=1e-4)


@pytest.mark.slow
def test_the_example_says_what_the_guide_says():
    root = Path(__file__).parents[2]
    example = root / "examples" / "text" / "debias_a_text_classifier.py"
    run = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
    lines = {line.split(":")[0].strip(): line for line in run.stdout.splitlines()}
    bias, score = (
        {
            name: float(re.search(rf"{what} ([+-]?\.?\d\.?\d+)", lines[name])[1])
            for name in ("original", "distilled", "corrected")
        }
        for what in ("bias", "accuracy")
    )
    assert abs(bias["original"]) > 0.2
    assert max(abs(bias["distilled"]), abs(bias["corrected"])) < 0.05
    assert min(score["distilled"], score["corrected"]) > 0.69
    assert lines["same predictions"].endswith("True")
