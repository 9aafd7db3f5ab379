"""Patch attribution, pictures: maps over images, and images before and after perturbation."""

import copy
import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skfair._images._files import files_of_folder
from skfair._images._view import Images
from skfair.attribution._attributes import as_list
from skfair.attribution._batches import BatchRunner
from skfair.attribution._masker import PatchAttributionMasker
from skfair.utils import import_optional
from skfair.utils._device import resolve_device

_KINDS = ("maps", "mean_map", "perturbations")
_MODES = [(scope, change) for scope in ("general", "specific") for change in ("mask", "noise")]
_LUMINANCE = (0.299, 0.587, 0.114)
# Colour-blind people can tell the hues of this colour map, and its lightness only rises. The image
# stays visible below it.
_MAP_STYLE = {"cmap": "viridis", "alpha": 0.65}
_AS_IT_IS: dict[str, Any] = {"parse_math": False}  # names may contain dollars
_LINE = 1.2  # points, and half of it in black on either side
_GAP = 0.06  # between images, in sides of an image
_TITLE = 0.2  # above an image with a title, likewise
_PANEL, _WIDE, _HIGH = (0.7, 2.2), 9.0, 6.5  # inches: an image, and all of them together
_SWAPPED = 100  # images from which parts come in a picture of a swap


class AttributionDisplay:
    """Plot images, and below them the maps of an attribute or the perturbed images.

    :meth:`from_estimator` makes it from a masker; it can also be made from arrays. The upper row
    shows the images. A row of maps shows the images in grey under colours, on one scale for all
    maps, with lines around the hidden pixels. A row of perturbed images shows what is left. The
    maps are those of Section 3.2 of [1]_, the perturbations those of Section 3.3.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or (n_images, height, width, n_channels)
        Grey images, or images with one, three (RGB) or four (RGBA) channels.
    maps : mapping of str to array-like of shape (n_images, height, width), default=None
        Name of each row of maps, and a map of each image, from 0 to 1.
    hidden : array-like of shape (n_images, height, width), bool, default=None
        Pixels to outline in all maps.
    borrowed : array-like of shape (n_images, height, width), bool, default=None
        Hidden pixels that come from another image, as nothing was found in this image. They get
        a dashed line, the others a solid one.
    titles : mapping of str to sequence of n_images str, default=None
        Texts above the maps of a row; the names are those of `maps`.
    note : str, default=None
        Text below all images.
    scale_name : str, default="confidence"
        Text beside the colours.
    perturbed : mapping of str to array-like of the shape of `images`, default=None
        Name of each row of perturbed images, and the images.
    data_range : tuple of two float, default=None
        Values shown as black and as white. Values outside are shown as the nearest of both. If
        None, 0 and 255 for uint8 images, otherwise the lowest and highest value in `images`.
    image_name : str, default="images"
        Name of the upper row.

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
        The solid lines around hidden pixels, in each row of maps; empty without `hidden`.
    borrowed_outlines_ : dict of str to ndarray of shape (n_images,), matplotlib Line2D
        The dashed lines around borrowed pixels; empty if there are none.
    titles_ : dict of str to ndarray of shape (n_images,), matplotlib Text
        The texts above maps.
    perturbed_ : dict of str to ndarray of shape (n_images,), matplotlib AxesImage
        The perturbed images.
    colorbar_ : matplotlib Colorbar or None
        Scale of all maps.

    Raises
    ------
    ValueError
        The arrays do not fit together, or are not images or maps.

    See Also
    --------
    PatchAttributionMasker : Makes the maps and hides the pixels.
    skfair.metrics.ReliabilityDisplay : Shows whether the confidence in the maps is justified.

    References
    ----------
    .. [1] S. De Coninck, S. Leroux and P. Simoens, "Mitigating Bias Using Model-Agnostic Data
       Attribution", CVPR Workshops, 2024. arXiv:2405.05031.

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
        borrowed: ArrayLike | None = None,
        titles: Mapping[str, Sequence[str]] | None = None,
        note: str | None = None,
        scale_name: str = "confidence",
        perturbed: Mapping[str, ArrayLike] | None = None,
        data_range: tuple[float, float] | None = None,
        image_name: str = "images",
    ):
        self.images = np.asarray(images)
        self.maps = _arrays("maps", maps)
        self.hidden = None if hidden is None else np.asarray(hidden)
        self.borrowed = None if borrowed is None else np.asarray(borrowed)
        self.titles = _arrays("titles", titles)
        self.note = note
        self.scale_name = scale_name
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
        """Plot the maps that a masker makes of images, or the images that it perturbs.

        Parameters
        ----------
        estimator : fitted PatchAttributionMasker
            The masker; it is not changed.
        X : array-like, sequence or Dataset
            Images of the kind seen in ``fit``.
        kind : {"maps", "mean_map", "perturbations"}, default="maps"
            Rows to plot.

            - "maps": the map of each image (:meth:`PatchAttributionMasker.attribute`), with lines
              around the pixels that :meth:`PatchAttributionMasker.mask` hides. A line is dashed
              around the hole of another image, which an image gets if nothing is found in it.
              Above the map is the score of the image
              (:meth:`PatchAttributionMasker.attribute_score`), the highest probability of a patch,
              or "not found" if the score is below ``score_threshold_``. With more than two values
              it is the value with the highest score. Several attributes that are not combined
              have a row each, in the order of the columns.
            - "mean_map": the general map, ``mean_map_``, over the mean of all images in `X`,
              with lines around the pixels that ``scope="general"`` hides.
            - "perturbations": the result of :meth:`PatchAttributionMasker.mask` with the current
              parameters, and below it the results with each other `scope`, "mask" and "noise".
              With ``perturbation="swap"`` the parts come from the first 100 images of `X`.
        n_images : int, default=8
            Number of images to plot, the first ones of `X`; all if `X` has fewer. "mean_map"
            always takes the mean over all images.
        ax : matplotlib Axes, default=None
            Axes to draw into; by default new ones of a suitable size.
        map_kw : dict, default=None
            Passed to ``Axes.imshow`` for the maps: `cmap` or `alpha`, for instance.

        Returns
        -------
        display : AttributionDisplay

        Raises
        ------
        TypeError
            `estimator` is not a masker.
        sklearn.exceptions.NotFittedError
            `estimator` is not fitted.
        ValueError
            `kind` or `n_images` is not as described, or the images are not of the kind seen in
            ``fit``, or do not have one, three or four channels.
        ImportError
            matplotlib is not installed.
        """
        if not isinstance(estimator, PatchAttributionMasker):
            raise TypeError(
                f"estimator is {type(estimator).__name__}; expected a fitted "
                "PatchAttributionMasker. From a pipeline pass the step, pipeline[0]. For maps from "
                "elsewhere pass arrays: AttributionDisplay(images, maps={name: maps}).plot()."
            )
        if kind not in _KINDS:
            raise ValueError(f"kind={kind!r} is unknown. Take one of {', '.join(_KINDS)}.")
        if not isinstance(n_images, Integral) or n_images < 1:
            raise ValueError(f"n_images={n_images!r} is not a number of images. Give 1 or more.")
        check_is_fitted(estimator)
        if isinstance(X, (str, os.PathLike)):
            X = files_of_folder(X)
        swaps = kind == "perturbations" and estimator.perturbation == "swap"
        n_read = max(n_images, _SWAPPED) if swaps else n_images
        images, runner = estimator._open(X if kind == "mean_map" else _first(X, n_read))
        total, n_shown = len(X), min(n_images, images.n_samples)
        if kind != "maps" and images.shape != estimator.image_shape_:
            raise ValueError(
                f"X has images of shape {images.shape}, but kind={kind!r} needs the shape of the "
                f"images of fit, {estimator.image_shape_} (channels, height, width). Resize the "
                "images, or pass kind='maps'."
            )
        # This copy takes arrays, channels first, whatever form the images of `fit` had. It has a
        # random state of its own, so that the masker draws the same noise as without this plot.
        masker = copy.copy(estimator).set_params(
            image_shape=None,
            data_format="channels_first",
            random_state=copy.deepcopy(estimator.random_state),
        )
        for name in ("n_features_in_", "feature_names_in_"):
            vars(masker).pop(name, None)
        if kind == "mean_map":
            shown, name = _mean_map(masker, images, runner), f"mean of\n{_count(total)}"
        else:
            compute = {"maps": _maps, "perturbations": _perturbations}[kind]
            shown, name = compute(masker, images, n_shown), _count(n_shown)
            if n_shown < total:
                name = f"first {n_shown:,}\nof {_count(total)}"
        display = cls(**shown, data_range=masker.data_range_, image_name=name)
        return display.plot(ax, map_kw=map_kw)

    def plot(self, ax: Any = None, *, map_kw: dict[str, Any] | None = None) -> "AttributionDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; by default new ones of a suitable size.
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
        gap, room = _GAP * max(height, width), _TITLE * max(height, width)
        across = width + gap
        above = [gap, *(room if name in self.titles else gap for name in self.maps)]
        above += [gap] * len(self.perturbed)
        tops = np.cumsum(above) - gap + height * np.arange(len(labels))
        bottom = tops[-1] + height
        right = n * across - gap
        if ax is None:
            panel = np.clip(min(_WIDE / n, _HIGH / len(labels)), *_PANEL)  # of the longer side
            inches = panel / max(height, width)
            letters = max(len(line) for label in labels for line in label.split("\n"))
            beside = 0.2 + 0.09 * letters + (1 if self.maps else 0)
            size = (right * inches + beside, bottom * inches + 0.3 + 0.2 * len(self._below()))
            _, ax = pyplot.subplots(figsize=size, layout="compressed")
        self.ax_, self.figure_ = ax, ax.figure

        def draw(row: int, arrays: np.ndarray, **style: Any) -> np.ndarray:
            pictures = np.empty(n, dtype=object)
            for i, array in enumerate(arrays):
                x, y = i * across, tops[row]
                pictures[i] = ax.imshow(
                    array, origin="upper", extent=(x, x + width, y + height, y), **style
                )
            return pictures

        colours = self._colours(self.images)
        self.images_ = draw(0, colours)
        self.maps_, self.outlines_, self.borrowed_outlines_ = {}, {}, {}
        self.titles_, self.perturbed_, self.colorbar_ = {}, {}, None
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
        for row, (name, maps) in enumerate(self.maps.items(), 1):
            # In light grey, so that a colour looks the same on dark and on bright pixels.
            draw(row, 0.5 + 0.5 * _luminance(colours), **grey)
            self.maps_[name] = draw(row, maps, **(_MAP_STYLE | (map_kw or {})), vmin=0, vmax=1)
            if self.hidden is not None:
                own = self.hidden if self.borrowed is None else self.hidden & ~self.borrowed
                self.outlines_[name] = self._draw_outlines(own, tops[row], across, "-")
            if self.borrowed is not None and self.borrowed.any():
                lines = self._draw_outlines(self.borrowed, tops[row], across, (0, (2, 2)))
                self.borrowed_outlines_[name] = lines
        for row, (name, perturbed) in enumerate(self.perturbed.items(), 1 + len(self.maps)):
            self.perturbed_[name] = draw(row, self._colours(perturbed))

        ax.set(xlim=(0, right), ylim=(bottom, 0), aspect="equal", xticks=[])
        ax.set_yticks(tops + height / 2, labels, **_AS_IT_IS)
        ax.spines[:].set_visible(False)
        pixel = min(ax.bbox.width / right, ax.bbox.height / bottom) / ax.figure.dpi  # inches
        font = "medium" if pixel * max(height, width) > 0.9 else "small"
        ax.tick_params(length=0, labelsize=font)
        ax.set_xlabel("\n".join(self._below()), fontsize=font, **_AS_IT_IS)
        for name, titles in self.titles.items():
            top = tops[1 + list(self.maps).index(name)]
            letters = max(1, *map(len, titles.tolist()))
            # No wider than the image, no higher than the room.
            points = min(10, 72 * pixel * min(width / (0.62 * letters), room / 1.35))
            style = {"fontsize": points, "ha": "center", "va": "bottom"} | _AS_IT_IS
            drawn = np.empty(n, dtype=object)
            for i, title in enumerate(titles.tolist()):
                drawn[i] = ax.text(i * across + width / 2, top - 0.1 * room, title, **style)
            self.titles_[name] = drawn
        if self.maps:
            # As a part of the axes, the colour bar stays beside the maps in any layout.
            end = tops[len(self.maps)] + height
            place = (right + 1.5 * gap, tops[1], 2 * gap, end - tops[1])
            scale = ax.inset_axes(place, transform=ax.transData)
            first = next(iter(self.maps_.values()))[0]
            self.colorbar_ = ax.figure.colorbar(first, cax=scale, ticks=[0, 0.5, 1])
            scale.tick_params(labelsize=font)
            scale.set_ylabel(self.scale_name, fontsize=font, **_AS_IT_IS)
        return self

    def _below(self) -> list[str]:
        """The lines of text below all images."""
        lines = [] if self.note is None else self.note.split("\n")
        if self.hidden is not None:
            lines.append(f"outlined: hidden, {self.hidden.mean():.0%} of pixels")
        if self.borrowed is not None and self.borrowed.any():
            lines.append("dashed: hole of another image")
        return lines

    def _check(self) -> None:
        images, n_channels = self.images, (self.images.shape[3:] or (1,))[0]
        if images.ndim not in (3, 4) or images.size == 0 or n_channels not in (1, 3, 4):
            raise ValueError(
                f"images has shape {images.shape}; expected (n_images, height, width) or "
                "(n_images, height, width, n_channels) with 1, 3 or 4 channels. Move the channels "
                "to the end, np.moveaxis(images, 1, -1), and select the channels to show."
            )
        if not np.isfinite(images).all():
            raise ValueError("images has NaN or infinity. Leave such images out.")
        if self.data_range is not None and not (
            len(self.data_range) == 2 and self.data_range[0] < self.data_range[1]
        ):
            raise ValueError(
                f"data_range={self.data_range!r} is not (lowest, highest), two numbers with "
                "lowest < highest. Pass (0, 1) or (0, 255), as the images are scaled."
            )
        for name, maps in self.maps.items():
            if maps.shape != images.shape[:3]:
                raise ValueError(
                    f"maps[{name!r}] has shape {maps.shape}; expected {images.shape[:3]}. Give "
                    "one value for each pixel of each image."
                )
            if not ((maps >= 0) & (maps <= 1)).all():
                raise ValueError(
                    f"maps[{name!r}] has values from {maps.min():g} to {maps.max():g}; expected "
                    "0 to 1. Scale the maps, as masker.attribute(X) does."
                )
        if self.hidden is not None and (
            not self.maps or self.hidden.dtype != bool or self.hidden.shape != images.shape[:3]
        ):
            raise ValueError(
                f"hidden has shape {self.hidden.shape} and dtype {self.hidden.dtype}, and there "
                f"are {len(self.maps)} rows of maps to draw it in; expected {images.shape[:3]}, "
                "bool and at least one row of maps. Pass the result of masker.perturbed_pixels(X), "
                "and maps."
            )
        if self.borrowed is not None and (
            self.hidden is None
            or self.borrowed.dtype != bool
            or self.borrowed.shape != self.hidden.shape
            or (self.borrowed & ~self.hidden).any()
        ):
            raise ValueError(
                f"borrowed has shape {self.borrowed.shape} and dtype {self.borrowed.dtype}; "
                "expected a part of the pixels of hidden, bool and of the same shape. Pass hidden "
                "too, and borrowed & hidden."
            )
        for name, titles in self.titles.items():
            if (
                name not in self.maps
                or titles.dtype.kind != "U"
                or titles.shape != images.shape[:1]
            ):
                raise ValueError(
                    f"titles[{name!r}] has shape {titles.shape} and dtype {titles.dtype}; "
                    f"expected the name of a row of maps and a list of {len(images)} str, one for "
                    f"each image. The rows of maps are: {', '.join(self.maps) or 'none'}."
                )
        for name, perturbed in self.perturbed.items():
            if perturbed.shape != images.shape:
                raise ValueError(
                    f"perturbed[{name!r}] has shape {perturbed.shape}; expected the shape of "
                    f"images, {images.shape}. Give the same images, perturbed."
                )

    def _colours(self, images: np.ndarray) -> np.ndarray:
        """Scale images for display, to RGB or RGBA from 0 to 1."""
        if self.data_range is not None:
            low, high = self.data_range
        elif self.images.dtype == np.uint8:
            low, high = 0, 255
        else:
            low, high = self.images.min(), self.images.max()
        images = images.reshape(*images.shape[:3], -1).astype(np.float64)
        images = np.clip((images - low) / (high - low if high > low else 1), 0, 1)
        return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images

    def _draw_outlines(
        self, hidden: np.ndarray, top: float, across: float, style: Any
    ) -> np.ndarray:
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
                linestyle=style,
                solid_capstyle="projecting",
                clip_on=False,
                path_effects=border,
            )
        return drawn


def _arrays(argument: str, named: Mapping[str, ArrayLike] | None) -> dict[str, np.ndarray]:
    if named is not None and not isinstance(named, Mapping):
        raise TypeError(
            f"{argument} is {type(named).__name__}; expected a mapping from names to arrays. Give "
            f"the row a name: {argument}={{name: array}}."
        )
    return {name: np.asarray(array) for name, array in (named or {}).items()}


def _first(X: Any, n: int) -> Any:
    """The first samples, in the form of `X`."""
    if isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, range(min(n, len(X))))  # type: ignore[arg-type]  # not all have
    if not hasattr(X, "__getitem__"):
        return X  # not images; the masker raises an error that says so
    return getattr(X, "iloc", X)[:n]


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, 1, 3)


def _count(n: int) -> str:
    return f"{n:,} image{'' if n == 1 else 's'}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _meanings(masker: PatchAttributionMasker) -> list[str]:
    """Name what the maps of each attribute show."""
    meanings = []
    for name, label in zip(masker.attribute_names_, as_list(masker.pos_label_), strict=True):
        what = "attribute" if name == "sensitive_features" else name
        plain = label is None or (isinstance(label, bool | np.bool_) and label)
        meanings.append(what if plain else f"{what} = {_text(label)}")
    return meanings


def _scale_name(masker: PatchAttributionMasker) -> str:
    if masker.confidence != "probability":
        return "confidence,\nscaled in each map"
    if None in as_list(masker.pos_label_):
        return "P above guessing"
    meanings = _meanings(masker)
    return f"P({meanings[0] if len(meanings) == 1 else 'attribute'})"


def _named(masker: PatchAttributionMasker, arrays: np.ndarray, one: str) -> dict[str, np.ndarray]:
    """Split arrays into a row for each attribute, along the axis before the last two."""
    meanings = _meanings(masker)
    if len(meanings) == 1:
        return {one: arrays}
    return {name: arrays[..., i, :, :] for i, name in enumerate(meanings)}


def _titles(masker: PatchAttributionMasker, array: np.ndarray) -> tuple[list[list[str]], str]:
    """Describe the scores of the images for each attribute, and explain these texts."""
    meanings = _meanings(masker)
    titles, least = [], []
    for score, values, threshold, meaning in zip(
        as_list(masker.attribute_score(array)),
        as_list(masker.classes_),
        masker.score_threshold_,
        meanings,
        strict=True,
    ):
        if score.ndim == 2:
            highest = zip(score.argmax(1), score.max(1), strict=True)
            titles.append([f"{_text(values[i])} {p:.2f}" for i, p in highest])
            continue
        found = score >= np.float32(threshold)
        titles.append(
            [f"max P {p:.2f}" if f else "not found" for p, f in zip(score, found, strict=True)]
        )
        least.append(f"{threshold:.2f}" + (f" ({meaning})" if len(meanings) > 1 else ""))
    note = "above each map: highest P of a patch"
    return titles, note + ("\nnot found: below " + ",\n".join(least) if least else "")


def _borrowed(masker: PatchAttributionMasker, array: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden pixels that come from another image."""
    images, runner = masker._open(array)
    augmentation = masker._augmentation(masker._hiding()).to(resolve_device(masker.device))
    augmentation.holes.zero_()  # the pixels that are hidden now are the image's own
    return hidden & ~runner.collect(augmentation.hidden, images)


