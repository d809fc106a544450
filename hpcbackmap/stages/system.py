"""Static description of molecules at the two resolutions of a stage, and several of them as one.

Every field of a kind of `System` is declared with what its values count, because that decides how they are
shifted where molecules are put together. A field that is not declared is an error, never a silence. Shapes as
in `stages.base`.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import zip_longest
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_type_hints

import numpy as np
import torch
from torch import Tensor

__all__ = ["Beads", "Listed", "Particles", "Plain", "Summed", "System", "collate"]


class _Shift(Enum):
    """What the values of a tensor count: they grow by as many as the molecules before have of it."""

    NOTHING = "nothing"
    PARTICLES = "fine particles"
    BEADS = "beads"
    MOLECULES = "molecules"


class _Join(Enum):
    """How numbers on the host are put together."""

    LISTED = "one after the other"
    SUMMED = "added up, place by place"


Plain = Annotated[Tensor, _Shift.NOTHING]
Particles = Annotated[Tensor, _Shift.PARTICLES]
Beads = Annotated[Tensor, _Shift.BEADS]
_Molecules = Annotated[Tensor, _Shift.MOLECULES]
Listed = Annotated[tuple[int, ...], _Join.LISTED]
Summed = Annotated[tuple[int, ...], _Join.SUMMED]


class System:
    """Fields that every stage kind has; one molecule, or several after `collate`.

    fine_sizes, coarse_sizes: particles and beads of each molecule, numbers on the host: no step has to ask the
    device for them. bead_of [N]: bead of each particle. fine_system [N], coarse_system [B]: whose each is.
    first_bead, n_beads [S]: where the beads of each molecule start, and how many they are.
    """

    fine_sizes: Listed
    coarse_sizes: Listed
    bead_of: Beads
    fine_system: _Molecules
    coarse_system: _Molecules
    first_bead: Beads
    n_beads: Plain

    fields: ClassVar[dict[str, _Shift | _Join]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.fields = _declared(cls)

    @classmethod
    def of_molecule(cls, fine: int, coarse: int, /, **fields: Any) -> Self:
        """One molecule of ``fine`` particles and ``coarse`` beads; ``fields``: arrays, and tuples of ints.

        Raises TypeError where a field is missing or not declared.
        """
        fields |= {
            "fine_sizes": (fine,),
            "coarse_sizes": (coarse,),
            "fine_system": np.zeros(fine, dtype=np.int64),
            "coarse_system": np.zeros(coarse, dtype=np.int64),
            "first_bead": np.zeros(1, dtype=np.int64),
            "n_beads": np.array([coarse]),
        }
        system = cls()
        for key, value in fields.items():
            whole = isinstance(value, tuple)
            setattr(system, key, value if whole else torch.from_numpy(np.ascontiguousarray(value)))
        missing = sorted(cls.fields.keys() - fields.keys())
        if missing:
            raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")
        return system

    @property
    def n_fine(self) -> int:
        """Particles of all molecules, N."""
        return sum(self.fine_sizes)

    @property
    def n_coarse(self) -> int:
        """Beads of all molecules, B."""
        return sum(self.coarse_sizes)

    @property
    def n_systems(self) -> int:
        """Molecules, S."""
        return len(self.coarse_sizes)

    def apply(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same system with every tensor changed; numbers of the host stay."""
        changed = type(self)()
        for key, value in vars(self).items():
            setattr(changed, key, change(value) if isinstance(value, Tensor) else value)
        return changed

    def to(self, *where: Any, **options: Any) -> Self:
        """The same system on another device, or of another type; arguments of `Tensor.to`."""
        return self.apply(lambda tensor: tensor.to(*where, **options))

    def __setattr__(self, key: str, value: Any) -> None:
        self._shift_of(key)
        self.__dict__[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def shift(self, key: str) -> int:
        """By how much a tensor's values grow in the molecules after this system."""
        counted = {
            _Shift.PARTICLES: self.n_fine,
            _Shift.BEADS: self.n_coarse,
            _Shift.MOLECULES: self.n_systems,
        }
        how = self._shift_of(key)
        return counted.get(how, 0) if isinstance(how, _Shift) else 0

    def _shift_of(self, key: str) -> "_Shift | _Join | None":
        """Raises TypeError for a public name that is no field."""
        if key.startswith("_"):
            return None
        if key not in type(self).fields:
            raise TypeError(f"{type(self).__name__}.{key} is not declared: say what it counts")
        return type(self).fields[key]


S = TypeVar("S", bound=System)


def collate(systems: Sequence[S]) -> S:
    """Several systems of one kind as one, in this order; raises TypeError for a field that is not declared."""
    kind = type(systems[0])
    for system in systems:
        for key in vars(system):
            system._shift_of(key)
    if len(systems) == 1:
        return systems[0].apply(lambda tensor: tensor)
    joined = _concatenated(kind, systems)
    for key, how in kind.fields.items():
        if isinstance(how, _Join):
            parts = [getattr(system, key) for system in systems]
            listed = how is _Join.LISTED
            whole = sum(parts, ()) if listed else tuple(map(sum, zip_longest(*parts, fillvalue=0)))
            setattr(joined, key, whole)
    return joined


def _concatenated(kind: type[S], systems: Sequence[S]) -> S:
    """The tensors of several systems, by PyTorch Geometric, which takes as long to load as torch itself."""
    from torch_geometric.data import Data
    from torch_geometric.data.collate import collate as concatenate

    class Graph(Data):
        def __inc__(self, key: str, value: Any, *args: Any, **options: Any) -> int:
            found: int = self._system.shift(key)
            return found

        def __cat_dim__(self, key: str, value: Any, *args: Any, **options: Any) -> int:
            return 0

    graphs = []
    for system in systems:
        tensors = {key: value for key, value in vars(system).items() if isinstance(value, Tensor)}
        graphs.append(Graph(**tensors))
        graphs[-1].__dict__["_system"] = system
    whole, _, _ = concatenate(Graph, graphs, increment=True, add_batch=False)
    joined = kind()
    for key, value in whole.to_dict().items():
        setattr(joined, key, value)
    return joined


def _declared(kind: type[System]) -> dict[str, _Shift | _Join]:
    hints = get_type_hints(kind, include_extras=True)
    found = {key: getattr(hint, "__metadata__", ()) for key, hint in hints.items()}
    return {
        key: extras[0]
        for key, extras in found.items()
        if extras and isinstance(extras[0], _Shift | _Join)
    }


System.fields = _declared(System)
