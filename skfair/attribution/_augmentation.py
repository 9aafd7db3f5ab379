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
    perturbation : Perturbation
        What happens to them.
    """

    def __init__(
        self,
        classifier: RegionClassifier,
        *,
        confidence: str,
        quantile: float,
        general: torch.Tensor | None,
        perturbation: Perturbation,
    ):
        super().__init__()
        self.classifier = classifier
        self.confidence = confidence
        self.quantile = quantile
        self.register_buffer("general", general)
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
        hidden : tensor of shape (n, height, width) or (height, width), bool, optional
            Pixels to perturb, if they are known from
            :meth:`PatchAttributionMasker.perturbed_pixels`; making the maps of each image again
            in each epoch takes time.

        Returns
        -------
        tensor of the shape and type of `images`

        Raises
        ------
        ValueError
            The images are not of the size of those in ``fit``.
        """
        if images.ndim == 3:
            return self(images[None], None if hidden is None else hidden[None])[0]
        if hidden is None:
            hidden = self.hidden(images)
        if hidden.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"images has shape {tuple(images.shape)}, and the pixels to perturb have shape "
                f"{tuple(hidden.shape)}: wanted (n, channels, height, width) and (n, height, "
                "width). Give images of the size of those in fit."
            )
        return self.perturbation(images, hidden)

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
