"""Images in a dask collection, the stage before all methods on several machines.

A dask array of images, or a bag of image files, becomes a lazy dask array of features: one task a
partition. The featurizer is one more task, on which all others depend. So dask sends it to each
worker once, and not with each partition.
"""

import copy
import os
from typing import Any

import numpy as np
from sklearn.utils._set_output import _get_output_config

from skfair._images._input import validate_images
from skfair.base._threads import few_threads
from skfair.featurize._encoders import BatchEncoder, encoder_kind
from skfair.utils._imports import import_optional
from skfair.utils._shown import shown


def is_lazy(X: Any) -> bool:
    """Tell whether X is a dask array or bag, without importing dask."""
    module = type(X).__module__
    return module.startswith(("dask.array.", "dask.bag.")) and hasattr(X, "__dask_graph__")


def first_images(X: Any) -> Any:
    """Compute the first image of a dask array or bag, for ``fit``.

    Raises
    ------
    ValueError
        All partitions are empty, or axes other than the first have several chunks.
    """
    if hasattr(X, "take"):
        # Of the first partition, unless it is empty: with -1, each partition reads one.
        images = list(X.take(1, warn=False) or X.take(1, npartitions=-1, warn=False))
        n_images = len(images)
    else:
        _check_chunks(X)
        images, n_images = None, 0
        for block in range(X.numblocks[0]):
            images = X.blocks[block][:1].compute()
            if n_images := len(images):
                break
    if not n_images:
        raise ValueError(
            f"X, a dask {type(X).__name__}, has no image in its {X.npartitions} partitions. Give "
            "at least one image."
        )
    return images


def encode_lazily(featurizer: Any, X: Any, out: Any = None) -> Any:
    """Make the dask array of the features of X; nothing is computed.

    Parameters
    ----------
    featurizer : FrozenEncoderFeaturizer
        A fitted featurizer. Later changes of its parameters do not matter; those of the weights of
        its encoder do.
    X : dask.array.Array or dask.bag.Bag
        Images, or files.
    out : None

    Returns
    -------
    dask.array.Array of shape (n_samples, n_features_out_) and type float32

    Raises
    ------
    ValueError, TypeError
        `out` is not None, ``set_output`` asks for frames, `memory` is a file, the images have
        another shape or type than in ``fit``, or an axis other than the first has several chunks.
    """
    dask = import_optional("dask", extra="dask", purpose="X, a dask collection,")
    da = import_optional("dask.array", extra="dask", purpose="X, a dask collection,")
    if out is not None:
        raise ValueError(
            "out is given, but X is a dask collection, whose features are computed later. Give no "
            "out; write the result with its method to_zarr, or with dask.array.to_npy_stack."
        )
    if (container := _get_output_config("transform", featurizer)["dense"]) != "default":
        raise ValueError(
            f"set_output(transform={shown(container)}) would compute all features of X, a dask "
            'collection, at once. Set transform="default", in set_output or in '
            "sklearn.set_config."
        )
    if featurizer.memory is not None and os.path.isfile(featurizer.memory):
        raise ValueError(
            f"memory={shown(os.fspath(featurizer.memory), 200)} is one file, on which the workers "
            "of dask would wait for each other. Name a folder that all workers see: each task "
            "writes one file there."
        )
    once = copy.copy(featurizer)
    once._in_partitions = {}
    width = featurizer.n_features_out_
    # One key in the graph: dask sends the object to each worker once. It is not named by its
    # content, since a callable has none.
    shared = dask.delayed(once, pure=False, traverse=False)
    if hasattr(X, "take"):
        encode = dask.delayed(_encode, pure=True)
        parts = [
            da.from_delayed(
                encode(shared, part, number), (np.nan, width), meta=np.empty((0, 0), np.float32)
            )
            for number, part in enumerate(X.to_delayed())
        ]
        return da.concatenate(parts, allow_unknown_chunksizes=True)
    _check_chunks(X)
    if featurizer.data_format != "items" and not np.isnan(X.shape[1:]).any():
        validate_images(featurizer, np.zeros((1, *X.shape[1:]), X.dtype), reset=False)
    return da.map_blocks(
        _encode_block,
        X,
        shared,
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        chunks=(X.chunks[0], (width,)),
        drop_axis=[*range(1, X.ndim)],
        new_axis=1,
    )


