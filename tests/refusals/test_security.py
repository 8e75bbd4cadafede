"""Security: no network, and nothing of a user's text is executed where a result is shown."""

import socket

import pytest

from gradeclip_utils import Explainer, load_clip
from gradeclip_utils.__main__ import main
from gradeclip_utils.scenes import arrange

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def test_explaining_with_the_bundled_model_asks_no_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"the network was asked for {arguments}")

    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    explainer = Explainer(load_clip("emoji"))
    image = arrange(["dog", "cat"]).image()
    explainer.explain(image, "a dog").plot()
    explainer.interactions(image, "a dog and a cat").plot()
    assert main(["explain", "--out", str(tmp_path / "scene.png")]) == 0


@pytest.mark.parametrize("door", ["explain", "interactions"])
def test_what_a_result_shows_of_itself_has_no_markup_of_a_prompt(tiny, picture, door):
    explain = getattr(Explainer(tiny), door)
    prompt = f"a dog {EVIL}"[:40]
    result = explain(picture, prompt)
    bundle = result._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle

    assert data.keys() <= {"image/png", "text/html", "text/plain", "text/markdown"}
    assert "<img src=x" not in data.get("text/html", "")
    assert "<" not in data.get("text/markdown", "")  # Jupyter reads HTML in Markdown
