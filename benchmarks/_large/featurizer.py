"""Features of JPEG files: threads that decode against one, and against torch's DataLoader.

Small encoder, so that decoding takes most of the time. All ways compute the same features; their
runs alternate, and the fastest run of each counts.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks._large.rows import Run
from skfair.featurize import FrozenEncoderFeaturizer

N_FILES, SIDE, SMALL, BATCH_SIZE, N_REPEATS = 1000, 256, 96, 64, 5


def files(folder):
    """Write JPEG files with smooth areas and fine detail, as photographs have them."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(N_FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
        image += rng.normal(scale=8, size=image.shape)
        paths.append(Path(folder) / f"{number}.jpg")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 32, 4, 4), nn.ReLU()).eval()


class Files(torch.utils.data.Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        with Image.open(self.paths[row]) as image:
            image = image.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def by_loader(paths):
    """The loop that a user of torch writes."""
    network = encoder()
    loader = torch.utils.data.DataLoader(Files(paths), batch_size=BATCH_SIZE, num_workers=2)
    with torch.inference_mode():
        blocks = [network(batch.float() / 255).mean((2, 3)) for batch in loader]
    return torch.cat(blocks).numpy()


def by_featurizer(n_jobs):
    featurizer = FrozenEncoderFeaturizer(
        encoder(), image_shape=(3, SMALL, SMALL), batch_size=BATCH_SIZE, n_jobs=n_jobs
    )

    def features(paths):
        if not hasattr(featurizer, "n_features_out_"):
            featurizer.fit(paths[:8])
        return featurizer.transform(paths)

    return features


def ratio(other, way):
    """Time of the other way, divided by the time of this one."""
    seconds = {other: [], way: []}
    with tempfile.TemporaryDirectory() as folder:
        paths = files(folder)
        results = [run(paths) for run in seconds]
        np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
        for _ in range(N_REPEATS):
            for run, taken in seconds.items():
                started = time.perf_counter()
                run(paths)
                taken.append(time.perf_counter() - started)
    return min(seconds[other]) / min(seconds[way])


def runs():
    what = f"images/s, {N_FILES:,} JPEG files, {SIDE} to {SMALL} pixels, small encoder:"
    two = by_featurizer(2)
    return [
        Run({f"{what} n_jobs=2 / n_jobs=1": ">= 1.7"}, lambda: ratio(by_featurizer(1), two)),
        Run(
            {f"{what} n_jobs=2 / DataLoader with 2 workers": ">= 0.95"},
            lambda: ratio(by_loader, two),
        ),
    ]
