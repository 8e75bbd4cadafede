"""What browser tests share: a real JupyterLab on a copy of the notebooks, in a real Chromium, without a network.

A test module imports the fixtures that it uses. Callbacks of widgets fail silently on the page, so errors are collected
from the kernel's own channel.
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

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
]
WAIT = 600_000  # milliseconds: a busy machine may need minutes to start a kernel
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
SESSION = "window.jupyterapp?.shell?.currentWidget?.sessionContext"


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": ["--no-sandbox", *QUIET]}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {**browser_context_args, "viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, request):
    """The address of a JupyterLab on a copy of the notebooks, with settings of its own.

    A module whose `WINDOWING` is None gets JupyterLab's default: cells off the screen are then not in the page. A test
    that gives the parameter "notebook" gets Notebook 7 instead.
    """
    front = getattr(request, "param", "jupyterlab")
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home / "config.py").write_text(
        "from jupyterlab.galata import configure_jupyter_server\n"
        "configure_jupyter_server(c)\n"
        "c.JupyterNotebookApp.expose_app_in_browser = True\n"
        f"c.ServerApp.ip, c.ServerApp.port, c.ServerApp.port_retries = '127.0.0.1', {port}, 0\n"
        f"c.ServerApp.root_dir, c.ServerApp.allow_root = {str(home)!r}, True\n"
    )
    settings = home / "lab" / "user-settings" / "@jupyterlab"
    (settings / "notebook-extension").mkdir(parents=True)
    if windowing := getattr(request.module, "WINDOWING", "none"):
        tracker = settings / "notebook-extension" / "tracker.jupyterlab-settings"
        tracker.write_text(f'{{"windowingMode": "{windowing}"}}')
    (settings / "apputils-extension").mkdir()
    (settings / "apputils-extension" / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "lab" / "user-settings"),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", front, "--config", str(home / "config.py"), "--no-browser"]
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
    """Put a notebook of these cells of code beside the others."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    content = json.dumps({"type": "notebook", "content": notebook}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{lab}/api/contents/notebooks/{name}", content, headers, method="PUT")
    urllib.request.urlopen(request, timeout=30).close()


def open_notebook(page, lab: str, name: str, tree: str = "lab/tree") -> None:
    """Open a notebook, wait for its kernel, and collect what fails in `window.wrong` from now on.

    Args:
        page: of the browser.
        lab: the address.
        name: of the file.
        tree: where the front end opens files; "notebooks" in Notebook 7.
    """
    page.set_default_timeout(WAIT)
    page.goto(f"{lab}/{tree}/notebooks/{name}?reset")
    page.wait_for_function(f"{SESSION}?.session?.kernel?.status === 'idle'")
    page.evaluate(
        f"() => {{ window.wrong = []; {SESSION}.iopubMessage.connect((_, message) => {{"
        " if (message.header.msg_type === 'error') window.wrong.push(message.content.evalue); }); }"
    )


def show_cell(page, name: str) -> None:
    """Scroll to a cell, by its id."""
    page.evaluate(
        "async (name) => { const { content } = window.jupyterapp.shell.currentWidget;"
        " const index = content.widgets.findIndex((cell) => cell.model.id === name);"
        " content.activeCellIndex = index; await content.scrollToItem(index, 'start'); }",
        name,
    )


def run_all(page) -> None:
    """Run every cell, and say so if one fails."""
    done = page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wrong = page.evaluate("() => window.wrong")
    assert done and not wrong, f"the notebook did not run to its end: {wrong or 'no error on the kernel channel'}"
