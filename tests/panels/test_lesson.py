"""Panels without a browser: what is shown, what is refused, and which change wins."""

import asyncio
import base64
import io
import re
import threading
import time
import warnings

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from gradeclip_utils.notices import ExplanationWarning, warn
from gradeclip_utils.panels.jobs import Interrupted
from gradeclip_utils.panels.lesson import FigurePanel, panel
from gradeclip_utils.plots import InlineFigure
from gradeclip_utils.plots.figures import alternative


def curve(power=2, colour="red", caption="a dog"):
    """A pure draw function; text that is empty cannot be drawn."""
    if not caption.strip():
        raise ValueError("The caption is empty. Type what to look for.")
    made = InlineFigure(3, 2, f"x to the power of {power} in {colour} for {caption}")
    made.subplots().plot(np.linspace(0, 1, 20) ** power, color=colour)
    return made


@pytest.fixture
def shown():
    return panel(curve, power=(1, 5), colour=["red", "green"], caption="a dog")


def source(shown):
    return re.search(r'src="([^"]+)"', shown.image.value).group(1)


def test_a_panel_is_a_box_of_named_controls_and_the_figure_of_their_values(shown):
    assert isinstance(shown, w.VBox) and isinstance(shown, FigurePanel)
    assert list(shown.controls) == ["power", "colour", "caption"]
    assert [control.description for control in shown.controls.values()] == ["power", "colour", "caption"]
    assert shown.values == {"power": 3, "colour": "red", "caption": "a dog"}
    assert shown.figure.alt == "x to the power of 3 in red for a dog" and shown.message == ""
    assert "power 3, colour red, caption “a dog”" in shown.status.value


@pytest.mark.parametrize(("name", "value"), [("power", 5), ("colour", "green"), ("caption", "a cat")])
def test_every_control_redraws_the_figure(shown, name, value):
    before = source(shown)
    shown.controls[name].value = value
    assert str(value) in shown.figure.alt
    assert (source(shown) == before) == (name == "caption")  # which is in the alternative text alone
    assert f'alt="{shown.figure.alt}"' in shown.image.value


def inked(file):
    """Grey pixels of a image file, cut around its ink."""
    grey = np.asarray(Image.open(file).convert("L"), dtype=float)
    rows, columns = (np.flatnonzero((grey < 255).any(axis)) for axis in (1, 0))
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def plain(power):
    """A figure that is not one of ours."""
    made = Figure(figsize=(3, 2))
    made.subplots().plot(np.linspace(0, 1, 20) ** power)
    return made


@pytest.mark.parametrize("make", [curve, plain])
@pytest.mark.parametrize("beyond", [0.0, 0.4, 0.8, 3.0])
def test_what_is_shown_is_what_a_notebook_shows_however_far_it_reaches_beyond_the_figure(beyond, make):
    def draw(power):
        made = make(power)
        made.text(-beyond, 1 + beyond, "far up")
        made.text(1 + beyond, -beyond, "far down")
        made.add_artist(Line2D([-beyond, 1 + beyond], [1 + beyond, -beyond]))
        return made

    shown, usual = panel(draw, power=(1, 3)), io.BytesIO()
    shown.figure.savefig(usual, bbox_inches="tight")
    ours, theirs = (inked(file) for file in (io.BytesIO(base64.b64decode(source(shown).partition(",")[2])), usual))
    assert np.abs(np.subtract(ours.shape, theirs.shape)).max() <= 1  # it may begin at another part of a pixel
    assert (255 - ours).sum() == pytest.approx((255 - theirs).sum(), rel=0.02)


def test_a_figure_without_ink_is_shown_whole():
    shown = panel(lambda a: InlineFigure(2, 1), a=(0, 1))
    width, height = Image.open(io.BytesIO(base64.b64decode(source(shown).partition(",")[2]))).size
    assert 220 <= width <= 250 and 110 <= height <= 140


def test_what_is_shown_is_the_picture_of_the_very_figure(shown):
    picture = source(shown)
    shown.change(power=1)
    assert source(shown) != picture
    shown.change(power=3)
    assert source(shown) == picture


