"""Encoders as model libraries give them: named outputs, methods, image processors, tokenizers."""

import functools
import types

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer

IMAGES = np.random.default_rng(0).integers(0, 256, size=(6, 3, 24, 20), dtype=np.uint8)
TEXTS = ["one", "two one three two one", "three two", "two", "one three one three one two"]
SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8)
    return transformers.ViTModel(config).train()


@pytest.fixture(scope="module")
def processor():
    return transformers.ViTImageProcessor(size={"height": 16, "width": 16})


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, vocab_size=8, max_position_embeddings=8)
    return transformers.BertModel(config)


def tokenizer(side="right"):
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "one": 1, "two": 2, "three": 3}, "[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", padding_side=side
    )
    return functools.partial(fast, padding=True, return_tensors="pt", return_token_type_ids=False)


def run(module, **inputs):
    with torch.no_grad():
        return module.eval()(**inputs)


@pytest.mark.parametrize(
    ("parameters", "pick"),
    [
        ({}, lambda out: out.last_hidden_state.mean(1)),
        ({"pooling": "cls"}, lambda out: out.last_hidden_state[:, 0]),
        ({"layer": "pooler_output"}, lambda out: out.pooler_output),
        ({"layer": "embeddings", "pooling": "max"}, lambda out: out.hidden_states[0].amax(1)),
    ],
)
def test_image_processors_and_named_outputs_of_transformers(vit, processor, parameters, pick):
    vit.train()
    features = FrozenEncoderFeaturizer(vit, preprocess=processor, **parameters).fit_transform(
        IMAGES
    )
    assert vit.training
    pixels = processor(list(IMAGES), return_tensors="pt")
    expected = pick(run(vit, **pixels, output_hidden_states=True))
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_embeddings_of_clip_from_methods_and_modules(processor):
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    text = {**SMALL, "vocab_size": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=5)
    ).eval()
    alone = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**vision, projection_dim=5)
    )
    alone.load_state_dict(clip.state_dict(), strict=False)
    pixels = processor(list(IMAGES), return_tensors="pt")
    with torch.no_grad():
        pooled = clip.vision_model(**pixels).pooler_output
        expected = clip.visual_projection(pooled)
    for encoder in (clip.get_image_features, alone):
        featurizer = FrozenEncoderFeaturizer(encoder, preprocess=processor)
        np.testing.assert_allclose(featurizer.fit_transform(IMAGES), expected, atol=1e-5)
    with torch.no_grad():
        texts = [clip.text_model(**tokenizer()([text])).pooler_output for text in TEXTS]
        expected = clip.text_projection(torch.cat(texts))
    featurizer = FrozenEncoderFeaturizer(
        clip.get_text_features, preprocess=tokenizer(), data_format="items"
    )
    np.testing.assert_allclose(featurizer.fit_transform(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_tokens_that_fill_up_short_texts_do_not_count(bert, side, pooling):
    # Positions of texts that are filled up on the left begin later: take the model's own tokens.
    batch = tokenizer(side)(TEXTS)
    tokens = run(bert, **batch).last_hidden_state
    real = [row[mask.bool()] for row, mask in zip(tokens, batch["attention_mask"], strict=True)]
    pool = {"mean": lambda t: t.mean(0), "max": lambda t: t.amax(0), "cls": lambda t: t[0]}
    expected = torch.stack([pool[pooling](t) for t in real])
    featurizer = FrozenEncoderFeaturizer(
        bert, preprocess=tokenizer(side), pooling=pooling, data_format="items"
    )
    if side == "left":  # a text has other positions beside a longer one: said, not returned
        with pytest.raises(ValueError, match="uses the other items"):
            featurizer.fit_transform(TEXTS)
        return
    np.testing.assert_allclose(featurizer.fit_transform(TEXTS), expected, atol=1e-5)


def test_texts_are_keyed_by_content_and_equal_texts_run_once(bert, tmp_path):
    runs = []

    def tokenize(texts):
        runs.extend(texts)
        return tokenizer()(texts)

    featurizer = FrozenEncoderFeaturizer(
        bert, preprocess=tokenize, data_format="items", memory=tmp_path, encoder_id="bert"
    ).fit(TEXTS)
    runs.clear()
    features = featurizer.transform(TEXTS * 2)
    assert not runs
    np.testing.assert_array_equal(features[:5], features[5:])


class Named(nn.Module):
    """Returns what it is told to, as models of transformers do."""

    def __init__(self, *names):
        super().__init__()
        self.names = names
        self.scale = nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, images):
        rows = images.flatten(1)[:, :4] * self.scale
        return {"loss": rows.mean()} | {name: rows + i for i, name in enumerate(self.names)}

    def doubled(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        return 2 * self(images)["logits"]


@pytest.mark.parametrize(
    ("names", "layer", "chosen"),
    [
        (["logits"], None, 0),
        (["last_hidden_state", "pooler_output"], None, 0),
        (["pooler_output", "last_hidden_state"], None, 1),
        (["last_hidden_state", "image_embeds"], None, 1),
        (["token_embeddings", "sentence_embedding"], None, 1),
        (["one", "two"], "two", 1),
    ],
)
def test_rule_for_several_outputs(names, layer, chosen):
    expected = IMAGES.reshape(6, -1)[:, :4] / np.float32(255) * np.arange(1, 5) + chosen
    features = FrozenEncoderFeaturizer(Named(*names), layer=layer).fit_transform(IMAGES)
    np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_outputs_that_cannot_be_chosen_are_listed():
    for names in (["one", "two"], ["image_embeds", "text_embeds"]):
        with pytest.raises(TypeError, match=rf"'{names[0]}' \(1, 4\), '{names[1]}'.*layer="):
            FrozenEncoderFeaturizer(Named(*names)).fit(IMAGES)
    with pytest.raises(ValueError, match=r"layer='lgits' is not in encoder.*'logits'"):
        FrozenEncoderFeaturizer(Named("logits"), layer="lgits").fit(IMAGES)
    with pytest.raises(ValueError, match="layer='logits' is not in encoder"):
        FrozenEncoderFeaturizer(nn.Flatten(), layer="logits").fit(IMAGES)


def test_methods_run_like_their_module(tmp_path):
    net = Named("logits").train()
    expected = IMAGES.reshape(6, -1)[:, :4] / np.float32(255) * 2 * np.arange(1, 5)
    features = FrozenEncoderFeaturizer(net.doubled).fit_transform(IMAGES)
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert net.training
    with pytest.raises(ValueError, match="encoder_id"):
        FrozenEncoderFeaturizer(net.doubled, memory=tmp_path).fit(IMAGES)
    assert FrozenEncoderFeaturizer(net.doubled, amp=True).fit(IMAGES).n_features_out_ == 4


def test_weights_behind_a_method_are_part_of_the_key(tmp_path, vit):
    assert hasattr(
        nn.Module, "smart_apply"
    )  # transformers adds it, which changes no layer of torch
    rows = np.eye(3, dtype=np.float32)
    layer = nn.Linear(3, 2)
    featurizer = FrozenEncoderFeaturizer(layer.forward, memory=tmp_path).fit(rows)
    before = featurizer.transform(rows)
    with torch.no_grad():
        layer.weight.add_(1)
    after = featurizer.transform(rows)
    np.testing.assert_allclose(after, before + 1, rtol=1e-6)
    layer.forward = types.MethodType(lambda self, x: x, layer)
    with pytest.raises(ValueError, match="encoder_id"):
        featurizer.transform(rows)


class Module(nn.Module):
    """As SentenceTransformer, it takes one dict."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(8, 4)

    def forward(self, input, **kwargs):
        tokens = self.embed(input["input_ids"]) * input["attention_mask"][..., None]
        return {**input, "token_embeddings": tokens, "sentence_embedding": tokens.sum(1)}


def test_modules_that_take_one_dict():
    featurizer = FrozenEncoderFeaturizer(Module(), preprocess=tokenizer(), data_format="items")
    assert featurizer.fit_transform(TEXTS).shape == (5, 4)


class ToTensor:
    def __call__(self, image):
        assert isinstance(image, Image.Image)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        return functools.reduce(lambda made, step: step(made), self.transforms, image)


def test_transforms_for_one_pillow_image_get_one(monkeypatch):
    """As those of timm and open_clip; torchvision itself does not run with every torch."""
    monkeypatch.setattr(Compose, "__module__", "torchvision.transforms.transforms")
    transform = Compose([lambda image: image.resize((10, 12)), ToTensor()])
    expected = [transform(Image.fromarray(x.transpose(1, 2, 0))).mean((1, 2)) for x in IMAGES]
    for encoder in (nn.Identity(), np.asarray):
        featurizer = FrozenEncoderFeaturizer(encoder, preprocess=transform)
        np.testing.assert_allclose(
            featurizer.fit_transform(IMAGES), torch.stack(expected), rtol=1e-5
        )
    with pytest.raises(TypeError, match=r"takes Pillow images, and X holds float32"):
        FrozenEncoderFeaturizer(nn.Identity(), preprocess=transform).fit(IMAGES / np.float32(255))
