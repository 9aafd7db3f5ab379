"""Patch attribution, stage 4: perturb a whole set of images, reproducibly."""

import numpy as np
import torch

from skfair._images._view import Images
from skfair.attribution._augmentation import PatchAugmentation
from skfair.attribution._batches import BatchRunner
from skfair.base._net import as_tensor


def perturb_images(
    images: Images, augmentation: PatchAugmentation, runner: BatchRunner, rng: np.random.Generator
) -> np.ndarray:
    """Perturb images in a copy that has their type and layout.

    Parameters
    ----------
    images : Images
        The images.
    augmentation : PatchAugmentation
        Which pixels to perturb, and how; on the device of `runner`.
    runner : BatchRunner
        Reads the images.
    rng : numpy.random.Generator
        Draws the noise and the swaps, so that they do not depend on the batches.

    Returns
    -------
    ndarray
        In the form that ``images.to_array`` gives.
    """
    if augmentation.perturbation.kind == "swap":
        return _swap_images(images, augmentation, runner, rng)
    array, view = images.to_array(copy=True)
    for rows, hidden in runner.run(augmentation.hidden, images):
        # `view` has the type of the user's images, integers for instance: `read` may change it.
        block, noise = as_tensor(np.ascontiguousarray(view[rows])), None
        if augmentation.perturbation.kind == "noise":
            noise = torch.from_numpy(rng.standard_normal(block.shape, dtype=np.float32))
        changed = augmentation.perturbation(block, hidden, noise).numpy()
        np.copyto(view[rows], changed, where=hidden.numpy()[:, None])
    return array


def _swap_images(
    images: Images, augmentation: PatchAugmentation, runner: BatchRunner, rng: np.random.Generator
) -> np.ndarray:
    """Fill the hidden pixels, and paste those of donors, drawn once all images were looked at."""

    def look(batch: torch.Tensor) -> torch.Tensor:
        hidden, found = augmentation.look(batch, by_content=True)
        return torch.cat([hidden.flatten(1), found[:, None]], 1)

    array, view = images.to_array(copy=True)
    both = runner.collect(look, images)
    hidden, found = both[:, :-1].reshape(-1, *images.shape[1:]), both[:, -1]
    donors, paste = np.arange(len(found)), np.zeros(len(found), dtype=bool)
    if found.any():
        # Each image, whatever its class and attribute, gets a part of a donor in half the cases.
        donors = rng.choice(np.flatnonzero(found), len(found))
        paste = rng.random(len(found)) < 0.5
    pasted = hidden[donors] & paste[:, None, None]
    for start in range(0, len(found), runner.batch_size):
        rows = slice(start, start + runner.batch_size)
        block = as_tensor(np.ascontiguousarray(view[rows]))
        # Read from `images`: in `view` the donors before these rows are perturbed already.
        others = as_tensor(np.concatenate([images.read(i, i + 1) for i in donors[rows]]))
        changed = augmentation.perturbation.swap(
            block,
            torch.from_numpy(hidden[rows]),
            others.to(block.dtype),
            torch.from_numpy(pasted[rows]),
        )
        np.copyto(view[rows], changed.numpy(), where=(hidden | pasted)[rows][:, None])
    return array
