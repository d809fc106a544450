"""The arithmetic floor of a computation: its matrix products, and how fast the machine does one."""

import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Products", "product_rate"]

aten = torch.ops.aten
FIRST = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
"""Products and which argument their left matrix is."""


class Products(TorchDispatchMode):
    """Counts operations (two per multiplication) and the bytes of both factors and the result."""

    def __init__(self):
        super().__init__()
        self.flops, self.bytes = 0, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation in FIRST:
            left, right = args[FIRST[operation] : FIRST[operation] + 2]
            self.flops += 2 * left.numel() * right.shape[-1]
            self.bytes += sum(x.numel() * x.element_size() for x in (left, right, result))
        return result


def product_rate(size: int = 512) -> float:
    """Operations per CPU second of one large float32 product on this machine, best of ten."""
    left, right = torch.randn(4 * size, size), torch.randn(size, size)
    seconds = []
    for _ in range(10):
        begun = time.process_time()
        left @ right
        seconds.append(time.process_time() - begun)
    return 8 * size**3 / min(seconds)
