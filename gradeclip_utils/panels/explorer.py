"""Explorer: the panel for JupyterLab, thin over `session` (what is computed) and `explorer_view` (how it is shown).

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

    from gradeclip_utils.panels.explorer import explore
    explore("dog.jpg", "a dog on a sofa")

A panel holds the state that is wanted and the last view that was found. A change makes a new state; what comes back is
shown whole or not at all, so that nothing on the panel is ever stale: wrong input is answered by a sentence, while the
last good view and its title stay.
"""

from __future__ import annotations

import html
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import ipywidgets as w

from ..checks import as_path, listed, writable
from ..errors import InvalidValue
from ..files import write_whole
from ..images import read_image
from ..methods import METHODS
from ..models import Clip, load_clip
from ..plots.colours import COLOURS
from ..scenes import draw_scene
from . import explorer_view
from .controls import Pane, Side
from .jobs import UserError, Work, sentence
from .session import Session
from .state import GRAD_ECLIP, SPATIAL_WEIGHTS, Source, State, View, as_source, changed

CONTROLS = (
    "gallery", "image", "caption", "against", "words", "method", "beside", "layers", "spatial", "attention",
    "resolution", "centred", "threshold", "opacity", "shared", "colours", "keep",
)  # fmt: skip
_GALLERY = (1, 2, 2, 3, 3, 4, 4, 1)  # objects in each scene of the gallery, whose seeds count from 0
_UNREADABLE = (ValueError, TypeError, OSError)  # what `read_image` raises of what is no image
_DISPLAY = {"threshold", "opacity", "colours"}  # fields that only say how to draw
_HOW = "Press a word for its region; Shift and another word make a phrase; press it again for the whole caption."


def explore(image=None, caption: str | None = None, clip: Clip | None = None) -> Explorer:
    """The whole panel: any image, any caption, every control.

        explore()
        explore("dog.jpg", "a dog on a sofa", load_clip("ViT-B-16", pretrained="openai"))

    Args:
        image: a scene, a PIL image, a path or a uint8 array; a scene of the gallery by default.
        caption: what to look for; a scene's own caption by default, and "a photo" for any other image.
        clip: the model; by default what `load_clip()` gives.

    Raises:
        ValueError, FileNotFoundError, TypeError: the image or the caption cannot be used.
    """
    return Explorer(image, caption, clip)


def layer_slider(image=None, caption: str | None = None, clip: Clip | None = None) -> Explorer:
    """A panel for the lesson on the method: how many layers, which spatial weight, and nothing else.

    Arguments and errors as of `explore`.
    """
    return Explorer(image, caption, clip, controls=("layers", "spatial"))


@lru_cache(maxsize=1)
def gallery() -> tuple[Source, ...]:
    """A few development scenes, with their captions."""
    sources = []
    for seed, count in enumerate(_GALLERY):
        made = f'draw_scene({seed}, split="development", n_objects={count}, plain=True)'
        scene = draw_scene(seed, split="development", n_objects=count, plain=True)
        sources.append(as_source(scene, f"scene {seed + 1} of the gallery", f"image = {made}.image()"))
    return tuple(sources)


