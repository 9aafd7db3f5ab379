"""Patch attribution as a picture: maps over images, and images before and after."""

import copy
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skfair.attribution._masker import PatchAttributionMasker
from skfair.utils import import_optional
from skfair.utils._images import Images

_KINDS = ("maps", "mean_map", "perturbations")
_MODES = [(scope, change) for scope in ("general", "specific") for change in ("mask", "noise")]
_LUMINANCE = (0.299, 0.587, 0.114)
# Its hues can be told apart by the colour-blind too, and it is ever lighter; the image can be
# seen through it.
_MAP_STYLE = {"cmap": "viridis", "alpha": 0.65}
_LINE = 1.2  # points, and half of it in black on either side
_GAP = 0.06  # between images, in sides of an image
_PANEL, _WIDE, _HIGH = (0.7, 2.2), 9.0, 6.5  # inches: an image, and all of them together


class AttributionDisplay:
    """Images, and below them where an attribute shows in them, or what becomes of them.

    Made by :meth:`from_estimator`, or from arrays. The upper row shows the images. A row of maps
    shows them in grey under colours, the lighter the surer, with lines around the pixels that are
    hidden. A row of perturbed images shows what is left.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or (n_images, height, width, n_channels)
        Grey images, or images with one, three (RGB) or four (RGBA) channels.
    maps : mapping of str to array-like of shape (n_images, height, width), default=None
        What to call each row of maps, and a map of each image, from 0 to 1.
    hidden : array-like of shape (n_images, height, width), bool, default=None
        Pixels to outline in all maps.
    perturbed : mapping of str to array-like of the shape of `images`, default=None
        What to call each row of perturbed images, and the images.
    data_range : tuple of two float, default=None
        Values that are shown as black and as white; those outside are shown as the nearest. If
        None, 0 and 255 for uint8 images, and else the lowest and highest value in `images`.
    image_name : str, default="images"
        What to call the upper row.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture. Its units are pixels of the images.
    figure_ : matplotlib Figure
        Figure with these axes.
    images_ : ndarray of shape (n_images,), matplotlib AxesImage
        The upper row.
    maps_ : dict of str to ndarray of shape (n_images,), matplotlib AxesImage
        The maps, without the images under them.
    outlines_ : dict of str to ndarray of shape (n_images,), matplotlib Line2D
        The lines around what is hidden, in each row of maps; empty without `hidden`.
    perturbed_ : dict of str to ndarray of shape (n_images,), matplotlib AxesImage
        The perturbed images.
    colorbar_ : matplotlib Colorbar or None
        Scale of all maps.

    Raises
    ------
    ValueError
        The arrays do not fit together, or are no images or maps.

    See Also
    --------
    PatchAttributionMasker : Where maps and hidden pixels come from.
    skfair.metrics.ReliabilityDisplay : Whether the confidence in the maps is justified.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair.attribution import AttributionDisplay
    >>> images = np.arange(2 * 8 * 6 * 3, dtype=np.uint8).reshape(2, 8, 6, 3)
    >>> maps = np.linspace(0, 1, 2 * 8 * 6).reshape(2, 8, 6)
    >>> display = AttributionDisplay(images, maps={"glasses": maps}, hidden=maps > 0.9)
    >>> [label.get_text() for label in display.plot().ax_.get_yticklabels()]
    ['images', 'glasses']
    """

    def __init__(
        self,
        images: ArrayLike,
        *,
        maps: Mapping[str, ArrayLike] | None = None,
        hidden: ArrayLike | None = None,
        perturbed: Mapping[str, ArrayLike] | None = None,
        data_range: tuple[float, float] | None = None,
        image_name: str = "images",
    ):
        self.images = np.asarray(images)
        self.maps = _arrays("maps", maps)
        self.hidden = None if hidden is None else np.asarray(hidden)
        self.perturbed = _arrays("perturbed", perturbed)
        self.data_range = data_range
        self.image_name = image_name
        self._check()

    @classmethod
    def from_estimator(
        cls,
        estimator: PatchAttributionMasker,
        X: Any,
        *,
        kind: str = "maps",
        n_images: int = 8,
        ax: Any = None,
        map_kw: dict[str, Any] | None = None,
    ) -> "AttributionDisplay":
        """Show what a masker has found in images, or what it does to them.

        Parameters
        ----------
        estimator : fitted PatchAttributionMasker
            Left as it is.
        X : array-like, sequence or Dataset
            Images of the kind seen in ``fit``.
        kind : {"maps", "mean_map", "perturbations"}, default="maps"
            What to show.

            - "maps": the map of each image (:meth:`PatchAttributionMasker.attribute`), with lines
              around what :meth:`PatchAttributionMasker.mask` hides. Of several attributes that
              are not combined each has a row, in the order of the columns.
            - "mean_map": the general map, ``mean_map_``, over the mean of all images in `X`,
              with lines around what ``scope="general"`` hides.
            - "perturbations": what becomes of the images under each `scope` and `perturbation`,
              whichever of them the masker has.
        n_images : int, default=8
            The first so many images of `X` are shown, or all if there are fewer. "mean_map"
            takes the mean over all in any case.
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones, of a size that suits, if not given.
        map_kw : dict, default=None
            Passed to ``Axes.imshow`` for the maps: `cmap` or `alpha`, for instance.

        Returns
        -------
        display : AttributionDisplay

        Raises
        ------
        TypeError
            `estimator` is no masker.
        sklearn.exceptions.NotFittedError
            `estimator` is not fitted.
        ValueError
            `kind` or `n_images` is not as described, or the images are not of the kind seen in
            ``fit``, or have other than one, three or four channels.
        ImportError
            matplotlib is not installed.
        """
        if not isinstance(estimator, PatchAttributionMasker):
            raise TypeError(
                f"estimator is {type(estimator).__name__}, where a fitted PatchAttributionMasker "
                "was wanted. Of a pipeline give the step, pipeline[0]; of maps from elsewhere the "
                "arrays: AttributionDisplay(images, maps={name: maps}).plot()."
            )
        if kind not in _KINDS:
            raise ValueError(f"kind={kind!r} is unknown. Take one of {', '.join(_KINDS)}.")
        if not isinstance(n_images, Integral) or n_images < 1:
            raise ValueError(f"n_images={n_images!r} is not a number of images. Give 1 or more.")
        check_is_fitted(estimator)
        images = estimator._open(X if kind == "mean_map" else _first(X, n_images))
        if kind != "maps" and images.shape != estimator.image_shape_:
            raise ValueError(
                f"X has images of shape {images.shape}, and kind={kind!r} is about the map of the "
                f"images of fit, which have shape {estimator.image_shape_} (channels, height, "
                "width). Resize the images, or take kind='maps'."
            )
        # A copy that takes arrays, channels first, whatever form the images of `fit` had. Its
        # random state is its own, so that the masker's next noise is what it would have been.
        masker = copy.copy(estimator).set_params(
            image_shape=None,
            data_format="channels_first",
            random_state=copy.deepcopy(estimator.random_state),
        )
        for name in ("n_features_in_", "feature_names_in_"):
            vars(masker).pop(name, None)
        compute = {"maps": _maps, "mean_map": _mean_map, "perturbations": _perturbations}[kind]
        shown = compute(masker, images)
        return cls(**shown, data_range=masker.data_range_).plot(ax, map_kw=map_kw)

    def plot(self, ax: Any = None, *, map_kw: dict[str, Any] | None = None) -> "AttributionDisplay":
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones, of a size that suits, if not given.
        map_kw : dict, default=None
            Passed to ``Axes.imshow`` for the maps: `cmap` or `alpha`, for instance.

        Returns
        -------
        display : AttributionDisplay
            Itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="AttributionDisplay")
        n, height, width = self.images.shape[:3]
        labels = [self.image_name, *self.maps, *self.perturbed]
        gap = _GAP * max(height, width)
        across, down = width + gap, height + gap
        right, bottom = n * across - gap, len(labels) * down - gap
        if ax is None:
            panel = np.clip(min(_WIDE / n, _HIGH / len(labels)), *_PANEL)  # of the longer side
            inches = panel / max(height, width)
            letters = max(len(line) for label in labels for line in label.split("\n"))
            beside = 0.2 + 0.09 * letters + (1 if self.maps else 0)
            size = (right * inches + beside, bottom * inches + 0.5)
            _, ax = pyplot.subplots(figsize=size, layout="compressed")
        self.ax_, self.figure_ = ax, ax.figure

        def draw(row: int, arrays: np.ndarray, **style: Any) -> np.ndarray:
            drawn = np.empty(n, dtype=object)
            for i, array in enumerate(arrays):
                x, y = i * across, row * down
                drawn[i] = ax.imshow(
                    array, origin="upper", extent=(x, x + width, y + height, y), **style
                )
            return drawn

        colours = self._colours(self.images)
        self.images_ = draw(0, colours)
        self.maps_, self.outlines_, self.perturbed_, self.colorbar_ = {}, {}, {}, None
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
        for row, (name, maps) in enumerate(self.maps.items(), 1):
            # Light, so that a colour looks the same wherever it is.
            draw(row, 0.5 + 0.5 * _luminance(colours), **grey)
            self.maps_[name] = draw(row, maps, **(_MAP_STYLE | (map_kw or {})), vmin=0, vmax=1)
            if self.hidden is not None:
                self.outlines_[name] = self._draw_outlines(self.hidden, row * down, across)
        for row, (name, perturbed) in enumerate(self.perturbed.items(), 1 + len(self.maps)):
            self.perturbed_[name] = draw(row, self._colours(perturbed))

        ax.set(xlim=(0, right), ylim=(bottom, 0), aspect="equal", xticks=[])
        ax.set_yticks([row * down + height / 2 for row in range(len(labels))], labels)
        ax.spines[:].set_visible(False)
        pixel = min(ax.bbox.width / right, ax.bbox.height / bottom) / ax.figure.dpi  # inches
        font = "medium" if pixel * max(height, width) > 0.9 else "small"
        ax.tick_params(length=0, labelsize=font)
        if self.hidden is not None:
            ax.set_xlabel(f"outlined: hidden, {self.hidden.mean():.0%} of pixels", fontsize=font)
        if self.maps:
            # As a part of the axes it is beside the maps in whatever layout the axes are.
            place = (right + 1.5 * gap, down, 2 * gap, len(self.maps) * down - gap)
            scale = ax.inset_axes(place, transform=ax.transData)
            first = next(iter(self.maps_.values()))[0]
            self.colorbar_ = ax.figure.colorbar(first, cax=scale, ticks=[0, 0.5, 1])
            scale.tick_params(labelsize=font)
            scale.set_ylabel("confidence", fontsize=font)
        return self

    def _check(self) -> None:
        images, n_channels = self.images, (self.images.shape[3:] or (1,))[0]
        if images.ndim not in (3, 4) or images.size == 0 or n_channels not in (1, 3, 4):
            raise ValueError(
                f"images has shape {images.shape}, where (n_images, height, width) or (n_images, "
                "height, width, n_channels) with 1, 3 or 4 channels was wanted. Move the channels "
                "to the end, np.moveaxis(images, 1, -1), and take those that are to be seen."
            )
        if not np.isfinite(images).all():
            raise ValueError("images has NaN or infinity. Leave such images out.")
        if self.data_range is not None and not (
            len(self.data_range) == 2 and self.data_range[0] < self.data_range[1]
        ):
            raise ValueError(
                f"data_range={self.data_range!r} is not (lowest, highest): two numbers, of which "
                "the first is the smaller one."
            )
        for name, maps in self.maps.items():
            if maps.shape != images.shape[:3]:
                raise ValueError(
                    f"maps[{name!r}] has shape {maps.shape}, where {images.shape[:3]} was wanted: "
                    "a value for each pixel of each image."
                )
            if not ((maps >= 0) & (maps <= 1)).all():
                raise ValueError(
                    f"maps[{name!r}] has values from {maps.min():g} to {maps.max():g}, where 0 to "
                    "1 was wanted. Scale the maps, as masker.attribute(X) does."
                )
        if self.hidden is not None and (
            not self.maps or self.hidden.dtype != bool or self.hidden.shape != images.shape[:3]
        ):
            raise ValueError(
                f"hidden has shape {self.hidden.shape} and dtype {self.hidden.dtype}, with "
                f"{len(self.maps)} maps to draw it in, where {images.shape[:3]}, bool and one map "
                "or more were wanted. Give what masker.perturbed_pixels(X) gives, and maps."
            )
        for name, perturbed in self.perturbed.items():
            if perturbed.shape != images.shape:
                raise ValueError(
                    f"perturbed[{name!r}] has shape {perturbed.shape}, where that of images, "
                    f"{images.shape}, was wanted. Give the same images, perturbed."
                )

    def _colours(self, images: np.ndarray) -> np.ndarray:
        """Scale images for display: RGB or RGBA, from 0 to 1."""
        if self.data_range is not None:
            low, high = self.data_range
        elif self.images.dtype == np.uint8:
            low, high = 0, 255
        else:
            low, high = self.images.min(), self.images.max()
        images = images.reshape(*images.shape[:3], -1).astype(np.float64)
        images = np.clip((images - low) / (high - low if high > low else 1), 0, 1)
        return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images

    def _draw_outlines(self, hidden: np.ndarray, top: float, across: float) -> np.ndarray:
        effects = import_optional(
            "matplotlib.patheffects", extra="plot", purpose="AttributionDisplay"
        )
        border = [effects.withStroke(linewidth=2 * _LINE, foreground="black")]
        drawn = np.empty(len(hidden), dtype=object)
        for i, pixels in enumerate(hidden):
            (drawn[i],) = self.ax_.plot(
                *(_outline(pixels) + np.array([i * across, top])).T,
                color="white",
                linewidth=_LINE,
                solid_capstyle="projecting",
                clip_on=False,
                path_effects=border,
            )
        return drawn


