"""Security: no network, no foreign code."""

import socket

import pytest

from gradeclip_utils import Explainer, Explanation, load_clip, read_image
from gradeclip_utils.__main__ import main
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.evaluation import evaluate
from gradeclip_utils.panels.session import Source
from gradeclip_utils.scenes import arrange
from tests.refusals.cases import bomb
from tests.studies.folders import write_noise


def test_nothing_asks_a_network_for_anything(knowing, tmp_path, monkeypatch):
    def refused(*given, **named):
        raise AssertionError(f"a socket was asked for: {given} {named}")

    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    clip = load_clip("emoji")
    found = Explainer(clip).explain(arrange(["dog"]).image(), "a dog")
    found.plot()
    Explanation.load(found.save(tmp_path / "found"))
    Explainer(clip).interactions(arrange(["dog", "cat"]).image(), "a dog and a cat").plot()
    evaluate(
        knowing,
        f"folder:{write_noise(tmp_path, ['a dog', 'a cat'])}",
        out=tmp_path / "run",
        progress=False,
    )
    assert main(["explain", "--out", str(tmp_path / "x.png")]) == 0


EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script> & <b>'


def test_what_results_show_of_themselves_executes_nothing_of_the_users(tiny, picture):
    explainer = Explainer(tiny)
    prompt = f"a dog {EVIL}"[:40]
    results = [explainer.explain(picture, prompt), explainer.interactions(picture, prompt)]
    for result in [*results, results[0].plot(), arrange(["dog"])]:
        bundle = result._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        assert data.keys() <= {"image/png", "text/html", "text/plain", "text/markdown"}
        assert "<script>alert" not in data.get("text/html", "") and "<img src=x" not in data.get(
            "text/html", ""
        )
        assert (
            getattr(result, "_repr_html_", lambda: None)() is None
        )  # matplotlib's own, which gives none here
        assert "<" not in data.get(
            "text/markdown", ""
        )  # Jupyter and nbconvert read HTML in Markdown


def test_a_bomb_is_refused_before_it_is_decoded_wherever_an_image_is_read(
    tiny, tmp_path, monkeypatch
):
    file = bomb(tmp_path)

    def decoded(*given):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    for read in (read_image, lambda image: Explainer(tiny).explain(image, "a dog"), Source.of):
        for image in (file, str(file)):
            with pytest.raises(GradeclipError, match="more than 80 megapixels"):
                read(image)
