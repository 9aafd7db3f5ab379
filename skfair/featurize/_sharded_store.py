"""The feature store of several machines: one new file for each task, in a folder of all of them."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from skfair.featurize._shards import Shards, write_shard
from skfair.featurize._store import FeatureStore
from skfair.utils._shown import shown


class ShardedStore:
    """A folder of shards, for one task of many; with the interface of ``FeatureStore``.

    Rows that the task encodes go to one new file when the store is closed, also after an error. A
    file appears completely or not at all, under a name that its keys define: a task that runs
    twice, since its worker was killed, writes one file.

    Parameters
    ----------
    path : path-like
        An existing folder. All workers must see it under this path.

    Raises
    ------
    NotADirectoryError
        `path` is not an existing folder.
    """

    keys = staticmethod(FeatureStore.keys)

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        if not self.path.is_dir():
            raise NotADirectoryError(
                f"memory={shown(os.fspath(path), 200)} is not a folder on this worker. The workers "
                "of dask write one file each: name an existing folder that all workers see."
            )
        self._made: dict[bytes, np.ndarray] = {}

    def __enter__(self) -> "ShardedStore":
        self._shards = Shards(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._made:
            write_shard(self.path, self._made)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the rows that the folder has; without rows that are missing or damaged."""
        wanted = list(dict.fromkeys(keys))
        found = {key: self._made[key] for key in wanted if key in self._made}
        found.update(self._shards.get([key for key in wanted if key not in found]))
        return found

    def get_or_encode(
        self, keys: list[bytes], encode: Callable[[list[int]], np.ndarray]
    ) -> dict[bytes, np.ndarray]:
        """Return rows; compute those that are missing, and keep them for the new file."""
        made = dict(zip(keys, encode([*range(len(keys))]), strict=True))
        self._made.update(made)
        return made
