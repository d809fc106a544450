"""hpcbackmap: atoms for coarse-grained protein ensembles, step by step.

`backmap`, `evaluate`, `open_store` and `load_stage` are in `hpcbackmap.api`; the rooms behind them are
described in docs/architecture.md. Importing the package loads none of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcbackmap.api import backmap, evaluate, load_stage, open_store

__version__ = "0.8.0"

__all__ = ["__version__", "backmap", "evaluate", "load_stage", "open_store"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hpcbackmap import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
