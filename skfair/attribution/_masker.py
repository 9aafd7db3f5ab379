"""PatchAttributionMasker: where in images an attribute shows, and images without that part."""

import copy
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair._images._input import validate_images
from skfair._images._open import open_images
from skfair._images._view import Images
from skfair.attribution._attributes import (
    Attributes,
    as_list,
    balanced_weight,
    encode_attributes,
    encode_classes,
    one_or_all,
    one_or_all_maps,
    positive_classes,
)
from skfair.attribution._augmentation import PatchAugmentation
from skfair.attribution._batches import BatchRunner
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._decisions import (
    Hiding,
    choose_hiding,
    describe_leakage,
    donor_maps,
    likely_scopes,
    map_agreement,
    propose_hidings,
    some_of_each,
    worst_leakage,
)
from skfair.attribution._evaluation import (
    describe_uninformative,
    evaluate,
    highest_probability,
    hold_out,
)
from skfair.attribution._fill import FILLS
from skfair.attribution._grid import PatchGrid, grid_steps
from skfair.attribution._hiding import perturb_images
from skfair.attribution._leakage import Leakage
from skfair.attribution._maps import boxes_around, found_pixels, mean_confidence, scale_maps
from skfair.attribution._perturbation import Perturbation, auto_margin, hidden_pixels
from skfair.attribution._region_classifier import (
    NETWORKS,
    RegionClassifier,
    make_region_classifier,
    train_region_classifier,
)
from skfair.attribution._statistics import DataRange, check_fill, given_range, measure_images
from skfair.base._estimator import TorchEstimator
from skfair.base._net import as_tensor, load_weights, noise
from skfair.utils import (
    LeakageWarning,
    UninformativeAttributionWarning,
    draw_seed,
    import_optional,
)
from skfair.utils._device import resolve_device
from skfair.utils._random import own_draws, own_generators
from skfair.utils._rows import check_rows
from skfair.utils._typed import available_if, fit_context

_MOST_IMAGES = 2000  # on which leakage is measured
# Frames from `_fit` to the caller of `fit`: fit, the check of parameters and the settings.
_OF_THE_CALLER = 5


def _has_feature_names(masker: Any) -> bool:
    """Whether the output can be a table: before `fit`, and if X had rows in it."""
    if hasattr(masker, "image_shape_") and not hasattr(masker, "n_features_in_"):
        raise AttributeError(
            "fit saw images, and images have no feature names; only rows of pixels have. Ask the "
            "steps after this one, in a pipeline pipeline[i:].get_feature_names_out()."
        )
    return True


