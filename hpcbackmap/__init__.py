"""hpcbackmap: atoms for coarse-grained protein ensembles, step by step.

Rooms: `protein`, `resolution`, `frames`, `stages`, `training`, `backmapping`, `evaluation`
(see docs/architecture.md). Importing the package loads none of them.
"""

__version__ = "0.1.0"
