"""Run every command of gradeclip on a bundled photograph, and every example of its help.

    python .ci/try_commands.py    # in an environment with gradeclip; from any folder

The examples run as they are printed, except that the bundled model stands in for weights that would
be downloaded, and two drawn scenes for two hundred.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gradeclip_utils.files import data_path

PHOTOGRAPH = ("explain", "--image", "dog.jpg", "--prompt", "a cat", "--out", "cat.png")
REPORT = ("report", "--data", "photographs:all", "--out", "photographs")
EVALUATE = (
    "evaluate",
    *("--data", "photographs:all", "--limit", "1", "--methods", "rollout", "--no-references"),
    *("--faithfulness", "mean-colour", "--out", "rollout"),
)


def gradeclip(*arguments: str, folder: Path) -> str:
    """What a command prints; its messages are shown as they come, and a failure ends the run."""
    print("gradeclip", shlex.join(arguments), flush=True)
    command = [sys.executable, "-m", "gradeclip_utils", *arguments]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


def write_inputs(folder: Path) -> None:
    """The files that the examples name."""
    photographs = data_path("photos")
    shutil.copytree(photographs, folder / "photos")
    shutil.copy(photographs / "captions.csv", folder)
    for name in ("dog.jpg", "a.jpg", "b.jpg"):
        shutil.copy(photographs / "cat.jpg", folder / name)
    for ending in (".safetensors", ".json"):
        shutil.copy(data_path(f"emoji{ending}"), folder / f"mine{ending}")


def examples(folder: Path) -> list[list[str]]:
    """The calls that the help of all commands shows, without duplicates."""
    pages = [gradeclip("--help", folder=folder)]
    for command in re.findall(r"^    (\w[\w-]*)", pages[0], re.M):
        pages.append(gradeclip(command, "--help", folder=folder))
    lines = re.findall(r"^  gradeclip (.+)$", "\n".join(pages), re.M)
    return [shlex.split(line) for line in dict.fromkeys(lines)]


def without_downloads(arguments: list[str]) -> list[str]:
    """The same call with the bundled model, on two scenes."""
    call = shlex.join(arguments)
    call = re.sub(r" --(model|pretrained) \S+", "", call)
    call = re.sub(r"ViT-\S+@\S+", "emoji", call)
    call = re.sub(r"(scenes:\w+):\d+", r"\1:2", call)
    return shlex.split(call)


def main() -> None:
    """Run all of it in a temporary folder; the first failure ends it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)

        for arguments in (("explain", "--out", "scene.png"), PHOTOGRAPH, REPORT, EVALUATE):
            print(gradeclip(*arguments, folder=folder))

        for arguments in examples(folder):
            print(gradeclip(*without_downloads(arguments), folder=folder))

        for result in ("scene.png", "cat.png", "photographs/index.html", "rollout/rows.jsonl"):
            assert (folder / result).stat().st_size > 0, result


if __name__ == "__main__":
    main()