class PatchAttributionMasker(OneToOneFeatureMixin, TransformerMixin, TorchEstimator):
    """Find where in images an attribute shows, and hide it from the models trained on them.

    Such an attribute is a shortcut for a model: glasses, a watermark, a ruler beside a mole. As in
    [1]_, a classifier that sees one patch of an image learns to predict the attribute of the whole
    image. The patches of which this classifier is sure show the attribute. The masker hides the
    pixels of these patches in the training images of another model, or moves the pixels between
    images. At prediction the masker changes nothing and needs no attribute. At the end of `fit`,
    networks try to tell the attribute from the perturbed images; their accuracy says whether the
    attribute is hidden.

    Parameters
    ----------
    patch_size : int or "auto", default="auto"
        Height and width of the patches, in pixels. One patch must be large enough to tell the
        attribute. "auto" is a quarter of the shorter side up to 64 pixels, 16 up to 192, and
        twice as much for each doubling from there: 32 at 224.
    stride : int or "auto", default="auto"
        Pixels from one patch to the next; "auto" is an eighth of the patch. Where the last patch
        would reach beyond the image, the last row and column of the image are repeated.
    region_classifier : {"dense", "resnet18"} or torch.nn.Module, default="dense"
        The network that sees patches.

        - "dense": unpadded convolutions whose receptive field is exactly one patch. One pass over
          the image gives the results of all patches. The position enters after the convolutions.
        - "resnet18": the published network (Section 3.1 of [1]_), a ResNet-18 that gets the
          position as one more channel of the patch. It runs patch by patch, which takes hundreds
          of times longer.
        - A module of your own; `fit` trains a copy. ``forward(patches, positions)`` gets
          standardised patches, float32 of shape (n, n_channels, patch_size, patch_size), and the
          number of their position, int64 of shape (n,), counted row by row from the upper left
          corner. It returns logits of shape (n, n_classes). It runs patch by patch.
    position_embedding : bool, default=True
        Whether the networks of skfair get the position of the patch. If they do, all images
        must have the size of those in `fit`.
    pos_label : bool, number or str, default=None
        Value that means "the attribute is here", for an attribute with two values. If None,
        `fit` takes the value that patches tell better, or ``classes_[1]`` where patches tell both.
    confidence : {"probability", "negative_entropy", "top", "margin"}, default="probability"
        Confidence that the maps show.

        - "probability": the probability that the attribute is here. With more than two values,
          the highest probability, scaled so that guessing is 0.
        - "negative_entropy", "top", "margin": how sure the classifier is of any value (Section
          3.2 of [1]_): the negative entropy of the predicted probabilities, the highest
          probability, or its distance to the second highest.
    scope : {"auto", "general", "specific"}, default="auto"
        Map that decides which pixels are hidden (Section 3.2 of [1]_). "general": one map for all
        images, the mean over the held-out images, which needs aligned images. "specific": the map
        of each image. "auto" takes the general map if the attribute is at one place in nearly
        all images.
    perturbation : {"mask", "noise", "swap"}, default="mask"
        What happens to the pixels.

        - "mask": they get the colour `fill` (Section 3.3 of [1]_).
        - "noise": normal noise is added (Section 3.3 of [1]_).
        - "swap": they get the colour `fill`. Then each image, whatever its class and attribute,
          gets with probability one half the pixels of an image in which the attribute is found.
          The attribute then tells nothing about the class, even where both coincided. For one
          attribute with two values, and for training only.
    quantile : float or "auto", default="auto"
        Share of the pixels that is kept, in (0, 1), before the margin is added: 0.9 hides the
        tenth with the highest values in the map, or a little less where pixels have equal values.
        "auto" tries four areas, from the smallest to the largest: a twentieth of the pixels, and
        those above 0.9, 0.75 or 0.5 of the height of the map, from its median to its highest
        value. It takes the first area with which a network no longer tells the attribute, and
        0.75 where that cannot be measured.
    margin : int or "auto", default="auto"
        Pixels, in rows and columns, by which the hidden area grows on each side. A map fades
        out towards the border of the attribute, and a network reads the rest that stays visible.
        "auto" is a quarter of `patch_size`, and at least half of `stride`.
    fill : {"mean", "blur", "inpaint"}, float or sequence of float, default="mean"
        Colour of hidden pixels. A number, or one number a channel, in the units of the images.
        "mean": the mean of each channel over the images of `fit`. "blur": the visible
        surroundings, smoother towards the middle. "inpaint": the biharmonic continuation by
        scikit-image (extra ``inpaint``), which takes up to seconds an image.
    noise_std : float, default=2.0
        Standard deviation of the noise, in units of the standard deviation of each channel over
        the images of `fit`.
    perturb_at_predict : bool, default=False
        Whether `transform` perturbs new images too. By default only `fit_transform` perturbs.
    data_range : "auto" or (float, float), default="auto"
        Lowest and highest value that images can have. Noise does not leave this range. "auto" is
        0 to 255 for uint8 images, and otherwise the range of the images of `fit`.
    combine_attributes : bool, default=True
        How to read several columns of `sensitive_features`. True: as one attribute whose classes
        are the combinations of values. False: as several attributes with one map each; pixels
        that any of these maps hides are hidden.
    check_leakage : bool, default=True
        Whether `fit` measures if networks still tell the attribute from the perturbed images.
        This takes about half of the time of `fit`.
    calibration : {"temperature"} or None, default=None
        Whether to divide the logits by a temperature fitted on the held-out images.
    validation_fraction : float, default=0.2
        Share of the images of `fit`, in (0, 1), that is held out of training to evaluate the
        region classifier. For values with few images `fit` holds out more: 16 images, but at most
        40 % of them.
    label_smoothing : float, default=0.0
        Share of each label that is spread over all classes in training, in [0, 1). The published
        0.1 makes probabilities too low.
    lr : float, default=1e-3
        Highest learning rate of AdamW. The rate rises over the first tenth of the training, then
        falls to zero.
    weight_decay : float, default=1e-2
        Decoupled weight decay.
    batch_size : int, default=8
        Images in a training batch; fewer if there would be less than ten batches.
    max_epochs : int, default=15
        Passes over the images. In each pass a dense network sees many patches of an image, any
        other network one patch. The published ResNet-18 was trained for 90 epochs, with batches
        of 256.
    attribution_batch_size : int, default=8
        Images in a batch when maps are made. It bounds the memory: a network that runs patch by
        patch gets as many patches as have the pixels of so many images. A CPU is fastest with
        small batches, which fit into its caches; a GPU with large ones.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows of `X` are reshaped to it, image files are resized to it.
        One entry may be -1 for rows. Rows are channels first unless `data_format` says otherwise:
        for rows made from (n, height, width, channels), pass "channels_last".
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`. "stretch" scales height and
        width independently. "pad" and "crop" keep the ratio of the sides: "pad" shows the whole
        image in the middle and repeats its border; "crop" fills the size and cuts off the rest
        on both sides.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Position of the channels in image arrays, and in the rows that `image_shape` reshapes.
        "auto" takes the first or last axis of an image that has 1, 3 or 4 entries.
    device : str or torch.device, default="auto"
        Device for training and maps; "auto" takes the first available of CUDA, MPS and CPU.
    random_state : int, RandomState instance or None, default=None
        Seeds the network, the held-out images, the patches, the noise and the swaps.
    verbose : int, default=0
        Whether to show progress bars.

    Attributes
    ----------
    mean_map_ : ndarray of shape (height, width), float32
        The general map, from 0 to 1: Algorithm 1 of [1]_ applied to the mean confidence, in the
        `confidence` of `fit`. For "probability" the mean is over the held-out images that have
        the value, otherwise over all held-out images. With ``combine_attributes=False`` and several
        columns, the shape is (n_attributes, height, width).
    classes_ : ndarray or list of ndarray
        Values of the attribute; tuples if several columns are combined. A list of arrays, one
        a column, if they are not combined.
    attribute_names_ : tuple of str
        Names of the columns that have a map each; ``("sensitive_features",)`` if there is one map.
    region_accuracy_ : ndarray of shape (n_rows, n_cols), float64
        Accuracy of the region classifier at each position, on the held-out images, weighted so that
        all classes count the same; (n_attributes, n_rows, n_cols) as in `mean_map_`. The
        maximum over the positions is optimistic.
    informative_ : bool
        Whether patches tell each attribute better than guessing. A rank test at a level of five
        percent compares the surest patch of each held-out image, and the mean over its patches. If
        not, `fit` warns.
    attribute_auc_ : float
        Area under the ROC curve of :meth:`attribute_score` on the held-out images. With more than
        two values, the mean over the values, each against the others. With several
        attributes, the lowest.
    score_threshold_ : ndarray of shape (n_attributes,), float64
        Score from which on the attribute is found in an image, chosen on the held-out images. With
        more than two values, 0.5 of the excess over guessing.
    pos_label_ : object or list
        Value of the attribute that the maps show, or None if there are more than two. A list,
        one entry a column, if columns are not combined.
    patch_size_, stride_ : int
        Size and distance of the patches, in pixels.
    scope_ : {"general", "specific"}
        Map that `fit` took.
    quantile_ : float
        Share of the pixels that `fit` kept, before the margin.
    leakage_ : float
        Balanced accuracy with which networks tell the attribute from the perturbed images of `fit`
        (at most 2,000). Each network is trained on one half of them and tested on the other. All
        combinations of the values of `y` and the attribute count the same, so that `y` tells
        nothing about the attribute: an accuracy above chance is a leak. NaN if no class of `y`
        has four images with each value. Without `y`, anything correlated with the attribute counts
        as a leak. With several attributes, the worst. With ``check_leakage=False`` this attribute
        and the next two are missing.
    leakage_interval_ : tuple of two float
        95 % interval of this accuracy over the test images (Agresti and Coull, for each
        combination). Networks with other halves and initial weights vary beyond this interval.
    leakage_before_ : float
        The same accuracy on the untouched images.
    calibration_error_ : float
        Expected calibration error (15 bins) on all patches of the held-out images, weighted in the
        same way. With several attributes, the largest. After calibration it is a little
        optimistic, as the temperature was fitted to the same images.
    temperature_ : ndarray of shape (n_attributes,), float64
        Divisor of the logits; 1 without calibration.
    module_ : torch.nn.Module
        The region classifier.
    channel_mean_, channel_std_ : ndarray of shape (n_channels,), float64
        Mean and standard deviation that standardise the images.
    data_range_ : tuple of two float
        Lowest and highest value that images can have.
    image_shape_ : tuple of three int
        (channels, height, width) of the images of `fit`.
    input_dtype_ : numpy.dtype
        ``uint8`` or ``float32`` (any other numbers).
    n_features_in_ : int
        Number of columns of `X`, if `X` has rows.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of these columns, if they have names.

    See Also
    --------
    AttributionDisplay : Pictures of the maps and of the hidden pixels.
    skfair.datasets.make_balanced_subset : The alternative, if there are enough images.

    Notes
    -----
    In all methods, `X` is one of

    - an array, memory map or tensor of shape (n, channels, height, width) or (n, height, width,
      channels), uint8 or floating, or for grey images (n, height, width);
    - rows, shape (n, n_features), with `image_shape`;
    - a sequence of image files (Pillow reads them, extra ``images``), of Pillow images or of
      arrays of one image: a list, a column of any package, a frame of one column, or anything
      with a length and an index. Files and Pillow images are turned as their EXIF data say. The
      headers of all files are read first: an error names the files that are no images, and
      several sizes without `image_shape`, before any other work;
    - the path of a folder: the image files directly in it, sorted by name as text ("10.png"
      is before "9.png"), without hidden ones. Labels must be in this order;
    - a map-style :class:`torch.utils.data.Dataset` of these, or of tuples that start with one.

    If only the images that have the attribute lost pixels, a model could use the missing pixels
    as a shortcut. With ``scope="specific"`` an image in which nothing is found therefore gets the
    hole (the hidden area) of another image.

    Perturbed images keep the type and layout of arrays. For files and datasets they are arrays
    of shape (n, channels, height, width). With ``set_output(transform="pandas")`` or the like,
    rows come out as a table; images stay arrays. `fit` holds its images in memory, 8-bit ones as
    such; maps are made batch by batch.

    Training draws images such that all values of the attribute occur equally often. With one
    image in ten that has the attribute, patches that show it would only make the classifier less
    sure of "absent", and the map would show them as the place where nothing is.

    Equation 4 of [1]_ prints the entropy, but the paper and its code use the negative entropy.
    The distance between patches is :math:`(I - k) / (\\sqrt{p} - 1)`, where the paper prints
    another formula. Perturbed values stay within the range of the data, not within 0 and 1. Only
    training images are perturbed, as [1]_ says; the released code perturbs validation images too.

    References
    ----------
    .. [1] S. De Coninck, S. Leroux and P. Simoens, "Mitigating Bias Using Model-Agnostic Data
       Attribution", CVPR Workshops, 2024. arXiv:2405.05031. Sections 3.1 (region classifier), 3.2
       (confidence and attribution, Algorithm 1) and 3.3 (perturbation). Maps of the probability,
       the margin, holes of other images, swaps and leakage are additions of skfair.

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
        **TorchEstimator._parameter_constraints,
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
    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Train the region classifier, make the general map, and choose the pixels to hide.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : array-like of shape (n_samples,), default=None
            Classes that another model will learn from the images. Only `leakage_` needs them:
            without `y`, anything correlated with a class counts as a leak. Continuous values are
            not used.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_attributes), \
                default=None
            The attribute to find, with any number of values: an array, Series, DataFrame or dict
            of columns. It is required, and no value may be missing.

        Returns
        -------
        self : object
            The fitted masker.

        Raises
        ------
        ValueError, TypeError
            A parameter, the images or the attribute is not as described. The message says which
            one, and how to fix it.

        Warns
        -----
        UninformativeAttributionWarning
            Patches do not tell the attribute. The maps then show nothing.
        LeakageWarning
            A network still tells the attribute from the perturbed images, or the leakage could
            not be measured.
        """
        check_rows(X=X, y=y, sensitive_features=sensitive_features)
        self._fit(X, y, sensitive_features)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> np.ndarray:
        """Fit, then perturb the images.

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
            The perturbed images, as :meth:`mask` returns them.
        """
        return self.fit(X, y, sensitive_features=sensitive_features).mask(X)

    def transform(self, X: Any) -> np.ndarray:
        """Return images unchanged, unless ``perturb_at_predict=True``.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray
            The images, or with ``perturb_at_predict=True`` the result of :meth:`mask`.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`mask`.
        """
        if self.perturb_at_predict:
            return self.mask(X)
        images, runner = self._open(X)
        for _ in runner.batches(images):
            pass  # bad values raise here, and not in the next step of a pipeline
        return images.to_array(copy=False)[0]

    @available_if(_has_feature_names)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns of the output, if `X` has rows of pixels.

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
            `fit` saw images; images have no columns.
        """
        return super().get_feature_names_out(input_features)

    # scikit-learn's version is missing where there are no names, and a pipeline calls it on each
    # step, fitted or not.
    def set_output(self, *, transform: str | None = None) -> "PatchAttributionMasker":
        """Set the container that :meth:`transform` and :meth:`fit_transform` return for rows.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            An array, or a table of this package. Images stay an array. None changes nothing.

        Returns
        -------
        PatchAttributionMasker
            Itself.
        """
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def mask(self, X: Any) -> np.ndarray:
        """Perturb images, as in Section 3.3 of the paper.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray
            A copy of `X` in its type and layout. The pixels of :meth:`perturbed_pixels` are
            perturbed, all other pixels are unchanged; ``perturbation="swap"`` also pastes. With
            ``perturbation="mask"`` the result for an image depends on this image only. Noise and
            swaps depend on `random_state`, and not on the batches.

        Raises
        ------
        ValueError, TypeError
            The images are not of the kind seen in `fit`, or have values outside `data_range`.
        """
        images, runner = self._open(X)
        return self._perturbed(images, runner, self._hiding())

    def perturbed_pixels(self, X: Any) -> np.ndarray:
        """Find the pixels that :meth:`mask` perturbs.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, height, width), bool
            With ``scope="general"`` the same for all images. With ``scope="specific"`` an image
            in which nothing is found has the hole of another image. With
            ``perturbation="swap"`` the filled pixels, without the pasted ones.
        """
        images, runner = self._open(X)
        augmentation = self._augmentation(self._hiding()).to(resolve_device(self.device))
        return runner.collect(augmentation.hidden, images)

    def augmentation(self) -> PatchAugmentation:
        """Make a module that perturbs batches in a training loop, with new draws each time.

        Returns
        -------
        torch.nn.Module
            It takes images, a tensor of shape (n, n_channels, height, width) or of one image, in
            the units of `fit`, and returns perturbed images of the same type. With
            ``scope="specific"`` it makes the maps of each batch, unless its second argument is the
            result of :meth:`perturbed_pixels`. With ``perturbation="swap"`` images get parts of
            other images of their batch. The module is on the CPU; ``.to(device)`` moves it.

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
                "fill='inpaint' solves an equation for each image, which is too slow for a "
                "training loop. Make the images once with masker.mask(X), or pass fill='blur'."
            )
        check_is_fitted(self)
        self._validate_params()  # what to hide, and how, may have been set since
        return self._augmentation(self._hiding())

    def attribute(self, X: Any) -> np.ndarray:
        """Make the pixel maps of images, Algorithm 1 in Section 3.2 of the paper.

        No attribute is needed.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, height, width), float32
            Mean confidence of the patches that contain each pixel, from 0 to 1. With
            ``confidence="probability"`` all images have the same scale; with other confidences 0
            and 1 are the lowest and highest value of each image. With
            ``combine_attributes=False`` and several columns, the shape is (n_samples,
            n_attributes, height, width).
        """
        images, runner = self._open(X)
        classifier = self._classifier()
        maps = runner.collect(lambda batch: classifier.pixel_map(batch, self.confidence), images)
        return one_or_all_maps(scale_maps(maps, self.confidence))

    def attribute_score(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Score how likely images are to have the attribute: the highest probability of a patch.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float32
            Score of ``pos_label_``; with more than two values of the attribute, of each value in
            the order of ``classes_``. The highest of many probabilities is not a probability: it
            ranks images, and ``attribute_auc_`` says how well. With
            ``combine_attributes=False`` and several columns, a list with one array a column.
        """
        scores = []
        for proba, positive in zip(self._probabilities(X), self._positive, strict=True):
            highest = highest_probability(proba)
            scores.append(highest if positive < 0 else highest[:, positive])
        return one_or_all(scores)

    def masks(self, X: Any) -> np.ndarray:
        """Mark the pixels in which the attribute is found.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, height, width), bool
            True where the map of probabilities is above the middle between the image's median and
            its highest value. All False for an image whose score is below
            ``score_threshold_``. With ``combine_attributes=False`` and several columns, the shape
            is (n_samples, n_attributes, height, width). These pixels are for people to see;
            :meth:`perturbed_pixels` has the hidden ones.
        """
        images, runner = self._open(X)
        classifier = self._classifier()
        threshold = as_tensor(self.score_threshold_).to(classifier.mean)

        def found(batch: torch.Tensor) -> torch.Tensor:
            region = classifier.region_map(batch, "probability")
            return found_pixels(region, classifier.grid(batch), threshold)

        return one_or_all_maps(runner.collect(found, images))

    def boxes(self, X: Any) -> list:
        """Find the boxes around each part of :meth:`masks`.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        list of ndarray of shape (n_boxes, 4), int64
            Boxes of each image, as in COCO: column and row of the upper left pixel, width
            and height, in pixels of the images as the masker sees them (files resized, and
            turned as their EXIF data say). No box where nothing is found. With
            ``combine_attributes=False`` and several columns, a list of such lists, one a column.

        Examples
        --------
        As COCO JSON, for a tool in which people look at the boxes or correct them:

        >>> import json
        >>> import numpy as np
        >>> from skfair.attribution import PatchAttributionMasker
        >>> X = np.random.default_rng(0).integers(0, 128, size=(60, 1, 16, 16), dtype=np.uint8)
        >>> X[::2, :, 2:6, 9:13] += 120
        >>> masker = PatchAttributionMasker(patch_size=4, check_leakage=False, random_state=0)
        >>> masker = masker.fit(X, sensitive_features=np.arange(60) % 2 == 0)
        >>> found = [(i, box) for i, boxes in enumerate(masker.boxes(X)) for box in boxes.tolist()]
        >>> coco = {
        ...     "images": [
        ...         {"id": i, "file_name": f"{i}.png", "height": 16, "width": 16} for i in range(60)
        ...     ],
        ...     "annotations": [
        ...         {"id": k, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0}
        ...         | {"area": box[2] * box[3]}
        ...         for k, (i, box) in enumerate(found, 1)
        ...     ],
        ...     "categories": [{"id": 1, "name": "stamp"}],
        ... }
        >>> text = json.dumps(coco)
        >>> len(coco["annotations"])
        30
        """
        masks = self.masks(X)
        columns = [masks] if masks.ndim == 3 else masks.swapaxes(0, 1)
        return one_or_all([[boxes_around(mask) for mask in column] for column in columns])

    def region_map(self, X: Any) -> np.ndarray:
        """Compute the confidence at all positions, as in Section 3.2 of the paper.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, n_rows, n_cols), float32
            In the units of `confidence`: nats for the negative entropy (Equation 4). With
            ``combine_attributes=False`` and several columns, the shape is (n_samples,
            n_attributes, n_rows, n_cols).
        """
        images, runner = self._open(X)
        classifier = self._classifier()
        maps = runner.collect(lambda batch: classifier.region_map(batch, self.confidence), images)
        return one_or_all_maps(maps)

    def region_proba(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Compute the probabilities of the attribute's values at all positions (Section 3.1).

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, n_rows, n_cols, n_classes), float32
            In the order of ``classes_``. With ``combine_attributes=False`` and several columns,
            a list with one array a column.
        """
        return one_or_all([np.moveaxis(proba, 1, 3) for proba in self._probabilities(X)])

    @property
    def patch_size_(self) -> int:
        """Height and width of the patches, in pixels."""
        return self.module_.patch_size

    @property
    def stride_(self) -> int:
        """Pixels from one patch to the next."""
        return self.module_.stride

    @property
    def pos_label_(self) -> Any:
        """Value of the attribute that maps show; None if it has more than two values."""
        pairs = zip(as_list(self.classes_), self._positive, strict=True)
        return one_or_all([None if i < 0 else classes[i] for classes, i in pairs])

    def _fit(self, X: Any, y: Any, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        images = validate_images(self, X, reset=True)
        if self.image_shape_ is None:
            raise ValueError(
                f"X has rows of {self.n_features_in_} features, and image_shape is None, so that "
                "the shape of the images is unknown. Pass image_shape=(channels, height, width)."
            )
        _, height, width = images.shape
        grid = PatchGrid(height, width, *grid_steps(self.patch_size, self.stride, height, width))
        attributes = encode_attributes(
            sensitive_features, n_samples=images.n_samples, combine=self.combine_attributes
        )
        wanted = positive_classes(attributes, self.pos_label)
        strata = encode_classes(y, n_samples=images.n_samples)
        self._check_swap(attributes.classes)  # errors should not wait for the training

        # The units of the images.
        data_range = given_range(self.data_range, self.input_dtype_)
        read = self._runner(data_range).batches(images)
        statistics = measure_images(batch for _, batch in read)
        if data_range is None:
            data_range = DataRange(statistics.low, statistics.high, is_given=False)
        self._colour(statistics.mean, data_range)
        if isinstance(self.fill, str) and self.fill == "inpaint":
            import_optional("skimage", extra="inpaint", purpose="fill='inpaint'")

        # Stage 1: train the region classifier, on all but the held-out images.
        seed = draw_seed(self.random_state)
        train, held_out = hold_out(attributes.cell, self.validation_fraction, seed)
        # Held-out images lie among the others, but have no weight and are never drawn.
        weight = np.zeros(images.n_samples)
        weight[train] = balanced_weight(attributes.cell[train])
        data = as_tensor(images.read(0, images.n_samples))
        with own_generators(seed):
            with own_draws():
                classifier = make_region_classifier(
                    self.region_classifier,
                    grid,
                    n_classes=[len(c) for c in attributes.classes],
                    mean=statistics.mean,
                    std=statistics.std,
                    position_embedding=self.position_embedding,
                )
            train_region_classifier(
                classifier,
                data,
                torch.from_numpy(attributes.codes),
                torch.from_numpy(weight),
                label_smoothing=self.label_smoothing,
                lr=self.lr,
                weight_decay=self.weight_decay,
                batch_size=self.batch_size,
                max_epochs=self.max_epochs,
                device=device,
                description=type(self).__name__ if self.verbose else None,
            )

        # Stage 2: calibrate it and evaluate it, on the held-out images.
        logits = self._runner(data_range).collect(
            lambda batch: torch.cat(classifier.logits(batch), 1),
            open_images(data[held_out], data_format="channels_first"),
        )
        known = attributes.take(held_out)
        found = evaluate(logits, known, wanted, calibrate=self.calibration is not None)
        classifier.temperature.copy_(found.temperature)
        classifier.show(found.positive)
        if found.uninformative:
            message = describe_uninformative(found.uninformative, len(held_out))
            warnings.warn(message, UninformativeAttributionWarning, stacklevel=_OF_THE_CALLER)

        # Stage 3: the general map, and maps of held-out images as holes for others.
        about = found.probabilities, known.codes, found.positive
        mean_map = scale_maps(
            grid.pixel_map(torch.from_numpy(mean_confidence(*about, self.confidence))).numpy(),
            self.confidence,
        )
        donors = donor_maps(*about, found.threshold, self.confidence)

        self.attribute_names_ = attributes.names
        self.classes_ = one_or_all(attributes.classes)
        self.data_range_ = data_range.low, data_range.high
        self.channel_mean_, self.channel_std_ = statistics.mean, statistics.std
        self.module_ = classifier
        self.temperature_ = found.temperature.numpy().astype(np.float64)
        self.mean_map_ = one_or_all_maps(mean_map)
        self.region_accuracy_ = one_or_all_maps(found.accuracy)
        self.calibration_error_ = found.calibration_error
        self.informative_ = not found.uninformative
        self.attribute_auc_, self.score_threshold_ = found.auc, found.threshold
        self._positive, self._donor_maps = found.positive, donors

        # Stages 4 and 5: choose the pixels to hide, and measure the leakage that this leaves.
        scopes = [self.scope]
        if self.scope == "auto":
            scopes = likely_scopes(map_agreement(*about, found.threshold))
        safe, tries = propose_hidings(
            scopes,
            None if isinstance(self.quantile, str) else float(self.quantile),
            {"general": mean_map[:, None], "specific": grid.pixel_map(as_tensor(donors)).numpy()},
        )
        self.scope_, self.quantile_ = safe
        if not self.check_leakage:
            return
        hiding, after, before = self._choose_hiding(safe, tries, data, attributes, strata, seed)
        self.scope_, self.quantile_ = hiding
        self.leakage_, self.leakage_before_ = after.accuracy, before.accuracy
        self.leakage_interval_ = after.low, after.high
        leak = describe_leakage(before, after, swapped=self.perturbation == "swap")
        if leak is not None:
            warnings.warn(leak, LeakageWarning, stacklevel=_OF_THE_CALLER)

    def _choose_hiding(
        self,
        safe: Hiding,
        tries: list[Hiding],
        data: torch.Tensor,
        attributes: Attributes,
        strata: np.ndarray,
        seed: int,
    ) -> tuple[Hiding, Leakage, Leakage]:
        """Choose the pixels to hide; also the leakage after that, and of the untouched images."""
        rows = some_of_each(attributes.cell, strata, _MOST_IMAGES, seed)
        untouched = data[rows]
        runner = self._runner(self._data_range())

        def leakage_of(pixels: torch.Tensor) -> Leakage:
            return worst_leakage(
                pixels,
                attributes.codes[rows],
                strata[rows],
                mean=self.channel_mean_,
                std=self.channel_std_,
                seed=seed,
                device=resolve_device(self.device),
            )

        def leakage_after(hiding: Hiding) -> Leakage:
            images = open_images(untouched, data_format="channels_first")
            return leakage_of(as_tensor(self._perturbed(images, runner, hiding)))

        before = leakage_of(untouched)
        return *choose_hiding(safe, tries, leakage_after, before), before

    def _hiding(self) -> Hiding:
        """Pixels to hide by the current parameters, which may differ from those of `fit`."""
        return Hiding(
            self.scope_ if self.scope == "auto" else self.scope,
            self.quantile_ if isinstance(self.quantile, str) else float(self.quantile),
        )

    def _augmentation(self, hiding: Hiding) -> PatchAugmentation:
        self._check_swap(as_list(self.classes_))
        margin: int = (
            auto_margin(self.module_.patch_size, self.module_.stride)
            if isinstance(self.margin, str)
            else self.margin
        )
        general = None
        if hiding.scope == "general":
            maps = as_tensor(self.mean_map_).reshape(1, -1, *self.mean_map_.shape[-2:])
            general = hidden_pixels(maps, hiding.quantile, margin)[0].any(0)
        donors = self._grid().pixel_map(as_tensor(self._donor_maps))
        # Where an attribute has more than two values, none of them means "absent".
        threshold = np.where(self._positive < 0, -np.inf, self.score_threshold_)
        fill = self._colour(self.channel_mean_, self._data_range())
        return PatchAugmentation(
            copy.deepcopy(self.module_).cpu(),
            confidence=self.confidence,
            quantile=hiding.quantile,
            margin=margin,
            general=general,
            holes=hidden_pixels(donors, hiding.quantile, margin),
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

    def _perturbed(self, images: Images, runner: BatchRunner, hiding: Hiding) -> np.ndarray:
        augmentation = self._augmentation(hiding).to(resolve_device(self.device))
        rng = np.random.default_rng(draw_seed(self.random_state))
        return perturb_images(images, augmentation, runner, rng)

    def _open(self, X: Any) -> tuple[Images, BatchRunner]:
        """Check `X` against the images of ``fit``, and give what reads it."""
        check_is_fitted(self)
        self._validate_params()  # what to show, and how, may have been set since
        images = validate_images(
            self, X, reset=False, expected_shape=(self.image_shape_[0], -1, -1)
        )
        one_size = not self.module_.any_size or self._hiding().scope == "general"
        if images.shape != self.image_shape_ and one_size:
            raise ValueError(
                f"X has images of shape {images.shape}, fit saw {self.image_shape_} (channels, "
                "height, width). The position of a patch and the general map have no meaning on "
                "images of another size. Resize the images, or fit with position_embedding=False "
                "and scope='specific'."
            )
        return images, self._runner(self._data_range())

    def _runner(self, data_range: DataRange | None) -> BatchRunner:
        return BatchRunner(self.attribution_batch_size, self.device, bool(self.verbose), data_range)

    def _data_range(self) -> DataRange:
        is_given = given_range(self.data_range, self.input_dtype_) is not None
        return DataRange(*self.data_range_, is_given=is_given)

    def _classifier(self) -> RegionClassifier:
        return copy.deepcopy(self.module_).to(resolve_device(self.device))

    def _probabilities(self, X: Any) -> list[np.ndarray]:
        """Probabilities of each attribute, of shape (n_samples, n_classes, n_rows, n_cols)."""
        images, runner = self._open(X)
        classifier = self._classifier()
        joint = runner.collect(lambda batch: torch.cat(classifier.probabilities(batch), 1), images)
        return np.split(joint, np.cumsum(classifier.n_classes)[:-1], axis=1)

    def _colour(self, mean: np.ndarray, data_range: DataRange) -> str | np.ndarray:
        """The parameter `fill`, checked: a name of FILLS, or a colour of shape (n_channels,)."""
        if isinstance(self.fill, str) and self.fill != "mean":
            return self.fill
        eight_bit = self.input_dtype_ == np.uint8
        return check_fill(self.fill, mean, data_range, eight_bit=eight_bit)

    def _check_swap(self, classes: list[np.ndarray]) -> None:
        if self.perturbation != "swap":
            return
        if len(classes) > 1 or len(classes[0]) > 2:
            raise ValueError(
                "perturbation='swap' moves one thing that is present or absent, but "
                "sensitive_features has several columns or more than two values. Pass one column "
                "with two values, or perturbation='mask'."
            )
        if self.perturb_at_predict:
            raise ValueError(
                "perturb_at_predict=True and perturbation='swap' exclude each other: swapping "
                "mixes images, so that the prediction for one image would depend on the others. "
                "Pass perturb_at_predict=False, or perturbation='mask'."
            )

    def _fit_summary(self) -> str:
        found = "every attribute" if self.informative_ else "not every attribute"
        if len(self.attribute_names_) == 1:
            found = "attribute" if self.informative_ else "attribute not"
        found += " found in patches"
        if not hasattr(self, "leakage_"):  # check_leakage=False
            return found
        if np.isnan(self.leakage_):
            return f"{found}; leakage not estimable"
        low, high = self.leakage_interval_
        return (
            f"{found}; leakage {self.leakage_:.3f} [{low:.3f}, {high:.3f}], "
            f"{self.leakage_before_:.3f} before"
        )

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        if "module_" in state:
            module = self.module_
            state["module_"] = dict(module.state_dict())
            # As they were in `fit`: the parameters may have been set since.
            state["_network_parameters"] = {
                "patch_size": module.patch_size,
                "stride": module.stride,
                "position_embedding": not module.any_size,
            }
            for name, kind in NETWORKS.items():
                if isinstance(module.network, kind):
                    state["_network_parameters"]["region_classifier"] = name
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights, parameters = state.pop("module_"), state.pop("_network_parameters")
        self.__dict__.update(state)
        _, height, width = self.image_shape_
        network = parameters.get("region_classifier", self.region_classifier)
        with torch.device("cpu" if isinstance(network, nn.Module) else "meta"):
            module = make_region_classifier(
                network,
                PatchGrid(height, width, parameters["patch_size"], parameters["stride"]),
                n_classes=[len(classes) for classes in as_list(self.classes_)],
                mean=self.channel_mean_,
                std=self.channel_std_,
                position_embedding=parameters["position_embedding"],
            )
        self.module_ = load_weights(module, weights, "module_").eval()
        self.module_.to_channels_last()  # files do not keep the layout
        if "scope_" not in state:
            self._renew()
        self.module_.show(self._positive)

    def _renew(self) -> None:
        """Set the attributes that skfair 0.1 lacked: it hid as in the paper, without a margin."""
        n_attributes = len(self.attribute_names_)
        self.set_params(margin=0)
        self.scope_, self.quantile_ = self.scope, float(self.quantile)
        self._positive = np.full(n_attributes, -1)
        self.score_threshold_ = np.full(n_attributes, 0.5)
        grid = self._grid()
        self._donor_maps = np.zeros((n_attributes, 1, grid.n_rows, grid.n_cols), dtype=np.float32)

    def _grid(self) -> PatchGrid:
        """The positions on images of the size of those in ``fit``."""
        _, height, width = self.image_shape_
        return PatchGrid(height, width, self.module_.patch_size, self.module_.stride)

    def _outputs_of_noise(
        self, rng: np.random.Generator, *, quick: bool = False
    ) -> np.ndarray | None:
        size = self.module_.patch_size
        patches = noise(rng.standard_normal, (self.image_shape_[0], size, size))
        if patches is None:
            return None
        network = copy.deepcopy(self.module_.network).cpu().eval()
        positions = torch.zeros(len(patches), dtype=torch.int64)
        with torch.no_grad():
            return network(torch.from_numpy(patches), positions).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        # By this tag scikit-learn allows fit_transform to differ from transform.
        tags.non_deterministic = self.perturbation == "noise" or not self.perturb_at_predict
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "uint8"]
        return tags
