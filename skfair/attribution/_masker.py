"""PatchAttributionMasker: where in images an attribute shows, and images without that part."""

import copy
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair._images._open import open_images
from skfair._images._view import Images
from skfair.attribution._attributes import Attributes
from skfair.attribution._attribution import PatchAttribution
from skfair.attribution._augmentation import PatchAugmentation
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._decisions import (
    donor_maps,
    likely_scopes,
    map_agreement,
    quantiles_of_levels,
    some_of_each,
    warn_of_leakage,
    worst_leakage,
)
from skfair.attribution._fill import FILLS
from skfair.attribution._leakage import Leakage
from skfair.attribution._perturbation import Perturbation, auto_margin, hidden_pixels
from skfair.attribution._statistics import check_fill
from skfair.base._net import as_tensor
from skfair.utils import draw_seed, import_optional, resolve_device
from skfair.utils._typed import available_if, fit_context

# With quantile="auto": how far up a map, from the middle of its values to the highest, pixels are
# hidden from, tried from the smallest area to the largest; which of them, where no network can
# tell; and what is tried beside them, as a map that is flat at the top has no small area.
_LEVELS, _SAFE_LEVEL = (0.9, 0.75, 0.5), 1
_SMALLEST = 0.95
_MOST_IMAGES = 2000  # on which leakage is measured


def _has_feature_names(masker: Any) -> bool:
    """Whether what is put out can be a table: until it is fitted, and where X is made of rows."""
    if hasattr(masker, "image_shape_") and not hasattr(masker, "n_features_in_"):
        raise AttributeError(
            "Images have no names of features, which only rows of pixels have. Ask the steps "
            "behind for their names, in a pipeline pipeline[i:].get_feature_names_out()."
        )
    return True


