"""All rows of Adult, as features and as tokens, and small networks that learn them."""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from skfair.utils._random import seeded

TOKENS = [
    "age", "workclass", "education", "marital-status", "occupation", "relationship", "race",
    "capital-gain", "hours-per-week",
]  # fmt: skip
CROSSED = [
    ("occupation", "education"),
    ("occupation", "age"),
    ("relationship", "hours-per-week"),
]


@dataclass(frozen=True)
class People:
    """Adult: 48,842 rows. Unknown values are a category of their own.

    Attributes
    ----------
    frame : the columns as they are
    y : whether the income is above 50,000 dollars
    sex, race : groups by name
    """

    frame: pd.DataFrame
    y: np.ndarray
    sex: np.ndarray
    race: np.ndarray

    def features(self, without=()):
        """One-hot categories and standardized numbers, float32; columns in `without` left out."""
        frame = self.frame.drop(columns=["income", "split", "fnlwgt", *without])
        numbers = frame.select_dtypes("number")
        X = pd.get_dummies(frame, dtype=float)
        X[numbers.columns] = (numbers - numbers.mean()) / numbers.std()
        return X.to_numpy(np.float32)

    def tokens(self, crossed):
        """One token a column, numbers included, and one for each pair in `crossed`; no sex."""
        frame = self.frame[TOKENS].astype(str)
        frame = frame.assign(**{f"{a} {b}": frame[a] + " " + frame[b] for a, b in crossed})
        ids, first = [], 0
        for column in frame:
            codes, levels = pd.factorize(frame[column])
            ids.append(codes + first)
            first += len(levels)
        return np.column_stack(ids)


@functools.cache
def people(data):
    """Read ``tabular/adult.csv.gz`` in the folder `data`."""
    frame = pd.read_csv(data / "tabular" / "adult.csv.gz")
    y = (frame["income"] == ">50K").to_numpy().astype(int)
    return People(frame, y, frame["sex"].to_numpy(str), frame["race"].to_numpy(str))


# -- networks ----------------------------------------------------------------------------------


def perceptron(n_features, n_outputs=1, width=64):
    return nn.Sequential(
        nn.Linear(n_features, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, n_outputs),
    )


class BagOfTokens(nn.Module):
    """The mean of the embeddings of a row's tokens, and two layers."""

    def __init__(self, n_tokens, width=64):
        super().__init__()
        self.embedding = nn.EmbeddingBag(n_tokens, width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids):
        return self.head(self.embedding(ids.long()))


class _Block(nn.Module):
    """Attention and a perceptron, each after a layer norm and with a residual connection."""

    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.gather = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        n, length, width = x.shape
        parts = self.attend(self.before(x)).view(n, length, 3, self.n_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        x = x + self.gather(seen.transpose(1, 2).reshape(n, length, width))
        return x + self.perceptron(self.between(x))


class Transformer(nn.Module):
    """Two blocks on a row's tokens; each column has tokens of its own."""

    def __init__(self, n_tokens, width=16, n_heads=2):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, width)
        self.blocks = nn.Sequential(_Block(width, n_heads), _Block(width, n_heads))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, ids):
        return self.head(self.blocks(self.embedding(ids.long())).mean(1))


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 1),
    )


def trained(build, X, y, seed, *, max_epochs=6, lr=2e-3):
    """Build a network and train it with Adam; one output for two classes, or one for each."""
    X = torch.as_tensor(X)
    with seeded(seed):
        network = build()
        optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        n_steps = max_epochs * -(-len(X) // 256)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=n_steps)
        for _ in range(max_epochs):
            for rows in torch.randperm(len(X)).split(256):
                optimizer.zero_grad()
                out = network(X[rows])
                if out.shape[1] == 1:
                    target = torch.as_tensor(y[rows.numpy()], dtype=out.dtype)
                    loss = F.binary_cross_entropy_with_logits(out[:, 0], target)
                else:
                    loss = F.cross_entropy(out, torch.as_tensor(y[rows.numpy()]))
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def outputs(network, X):
    """The outputs of a network, float32."""
    with torch.no_grad():
        return torch.cat([network(part) for part in torch.as_tensor(X).split(8192)]).numpy()