def _check_chunks(X: Any) -> None:
    several = [axis for axis in range(1, X.ndim) if X.numblocks[axis] > 1]
    if X.ndim < 2 or several:
        whole = ", ".join(f"{axis}: -1" for axis in range(1, max(X.ndim, 2)))
        raise ValueError(
            f"X is a dask array of shape {X.shape} in chunks {shown(X.chunksize)}; expected "
            "images, each in one chunk. "
            + (f"Give X.rechunk({{{whole}}})." if several else "Give a dask bag of files.")
        )


def _encode_block(block: np.ndarray, featurizer: Any, block_id: Any = None) -> np.ndarray:
    return _encode(featurizer, block, block_id[0])


def _encode(featurizer: Any, part: Any, number: Any) -> np.ndarray:
    """Encode one partition, on a worker."""
    part = part if hasattr(part, "__len__") else list(part)
    if len(part) == 0:
        return np.empty((0, featurizer.n_features_out_), dtype=np.float32)
    try:
        # A worker runs one task a thread, and the number of threads may change the last bits.
        with few_threads(0):
            # Also where scikit-learn is set to return frames.
            return np.asarray(featurizer.transform(part))
    except Exception as error:
        error.add_note(f"This is partition {number} of X; rows are counted within it.")
        raise


class PlacelessEncoder(BatchEncoder):
    """An encoder that gives an image the same bits in each partition.

    The last bits of a matrix product depend on its number of rows, and, in some sizes and types,
    on the place of a row. So all batches have one size: the last one is filled up. A run on random
    numbers tells whether the place of an image matters as well. If it does, images are encoded one
    by one. A callable, which may cost money, gets neither; its bits are its own affair.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the samples.
    known : dict
        What the run on random numbers told, by size of a batch; the same for all partitions of a
        process.
    encoder, **settings
        As in :class:`BatchEncoder`.
    """

    def __init__(self, encoder: Any, *, dtype: np.dtype, known: dict[int, bool], **settings: Any):
        super().__init__(encoder, **settings)
        self._sample_dtype = dtype
        self._known = known
        kind = encoder_kind(encoder, layer=settings["layer"], amp=settings["amp"])
        self._is_free = kind != "callable"

    def launch(self, batch: np.ndarray | list) -> Any:
        if not self._is_free:
            return super().launch(batch)
        # Texts are filled up to the longest one beside them.
        if isinstance(batch, list) or self._place_matters():
            return [BatchEncoder.launch(self, batch[i : i + 1]) for i in range(len(batch))]
        n_missing = self.batch_size - len(batch)
        return super().launch(np.concatenate([batch, np.repeat(batch[-1:], n_missing, axis=0)]))

    def collect(self, output: Any, n_rows: int) -> np.ndarray:
        if isinstance(output, list):
            return np.concatenate([BatchEncoder.collect(self, image, 1) for image in output])
        features = super().collect(output, self.batch_size if self._is_free else n_rows)
        return features[:n_rows]

    def _place_matters(self) -> bool:
        """Whether one image in all places of a batch comes out with different bits."""
        size = self.batch_size
        if size not in self._known:
            # The same numbers in each process, so that all processes come to the same answer.
            sample = np.random.default_rng(0).random((1, *self.shape))
            if self._sample_dtype == np.uint8:
                sample *= 255
            batch = np.repeat(sample.astype(self._sample_dtype), size, axis=0)
            try:
                rows = super().collect(super().launch(batch), size)
                self._known[size] = bool((rows != rows[0]).any())
            except Exception:  # for instance for an unknown token number
                self._known[size] = True
        return self._known[size]
