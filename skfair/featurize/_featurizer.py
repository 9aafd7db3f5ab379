"""FrozenEncoderFeaturizer: the stage before all methods, from images to fixed features."""

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
from skfair.base._portable import PortableState
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
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, PortableState, FreshFit, BaseEstimator
):
    """Turn images into the features of an encoder that is used as it is.

    The encoder is run in eval mode, without gradients and batch by batch, so that memory is
    bounded by the batch and not by the data. It is never changed: a torch module keeps its
    weights, buffers, device, training flags and hooks.

    With ``memory`` each image is encoded once, in whatever order, split or process it comes
    again: features are kept in a file, under the contents of the image and of the encoder, or a
    name that you give the encoder.

    Parameters
    ----------
    encoder : torch.nn.Module, path-like or callable
        What makes the features.

        - A torch module. It gets a tensor of shape (batch, channels, height, width) on `device`:
          float32, or of the floating type of its weights.
        - The path of an ``.onnx`` file, run by onnxruntime (extra ``onnx``). Its one input gets
          the same as an array; its first output is taken. It is read when a call begins, unless
          it is unchanged, and with it the files of its folder in which it keeps weights; no
          other file is opened. A pickle of the estimator holds the path and not the weights, but
          their SHA-256: a fitted estimator raises where the path leads to another model than in
          `fit`. In a model that ``skfair.load`` made the contents of the file stand for it.
        - A callable, for instance the client of an embedding service. It gets the batch as a
          NumPy array and returns an array-like with one row an image, in the same order.

        The output is floating, of shape (batch, n_features), (batch, tokens, n_features) or
        (batch, n_features, height, width). What is pooled over other axes is refused where the
        shape shows it, see Notes; and a row has to be of its image alone.
    layer : str, default=None
        Name of the submodule whose output is taken instead, one of
        ``dict(encoder.named_modules())``; for an ONNX file, the name of one of its outputs.
    pooling : {"mean", "max", "cls", "flatten"}, default="mean"
        How outputs of three or four dimensions become rows: mean or maximum over all tokens or
        positions, the first token (three dimensions only), or everything in one long row.
        An output of two dimensions is left alone.
    preprocess : callable, default=None
        Takes a batch of images, channels first and of the type that `X` has, and returns
        what the encoder gets. For a torch module the batch is a tensor on `device`, otherwise an
        array. It has to be deterministic. :class:`Normalize` is what most encoders need. None
        turns uint8 values 0 to 255 into float32 numbers 0 to 1 and leaves floats alone.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows of `X` are reshaped to it, image files are resized to it
        (bilinear) and converted to its number of channels (1, 3 or 4), arrays must have it. One
        entry may be -1 for rows. With None, rows go to the encoder as they are, and files, as
        RGB, must all be of one size.
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`. "stretch" changes height and
        width each by themselves. The others keep the ratio of the sides: "pad" shows all of the
        image, in the middle, and repeats its border; "crop" fills the size, and cuts off what is
        beyond it on both sides.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Where the channels of image arrays, and of the rows that `image_shape` reshapes, are.
        "auto" finds the end of the image that has 1, 3 or 4 entries, and raises where both ends
        have; rows are channels first.
    batch_size : int, default=64
        Number of images that are encoded at once.
    device : str or torch.device, default="auto"
        Device of a torch module; "auto" is the one where it is if that is an accelerator, or the
        first accelerator of the machine. An ONNX file runs on CUDA or the CPU. A callable
        chooses its own.
    amp : bool, default=False
        Whether a torch module runs under automatic mixed precision: bfloat16 on the CPU, torch's
        default for the device elsewhere.
    memory : path-like, default=None
        File (SQLite) in which features are kept; made when it is not there. Of a directory, as
        scikit-learn's ``Pipeline(memory=)`` takes, the file ``features.sqlite`` in it. See Notes.
    encoder_id : str, default=None
        Your name for `encoder` and `preprocess` together, used in `memory` in place of their
        contents. Needed where these do not say what is computed: for callables, for modules with
        code that is not torch's own, and for a `preprocess` other than :class:`Normalize`.
        Another encoder or preprocessing needs another name: whoever uses a name again gets the
        rows that were kept under it. It also saves reading all weights at each call.
    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features.
    image_shape_ : tuple of three int or None
        (channels, height, width) of the images seen in `fit`; None for rows that went to the
        encoder as they are.
    input_dtype_ : numpy.dtype
        ``uint8`` or ``float32`` (any other numbers), the scale of the values seen in `fit`.
    n_features_in_ : int
        Number of columns of `X`, where `X` was made of rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of these columns, where they had names.

    See Also
    --------
    sklearn.frozen.FrozenEstimator : The same promise for a fitted estimator.

    Notes
    -----
    `X` is, in all methods, one of

    - an array, memory map or tensor of shape (n, channels, height, width) or (n, height, width,
      channels), uint8 or floating, or of grey images, (n, height, width);
    - rows, shape (n, n_features), of any numbers;
    - a sequence of image files (Pillow reads them, extra ``images``), of Pillow images or of
      arrays of one image: a list, a column of any package, a frame of one column, or anything
      with a length and an index. Files and Pillow images are turned as their EXIF data say. The
      heads of all files are read first: those that are no images, or of several sizes without
      `image_shape`, are named before any work;
    - the path of a folder: the image files directly in it, sorted by name as text ("10.png"
      is before "9.png"), without hidden ones. Features are in this order;
    - a map-style :class:`torch.utils.data.Dataset` of these, or of tuples that start with one.

    `fit` learns nothing from the data but their shape and type, and the number of features from
    the first sample.

    The first batch of a `fit` is asked for what would make all features wrong, and nobody would
    see. Maps of which the features come last, as Swin transformers make them, or may come last,
    are refused. So is an encoder that gives the first image other features in a batch than alone,
    or at another time. For that a module or an ONNX file is run on three or four samples more,
    and, where the shape leaves it open which axes are positions, on one of twice the size. A
    callable may cost money: it gets the first image once more in a `fit_transform` without
    `memory`, and is not asked otherwise.

    A row is kept under the pixels of its image as `preprocess` gets them: of a file, decoded,
    turned as its EXIF data say, and resized. Without `encoder_id`, it is kept under all else that
    decides it, too. Of an ONNX file that is the
    content, with that of the files which hold its weights; of a torch module its weights, buffers
    and attributes, its layers in their order, the versions of torch and skfair and torch's
    default dtype; besides, `layer`, `pooling`, the type of `amp` and the numbers of
    :class:`Normalize`. This is complete where the code is known. So a module has to consist of
    layers of :mod:`torch.nn`, or be a :class:`~skfair.datasets.DigitsEncoder`, as they were
    written: no classes of other packages or of your own, no forward hooks, parametrizations or
    methods that were replaced. For all else `encoder_id` is asked for, before anything runs.
    Settings by which torch trades digits for speed, such as TF32, and the device are not part of
    it.

    Contents are read, or copied, once when a call begins, for the keys and for the rows: what
    changes meanwhile is not seen by that call. Rows are checked when they are read. Several
    processes can share the file; they encode in turn, so that none repeats what another is doing.
    A killed process loses the batch that it was at, an encoder that raises loses the same, and
    the next call goes on from there. The file has to be on a local disk, and no link.

    The last bits of a row can depend on the batch in which it was encoded, as everywhere in
    torch; with `memory` it keeps those that it got first.

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

    # `out` is where to write, not data about the samples.
    __metadata_request__transform = {"out": UNUSED}

    _travels_on_the_cpu = False  # device="auto" leaves an encoder on the accelerator where it is

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
        """Learn the shape and type of the images, and encode the first for the number of features.

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
            A parameter, the images, the encoder's output or the file of `memory` is not as
            described; the message says which and how to put it right.
        """
        check_rows(X=X, y=y)
        images = self._open(X, reset=True)
        self.n_features_out_ = self._encode(images, 1).shape[1]
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and encode, each image once.

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
            Where to write the features, for more of them than fit in memory. Rows are written
            batch by batch.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out_) and type float32
            The features; `out` where it was given.

        Raises
        ------
        ValueError, TypeError
            As in `fit`; `out` has another shape or type, or cannot be written to; `encoder` is
            the path of another model than in `fit`.
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
            raise ValueError(f"out is {came}; wanted a NumPy array of shape {shape}, float32.")
        if out is not None and not out.flags.writeable:
            raise ValueError("out cannot be written to. Open the memory map with mode='r+'.")
        return self._encode(images, images.n_samples, out)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def _outputs_of_noise(self, rng: np.random.Generator) -> np.ndarray | None:
        if not isinstance(self.encoder, torch.nn.Module):
            return None  # others may cost money to run
        samples = noise(rng.random, self.image_shape_ or (self.n_features_in_,))
        if samples is None:
            return None
        if self.input_dtype_ == np.uint8:
            samples = (255 * samples).astype(np.uint8)
        encoder = self._encoder(device="cpu", width=self.n_features_out_)
        return encoder.collect(encoder.launch(samples), len(samples))

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        fitted = state.pop("_onnx_digest", None)
        if fitted is not None:  # the content goes along
            self._encoder(device="cpu").freeze(fitted)
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.encoder, OnnxModel):
            self._onnx_digest = self.encoder.digest

    def __sklearn_clone__(self) -> "FrozenEncoderFeaturizer":
        # By reference: nothing changes an encoder, a copy of it would cost its size in memory
        # for each candidate of a search, and a client that holds a connection has no copy.
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
        """Check the parameters that go together, and X against what `fit` saw."""
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
        """Encode the first rows, into `out` where it is given."""
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
            except RuntimeError as error:  # of torch, about the type
                if _wants_integers(self.encoder) and self.preprocess is None:
                    error.add_note(
                        "The encoder gets floating numbers, and its embeddings want integers: "
                        "give preprocess=torch.Tensor.long."
                    )
                raise
        assert out is not None  # there is an image at least
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
            once_more=self.memory is None,  # which promises that each image is encoded once
        )

    def _stream(
        self, encoder: BatchEncoder, images: Images, n_rows: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Encode batch after batch; an accelerator gets the next one before it is waited for."""
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
        """Take what the store has, and collect the rest into full batches to encode and keep."""
        assert self.memory is not None
        if self.encoder_id is not None:
            digest = None  # the name stands for it
        elif digest is None:
            digest = encoder.freeze()
        token = self._fingerprint(digest)
        waiting: dict[bytes, list[int]] = {}  # rows by key; more than one where X repeats itself
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
                            samples[key] = batch[row - start].copy()  # lets go of the batch
                while len(samples) >= self.batch_size or (samples and start + len(batch) == n_rows):
                    some = list(samples)[: self.batch_size]
                    made = self._encode_and_keep(encoder, store, some, samples)
                    rows = {row: made[key] for key in some for row in waiting.pop(key)}
                    yield list(rows), self._stack(encoder, rows.values())
        if encoder.n_batches and digest is not None and self._has_changed(digest):
            warnings.warn(
                "encoder was changed while it ran. These features, also those now in memory, are "
                "of the encoder as it was at first; as it is now they are not found again. Pass "
                "encoder_id to name them yourself.",
                UserWarning,
            )

    def _encode_and_keep(
        self,
        encoder: BatchEncoder,
        store: FeatureStore,
        keys: list[bytes],
        samples: dict[bytes, np.ndarray],
    ) -> dict[bytes, np.ndarray]:
        """Encode one batch through the store; takes the samples of these keys out of `samples`."""
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
        """Stack rows that come from the store; they were not checked against each other."""
        features = list(features)
        for row in features:
            encoder.check_width(len(row), f"memory={str(self.memory)!r} holds")
        return np.stack(features)

    def _check_known(self, kind: str) -> None:
        """Refuse what the store could only guess, before anything runs."""
        named = (
            "Pass encoder_id='a name of your own' for encoder and preprocess together, and "
            "another one whenever one of them changes."
        )
        reason = f"encoder is a {type(self.encoder).__qualname__}" if kind == "callable" else ""
        if kind == "module":
            try:
                check_module(self.encoder)  # type: ignore[arg-type]
            except UnknownEncoder as error:
                reason = str(error)
        if reason:
            raise ValueError(
                f"memory={str(self.memory)!r} finds features by what made them, which can be told "
                f"of ONNX files and of modules that consist of torch's own layers, and {reason}. "
                f"{named}"
            )
        if self.preprocess is not None and not (
            type(self.preprocess) is Normalize
            and is_as_written(Normalize, "__call__", Normalize.__call__)
        ):
            function = getattr(self.preprocess, "__qualname__", type(self.preprocess).__qualname__)
            raise ValueError(
                f"memory={str(self.memory)!r} finds features by what made them, and no one can "
                f"tell all that preprocess={function} depends on. {named} "
                "preprocess=Normalize(mean, std), or None, needs no name."
            )

    def _has_changed(self, digest: bytes) -> bool:
        if not isinstance(self.encoder, torch.nn.Module):
            return False
        try:
            return module_digest(self.encoder) != digest
        except UnknownEncoder:
            return True

    def _fingerprint(self, digest: bytes | None) -> bytes:
        """Identify in the store all that decides the features of a given sample."""
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
