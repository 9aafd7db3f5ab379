"""The small network of the benchmarks of masks, to tell the class or an artefact.

It needs PyTorch alone, so that it also runs in the environment of a peer.
"""

import torch
from torch import nn
from torch.nn import functional as F

LR, EPOCHS, BATCH = 3e-3, 6, 64


class Network(nn.Module):
    """Four blocks of a convolution and batch normalisation, to tell the class or the artefact.

    Maxima, rather than strides, carry a small object at any place to the output. Without them a
    network hardly uses the sticker, and there is nothing to hide.
    """

    def __init__(self, mean, std, size):
        super().__init__()
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("std", std.reshape(-1, 1, 1))

        def block(before, after, kernel, shrink, **how):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False, **how)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(), shrink)

        self.blocks = nn.Sequential(
            block(3, 16, 5, nn.Identity(), stride=2),
            block(16, 32, 3, nn.MaxPool2d(2)),
            block(32, 64, 3, nn.MaxPool2d(2)),
            block(64, 64, 3, nn.MaxPool2d(2)),
        )
        self.output = nn.Linear(64 * (size // 16) ** 2, 1)

    def forward(self, images):
        images = (images.float() - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last)
        return self.output(self.blocks(images).flatten(1))


def train_network(X, y, seed, weight=None, epochs=EPOCHS):
    """Train on uint8 images; if `weight` is given, rows are drawn by it."""
    images, labels = torch.from_numpy(X), torch.from_numpy(y).float()[:, None]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(
            images.float().mean((0, 2, 3)), images.float().std((0, 2, 3)), X.shape[-1]
        ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), LR)
    n_steps = epochs * -(-len(X) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=n_steps)
    for _ in range(epochs):
        if weight is None:
            order = torch.randperm(len(images), generator=generator)
        else:
            order = torch.multinomial(weight, len(images), replacement=True, generator=generator)
        for rows in order.split(BATCH):
            loss = F.binary_cross_entropy_with_logits(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def logits(network, X):
    """Logits of the second class."""
    return torch.cat([network(part)[:, 0] for part in torch.from_numpy(X).split(250)]).numpy()
