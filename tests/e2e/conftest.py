"""The campaign of the judge's unit tests serves here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "unit"))
