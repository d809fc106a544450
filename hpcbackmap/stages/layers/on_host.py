"""What a step would have to ask the device for: numbers of buffers, and places in masks of known size."""

import torch
from torch import Tensor

__all__ = ["HostNumber", "places"]


class HostNumber:
    """A buffer's only number on the host; the device is asked again only after the buffer has changed."""

    def __init__(self) -> None:
        self._read: tuple[Tensor, int, float] | None = None

    def __call__(self, buffer: Tensor) -> float:
        if self._read is None or self._read[0] is not buffer or self._read[1] != buffer._version:
            self._read = buffer, buffer._version, float(buffer)
        return self._read[2]


def places(mask: Tensor, count: int) -> tuple[Tensor, ...]:
    """Indices of the ``count`` set entries of a mask, one tensor for each of its dimensions.

    As ``torch.nonzero(mask, as_tuple=True)``, which makes the host wait until the device has counted them.
    """
    return torch.nonzero_static(mask, size=count).unbind(-1)
