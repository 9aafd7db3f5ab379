"""Patch attribution as a picture: maps over images, and images before and after."""

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
from skfair.attribution._masker import PatchAttributionMasker
from skfair.utils import import_optional, resolve_device

_KINDS = ("maps", "mean_map", "perturbations")
_MODES = [(scope, change) for scope in ("general", "specific") for change in ("mask", "noise")]
_LUMINANCE = (0.299, 0.587, 0.114)
# Its hues can be told apart by the colour-blind too, and it is ever lighter; the image can be
# seen through it.
_MAP_STYLE = {"cmap": "viridis", "alpha": 0.65}
_AS_IT_IS: dict[str, Any] = {"parse_math": False}  # names may have dollars in them
_LINE = 1.2  # points, and half of it in black on either side
_GAP = 0.06  # between images, in sides of an image
_TITLE = 0.2  # above an image with a title, likewise
_PANEL, _WIDE, _HIGH = (0.7, 2.2), 9.0, 6.5  # inches: an image, and all of them together
_SWAPPED = 100  # images that parts come from, where a picture shows what a swap does


class AttributionDisplay:
    """Images, and below them where an attribute shows in them, or what becomes of them.

    Made by :meth:`from_estimator`, or from arrays. The upper row shows the images. A row of maps
    shows them in grey under colours, on one scale for all maps, with lines around the pixels that
    are hidden. A row of perturbed images shows what is left.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or (n_images, height, width, n_channels)
        Grey images, or images with one, three (RGB) or four (RGBA) channels.
    maps : mapping of str to array-like of shape (n_images, height, width), default=None
        What to call each row of maps, and a map of each image, from 0 to 1.
    hidden : array-like of shape (n_images, height, width), bool, default=None
        Pixels to outline in all maps.
    borrowed : array-like of shape (n_images, height, width), bool, default=None
        Those of them that are hidden though nothing was found there, because they are what is
        hidden in another image. They get a dashed line, the others a solid one.
    titles : mapping of str to sequence of n_images str, default=None
        What to write above the maps of a row; the names are those of `maps`.
    note : str, default=None
        What to write below all images.
    scale_name : str, default="confidence"
        What to write beside the colours.
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
        The solid lines around what is hidden, in each row of maps; empty without `hidden`.
    borrowed_outlines_ : dict of str to ndarray of shape (n_images,), matplotlib Line2D
        The dashed lines; empty if there is nothing for them to go around.
    titles_ : dict of str to ndarray of shape (n_images,), matplotlib Text
        What is written above maps.
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
              around what :meth:`PatchAttributionMasker.mask` hides; dashed around the hole of
              another image, which is hidden where nothing is found. Above it the score of the
              image (:meth:`PatchAttributionMasker.attribute_score`), which is the highest
              probability of a patch, or that the attribute is not found, if it is below
              ``score_threshold_``; of more than two values the one with the highest score. Of
              several attributes that are not combined each has a row, in the order of the columns.
            - "mean_map": the general map, ``mean_map_``, over the mean of all images in `X`,
              with lines around what ``scope="general"`` hides.
            - "perturbations": what :meth:`PatchAttributionMasker.mask` makes of the images as the
              masker is set; and below, what it would make of them under each other `scope`, with
              "mask" and "noise". With ``perturbation="swap"`` the parts come from the first 100
              images of `X`.
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
        if isinstance(X, (str, os.PathLike)):
            X = files_of_folder(X)
        swaps = kind == "perturbations" and estimator.perturbation == "swap"
        n_read = max(n_images, _SWAPPED) if swaps else n_images
        images = estimator._open(X if kind == "mean_map" else _first(X, n_read))
        total, n_shown = len(X), min(n_images, images.n_samples)
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
        if kind == "mean_map":
            shown, name = _mean_map(masker, images), f"mean of\n{_count(total)}"
        else:
            compute = {"maps": _maps, "perturbations": _perturbations}[kind]
            shown, name = compute(masker, images, n_shown), _count(n_shown)
            if n_shown < total:
                name = f"first {n_shown:,}\nof {_count(total)}"
        display = cls(**shown, data_range=masker.data_range_, image_name=name)
        return display.plot(ax, map_kw=map_kw)

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
            # Light, so that a colour looks the same wherever it is.
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
            # As a part of the axes it is beside the maps in whatever layout the axes are.
            end = tops[len(self.maps)] + height
            place = (right + 1.5 * gap, tops[1], 2 * gap, end - tops[1])
            scale = ax.inset_axes(place, transform=ax.transData)
            first = next(iter(self.maps_.values()))[0]
            self.colorbar_ = ax.figure.colorbar(first, cax=scale, ticks=[0, 0.5, 1])
            scale.tick_params(labelsize=font)
            scale.set_ylabel(self.scale_name, fontsize=font, **_AS_IT_IS)
        return self

    def _below(self) -> list[str]:
        """What is written below all images, line by line."""
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
        if self.borrowed is not None and (
            self.hidden is None
            or self.borrowed.dtype != bool
            or self.borrowed.shape != self.hidden.shape
            or (self.borrowed & ~self.hidden).any()
        ):
            raise ValueError(
                f"borrowed has shape {self.borrowed.shape} and dtype {self.borrowed.dtype}, where "
                "a part of the pixels of hidden, bool and of the same shape, was wanted. Give "
                "hidden too, and borrowed & hidden."
            )
        for name, titles in self.titles.items():
            if (
                name not in self.maps
                or titles.dtype.kind != "U"
                or titles.shape != images.shape[:1]
            ):
                raise ValueError(
                    f"titles[{name!r}] has shape {titles.shape} and dtype {titles.dtype}, where "
                    f"the name of a row of maps and a list of {len(images)} str, one an image, "
                    f"were wanted. The rows are {', '.join(self.maps) or 'none'}."
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
            f"{argument} is {type(named).__name__}, where a mapping from names to arrays was "
            f"wanted. Give a name to the row: {argument}={{name: array}}."
        )
    return {name: np.asarray(array) for name, array in (named or {}).items()}


def _first(X: Any, n: int) -> Any:
    """The first samples, in whatever form they are."""
    if isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, range(min(n, len(X))))  # type: ignore[arg-type]  # not all have
    if not hasattr(X, "__getitem__"):
        return X  # no images; the masker says so
    return getattr(X, "iloc", X)[:n]


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, 1, 3)


def _count(n: int) -> str:
    return f"{n:,} image{'' if n == 1 else 's'}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _meanings(masker: PatchAttributionMasker) -> list[str]:
    """Of each attribute what its maps say is there."""
    labels = masker.pos_label_ if isinstance(masker.classes_, list) else [masker.pos_label_]
    meanings = []
    for name, label in zip(masker.attribute_names_, labels, strict=True):
        what = "attribute" if name == "sensitive_features" else name
        plain = label is None or (isinstance(label, bool | np.bool_) and label)
        meanings.append(what if plain else f"{what} = {_text(label)}")
    return meanings


def _scale_name(masker: PatchAttributionMasker) -> str:
    if masker.confidence != "probability":
        return "confidence,\nscaled in each map"
    labels = masker.pos_label_ if isinstance(masker.classes_, list) else [masker.pos_label_]
    if None in labels:
        return "P above guessing"
    meanings = _meanings(masker)
    return f"P({meanings[0] if len(meanings) == 1 else 'attribute'})"


def _named(masker: PatchAttributionMasker, arrays: np.ndarray, one: str) -> dict[str, np.ndarray]:
    """A row for each attribute, of arrays of which the axis before the last two is theirs."""
    if not isinstance(masker.classes_, list):
        return {one: arrays}
    return {name: arrays[..., i, :, :] for i, name in enumerate(_meanings(masker))}


def _titles(masker: PatchAttributionMasker, array: np.ndarray) -> tuple[list[list[str]], str]:
    """Of each attribute what the score of each image is, in words; and what these words mean."""
    several, result = isinstance(masker.classes_, list), masker.attribute_score(array)
    scores: Any = result if several else [result]
    classes = masker.classes_ if several else [masker.classes_]
    thresholds, meanings = masker.score_threshold_, _meanings(masker)
    titles, least = [], []
    for score, values, threshold, meaning in zip(
        scores, classes, thresholds, meanings, strict=True
    ):
        if score.ndim == 2:
            highest = zip(score.argmax(1), score.max(1), strict=True)
            titles.append([f"{_text(values[i])} {p:.2f}" for i, p in highest])
            continue
        found = score >= np.float32(threshold)
        titles.append(
            [f"max P {p:.2f}" if f else "not found" for p, f in zip(score, found, strict=True)]
        )
        least.append(f"{threshold:.2f}" + (f" ({meaning})" if several else ""))
    note = "above each map: highest P of a patch"
    return titles, note + ("\nnot found: below " + ",\n".join(least) if least else "")


def _borrowed(masker: PatchAttributionMasker, images: Images, hidden: np.ndarray) -> np.ndarray:
    """Pixels that are hidden because they are so in another image."""
    augmentation = masker._augmentation().to(resolve_device(masker.device))
    augmentation.holes.zero_()  # what is hidden without them is the image's own
    own = masker._collect(augmentation.hidden, images)
    return hidden & ~own


def _maps(masker: PatchAttributionMasker, images: Images, n: int) -> dict[str, Any]:
    array = images.read(0, n)
    hidden = masker.perturbed_pixels(array)
    maps = _named(masker, masker.attribute(array), "maps")
    titles, note = _titles(masker, array)
    return {
        "images": _channels_last(array),
        "maps": maps,
        "hidden": hidden,
        "borrowed": _borrowed(masker, images, hidden),
        "titles": dict(zip(maps, titles, strict=True)),
        "note": note,
        "scale_name": _scale_name(masker),
    }


def _mean_map(masker: PatchAttributionMasker, images: Images) -> dict[str, Any]:
    total = sum(batch.sum(0, dtype=np.float64) for _, batch in masker._batches(images))
    scope = masker._scope()
    maps = _named(masker, masker.mean_map_, "mean map")
    if isinstance(masker.classes_, list):
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
    as_set = masker._scope(), masker.perturbation
    modes = [as_set, *(mode for mode in _MODES if mode != as_set)]
    perturbed = {}
    for scope, change in modes:
        masker.set_params(scope=scope, perturbation=change)
        name = f"{scope}\n{change}" + ("\n(as set)" if (scope, change) == as_set else "")
        some = array if change == "swap" else array[:n]
        perturbed[name] = _channels_last(masker.mask(some)[:n])
    return {"images": _channels_last(array[:n]), "perturbed": perturbed}


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