def _arrays(argument: str, named: Mapping[str, ArrayLike] | None) -> dict[str, np.ndarray]:
    if named is not None and not isinstance(named, Mapping):
        raise TypeError(
            f"{argument} is {type(named).__name__}, where a mapping from names to arrays was "
            f"wanted. Give a name to the row: {argument}={{name: array}}."
        )
    return {name: np.asarray(array) for name, array in (named or {}).items()}


def _first(X: Any, n: int) -> Any:
    """The first samples, in whatever form they are."""
    if isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, range(min(n, len(X))))  # type: ignore[arg-type]  # not all have
    return getattr(X, "iloc", X)[:n]


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, 1, 3)


def _maps(masker: PatchAttributionMasker, images: Images) -> dict[str, Any]:
    array = images.read(0, images.n_samples)
    found = masker.attribute(array)
    if found.ndim == 3:
        maps = {"maps": found}
    else:
        maps = {name: found[:, i] for i, name in enumerate(masker.attribute_names_)}
    return {
        "images": _channels_last(array),
        "maps": maps,
        "hidden": masker.perturbed_pixels(array),
    }


def _mean_map(masker: PatchAttributionMasker, images: Images) -> dict[str, Any]:
    total = sum(batch.sum(0, dtype=np.float64) for _, batch in masker._batches(images))
    maps = {"mean map": masker.mean_map_[None]}
    if masker.mean_map_.ndim == 3:
        named = zip(masker.attribute_names_, masker.mean_map_, strict=True)
        maps = {f"mean map,\n{name}": one[None] for name, one in named}
    return {
        "images": _channels_last(total[None] / images.n_samples),
        "maps": maps,
        "hidden": masker.set_params(scope="general").perturbed_pixels(images.read(0, 1)),
        "image_name": "mean image",
    }


