"""Devices: choosing and checking the device when an estimator is fitted."""

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Convert the ``device`` parameter of an estimator to an available device.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` selects the first available of CUDA, MPS and CPU. Any other value is passed to
        :class:`torch.device`.

    Returns
    -------
    torch.device
        A device on which torch can create tensors.

    Raises
    ------
    ValueError
        torch does not know the name, or this machine has no such device.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows. Use 'auto', 'cpu', 'cuda', "
            "'cuda:0' or 'mps'."
        ) from error
    try:
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"torch cannot use device={device!r} on this machine "
            f"({str(error).splitlines()[0]}). Use device='auto' to select an available device."
        ) from error
    return resolved
