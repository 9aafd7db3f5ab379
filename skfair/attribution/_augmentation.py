"""Patch attribution in a training loop: perturb a batch, in another way each time."""

import zlib

import torch
from torch import nn
from torch.nn import functional as F

from skfair.attribution._perturbation import Perturbation, hidden_pixels
from skfair.attribution._region_classifier import RegionClassifier


class PatchAugmentation(nn.Module):
    """Perturb images batch by batch.

    Made by :meth:`PatchAttributionMasker.augmentation`. What is drawn (noise, the holes of images
    in which nothing is found, what is swapped) comes from torch's own generator, so that it is
    another each time, and the same in each run of a seeded training.

    Parameters
    ----------
    classifier : RegionClassifier
        What the maps come from.
    confidence : str
        What the maps show, one of :data:`skfair.attribution._confidence.CONFIDENCES`.
    quantile : float
        Share of the pixels that is kept, before the margin.
    margin : int
        Pixels around the others that are hidden too.
    general : tensor of shape (height, width), bool, or None
        Pixels to perturb in all images; None if each image has a map of its own.
    holes : tensor of shape (n_attributes, n_holes, height, width), bool
        What was hidden in other images that have the attribute.
    threshold : tensor of shape (n_attributes,)
        Score from which on the attribute is found in an image. Minus infinity, where all
        images have some value that shows.
    image_shape : tuple of three int
        (channels, height, width) of the images of ``fit``.
    dtype : torch.dtype
        ``uint8`` if these were, else ``float32``.
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
        """Stay in eval mode, also as a part of a model that is trained."""
        return super().train(False)

    def forward(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """Perturb a batch, or one image.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width) or (n_channels, height, width)
            In the units and of the size of the images of ``fit``, on the device of this module.
        hidden : array-like of shape (n, height, width) or (height, width), bool, optional
            Pixels to perturb, if they are known from
            :meth:`PatchAttributionMasker.perturbed_pixels`; making the maps of each image again
            in each epoch takes time.

        Returns
        -------
        tensor of the shape and type of `images`

        Raises
        ------
        ValueError
            The images are not of the size or type of those in ``fit``, or parts are to be swapped
            and there is one image only.
        """
        if hidden is not None:
            hidden = torch.as_tensor(hidden, device=images.device)
        if images.ndim == 3:
            return self(images[None], None if hidden is None else hidden[None])[0]
        self._check(images)
        if self.perturbation.kind == "swap" and len(images) == 1:
            raise ValueError(
                "images is a single image, and perturbation='swap' moves parts between the images "
                "of a batch: alone, one with the attribute would get it back and no other ever "
                "would. Give batches, or make the images once with masker.mask(X)."
            )
        found = None
        if self.perturbation.kind == "swap":
            found_hidden, found = self.look(images, by_content=False)
            hidden = found_hidden if hidden is None else hidden
        elif hidden is None:
            hidden = self.hidden(images, by_content=False)
        if hidden.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"hidden has shape {tuple(hidden.shape)}, where that of one value a pixel, "
                f"{(len(images), *images.shape[2:])}, was wanted. Give what perturbed_pixels finds."
            )
        if found is None:
            return self.perturbation(images, hidden)
        # Drawn on the CPU, so that a seed does the same on every device.
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
                f"images has shape {tuple(images.shape)}, where (n, channels, height, width) with "
                f"{self.image_shape}, as in fit, was wanted. Resize the images, or move the "
                "channels, images.permute(0, 3, 1, 2)."
            )
        if (images.dtype == torch.uint8) != (self.dtype == torch.uint8):
            raise ValueError(
                f"images has type {images.dtype}, fit saw {self.dtype}: 8-bit values go from 0 to "
                "255 and floats mostly do not. Perturb the images before they are scaled."
            )

    def hidden(self, images: torch.Tensor, *, by_content: bool = True) -> torch.Tensor:
        """Find the pixels to perturb; of one map for all images no network has to be run.

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
        """Find the pixels to perturb, and the images in which the attribute is.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        by_content : bool
            Whether the hole of an image in which nothing is found depends on what the image
            shows, and on nothing else. If not, it is drawn.

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

        An image in which nothing is found gets the hole of another one. Else the attribute could
        be told from there being no hole, or one that is in no sensible place.

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
        if holes.shape != hidden.shape:  # images of another size than in fit
            holes = F.interpolate(holes.float(), size=hidden.shape[2:]) > 0.5
        return torch.where(found[..., None, None], hidden, holes).any(1)
