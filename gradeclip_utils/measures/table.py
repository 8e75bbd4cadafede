"""Tables that survive a kill: rows are appended to a file as they are measured, each under a key.

    settings -> FOLDER/settings.json        rows, one JSON object a line -> FOLDER/rows.jsonl

A process that opens the folder again with the same settings finds the rows that are there. A last
line that a kill cut off is dropped. Other settings are refused.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GradeclipError
from ..files import version, write_whole
from ..models import Clip


class Table:
    """The rows of one run in a folder: `rows` has them by key, as they are in the file."""

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping,
        keys: Sequence[str],
        *,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        self.rows: dict[tuple, dict] = {}
        self._keys = tuple(keys)
        self._rows_file = self.folder / "rows.jsonl"
        self._settings_file = self.folder / "settings.json"

        if overwrite:
            self._rows_file.unlink(missing_ok=True)
            self._settings_file.unlink(missing_ok=True)
        self._check_settings(json.loads(json.dumps(settings)))  # as they are read again
        if self._rows_file.exists():
            self._read_rows()

    def add(self, rows: Iterable[Mapping]) -> None:
        """Append the rows whose keys are not there yet."""
        lines = ""
        for row in rows:
            row = {name: _as_json(value) for name, value in row.items()}
            if self._key(row) not in self.rows:
                self.rows[self._key(row)] = row
                lines += json.dumps(row, ensure_ascii=False) + "\n"
        with self._rows_file.open("a", encoding="utf-8") as stream:
            stream.write(lines)

    def _key(self, row: Mapping) -> tuple:
        return tuple(row[name] for name in self._keys)

    def _check_settings(self, settings: dict) -> None:
        """Write the settings of a new run, or compare them with those of the stored rows."""
        if not self._settings_file.exists():
            content = json.dumps(settings, ensure_ascii=False, indent=1)
            write_whole({self._settings_file: content.encode()})
            return

        stored = json.loads(self._settings_file.read_text(encoding="utf-8"))
        differences = []
        for name in {**stored, **settings}:
            if stored.get(name) != settings.get(name):
                differences.append(f"{name} was {stored.get(name)!r}, is {settings.get(name)!r}")
        if differences:
            msg = f"{self.folder} holds another run: {'; '.join(differences)}."
            raise GradeclipError(f"{msg} Choose another folder, or overwrite it (--overwrite)")

    def _read_rows(self) -> None:
        """Read the rows of the file; a torn last line is cut off."""
        content = self._rows_file.read_bytes()
        whole = content.rfind(b"\n") + 1
        os.truncate(self._rows_file, whole)
        for line in content[:whole].splitlines():
            row = json.loads(line)
            self.rows[self._key(row)] = row


def describe_model(clip: Clip) -> dict[str, Any]:
    """The settings that tell one model from another: its names, its layers, and our version.

    Weights are known by their name. Weights that changed under the same name need another folder.
    """
    return {
        "model": clip.name,
        "pretrained": clip.pretrained,
        "image_layers": clip.image_layers,
        "text_layers": clip.text_layers,
        "gradeclip": version("gradeclip"),
    }


def _as_json(value: Any) -> Any:
    """A value as JSON has it; NaN becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
