"""FrozenEncoderFeaturizer: the stage before all methods, from images to frozen features."""

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from skfair._images._array import release_pages
from skfair._images._input import validate_images
from skfair._images._view import Images
from skfair.base._fresh_fit import FreshFit
from skfair.base._net import noise
from skfair.base._notebook import NotebookView
from skfair.base._portable import PortableState
from skfair.base._saved import SavedState
from skfair.featurize._encoders import BatchEncoder, encoder_kind, module_device
from skfair.featurize._fingerprint import (
    UnknownEncoder,
    check_module,
    fingerprint,
    is_as_written,
    module_digest,
)
from skfair.featurize._normalize import Normalize
from skfair.featurize._onnx_model import OnnxModel
from skfair.featurize._store import FeatureStore
from skfair.utils._progress import progress_bar
from skfair.utils._rows import check_rows
from skfair.utils._typed import fit_context


class FrozenEncoderFeaturizer(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    NotebookView,
    SavedState,
    PortableState,
    FreshFit,
    BaseEstimator,
):
    """Turn images into the features of a frozen encoder.

    The featurizer runs the encoder in eval mode, without gradients and batch by batch, so that the
    batch and not the data bounds the memory. It never changes the encoder: a torch module keeps
    its weights, buffers, device, training flags and hooks.

    With ``memory`` the featurizer encodes each image once, also across splits, orders and
    processes. It keeps features in a file. The key is the content of the image and of the encoder,
    or a name that you give the encoder.

    Parameters
    ----------
    encoder : torch.nn.Module, path-like or callable
        The encoder that computes the features.

        - A torch module. It gets a tensor of shape (batch, channels, height, width) on `device`:
          float32, or the floating dtype of its weights.
        - The path of an ``.onnx`` file, run by onnxruntime (extra ``onnx``). Its only
          input gets the same batch as an array; its first output is used. Each call reads the
          file, unless it is unchanged, and the files of its folder that hold its weights, but no
          other file. A pickle of the estimator holds the path and the SHA-256 of the weights, not
          the weights: a fitted estimator raises if the path leads to another model than in
          `fit`. A model from ``skfair.load`` holds the contents of the file instead of a path.
        - A callable, for instance the client of an embedding service. It gets the batch as a
          NumPy array and returns an array-like with one row for each image, in the same order.

        The output is floating, of shape (batch, n_features), (batch, tokens, n_features) or
        (batch, n_features, height, width). `fit` refuses an output whose shape shows that pooling
        would use the wrong axes, see Notes. Each row must depend on its image alone.
    layer : str, default=None
        Name of the submodule whose output is used instead, one of
        ``dict(encoder.named_modules())``; for an ONNX file, the name of one of its outputs.
    pooling : {"mean", "max", "cls", "flatten"}, default="mean"
        How outputs of three or four dimensions become rows: mean or maximum over all tokens or
        positions, the first token (three dimensions only), or everything in one long row.
        An output of two dimensions stays unchanged.
    preprocess : callable, default=None
        Takes a batch of images, channels first and with the dtype of `X`, and returns the
        input of the encoder. For a torch module the batch is a tensor on `device`, otherwise an
        array. It must be deterministic. Most encoders need :class:`Normalize`. None
        turns uint8 values 0 to 255 into float32 numbers 0 to 1 and leaves floats unchanged.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows of `X` are reshaped to it. Image files are resized to it
        (bilinear) and converted to its number of channels (1, 3 or 4). Arrays must have it. One
        entry may be -1 for rows. With None, rows go to the encoder unchanged, and files are read
        as RGB and must all have one size.
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`. "stretch" scales height and
        width separately. The others keep the ratio of the sides: "pad" shows the whole image in
        the middle and repeats its border; "crop" fills the size and cuts off the rest on both
        sides.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Position of the channel axis in image arrays, and in rows that `image_shape` reshapes.
        "auto" takes the first or last axis, whichever has 1, 3 or 4 entries, and raises if both
        have; rows are channels first.
    batch_size : int, default=64
        Number of images in a batch.
    device : str or torch.device, default="auto"
        Device of a torch module; "auto" is the accelerator on which the module is, else the
        first accelerator of the machine, else the CPU. An ONNX file runs on CUDA or the
        CPU. A callable chooses its own.
    amp : bool, default=False
        Whether a torch module runs under automatic mixed precision: bfloat16 on the CPU, torch's
        default for the device elsewhere.
    memory : path-like, default=None
        SQLite file that stores the features; created if it does not exist. For a directory, as in
        scikit-learn's ``Pipeline(memory=)``, the file ``features.sqlite`` in it. See Notes.
    encoder_id : str, default=None
        Your name for `encoder` and `preprocess` together, the key in `memory` instead of their
        contents. It is required if the contents do not define the features: for callables, for
        modules with code that is not torch's own, and for a `preprocess` other than
        :class:`Normalize`. Another encoder or preprocessing needs another name: a name that is
        used again returns the rows that are stored under it. With a name, calls do not have to
        read all weights.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features.
    image_shape_ : tuple of three int or None
        (channels, height, width) of the images seen in `fit`; None for rows that went to the
        encoder unchanged.
    input_dtype_ : numpy.dtype
        ``uint8``, or ``float32`` for all other numbers: the scale of the values seen in `fit`.
    n_features_in_ : int
        Number of columns of `X`, if `X` consisted of rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of these columns, if they have names.

    See Also
    --------
    sklearn.frozen.FrozenEstimator : Keeps a fitted estimator unchanged in the same way.

    Notes
    -----
    `X` is, in all methods, one of

    - an array, memory map or tensor of shape (n, channels, height, width) or (n, height, width,
      channels), uint8 or floating, or of grey images, (n, height, width);
    - rows, shape (n, n_features), of any numbers;
    - a sequence of image files (Pillow reads them, extra ``images``), of Pillow images or of
      arrays of one image: a list, a column of any package, a frame of one column, or anything
      with a length and an index. Files and Pillow images are turned as their EXIF data say. The
      heads of all files are read first: an error names files that are not images, or differing
      sizes without `image_shape`, before any work;
    - the path of a folder: the image files directly in it, sorted by name as text ("10.png"
      is before "9.png"), without hidden ones. Features are in this order;
    - a map-style :class:`torch.utils.data.Dataset` of these, or of tuples that start with one.

    `fit` learns only the shape and dtype of the data, and the number of features from the first
    sample.

    `fit` checks the first batch for errors that would silently spoil all features. It refuses maps
    whose features come last, as in Swin transformers, or may come last. It refuses an encoder that
    returns other features for the first image in a batch than alone, or in a second run. For these
    checks a module or an ONNX file runs on three or four more samples, and on one of twice the
    size if the shape does not show which axes are positions. A callable may cost money: only
    `fit_transform` without `memory` runs it once more, on the first image.

    The key of a stored row contains the pixels of its image as `preprocess` gets them: decoded,
    turned as the EXIF data say, and resized. It also contains `layer`, `pooling`, the dtype of
    `amp`, the numbers of :class:`Normalize`, and either `encoder_id` or the contents of the
    encoder. For an ONNX file these are the bytes of the file and of the files that hold its
    weights. For a torch module they are its weights, buffers and attributes, its layers in their
    order, the versions of torch and skfair, and torch's default dtype. Such a key is complete only
    if the code is known. So the module must consist of layers of :mod:`torch.nn`, or be a
    :class:`~skfair.datasets.DigitsEncoder`, unmodified: no classes of other packages or of your
    own, no forward hooks, no parametrizations, no replaced methods. All other encoders require
    `encoder_id`; a call without it raises before anything runs. The key contains neither the
    device nor settings that trade digits for speed, such as TF32.

    A call reads or copies the contents of the encoder once, at its start, for keys and rows; later
    changes do not affect this call. Each row is verified by a checksum when it is read. Several
    processes can share the file; they encode in turn, so that no image is encoded twice. If a
    process is killed or the encoder raises, only the current batch is lost, and the next call
    goes on from there. The file must be on a local disk, and must not be a link.

    The last bits of a row can depend on its batch, as everywhere in torch. `memory` keeps the
    bits of the first run.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skfair.featurize import FrozenEncoderFeaturizer
    >>> encoder = torch.nn.Conv2d(3, 8, kernel_size=3)
    >>> images = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    >>> featurizer = FrozenEncoderFeaturizer(encoder, pooling="mean")
    >>> featurizer.fit_transform(images).shape
    (10, 8)
    """

    # `out` is a destination, not data about the samples.
    __metadata_request__transform = {"out": UNUSED}

    _travels_on_the_cpu = False  # device="auto" keeps an encoder on its accelerator

    _parameter_constraints: dict = {
        "encoder": [callable, str, os.PathLike, OnnxModel],
        "layer": [str, None],
        "pooling": [StrOptions({"mean", "max", "cls", "flatten"})],
        "preprocess": [callable, None],
        "image_shape": [tuple, list, None],
        "resize": [StrOptions({"stretch", "pad", "crop"})],
        "data_format": [StrOptions({"auto", "channels_first", "channels_last"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "amp": ["boolean"],
        "memory": [str, os.PathLike, None],
        "encoder_id": [str, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        encoder: torch.nn.Module | str | os.PathLike | OnnxModel | Callable,
        *,
        layer: str | None = None,
        pooling: str = "mean",
        preprocess: Callable | None = None,
        image_shape: tuple[int, int, int] | None = None,
        resize: str = "stretch",
        data_format: str = "auto",
        batch_size: int = 64,
        device: str | torch.device = "auto",
        amp: bool = False,
        memory: str | os.PathLike | None = None,
        encoder_id: str | None = None,
        verbose: int = 0,
    ):
        self.encoder = encoder
        self.layer = layer
        self.pooling = pooling
        self.preprocess = preprocess
        self.image_shape = image_shape
        self.resize = resize
        self.data_format = data_format
        self.batch_size = batch_size
        self.device = device
        self.amp = amp
        self.memory = memory
        self.encoder_id = encoder_id
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the shape and dtype of the images, and the number of features from the first one.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : Ignored
            Not used, present for API consistency; its rows must not be in another order.

        Returns
        -------
        self : object
            The fitted featurizer.

        Raises
        ------
        ValueError, TypeError
            A parameter, the images, the encoder's output or the file of `memory` is invalid. The
            message says which one and how to correct it.
        """
        check_rows(X=X, y=y)
        images = self._open(X, reset=True)
        self.n_features_out_ = self._encode(images, 1).shape[1]
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and encode; each image is encoded once.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : Ignored
            Not used, present for API consistency; its rows must not be in another order.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out_) and type float32
            The features.
        """
        check_rows(X=X, y=y)
        images = self._open(X, reset=True)
        features = self._encode(images, images.n_samples)
        self.n_features_out_ = features.shape[1]
        return features

    def transform(self, X: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the shape and type seen in `fit`, see Notes.
        out : ndarray or memmap of shape (n_samples, n_features_out_) and type float32, default=None
            Array that gets the features, batch by batch, if they do not fit in memory.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out_) and type float32
            The features; `out` if it was given.

        Raises
        ------
        ValueError, TypeError
            As in `fit`; `out` has a wrong shape or dtype, or is read-only; or `encoder` is the path
            of another model than in `fit`.
        """
        check_is_fitted(self)
        images = self._open(X, reset=False)
        shape = (images.n_samples, self.n_features_out_)
        if out is not None and (
            not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32
        ):
            came = (
                f"shape {out.shape}, {out.dtype}"
                if isinstance(out, np.ndarray)
                else type(out).__name__
            )
            raise ValueError(
                f"out is {came}; expected a NumPy array of shape {shape}, float32. Pass "
                "such an array or memory map."
            )
        if out is not None and not out.flags.writeable:
            raise ValueError(
                "out is read-only; expected a writable array. Open a memory map with mode='r+'."
            )
        return self._encode(images, images.n_samples, out)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def _fit_summary(self) -> str:
        shape = "rows" if self.image_shape_ is None else f"images of shape {self.image_shape_}"
        encoder: Any = self.encoder  # the one that `transform` runs
        name = getattr(encoder, "__name__", type(encoder).__name__)
        if isinstance(encoder, str | os.PathLike | OnnxModel):
            name = "an ONNX file"
        return f"{self.n_features_out_} features of {name} from {self.input_dtype_} {shape}"

    def _outputs_of_noise(self, rng: np.random.Generator) -> np.ndarray | None:
        if not isinstance(self.encoder, torch.nn.Module):
            return None  # a run of another encoder may cost money
        samples = noise(rng.random, self.image_shape_ or (self.n_features_in_,))
        if samples is None:
            return None
        if self.input_dtype_ == np.uint8:
            samples = (255 * samples).astype(np.uint8)
        encoder = self._encoder(device="cpu", width=self.n_features_out_)
        return encoder.collect(encoder.launch(samples), len(samples))

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        fitted = state.pop("_onnx_digest", None)
        if fitted is not None:  # the saved model holds the content of the file
            self._encoder(device="cpu").freeze(fitted)
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.encoder, OnnxModel):
            self._onnx_digest = self.encoder.digest

    def __sklearn_clone__(self) -> "FrozenEncoderFeaturizer":
        # By reference: nothing changes an encoder. A copy would take its size in memory for each
        # candidate of a search, and a client that holds a connection cannot be copied.
        fresh = type(self)(**self.get_params(deep=False))
        for name in ("_metadata_request", "_sklearn_output_config"):
            if name in vars(self):
                setattr(fresh, name, copy.deepcopy(getattr(self, name)))
        return fresh

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _open(self, X: Any, *, reset: bool) -> Images:
        """Check parameters that depend on each other, and X against what `fit` saw."""
        kind = encoder_kind(self.encoder, layer=self.layer, amp=self.amp)
        if (
            reset
            and isinstance(self.encoder, str | os.PathLike)
            and not os.path.exists(self.encoder)
        ):
            raise FileNotFoundError(
                f"encoder={os.fspath(self.encoder)!r} does not exist. Check the path."
            )
        if self.memory is not None and self.encoder_id is None:
            self._check_known(kind)
        return validate_images(self, X, reset=reset)

    def _encode(self, images: Images, n_rows: int, out: np.ndarray | None = None) -> np.ndarray:
        """Encode the first rows, into `out` if it is given."""
        in_fit = not hasattr(self, "n_features_out_")
        encoder = self._encoder(device=self.device, width=None if in_fit else self.n_features_out_)
        digest = None
        if isinstance(self.encoder, str | os.PathLike | OnnxModel):
            fitted = None if in_fit else getattr(self, "_onnx_digest", None)
            digest = encoder.freeze(fitted)
        if in_fit:
            self.__dict__.pop("_onnx_digest", None)
            if digest is not None:
                self._onnx_digest = digest.decode()
        blocks: Iterator[tuple[slice | list[int], np.ndarray]]
        if self.memory is None:
            blocks = self._stream(encoder, images, n_rows)
        else:
            blocks = self._stream_stored(encoder, images, n_rows, digest)
        show = bool(self.verbose)
        with progress_bar("encode", total=n_rows, unit="image", show=show) as progress:
            try:
                for rows, features in blocks:
                    if out is None:
                        out = np.empty((n_rows, features.shape[1]), dtype=np.float32)
                    out[rows] = features
                    release_pages(out)
                    progress.update(len(features))
            except RuntimeError as error:  # torch raises it for a wrong dtype
                if _wants_integers(self.encoder) and self.preprocess is None:
                    error.add_note(
                        "The encoder gets floating numbers, but its embeddings take integers: "
                        "give preprocess=torch.Tensor.long."
                    )
                raise
        assert out is not None  # there is at least one image
        return out

    def _encoder(self, *, device: str | torch.device, width: int | None = None) -> BatchEncoder:
        return BatchEncoder(
            self.encoder,
            layer=self.layer,
            pooling=self.pooling,
            preprocess=self.preprocess,
            device=device,
            amp=self.amp,
            width=width,
            batch_size=self.batch_size,
            once_more=self.memory is None,  # `memory` promises that each image is encoded once
        )

    def _stream(
        self, encoder: BatchEncoder, images: Images, n_rows: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Encode batch after batch; launch the next one before waiting for the current one."""
        launched = None
        for start in range(0, n_rows, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n_rows))
            output = encoder.launch(images.read(rows.start, rows.stop))
            if launched is not None:
                yield launched[0], encoder.collect(launched[1], self.batch_size)
            launched = rows, output
        assert launched is not None
        rows, output = launched
        yield rows, encoder.collect(output, rows.stop - rows.start)

    def _stream_stored(
        self, encoder: BatchEncoder, images: Images, n_rows: int, digest: bytes | None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield rows from the store; encode and store the others in full batches."""
        assert self.memory is not None
        if self.encoder_id is not None:
            digest = None  # the name replaces it
        elif digest is None:
            digest = encoder.freeze()
        token = self._fingerprint(digest)
        waiting: dict[bytes, list[int]] = {}  # rows by key; several rows if X repeats an image
        samples: dict[bytes, np.ndarray] = {}
        with FeatureStore(self.memory) as store:
            for start in range(0, n_rows, self.batch_size):
                batch = images.read(start, min(start + self.batch_size, n_rows))
                keys = store.keys(token, batch)
                found = store.get(keys)
                hits = {row: found[key] for row, key in enumerate(keys, start) if key in found}
                if hits:
                    yield list(hits), self._stack(encoder, hits.values())
                for row, key in enumerate(keys, start):
                    if key not in found:
                        waiting.setdefault(key, []).append(row)
                        if key not in samples:
                            samples[key] = batch[
                                row - start
                            ].copy()  # a view would keep the batch in memory
                while len(samples) >= self.batch_size or (samples and start + len(batch) == n_rows):
                    some = list(samples)[: self.batch_size]
                    made = self._encode_and_keep(encoder, store, some, samples)
                    rows = {row: made[key] for key in some for row in waiting.pop(key)}
                    yield list(rows), self._stack(encoder, rows.values())
        if encoder.n_batches and digest is not None and self._has_changed(digest):
            warnings.warn(
                "encoder was changed while it ran. These features, also those now in memory, are "
                "of the encoder as it was at first. A call with the changed encoder does not find "
                "them. Pass encoder_id to name them yourself.",
                UserWarning,
            )

    def _encode_and_keep(
        self,
        encoder: BatchEncoder,
        store: FeatureStore,
        keys: list[bytes],
        samples: dict[bytes, np.ndarray],
    ) -> dict[bytes, np.ndarray]:
        """Encode and store one batch; remove the samples of these keys from `samples`."""
        batch = [samples.pop(key) for key in keys]

        def encode(missing: list[int]) -> np.ndarray:
            output = encoder.launch(np.stack([batch[position] for position in missing]))
            return encoder.collect(output, len(missing))

        try:
            return store.get_or_encode(keys, encode)
        except Exception as error:
            error.add_note(
                f"Features encoded before this batch are kept in memory={str(self.memory)!r};"
                " the next call goes on from there."
            )
            raise

    def _stack(self, encoder: BatchEncoder, features: Iterable[np.ndarray]) -> np.ndarray:
        """Stack rows, and check their widths: the store does not compare its rows."""
        features = list(features)
        for row in features:
            encoder.check_width(len(row), f"memory={str(self.memory)!r} holds")
        return np.stack(features)

    def _check_known(self, kind: str) -> None:
        """Refuse an encoder or preprocess without a complete key, before anything runs."""
        named = (
            "Pass encoder_id='a name of your own' for encoder and preprocess together, and "
            "another name whenever one of them changes."
        )
        reason = f"encoder is a {type(self.encoder).__qualname__}" if kind == "callable" else ""
        if kind == "module":
            try:
                check_module(self.encoder)  # type: ignore[arg-type]
            except UnknownEncoder as error:
                reason = str(error)
        if reason:
            raise ValueError(
                f"memory={str(self.memory)!r} identifies features by the contents of the encoder, "
                "an ONNX file or a module that consists of torch's own layers; but "
                f"{reason}. {named}"
            )
        if self.preprocess is not None and not (
            type(self.preprocess) is Normalize
            and is_as_written(Normalize, "__call__", Normalize.__call__)
        ):
            function = getattr(self.preprocess, "__qualname__", type(self.preprocess).__qualname__)
            raise ValueError(
                f"memory={str(self.memory)!r} identifies features by the code that computed them, "
                f"but cannot know all that preprocess={function} depends on. {named} "
                "preprocess=None or Normalize(mean, std) does not require encoder_id."
            )

    def _has_changed(self, digest: bytes) -> bool:
        if not isinstance(self.encoder, torch.nn.Module):
            return False
        try:
            return module_digest(self.encoder) != digest
        except UnknownEncoder:
            return True

    def _fingerprint(self, digest: bytes | None) -> bytes:
        """Fingerprint everything but the sample that decides a row of features."""
        amp_dtype = None
        if self.amp:
            encoder: Any = self.encoder
            amp_dtype = torch.get_autocast_dtype(module_device(encoder, self.device).type)
        preprocess: Any = self.preprocess
        known = type(preprocess) is Normalize
        settings = {
            "layer": self.layer,
            "pooling": self.pooling,
            "amp_dtype": amp_dtype,
            "normalize": (preprocess.mean, preprocess.std) if known else None,
        }
        if digest is None:
            return fingerprint(encoder_id=self.encoder_id, **settings)
        return fingerprint(encoder=digest, **settings)


def _wants_integers(encoder: Any) -> bool:
    kinds = torch.nn.Embedding, torch.nn.EmbeddingBag
    return isinstance(encoder, torch.nn.Module) and any(
        isinstance(m, kinds) for m in encoder.modules()
    )
