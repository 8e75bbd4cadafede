"""What teachers have and students do not: assignments with solutions, hidden tests and guidance.

    python docs/assignments/teachers.py open FOLDER   # write them to FOLDER
    python docs/assignments/teachers.py seal FOLDER   # keep the notebooks of FOLDER instead

They lie encrypted beside this file. The key is what `TEACHERS_KEY` holds in the environment; the
maintainers give it to teachers.
"""

import argparse
import io
import os
import zipfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

SEALED = Path(__file__).parent / "teachers.sealed"
KEY = "TEACHERS_KEY"


def cipher() -> Fernet:
    """What encrypts and decrypts with the key of the environment.

    Raises:
        SystemExit: there is no key, or it has not the form of one.
    """
    key = os.environ.get(KEY, "")
    try:
        return Fernet(key)
    except ValueError:
        problem = "is not set" if not key else "is not a key: a key has 44 characters"
        raise SystemExit(
            f"{KEY} {problem}. Solutions are for teachers, who ask the maintainers for the key "
            "(notebooks/README.md). What students get needs none: docs/assignments/*.ipynb."
        ) from None


def open_into(folder: Path) -> list[Path]:
    """Write the notebooks with solutions to a folder; their paths.

    Raises:
        SystemExit: the key is missing, or another one.
    """
    try:
        archive = cipher().decrypt(SEALED.read_bytes())
    except InvalidToken:
        raise SystemExit(f"{KEY} is not the key that {SEALED.name} was sealed with.") from None

    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(folder)
    return sorted(folder.glob("*.ipynb"))


def seal(folder: Path) -> None:
    """Keep the notebooks of a folder in place of those that were kept.

    Raises:
        SystemExit: the key is missing, or the folder has no notebook.
    """
    notebooks = sorted(folder.glob("*.ipynb"))
    if not notebooks:
        raise SystemExit(f"{folder} has no notebook.")

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for notebook in notebooks:
            file.write(notebook, notebook.name)
    SEALED.write_bytes(cipher().encrypt(archive.getvalue()))


def main() -> None:
    """Open or seal, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["open", "seal"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "open":
        open_into(arguments.folder)
    else:
        seal(arguments.folder)


if __name__ == "__main__":
    main()
