"""Devices: what ``device="auto"`` means, decided when an estimator is fitted."""

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the ``device`` parameter of an estimator into a device that is there.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` takes the first of CUDA, MPS and CPU that this machine has. Anything
        else is given to :class:`torch.device`.

    Returns
    -------
    torch.device
        A device on which tensors can be made.

    Raises
    ------
    ValueError
        The name is not one that torch knows, or this machine has no such device.

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
            f"device={device!r} was asked for, but torch cannot use it on this machine "
            f"({str(error).splitlines()[0]}). Use device='auto' to take what is there."
        ) from error
    return resolved