def _maps(masker: PatchAttributionMasker, images: Images, n: int) -> dict[str, Any]:
    array = images.read(0, n)
    hidden = masker.perturbed_pixels(array)
    maps = _named(masker, masker.attribute(array), "maps")
    titles, note = _titles(masker, array)
    return {
        "images": _channels_last(array),
        "maps": maps,
        "hidden": hidden,
        "borrowed": _borrowed(masker, array, hidden),
        "titles": dict(zip(maps, titles, strict=True)),
        "note": note,
        "scale_name": _scale_name(masker),
    }


def _mean_map(
    masker: PatchAttributionMasker, images: Images, runner: BatchRunner
) -> dict[str, Any]:
    total = sum(batch.sum(0, dtype=np.float64) for _, batch in runner.batches(images))
    scope = masker._hiding().scope
    maps = _named(masker, masker.mean_map_, "mean map")
    if len(maps) > 1:
        maps = {f"mean map,\n{name}": one for name, one in maps.items()}
    return {
        "images": _channels_last(total[None] / images.n_samples),
        "maps": {name: one[None] for name, one in maps.items()},
        "hidden": masker.set_params(scope="general").perturbed_pixels(images.read(0, 1)),
        "note": None if scope == "general" else f"with scope='general' (it is {scope!r})",
        "scale_name": _scale_name(masker),
    }


