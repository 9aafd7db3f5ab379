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
from skfair._images._open import Images, open_images
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
from skfair.base import TorchEstimator
from skfair.base._net import as_tensor, load_weights, noise
from skfair.utils import (
    LeakageWarning,
    UninformativeAttributionWarning,
    draw_seed,
    import_optional,
    resolve_device,
)
from skfair.utils._random import own_draws, own_generators
from skfair.utils._rows import check_rows
from skfair.utils._typed import available_if, fit_context

_MOST_IMAGES = 2000  # on which leakage is measured
# Frames from `_fit` to the caller of `fit`: fit, the check of parameters and the settings.
_OF_THE_CALLER = 5


def _has_feature_names(masker: Any) -> bool:
    """Whether what is put out can be a table: until it is fitted, and where X is made of rows."""
    if hasattr(masker, "image_shape_") and not hasattr(masker, "n_features_in_"):
        raise AttributeError(
            "Images have no names of features, which only rows of pixels have. Ask the steps "
            "behind for their names, in a pipeline pipeline[i:].get_feature_names_out()."
        )
    return True


class PatchAttributionMasker(OneToOneFeatureMixin, TransformerMixin, TorchEstimator):
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
        """Train the region classifier, make the general map, and measure what is left.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : array-like of shape (n_samples,), default=None
            Classes that another model is to learn from the images. Only `leakage_` needs them:
            without them what goes along with a class counts as a leak. Continuous values are
            not used.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_attributes), \
                default=None
            The attribute to find, of any number of values: an array, Series, DataFrame or dict of
            columns. It must be given, and no value may be missing.

        Returns
        -------
        self : object
            The fitted masker.

        Raises
        ------
        ValueError, TypeError
            A parameter, the images or the attribute is not as described; the message says which
            and how to put it right.

        Warns
        -----
        UninformativeAttributionWarning
            The attribute cannot be told from patches; the maps are then of nothing.
        LeakageWarning
            A network still tells the attribute from the images in which it is hidden, or that
            could not be measured.
        """
        with self._fresh_fit():
            check_rows(X=X, y=y, sensitive_features=sensitive_features)
            self._fit(X, y, sensitive_features)
        return self

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
        images, runner = self._open(X)
        for _ in runner.batches(images):
            pass  # bad values raise here, and not in the next step of a pipeline
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
            With ``scope="general"`` the same for all images. With "specific" the hole of another
            image, where nothing is found. With ``perturbation="swap"`` the pixels that are
            filled, without those that are pasted.
        """
        images, runner = self._open(X)
        augmentation = self._augmentation(self._hiding()).to(resolve_device(self.device))
        return runner.collect(augmentation.hidden, images)

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
        check_is_fitted(self)
        self._validate_params()  # what to hide, and how, may have been set since
        return self._augmentation(self._hiding())

    def attribute(self, X: Any) -> np.ndarray:
        """Make the pixel maps of images, Algorithm 1 of the paper; no attribute is needed.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, height, width), float32
            Mean confidence of the patches that each pixel lies in, from 0 to 1. Of the
            "probability" it is in units that are the same for all images; of other confidences
            0 and 1 are the lowest and the highest of each image. With
            ``combine_attributes=False`` and several columns, (n_samples, n_attributes, height,
            width).
        """
        images, runner = self._open(X)
        classifier = self._classifier()
        maps = runner.collect(lambda batch: classifier.pixel_map(batch, self.confidence), images)
        return one_or_all_maps(scale_maps(maps, self.confidence))

    def attribute_score(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Score whether images have the attribute at all: the highest probability of a patch.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes), float32
            Of ``pos_label_``; with more than two values of the attribute, of each in the order of
            ``classes_``. The highest of many probabilities is no probability: it ranks images,
            and ``attribute_auc_`` says how well. With ``combine_attributes=False`` and several
            columns, a list with one array a column.
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
            Where the map of probabilities is more than half way up from the middle of the
            image's values to the highest; none, where the image's score is below
            ``score_threshold_``. With ``combine_attributes=False`` and several columns,
            (n_samples, n_attributes, height, width). It is what to show; what is hidden is in
            ``perturbed_pixels``.
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
            Of each image the boxes, as in COCO: column and row of the upper left pixel, width
            and height, in pixels of the images as the masker sees them (files resized, and
            turned as their EXIF data say). No box where nothing is found. With
            ``combine_attributes=False`` and several columns, such a list for each column.

        Examples
        --------
        As COCO JSON, for a tool to look at or correct the boxes in:

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
        """Compute the confidence of the region classifier at all positions.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images of the kind seen in `fit`, see Notes.

        Returns
        -------
        ndarray of shape (n_samples, n_rows, n_cols), float32
            In the units of `confidence`: nats for the negative entropy. With
            ``combine_attributes=False`` and several columns, (n_samples, n_attributes, n_rows,
            n_cols).
        """
        images, runner = self._open(X)
        classifier = self._classifier()
        maps = runner.collect(lambda batch: classifier.region_map(batch, self.confidence), images)
        return one_or_all_maps(maps)

    def region_proba(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Compute the probabilities of the attribute's values at all positions.

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
        """Value of the attribute that maps show; None if there are more than two."""
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

        data_range = given_range(self.data_range, self.input_dtype_)
        read = self._runner(data_range).batches(images)
        statistics = measure_images(batch for _, batch in read)
        if data_range is None:
            data_range = DataRange(statistics.low, statistics.high, is_given=False)
        self._colour(statistics.mean, data_range)
        if isinstance(self.fill, str) and self.fill == "inpaint":
            import_optional("skimage", extra="inpaint", purpose="fill='inpaint'")

        seed = draw_seed(self.random_state)
        train, held_out = hold_out(attributes.cell, self.validation_fraction, seed)
        # The held-out images lie among the others, but are never drawn.
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
        """What to hide by the parameters as they are set now."""
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

    def _state_to_save(self, state: dict[str, Any]) -> dict[str, Any]:
        if "module_" in state:
            module = self.module_
            state["module_"] = dict(module.state_dict())
            # As they were in the fit; the parameters may have been set since.
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
        self.module_.to_channels_last()  # files have no layouts
        if "scope_" not in state:
            self._renew()
        self.module_.show(self._positive)

    def _renew(self) -> None:
        """Set what a fit of skfair 0.1 did not: it hid by the paper's rules, without a margin."""
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

    def _outputs_of_noise(self, rng: np.random.Generator) -> np.ndarray | None:
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
        # scikit-learn's word for a fit_transform that need not agree with transform.
        tags.non_deterministic = self.perturbation == "noise" or not self.perturb_at_predict
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "uint8"]
        return tags