def test_what_cannot_be_drawn_gets_its_sentence_and_the_last_good_figure_stays(shown):
    figure, picture, below = shown.figure, source(shown), shown.status.value
    shown.controls["caption"].value = "  "
    assert shown.figure is figure and source(shown) == picture and shown.status.value == below
    assert shown.message.startswith("The caption is empty.") and 'role="alert"' in shown.answer.value
    assert shown.controls["caption"].value == "  "  # left for its author to mend
    shown.controls["caption"].value = "a bird"
    assert shown.message == "" and shown.answer.value == "" and shown.figure is not figure


def test_the_users_text_is_shown_and_never_run():
    def draw(caption):
        if "bad" in caption:
            raise ValueError(f"cannot read {caption!r}")
        return InlineFigure(2, 2, caption)

    shown = panel(draw, caption='"><script>alert(1)</script>')
    shown.change(caption="bad <img onerror=alert(2)>")
    for part in (shown.image, shown.status, shown.answer):
        assert "<script" not in part.value and "<img onerror" not in part.value
    assert "&lt;img onerror" in shown.answer.value


@pytest.mark.parametrize("beyond", [0.0, 4.0])
def test_points_say_their_text_right_where_they_are_drawn(beyond):
    """Also where the figure is cut on all sides, or reaches beyond the sheet that it is drawn on."""

    def draw(caption):
        made = InlineFigure(3, 2, "two points")
        axes = made.add_axes((0.2, 0.2, 0.6, 0.6))
        axes.set(xlim=(0, 3), ylim=(0, 3))
        axes.set_axis_off()
        for x, y, colour in ((1, 2, "red"), (2, 1, "blue")):
            axes.plot([x], [y], "s", color=colour, markersize=8)
            made.points.append((axes, x, y, f"{caption} {colour}"))
        made.text(-beyond, 0.4, "x")
        return made

    shown = panel(draw, caption="a <b>")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source(shown).partition(",")[2]))).convert("RGB"))
    assert f'viewBox="0 0 {pixels.shape[1]} {pixels.shape[0]}"' in shown.image.value
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"><title>(.*?)</title>', shown.image.value)
    assert [text for _, _, text in found] == ["a &lt;b&gt; red", "a &lt;b&gt; blue"]
    for (x, y, _), colour in zip(found, ((255, 0, 0), (0, 0, 255)), strict=True):
        rows, columns = np.nonzero((pixels == colour).all(-1))
        assert float(x) == pytest.approx(columns.mean() + 0.5, abs=1) and float(y) == pytest.approx(
            rows.mean() + 0.5, abs=1
        )
    assert "<circle" not in panel(curve, power=(1, 5)).image.value


def test_a_figure_with_a_layout_is_cut_when_it_is_laid_out():
    """A layout moves the axes when the figure is drawn, not before."""

    def draw(title):
        made = InlineFigure(3, 2, "a curve", layout="constrained")
        made.subplots().set(title=title, ylabel="a label\nof two lines", xlabel="steps")
        return made

    shown, usual = panel(draw, title="one\ntwo\nthree\nfour"), io.BytesIO()
    draw("one\ntwo\nthree\nfour").savefig(usual, bbox_inches="tight")
    ours = Image.open(io.BytesIO(base64.b64decode(source(shown).partition(",")[2])))
    assert np.abs(np.subtract(ours.size, Image.open(usual).size)).max() <= 1


def test_change_turns_several_controls_and_draws_once():
    drawn = []

    def draw(a, b):
        drawn.append((a, b))
        return InlineFigure(1, 1, f"{a} {b}")

    shown = panel(draw, a=(0, 9), b=(0, 9))
    shown.change(a=1, b=2)
    assert drawn == [(4, 4), (1, 2)] and shown.figure.alt == "1 2"
    with pytest.raises(ValueError, match=r"there is no control c; there are a, b"):
        shown.change(c=1)


def test_in_a_running_loop_a_burst_of_changes_draws_the_newest_only():
    drawn = []

    def draw(level):
        drawn.append(level)
        return InlineFigure(1, 1, str(level))

    async def turn(shown):
        for level in range(1, 9):
            shown.controls["level"].value = level
        assert "drawing" in shown.status.value
        await asyncio.sleep(0.3)

    shown = panel(draw, level=w.IntSlider(0, 0, 10))
    asyncio.run(turn(shown))
    assert drawn == [0, 8] and shown.figure.alt == "8" and "shown: level 8" in shown.status.value


