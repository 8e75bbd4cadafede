"""Commit: on which commit of this checkout a table was made."""

import subprocess
from functools import partial
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def commit(root: Path = _ROOT) -> str:
    """Return the commit that the checkout stands on, with "+" if files differ from it; "unknown" without a checkout."""
    if not (root / ".git").exists():  # a folder inside somebody else's repository is not that repository
        return "unknown"
    call = partial(subprocess.run, cwd=root, capture_output=True, text=True, check=False)
    try:
        head, changed = call(["git", "rev-parse", "--short", "HEAD"]), call(["git", "status", "--porcelain"])
    except FileNotFoundError:
        return "unknown"
    return "unknown" if head.returncode else head.stdout.strip() + ("+" if changed.stdout.strip() else "")
