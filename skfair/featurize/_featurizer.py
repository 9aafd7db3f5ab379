"""FrozenEncoderFeaturizer: the stage before all methods, from images to frozen features."""

import contextlib
import copy
import functools
import os
import warnings
from collections.abc import Callable, Generator, Iterable
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
from skfair._images._files import UnreadableImageError
from skfair._images._input import validate_images
from skfair._images._items import Items
from skfair._images._view import Images
from skfair.base._fresh_fit import FreshFit
from skfair.base._net import noise
from skfair.base._networks import check_initialised
from skfair.base._notebook import NotebookView
from skfair.base._portable import PortableState
from skfair.base._saved import SavedState
from skfair.featurize._encoders import BatchEncoder, encoder_kind
from skfair.featurize._known import check_known, has_changed, token_of
from skfair.featurize._module_run import module_of
from skfair.featurize._onnx_model import OnnxModel
from skfair.featurize._partitions import (
    PlacelessEncoder,
    encode_lazily,
    first_images,
    is_lazy,
)
from skfair.featurize._remembered import remembered_digest
from skfair.featurize._sharded_store import ShardedStore
from skfair.featurize._store import FeatureStore
from skfair.utils._progress import progress_bar
from skfair.utils._rows import check_rows
from skfair.utils._typed import fit_context

_ITEMS_IN_FIT = 8


