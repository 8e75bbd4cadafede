"""Packages of npm in fixed versions, checked: drawings, and what the live page and slides load."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from gradeclip_utils.errors import GradeclipError


def fetched(package: str, sha256: str, prefixes: tuple[str, ...]) -> dict[str, bytes]:
    """The files of a package, such as "mathjax@3.2.2", whose paths begin with one of `prefixes`.

    Raises:
        FileNotFoundError: there is no npm.
        ConnectionError: npm cannot fetch the package.
        GradeclipError: its archive has another checksum.
    """
    if shutil.which("npm") is None:
        raise FileNotFoundError(
            f"npm is missing, which fetches {package} (Debian: apt-get install npm)"
        )
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            ["npm", "pack", package], cwd=folder, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ConnectionError(f"npm cannot fetch {package}: {result.stderr.strip()[-300:]}")
        archive = Path(folder) / result.stdout.strip().splitlines()[-1]
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != sha256:
            raise GradeclipError(f"{package} is another than before: sha256 {digest}, not {sha256}")

        files = {}
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = member.name.removeprefix("package/")
                stream = tar.extractfile(member)
                if stream and path.startswith(prefixes):
                    files[path] = stream.read()
        return files
