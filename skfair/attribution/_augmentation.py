"""Patch attribution, stage 4 in a training loop: perturb batches, with new draws each time."""

import zlib

import torch
from torch import nn
from torch.nn import functional as F

from skfair.attribution._perturbation import Perturbation, hidden_pixels
from skfair.attribution._region_classifier import RegionClassifier


class PatchAugmentation(nn.Module):
    """Perturb images batch by batch.

    :meth:`PatchAttributionMasker.augmentation` makes it. Noise, swaps and the holes of images in
    which nothing is found are drawn from torch's own generator: they differ from batch to batch,
    and are the same in each run of a seeded training.

    Parameters
    ----------
    classifier : RegionClassifier
        Makes the maps.
    confidence : str
        Confidence in the maps, one of :data:`skfair.attribution._confidence.CONFIDENCES`.
    quantile : float
        Share of the pixels that is kept, before the margin.
    margin : int
        Pixels by which the hidden area grows on each side.
    general : tensor of shape (height, width), bool, or None
        Pixels to perturb in all images; None if each image has a map of its own.
    holes : tensor of shape (n_attributes, n_holes, height, width), bool
        Hidden pixels of other images that have the attribute.
    threshold : tensor of shape (n_attributes,)
        Score from which on the attribute is found in an image. Minus infinity for an attribute
        of which every value shows.
    image_shape : tuple of three int
        (channels, height, width) of the images of ``fit``.
    dtype : torch.dtype
        ``uint8`` if the images of ``fit`` were, otherwise ``float32``.
    perturbation : Perturbation
        What happens to the pixels.
    """

    general: torch.Tensor | None
    holes: torch.Tensor
    threshold: torch.Tensor

    def __init__(
        self,
        classifier: RegionClassifier,
        *,
        confidence: str,
        quantile: float,
        margin: int,
        general: torch.Tensor | None,
        holes: torch.Tensor,
        threshold: torch.Tensor,
        image_shape: tuple[int, int, int],
        dtype: torch.dtype,
        perturbation: Perturbation,
    ):
        super().__init__()
        self.classifier = classifier
        self.confidence = confidence
        self.quantile = quantile
        self.margin = margin
        self.register_buffer("general", general)
        self.register_buffer("holes", holes)
        self.register_buffer("threshold", threshold)
        self.image_shape = image_shape
        self.dtype = dtype
        self.perturbation = perturbation
        self.eval()

    def train(self, mode: bool = True) -> "PatchAugmentation":
        """Stay in eval mode, also as a part of a model in training."""
        return super().train(False)

    def forward(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Perturb a batch, or one image.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width) or (n_channels, height, width)
            In the units and of the size of the images of ``fit``, on the device of this module.
        hidden : array-like of shape (n, height, width) or (height, width), bool, optional
            Pixels to perturb, from :meth:`PatchAttributionMasker.perturbed_pixels`. It saves the
            time to make the maps of each image again in each epoch.

        Returns
        -------
        tensor of the shape and type of `images`

        Raises
        ------
        ValueError
            The images do not have the size or type of those in ``fit``, `hidden` does not have the
            size of the images, or ``perturbation="swap"`` gets a single image.
        """
        if hidden is not None:
            hidden = torch.as_tensor(hidden, device=images.device)
        if images.ndim == 3:
            return self(images[None], None if hidden is None else hidden[None])[0]
        self._check(images)
        if self.perturbation.kind == "swap" and len(images) == 1:
            raise ValueError(
                "images is a single image, and perturbation='swap' moves parts between the images "
                "of a batch: a single image with the attribute would get its own part back, and "
                "an image without would get none. Give batches, or make the images once with "
                "masker.mask(X)."
            )
        found = None
        if self.perturbation.kind == "swap":
            found_hidden, found = self.look(images, by_content=False)
            hidden = found_hidden if hidden is None else hidden
        elif hidden is None:
            hidden = self.hidden(images, by_content=False)
        if hidden.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"hidden has shape {tuple(hidden.shape)}; expected one value a pixel, "
                f"{(len(images), *images.shape[2:])}. Give the result of perturbed_pixels."
            )
        if found is None:
            return self.perturbation(images, hidden)
        # Drawn on the CPU, so that a seed gives the same draws on every device.
        paste = (torch.rand(len(images)) < 0.5).to(images.device)
        having = found.nonzero()[:, 0]
        if not len(having):
            return self.perturbation(images, hidden)
        donors = having[torch.randint(len(having), (len(images),)).to(images.device)]
        pasted = hidden[donors] & paste[:, None, None]
        return self.perturbation.swap(images, hidden, images[donors], pasted)

    def _check(self, images: torch.Tensor) -> None:
        fixed = self.general is not None or not self.classifier.any_size
        size = self.image_shape if fixed else (self.image_shape[0], *images.shape[2:])
        if tuple(images.shape[1:]) != size:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; expected (n, channels, height, width) "
                f"with {self.image_shape}, as in fit. Resize the images, or move the channels, "
                "images.permute(0, 3, 1, 2)."
            )
        if (images.dtype == torch.uint8) != (self.dtype == torch.uint8):
            raise ValueError(
                f"images has type {images.dtype}, fit saw {self.dtype}: 8-bit values go from 0 to "
                "255, and floats mostly do not. Perturb the images before you scale them."
            )

    def hidden(self, images: torch.Tensor, *, by_content: bool = True) -> torch.Tensor:
        """Find the pixels to perturb, without the network if one map serves all images.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        by_content : bool, default=True
            As in :meth:`look`.

        Returns
        -------
        tensor of shape (n, height, width), bool
        """
        if self.general is not None:
            return self.general.expand(len(images), -1, -1)
        return self.look(images, by_content=by_content)[0]

    def look(self, images: torch.Tensor, *, by_content: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the pixels to perturb, and the images in which the attribute is found.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        by_content : bool
            Whether the content of an image in which nothing is found decides whose hole it gets.
            If not, the hole is drawn.

        Returns
        -------
        hidden : tensor of shape (n, height, width), bool
        found : tensor of shape (n,), bool
            Whether any attribute is found.
        """
        proba = self.classifier.probabilities(images)
        score = self.classifier.confidence(proba, "probability").flatten(2).amax(2)
        found = score >= self.threshold
        if self.general is not None:
            return self.general.expand(len(images), -1, -1), found.any(1)
        region = self.classifier.confidence(proba, self.confidence)
        hidden = self.hide(region, found, images, by_content=by_content)
        return hidden, found.any(1)

    def hide(
        self,
        region: torch.Tensor,
        found: torch.Tensor,
        images: torch.Tensor,
        *,
        by_content: bool,
    ) -> torch.Tensor:
        """Turn the confidence at all positions into the pixels to perturb.

        An image in which nothing is found gets the hole of another image. Without it, a network
        could tell the attribute by whether an image has a hole, and where.

        Parameters
        ----------
        region : tensor of shape (n, n_attributes, n_rows, n_cols)
        found : tensor of shape (n, n_attributes), bool
        images : tensor of shape (n, n_channels, height, width)
        by_content : bool
            As in :meth:`look`.

        Returns
        -------
        tensor of shape (n, height, width), bool
        """
        n_holes = self.holes.shape[1]
        maps = self.classifier.grid(images).pixel_map(region)
        hidden = hidden_pixels(maps, self.quantile, self.margin)
        if by_content:
            numbers = [zlib.crc32(image.tobytes()) for image in images.cpu().numpy()]
            which = torch.tensor(numbers) % n_holes
        else:
            which = torch.randint(n_holes, (len(images),))
        holes = self.holes[:, which.to(images.device)].movedim(1, 0)
        if holes.shape != hidden.shape:  # images that do not have the size of those in fit
            holes = F.interpolate(holes.float(), size=hidden.shape[2:]) > 0.5
        return torch.where(found[..., None, None], hidden, holes).any(1)
