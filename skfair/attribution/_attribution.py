"""Patch attribution: train the region classifier, and make maps of where the attribute shows."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from scipy import ndimage
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skfair._images._input import validate_images
from skfair._images._open import open_images
from skfair._images._view import Images
from skfair.attribution._attributes import (
    Attributes,
    balanced_weight,
    encode_attributes,
    encode_classes,
    positive_classes,
)
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import (
    auc_of_classes,
    best_threshold,
    choose_positive,
    fit_temperature,
    highest_probability,
    is_informative,
    position_accuracy,
)
from skfair.attribution._grid import PatchGrid, grid_steps
from skfair.attribution._region_classifier import (
    RegionClassifier,
    check_network,
    train_region_classifier,
)
from skfair.attribution._region_networks import DenseRegionNet, ResNetRegionNet
from skfair.attribution._statistics import check_data_range, check_values, measure_images
from skfair.base import TorchEstimator
from skfair.base._net import as_tensor, load_weights, noise
from skfair.metrics import expected_calibration_error
from skfair.utils import UninformativeAttributionWarning, draw_seed, resolve_device
from skfair.utils._progress import progress_bar
from skfair.utils._random import own_draws, own_generators
from skfair.utils._rows import check_rows
from skfair.utils._split import split_cells
from skfair.utils._typed import fit_context
from skfair.utils._validation import check_logits

# Images of each value that are held out at least, for the test of what was found, but no more than
# this share of them.
_HELD_OUT, _MOST_HELD_OUT = 16, 0.4
_NETWORKS = {"dense": DenseRegionNet, "resnet18": ResNetRegionNet}


class PatchAttribution(TorchEstimator):
    """Base of what finds the pixels in which an attribute shows.

    A subclass has the parameters, and does something with the maps.
    """

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
        check_rows(X=X, y=y, sensitive_features=sensitive_features)
        self._fit(X, y, sensitive_features)
        return self

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
        images, classifier = self._open(X), self._classifier()
        maps = self._collect(lambda batch: classifier.pixel_map(batch, self.confidence), images)
        return self._one_or_all(self._scaled(maps))

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
        return scores if isinstance(self.classes_, list) else scores[0]

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
        images, classifier = self._open(X), self._classifier()
        threshold = as_tensor(self.score_threshold_).to(classifier.mean)

        def found(batch: torch.Tensor) -> torch.Tensor:
            region = classifier.region_map(batch, "probability")
            maps = classifier.grid(batch).pixel_map(region)
            flat = maps.flatten(2)
            level = (flat.median(2).values + flat.amax(2)) / 2
            there = region.flatten(2).amax(2) >= threshold
            return (maps > level[..., None, None]) & there[..., None, None]

        return self._one_or_all(self._collect(found, images))

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
        if isinstance(self.classes_, list):
            return [[_boxes(mask) for mask in column] for column in masks.swapaxes(0, 1)]
        return [_boxes(mask) for mask in masks]

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
        images, classifier = self._open(X), self._classifier()
        maps = self._collect(lambda batch: classifier.region_map(batch, self.confidence), images)
        return self._one_or_all(maps)

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
        parts = [np.moveaxis(part, 1, 3) for part in self._probabilities(X)]
        return parts if isinstance(self.classes_, list) else parts[0]

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
        classes = self.classes_ if isinstance(self.classes_, list) else [self.classes_]
        labels = [None if i < 0 else c[i] for c, i in zip(classes, self._positive, strict=True)]
        return labels if isinstance(self.classes_, list) else labels[0]

    def _fit(self, X: Any, y: Any, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        images = validate_images(self, X, reset=True)
        if self.image_shape_ is None:
            raise ValueError(
                f"X is made of rows of {self.n_features_in_} features, and it is not known what "
                "images they are. Pass image_shape=(channels, height, width)."
            )
        _, height, width = images.shape
        grid = PatchGrid(height, width, *grid_steps(self.patch_size, self.stride, height, width))
        attributes = encode_attributes(
            sensitive_features, n_samples=images.n_samples, combine=self.combine_attributes
        )
        wanted = positive_classes(attributes, self.pos_label)
        strata = encode_classes(y, n_samples=images.n_samples)
        self.attribute_names_ = attributes.names
        self.classes_ = attributes.classes if len(attributes.classes) > 1 else attributes.classes[0]
        self._measure(images)

        seed = draw_seed(self.random_state)
        train, held_out = split_cells(attributes.cell, self._share_held_out(attributes.cell), seed)
        # What is held out lies among the rest, but is never drawn.
        weight = np.zeros(images.n_samples)
        weight[train] = balanced_weight(attributes.cell[train])
        data = as_tensor(images.read(0, images.n_samples))
        with own_generators(seed):
            with own_draws():
                self.module_ = self._make_classifier(grid, [len(c) for c in attributes.classes])
            train_region_classifier(
                self.module_,
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
        unseen = open_images(data[held_out], data_format="channels_first")
        proba = self._evaluate(unseen, attributes.take(held_out), wanted, grid)
        self._decide(data, attributes, strata, held_out, proba, seed)

    def _share_held_out(self, cell: np.ndarray) -> np.ndarray:
        """Of few images hold out more: a test of a handful says nothing."""
        enough = np.minimum(_HELD_OUT / np.bincount(cell), _MOST_HELD_OUT)
        return np.maximum(self.validation_fraction, enough)

    def _measure(self, images: Images) -> None:
        """Set what is known of the values of images, and check the parameters in their units."""
        known = self._known_range()
        if known is not None:
            self.data_range_ = known
        statistics = measure_images(batch for _, batch in self._batches(images))
        if known is None:
            self.data_range_ = (statistics.low, statistics.high)
        self.channel_mean_, self.channel_std_ = statistics.mean, statistics.std

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
            for name, kind in _NETWORKS.items():
                if isinstance(module.network, kind):
                    state["_network_parameters"]["region_classifier"] = name
        return state

    def _restore_state(self, state: dict[str, Any]) -> None:
        weights, parameters = state.pop("module_"), state.pop("_network_parameters")
        self.__dict__.update(state)
        as_fitted = copy.copy(self)
        as_fitted.__dict__.update(parameters)
        _, height, width = self.image_shape_
        grid = PatchGrid(height, width, as_fitted.patch_size, as_fitted.stride)
        classes = self.classes_ if isinstance(self.classes_, list) else [self.classes_]
        own = isinstance(as_fitted.region_classifier, nn.Module)
        with torch.device("cpu" if own else "meta"):
            module = as_fitted._make_classifier(grid, [len(c) for c in classes])
        self.module_ = load_weights(module, weights, "module_").eval()
        self.module_.to_channels_last()  # files have no layouts
        if "scope_" not in state:
            self._renew()
        self.module_.positive = [None if i < 0 else i for i in self._positive.tolist()]

    def _renew(self) -> None:
        """Set what a fit of skfair 0.1 did not: it hid by the paper's rules, without a margin."""
        n_attributes = len(self.attribute_names_)
        self.set_params(margin=0)
        self.scope_, self.quantile_ = self.scope, float(self.quantile)
        self._positive = np.full(n_attributes, -1)
        self.score_threshold_ = np.full(n_attributes, 0.5)
        grid = self._grid()
        nothing = np.zeros((n_attributes, 1, grid.n_rows, grid.n_cols), dtype=np.float32)
        self._donor_maps = nothing

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

    def _make_classifier(self, grid: PatchGrid, n_classes: list[int]) -> RegionClassifier:
        n_channels, n_outputs = self.image_shape_[0], sum(n_classes)
        arguments = n_channels, grid.patch_size, n_outputs
        if isinstance(self.region_classifier, nn.Module):
            network = copy.deepcopy(self.region_classifier).cpu()  # where it is tried
            check_network(network, *arguments)
        elif self.region_classifier == "dense":
            shape = (grid.n_rows, grid.n_cols) if self.position_embedding else None
            network = DenseRegionNet(*arguments, shape)
        else:
            network = ResNetRegionNet(*arguments, len(grid) if self.position_embedding else None)
        return RegionClassifier(
            network,
            n_classes=n_classes,
            mean=torch.from_numpy(self.channel_mean_),
            std=torch.from_numpy(self.channel_std_),
            patch_size=grid.patch_size,
            stride=grid.stride,
            any_size=not self.position_embedding,
        )

    def _evaluate(
        self, unseen: Images, attributes: Attributes, wanted: list[int | None], grid: PatchGrid
    ) -> list[np.ndarray]:
        """Measure the region classifier on images that it was not trained on, and map them.

        Returns their probabilities, of each attribute of shape (n, n_classes, n_rows, n_cols).
        """
        module = self.module_  # on the device still
        logits = self._collect(lambda batch: torch.cat(module.logits(batch), 1), unseen)
        logits = torch.from_numpy(logits).split(module.n_classes, 1)
        weight = balanced_weight(attributes.cell)
        probabilities, uninformative = [], []
        accuracy, error, auc = [], [], []
        threshold = []
        for i, (name, code) in enumerate(zip(attributes.names, attributes.codes.T, strict=True)):
            if self.calibration is not None:
                module.temperature[i] = fit_temperature(
                    logits[i], torch.from_numpy(code), torch.from_numpy(weight)
                )
            proba = torch.softmax(logits[i] / module.temperature[i].cpu(), 1).numpy()
            probabilities.append(proba)
            hits = proba.argmax(1) == code[:, None, None]
            accuracy.append(position_accuracy(hits, weight))
            n_patches = hits[0].size
            error.append(
                expected_calibration_error(
                    np.repeat(code, n_patches),
                    np.moveaxis(proba, 1, 3).reshape(-1, proba.shape[1]),
                    labels=np.arange(proba.shape[1]),
                    sample_weight=np.repeat(weight, n_patches),
                )
            )
            highest = highest_probability(proba)
            if not is_informative(proba, code):
                uninformative.append(name)
            if proba.shape[1] > 2:
                auc.append(auc_of_classes(highest, code).mean())
                threshold.append(0.5)  # of the excess over guessing
                continue
            positive = choose_positive(highest, code) if wanted[i] is None else wanted[i]
            module.positive[i] = positive
            auc.append(auc_of_classes(highest, code)[positive])
            threshold.append(best_threshold(highest[:, positive], code == positive))
        self._positive = np.array([-1 if p is None else p for p in module.positive])
        self.attribute_auc_ = float(min(auc))
        self.score_threshold_ = np.array(threshold, dtype=np.float64)
        means = self._general_confidence(probabilities, attributes.codes)
        mean = grid.pixel_map(torch.from_numpy(means)).numpy()
        self.mean_map_ = self._one_or_all(self._scaled(mean))
        self.region_accuracy_ = self._one_or_all(np.stack(accuracy))
        self.calibration_error_ = max(error)
        self.temperature_ = module.temperature.cpu().numpy().astype(np.float64)
        self.informative_ = not uninformative
        if uninformative:
            warnings.warn(
                f"On {unseen.n_samples} images held out, patches do not tell "
                f"{' and '.join(uninformative)} better than guessing would: the maps show nothing, "
                "and pixels would be hidden at random. Train longer (max_epochs), on more images, "
                "with larger patches, or ask whether the attribute can be seen in the images; and "
                "hold out more (validation_fraction) if these are too few to tell.",
                UninformativeAttributionWarning,
                stacklevel=6,
            )
        return probabilities

    def _general_confidence(self, probabilities: list[np.ndarray], codes: np.ndarray) -> np.ndarray:
        """Mean confidence at each position, of shape (n_attributes, n_rows, n_cols)."""
        measure, means = CONFIDENCES[self.confidence], []
        for proba, code, positive in zip(
            probabilities, codes.T, self.module_.positive, strict=True
        ):
            if self.confidence != "probability":
                means.append(measure(torch.from_numpy(proba)).numpy().mean(0))
                continue
            # Where images have the value; those that have not would pull all places to the middle.
            of_class = np.stack([proba[code == c, c].mean(0) for c in range(proba.shape[1])])
            means.append(measure(torch.from_numpy(of_class[None]), positive).numpy()[0])
        return np.stack(means)

    def _scaled(self, maps: np.ndarray) -> np.ndarray:
        """Bring maps to 0 to 1: probabilities are there, others by their lowest and highest."""
        if self.confidence == "probability":
            return np.clip(maps, 0, 1)  # a mean of ones may be above one in the last digit
        return _from_0_to_1(maps)

    def _probabilities(self, X: Any) -> list[np.ndarray]:
        """Probabilities of each attribute, of shape (n_samples, n_classes, n_rows, n_cols)."""
        images, classifier = self._open(X), self._classifier()
        joint = self._collect(lambda batch: torch.cat(classifier.probabilities(batch), 1), images)
        return np.split(joint, np.cumsum(classifier.n_classes)[:-1], axis=1)

    def _open(self, X: Any) -> Images:
        """Check X against what ``fit`` saw."""
        check_is_fitted(self)
        self._validate_params()  # what to show, and how, may have been set since
        images = validate_images(
            self, X, reset=False, expected_shape=(self.image_shape_[0], -1, -1)
        )
        if images.shape != self.image_shape_ and self._is_of_one_size():
            raise ValueError(
                f"X has images of shape {images.shape}, fit saw {self.image_shape_} (channels, "
                "height, width), and the position of a patch or the general map has no meaning on "
                "images of another size. Resize them, or fit with position_embedding=False and "
                "scope='specific'."
            )
        return images

    def _batches(self, images: Images) -> Iterator[tuple[slice, np.ndarray]]:
        """Read batch by batch, and check the values."""
        range_ = getattr(self, "data_range_", None)
        known = self._known_range() is not None
        for start in range(0, images.n_samples, self.attribution_batch_size):
            rows = slice(start, min(start + self.attribution_batch_size, images.n_samples))
            batch = images.read(rows.start, rows.stop)
            if range_ is not None and batch.size:
                # What fit saw is not all there is, but other units are far outside.
                source = "data_range says" if known else "fit saw"
                check_values(batch, *range_, slack=0.0 if known else 1.0, source=source)
            yield rows, batch

    def _known_range(self) -> tuple[float, float] | None:
        """The range that images are known to have; None if it is what ``fit`` sees."""
        if not isinstance(self.data_range, str):
            return check_data_range(self.data_range)
        return (0.0, 255.0) if self.input_dtype_ == np.uint8 else None

    def _run(
        self, function: Callable[[torch.Tensor], torch.Tensor], images: Images
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Run over batches on the device; the results are on the CPU."""
        device = resolve_device(self.device)
        n_images, show = images.n_samples, bool(self.verbose)
        with (
            progress_bar("maps", total=n_images, unit="image", show=show) as progress,
            torch.no_grad(),
        ):
            for rows, batch in self._batches(images):
                yield rows, function(as_tensor(batch).to(device)).cpu()
                progress.update(len(batch))

    def _collect(
        self, function: Callable[[torch.Tensor], torch.Tensor], images: Images
    ) -> np.ndarray:
        """Run over batches, and put the results into one array."""
        out = None
        for rows, block in self._run(function, images):
            if out is None:
                out = np.empty((images.n_samples, *block.shape[1:]), block.numpy().dtype)
            out[rows] = block.numpy()
        assert out is not None  # there is an image at least
        check_logits(out)
        return out

    def _classifier(self) -> RegionClassifier:
        return copy.deepcopy(self.module_).to(resolve_device(self.device))

    def _one_or_all(self, maps: np.ndarray) -> np.ndarray:
        """Leave out the axis of the attributes where there is one only."""
        return maps if isinstance(self.classes_, list) else maps[..., 0, :, :]


def _boxes(mask: np.ndarray) -> np.ndarray:
    """Boxes around the connected parts of one mask, in the order of their rows."""
    labelled, _ = ndimage.label(mask)
    found = [
        (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for rows, columns in ndimage.find_objects(labelled)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _from_0_to_1(maps: np.ndarray) -> np.ndarray:
    """Shift and scale each map; one of a single value becomes zero."""
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)
