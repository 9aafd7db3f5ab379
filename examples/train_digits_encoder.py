"""Train the encoder that comes with skfair and save its weights (about a minute, by hand).

The encoder stands for the frozen encoders that people have. It sees the first 597 images of
scikit-learn's digits, which no other part of skfair uses, turned, scaled and moved a little, in
random colours. It needs no class labels. It learns 96 features from which linear maps reconstruct
the colour of the image and the image without its colour.

Run: python examples/train_digits_encoder.py [file.safetensors]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from skfair.datasets._colored_digits import N_ENCODER_IMAGES, enlarge
from skfair.datasets._encoder import N_FEATURES, DigitsEncoder

SEED = 0
EPOCHS = 150
BATCHES = 10
COLOR_WEIGHT = 30.0
SHAPE_WEIGHT = 20.0


def transform(images, generator):
    """Turn, scale and move each image at random."""
    n = len(images)
    angle, scale = torch.rand(2, n, generator=generator) - 0.5
    angle, scale = 0.5 * angle, 1 + 0.3 * scale
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = torch.cos(angle) * scale
    matrix[:, 1, 0] = torch.sin(angle)
    matrix[:, 0, 1] = -torch.sin(angle)
    matrix[:, :, 2] = 0.25 * (torch.rand(n, 2, generator=generator) - 0.5)
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def main(path):
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in another order would give other weights
    generator = torch.Generator().manual_seed(SEED)
    digits = load_digits().images[:N_ENCODER_IMAGES] / 16
    images = torch.from_numpy(enlarge(digits).astype(np.float32))[:, None]

    encoder, color_head = DigitsEncoder(), nn.Linear(N_FEATURES, 3)
    shape_head = nn.Linear(N_FEATURES, 16 * 16)
    network = nn.ModuleList([encoder, color_head, shape_head])
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * BATCHES)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).chunk(BATCHES):
            shape = transform(images[batch], generator)
            color = torch.rand(len(batch), 3, generator=generator)
            painted = shape * color[:, :, None, None]
            painted = (painted + 0.03 * torch.randn(painted.shape, generator=generator)).clamp(0, 1)
            features = encoder(painted)
            color_loss = F.mse_loss(color_head(features), color)
            shape_loss = F.mse_loss(shape_head(features), F.avg_pool2d(shape, 2).flatten(1))
            loss = COLOR_WEIGHT * color_loss + SHAPE_WEIGHT * shape_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  colour {color_loss:.4f}  shape {shape_loss:.4f}")
    save_file(encoder.state_dict(), path)
    print(f"{path}: {Path(path).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "skfair/datasets/data/digits_encoder.safetensors"
    main(sys.argv[1] if len(sys.argv) > 1 else str(default))