def _perturbations(masker: PatchAttributionMasker, images: Images, n: int) -> dict[str, Any]:
    array = images.read(0, images.n_samples)
    as_set = masker._hiding().scope, masker.perturbation
    modes = [as_set, *(mode for mode in _MODES if mode != as_set)]
    perturbed = {}
    for scope, change in modes:
        masker.set_params(scope=scope, perturbation=change)
        name = f"{scope}\n{change}" + ("\n(as set)" if (scope, change) == as_set else "")
        some = array if change == "swap" else array[:n]
        perturbed[name] = _channels_last(masker.mask(some)[:n])
    return {"images": _channels_last(array[:n]), "perturbed": perturbed}


def _luminance(colours: np.ndarray) -> np.ndarray:
    """Convert images to grey, on white where they are transparent."""
    opacity = colours[..., 3] if colours.shape[3] == 4 else 1.0
    return colours[..., :3] @ _LUMINANCE * opacity + (1 - opacity)


def _outline(hidden: np.ndarray) -> np.ndarray:
    """Find the lines between hidden and visible pixels, as one line with gaps.

    Parameters
    ----------
    hidden : ndarray of shape (height, width), bool

    Returns
    -------
    ndarray of shape (3 * n_lines, 2)
        x and y of both ends of each line, then NaN.
    """
    inside = np.pad(hidden, 1)
    level = _runs(inside[1:, 1:-1] != inside[:-1, 1:-1])[..., ::-1]
    upright = _runs((inside[1:-1, 1:] != inside[1:-1, :-1]).T)
    ends = np.concatenate([level, upright]).astype(np.float64)
    return np.pad(ends, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 2)


def _runs(edges: np.ndarray) -> np.ndarray:
    """Find runs of neighbouring edges in each row of the array: (row, first) and (row, end)."""
    change = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    return np.stack([np.argwhere(change == 1), np.argwhere(change == -1)], 1)
