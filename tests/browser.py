"""What browser tests share: a real JupyterLab in a real Chromium, without a network.

A test module imports the fixtures that it uses.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
]


def in_a_browser(test):
    """A test that needs Chromium."""
    for mark in BROWSER:
        test = mark(test)
    return test


WAIT = 600_000  # milliseconds: a busy machine may need minutes to start a kernel
QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {
        **browser_type_launch_args,
        "executable_path": CHROMIUM,
        "args": ["--no-sandbox", *QUIET],
    }


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {**browser_context_args, "viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home / "config.py").write_text(
        "from jupyterlab.galata import configure_jupyter_server\n"
        "configure_jupyter_server(c)\n"
        f"c.ServerApp.ip, c.ServerApp.port, c.ServerApp.port_retries = '127.0.0.1', {port}, 0\n"
        f"c.ServerApp.root_dir, c.ServerApp.allow_root = {str(home)!r}, True\n"
    )
    settings = home / "lab" / "user-settings" / "@jupyterlab"
    (settings / "apputils-extension").mkdir(parents=True)
    (settings / "apputils-extension" / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "lab" / "user-settings"),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--config",
        str(home / "config.py"),
        "--no-browser",
    ]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(WAIT // 500):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:  # not there yet, or a busy machine did not answer in time
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(120)


def write_notebook(lab: str, name: str, cells: list[str]) -> None:
    """Put a notebook of these cells of code into the folder of JupyterLab."""
    from nbformat import v4  # slow to import, and `make quick` imports this file

    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    content = json.dumps({"type": "notebook", "content": notebook}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{lab}/api/contents/notebooks/{name}", content, headers, method="PUT"
    )
    urllib.request.urlopen(request, timeout=30).close()


def open_notebook(page, lab: str, name: str) -> None:
    """Open a notebook, and wait for its kernel."""
    page.set_default_timeout(WAIT)
    page.goto(f"{lab}/lab/tree/notebooks/{name}?reset")
    kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(f"{kernel}?.status === 'idle'")
