"""The page of a report in a real browser: a click sorts, and nothing is fetched from elsewhere."""

import numpy as np
import pytest
from PIL import Image

from gradeclip_utils.datasets import Example
from gradeclip_utils.measures.dataset_report import report
from tests.browser import BROWSER

pytestmark = BROWSER
PROMPTS = ("a dog", "<b>a cat</b>", "two cows")


@pytest.fixture
def rows(tmp_path, tiny):
    """A report of three pairs, the last of which has no mask."""
    examples = []
    for i, prompt in enumerate(PROMPTS):
        image = Image.effect_noise((60, 40), 20 + 40 * i).convert("RGB")
        mask = image.convert("L").point(lambda grey: 255 * (grey > 128)).convert("1")
        examples.append(
            Example(
                key=str(i),
                prompt=prompt,
                concept=prompt,
                caption="",
                present=(),
                image=lambda image=image: image,
                load_mask=None if i == 2 else lambda mask=mask: np.array(mask),
            )
        )
    return report(tiny, examples, tmp_path / "report", nulls=3)


def column(page, head):
    """The texts below a head."""
    heads = page.locator("thead th").all_text_contents()
    number = 1 + heads.index(head)
    return page.locator(f"tbody tr td:nth-child({number})").all_text_contents()


def click(page, head):
    page.get_by_role("button", name=head).click()


def test_a_click_on_a_head_sorts_up_and_then_down_and_what_is_not_known_comes_last(
    page, rows, tmp_path
):
    requests = []
    errors = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "report" / "index.html").as_uri())
    assert sorted(column(page, "caption")) == sorted(PROMPTS)

    for head, unknown in (("similarity", []), ("average precision", [""])):
        values = rows[head.replace(" ", "_")].dropna()
        rising = [f"{value:.2f}" for value in sorted(values)]
        for expected in (rising, rising[::-1]):
            click(page, head)
            assert column(page, head) == [*expected, *unknown]
    assert page.locator("th[aria-sort=descending]").count() == 1
    click(page, "caption")
    assert column(page, "caption") == sorted(PROMPTS)

    page.get_by_role("searchbox").fill("COWS two")
    (text,) = page.locator("tbody tr:visible").all_text_contents()
    assert text.strip().startswith("two cows")
    assert page.locator("output").inner_text() == "1 of 3"
    page.get_by_role("searchbox").fill("")
    assert page.locator("tbody tr:visible").count() == 3

    height = page.locator("img").first.evaluate("image => image.naturalHeight")
    assert height == 160
    links = page.locator("tbody a")
    pages = links.evaluate_all("links => links.map(a => a.getAttribute('href'))")
    assert sorted(pages) == sorted(rows["page"])
    assert errors == []
    assert all(url.startswith("file:") for url in requests)
