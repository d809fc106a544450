"""Linear coarsening between two adjacent resolutions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hpcbackmap.runtime.errors import InputError

__all__ = ["Mapping"]


@dataclass(frozen=True, eq=False)
class Mapping:
    """``coarse = M @ fine`` where every fine particle belongs to exactly one bead.

    bead: bead of each fine particle, int64 [N_fine]. weight: its share, float64 [N_fine]; the shares of
    a bead sum to 1, single shares may be 0 (a C-alpha bead ignores the other atoms of its residue).
    Raises InputError for an empty bead or weights that cannot be normalised.
    """

    bead: np.ndarray
    weight: np.ndarray

    def __post_init__(self) -> None:
        bead = np.asarray(self.bead, dtype=np.int64)
        weight = np.asarray(self.weight, dtype=np.float64)
        if bead.ndim != 1 or bead.shape != weight.shape or len(bead) == 0:
            raise InputError("mapping: bead and weight must be two vectors of one length")
        if bead.min() < 0 or not np.isfinite(weight).all() or weight.min() < 0:
            raise InputError("mapping: bead numbers and weights must not be negative")
        total = np.bincount(bead, weights=weight)
        if (total <= 0).any():
            raise InputError(f"mapping: bead {int(np.argmin(total))} is empty or has no weight")
        object.__setattr__(self, "bead", bead)
        if not np.allclose(total, 1.0, rtol=0, atol=1e-12):
            weight = weight / total[bead]
        object.__setattr__(self, "weight", weight)

    @property
    def n_fine(self) -> int:
        return len(self.bead)

    @cached_property
    def n_coarse(self) -> int:
        return int(self.bead.max()) + 1

    @cached_property
    def matrix(self) -> Any:
        """scipy CSR matrix [N_coarse, N_fine]; rows sum to 1."""
        from scipy.sparse import csr_matrix

        shape = (self.n_coarse, self.n_fine)
        return csr_matrix((self.weight, (self.bead, np.arange(self.n_fine))), shape=shape)

    def apply(self, fine: np.ndarray) -> np.ndarray:
        """Coarse positions [..., N_coarse, 3] of fine positions [..., N_fine, 3], same dtype.

        One sparse product in float64.
        """
        leading = fine.shape[:-2]
        columns = np.moveaxis(fine.reshape(-1, self.n_fine, 3), 1, 0).reshape(self.n_fine, -1)
        product = self.matrix @ columns.astype(np.float64)
        coarse = np.moveaxis(product.reshape(self.n_coarse, -1, 3), 0, 1)
        found: np.ndarray = coarse.reshape(*leading, self.n_coarse, 3).astype(fine.dtype)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {"bead": self.bead.tolist(), "weight": self.weight.tolist()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Mapping":
        return cls(np.array(record["bead"]), np.array(record["weight"]))
