"""Patch attribution in a training loop: perturb a batch, with new noise each time."""

import torch
from torch import nn

from skfair.attribution._perturbation import Perturbation, hidden_pixels
from skfair.attribution._region_classifier import RegionClassifier


class PatchAugmentation(nn.Module):
    """Perturb images batch by batch.

    Made by :meth:`PatchAttributionMasker.augmentation`. Noise comes from torch's own generator,
    so that it is another one each time, and the same in each run of a seeded training.

    Parameters
    ----------
    classifier : RegionClassifier
        What the maps come from.
    confidence : str
        What the maps show, one of :data:`skfair.attribution._confidence.CONFIDENCES`.
    quantile : float
        Share of the pixels that is kept.
    general : tensor of shape (height, width), bool, or None
        Pixels to perturb in all images; None if each image has a map of its own.
    image_shape : tuple of three int
        (channels, height, width) of the images of ``fit``.
    dtype : torch.dtype
        ``uint8`` if these were, else ``float32``.
    perturbation : Perturbation
        What happens to them.
    """

    general: torch.Tensor | None

    def __init__(
        self,
        classifier: RegionClassifier,
        *,
        confidence: str,
        quantile: float,
        general: torch.Tensor | None,
        image_shape: tuple[int, int, int],
        dtype: torch.dtype,
        perturbation: Perturbation,
    ):
        super().__init__()
        self.classifier = classifier
        self.confidence = confidence
        self.quantile = quantile
        self.register_buffer("general", general)
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
            The images are not of the size or type of those in ``fit``.
        """
        if hidden is not None:
            hidden = torch.as_tensor(hidden, device=images.device)
        if images.ndim == 3:
            return self(images[None], None if hidden is None else hidden[None])[0]
        self._check(images)
        if hidden is None:
            hidden = self.hidden(images)
        if hidden.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"hidden has shape {tuple(hidden.shape)}, where that of one value a pixel, "
                f"{(len(images), *images.shape[2:])}, was wanted. Give what perturbed_pixels finds."
            )
        return self.perturbation(images, hidden)

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

    def hidden(self, images: torch.Tensor) -> torch.Tensor:
        """Find the pixels to perturb.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        tensor of shape (n, height, width), bool
        """
        if self.general is not None:
            return self.general.expand(len(images), -1, -1)
        maps = self.classifier.pixel_map(images, self.confidence)
        return hidden_pixels(maps, self.quantile)