class Explorer(w.VBox):
    """A panel. `view` is what it shows, `figure()` the same without a widget, `change(...)` turns any control.

    Args:
        image, caption, clip: as in `explore`.
        controls: which of `CONTROLS` there are.
        **settings: further fields of `panels.session.State` to start with.
    """

    def __init__(self, image=None, caption=None, clip=None, *, controls: Sequence[str] = CONTROLS, **settings):
        if unknown := sorted({*map(str, listed("controls", controls))} - {*CONTROLS}):
            msg = f"controls must be among {', '.join(CONTROLS)}, got {', '.join(unknown)}"
            raise InvalidValue(msg, "choice-unknown")
        self._model = "load_clip()" if clip is None else "clip"
        self.session = Session(load_clip() if clip is None else clip)
        source = gallery()[1] if image is None else as_source(image)
        caption = (source.caption or "a photo") if caption is None else caption
        state = State(source, caption, layers=self.session.clip.image_layers or 1)
        self.view: View = self.session.view(changed(state, settings, self.session.depth))
        self.wanted, self.work = self.view.state, Work()
        self._wrong: tuple[str, ...] = ()  # the fields whose last value was refused, and why
        self._why = ""
        # JupyterLab 4.4 and later may deliver a control's messages in two threads: one event at a time, and only the
        # thread that is setting the controls to what is shown must not take that for a wish of the user.
        self._turn = threading.RLock()
        self._setting: int | None = None
        self._make()
        super().__init__(children=self._arranged(set(controls)))
        self.add_class("gradeclip-explorer")
        self._show()

    def change(self, **fields) -> None:
        """Show a state that differs in these fields of `State`, and wait for it, however long it takes.

        What cannot be shown is answered by a sentence on the panel, which stays as it was, as a whole.
        """
        self._ask(fields, wait=True)

    def _ask(self, fields: dict, wait: bool = False) -> None:
        """Ask for a state that differs in some fields. What was chosen in an old caption goes with it."""
        with self._turn:
            turned = tuple(fields)
            if {"caption", "source", "resolution"} & fields.keys():
                fields = {"phrase": None, "patch": None, **fields}
            try:
                wanted = changed(self.wanted, fields, self.session.depth)
            except UserError as refusal:  # nothing that the panel holds has changed
                return self._say(self._told(refusal))
            self.wanted = wanted
            if self.work.running and fields.keys() <= _DISPLAY:  # nothing to compute: no reason to start again
                self.view = self._displayed(self.view)
                return self._show()
            return self.work.start(
                lambda before_a_pass: self.session.view(wanted, before_a_pass),
                lambda view: self._found(turned, view),
                lambda error: self._refused(turned, error),
                self._tell,
                quick=wait or self.session.is_quick(wanted),
            )

    def _turned(self, fields: dict) -> None:
        """A control has another value: by the user's hand, or because it was set to what is shown."""
        if self._setting != threading.get_ident():
            self._ask(fields)

    def figure(self):
        """What is shown, as a static matplotlib figure."""
        return explorer_view.figure(self.view)

    def python(self) -> str:
        """The script that reproduces what is shown."""
        return explorer_view.python_lines(self.view, self._model)

    def open_image(self, image, name: str = "") -> None:
        """Show another image: a scene, a PIL image, a path or an array; what is no image is answered in words."""
        try:
            source = as_source(image, name)
        except _UNREADABLE as error:
            self._refused(("source",), error)
            return
        self._ask({"source": source, "caption": source.caption or self.wanted.caption})

    def __repr__(self) -> str:
        said = "; ".join(
            f"{panel.subject}, {explorer_view.subtitle(self.view.state, panel)}" for panel in self.view.panels
        )
        return f"a panel that shows {said}"

    def _displayed(self, view: View) -> View:
        """The view, drawn as is wanted now."""
        return replace(view, state=replace(view.state, **{name: getattr(self.wanted, name) for name in _DISPLAY}))

    def _found(self, fields: tuple[str, ...], view: View) -> None:
        with self._turn:
            if set(fields) & set(self._wrong):
                self._wrong, self._why = (), ""
            before, self.view = self.view, self._displayed(view)
            self.wanted = self.view.state
            try:
                self._show()
            except Exception:  # what is shown is one view as a whole, also after a fault of ours
                self.view, self.wanted = before, before.state
                self._show()
                raise
            self._say(self._why)

    def _refused(self, fields: tuple[str, ...], error: BaseException) -> None:
        with self._turn:
            self.wanted = wanted = self.view.state
            # what still stands in a control stays there for its author to mend, and so does the sentence
            shown = {name: control.value for name, control in self.controls.items() if name in fields}
            standing = [name for name, value in shown.items() if value != getattr(wanted, name)]
            self._wrong = (*standing, *(["source"] if "source" in fields and self.path.value else []))
            self._why = self._told(error) if self._wrong else ""
            self._say(self._told(error))

    @staticmethod
    def _told(error: BaseException) -> str:
        return f"{sentence(error)}. What is shown is still the last view, as its title says."

    def _say(self, text: str, kind: str = "") -> None:
        body = f'<div class="gradeclip-message {kind}" role="alert">{html.escape(text)}</div>' if text else ""
        self.message.value = body

    def _tell(self, passes: float) -> None:
        """Long work is under way."""
        with self._turn:
            names = " and ".join(METHODS[name].title for name in (self.wanted.method, self.wanted.beside) if name)
            known = self.session.lengths.get((self.wanted.method, self.wanted.beside))
            far = f' max="{known}" value="{passes}"' if known else ""
            bar = f'<progress aria-label="{html.escape(names)}"{far}></progress>'
            said = f"{bar} {names}: {passes} passes of the model so far. Any change stops it."
            self.message.value = f'<div class="gradeclip-message gradeclip-note" role="status">{said}</div>'

    def press(self, message: dict) -> None:
        """Answer what was pressed on a pane.

        Args:
            message: "kind" is "scene" ("index"), "word" ("index", "extend" with Shift), "patch" ("row", "column") or
                "no patch".
        """
        with self._turn:
            try:
                fields = self._pressed(message)
            except (LookupError, TypeError, AttributeError):
                return self._say(self._told(UserError(f"The panel does not know what {message!r} is")))
            return self._ask(fields)

    def _pressed(self, message: dict) -> dict:
        """The fields that a message changes."""
        if message["kind"] == "scene":
            source = gallery()[message["index"]]
            return {"source": source, "caption": source.caption, "against": ""}
        if message["kind"] == "word":
            index, phrase = message["index"], self.wanted.phrase
            if phrase and message.get("extend"):
                phrase = min(phrase[0], index), max(phrase[1], index)
            else:
                phrase = None if phrase == (index, index) else (index, index)
            return {"phrase": phrase, "patch": None}
        if message["kind"] == "patch":
            return {"patch": (message["row"], message["column"]), "phrase": None}
        return {"patch": None}

    def _uploaded(self, change) -> None:
        for file in change.new:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "upload"
                path.write_bytes(file["content"])
                try:
                    image = read_image(path)
                except _UNREADABLE as error:
                    self._refused(("source",), ValueError(str(error).replace(str(path), file["name"])))
                else:
                    self._ask({"source": as_source(image, file["name"], f"image = read_image({file['name']!r})")})
        self.upload.value = ()  # so that the same file can be given again

    def _keep(self, what: str) -> None:
        """Write the figure or the explanation to a name that is free."""
        name = self.name.value.strip() or "explanation"
        suffix = ".png" if what == "image" else ""
        try:
            paths = (as_path(f"{name}{end}{suffix}", "The name") for end in ("", *(f"-{i}" for i in range(2, 1000))))
            path = writable(next(path for path in paths if not path.exists()), "The name", folder=not suffix)
            if what == "image":
                write_whole(path, lambda stream: self.figure().savefig(stream, format="png"))
            else:
                self.view.panels[0].explanation.save(path)
        except OSError as error:
            self._say(f"{sentence(error)}.")
        else:
            self._say(f"Saved as {path}.", "gradeclip-note")

    def _make(self) -> None:
        """All controls, by the name of the field that they turn."""
        state, titles = self.view.state, [(method.title, name) for name, method in METHODS.items() if method.image]
        text = {"continuous_update": False, "layout": w.Layout(width="auto", max_width="620px")}
        share = {"min": 0.0, "max": 1.0, "step": 0.05, "readout_format": ".2f"}
        depth = {"min": 1, "max": self.session.depth, "continuous_update": False}
        self.controls = {
            "caption": w.Text(description="caption", **text),
            "against": w.Text(description="against", placeholder="another caption: why not that one?", **text),
            "method": w.Dropdown(description="method", options=titles),
            "beside": w.Dropdown(description="beside it", options=[("nothing", ""), *titles]),
            "layers": w.IntSlider(description="last layers", **depth),
            "spatial": w.Dropdown(description="spatial weight", options=list(SPATIAL_WEIGHTS)),
            "attention": w.Dropdown(
                description="attention", options=[("the model's own heads", "model"), ("one head", "single-head")]
            ),
            "resolution": w.Dropdown(
                description="resolution", options=[("the model's own", "model"), ("the image's own", "native")]
            ),
            "centred": w.Dropdown(description="shared part", options=[("taken away", True), ("left in", False)]),
            "threshold": w.FloatSlider(description="threshold", **share),
            "opacity": w.FloatSlider(description="opacity", **share),
            "shared": w.Dropdown(description="scale", options=[("one for all words", True), ("each its own", False)]),
            "colours": w.Dropdown(description="colours", options=list(COLOURS)),
        }
        for name, control in self.controls.items():
            control.value = getattr(state, name)
            control.style.description_width = "76px"
            control.add_class(f"gradeclip-{name}")
            control.observe(lambda change, name=name: self._turned({name: change.new}), "value")
        self.path = w.Text(description="image", placeholder="path of an image file, then Enter", **text)
        self.path.style.description_width = "76px"
        self.path.layout = w.Layout(flex="1 1 260px", width="auto", max_width="620px")
        self.path.add_class("gradeclip-image")
        self.path.observe(lambda change: self.open_image(change.new.strip()) if change.new else None, "value")
        self.upload = w.FileUpload(accept="image/*", description="upload an image", layout=w.Layout(width="170px"))
        self.upload.observe(lambda change: self._uploaded(change), "value")
        self.message, self.notice, self.other_words = w.HTML(), w.HTML(), w.HTML()
        small = [explorer_view.png(source.image.resize((96, 96))) for source in gallery()]
        self.gallery = Pane("gallery", self.press, images=small)
        self.words = Pane("words", self.press)
        self.sides = [Side(self.press) for _ in range(2)]
        self._make_keeping()

    def _make_keeping(self) -> None:
        """What is done with a view: files, script, tables."""
        self.name = w.Text("explanation", description="name", layout=w.Layout(width="260px"))
        self.name.style.description_width = "76px"
        self.save_image = w.Button(description="save image (PNG)")
        self.save_image.on_click(lambda _: self._keep("image"))
        self.save_explanation = w.Button(description="save explanation")
        self.save_explanation.on_click(lambda _: self._keep("explanation"))
        self.as_python = w.ToggleButton(description="copy as Python")
        self.as_table = w.ToggleButton(description="numbers as tables")
        self.script, self.tables = Pane("script"), w.HTML()
        for toggle in (self.as_python, self.as_table):
            toggle.observe(lambda _: self._show_rest(), "value")

    def _arranged(self, controls: set[str]) -> list[w.Widget]:
        """The parts that are wanted, in a row that wraps where the window is narrow."""
        top = [self.gallery] if "gallery" in controls else []
        if "image" in controls:
            top.append(_row(self.path, self.upload))
        top += [self.controls[name] for name in ("caption", "against") if name in controls]
        top += [self.message, self.notice, *([self.words, self.other_words] if "words" in controls else [])]
        turned = [control for name, control in self.controls.items() if name in controls - {"caption", "against"}]
        for control in turned:
            control.layout.width = "280px"
        turned = w.VBox(turned, layout=w.Layout(flex="0 0 290px"))
        bottom = []
        if "keep" in controls:
            buttons = _row(self.name, self.save_image, self.save_explanation, self.as_python, self.as_table)
            bottom = [buttons, self.script, self.tables]
        return [*top, _row(*(side.box for side in self.sides), turned), *bottom]

    def _show(self) -> None:
        """Bring everything on the panel in line with the view, but leave a refused text for its author to mend."""
        state, panels = self.view.state, self.view.panels
        before, self._setting = self._setting, threading.get_ident()
        try:
            for name, control in self.controls.items():
                if name not in self._wrong:
                    control.value = getattr(self.wanted, name)  # which is ahead of the view while work is under way
        finally:
            self._setting = before
        own = state.method == GRAD_ECLIP
        turns = {"layers": state.method.startswith(GRAD_ECLIP), "attention": own, "centred": own}
        turns["spatial"] = own and state.attention == "model"  # one head is the published variant, with its own weight
        for name, turned in turns.items():
            self.controls[name].disabled = not turned  # it would change nothing
        unseen = not state.source.drawn and self.session.clip.vocabulary is not None
        self.notice.value = f'<div class="gradeclip-message">{explorer_view.UNSEEN}</div>' if unseen else ""
        chosen = next((i for i, source in enumerate(gallery()) if source is state.source), -1)
        self.gallery.data = {
            "items": [source.caption for source in gallery()], "chosen": chosen, "label": "scenes to choose from",
        }  # fmt: skip
        self.words.data = {
            "words": explorer_view.word_marks(state, panels[0]), "label": "words of the caption",
            "note": f"{explorer_view.words_in_words(panels[0])}. {_HOW}",
        }  # fmt: skip
        if state.source.drawn and "source" not in self._wrong:
            self.path.value = ""  # which does not name what is shown
        self.other_words.value = explorer_view.other_words_html(panels[0])
        for i, side in enumerate(self.sides):
            side.show(state, panels[i] if i < len(panels) else None)
        self._show_rest()

    def _show_rest(self) -> None:
        """What is folded away unless it is asked for."""
        self.script.layout.display = "" if self.as_python.value else "none"
        self.tables.layout.display = "" if self.as_table.value else "none"
        self.script.data = {"text": self.python() if self.as_python.value else ""}
        self.tables.value = explorer_view.tables_html(self.view) if self.as_table.value else ""


def _row(*parts: w.Widget) -> w.Box:
    return w.Box(parts, layout=w.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="10px"))
