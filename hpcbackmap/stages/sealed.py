"""Weights and descriptions with their own SHA-256: a flipped bit is an error, not a wrong structure."""

import hashlib
import json
import logging
from pathlib import Path

from torch import Tensor

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import reason, require_file

__all__ = ["read_sealed", "seal"]

log = logging.getLogger(__name__)

SEAL = "sha256"
"""Key of the metadata of a safetensors file."""


def seal(weights: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, str]:
    """Metadata of a safetensors file with these tensors, and the SHA-256 of both."""
    return metadata | {SEAL: _digest(weights, metadata)}


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that was written with the metadata of `seal`.

    Raises InputError that names the file if they are not what was sealed. A file without a seal is read, and
    told.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: no weights that can be read ({reason(error)})") from None
    sealed = metadata.pop(SEAL, None)
    if sealed is None:
        log.warning("%s: written without a SHA-256, so damage would not be noticed", path)
    elif sealed != _digest(weights, metadata):
        raise InputError(f"{path}: damaged, its SHA-256 is not the one it was written with")
    return weights, metadata


def _digest(weights: dict[str, Tensor], metadata: dict[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
