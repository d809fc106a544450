"""A GPU that is not there: tensors on the CPU that say they live on ``cuda:0``, and the rules of a GPU.

Inside `PretendedGpu` a tensor made with ``device="cuda"`` or moved there is tagged (by its storage), answers
``cuda:0`` when asked for its device, and what is computed from it is tagged. Then these are errors:

* an operation on tagged and untagged tensors together, other than single numbers (`MixedDevices`); so also a
  factory that was not told a device, as soon as its result is used;
* ``numpy()`` of a tagged tensor;
* within `in_a_step`, whatever makes the host wait for the device (`HostRead`): ``item``, ``float``, ``bool``,
  ``tolist``, ``cpu``, ``nonzero``, ``bincount``, masks as indices.

Kernels, streams and memory are not pretended: a test on a card has to do the rest. Results are the CPU's.
"""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HostRead", "MixedDevices", "PretendedGpu"]

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
DEVICE = torch.Tensor.device.__get__
IS_CUDA = torch.Tensor.is_cuda.__get__
IS_CPU = torch.Tensor.is_cpu.__get__
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
}
"""Operations whose result or its size the host has to wait for."""
MOVES = {Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type}
"""Operations that may take numbers from one device to the other."""
ANSWERS = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "get_device_name": "a pretended GPU",
    "synchronize": None,
    "empty_cache": None,
    "reset_peak_memory_stats": None,
    "max_memory_allocated": 0,
    "memory_allocated": 0,
    "mem_get_info": (8 << 30, 16 << 30),
    "set_device": None,
    "is_initialized": True,
    "is_bf16_supported": True,
}
"""What ``torch.cuda`` says."""


THERE: weakref.WeakSet[Any] = weakref.WeakSet()
"""Storages on the pretended GPU; tables that a module keeps for a device outlive a context."""


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class HostRead(RuntimeError):
    """The host waits for the device within a step."""


