"""`metrics.csv`: the records of a training as one table, for spreadsheets and plots."""

import csv
import io
from pathlib import Path
from typing import Any

from hpcbackmap.runtime.files import write_whole

__all__ = ["Table"]


class Table:
    """A row for every record, a column for every value that some record has; empty where there is none.

    A record with a new column rewrites the file, atomically. Rows after ``step``, left by a run that was
    killed, are dropped.
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        self._columns: list[str] = []
        rows = [row for row in _read(path) if int(row["step"]) <= step]
        self._rewrite(rows, list(rows[0]) if rows else ["kind", "step"])

    def write(self, record: dict[str, Any]) -> None:
        new = [name for name in record if name not in self._columns]
        if new:
            self._file.close()
            self._rewrite([*_read(self._path), record], self._columns + new)
            return
        self._writer.writerow(record)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _rewrite(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        self._columns = columns
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self._path, text.getvalue())
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns)


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole rows: what a crash or a full disk cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as file:
        reader = csv.DictReader(line for line in file if line.endswith("\n"))
        return [row for row in reader if None not in row.values() and row["step"].isdigit()]
