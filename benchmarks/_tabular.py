"""The tabular tasks of the intra-processing literature, with their trained networks.

Adult (income, sex), COMPAS (two-year recidivism, race) and Bank (term deposit, age 25), prepared
as AIF360 prepares them, and the network family of Savani et al. (2020), trained once per seed.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks._remember import remembered_network
from skfair.utils._random import seeded

# Batches of 64 as published where time allows. On COMPAS the deep, narrow network can stay at a
# constant for twenty epochs before it starts to learn.
BATCH_SIZE = {"adult": 256, "compas": 64, "bank": 256}
PATIENCE = {"adult": 10, "compas": 30, "bank": 10}


@dataclass(frozen=True)
class TabularTask:
    """One 60/20/20 split of a data set and a network trained on its 60 %.

    Attributes
    ----------
    name, seed : data set and split
    columns : names of the features
    X_train, y_train, a_train : the 60 %: standardized features (float32), classes 0 and 1, and
        groups, 0 the unprivileged and 1 the privileged one
    X_debias, y_debias, a_debias : the 20 % that a debiasing method is given
    X_test, y_test, a_test : the 20 % on which it is judged
    network : the trained network, one logit a row, in evaluation mode; a method must not change it
    """

    name: str
    seed: int
    columns: tuple[str, ...]
    X_train: np.ndarray
    y_train: np.ndarray
    a_train: np.ndarray
    X_debias: np.ndarray
    y_debias: np.ndarray
    a_debias: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    a_test: np.ndarray
    network: nn.Module | None = None


class TabularTasks:
    """Reads the data once and draws splits of it, with their networks.

    Parameters
    ----------
    data : Path
        Folder that holds ``tabular/adult.csv.gz``, ``tabular/compas_two_years.csv.gz`` and
        ``tabular/bank_additional_full.csv.gz``.
    cache : Path or None, default=None
        Folder for trained weights: read where they are there, else trained and written.

    Examples
    --------
    ::

        task = TabularTasks(Path("data"), cache=Path("nets")).draw("adult", seed=0)
        task.network(torch.as_tensor(task.X_test))  # (9045, 1) logits
    """

    NAMES = ("adult", "compas", "bank")

    def __init__(self, data: Path, cache: Path | None = None):
        folder = data / "tabular"
        self._frames = {
            "adult": _adult(pd.read_csv(folder / "adult.csv.gz")),
            "compas": _compas(pd.read_csv(folder / "compas_two_years.csv.gz")),
            "bank": _bank(pd.read_csv(folder / "bank_additional_full.csv.gz")),
        }
        self._cache = cache

    def draw(
        self, name: str, seed: int, *, with_attribute: bool = True, network: bool = True
    ) -> TabularTask:
        """Split a data set by `seed` and load or train the network of that split.

        Parameters
        ----------
        name : {"adult", "compas", "bank"}
            Data set.
        seed : int
            Draws the split (a plain random permutation), the weights and the batches.
        with_attribute : bool, default=True
            Whether the binary attribute is among the features, as published.
        network : bool, default=True
            Whether to load or train the network.

        Returns
        -------
        TabularTask
            The split and its network.
        """
        X, y, a = self._frames[name]
        if not with_attribute:
            X = X.drop(columns=a.name)
        order = np.random.default_rng(seed).permutation(len(X))
        rows = np.split(order, [round(0.6 * len(X)), round(0.8 * len(X))])
        values, y, groups = X.to_numpy(dtype=np.float64), y.to_numpy(), a.to_numpy()
        scaler = StandardScaler().fit(values[rows[0]])
        parts = {}
        for part, r in zip(("train", "debias", "test"), rows, strict=True):
            parts[f"X_{part}"] = scaler.transform(values[r]).astype(np.float32)
            parts[f"y_{part}"], parts[f"a_{part}"] = y[r], groups[r]
        task = TabularTask(name, seed, tuple(X.columns), **parts)
        if not network:
            return task
        suffix = "" if with_attribute else "_noattr"
        build = partial(build_network, len(task.columns))
        with seeded(seed):
            network = remembered_network(
                self._cache, f"{name}_{seed}{suffix}", build, lambda: train(build(), task)
            )
        return replace(task, network=network)


def build_network(n_features: int, *, width: int = 32, n_hidden: int = 11) -> nn.Sequential:
    """The published family: blocks of Linear, ReLU, dropout .2 and BatchNorm, then one logit."""
    layers: list[nn.Module] = []
    for i in range(n_hidden):
        layers += [
            nn.Linear(width if i else n_features, width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.BatchNorm1d(width),
        ]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def train(
    module: nn.Module, task: TabularTask, *, lr: float = 1e-3, max_epochs: int = 200
) -> nn.Module:
    """Train a network on nine tenths of the training rows; stop early by the loss on the tenth.

    The published code stops by the loss on the debiasing rows. These rows are then training data of
    the network that they have to correct. Here the network never sees them.
    """
    X = torch.as_tensor(task.X_train)
    y = torch.as_tensor(task.y_train, dtype=torch.float32)
    size, patience = BATCH_SIZE[task.name], PATIENCE[task.name]
    loss = nn.BCEWithLogitsLoss()
    order = torch.randperm(len(X))
    held, fit = order[: len(X) // 10], order[len(X) // 10 :]
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience // 2)
    best, waited, weights = np.inf, 0, module.state_dict()
    for _ in range(max_epochs):
        module.train()
        for batch in fit[torch.randperm(len(fit))].split(size):
            if len(batch) == 1:  # BatchNorm cannot train on one row
                continue
            optimizer.zero_grad()
            loss(module(X[batch])[:, 0], y[batch]).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            held_loss = loss(module(X[held])[:, 0], y[held]).item()
        plateau.step(held_loss)
        waited += 1
        if held_loss < best:
            best, waited = held_loss, 0
            weights = {k: v.clone() for k, v in module.state_dict().items()}
        if waited > patience:
            break
    module.load_state_dict(weights)
    return module.eval()


def _adult(d: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Adult without ``fnlwgt``: 45,222 rows, 98 columns."""
    d = d[(d != "?").all(axis=1)]
    X = d.drop(columns=["income", "split", "fnlwgt"])
    X["sex"] = (X["sex"] == "Male").astype(int)
    X["race"] = (X["race"] == "White").astype(int)
    return pd.get_dummies(X, dtype=int), (d["income"] == ">50K").astype(int), X["sex"]


def _compas(d: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """COMPAS, African-American and Caucasian defendants; class 1 is recidivism."""
    d = d[d["race"].isin(["African-American", "Caucasian"])]
    X = d.drop(columns="two_year_recid")
    X["race"] = (X["race"] == "Caucasian").astype(int)
    X["sex"] = (X["sex"] == "Male").astype(int)
    return pd.get_dummies(X, dtype=int), d["two_year_recid"], X["race"]


def _bank(d: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Bank Marketing with ``duration``, as published: 30,488 rows, 57 columns."""
    d = d[(d != "unknown").all(axis=1)]
    X = d.drop(columns="y")
    X["age"] = (X["age"] >= 25).astype(int)
    return pd.get_dummies(X, dtype=int), (d["y"] == "yes").astype(int), X["age"]
