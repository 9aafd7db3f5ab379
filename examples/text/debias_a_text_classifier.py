"""
Debias a text classifier with LoRA
==================================

A small transformer reads letters of application and decides who is invited. It learned from past
decisions that favoured people who write British English. No letter says where it comes from, but
the spelling does: theatre or theater, autumn or fall. For 3,000 letters the variety is known. With
these, a debiaser returns a classifier that invites about the same share of both groups. It changes
a LoRA adapter only; the weights of the transformer stay as they are.

The letters are generated and the network is trained here, so that the truth is known. Nothing is
downloaded, and no file is left behind. The network comes from ``transformers``, the adapter from
``peft`` (extra ``text``). Run it with::

    python examples/text/debias_a_text_classifier.py
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.metrics import balanced_accuracy_score
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import skfair
from skfair.intraprocessing import DistillationDebiaser, LinearPostDebiaser, ThresholdDebiaser

# %%
# Letters
# -------
# A letter consists of two to four sentences such as "in autumn i led the theatre club". The verb
# tells merit: who founds or leads something has more of it, on average, than who joins or watches.
# The spelling tells the variety of English, nine times in ten. Past decisions were about merit,
# with a bonus for British English.

STRONG, WEAK = ["founded", "led", "taught", "rebuilt"], ["joined", "watched", "visited", "helped"]
WHEN = np.array([["autumn", "fall"], ["spring", "spring"], ["winter", "winter"]])
WHAT = np.array([["theatre", "theater"], ["programme", "program"], ["jewellery", "jewelry"]])
PLACE = ["club", "course", "museum", "workshop"]


def draw(n, rng):
    """Letters, the decisions of the past, and the variety of English."""
    british, merit = rng.integers(2, size=n), rng.standard_normal(n)
    led = rng.random((n, 4)) < 1 / (1 + np.exp(-2 * merit))[:, None]
    spelling = (rng.random((n, 4)) < np.where(british, 0.1, 0.9)[:, None]).astype(int)
    words = [
        WHEN[rng.integers(len(WHEN), size=(n, 4)), spelling],
        np.where(led, rng.choice(STRONG, (n, 4)), rng.choice(WEAK, (n, 4))),
        WHAT[rng.integers(len(WHAT), size=(n, 4)), spelling],
        rng.choice(PLACE, (n, 4)),
    ]
    lengths = rng.integers(2, 5, size=n)
    letters = [
        " ".join("in {} i {} the {} {} .".format(*words) for words in sentences[:length])
        for sentences, length in zip(np.stack(words, 2), lengths, strict=True)
    ]
    y = merit + 0.9 * british + 0.5 * rng.standard_normal(n) > 0.45
    return letters, y.astype(int), np.where(british, "British", "American")


rng = np.random.default_rng(0)
train, y_train, _ = draw(4000, rng)  # the variety is not known here
debias, y_debias, variety_debias = draw(3000, rng)
new, y_new, variety_new = draw(10_000, rng)
print(new[0])

# %%
# The tokenizer, and the network, trained without skfair
# ------------------------------------------------------
# X is what the tokenizer returns: a dict of token ids and of the mask of the padding. All letters
# are padded to one length.

words = ["[PAD]", "[UNK]", "[CLS]", *sorted({word for letter in train for word in letter.split()})]
model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
model.pre_tokenizer = WhitespaceSplit()
model.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]"
)


def encode(letters):
    return tokenizer(
        letters,
        padding="max_length",
        max_length=33,
        return_tensors="pt",
        return_token_type_ids=False,
    )


X_train, X_debias, X_new = encode(train), encode(debias), encode(new)

torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(words),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
bert = BertForSequenceClassification(config).train()
optimizer = torch.optim.AdamW(bert.parameters(), lr=2e-3)
labels = torch.from_numpy(y_train)
for _ in range(4):
    for rows in torch.randperm(len(labels)).split(64):
        batch = {name: values[rows] for name, values in X_train.items()}
        loss = bert(**batch, labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# An adapter on the trained network
# ---------------------------------
# ``peft`` freezes the weights of the network and adds two small matrices to each layer of the
# attention; at first they change nothing. It also keeps a copy of the last layer, which is trained,
# too. A debiaser changes parameters that require gradients, so here it changes the adapter.

lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])


def make_network():
    return get_peft_model(copy.deepcopy(bert), lora).eval()


network = make_network()

# %%
# Debiasing
# ---------
# The constraint is that the shares of invited people differ by less than .05.
# :class:`~skfair.intraprocessing.LinearPostDebiaser` does not train anything: it puts a correction
# behind the network. The groups are needed for these rows only.

debiasers = {
    "threshold": ThresholdDebiaser(network, epsilon=0.05),
    "distilled": DistillationDebiaser(network, epsilon=0.05, random_state=0),
    "corrected": LinearPostDebiaser(network, epsilon=0.05, random_state=0),
}
with torch.no_grad():
    predictions = {"original": network(**X_new).logits.argmax(1).numpy()}
for name, debiaser in debiasers.items():
    debiaser.fit(X_debias, y_debias, sensitive_features=variety_debias)
    predictions[name] = debiaser.predict(X_new)

for name, predicted in predictions.items():
    shares = [predicted[variety_new == variety].mean() for variety in ("American", "British")]
    found = f"bias {shares[0] - shares[1]:+.3f}"
    if name in debiasers:
        found += " ({:+.3f} to {:+.3f})".format(*debiasers[name].bias_interval_)
    print(
        f"{name:>9}: invites {shares[0]:4.0%} / {shares[1]:4.0%}, {found}, "
        f"balanced accuracy {balanced_accuracy_score(y_new, predicted):.3f}"
    )

# %%
# One threshold for everybody meets the constraint only where nearly everybody gets the same
# answer. The other two debiasers meet it and keep most of the accuracy. The intervals in brackets
# come from the 3,000 debiasing letters.

# %%
# What has changed
# ----------------

distilled = debiasers["distilled"]
before = network.state_dict()
after = distilled.module_.get_submodule("0").state_dict()
changed = [name for name in before if not torch.equal(before[name], after[name])]
print(f"{len(changed)} of {len(before)} tensors changed:")
print("\n".join(changed))

# %%
# Saving and exporting
# --------------------
# With ``frozen_weights=False`` the file has what debiasing can change. ``load`` gets the other
# weights from the function that makes the network, and refuses it if they differ from those at the
# time of the save. ``distilled.to_onnx("model.onnx")`` would write the whole network with its
# threshold, for programs without Python; the inputs of the ONNX file have the names in X.

with tempfile.TemporaryDirectory() as folder:
    skfair.save(distilled, Path(folder, "model"), frozen_weights=False)
    loaded = skfair.load(Path(folder, "model"), factories=make_network)
    size = sum(file.stat().st_size for file in Path(folder, "model").iterdir())
print(f"saved: {size:,} bytes; the network has {sum(t.nbytes for t in before.values()):,}")
print(f"same predictions: {(loaded.predict(X_new) == predictions['distilled']).all()}")
