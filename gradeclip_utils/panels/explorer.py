"""Explorer: the panel for JupyterLab, thin over `session` (what is computed) and `explorer_view` (what is shown of it).

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

A panel holds the state that is wanted and the last view that was found. What comes back is shown whole or not at all:
wrong input is answered by a sentence, while the last good view stays. The browser's half is `desk.js` around
`plots/front/view.js`.
"""

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import traitlets
from anywidget import AnyWidget
from IPython import get_ipython
from IPython.display import HTML, display

from ..checks import all_chosen, as_path, chosen, listed, writable
from ..errors import GradeclipError
from ..files import data_path, write_whole
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip, load_clip
from ..plots.figures import draw, rendered
from ..plots.page import embedded, front, image_tag, view_script
from ..scenes import COLOURS, concepts
from . import verdict
from .explorer_view import View, compared, model_line, variables
from .jobs import ANSWERS, Work, running_loop, sentence
from .session import Session
from .state import CHOICES, GRAD_ECLIP, State, as_source

CONTROLS = {  # field of a state -> where it stands, its name, what it does
    "model": ("head", "Model", "Which CLIP is explained. Image and caption stay."),
    "caption": ("caption", "Caption", "The prompt whose similarity to the image is explained. Enter applies it."),
    "against": ("compare", "rather than", "Another caption: the lead over it is explained. Empty: none."),
    "method": ("method", "method", "How relevance is computed."),
    "layers": ("method", "explained layers", "How many of the image encoder's last layers are explained, and added."),
    "spatial": ("method", "spatial weight",
                "How much each patch counts: Grad-ECLIP's loosened attention, its softmax, or all the same."),
    "attention": ("method", "attention heads",
                  "The model's own heads, or one head as published, which explains another number."),
    "resolution": ("method", "input resolution",
                   "The image as the model's preprocessing cuts it, or the whole image at its own size."),
    "centred": ("method", "nouns told apart", "The region of each noun less what the caption's nouns have in common."),
}  # fmt: skip
_UNSEEN = "The bundled model knows drawn scenes only: on this image it guesses."
_WORKING = '<div class="gradeclip-working">Working ...</div>'


