"""The small frozen encoder of the quickstart, and its weights from the package."""

from importlib import resources

import torch
from safetensors.torch import load
from torch import nn

from skfair.utils._settings import with_own_settings

N_FEATURES = 96


class DigitsEncoder(nn.Module):
    """Convolutional encoder of 32 x 32 colour images into 96 features.

    It was trained once, by ``examples/train_digits_encoder.py``, to predict from an
    image of a digit in a random colour both the colour and the grey image of the digit. It was
    trained without class labels, and without the images that
    :func:`~skfair.datasets.make_colored_digits` returns. Like encoders trained on images from the
    internet it is biased: colour is easier to predict from its features than shape.

    Examples
    --------
    >>> DigitsEncoder()(torch.zeros(2, 3, 32, 32)).shape  # load_digits_encoder has the weights
    torch.Size([2, 96])
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(3, 32, 5),
            *_block(32, 48, 3),
            *_block(48, 64, 3),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, N_FEATURES),
            nn.ReLU(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode a batch.

        Parameters
        ----------
        images : Tensor of shape (n, 3, 32, 32)
            Pixels in uint8, or floating from 0 to 1.

        Returns
        -------
        Tensor of shape (n, 96), float32
            Features, all 0 or larger.
        """
        if not images.is_floating_point():
            images = images.float() / 255
        return self.layers(images)


@with_own_settings
def load_digits_encoder() -> DigitsEncoder:
    """Load the encoder of the quickstart with the weights that come with skfair.

    Returns
    -------
    DigitsEncoder
        A :class:`torch.nn.Module` on the CPU, in eval mode, from images of shape
        (n, 3, 32, 32) to 96 features.

    Examples
    --------
    >>> import torch
    >>> encoder = load_digits_encoder()
    >>> with torch.no_grad():
    ...     encoder(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 96])
    """
    weights = resources.files("skfair.datasets") / "data" / "digits_encoder.safetensors"
    with torch.device("meta"):  # draws no initial weights from the global generator
        encoder = DigitsEncoder()
    encoder.load_state_dict(load(weights.read_bytes()), assign=True)
    return encoder.eval()


def _block(n_in: int, n_out: int, kernel_size: int) -> list[nn.Module]:
    """Make a block of layers that halves the sides of the image."""
    convolution = nn.Conv2d(n_in, n_out, kernel_size, stride=2, padding=kernel_size // 2)
    return [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]
