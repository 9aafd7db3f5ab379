"""Patch attribution: train the region classifier, and make maps of where the attribute shows."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn
from tqdm.auto import tqdm

from skfair.attribution._attributes import Attributes, balanced_weight, encode_attributes
from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._evaluation import fit_temperature, is_informative, position_accuracy
from skfair.attribution._grid import PatchGrid
from skfair.attribution._region_classifier import (
    RegionClassifier,
    check_network,
    train_region_classifier,
)
from skfair.attribution._region_networks import DenseRegionNet, ResNetRegionNet
from skfair.attribution._statistics import check_data_range, check_values, measure_images
from skfair.metrics import expected_calibration_error
from skfair.utils import UninformativeAttributionWarning, draw_seed, resolve_device, seeded
from skfair.utils._base import TorchEstimator
from skfair.utils._image_input import validate_images
from skfair.utils._images import Images, open_images
from skfair.utils._net import as_tensor, load_weights, noise
from skfair.utils._split import split_cells
from skfair.utils._typed import fit_context
from skfair.utils._validation import check_logits

_NETWORKS = {"dense": DenseRegionNet, "resnet18": ResNetRegionNet}


class PatchAttribution(TorchEstimator):
    """Base of what finds the pixels in which an attribute shows.

    A subclass has the parameters, and does something with the maps.
    """

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, sensitive_features: Any = None) -> Self:
        """Train the region classifier, and make the general map.

        Parameters
        ----------
        X : array-like, sequence or Dataset
            Images, see Notes.
        y : Ignored
            Not used, present for API consistency.
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
            The attribute cannot be told from any patch; the maps are then of nothing.
        """
        with self._fresh_fit():
            self._fit(X, sensitive_features)
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
            Mean confidence of the patches that each pixel lies in, from 0 to 1 over each image.
            With ``combine_attributes=False`` and several columns, (n_samples, n_attributes,
            height, width).
        """
        images, classifier = self._open(X), self._classifier()
        maps = self._collect(lambda batch: classifier.pixel_map(batch, self.confidence), images)
        return self._one_or_all(_from_0_to_1(maps))

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
        images, classifier = self._open(X), self._classifier()
        joint = self._collect(lambda batch: torch.cat(classifier.probabilities(batch), 1), images)
        ends = np.cumsum(classifier.n_classes)[:-1]
        parts = [np.moveaxis(part, 1, 3) for part in np.split(joint, ends, axis=1)]
        return parts if isinstance(self.classes_, list) else parts[0]

    def _fit(self, X: Any, sensitive_features: Any) -> None:
        device = resolve_device(self.device)
        images = validate_images(self, X, reset=True)
        if self.image_shape_ is None:
            raise ValueError(
                f"X is made of rows of {self.n_features_in_} features, and it is not known what "
                "images they are. Pass image_shape=(channels, height, width)."
            )
        _, height, width = images.shape
        grid = PatchGrid(height, width, self.patch_size, self.stride)
        attributes = encode_attributes(
            sensitive_features, n_samples=images.n_samples, combine=self.combine_attributes
        )
        self._measure(images)
        self.attribute_names_ = attributes.names
        self.classes_ = attributes.classes if len(attributes.classes) > 1 else attributes.classes[0]

        seed = draw_seed(self.random_state)
        train, held_out = split_cells(attributes.cell, self.validation_fraction, seed)
        # What is held out lies among the rest, but is never drawn.
        weight = np.zeros(images.n_samples)
        weight[train] = balanced_weight(attributes.cell[train])
        data = as_tensor(images.read(0, images.n_samples))
        with seeded(seed, device):
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
        self._evaluate(unseen, attributes.take(held_out), grid)

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
        arguments = n_channels, self.patch_size, n_outputs
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
            patch_size=self.patch_size,
            stride=self.stride,
            any_size=not self.position_embedding,
        )

    def _evaluate(self, unseen: Images, attributes: Attributes, grid: PatchGrid) -> None:
        """Measure the region classifier on images that it was not trained on, and map them."""
        module = self.module_  # on the device still
        logits = self._collect(lambda batch: torch.cat(module.logits(batch), 1), unseen)
        logits = torch.from_numpy(logits).split(module.n_classes, 1)
        weight = balanced_weight(attributes.cell)
        accuracy, error, maps, uninformative = [], [], [], []
        for i, (name, code) in enumerate(zip(attributes.names, attributes.codes.T, strict=True)):
            if self.calibration is not None:
                module.temperature[i] = fit_temperature(
                    logits[i], torch.from_numpy(code), torch.from_numpy(weight)
                )
            softmax = torch.softmax(logits[i] / module.temperature[i].cpu(), 1)
            maps.append(CONFIDENCES[self.confidence](softmax).numpy().mean(0))
            proba = softmax.numpy()
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
            # Where the attribute moves, no one position knows it, but the surest of each image.
            surest = proba.max(1).reshape(len(hits), -1).argmax(1)
            flat = hits.reshape(len(hits), -1)
            of_surest = np.take_along_axis(flat, surest[:, None], 1)
            if not is_informative(np.concatenate([flat, of_surest], 1), code):
                uninformative.append(name)
        mean = grid.pixel_map(torch.from_numpy(np.stack(maps))).numpy()
        self.mean_map_ = self._one_or_all(_from_0_to_1(mean))
        self.region_accuracy_ = self._one_or_all(np.stack(accuracy))
        self.calibration_error_ = max(error)
        self.temperature_ = module.temperature.cpu().numpy().astype(np.float64)
        self.informative_ = not uninformative
        if uninformative:
            warnings.warn(
                f"On {unseen.n_samples} images held out, no patch predicts "
                f"{' and '.join(uninformative)} better than guessing would: the maps show nothing, "
                "and pixels would be hidden at random. Train longer (max_epochs), on more images, "
                "with larger patches, or ask whether the attribute can be seen in the images; and "
                "hold out more (validation_fraction) if these are too few to tell.",
                UninformativeAttributionWarning,
                stacklevel=5,
            )

    def _open(self, X: Any) -> Images:
        """Check X against what ``fit`` saw."""
        check_is_fitted(self)
        self._validate_params()  # what to show, and how, may have been set since
        images = validate_images(
            self, X, reset=False, expected_shape=(self.image_shape_[0], -1, -1)
        )
        if images.shape != self.image_shape_ and (
            not self.module_.any_size or self.scope == "general"
        ):
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
        progress = tqdm(total=images.n_samples, unit="image", disable=not self.verbose)
        with progress, torch.no_grad():
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


def _from_0_to_1(maps: np.ndarray) -> np.ndarray:
    """Shift and scale each map; one of a single value becomes zero."""
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)
