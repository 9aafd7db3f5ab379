"""A transformer that reads letters, debiased with LoRA, judged on 50,000 new letters.

A letter has two to four sentences. Their verbs tell merit; their spelling tells the variety of
English, nine times in ten. The labels favour one variety. The network is trained once; each of
three seeds draws other debiasing letters and other new letters.
"""

import copy
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.metrics import balanced_accuracy_score
from transformers import BertConfig, BertForSequenceClassification

import skfair
from benchmarks._large.rows import Run

N_TRAIN, N_DEBIAS, N_NEW, SEEDS = 6000, 3000, 50_000, range(3)
EPSILON = 0.05
STRONG, WEAK, SPELT, PLAIN = 5, 5, 6, 8  # numbers of words
PAD, CLS, FIRST = 0, 1, 2
LENGTH = 1 + 4 * 4
METHODS = {
    "the network as it is": None,
    "ThresholdDebiaser": {},
    "DistillationDebiaser": {"random_state": 0},
    "LinearPostDebiaser": {"random_state": 0},
}


def draw(n, rng):
    """Token ids and the mask of the padding, labels, and whether the English is British."""
    british, merit = rng.integers(2, size=n), rng.standard_normal(n)
    strong = rng.random((n, 4)) < 1 / (1 + np.exp(-2 * merit))[:, None]
    spelling = rng.random((n, 4)) < np.where(british, 0.1, 0.9)[:, None]
    verb = FIRST + np.where(strong, 0, STRONG) + rng.integers(STRONG, size=(n, 4))
    thing = FIRST + STRONG + WEAK + 2 * rng.integers(SPELT, size=(n, 4)) + spelling
    plain = FIRST + STRONG + WEAK + 2 * SPELT + rng.integers(PLAIN, size=(2, n, 4))
    words = np.stack([plain[0], verb, thing, plain[1]], axis=2).reshape(n, -1)
    ids = np.column_stack([np.full(n, CLS), words])
    mask = np.arange(LENGTH) <= 4 * rng.integers(2, 5, size=n)[:, None]
    y = merit + 0.9 * british + 0.5 * rng.standard_normal(n) > 0.45
    X = {"input_ids": np.where(mask, ids, PAD), "attention_mask": mask.astype(np.int64)}
    return X, y.astype(int), british


def trained():
    """A small BERT, trained on letters whose variety is not known."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=FIRST + STRONG + WEAK + 2 * SPELT + PLAIN,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    network = BertForSequenceClassification(config).train()
    X, y, _ = draw(N_TRAIN, np.random.default_rng(0))
    X, y = {name: torch.from_numpy(values) for name, values in X.items()}, torch.from_numpy(y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(3):
        for rows in torch.randperm(len(y)).split(64):
            batch = {name: values[rows] for name, values in X.items()}
            loss = network(**batch, labels=y[rows]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def with_lora(network):
    torch.manual_seed(1)
    lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    return get_peft_model(copy.deepcopy(network), lora).eval()


def debiased(method, network, seed):
    X, y, british = draw(N_DEBIAS, np.random.default_rng(100 + seed))
    debiaser = getattr(skfair, method)(network, epsilon=EPSILON, **METHODS[method])
    return debiaser.fit(X, y, sensitive_features=british)


@torch.no_grad()
def as_it_is(network, X):
    parts = (torch.from_numpy(values).split(2048) for values in X.values())
    batches = (dict(zip(X, batch, strict=True)) for batch in zip(*parts, strict=True))
    return torch.cat([network(**batch).logits.argmax(1) for batch in batches]).numpy()


def outcomes(method):
    """Bias and balanced accuracy on the new letters, and the interval of the bias, by seed."""
    network, found = with_lora(trained()), []
    for seed in SEEDS:
        X, y, british = draw(N_NEW, np.random.default_rng(200 + seed))
        if METHODS[method] is None:
            predicted, interval = as_it_is(network, X), (np.nan, np.nan)
        else:
            debiaser = debiased(method, network, seed)
            predicted, interval = debiaser.predict(X), debiaser.bias_interval_
        bias = predicted[british == 0].mean() - predicted[british == 1].mean()
        found.append((bias, balanced_accuracy_score(y, predicted), interval))
    return found


def summary(method):
    """Largest bias, mean balanced accuracy, and how often the interval holds the bias."""
    found = outcomes(method)
    numbers = [max(abs(bias) for bias, _, _ in found), np.mean([score for _, score, _ in found])]
    if METHODS[method]:
        numbers.append(sum(low <= bias <= high for bias, _, (low, high) in found))
    return numbers


def largest_change_of_base(method):
    """Largest change of a weight that is not the adapter's."""
    network = with_lora(trained())
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    debiaser = debiased(method, network, 0)
    after = dict(debiaser.module_.get_submodule("0").named_parameters())
    adapter = {name for name, p in network.named_parameters() if p.requires_grad}
    assert any(not torch.equal(after[name], before[name]) for name in adapter)
    return max(float((after[n] - before[n]).abs().max()) for n in before.keys() - adapter)


def saved_size(method):
    """Bytes of the saved debiaser, above those of the adapter that peft saves."""
    network = with_lora(trained())
    with tempfile.TemporaryDirectory() as folder:
        skfair.save(debiased(method, network, 0), Path(folder, "model"), frozen_weights=False)
        network.save_pretrained(Path(folder, "adapter"))
        sizes = [
            sum(file.stat().st_size for file in Path(folder, name).glob("*.safetensors"))
            for name in ("model", "adapter")
        ]
    return sizes[0] / sizes[1]


def difference_in_bfloat16():
    """Balanced accuracy of the original network in ``trials_``, less that of its own answers."""
    network = trained().bfloat16()
    X, y, british = draw(N_DEBIAS, np.random.default_rng(100))
    debiaser = skfair.ThresholdDebiaser(network, epsilon=EPSILON)
    debiaser.fit(X, y, sensitive_features=british)
    own = balanced_accuracy_score(y, as_it_is(network, X))
    return abs(debiaser.trials_.loc[0, "performance"] - own)


def runs():
    what = "a BERT with LoRA, 3,000 debiasing rows"
    found = []
    for method, settings in METHODS.items():
        goals = {
            f"{method}, {what}: bias on 50,000 new rows, the largest of 3 seeds": (
                "" if settings is None else f"<= {EPSILON:g}"
            ),
            f"{method}: balanced accuracy there, mean of 3 seeds": "",
        }
        if settings:
            goals[
                f"{method}: seeds of 3 whose ``bias_interval_`` holds the bias on the new rows"
            ] = ">= 3"
        found.append(Run(goals, partial(summary, method)))
    method = "DistillationDebiaser"
    return [
        *found,
        Run(
            {f"{method}: largest change of a weight outside the adapter": "<= 0"},
            partial(largest_change_of_base, method),
        ),
        Run(
            {f"{method}: saved debiaser, in sizes of the adapter that peft saves": ""},
            partial(saved_size, method),
        ),
        Run(
            {
                "the BERT in bfloat16: balanced accuracy of the original in ``trials_``, less its "
                "own": "<= 0"
            },
            difference_in_bfloat16,
        ),
    ]