class PatchAttributionMasker(OneToOneFeatureMixin, TransformerMixin, PatchAttribution):
    """Find where in images an attribute shows, and hide it from what is trained on them.

    A classifier that gets one patch of an image learns to predict an attribute of the whole
    image: glasses, a watermark, a ruler beside a mole. Where it is sure that the attribute is
    there, there it is. These pixels are then hidden in the images that another model is trained
    on, or moved between images; at prediction nothing is changed and no attribute is needed. A
    network that tries to tell the attribute from what is left says whether it is hidden.

    Parameters
    ----------
    patch_size : int or "auto", default="auto"
        Height and width of the patches, in pixels. They have to be large enough that the
        attribute can be told from one. "auto" is a quarter of the shorter side up to 64 pixels, 16
        up to 192, and twice as much for each doubling from there: 32 at 224.
    stride : int or "auto", default="auto"
        Pixels from one patch to the next; "auto" is an eighth of the patch. Where the last patch
        would reach beyond the image, the last row and column of the image are repeated.
    region_classifier : {"dense", "resnet18"} or torch.nn.Module, default="dense"
        The network on patches.

        - "dense": unpadded convolutions that see exactly one patch, so that one pass over the
          image gives the result for all of them. The position enters after the convolutions.
        - "resnet18": the published network, a ResNet-18 with the position as one more channel of
          the patch. It runs patch by patch, which takes hundreds of times longer.
        - A module of your own, of which a copy is trained. ``forward(patches, positions)`` gets
          standardised patches, float32 of shape (n, n_channels, patch_size, patch_size), and the
          number of their position, int64 of shape (n,), counted row by row from the upper left
          corner. It returns logits of shape (n, n_classes). It runs patch by patch.
    position_embedding : bool, default=True
        Whether the networks of skfair are told the position of the patch. If they are, all
        images must have the size of those in `fit`.
    pos_label : bool, number or str, default=None
        Of an attribute with two values the one that means "it is here". If None, it is the one
        that patches tell better, or ``classes_[1]`` where they tell both.
    confidence : {"probability", "negative_entropy", "top", "margin"}, default="probability"
        What the maps show: the probability that the attribute is there (of more than two values,
        how much the likeliest is above guessing); or how sure the classifier is, of any value,
        as published: the negative entropy of the predicted probabilities, the highest of them,
        or how much it is above the second.
    scope : {"auto", "general", "specific"}, default="auto"
        Which map is used to hide pixels: one for all images, which have to be aligned (the mean
        over images that `fit` held out), or that of each image. "auto" takes the general one
        if the attribute is at one place in nearly all images.
    perturbation : {"mask", "noise", "swap"}, default="mask"
        What happens to the pixels.

        - "mask": they get the colour `fill`.
        - "noise": normal noise is added.
        - "swap": they are filled, and every other image, whatever its class and attribute, gets
          the pixels of an image in which the attribute is found. The attribute then says nothing
          about the class, even where both coincided. For one attribute of two values, and for
          training only.
    quantile : float or "auto", default="auto"
        Share of the pixels that is kept, in (0, 1), before the margin is added: 0.9 hides the
        tenth with the highest values in the map, or a little less where pixels have equal values.
        "auto" takes the smallest area of four at which a network no longer tells the attribute: a
        twentieth of the pixels, or those above 0.9, 0.75 or 0.5 of the height of the map, from
        its median to its highest value; 0.75, where that cannot be measured.
    margin : int or "auto", default="auto"
        Pixels around these that are hidden too, in rows and columns. A map fades out towards the
        border of what it shows, and a network reads what is left there. "auto" is a quarter of
        `patch_size`, and half of `stride` at least.
    fill : {"mean", "blur", "inpaint"}, float or sequence of float, default="mean"
        What hidden pixels get: a colour, one number or one a channel, in the units of the images;
        "mean", the mean of each channel over the images of `fit`; "blur", what is visible around
        them, ever smoother towards the middle; "inpaint", the biharmonic continuation by
        scikit-image (extra ``inpaint``), which takes up to seconds an image.
    noise_std : float, default=2.0
        Standard deviation of the noise, in units of the standard deviation of each channel over
        the images of `fit`.
    perturb_at_predict : bool, default=False
        Whether `transform` perturbs new images too. Only `fit_transform` does by default.
    data_range : "auto" or (float, float), default="auto"
        Lowest and highest value that images can have. Noise does not leave this range. "auto" is
        0 to 255 for uint8 images, and else the range of the images of `fit`.
    combine_attributes : bool, default=True
        What several columns of `sensitive_features` mean: one attribute, of which each
        combination of values is a class, or attributes with a map each. Of the latter, pixels
        are hidden that any of the maps hides.
    check_leakage : bool, default=True
        Whether `fit` measures if networks still tell the attribute from the perturbed images,
        which takes about half of its time.
    calibration : {"temperature"} or None, default=None
        Whether to divide the logits by a temperature fitted on the images that are held out.
    validation_fraction : float, default=0.2
        Share of the images of `fit`, in (0, 1), that is held out of training, to measure the
        region classifier on. Of values with few images more is held out: 16 images, if these
        are not more than 40 %.
    label_smoothing : float, default=0.0
        Share of each label that is spread over all classes in training, in [0, 1). 0.1 as published
        makes probabilities too low.
    lr : float, default=1e-3
        Highest learning rate of AdamW: it rises over the first tenth of the training, then falls
        to zero.
    weight_decay : float, default=1e-2
        Decoupled weight decay.
    batch_size : int, default=8
        Images in a training batch; fewer if there would be less than ten batches.
    max_epochs : int, default=15
        Passes over the images. A dense network sees many patches of an image in each pass, any
        other one patch. The published ResNet-18 was trained for 90 epochs, with batches of 256.
    attribution_batch_size : int, default=8
        Images of which maps are made at once. It bounds the memory: a network that runs patch by
        patch gets as many patches as have the pixels of so many images. A processor is fastest
        with few, which fit into its caches; an accelerator wants more.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows of `X` are reshaped to it, image files are resized to it.
        One entry may be -1 for rows. Rows are channels first unless `data_format` says otherwise:
        of what was (n, height, width, channels) before, "channels_last" is right.
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`. "stretch" changes height and
        width each by themselves. The others keep the ratio of the sides: "pad" shows all of the
        image, in the middle, and repeats its border; "crop" fills the size, and cuts off what is
        beyond it on both sides.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Where the channels of image arrays, and of the rows that `image_shape` reshapes, are.
        "auto" finds the end of the image that has 1, 3 or 4 entries.
    device : str or torch.device, default="auto"
        Where to train and to make maps; "auto" takes the first of CUDA, MPS and CPU.
    random_state : int, RandomState instance or None, default=None
        Seeds the network, what is held out, the patches and the noise.
    verbose : int, default=0
        Whether to show progress bars.

    Attributes
    ----------
    mean_map_ : ndarray of shape (height, width), float32
        The general map, from 0 to 1: Algorithm 1 of the mean confidence, in the `confidence` of
        `fit`, over images that `fit` held out: for "probability" those that have the value, else
        all. With ``combine_attributes=False`` and several columns, (n_attributes, height, width).
    classes_ : ndarray or list of ndarray
        Values of the attribute, tuples if several columns are combined; a list of arrays, one
        a column, if they are not.
    attribute_names_ : tuple of str
        Names of the columns that have a map each; ``("sensitive_features",)`` if there is one map.
    region_accuracy_ : ndarray of shape (n_rows, n_cols), float64
        Accuracy of the region classifier at each position, on held-out images, weighted so that
        all classes count the same; (n_attributes, n_rows, n_cols) as in `mean_map_`. The largest
        of many is too good.
    informative_ : bool
        Whether patches tell each attribute better than guessing: by the surest patch of each
        held-out image or by the mean over its patches, in a rank test at a level of five percent;
        if not, `fit` warns.
    attribute_auc_ : float
        Area under the ROC curve of :meth:`attribute_score` on the held-out images; of more than
        two values the mean over the values, each against the others; the lowest of several
        attributes.
    score_threshold_ : ndarray of shape (n_attributes,), float64
        Score from which on the attribute is found in an image, chosen on the held-out images; of
        more than two values 0.5, of the excess over guessing.
    pos_label_ : object or list
        Value of the attribute that the maps show, or None if there are more than two; a list,
        one a column, if columns are not combined.
    patch_size_, stride_ : int
        Of the patches, in pixels.
    scope_ : {"general", "specific"}
        Which map `fit` took.
    quantile_ : float
        Share of the pixels that `fit` kept, before the margin.
    leakage_ : float
        Balanced accuracy with which networks tell the attribute from the perturbed images of `fit`
        (at most 2,000), each trained on one half and judged on the other. All combinations of
        the values of `y` and the attribute count the same, so that `y` says nothing about it:
        what is above chance is a leak. NaN where in no class of `y` there are four images with
        each value. Without `y` also what goes along with the attribute counts. The worst of
        several attributes. Neither this nor the next two are there with ``check_leakage=False``.
    leakage_interval_ : tuple of two float
        95 % interval of this accuracy over images to judge on (Agresti and Coull, by combination).
        Networks with other halves and initial weights vary beyond it.
    leakage_before_ : float
        The same from untouched images.
    calibration_error_ : float
        Expected calibration error (15 bins) on all patches of the held-out images, weighted in
        the same way; the largest of several attributes. After calibration it is a little too
        good, as the temperature was fitted to the same images.
    temperature_ : ndarray of shape (n_attributes,), float64
        By which logits are divided; 1 without calibration.
    module_ : torch.nn.Module
        The region classifier.
    channel_mean_, channel_std_ : ndarray of shape (n_channels,), float64
        By which images are standardised.
    data_range_ : tuple of two float
        Lowest and highest value that images can have.
    image_shape_ : tuple of three int
        (channels, height, width) of the images of `fit`.
    input_dtype_ : numpy.dtype
        ``uint8`` or ``float32`` (any other numbers).
    n_features_in_ : int
        Number of columns of `X`, where `X` was made of rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of these columns, where they had names.

    See Also
    --------
    AttributionDisplay : Pictures of the maps and of what is hidden.
    skfair.datasets.make_balanced_subset : The alternative, where there are enough images.

    Notes
    -----
    `X` is, in all methods, one of

    - an array, memory map or tensor of shape (n, channels, height, width) or (n, height, width,
      channels), uint8 or floating, or of grey images, (n, height, width);
    - rows, shape (n, n_features), with `image_shape`;
    - a sequence of image files (Pillow reads them, extra ``images``), of Pillow images or of
      arrays of one image: a list, a column of any package, a frame of one column, or anything
      with a length and an index. Files and Pillow images are turned as their EXIF data say. The
      heads of all files are read first: those that are no images, or of several sizes without
      `image_shape`, are named before any work;
    - the path of a folder: the image files directly in it, sorted by name as text ("10.png"
      is before "9.png"), without hidden ones. Labels have to be in this order;
    - a map-style :class:`torch.utils.data.Dataset` of these, or of tuples that start with one.

    An attribute that moves from image to image leaves holes in the images that have it, and the
    others could be told by having none. With ``scope="specific"`` an image in which nothing is
    found therefore gets the hole of another image.

    Images that are perturbed keep type and layout of arrays; of files and datasets they are arrays
    of shape (n, channels, height, width). With ``set_output(transform="pandas")`` or the like,
    rows come out as a table, and images, which are none, as they do without. `fit` holds its
    images in memory, 8-bit ones as such; maps are made batch by batch.

    Images are drawn such that all values of the attribute occur equally often in training. With
    one value in ten, what speaks for it would make the network less sure of the other one and
    so seem to be the place where the attribute is not.

    Equation 4 of [1]_ prints the entropy where its negative is used; the distance between patches
    is :math:`(I - k) / (\\sqrt{p} - 1)` where it prints another. Perturbed values are kept within
    the range of the data, not within 0 and 1, and images are perturbed in training only, as [1]_
    says and the released code does not do.

    References
    ----------
    .. [1] S. De Coninck, S. Leroux and P. Simoens, "Mitigating Bias Using Model-Agnostic Data
       Attribution", CVPR Workshops, 2024. arXiv:2405.05031. Sections 3.1 (region classifier), 3.2
       (confidence and attribution, Algorithm 1) and 3.3 (perturbation). Maps of the probability,
       the margin, holes of other images, swaps and leakage are not from there.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair.attribution import PatchAttributionMasker
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 128, size=(200, 16, 16, 1), dtype=np.uint8)
    >>> stamped = rng.random(200) < 0.5
    >>> X[stamped, 2:6, 9:13] += 100
    >>> masker = PatchAttributionMasker(patch_size=4, stride=1, random_state=0)
    >>> X_masked = masker.fit_transform(X, sensitive_features=stamped)
    >>> row, column = np.unravel_index(masker.mean_map_.argmax(), masker.mean_map_.shape)
    >>> bool(2 <= row < 6 and 9 <= column < 13)
    True
    >>> print(masker.scope_, masker.pos_label_)
    general True
    """

    _parameter_constraints: dict = {
        **PatchAttribution._parameter_constraints,
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "patch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "stride": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "region_classifier": [StrOptions({"dense", "resnet18"}), nn.Module],
        "position_embedding": ["boolean"],
        "pos_label": [None, str, Real, "boolean"],
        "confidence": [StrOptions(set(CONFIDENCES))],
        "scope": [StrOptions({"auto", "general", "specific"})],
        "perturbation": [StrOptions({"mask", "noise", "swap"})],
        "quantile": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "margin": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "fill": [StrOptions({"mean", *FILLS}), Real, "array-like"],
        "noise_std": [Interval(Real, 0, None, closed="neither")],
        "perturb_at_predict": ["boolean"],
        "data_range": [StrOptions({"auto"}), tuple, list],
        "combine_attributes": ["boolean"],
        "check_leakage": ["boolean"],
        "calibration": [StrOptions({"temperature"}), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "attribution_batch_size": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "resize": [StrOptions({"stretch", "pad", "crop"})],
        "data_format": [StrOptions({"auto", "channels_first", "channels_last"})],
    }

    def __init__(
        self,
        patch_size: int | str = "auto",
        *,
        stride: int | str = "auto",
        region_classifier: str | nn.Module = "dense",
        position_embedding: bool = True,
        pos_label: Any = None,
        confidence: str = "probability",
        scope: str = "auto",
        perturbation: str = "mask",
        quantile: str | float = "auto",
        margin: int | str = "auto",
        fill: str | float | Sequence[float] = "mean",
        noise_std: float = 2.0,
        perturb_at_predict: bool = False,
        data_range: str | tuple[float, float] = "auto",
        combine_attributes: bool = True,
        check_leakage: bool = True,
        calibration: str | None = None,
        validation_fraction: float = 0.2,
        label_smoothing: float = 0.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 8,
        max_epochs: int = 15,
        attribution_batch_size: int = 8,
        image_shape: tuple[int, int, int] | None = None,
        resize: str = "stretch",
        data_format: str = "auto",
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ):
        self.patch_size = patch_size
        self.stride = stride
        self.region_classifier = region_classifier
        self.position_embedding = position_embedding
        self.pos_label = pos_label
        self.confidence = confidence
        self.scope = scope
        self.perturbation = perturbation
        self.quantile = quantile
        self.margin = margin
        self.fill = fill
        self.noise_std = noise_std
        self.perturb_at_predict = perturb_at_predict
        self.data_range = data_range
        self.combine_attributes = combine_attributes
        self.check_leakage = check_leakage
        self.calibration = calibration
        self.validation_fraction = validation_fraction
        self.label_smoothing = label_smoothing
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.attribution_batch_size = attribution_batch_size
        self.image_shape = image_shape
        self.resize = resize
        self.data_format = data_format
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> np.ndarray:
        """Fit, and perturb the images.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_attributes), \
                default=None
            As in `fit`.

        Returns
        -------
        ndarray
            The perturbed images, as :meth:`mask` gives them.
        """
        return self.fit(X, y, sensitive_features=sensitive_features).mask(X)

    def transform(self, X: Any) -> np.ndarray:
        """Leave images as they are, unless ``perturb_at_predict=True``.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray
            The images, or :meth:`mask` of them.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`mask`.
        """
        if self.perturb_at_predict:
            return self.mask(X)
        images = self._open(X)
        for _ in self._batches(images):
            pass  # bad values are found here, not by the next step of a pipeline
        return images.to_array(copy=False)[0]

    @available_if(_has_feature_names)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns that are put out, where `X` is made of rows of pixels.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of `X`; those seen in `fit`, or "x0", "x1", ... if None.

        Returns
        -------
        ndarray of str
            The same names.

        Raises
        ------
        AttributeError
            `fit` saw images, which have no columns.
        """
        return super().get_feature_names_out(input_features)

    # scikit-learn's is there only where names are. A pipeline sets all its steps, fitted or not.
    def set_output(self, *, transform: str | None = None) -> "PatchAttributionMasker":
        """Set what :meth:`transform` and :meth:`fit_transform` make of rows.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            An array, or a table of this package. Images are no table, and stay an array. None
            changes nothing.

        Returns
        -------
        PatchAttributionMasker
            Itself.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def mask(self, X: Any) -> np.ndarray:
        """Perturb images.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray
            A copy in type and layout of `X`, in which the pixels under the map are perturbed and
            all others are what they were. With ``perturbation="mask"`` what becomes of an image
            depends on this image only. Noise and what is swapped depend on `random_state` and not
            on the batches.

        Raises
        ------
        ValueError, TypeError
            The images are not of the kind seen in `fit`, or have values outside `data_range`.
        """
        return self._perturbed(self._open(X))

    def perturbed_pixels(self, X: Any) -> np.ndarray:
        """Find the pixels that :meth:`mask` perturbs.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, height, width), bool
            With ``scope="general"`` the same for all images. With "specific" the hole of another
            image, where nothing is found. With ``perturbation="swap"`` the pixels that are
            filled, without those that are pasted.
        """
        images = self._open(X)
        augmentation = self._augmentation().to(resolve_device(self.device))
        return self._collect(augmentation.hidden, images)

    def augmentation(self) -> PatchAugmentation:
        """Make a module that perturbs batches in a training loop, in another way each time.

        Returns
        -------
        torch.nn.Module
            From images, a tensor of shape (n, n_channels, height, width) or of one image, in
            the units of `fit`, to perturbed images of the same type. For ``scope="specific"`` it
            makes the maps of each batch, unless it gets what :meth:`perturbed_pixels` has found as
            its second argument. With ``perturbation="swap"`` images get parts of others of
            their batch. It is on the CPU; ``.to(device)`` moves it.

        Examples
        --------
        In the ``__getitem__`` of a dataset, or on each batch of a loop:

        >>> import torch
        >>> from skfair.attribution import PatchAttributionMasker
        >>> X = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> bright = torch.arange(200) % 2 == 0
        >>> X[bright, :, :4, :4] += 1
        >>> masker = PatchAttributionMasker(
        ...     patch_size=4, stride=2, max_epochs=2, check_leakage=False, random_state=0
        ... )
        >>> augment = masker.fit(X, sensitive_features=bright).augmentation()
        >>> augment(X[:5]).shape
        torch.Size([5, 3, 8, 8])
        """
        if isinstance(self.fill, str) and self.fill == "inpaint":
            raise ValueError(
                "fill='inpaint' solves an equation for each image, too slow for a training loop. "
                "Make the images once with masker.mask(X), or take fill='blur'."
            )
        return self._augmentation()

    def _augmentation(self) -> PatchAugmentation:
        check_is_fitted(self)
        self._validate_params()  # what to hide, and how, may have been set since
        self._check_swap()
        quantile = self.quantile_ if isinstance(self.quantile, str) else float(self.quantile)
        margin: int = (
            auto_margin(self.module_.patch_size, self.module_.stride)
            if isinstance(self.margin, str)
            else self.margin
        )
        general = None
        if self._scope() == "general":
            maps = as_tensor(self.mean_map_).reshape(1, -1, *self.mean_map_.shape[-2:])
            general = hidden_pixels(maps, quantile, margin)[0].any(0)
        donors = self._grid().pixel_map(as_tensor(self._donor_maps))
        # Of more than two values none is known to mean that there is nothing.
        threshold = np.where(self._positive < 0, -np.inf, self.score_threshold_)
        fill = self._fill()
        return PatchAugmentation(
            copy.deepcopy(self.module_).cpu(),
            confidence=self.confidence,
            quantile=quantile,
            margin=margin,
            general=general,
            holes=hidden_pixels(donors, quantile, margin),
            threshold=torch.from_numpy(threshold).float(),
            image_shape=self.image_shape_,
            dtype=torch.uint8 if self.input_dtype_ == np.uint8 else torch.float32,
            perturbation=Perturbation(
                kind=self.perturbation,
                fill=fill if isinstance(fill, str) else as_tensor(fill),
                mean=as_tensor(self.channel_mean_),
                noise_scale=torch.from_numpy(self.noise_std * self.channel_std_),
                low=self.data_range_[0],
                high=self.data_range_[1],
            ),
        )

    def _perturbed(self, images: Images) -> np.ndarray:
        augmentation = self._augmentation().to(resolve_device(self.device))
        rng = np.random.default_rng(draw_seed(self.random_state))
        if self.perturbation == "swap":
            return self._swapped(images, augmentation, rng)
        array, view = images.to_array(copy=True)
        for rows, hidden in self._run(augmentation.hidden, images):
            # In the type of the user's images, which may be integers, and is what they get back.
            block, noise = as_tensor(np.ascontiguousarray(view[rows])), None
            if self.perturbation == "noise":
                noise = torch.from_numpy(rng.standard_normal(block.shape, dtype=np.float32))
            changed = augmentation.perturbation(block, hidden, noise).numpy()
            np.copyto(view[rows], changed, where=hidden.numpy()[:, None])
        return array

    def _swapped(
        self, images: Images, augmentation: PatchAugmentation, rng: np.random.Generator
    ) -> np.ndarray:
        """Fill, and paste parts of images which are known once all have been looked at."""

        def look(batch: torch.Tensor) -> torch.Tensor:
            hidden, found = augmentation.look(batch, by_content=True)
            return torch.cat([hidden.flatten(1), found[:, None]], 1)

        array, view = images.to_array(copy=True)
        both = self._collect(look, images)
        hidden, found = both[:, :-1].reshape(-1, *images.shape[1:]), both[:, -1]
        donors, paste = np.arange(len(found)), np.zeros(len(found), dtype=bool)
        if found.any():
            # Whatever class and attribute an image has, it gets a part of another with one half.
            donors = rng.choice(np.flatnonzero(found), len(found))
            paste = rng.random(len(found)) < 0.5
        pasted = hidden[donors] & paste[:, None, None]
        for start in range(0, len(found), self.attribution_batch_size):
            rows = slice(start, start + self.attribution_batch_size)
            block = as_tensor(np.ascontiguousarray(view[rows]))
            # From the images as they came: those before these rows are perturbed by now.
            others = as_tensor(np.concatenate([images.read(i, i + 1) for i in donors[rows]]))
            changed = augmentation.perturbation.swap(
                block,
                torch.from_numpy(hidden[rows]),
                others.to(block.dtype),
                torch.from_numpy(pasted[rows]),
            )
            np.copyto(view[rows], changed.numpy(), where=(hidden | pasted)[rows][:, None])
        return array

    def _scope(self) -> str:
        return self.scope_ if self.scope == "auto" else self.scope

    def _is_of_one_size(self) -> bool:
        return not self.module_.any_size or self._scope() == "general"

    def _decide(
        self,
        data: torch.Tensor,
        attributes: Attributes,
        strata: np.ndarray,
        held_out: np.ndarray,
        probabilities: list[np.ndarray],
        seed: int,
    ) -> None:
        """Choose the scope and the quantile, and measure what is left."""
        codes = attributes.codes[held_out]
        self._donor_maps = donor_maps(
            probabilities, codes, self._positive, self.score_threshold_, self.confidence
        )
        scopes = [self.scope]
        if self.scope == "auto":
            agreement = map_agreement(probabilities, codes, self._positive, self.score_threshold_)
            scopes = likely_scopes(agreement)
        self.scope_ = scopes[0]
        if isinstance(self.quantile, str):
            levels = [self._quantiles_of_levels(scope) for scope in scopes]
            self.quantile_ = levels[0][_SAFE_LEVEL]
            quantiles = [sorted([_SMALLEST, *each], reverse=True) for each in levels]
        else:
            self.quantile_ = float(self.quantile)
            quantiles = [[self.quantile_] for _ in scopes]
        # The smaller area first, and of each the scope that is more likely to be right.
        candidates = [
            (scope, quantile)
            for each in zip(*quantiles, strict=True)
            for scope, quantile in zip(scopes, each, strict=True)
        ]
        if self.check_leakage:
            self._choose(candidates, data, attributes, strata, seed)

    def _quantiles_of_levels(self, scope: str) -> list[float]:
        """Share of the pixels below each of the levels, in the maps of a scope."""
        if scope == "general":
            maps = as_tensor(self.mean_map_).reshape(-1, 1, *self.image_shape_[1:])
        else:
            maps = self._grid().pixel_map(as_tensor(self._donor_maps))
        return quantiles_of_levels(maps.numpy(), _LEVELS)

    def _choose(
        self,
        candidates: list[tuple[str, float]],
        data: torch.Tensor,
        attributes: Attributes,
        strata: np.ndarray,
        seed: int,
    ) -> None:
        """Take the first scope and quantile with which the attribute is not told, or the best."""
        rows = some_of_each(attributes.cell, strata, _MOST_IMAGES, seed)
        shown, strata, codes = data[rows], strata[rows], attributes.codes[rows]
        images = open_images(shown, data_format="channels_first")

        def measure(pixels: torch.Tensor) -> Leakage:
            return worst_leakage(
                pixels,
                codes,
                strata,
                mean=self.channel_mean_,
                std=self.channel_std_,
                seed=seed,
                device=resolve_device(self.device),
            )

        before = measure(shown)
        if not before.low > before.chance:  # nothing can be learned from what is not told anyway
            candidates = [(self.scope_, self.quantile_)]
        tried = []
        for candidate in candidates:
            self.scope_, self.quantile_ = candidate
            tried.append((measure(as_tensor(self._perturbed(images))), candidate))
            if not tried[-1][0].low > before.chance:
                break
        else:
            tried.sort(key=lambda one: one[0].accuracy)
            tried.append(tried[0])
        after, (self.scope_, self.quantile_) = tried[-1]
        self.leakage_, self.leakage_before_ = after.accuracy, before.accuracy
        self.leakage_interval_ = after.low, after.high
        warn_of_leakage(before, after, swapped=self.perturbation == "swap")

    def _check_swap(self) -> None:
        if self.perturbation != "swap":
            return
        if isinstance(self.classes_, list) or len(self.classes_) > 2:
            raise ValueError(
                "perturbation='swap' moves one thing that is there or not, and sensitive_features "
                "has several columns or more than two values. Pass one column of two values, or "
                "take perturbation='mask'."
            )
        if self.perturb_at_predict:
            raise ValueError(
                "perturb_at_predict=True and perturbation='swap' exclude each other: swapping "
                "mixes images, and what is predicted of one would depend on the others. Leave "
                "perturb_at_predict=False, or take perturbation='mask'."
            )

    def _measure(self, images: Images) -> None:
        self._check_swap()  # errors should not wait for the training
        super()._measure(images)
        self._fill()
        if isinstance(self.fill, str) and self.fill == "inpaint":
            import_optional("skimage", extra="inpaint", purpose="fill='inpaint'")

    def _fill(self) -> str | np.ndarray:
        if isinstance(self.fill, str) and self.fill != "mean":
            return self.fill
        slack = 1.0 if self._known_range() is None else 0.0  # as for the images
        eight_bit = self.input_dtype_ == np.uint8
        return check_fill(
            self.fill, self.channel_mean_, *self.data_range_, slack=slack, eight_bit=eight_bit
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        # scikit-learn's word for a fit_transform that need not agree with transform.
        tags.non_deterministic = self.perturbation == "noise" or not self.perturb_at_predict
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "uint8"]
        return tags
