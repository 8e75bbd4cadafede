"""The page of a report in a real browser: a click sorts, and nothing is fetched from elsewhere."""

import pandas as pd
import pytest
from PIL import Image

from gradeclip_utils.measures.dataset_report import _render_page, _worst_first
from tests.browser import BROWSER

pytestmark = BROWSER


@pytest.fixture
def report(tmp_path, tiny):
    """A page of three pairs, one of which has no mask."""
    rows = pd.DataFrame(
        {
            "image": ["b", "a", "c"],
            "prompt": ["a dog", "<b>a cat</b>", "two cows"],
            "similarity": [0.3, 0.2, -0.1],
            "fit": [1.0, 0.25, 0.5],
            "dependence": [0.9, 0.05, 0.4],
            "low": [0.8, 0.04, 0.3],
            "high": [1.0, 0.06, 0.5],
            "average_precision": [0.1, 0.2, None],
            "thumbnail": ["0.jpg", "1.jpg", "2.jpg"],
            "page": ["0.html", "1.html", ""],
        }
    )
    for name in rows["thumbnail"]:
        Image.new("RGB", (160, 160), "red").save(tmp_path / name)
    (tmp_path / "index.html").write_text(
        _render_page(_worst_first(rows.to_dict("records")), tiny, "grad-eclip")
    )
    return (tmp_path / "index.html").as_uri()


def column(page, number):
    return page.locator(f"tbody tr td:nth-child({number})").all_text_contents()


def test_a_click_on_a_head_sorts_up_and_then_down_and_what_is_not_known_comes_last(page, report):
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report)
    assert len(column(page, 3)) == 3
    assert column(page, 1).count("<b>a cat</b>") == 1
    heads = page.locator("thead th").all_text_contents()
    names = "similarity", "average precision", "caption"
    similarity, precision, caption = (heads.index(name) + 1 for name in names)
    page.get_by_role("button", name="similarity").click()
    assert column(page, similarity) == ["-0.10", "0.20", "0.30"]
    page.get_by_role("button", name="similarity").click()
    assert column(page, similarity) == ["0.30", "0.20", "-0.10"]
    assert page.locator("th[aria-sort=descending]").count() == 1
    for expected in (["0.10", "0.20", ""], ["0.20", "0.10", ""]):
        page.get_by_role("button", name="average precision").click()
        assert column(page, precision) == expected
    page.get_by_role("button", name="caption").click()
    assert column(page, caption)[-1] == "two cows"
    assert page.locator("img").first.evaluate("image => image.naturalWidth") == 160
    page.get_by_role("searchbox").fill("COWS two")
    assert page.locator("tbody tr:visible").all_text_contents()[0].strip().startswith("two cows")
    assert page.locator("output").inner_text() == "1 of 3"
    page.get_by_role("searchbox").fill("")
    assert page.locator("tbody tr:visible").count() == 3
    pages = page.locator("tbody a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    assert sorted(pages) == ["0.html", "1.html"]
    assert wrong == []
    assert all(url.startswith("file:") for url in asked)