class Explorer(AnyWidget):
    """The panel: any image, any caption, every control. `explore`, as notebooks call it, is the same.

        explore()                                                        # the bundled model on a scene
        explore("dog.jpg", "a dog on a sofa", my_clip)
        explore(scene, captions=["a dog", "an umbrella", "a piano"])     # captions to press, for a lesson

    Attributes:
        view: what is shown; `figure()` is the same without a widget, and `change(...)` turns any control.
        models: name -> what it can switch to; None is a bundled model that is still to be loaded.
        wanted: the state that was asked for, which is ahead of the view while work is under way.
        message: what is wrong, or to be noted; "" where there is nothing to say.
    """

    _esm = view_script() + Path(__file__).with_name("desk.js").read_text(encoding="utf-8")  # a path is watched
    _css = front("view.css")
    data = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    thumbnails = traitlets.List(traitlets.Unicode()).tag(sync=True)
    vocabulary = traitlets.List().tag(sync=True)
    busy = traitlets.Dict().tag(sync=True)

    def __init__(
        self, image=None, caption: str | None = None, clip: Clip | None = None, *,
        captions: Sequence[str] = (), controls: Sequence[str] | None = None,
    ):  # fmt: skip
        working = display(HTML(_WORKING), display_id=True) if running_loop() and get_ipython() else None
        self._captions = listed("captions", captions)
        usual = ("caption",) if self._captions else tuple(CONTROLS)
        self._controls = all_chosen("controls", usual if controls is None else controls, CONTROLS)
        self._whole = "model" in self._controls
        clip = load_clip() if clip is None else clip
        held = {f"{name} ({one.name})": one for name, one in variables().items() if one is not clip}
        self.models: dict[str, Clip | None] = {clip.name: clip, **held}
        for name, file in BUNDLED_MODELS.items():
            if data_path(file).is_file():
                self.models.setdefault(name, None)
        self._sessions = {clip.name: Session(clip)}
        first = verdict.start() if image is None else verdict.Offer(as_source(image), "")
        if caption is None:
            caption = (self._captions or [first.caption or first.source.caption or "a photo"])[0]
        self.shelf = [first._replace(caption=caption)]
        self._start = State(first.source, caption, clip.name, layers=clip.image_layers or 1)
        self.view: View = self.session_of(clip.name).view(self._start)
        self.wanted, self._typed = self._start, caption
        self.pinned: State | None = None
        self.beside: View | None = None
        self.message, self._kind, self.refused, self.work = "", "", frozenset[str](), Work()
        self._struck: list[dict] = []
        self._why: dict[str, str] = {}
        self._answers = 0
        super().__init__(thumbnails=[])
        self.on_msg(lambda _, message, buffers: self.press(message, buffers))
        self._show()
        if self._whole and clip.vocabulary is not None:
            self._offer_scenes()
        if working is not None:
            working.update(HTML(""))

    @property
    def session(self) -> Session:
        """Return the session of the model that is shown."""
        return self._sessions[self.view.state.model]

    @property
    def surprises(self) -> list[verdict.Surprise]:
        """Return what can be had in one press: the given captions; on the whole panel a change of the scene."""
        hint = "Explain this caption."
        ready = [verdict.Surprise(text, hint, partial(dict, caption=text)) for text in self._captions]
        return ready + (verdict.surprises(self.wanted) if self._whole else [])

    def _offer_scenes(self) -> None:
        """Put scenes to choose beside the start, as soon as their maps are known."""
        session, loop = self.session, running_loop()

        def found() -> None:
            offers = verdict.offers(session.scene_maps)
            if loop is None:
                self._take_offers(offers)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(self._take_offers, offers)

        found() if loop is None else threading.Thread(target=found, daemon=True).start()

    def _take_offers(self, offers: list[verdict.Offer]) -> None:
        with self.work.turn:
            self.shelf[1:1] = offers
            self._show()

    # ------------------------------------------------------------------------------------------------- what is asked

    def change(self, **fields) -> None:
        """Show another state, and wait for it, however long it takes."""
        self._ask(fields, wait=True)

    def _ask(self, fields: dict, wait: bool = False, note: str = "", why: dict | None = None) -> None:
        """Ask for a state that differs in some fields. What was chosen in an old caption goes with it."""
        with self.work.turn:
            turned = frozenset(fields)
            if {"caption", "source", "resolution", "method", "against"} & fields.keys():
                fields = {"phrase": None, "patch": None, **fields}
            try:
                for name in fields:
                    chosen("the name of a field", name, State.__dataclass_fields__)
                wanted = replace(self.wanted, **fields)
                chosen("model", wanted.model, self.models)
            except ANSWERS as refusal:  # nothing that the panel holds has changed
                return self._told(refusal, turned)
            self.wanted = wanted
            self._typed = fields.get("caption", self._typed)
            if {"source", "caption"} & fields.keys():
                self._why = why or {}
            self.busy = {"kind": "busy", "text": "Working ..."}
            job, failed = partial(self._computed, wanted), partial(self._told, fields=turned, ended=True)
            return self.work.start(job, partial(self._found, note=note), failed, quick=wait)

    def _computed(self, state: State, before_a_pass) -> tuple[View, list[dict], View | None]:
        """Return what a state asks for, unknown words, and the pinned view of the same image."""
        session = self.session_of(state.model)
        if session is not self.session:  # layers and patches that do not fit another model are fitted
            usual, own = (one.clip.image_layers or 1 for one in (self.session, session))
            layers = own if state.layers == usual else min(state.layers, session.depth)
            state = replace(state, layers=layers, patch=None)
        kept, struck = session.known_part(state.caption)
        if struck and kept:
            state = replace(state, caption=kept)
        view, pinned = session.view(state, before_a_pass), None
        if self.pinned is not None:
            beside = replace(self.pinned, source=state.source)
            pinned = self.session_of(beside.model).view(beside, before_a_pass)
        return view, struck, pinned

    def session_of(self, name: str) -> Session:
        """Return the session of a model, which is loaded when it is first asked for."""
        if name not in self._sessions:
            try:
                self._sessions[name] = Session(self.models[name] or load_clip(name))
            except (ValueError, OSError) as error:
                raise GradeclipError(f"the model {name!r} cannot be used: {sentence(error)}") from error
        return self._sessions[name]

    def _found(self, found: tuple[View, list[dict], View | None], note: str) -> None:
        self.view, self._struck, self.beside = found
        self.wanted, self.refused = self.view.state, frozenset()
        self._say(note, "note")

    def _told(self, error: BaseException, fields: frozenset[str] = frozenset(), ended: bool = False) -> None:
        """Say what is wrong; where it ended the work, the view is wanted again."""
        self.refused = fields
        if ended:
            self.wanted, self._struck = self.view.state, []
        self._say(f"{sentence(error)}. The panel still shows the last view.", "wrong")

    def _say(self, text: str, kind: str) -> None:
        self.message, self._kind = text, text and kind
        self._show()

    # ------------------------------------------------------------------------------------------- what the browser says

    def press(self, message: Any, buffers: Sequence = ()) -> None:
        """Answer a message of the browser."""
        with self.work.turn:
            match message:
                case {"kind": "change", "fields": dict(fields)}:
                    self._ask({name: value for name, value in fields.items() if name != "source"})
                case {"kind": "scene", "index": int(index)} if 0 <= index < len(self.shelf):
                    source, caption, question, answer = self.shelf[index]
                    why = {"text": question, "answer": answer} if question else {}
                    self._ask({"source": source, "caption": caption, "against": ""}, why=why)
                case {"kind": "surprise", "index": int(index)} if 0 <= index < len(self.surprises):
                    self._ask(self.surprises[index].fields())
                case {"kind": "image", "name": str(name)} if buffers:
                    with tempfile.TemporaryDirectory() as folder:
                        path, note = Path(folder) / "upload", message.get("note")
                        path.write_bytes(bytes(buffers[0]))
                        self.open_image(path, name, f"{name}: {note}" if note else "")
                case {"kind": "pin"}:
                    self.pin(wait=False)
                case {"kind": "unpin"}:
                    self.pinned = None
                    self._ask({})
                case {"kind": "reset"}:
                    self.reset(wait=False)
                case {"kind": "save", "what": "image" | "explanation" as what, "name": name}:
                    self.save(what, name)
                case {"kind": "stop"}:
                    self.work.stop()
                    self.wanted = self.view.state
                    self._show()
                case _:
                    self._told(GradeclipError(f"the panel does not know what {message!r} is"))

    def open_image(self, image, name: str = "", note: str = "") -> None:
        """Show another image with an empty caption, and keep it beside the scenes; an error is answered in words."""
        try:
            source = as_source(image, name, name and f"image = read_image({name!r})")
        except (ValueError, TypeError, OSError) as error:  # what `read_image` raises
            return self._told(ValueError(str(error).replace(str(image), name)) if name else error)
        if source not in [offer.source for offer in self.shelf]:
            self.shelf.append(verdict.Offer(source, source.caption))
        return self._ask({"source": source, "caption": source.caption, "against": ""}, note=note)

    def pin(self, wait: bool = True) -> None:
        """Keep what is shown beside the next view, with the difference of both maps."""
        self.pinned = self.view.state
        self._ask({}, wait, note="Pinned. Now change the caption, the model or the method.")

    def reset(self, wait: bool = True) -> None:
        """Show the start again, with all settings as they were."""
        self.pinned, self._typed = None, self._start.caption
        self._ask({name: getattr(self._start, name) for name in State.__dataclass_fields__}, wait)

    def save(self, what: str, name: str) -> None:
        """Write what is shown, and say where."""
        suffix = ".png" if what == "image" else ""
        try:
            if self.view.explanation is None and what != "image":
                raise GradeclipError("there is no explanation to save before a caption is typed")
            stem = str(name).strip() or "explanation"
            paths = (as_path(f"{stem}{end}{suffix}", "The name") for end in ("", *(f"-{i}" for i in range(2, 1000))))
            path = writable(next(path for path in paths if not path.exists()), "The name", folder=not suffix)
            if what == "image":
                write_whole(path, lambda stream: self.figure().savefig(stream, format="png"))
            else:
                assert self.view.explanation is not None
                self.view.explanation.save(path)
        except (OSError, *ANSWERS) as error:
            self._say(f"{sentence(error)}.", "wrong")
        else:
            self._say(f"Saved as {path.absolute()}", "note")

    # --------------------------------------------------------------------------------------------------- what is shown

    def figure(self):
        """Return what is shown as a static matplotlib figure."""
        return draw([self.view.drawing() if self.beside is None else compared(self.view, self.beside)])

    def python(self) -> str:
        """Return the script that reproduces what is shown."""
        return self.view.python(model_line(self.session.clip))

    def __repr__(self) -> str:
        return f"a panel that shows {self.view}"

    def _repr_mimebundle_(self, **options):
        """Return the widget and, for a page without a kernel, the same view, or those of all captions to press."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        views = [self.session.view(replace(self.view.state, caption=caption)) for caption in self._captions]
        figure = draw([views[0].drawing()]) if views else self.figure()
        still = image_tag(rendered(figure), figure.alt)
        views = [view.payload() for view in views] or [self.view.payload(self.beside)]
        return data | {"text/html": embedded(views, self.view.state.source.image, still)}, metadata

    def _show(self) -> None:
        """Bring everything on the panel in line with the view, but leave a refused text for its author to mend."""
        state, self._answers = self.view.state, self._answers + 1
        sent = self.view.payload(self.beside) | {"answer": self._answers, "empty": not state.caption.strip()}
        unseen = not state.source.drawn and self.session.clip.vocabulary is not None
        text = self.message or (_UNSEEN if unseen else "")
        sent["message"] = {"text": text, "kind": text and (self._kind or "note")}
        sent["struck"] = self._struck
        sent["surprises"] = [{"text": one.text, "help": one.help} for one in self.surprises]
        sent["question"] = verdict.question(state.source.scene, self._captions)
        sent["controls"] = self._specs()
        with self.hold_sync():
            if self._whole:
                scenes = [
                    {"text": offer.caption or offer.source.name, "failure": bool(offer.question),
                     "chosen": offer.source in (state.source, state.source.before)}
                    for offer in self.shelf
                ]  # fmt: skip
                script = self.python() if self.view.explanation is not None else ""
                sent |= {"scenes": scenes, "rule": verdict.RULE, "why": self._why, "script": script,
                         "pinned": self.pinned is not None}  # fmt: skip
                self.thumbnails = [offer.source.thumbnail for offer in self.shelf]
                self.vocabulary = _grouped(self.session.clip.vocabulary)
            self.image, self.data, self.busy = state.source.url, sent, self.busy if self.work.running else {}

    def _specs(self) -> list[dict]:
        """Return the controls as `desk.js` takes them."""
        state, own = self.wanted, self.wanted.method == GRAD_ECLIP
        titles = {key: method.title for key, method in METHODS.items() if method.image}
        choices = {**CHOICES, "model": {name: name for name in self.models}, "method": titles}
        useful = {"layers": state.method.startswith(GRAD_ECLIP), "attention": own, "centred": own}
        useful["spatial"] = own and state.attention == "model"  # one head is the published variant, with its own weight
        return [
            {
                "name": name, "label": label, "help": text, "refused": name in self.refused, "place": place,
                "value": self._typed if name == "caption" else getattr(state, name),
                "disabled": not useful.get(name, True),
                "options": [(said, value) for value, said in choices.get(name, {}).items()],
                "kind": "choice" if name in choices else type(getattr(state, name)).__name__,
                **({"min": 1, "max": self.session.depth, "step": 1} if name == "layers" else {}),
            }
            for name, (place, label, text) in CONTROLS.items()
            if name in self._controls
        ]  # fmt: skip


def _grouped(words: frozenset[str] | None) -> list:
    """Return the words that a model knows as pairs of a category and its words."""
    if not words:
        return []
    table, groups = concepts(), {}
    known = table[[set(noun.split()) <= words for noun in table["noun"]]]
    for kind, some in known.groupby("category"):
        groups[kind] = list(some["noun"])
    colours = sorted(words & set(COLOURS))
    used = {part for noun in (*known["noun"], *known["plural"]) for part in noun.split()} | set(colours)
    return [["colours", colours], *sorted(groups.items()), ["other words", sorted(words - used)]]


explore = Explorer
layer_slider = partial(Explorer, controls=("layers", "spatial"))  # for the lesson on the method
