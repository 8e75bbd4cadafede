"""Environments that hold what pyproject.toml declares, and nothing more.

Nothing is downloaded: the packages that a requirement brings are links to those of this
environment. An import that is not declared therefore fails as it does on a user's machine.
"""

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(*extras: str) -> list[Requirement]:
    """What gradeclip and these extras of it name, with the extras that an extra names."""
    lines = list(PROJECT["dependencies"])
    waiting = list(extras)
    while waiting:
        for line in PROJECT["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(line)
            if requirement.name == "gradeclip":
                waiting += requirement.extras
            else:
                lines.append(line)
    return [Requirement(line) for line in lines]


def closure(requirements: list[Requirement]) -> list[Distribution]:
    """The installed distributions that pip would bring for these requirements."""
    distributions = {}
    visited = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError as error:
            raise AssertionError(f"{requirement} is declared and not installed here") from error
        for inner_extra in {"", *requirement.extras}:
            if (name, inner_extra) not in visited:
                visited.add((name, inner_extra))
                lines = distributions[name].requires or []
                waiting += [(Requirement(line), inner_extra) for line in lines]
    return list(distributions.values())


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder in which its commands run."""

    folder: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    def install(self, *arguments: str | Path) -> None:
        """What pip installs into it; packages that are links must not be among them."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        subprocess.run([*pip, *arguments], check=True)

    def run(self, *arguments: str | Path, **variables: str) -> str:
        """What a call of this environment's Python prints."""
        inherited = ("PATH", "LANG", "OMP_NUM_THREADS", "TMPDIR")
        environment = {name: os.environ[name] for name in inherited if name in os.environ}
        environment |= {"HOME": str(self.home), "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
        result = subprocess.run(
            [self.python, *arguments],
            cwd=self.home,
            env=environment | variables,
            capture_output=True,
            text=True,
        )
        ends = result.stdout[-2000:] + result.stderr[-4000:]
        assert result.returncode == 0, ends
        return result.stdout


def empty_environment(folder: Path) -> Environment:
    """An environment without any package, not even pip."""
    home = folder / "home"
    home.mkdir(parents=True)
    environment = Environment(folder / "environment", home)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment.folder], check=True)
    return environment


def link_packages(environment: Environment, packages: list[Distribution]) -> None:
    """Links to packages of this environment."""
    for package in packages:
        for file in package.files or ():
            name = file.parts[0]
            link = environment.site / name
            if name not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(package.locate_file(name))


def make_environment(folder: Path, *extras: str, wheel: Path | None = None) -> Environment:
    """An environment with gradeclip and these extras: of a wheel, or editable."""
    environment = empty_environment(folder)
    link_packages(environment, closure(declared(*extras)))

    # kernels and the templates of pages lie outside of the packages
    (environment.folder / "share").symlink_to(Path(sys.prefix) / "share")

    if wheel is None:
        (environment.site / "gradeclip.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    else:
        environment.install("--no-deps", "--no-index", wheel)
    return environment
