"""An environment that holds what an installation of the wheel brings, and nothing else of what is installed here."""

import csv
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections import defaultdict
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SITE = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)


def build_wheel(folder):
    """A wheel that was built from the sdist, as `make dist` builds both."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_alone(wheel, home, extra=""):
    """The Python of a new environment: the wheel, and links to the distributions that it asks for, directly or not.

    Nothing is resolved or fetched: the versions are those that are installed here, which together satisfy everybody, so
    an index can serve each part of them too. pip says that the new environment lacks nothing.
    """
    if os.name == "nt":
        pytest.skip("the links are made as POSIX systems have them")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (ours,) = (home / SITE).glob("gradeclip-*.dist-info")
    brought = closure({**installed(), "gradeclip": Distribution.at(ours)}, extra) - {"gradeclip"}
    link(brought, home)
    run = subprocess.run([*pip, "check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    return python


@cache
def installed():
    """What is installed here, by its normal name: of two, the first on the path, which is the one that is imported."""
    here = {}
    for one in distributions():
        here.setdefault(canonicalize_name(one.name), one)
    return here


@cache
def files():
    """Of each path below a prefix the owners, as pairs of name and prefix; and of each folder what is in it."""
    owners, inside = defaultdict(set), defaultdict(set)
    for name, one in installed().items():
        owner = name, Path(one.locate_file("")).resolve().parents[len(SITE.parts) - 1]
        for path, *_ in csv.reader((one.read_text("RECORD") or "").splitlines()):
            part = os.path.normpath(SITE / path)
            while part and owner not in owners[part]:
                owners[part].add(owner)
                inside[os.path.dirname(part)].add(part)
                part = os.path.dirname(part)
    return owners, inside


def closure(here, extra):
    """The names of what `gradeclip[extra]` brings, as the metadata of everything on the way says."""
    waiting, found = [("gradeclip", {extra})], defaultdict(set)
    while waiting:
        name, extras = waiting.pop()
        if name in found and extras <= found[name]:
            continue
        found[name] |= extras
        for asked in map(Requirement, here[name].requires or ()):
            if asked.marker is None or any(asked.marker.evaluate({"extra": one}) for one in ("", *extras)):
                waiting.append((canonicalize_name(asked.name), asked.extras))
    return set(found)


def link(brought, home):
    """Put the files of some distributions where they would be, with links to folders in which nothing else lies.

    Args:
        brought: the names of the distributions.
        home: of the environment. Programs are copied, and run by its Python.
    """
    owners, inside = files()
    first = b"#!" + os.fsencode(home / "bin" / "python")

    def place(folder):
        for path in inside[folder]:
            prefixes = {prefix for name, prefix in owners[path] if name in brought}
            target = home / path
            if not prefixes:
                continue
            origin = min(prefixes) / path
            if folder == "bin":
                target.write_bytes(re.sub(rb"\A#!.*python[\d.]*", first, origin.read_bytes()))
                target.chmod(0o755)
            elif len(prefixes) > 1 or {name for name, _ in owners[path]} - brought or target.is_dir():
                if inside[path]:
                    target.mkdir(exist_ok=True)
                    place(path)
            elif origin.exists():
                target.symlink_to(origin)

    place("")


def run_in(folder, python, *arguments):
    """What a command prints, run away from the checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GRADECLIP_MODEL")}
    clean |= {"MPLBACKEND": "agg", "PATH": f"{python.parent}:{clean['PATH']}"}
    run = subprocess.run([python, *arguments], cwd=folder, env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout
