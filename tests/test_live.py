"""The live page: its graphs and the page in a browser compute what the package computes."""

import base64
import functools
import io
import json
import re
import socketserver
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, pairwise
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.plots import paint
from tests.browser import WAIT, in_a_browser
from tests.conftest import load_script

onnx = pytest.importorskip("onnx", reason="the export needs onnx: pip install '.[live]'")
pytest.importorskip("onnxscript", reason="the export needs onnxscript: pip install '.[live]'")

load_script("docs/live/export.py")  # which the next one imports
build = load_script("docs/live/build.py")
SCENES = build.chosen_scenes()[:3]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        build.build(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The built folder, without onnxruntime-web."""
    out = tmp_path_factory.mktemp("live") / "out"
    build.build(out)
    return out


@pytest.fixture(scope="module")
def rows(folder):
    return json.loads((folder / "scenes.json").read_text())


@pytest.fixture(scope="module")
def expected(rows):
    """Explanation, word x region and the lead of the first scenes and their first captions."""
    explainer = Explainer(load_clip("emoji"))
    results = []
    for scene, row in zip(SCENES, rows, strict=False):
        image = scene.image()
        caption = row["captions"][0]
        lead = explainer.explain(image, caption, against="others")
        interactions = explainer.interactions(image, caption)
        results.append((explainer.explain(image, caption), interactions, lead))
    return results


def assert_alike(values, expected, tolerance=1e-4):
    """Equal to 1e-4, and where values are small to 1e-4 of the largest of them."""
    expected = np.asarray(expected)
    allowed = tolerance * min(1.0, float(np.abs(expected).max()))
    values = np.asarray(values).reshape(expected.shape)
    np.testing.assert_allclose(values, expected, rtol=0, atol=allowed)


def scores_of(explanation):
    return [word.score for word in explanation.words[0]]


class Graphs:
    """The exported graphs, run by onnxruntime."""

    def __init__(self, folder, runtime):
        self.folder = folder
        self.runtime = runtime
        self.about = json.loads((folder / "about.json").read_text())

    def run(self, name, **inputs):
        session = self.runtime.InferenceSession(
            self.folder / f"{name}.onnx", providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    def read(self, words):
        """The embedding of a caption, and the direction of each of its words."""
        tokens = self.about["tokens"]
        pieces = [tokens[word.text] for word in words]
        ids = [*tokens["<start>"], *chain(*pieces), *tokens["<end>"]]
        padded = np.pad(ids, (0, self.about["context"] - len(ids)))
        caption = self.run("caption", ids=padded)

        directions = []
        ends = np.cumsum([1, *map(len, pieces)])
        for start, end in pairwise(ends):
            directions.append(caption["directions"][start:end].sum(0))
        return caption["text_embedding"], np.array(directions)


@pytest.mark.slow
def test_the_graphs_give_the_maps_and_words_of_the_package(folder, rows, expected):
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime runs the graphs")
    graphs = Graphs(folder, runtime)
    nulls = np.fromfile(folder / "nulls.bin", "<f4").reshape(graphs.about["nulls"], -1)
    mean_null = nulls.mean(0)
    for row, (explanation, interactions, lead) in zip(rows, expected, strict=False):
        rgba = np.array(Image.open(folder / row["seen"]).convert("RGBA"))
        scene = graphs.run("scene", rgba=rgba)
        image = scene.pop("image_embedding")
        words = explanation.words[0]
        text, directions = graphs.read(words)
        assert_alike(image @ text, explanation.similarity[0])
        assert_alike(directions @ image, scores_of(interactions))

        scores = []
        for i in range(len(words)):
            shorter, _ = graphs.read(words[:i] + words[i + 1 :])
            scores.append(image @ (text - shorter))
        assert_alike(scores, scores_of(explanation))

        maps = []
        for direction in (text, text - mean_null, *directions):
            outputs = graphs.run("map", direction=direction, **scene)
            maps.append(outputs["map"])
        assert_alike(maps[0], explanation.image_maps[0])
        assert_alike(maps[1], lead.image_maps[0])
        assert_alike(maps[2:], interactions.image_maps)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(folder):
    """The folder, whole and served from this machine."""
    try:
        build.fetch_runtime(folder)
    except (FileNotFoundError, ConnectionError) as refusal:
        pytest.skip(str(refusal))
    socketserver.TCPServer.allow_reuse_address = True
    handler = functools.partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def open_page(page, address):
    """Open the page, and collect its requests and errors."""
    requests = []
    errors = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.wait_for_selector("#words button")
    return requests, errors


def redraw(page, **change):
    """Change what is shown, and give what is shown then."""
    script = """async (change) => {
      const { redraw, shown } = await import("./live.js");
      await redraw(change);
      return { ...shown, map: [...shown.map] };
    }"""
    return page.evaluate(script, change)


@in_a_browser
def test_the_page_gives_maps_scores_and_percentiles_of_the_package(page, address, rows, expected):
    requests, errors = open_page(page, address)
    for i, (explanation, interactions, lead) in enumerate(expected):
        view = redraw(page, scene=i, caption=rows[i]["captions"][0])
        assert_alike(view["map"], explanation.image_maps[0])
        assert_alike(view["similarity"], explanation.similarity[0])
        assert_alike(view["scores"], scores_of(explanation))
        assert view["percentile"] == pytest.approx(explanation.percentile[0], abs=1)

        view = redraw(page, compared="others")
        assert_alike(view["map"], lead.image_maps[0])
        assert_alike(view["scores"], scores_of(lead))
        number = f"{abs(lead.lead[0]):.2f}"
        label = f"lead {number} over {lead.null_count} other captions"
        assert page.inner_text("#similarity") == label
        assert "compared=others" in page.url
        redraw(page, compared="nothing")

        last_word = len(explanation.words[0]) - 1
        view = redraw(page, word=last_word)
        assert_alike(view["map"], interactions.image_maps[last_word])
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)


@in_a_browser
def test_the_page_has_the_colours_of_the_package_and_at_most_30_megabytes(page, address, folder):
    open_page(page, address)
    view = redraw(page, scene=2)
    url = page.evaluate("document.querySelector('#map').toDataURL()")
    png = base64.b64decode(url.partition(",")[2])
    drawn = Image.open(io.BytesIO(png)).convert("RGB")

    map_ = np.reshape(view["map"], (12, 12))
    painted = paint(SCENES[2].image(), map_, vmax=view["most"]).resize(drawn.size)
    difference = np.asarray(drawn, dtype=int) - np.asarray(painted, dtype=int)
    assert np.abs(difference).mean() <= 2

    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30e6


@in_a_browser
def test_it_opens_with_three_captions_a_question_and_a_state_that_its_address_holds(page, address):
    open_page(page, address)
    page.click("#question-title")
    captions = page.locator("#captions button").all_inner_texts()
    assert captions == ["a dog", "an umbrella", "a piano"]
    page.locator("#question button", has_text="a dog").click()
    page.wait_for_function("document.querySelector('#answer').textContent.startsWith('No')")
    page.locator("#question button", has_text="a piano").click()
    page.wait_for_function("document.querySelector('#answer').textContent.startsWith('Right')")
    page.locator("#captions button", has_text="a dog").click()
    page.wait_for_function("document.querySelector('#answer').textContent === ''")

    bar = page.locator("#filled")
    width_of_caption = bar.bounding_box()["width"]
    for stop in (2, 3, 4):
        page.click("#next")
        page.wait_for_function(
            f"document.querySelector('#tour').innerText.startsWith('{stop} of 5')"
        )
    word = page.locator("#words button:nth-of-type(5)[aria-pressed=true]")
    word.wait_for()
    assert word.evaluate("node => getComputedStyle(node).textDecorationLine") == "line-through"
    label = page.inner_text("#similarity")
    without, similarity = map(float, re.findall(r"[0-9.]+", label))
    assert label.startswith("without “umbrella”: ")
    assert without < similarity
    assert bar.bounding_box()["width"] != width_of_caption

    assert urlencode({"caption": "a dog and an umbrella"}) in page.url
    assert "word=5" in page.url
    copy = page.context.new_page()
    open_page(copy, page.url)
    copy.wait_for_selector("#words button:nth-of-type(5)[aria-pressed=true]")
    copy.goto(f"{address}#scene=2.5&caption=a+piano&word=2.5")  # in the page that is open
    copy.wait_for_selector("#words button:nth-of-type(2)[aria-pressed=true]")
    assert copy.url.endswith("#scene=2&caption=a+piano&word=2")


@in_a_browser
def test_unknown_words_are_struck_out_and_markup_stays_text(page, address):
    open_page(page, address)
    page.fill("#caption", "A happy dogg and a <b>cat</b>")
    page.press("#caption", "Enter")
    page.wait_for_selector("#unknown s")
    struck = page.locator("#unknown s").all_inner_texts()
    assert {"happy", "dogg"} <= set(struck)
    assert page.locator("#unknown b").count() == 0
    assert page.locator("#words button").all_inner_texts()[0] == "A"
    page.locator("#unknown button", has_text=re.compile("^dog$")).click()
    page.wait_for_function("document.querySelector('#caption').value.includes('happy dog and')")

    page.fill("#caption", "qa qb qc qd qe qf qg qh qi")
    page.press("#caption", "Enter")
    page.wait_for_function("document.querySelector('#refusal').textContent")
    refusal = page.inner_text("#refusal")
    assert re.match("The model knows .* never shown “qa”, (“[^”]+”, ){7}…$", refusal)


@in_a_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_axe_finds_no_violation(page, address, width, theme):
    module = "axe_playwright_python.sync_playwright"
    axe = pytest.importorskip(module, reason="axe: pip install axe-playwright-python")
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    open_page(page, address)
    levels = {"type": "tag", "values": ["wcag2a", "wcag2aa"]}
    report = axe.Axe().run(page, options={"runOnly": levels})
    assert report.violations_count == 0, report.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
