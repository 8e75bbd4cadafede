"""Packages of npm in fixed versions, checked: drawings for scenes, and what the live page and the slides load."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from gradeclip_utils.errors import GradeclipError


def fetched(package: str, sha256: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The files of a package, such as "mathjax@3.2.2", whose paths in it begin as wanted, by path.

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
        packed = subprocess.run(
            ["npm", "pack", package], cwd=folder, capture_output=True, text=True, check=False
        )
        if packed.returncode:
            raise ConnectionError(f"npm cannot fetch {package}: {packed.stderr.strip()[-300:]}")
        archive = Path(folder) / packed.stdout.strip().splitlines()[-1]
        if (digest := hashlib.sha256(archive.read_bytes()).hexdigest()) != sha256:
            raise GradeclipError(f"{package} is another than before: sha256 {digest}, not {sha256}")
        with tarfile.open(archive) as tar:
            members = {member.name.removeprefix("package/"): member for member in tar.getmembers()}
            return {
                path: tar.extractfile(one).read()
                for path, one in members.items()
                if path.startswith(wanted)
            }