def test_a_figure_that_a_newer_change_overtook_is_never_shown():
    started, overtaken = threading.Event(), threading.Event()

    def draw(level):
        if level == 1:
            started.set()
            assert overtaken.wait(10)
        return InlineFigure(1, 1, str(level))

    shown, seen = panel(draw, level=w.IntSlider(0, 0, 10)), []
    shown.image.observe(lambda change: seen.append(re.search('alt="(.)"', change.new).group(1)), "value")
    slow = threading.Thread(target=lambda: shown.change(level=1))
    slow.start()
    assert started.wait(10)
    quick = threading.Thread(target=lambda: shown.change(level=2))
    quick.start()
    while shown.values["level"] != 2:
        time.sleep(0.01)
    time.sleep(0.1)
    overtaken.set()
    slow.join(10), quick.join(10)
    assert seen == ["2"] and shown.figure.alt == "2"


def test_a_long_drawing_tells_how_far_it_is_and_ends_for_a_newer_change():
    reached, ends, bars = [], threading.Event(), []

    def draw(level, report=None):
        for step in range(100 if report and level == 1 else 0):
            reached.append(step)
            try:
                report(step / 100)
            except Interrupted:
                ends.set()
                raise
            time.sleep(0.05)
        return InlineFigure(1, 1, str(level))

    async def turn(shown):
        shown.controls["level"].value = 1
        while not any('value="0.0' in bar and 'value="0.00"' not in bar for bar in bars):  # the loop goes on meanwhile
            await asyncio.sleep(0.01)
        shown.controls["level"].value = 2
        while shown.figure.alt != "2":
            await asyncio.sleep(0.01)

    shown = panel(draw, level=w.IntSlider(0, 0, 10))
    shown.status.observe(lambda change: bars.append(change.new), "value")
    asyncio.run(asyncio.wait_for(turn(shown), 20))
    assert ends.wait(10) and len(reached) < 100
    assert "shown: level 2" in shown.status.value and "progress" not in shown.status.value


def test_many_threads_leave_the_panel_in_line_with_its_controls():
    shown = panel(lambda level: InlineFigure(1, 1, str(level)), level=w.IntSlider(0, 0, 100))
    threads = [threading.Thread(target=shown.change, kwargs={"level": level}) for level in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert shown.figure.alt == str(shown.values["level"])


def test_how_long_a_figure_took_is_measured_and_is_nothing_that_a_reader_has_to_know():
    def draw(wait):
        time.sleep(wait)
        return InlineFigure(1, 1)

    shown = panel(draw, wait=w.FloatSlider(0, min=0, max=1, step=0.1))
    shown.change(wait=0.2)
    assert 0.2 <= shown.seconds < 2
    assert "shown: wait 0.2<" in shown.status.value


def test_the_controls_of_one_thing_stand_in_a_row_of_their_own():
    def draw(first, first_colour, second, second_colour):
        return InlineFigure(1, 1, f"{first} {first_colour} {second} {second_colour}")

    choices = {name: ["a", "b"] for name in ("first", "first_colour", "second", "second_colour")}
    shown = panel(draw, **choices)
    rows = [[control.description for control in row.children] for row in shown.children[0].children]
    assert rows == [["first", "first colour"], ["second", "second colour"]]
    assert all(control.tooltip == control.description for control in shown.controls.values())  # else it is "null"


def test_what_an_explanation_warns_of_is_a_note_and_other_warnings_pass():
    def draw(word):
        if word == "odd":
            for _ in range(2):
                warn("the model was never shown odd")
            warnings.warn("something else", UserWarning, stacklevel=1)
        return InlineFigure(1, 1, word)

    shown = panel(draw, word="plain")
    with pytest.warns(UserWarning, match="something else") as passed:
        shown.change(word="odd")
    assert [one.category for one in passed] == [UserWarning]
    assert shown.message == "the model was never shown odd." and 'role="status"' in shown.answer.value
    shown.change(word="plain")
    assert shown.message == ""


def test_notes_of_two_drawings_at_a_time_are_kept_apart_and_leave_python_alone():
    """Python's own way to catch warnings changes what all threads share."""
    before, together = (warnings.showwarning, list(warnings.filters)), threading.Barrier(2)

    def draw(word, report=None):
        if report:
            report(0)
        if word in ("one", "two"):
            together.wait(10)  # the first is still under way when the second one begins
            warn(f"never shown {word}")
        return InlineFigure(1, 1, word)

    async def turn(shown):
        for word in ("one", "two"):
            shown.controls["word"].value = word
            await asyncio.sleep(0.1)
        while shown.figure.alt != "two":
            await asyncio.sleep(0.01)

    shown = panel(draw, word="plain")
    asyncio.run(asyncio.wait_for(turn(shown), 20))
    assert shown.message == "never shown two."
    assert (warnings.showwarning, list(warnings.filters)) == before
    with pytest.warns(ExplanationWarning, match="heard again"):
        warn("heard again")


def test_pyplot_keeps_no_figure_of_a_panel():
    def draw(power):
        figure, axes = plt.subplots()
        axes.plot([0, power])
        return figure

    before = plt.get_fignums()
    panel(draw, power=(1, 5)).change(power=4)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ((0.0, 1.0, 0.1), w.FloatSlider), ((1, 4), w.IntSlider), (["a", "b"], w.Dropdown), ({"one": 1}, w.Dropdown),
        ("text", w.Text), (True, w.Checkbox), (w.IntSlider(description="own name"), w.IntSlider),
    ],
)  # fmt: skip
def test_plain_values_become_widgets_that_wait_until_they_are_let_go(given, kind):
    (made,) = panel(lambda some_value: InlineFigure(1, 1), some_value=given).controls.values()
    assert isinstance(made, kind)
    assert made.description == ("own name" if isinstance(given, w.Widget) else "some value")
    if not isinstance(given, w.Widget):
        assert not getattr(made, "continuous_update", False)


