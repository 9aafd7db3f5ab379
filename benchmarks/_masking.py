"""The experiment of the paper on MTFL faces: a gender classifier that learns from a confounder.

Training faces are chosen so that the confounder is correlated with gender. Tests are balanced over
the four cells of gender and confounder, and are never perturbed.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skfair.datasets import make_balanced_subset, make_biased_subset

MALE = {"male": 1, "female": 0}
# Who has the confounder in training: men wear glasses, because few women do; women smile, as in
# the paper. Then, for each cell, the number of faces for validation, and the most for a test.
CONFOUNDERS = {"eyeglasses": ("male", 60, 400), "smiling": ("female", 150, 400)}
# The number of parts that the faces are split into, and the tested ones: where no cell is rare, two
# parts have enough faces.
N_FOLDS = 4
TESTED = {"eyeglasses": range(N_FOLDS), "smiling": range(2)}
# Chosen once, for the ordinary model on the biased data, by accuracy on validation faces.
LR, GAMMA, EPOCHS, BATCH = 3e-4, 0.6, 6, 128


class Split:
    """Rows of one draw.

    With `fold` None, the draw is the official split. Validation faces are the same in all draws,
    and come from the official training part.
    """

    def __init__(self, table, confounder, fold):
        male, has = table["male"].to_numpy(), table[confounder].to_numpy()
        official = (table["split"] == "test").to_numpy()
        carrier, n_validation, most = CONFOUNDERS[confounder]
        carrier, other = MALE[carrier], 1 - MALE[carrier]
        everything = np.arange(len(table))

        def balanced(rows, n, seed):
            return rows[
                make_balanced_subset(male[rows], has[rows], n_samples=4 * n, random_state=seed)
            ]

        self.validation = balanced(everything[~official], n_validation, 0)
        rest = np.setdiff1d(everything, self.validation)
        if fold is None:
            candidates = rest[official[rest]]
            seed = N_FOLDS
        else:
            # Each face of the rarest cell is tested once.
            part = np.empty(len(table), dtype=int)
            for cell in range(4):
                rows = rest[2 * male[rest] + has[rest] == cell]
                part[np.random.RandomState(1).permutation(rows)] = np.arange(len(rows)) % N_FOLDS
            candidates = rest[part[rest] == fold]
            seed = fold
        smallest = np.bincount(2 * male[candidates] + has[candidates]).min()
        self.test = balanced(candidates, min(smallest, most), seed)
        self.rest = np.setdiff1d(rest, self.test if fold is not None else candidates)
        size = np.zeros((2, 2), dtype=int)
        np.add.at(size, (male[self.rest], has[self.rest]), 1)
        n = min(3 * size[carrier, 1] // 2, 3 * size[carrier, 0], size[other, 0])
        with_it = 2 * n // 3
        self.biased = self._draw(
            male, has, {(carrier, 1): with_it, (carrier, 0): n - with_it, (other, 0): n}, seed
        )
        # As many faces, and the confounder equally often in both genders, as often as possible.
        both = min(size[other, 1], with_it)
        counts = {(g, h): both if h else n - both for g in (0, 1) for h in (0, 1)}
        self.balanced = self._draw(male, has, counts, seed)

    def _draw(self, male, has, counts, seed):
        rows = make_biased_subset(male[self.rest], has[self.rest], counts=counts, random_state=seed)
        return self.rest[rows]


class Dropout(nn.Module):
    """Dropout with a rate rounded to 1/256; torch's would take a third of the training time."""

    def __init__(self, rate):
        super().__init__()
        self.cut = round(256 * rate)

    def forward(self, X):
        if not self.training:
            return X
        n = X.numel()
        draws = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None)
        keep = (draws.view(torch.uint8)[:n] >= self.cut).to(X.dtype) * (256 / (256 - self.cut))
        # In the memory order of X, which is channels last.
        lies = X.movedim(1, -1)
        return X * keep.reshape(lies.shape).movedim(-1, 1)


def small_cnn(size):
    """The paper's network."""

    def block(before, after):
        return [
            nn.Conv2d(before, after, 5, padding=2), Dropout(0.1), nn.BatchNorm2d(after),
            nn.MaxPool2d(2), nn.LeakyReLU(0.1),
        ]  # fmt: skip

    return nn.Sequential(
        *block(3, 6), *block(6, 12), *block(12, 24), nn.Flatten(),
        nn.Linear(24 * (size // 8) ** 2, 1000), Dropout(0.5), nn.LeakyReLU(0.1),
        nn.Linear(1000, 100), Dropout(0.5), nn.LeakyReLU(0.1), nn.Linear(100, 2),
    )  # fmt: skip


def train(X, y, seed, augment=None, hidden=None):
    """Train on uint8 images; `augment` perturbs the pixels of `hidden` in each batch."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(X), F.one_hot(torch.from_numpy(y), 2).float()
    mean, std = images.float().mean((0, 2, 3)), images.float().std((0, 2, 3))
    scale = Standardise(mean, std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = small_cnn(X.shape[-1]).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=1e-3)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, GAMMA)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(images), generator=generator).split(BATCH):
                batch = images[rows]
                if augment is not None:
                    batch = augment(batch, hidden[rows])
                loss = F.binary_cross_entropy_with_logits(network(scale(batch)), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            decay.step()
    return nn.Sequential(scale, network).eval()


class Standardise(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1)

    def forward(self, images):
        return (images.contiguous(memory_format=torch.channels_last) - self.mean) / self.std


@torch.no_grad()
def scores(network, X):
    """Logit of "male" minus logit of "female"."""
    logits = torch.cat([network(part) for part in torch.from_numpy(X).split(256)])
    return (logits[:, 1] - logits[:, 0]).numpy()


def matched_threshold(network, X, y):
    """The threshold at which as many of these images are called male as are male."""
    return np.quantile(scores(network, X), 1 - y.mean())


def measure(network, X, male, has, threshold=0.0):
    """Accuracies, and what the confounder does.

    ``gap`` is |men - women|. On a test with as many men as women it is the surplus of one answer,
    so that a model without a gap can still use the confounder. ``effect`` is how much more often a
    face is called male with the confounder than without it, mean over genders.
    """
    called_male = scores(network, X) > threshold
    right = called_male == male
    cell = {
        f"{name} {'with' if h else 'without'}": right[(male == g) & (has == h)].mean()
        for name, g in MALE.items()
        for h in (0, 1)
    }
    men, women = right[male == 1].mean(), right[male == 0].mean()
    effect = np.mean(
        [
            called_male[(male == g) & (has == 1)].mean()
            - called_male[(male == g) & (has == 0)].mean()
            for g in (0, 1)
        ]
    )
    return {
        "accuracy": (men + women) / 2, "men": men, "women": women, "gap": abs(men - women),
        "effect": effect, **cell,
    }  # fmt: skip
