"""DeepSpeed's state in files that hold numbers and words, and no program: safetensors with a JSON structure.

DeepSpeed keeps its state with `torch.save`, a pickle, and reading a pickle runs what it says. Here the tensors
of a state stand in a safetensors file under their DeepSpeed name (``….pt``), and everything else in its
metadata as JSON. What is not a tensor, a number, a word or a list of them is one of few known classes.

Checkpoints of format 1 are pickles; torch's restricted reader takes those, which builds nothing but tensors and
the same few classes.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import reason
from hpcbackmap.runtime.parsing import json_value

__all__ = ["read_state", "without_pickles", "write_state"]

STRUCTURE = "structure"


@cache
def _known() -> dict[str, type]:
    """Classes of DeepSpeed that stand in its states."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return {item.__name__: item for item in (LossScaler, ZeroStageEnum, fragment_address)}


def write_state(state: Any, path: str | Path) -> None:
    """Write a state of DeepSpeed. Raises OSError or RuntimeError, and TypeError for a class not known."""
    tensors: list[Tensor] = []
    structure = json.dumps(_encoded(state, tensors), separators=(",", ":"))
    named = {str(number): _own(tensor) for number, tensor in enumerate(tensors)}
    try:
        save_file(named, path, {STRUCTURE: structure})
    except SafetensorError as error:
        raise RuntimeError(str(error)) from None


def read_state(path: str | Path) -> Any:
    """What `write_state` wrote, or torch for format 1; on the CPU. Raises InputError, and runs nothing."""
    try:
        with open(path, "rb") as file:
            begin = file.read(9)
        if begin[8:] != b"{":  # the header of a safetensors file, after its length
            with torch.serialization.safe_globals(list(_known().values())):
                return _torch_load(path, map_location="cpu", weights_only=True)
        with safe_open(path, "pt") as file:
            structure = json_value(file.metadata()[STRUCTURE])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        return _decoded(structure, tensors)
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RecursionError,
        RuntimeError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(f"{path}: no state of a training ({reason(error)})") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        first = reason(error).split(". ")[0]
        raise InputError(f"{path}: holds what is no state of a training ({first})") from None


_torch_load = torch.load


@contextmanager
def without_pickles() -> Iterator[None]:
    """DeepSpeed's ``torch.save`` and ``torch.load`` write and read these files."""

    def load(path: str, *_: Any, **__: Any) -> Any:
        return read_state(path)

    def save(state: Any, path: str, *_: Any, **__: Any) -> None:
        write_state(state, path)

    module: Any = torch
    kept = module.save, module.load
    module.save, module.load = save, load
    try:
        yield
    finally:
        module.save, module.load = kept


def _own(tensor: Tensor) -> Tensor:
    """Contiguous, on the CPU, and with a memory of its own: safetensors holds nothing twice."""
    found = tensor.detach().cpu().contiguous()
    whole = found.untyped_storage().nbytes() == found.numel() * found.element_size()
    return found if whole and found.data_ptr() != tensor.data_ptr() else found.clone()


def _encoded(value: Any, tensors: list[Tensor]) -> Any:
    """JSON of a state; its tensors are put into ``tensors`` and named by their place there."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    kind = type(value)
    if kind in (dict, OrderedDict):
        items = [[_encoded(k, tensors), _encoded(v, tensors)] for k, v in value.items()]
        return {"dict" if kind is dict else "ordered": items}
    if kind is list:
        return [_encoded(item, tensors) for item in value]
    if kind in (tuple, torch.Size):
        return {"tuple" if kind is tuple else "size": [_encoded(item, tensors) for item in value]}
    if kind is torch.dtype:
        return {"dtype": str(value).removeprefix("torch.")}
    if _known().get(kind.__name__) is not kind:
        raise TypeError(
            f"this DeepSpeed keeps a {kind.__module__}.{kind.__qualname__} in its state, which "
            "hpcbackmap does not know"
        )
    if isinstance(value, int):
        return {"class": kind.__name__, "value": int(value)}
    return {"class": kind.__name__, "fields": _encoded(dict(vars(value)), tensors)}


def _decoded(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Of `_encoded`. Raises LookupError, TypeError or ValueError for what it does not write."""
    if isinstance(value, list):
        return [_decoded(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "class" in value:
        kind = _known()[value["class"]]
        if "value" in value:
            return kind(value["value"])
        made: Any = object.__new__(kind)
        vars(made).update(_decoded(value["fields"], tensors))
        return made
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[str(content)]
    if kind == "dtype":
        found = getattr(torch, content)
        if not isinstance(found, torch.dtype):
            raise TypeError(f"{content} is no type of a tensor")
        return found
    if kind in ("dict", "ordered"):
        pairs = [(_decoded(k, tensors), _decoded(v, tensors)) for k, v in content]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    items = [_decoded(item, tensors) for item in content]
    return {"tuple": tuple, "size": torch.Size}[kind](items)
