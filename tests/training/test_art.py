"""The archive of drawings is made from named packages of npm, which are checked and credited."""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradeclip_utils.files import data_path
from gradeclip_utils.scenes import ARTISTS
from training import art
from training import npm as npm_module
from training.__main__ import main


@pytest.fixture
def npm(monkeypatch):
    """An npm that packs two icons for any package; gives the checksum of what it packs."""
    circle = '<circle cx="{}" cy="8" r="4"/>'
    icons = {
        "icons": {
            "dog-face": {"body": circle.format(8)},
            "cricket-game": {"body": circle.format(6)},
        },
        "aliases": {"dog": {"parent": "dog-face"}, "cricket": {"parent": "cricket-game"}},
        "width": 16,
        "height": 16,
    }
    files = {
        "icons.json": json.dumps(icons).encode(),
        "chars.json": json.dumps({"1f436": "dog", "1f997": "cricket"}).encode(),
        "info.json": b"{}",
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

    def pack(command, cwd, **options):
        (Path(cwd) / "packed.tgz").write_bytes(archive.getvalue())
        return SimpleNamespace(returncode=0, stdout="packed.tgz\n")

    monkeypatch.setattr(npm_module.shutil, "which", lambda name: name)
    monkeypatch.setattr(npm_module.subprocess, "run", pack)
    return hashlib.sha256(archive.getvalue()).hexdigest()


def test_one_command_makes_the_archive_of_drawings_from_the_named_packages(
    npm, tmp_path, monkeypatch
):
    packages = {artist: package._replace(sha256=npm) for artist, package in art.PACKAGES.items()}
    monkeypatch.setattr(art, "PACKAGES", packages)
    out = tmp_path / "art.zip"
    assert main(["art", "--out", str(out)]) == 0
    assert tuple(packages) == ARTISTS
    names = {name.rpartition(".")[0] for name in zipfile.ZipFile(out).namelist()}
    # an alias is followed to a face, and to nothing else
    assert names == {f"{artist}/dog" for artist in ARTISTS}


def test_icons_that_are_not_the_named_version_are_refused(npm, tmp_path, capsys):
    out = tmp_path / "art.zip"
    assert main(["art", "--out", str(out)]) == 2
    package = art.PACKAGES["openmoji"]
    message = f"is another than before: sha256 {npm}, not {package.sha256}"
    printed = capsys.readouterr().err
    assert f"{package.name}@{package.version} {message}" in printed
    assert not out.exists()


def test_the_card_credits_every_set_that_was_taken():
    card = data_path("README.md").read_text(encoding="utf-8")
    for package in art.PACKAGES.values():
        cells = (package.author, package.licence, package.name, package.version)
        pattern = ".*".join(map(re.escape, cells))
        assert re.search(rf"\|.*{pattern}.*\|", card)