class PretendedGpu(TorchFunctionMode):
    """A context in which there is a GPU; `in_a_step` is a part of it in which the host must not wait."""

    def __init__(self) -> None:
        super().__init__()
        self._operations = _Operations(self)
        self._patches = ExitStack()
        self.inside = 0
        """Depth of calls on tagged tensors: what they make in passing is on the device too."""
        self.backward = False
        self.strict = False
        self.allowed: Counter[str] = Counter()
        """Reads that this step may still do."""

    def __enter__(self) -> "PretendedGpu":
        for name, answer in ANSWERS.items():
            found = mock.patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer)
            self._patches.enter_context(found)
        self._patches.enter_context(mock.patch.object(torch, "autocast", _autocast))
        self._operations.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        super().__exit__(*reason)
        self._operations.__exit__(*reason)
        self._patches.close()

    @contextmanager
    def in_a_step(self, allowed: dict[str, int] | None = None) -> Iterator[None]:
        """allowed: operations that may read, and how often; all of them have to."""
        self.strict, before = True, self.strict
        self.allowed = Counter(allowed or {})
        try:
            yield
            if left := +self.allowed:
                raise AssertionError(f"reads that were allowed and not done: {dict(left)}")
        finally:
            self.strict, self.allowed = before, Counter()

    def read_by_host(self, operation: str, what: str) -> None:
        """Raises HostRead, unless this step may."""
        if not self.allowed[operation]:
            raise HostRead(what)
        self.allowed[operation] -= 1

    def has(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is on the pretended GPU."""
        return tensor.untyped_storage() in THERE

    def tag(self, result: Any) -> Any:
        for leaf in _tensors(result):
            THERE.add(leaf.untyped_storage())
        return result

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            given = _tensors(args, kwargs)
            here = [leaf for leaf in given if self.has(leaf)]
            if function in (DEVICE, IS_CUDA, IS_CPU):
                return self._answer(function, args[0])
            if function in (Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.type_as):
                return self._moved(function, *args, **kwargs)
            if function in (Tensor.pin_memory, Tensor.is_pinned):
                return args[0] if function is Tensor.pin_memory else False
            if function in (Tensor.numpy, Tensor.__array__) and here:
                raise TypeError("a tensor on cuda:0 has no numpy(); copy it to the host first")
            if function is Tensor.tolist and here and self.strict:
                self.read_by_host("tolist", "tolist")
            asked = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
            if asked is not None:
                kwargs["device"] = CPU
            self._refuse_mixture(function, given, here)
            return self._computed(function, args, kwargs, bool(here), asked)

    def _answer(self, function, tensor: Tensor) -> Any:
        there = self.has(tensor)
        if function == DEVICE:
            return GPU if there else function(tensor)
        return there if function == IS_CUDA else not there

    def _refuse_mixture(self, function, given: list[Tensor], here: list[Tensor]) -> None:
        if not here or function in MOVES or self.backward:
            return
        strangers = [leaf for leaf in given if leaf.dim() > 0 and not self.has(leaf)]
        if strangers:
            name = getattr(function, "__name__", str(function))
            sizes = ", ".join(str(tuple(leaf.shape)) for leaf in strangers)
            raise MixedDevices(
                f"{name}: of {len(given)} tensors on cuda:0 these are on cpu: {sizes}"
            )

    def _computed(self, function, args, kwargs, here: bool, asked: torch.device | None) -> Any:
        backward = function is Tensor.backward
        on_device = here if asked is None else asked.type == "cuda"
        self.inside += on_device
        self.backward |= backward
        try:
            result = function(*args, **kwargs)
        finally:
            self.inside -= on_device
            self.backward &= not backward
        return self.tag(result) if on_device else result

    def _moved(self, function, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``to`` and its like: the dtype as told, the tag by the target."""
        kwargs.pop("non_blocking", None)
        words = [*args, *kwargs.values()]
        target = GPU if function is Tensor.cuda else CPU if function is Tensor.cpu else None
        dtype = next((word for word in words if isinstance(word, torch.dtype)), tensor.dtype)
        for word in words:
            if isinstance(word, Tensor):
                target, dtype = GPU if self.has(word) else CPU, word.dtype
            elif isinstance(word, str | torch.device):
                target = torch.device(word)
        there = self.has(tensor)
        wanted = there if target is None else target.type == "cuda"
        if there and not wanted and self.strict:
            self.read_by_host("to", "copy to the host")
        if wanted == there:
            self.inside += there
            try:
                moved = tensor.to(dtype)
            finally:
                self.inside -= there
            return self.tag(moved) if there else moved
        copy = tensor.to(dtype).clone()
        if wanted:
            return self.tag(copy)
        THERE.discard(copy.untyped_storage())
        return copy


def _autocast(device: str, **settings: Any) -> torch.amp.autocast:
    """That of the CPU, which is where everything is computed."""
    return torch.amp.autocast("cpu", **settings)


def _tensors(*values: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(*value)
        elif isinstance(value, dict):
            found += _tensors(*value.values())
    return found


class _Operations(TorchDispatchMode):
    """Every operation beneath: what comes from the device is on it, and who waits is told."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = _tensors(args, kwargs)
        here = any(self.gpu.has(leaf) for leaf in given)
        if here and self.gpu.strict:
            self._refuse_waiting(operation, args, kwargs)
        result = operation(*args, **kwargs)
        if here or (self.gpu.inside and not given):
            self.gpu.tag(result)
        return result

    def _refuse_waiting(self, operation, args, kwargs) -> None:
        name = operation.overloadpacket.__name__
        waits = name in WAITING
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [
                it for it in args[1] if it is not None and it.dtype in (torch.bool, torch.uint8)
            ]
            waits = bool(masks) and (name == "index" or args[2].numel() > 1)
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            waits = operation._overloadname == "Tensor"
        if waits:
            self.gpu.read_by_host(name, f"{name}: the host waits for the device")
