"""The panels in Firefox, with a kernel and as pages without one: whole, readable, and the console silent."""

import pytest

from gradeclip_utils.panels.explorer import explore
from gradeclip_utils.panels.lesson import opening
from gradeclip_utils.scenes import arrange
from tests.browser import SESSION, write_notebook
from tests.panels.browsing import SHOTS
from tests.panels.firefox import WITH_FIREFOX

pytestmark = WITH_FIREFOX
CAPTIONS = ["a red car", "a dog", "a piano"]
PAINTED = """[...document.querySelectorAll('.gradeclip-explorer')].map((box) => {
    const { width, height } = box.querySelector('.gradeclip-side-1 canvas');
    const pixels = box.querySelector('.gradeclip-side-1 canvas').getContext('2d').getImageData(0, 0, width, height);
    const image = box.querySelector('.gradeclip-side-1 img');
    return image.naturalWidth > 100 && image.clientWidth > 150 && pixels.data.some((value) => value > 0)
        && box.scrollWidth - box.clientWidth <= 1;
})"""
POINTED = """(() => {
    const box = document.querySelector('.gradeclip-explorer');
    box.querySelectorAll('button.gradeclip-word')[1].dispatchEvent(new PointerEvent('pointerenter'));
    return box.querySelector('.gradeclip-side-1 .gradeclip-title').textContent;
})()"""
TREES = {"jupyterlab": "lab/tree", "notebook": "notebooks"}
# A window that nobody sees has no focus, and a JupyterLab without focus no current notebook.
IDLE = f"""(() => {{
    const widgets = window.jupyterapp?.shell?.widgets('main') ?? [];
    for (const widget of widgets) widget.node.dispatchEvent(new FocusEvent('focus'));
    return {SESSION}?.session?.kernel?.status === 'idle';
}})()"""
WRITTEN = """(() => {
    const input = document.querySelector('.gradeclip-explorer .gradeclip-caption input');
    input.value = 'a piano';
    input.dispatchEvent(new Event('change'));
})()"""
TITLE = "document.querySelector('.gradeclip-explorer .gradeclip-side-1 .gradeclip-title')?.textContent"
SIZES = [(1280, 1.0), (800, 1.0), (1280, 1.5)]


@pytest.fixture(scope="module")
def pages(tiny, tmp_path_factory):
    """Pages without a kernel, and how many views each has."""
    scene, folder = arrange(["red car", "dog"]), tmp_path_factory.mktemp("pages")
    bundles = {
        "explorer": (explore(scene, clip=tiny)._repr_mimebundle_()[0], 1),
        "opening": (opening(scene, CAPTIONS, tiny)._repr_mimebundle_()[0], len(CAPTIONS)),
    }
    for name, (bundle, _) in bundles.items():
        text = f'<!doctype html><html><head><meta charset="utf-8"></head><body>{bundle["text/html"]}</body></html>'
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: ((folder / f"{name}.html").as_uri(), count) for name, (_, count) in bundles.items()}


@pytest.mark.parametrize("name", ["explorer", "opening"])
@pytest.mark.parametrize(("width", "zoom"), SIZES)
def test_a_page_without_a_kernel_is_whole_and_silent(firefox, pages, name, width, zoom):
    address, count = pages[name]
    firefox.go(address, width, zoom=zoom)
    assert firefox.evaluate(PAINTED) == [True] * count
    assert firefox.evaluate(POINTED).startswith("map of “")
    firefox.shoot(SHOTS / f"50_firefox_{name}_{width}_{int(100 * zoom)}.png")
    assert firefox.said == []


@pytest.mark.parametrize("lab", TREES, indirect=True)
def test_the_explorer_answers_in_jupyterlab_and_in_notebook_and_the_console_is_silent(firefox, lab, request):
    front = request.node.callspec.params["lab"]
    write_notebook(lab, "firefox.ipynb", ["from gradeclip_utils.panels.explorer import explore\n\nexplore()"])
    firefox.go(f"{lab}/{TREES[front]}/notebooks/firefox.ipynb?reset", 1280)
    firefox.wait(IDLE)
    firefox.said.clear()  # of the front end itself, which starts
    assert firefox.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    firefox.wait(f"{TITLE}?.startsWith('map: “')")
    firefox.evaluate(WRITTEN)
    firefox.wait(f"{TITLE} === 'map: “a piano”'")
    for theme in ("Light", "Dark"):
        change = f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})"
        firefox.evaluate(f"{change}.then(() => null)")
        firefox.wait(f"document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
        for width, zoom in SIZES:
            firefox.resize(width, zoom)
            firefox.wait(f"String({PAINTED}) === 'true'")
            firefox.shoot(SHOTS / f"51_firefox_{front}_{theme.lower()}_{width}_{int(100 * zoom)}.png")
    assert firefox.said == []