class FrozenEncoderFeaturizer(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    NotebookView,
    SavedState,
    PortableState,
    FreshFit,
    BaseEstimator,
):
    """Turn images, or items of any kind, into the features of a frozen encoder.

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

        - A torch module, or a method bound to one, such as ``model.encode_image``. It gets a
          tensor of shape (batch, channels, height, width) on `device`: float32, or the floating
          dtype of its weights. A mapping from `preprocess` becomes its keyword arguments.
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
        would use the wrong axes, see Notes. Each row must depend on its image alone. Of several
        outputs with names, as models of transformers return them, one is used, see Notes.
    layer : str, default=None
        Name of the submodule whose output is used instead, one of
        ``dict(encoder.named_modules())``; or the name of one of several outputs of a module or
        an ONNX file, such as ``"pooler_output"``.
    pooling : {"mean", "max", "cls", "flatten"}, default="mean"
        How outputs of three or four dimensions become rows: mean or maximum over all tokens or
        positions, the first token (three dimensions only), or everything in one long row.
        An output of two dimensions stays unchanged.
    preprocess : callable, default=None
        Takes a batch of images, channels first and with the dtype of `X`, and returns the
        input of the encoder. For a torch module the batch is a tensor on `device`, otherwise an
        array. An image processor of transformers gets a list of arrays. A ``Compose`` of
        torchvision that begins with Pillow images, as those of timm and open_clip, gets one image
        after the other. With `data_format` "items" it gets the list of items, for instance a
        tokenizer. It must be deterministic. Most encoders need :class:`Normalize`. None
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
    data_format : {"auto", "channels_first", "channels_last", "items"}, default="auto"
        "items" says that `X` is a sequence of texts, or of anything else that is not an image; the
        encoder gets lists of items. The others are the position of the channel axis in image
        arrays, and in rows that `image_shape` reshapes.
        "auto" takes the first or last axis, whichever has 1, 3 or 4 entries, and raises if both
        have; rows are channels first.
    batch_size : int or "auto", default="auto"
        Number of images in a batch. "auto" is 64, but for a torch module with convolutions on the
        CPU a smaller number, which is faster there: about 200,000 pixels (4 images of 224 x 224),
        and at least 2 images and one for each of torch's threads.
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
    n_jobs : int or None, default=None
        Threads that read and decode image files, bytes and Pillow images while the encoder runs
        on earlier ones, as in joblib. The features do not depend on it. See Notes.
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
        None for items.
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
      channels), uint8 or floating, or of grey images, (n, height, width); arrays of zarr and h5py
      are read batch by batch;
    - rows, shape (n, n_features), of any numbers;
    - a sequence of image files (Pillow reads them, extra ``images``), of Pillow images or of
      arrays of one image: a list, a column of any package, a frame of one column, or anything
      with a length and an index. In place of a file, an item may be its bytes, a record of
      "bytes" and "path", or an address that fsspec opens ("s3://bucket/a.png"). Files and
      Pillow images are turned as their EXIF data say. The heads
      of all files are read first, except at addresses: an error names files that are not images,
      or differing sizes without `image_shape`, before any work;
    - a Hugging Face dataset with one column of images, or such a column, ``dataset["image"]``;
    - the path of a folder: the image files directly in it, sorted by name as text ("10.png"
      is before "9.png"), without hidden ones. Features are in this order;
    - a map-style :class:`torch.utils.data.Dataset` of these, or of tuples that start with one;
    - a dask array of images, in chunks along the first axis, or a dask bag of image files (extra
      ``dask``). `fit` reads the first image, and `transform` returns a dask array, lazily. Its bits
      do not depend on partitions and workers. `memory` is then a folder that all workers see.

    With `data_format` "items", `X` is a list, a column, an array or a map-style Dataset of any
    items, or a table, whose rows become dicts. Items go to `preprocess`, or to the encoder, as they
    are: a callable or a method gets a list. With `memory`, items consist of None, bool, numbers,
    str, bytes, dates, arrays, tensors and Pillow images of one frame, alone or in lists,
    tuples and dicts: the key contains their types and values. For a path in a string it is the
    string, not the file.

    Of outputs with names (a mapping) the featurizer takes, without `layer`, the one that ends in
    "_embeds", else "sentence_embedding", else "last_hidden_state", else the only one of two or more
    dimensions; otherwise it raises. It does not take "pooler_output", since many checkpoints leave
    the weights of this layer at random values, except from a method such as
    ``get_image_features``. If the input has an "attention_mask" for the tokens of the output,
    `pooling` leaves out the tokens that only fill up shorter texts.

    `n_jobs` threads decode files, bytes and Pillow images. The calling thread fetches the items of
    `X`, in their order, since the code of a dataset may not bear several threads. So `n_jobs` does
    not help a ``Dataset`` that decodes by itself; give its files. At most two blocks of eight
    images a thread, and two batches, are in memory. An error names the same image as without
    threads. Chunks that a zarr array does not have are zeros, as zarr defines them.

    `fit` learns only the shape and dtype of the data, and the number of features from the first
    sample.

    `fit` checks the first batch for errors that would silently spoil all features. It refuses maps
    whose features come last, as in Swin transformers, or may come last. It refuses an encoder that
    returns other features for the first image in a batch than alone, or in a second run. For these
    checks a module or an ONNX file runs on three to eight more samples, and on one of twice the
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

    Without `encoder_id`, all rows of a call belong to one state of the encoder: a call reads or
    copies the contents once, for keys and rows, and later changes do not affect this call. `fit`
    and `fit_transform` read the contents at their start. So does `transform`, except for a module
    on the CPU whose contents were read before in this process and show no change since then. Then
    `transform` reads them at the first row that is missing in the file; if they differ, it starts
    again with the new contents.

    Changes that show are those of layers, of attributes, of tensors that are contiguous in up to
    16 KiB of memory, and all writes to larger tensors that torch counts, such as those of
    ``load_state_dict``. For example, torch does not count writes through ``Tensor.data`` or NumPy
    arrays, to the vector that ``vector_to_parameters`` got, or of fused optimizers. Such a write to
    a larger tensor shows only if it changes one of 128 values of the tensor, at 8 places with equal
    distances. Code of torch that is replaced after the reading does not show either. After a change
    that does not show, `transform` returns the rows of the encoder before the change if all of them
    are in the file. So call `fit` after such a change. The file never gets a row under the key of
    another state.

    Each row is verified by a checksum when it is read. Several processes can share the file; they
    encode in turn, so that no image is encoded twice. If a process is killed or the encoder raises,
    only the current batch is lost, and the next call goes on from there. The file must be on a
    local disk, and must not be a link.

    A torch module with convolutions in single precision or bfloat16 gets batches on the CPU that
    are channels last in memory: the shape stays (batch, channels, height, width), and the strides
    change. Convolutions are faster in this layout. A module that fails on it, for instance in
    ``x.view(len(x), -1)``, gets contiguous batches instead, and `fit` remembers this. `fit` refuses
    a module that returns other features in this layout.

    The last bits of a row can depend on its batch, its layout in memory and the number of torch's
    threads, as everywhere in torch. `memory` keeps the bits of the first run; its keys do not
    contain `batch_size` or the layout.

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
        "data_format": [StrOptions({"auto", "channels_first", "channels_last", "items"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str, torch.device],
        "amp": ["boolean"],
        "memory": [str, os.PathLike, None],
        "encoder_id": [str, None],
        "n_jobs": [Integral, None],
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
        batch_size: int | str = "auto",
        device: str | torch.device = "auto",
        amp: bool = False,
        memory: str | os.PathLike | None = None,
        encoder_id: str | None = None,
        n_jobs: int | None = None,
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
        self.n_jobs = n_jobs
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
        images, _ = self._open(first_images(X) if is_lazy(X) else X, reset=True)
        # More items of a module, since the checks cannot make up others, as they do with images.
        several = self.data_format == "items" and module_of(self.encoder) is not None
        n_rows = min(images.n_samples, _ITEMS_IN_FIT) if several else 1
        self.n_features_out_ = self._encode(images, n_rows).shape[1]
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
        if is_lazy(X):
            return self.fit(X, y).transform(X)
        check_rows(X=X, y=y)
        images, _ = self._open(X, reset=True)
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
            The features; `out` if it was given. For a dask collection, a dask array.

        Raises
        ------
        ValueError, TypeError
            As in `fit`; `out` has a wrong shape or dtype, or is read-only; or `encoder` is the path
            of another model than in `fit`. For a dask collection also: `memory` is a file, `out`
            is given, or ``set_output`` asks for frames.
        """
        check_is_fitted(self)
        if is_lazy(X):
            return encode_lazily(self, X, out)
        images, digest = self._open(X, reset=False)
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
        return self._encode(images, images.n_samples, out, digest)

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    def _fit_summary(self) -> str:
        shape = "rows" if self.image_shape_ is None else f"images of shape {self.image_shape_}"
        inputs = "items" if self.input_dtype_ is None else f"{self.input_dtype_} {shape}"
        encoder: Any = self.encoder  # the one that `transform` runs
        name = getattr(encoder, "__name__", type(encoder).__name__)
        if isinstance(encoder, str | os.PathLike | OnnxModel):
            name = "an ONNX file"
        return f"{self.n_features_out_} features of {name} from {inputs}"

    def _outputs_of_noise(
        self, rng: np.random.Generator, *, quick: bool = False
    ) -> np.ndarray | None:
        if not isinstance(self.encoder, torch.nn.Module) or self.input_dtype_ is None:
            return None  # a run of another encoder may cost money; items cannot be made up
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

    def _open(self, X: Any, *, reset: bool) -> tuple[Images | Items, bytes | None]:
        """Check parameters that depend on each other, and X against what `fit` saw.

        Returns
        -------
        tuple of (Images or Items) and (bytes or None)
            The samples, and the digest of the encoder if its contents do not have to be read.
        """
        by_contents = self.memory is not None and self.encoder_id is None
        digest = None
        module = module_of(self.encoder)
        if module is not None:
            if by_contents and not reset:
                digest = remembered_digest(module)
            if digest is None:
                check_initialised(module, "encoder")
        kind = encoder_kind(self.encoder, layer=self.layer, amp=self.amp)
        if (
            reset
            and isinstance(self.encoder, str | os.PathLike)
            and not os.path.exists(self.encoder)
        ):
            raise FileNotFoundError(
                f"encoder={os.fspath(self.encoder)!r} does not exist. Check the path."
            )
        if by_contents:
            self._check_known(kind, read=digest is None)
        if self.data_format == "items":
            return self._open_items(X, reset=reset), digest
        try:
            return validate_images(self, X, reset=reset), digest
        except UnreadableImageError as error:
            if not isinstance(X, (str, os.PathLike)):
                error.add_note("For texts and other items give data_format='items'.")
            raise

    def _open_items(self, X: Any, *, reset: bool) -> Items:
        if isinstance(self.encoder, str | os.PathLike | OnnxModel):
            raise ValueError(
                "data_format='items' needs an encoder that takes a list: a callable, or a module "
                "with preprocess. An ONNX file takes arrays."
            )
        if self.image_shape is not None:
            raise ValueError(
                f"image_shape={self.image_shape} has no meaning with data_format='items', which "
                "passes items on without any change. Pass image_shape=None."
            )
        items = Items(X)
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)  # an earlier fit on rows set them
            self.image_shape_: Any = None
            self.input_dtype_: Any = None
        return items

    def _encode(
        self,
        images: Images | Items,
        n_rows: int,
        out: np.ndarray | None = None,
        remembered: bytes | None = None,
    ) -> np.ndarray:
        """Encode the first rows, into `out` if it is given."""
        in_fit = not hasattr(self, "n_features_out_")
        width = None if in_fit else self.n_features_out_
        encoder = self._encoder(device=self.device, width=width, shape=images.shape)
        digest = None
        if isinstance(self.encoder, str | os.PathLike | OnnxModel):
            fitted = None if in_fit else getattr(self, "_onnx_digest", None)
            digest = encoder.freeze(fitted)
        if in_fit:
            for name in ("_onnx_digest", "_failed_channels_last"):
                self.__dict__.pop(name, None)
            if digest is not None:
                self._onnx_digest = digest.decode()
        blocks: Generator[tuple[slice | list[int], np.ndarray]]
        if self.memory is None:
            blocks = self._stream(encoder, images, n_rows)
        else:
            blocks = self._stream_stored(encoder, images, n_rows, digest, remembered)
        show = bool(self.verbose)
        unit = "item" if self.data_format == "items" else "image"
        bar = progress_bar("encode", total=n_rows, unit=unit, show=show)
        with bar as progress, contextlib.closing(blocks):
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
        if in_fit and encoder.failed_channels_last:
            self._failed_channels_last = True  # so that no later call tries
        return out

    def _encoder(
        self,
        *,
        device: str | torch.device,
        width: int | None = None,
        shape: tuple[int, ...] = (),
    ) -> BatchEncoder:
        known = vars(self).get("_in_partitions")  # on the workers of dask
        made = (
            BatchEncoder
            if known is None
            else functools.partial(PlacelessEncoder, dtype=self.input_dtype_, known=known)
        )
        return made(
            self.encoder,
            layer=self.layer,
            pooling=self.pooling,
            preprocess=self.preprocess,
            device=device,
            amp=self.amp,
            width=width,
            batch_size=self.batch_size,
            shape=shape,
            once_more=self.memory is None,  # `memory` promises that each image is encoded once
            channels_last=not getattr(self, "_failed_channels_last", False),
        )

    def _stream(
        self, encoder: BatchEncoder, images: Images | Items, n_rows: int
    ) -> Generator[tuple[slice, np.ndarray]]:
        """Encode batch after batch; launch the next one before waiting for the current one."""
        launched = None
        with contextlib.closing(images.batches(n_rows, encoder.batch_size, self.n_jobs)) as batches:
            for start, batch in batches:
                rows = slice(start, start + len(batch))
                output = encoder.launch(batch)
                if launched is not None:
                    yield launched[0], encoder.collect(launched[1], encoder.batch_size)
                launched = rows, output
        assert launched is not None
        rows, output = launched
        yield rows, encoder.collect(output, rows.stop - rows.start)

    def _stream_stored(
        self,
        encoder: BatchEncoder,
        images: Images | Items,
        n_rows: int,
        digest: bytes | None,
        remembered: bytes | None = None,
    ) -> Generator[tuple[list[int], np.ndarray]]:
        """Yield rows from the store; encode and store the others in full batches."""
        assert self.memory is not None
        if self.encoder_id is not None:
            digest = None  # the name replaces it
        elif digest is None:
            digest = encoder.freeze() if remembered is None else remembered
        token = token_of(self, digest)
        waiting: dict[bytes, list[int]] = {}  # rows by key; several rows if X repeats an image
        samples: dict[bytes, Any] = {}
        n_read = 64 if isinstance(self.batch_size, str) else self.batch_size
        opened = ShardedStore if "_in_partitions" in vars(self) else FeatureStore
        with (
            opened(self.memory) as store,
            contextlib.closing(images.batches(n_rows, n_read, self.n_jobs)) as batches,
        ):
            for start, batch in batches:
                keys = store.keys(token, batch, start)
                found = store.get(keys)
                if remembered is not None and len(found) < len(set(keys)):
                    self._check_known("module", read=True)
                    before, digest, remembered = digest, encoder.freeze(), None
                    if digest != before:  # a change that nothing showed: begin again
                        batches.close()
                        yield from self._stream_stored(encoder, images, n_rows, digest)
                        return
                hits = {row: found[key] for row, key in enumerate(keys, start) if key in found}
                if hits:
                    yield list(hits), self._stack(encoder, hits.values())
                for row, key in enumerate(keys, start):
                    if key not in found:
                        waiting.setdefault(key, []).append(row)
                        if key not in samples:
                            # A view would keep the batch in memory.
                            samples[key] = copy.copy(batch[row - start])
                read_all = start + len(batch) == n_rows
                while samples and (read_all or len(samples) >= encoder.batch_size):
                    some = list(samples)[: encoder.batch_size]
                    made = self._encode_and_keep(encoder, store, some, samples)
                    rows = {row: made[key] for key in some for row in waiting.pop(key)}
                    yield list(rows), self._stack(encoder, rows.values())
        if encoder.n_batches and digest is not None and has_changed(self.encoder, digest):
            warnings.warn(
                "encoder was changed while it ran. These features, also those now in memory, are "
                "of the encoder as it was at first. A call with the changed encoder does not find "
                "them. Pass encoder_id to name them yourself.",
                UserWarning,
            )

    def _encode_and_keep(
        self,
        encoder: BatchEncoder,
        store: FeatureStore | ShardedStore,
        keys: list[bytes],
        samples: dict[bytes, Any],
    ) -> dict[bytes, np.ndarray]:
        """Encode and store one batch; remove the samples of these keys from `samples`."""
        batch = [samples.pop(key) for key in keys]

        def encode(missing: list[int]) -> np.ndarray:
            some = [batch[position] for position in missing]
            output = encoder.launch(some if self.data_format == "items" else np.stack(some))
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

    def _check_known(self, kind: str, *, read: bool) -> None:
        check_known(self.encoder, self.preprocess, kind, self.memory, read=read)


def _wants_integers(encoder: Any) -> bool:
    kinds = torch.nn.Embedding, torch.nn.EmbeddingBag
    module = module_of(encoder)
    return module is not None and any(isinstance(part, kinds) for part in module.modules())