def test_a_fixed_value_is_handed_over_and_not_shown():
    shown = panel(lambda a, model: InlineFigure(1, 1, f"{a} {model}"), a=(0, 4), model=w.fixed("emoji"))
    assert shown.figure.alt == "2 emoji" and list(shown.controls) == ["a"]


def test_what_cannot_be_a_panel_is_refused_at_the_door():
    with pytest.raises(TypeError, match=r"the controls \(a\) are not the arguments of draw: .*'b'"):
        panel(lambda a, b: InlineFigure(1, 1), a=(0, 1))
    with pytest.raises(TypeError, match="draw must return a matplotlib figure, got str"):
        panel(lambda a: "no figure", a=(0, 1))
    with pytest.raises(ValueError, match=r"a=None makes no control"):
        panel(lambda a: InlineFigure(1, 1), a=None)
    with pytest.raises(TypeError, match="at least one control"):
        panel(lambda a: InlineFigure(1, 1), a=w.fixed(1))
    with pytest.raises(ValueError, match="caption is empty"):
        panel(curve, caption="")


def test_a_fault_of_draw_is_not_hidden():
    def draw(a):
        return InlineFigure(1, 1) if a < 3 else [][a]

    shown = panel(draw, a=w.IntSlider(0, 0, 5))
    with pytest.raises(IndexError):
        shown.change(a=4)
    assert shown.message.startswith("IndexError: ") and "shown: a 0" in shown.status.value


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_a_long_drawing_is_said_on_the_panel_too():
    def draw(a, report=None):
        return InlineFigure(1, 1, str(a)) if a < 3 else [][a]

    async def turn(shown):
        for value in (4, 2):
            shown.controls["a"].value = value
            while "drawing" in shown.status.value or not (shown.message or shown.figure.alt == "2"):
                await asyncio.sleep(0.01)
            said.append(shown.message)

    shown, said = panel(draw, a=w.IntSlider(0, 0, 5)), []
    asyncio.run(asyncio.wait_for(turn(shown), 20))
    assert said[0].startswith("IndexError: ") and said[1] == "" and shown.figure.alt == "2"


def test_a_figure_without_a_description_is_described_by_its_titles_and_axes():
    figure = Figure()
    figure.suptitle("two lines")
    one, two = figure.subplots(1, 2)
    one.set(title="rising", xlabel="steps", ylabel="score")
    two.set_title("falling", loc="left")
    assert alternative(figure) == "two lines; rising; score over steps; falling"
    assert alternative(Figure()) == "a figure without a title"
    assert alternative(InlineFigure(1, 1, "a dog")) == "a dog"


def test_without_a_kernel_a_panel_is_a_line_that_says_what_it_shows(shown):
    assert repr(shown) == "a panel (turn power, colour, caption) that shows: x to the power of 3 in red for a dog"