def _perturbations(masker: PatchAttributionMasker, images: Images) -> dict[str, Any]:
    array = images.read(0, images.n_samples)
    perturbed = {}
    for scope, change in _MODES:
        masker.set_params(scope=scope, perturbation=change)
        perturbed[f"{scope}\n{change}"] = _channels_last(masker.mask(array))
    return {"images": _channels_last(array), "perturbed": perturbed}


def _luminance(colours: np.ndarray) -> np.ndarray:
    """The images in grey, on white where they are transparent."""
    opacity = colours[..., 3] if colours.shape[3] == 4 else 1.0
    return colours[..., :3] @ _LUMINANCE * opacity + (1 - opacity)


def _outline(hidden: np.ndarray) -> np.ndarray:
    """Lines between pixels that are hidden and pixels that are not, as one line with gaps.

    Parameters
    ----------
    hidden : ndarray of shape (height, width), bool

    Returns
    -------
    ndarray of shape (3 * n_lines, 2)
        Of each line x and y of its ends, and NaN.
    """
    inside = np.pad(hidden, 1)
    level = _runs(inside[1:, 1:-1] != inside[:-1, 1:-1])[..., ::-1]
    upright = _runs((inside[1:-1, 1:] != inside[1:-1, :-1]).T)
    ends = np.concatenate([level, upright]).astype(np.float64)
    return np.pad(ends, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 2)


def _runs(edges: np.ndarray) -> np.ndarray:
    """Where edges follow one another in a row of the array, (row, first) and (row, end)."""
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    return np.stack([np.argwhere(change == 1), np.argwhere(change == -1)], 1)
