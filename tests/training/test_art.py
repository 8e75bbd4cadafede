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
    """An npm that packs two icons for whatever package is asked for; gives the checksum of what it packs."""
    body = '<circle cx="{}" cy="8" r="4"/>'
    icons = {"dog-face": {"body": body.format(8)}, "cricket-game": {"body": body.format(6)}}
    aliases = {"dog": {"parent": "dog-face"}, "cricket": {"parent": "cricket-game"}}
    content = json.dumps({"icons": icons, "aliases": aliases, "width": 16, "height": 16}).encode()
    characters = json.dumps({"1f436": "dog", "1f997": "cricket"}).encode()

    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        for name, data in (
            ("icons.json", content),
            ("chars.json", characters),
            ("info.json", b"{}"),
        ):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

    def pack(command, cwd, **options):
        (Path(cwd) / "packed.tgz").write_bytes(archive.getvalue())
        return SimpleNamespace(returncode=0, stdout="packed.tgz\n")

    monkeypatch.setattr(npm_module.shutil, "which", lambda name: name)
    monkeypatch.setattr(npm_module.subprocess, "run", pack)
    return hashlib.sha256(archive.getvalue()).hexdigest()


def test_one_command_makes_the_archive_of_drawings_from_the_named_packages(
    npm, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        art, "PACKAGES", {artist: one._replace(sha256=npm) for artist, one in art.PACKAGES.items()}
    )
    out = tmp_path / "art.zip"
    assert main(["art", "--out", str(out)]) == 0
    assert tuple(art.PACKAGES) == ARTISTS
    names = {name.rpartition(".")[0] for name in zipfile.ZipFile(out).namelist()}
    assert names == {f"{artist}/dog" for artist in ARTISTS}, (
        "an alias is followed to a face, and to nothing else"
    )


def test_icons_that_are_not_the_named_version_are_refused(npm, tmp_path, capsys):
    assert main(["art", "--out", str(tmp_path / "art.zip")]) == 2
    package = art.PACKAGES["openmoji"]
    said = f"{package.name}@{package.version} is another than before: sha256 {npm}, not {package.sha256}"
    assert said in capsys.readouterr().err and not (tmp_path / "art.zip").exists()


def test_the_card_credits_every_set_that_was_taken():
    card = data_path("README.md").read_text(encoding="utf-8")
    for one in art.PACKAGES.values():
        assert re.search(
            rf"\|.*{re.escape(one.author)}.*{re.escape(one.licence)}.*{one.name}.*{one.version}.*\|",
            card,
        )
