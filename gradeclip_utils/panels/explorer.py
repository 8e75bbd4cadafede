"""Explorer: the panel for JupyterLab, thin over `session` (what is computed) and `explorer_view` (what is shown of it).

    architecture -> trace -> method -> explanation -> session -> explorer_view -> explorer

A panel holds the state that is wanted and the last view that was found. A change makes a new state; what comes back is
shown whole or not at all, so that nothing on the panel is ever stale: wrong input is answered by a sentence, while the
last good view and its title stay. The browser's half is `desk.js` around `plots/front/view.js`; neither keeps anything.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import traitlets
from anywidget import AnyWidget

from ..checks import all_chosen, as_path, chosen, writable
from ..errors import GradeclipError
from ..files import data_path, write_whole
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip, load_clip
from ..plots.page import front, image_url, page, view_script
from .explorer_view import View, model_line, variables
from .jobs import ANSWERS, Work, sentence
from .session import Session
from .state import CHOICES, DISPLAY, GRAD_ECLIP, NULLS, State, as_source
from .verdict import RULE, Surprise, offers, other_caption, surprises

CONTROLS = {  # field of a state -> where it stands ("method" and "drawing" are folded), its name, what it does
    "model": ("head", "Model", "Which CLIP is explained. Image, caption and selection stay."),
    "caption": ("caption", "Caption", "The prompt whose similarity to the image is explained. Enter applies it."),
    "against": ("ask", "other caption", "What is explained is then by how much the caption is ahead of this one."),
    "beside": ("ask", "second method", "The same question by another method, beside the first."),
    "opacity": ("look", "opacity", "How much of the image is hidden where there is no relevance; 0 shows it as it is."),
    "method": ("method", "method", "How relevance is computed. A slow one says how long it takes."),
    "layers": ("method", "explained layers", "How many of the image encoder's last layers are explained, and added."),
    "spatial": ("method", "spatial weight",
                "What each patch counts: Grad-ECLIP's loosened attention, its softmax, or all the same."),
    "attention": ("method", "attention heads",
                  "The model's own heads, or one head as published, which explains another number."),
    "resolution": ("method", "input resolution",
                   "What the model's preprocessing makes of the image, or the whole image at its own size."),
    "centred": ("method", "nouns told apart", "The region of each noun less what the caption's nouns have in common."),
    "colours": ("drawing", "colours",
                "The image keeps its own, and relevance is how much of it is seen; or a heat map is laid over it."),
    "threshold": ("drawing", "threshold", "What is below this fraction of the largest value counts as nothing."),
    "shared": ("drawing", "one scale",
               "One scale for all words and both methods, where their units agree; else each its own."),
}  # fmt: skip
UNSEEN = (
    "This is not one of the project's scenes. The bundled model was trained on drawn scenes only and has never seen a "
    "photograph: what it says here is a guess."
)


class Explorer(AnyWidget):
    """The whole panel: any image, any caption, every control. `explore`, as notebooks call it, is the same.

    Attributes:
        view: what is shown; `figure()` is the same without a widget, and `change(...)` turns any control.
        models: name -> what it can switch to; None is a bundled model that is still to be loaded.
        wanted: the state that was asked for, which is ahead of the view while work is under way.
        message: what is wrong, or to be noted; "" where there is nothing to say.
        refused: the fields whose last value was refused.
    """

    _esm = view_script() + Path(__file__).with_name("desk.js").read_text(encoding="utf-8")  # a path is watched
    _css = front("view.css")
    data = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    thumbnails = traitlets.List(traitlets.Unicode()).tag(sync=True)
    vocabulary = traitlets.List(traitlets.Unicode()).tag(sync=True)
    busy = traitlets.Dict().tag(sync=True)

    def __init__(self, image=None, caption=None, clip=None, *, controls: Sequence[str] = tuple(CONTROLS), captions=()):
        self._controls, self._captions = all_chosen("controls", controls, CONTROLS), captions
        clip = load_clip() if clip is None else clip
        held = {f"{name} ({one.name})": one for name, one in variables().items() if one is not clip}
        self.models: dict[str, Clip | None] = {clip.name: clip, **held}
        for name, file in BUNDLED_MODELS.items():
            if data_path(file).is_file():
                self.models.setdefault(name, None)
        self._sessions = {clip.name: Session(clip)}
        self.offers = offers(clip) if image is None or "model" in self._controls else ()
        source = self.offers[1].source if image is None else as_source(image)
        caption = (source.caption or "a photo") if caption is None else caption
        state = State(source, caption, clip.name, layers=clip.image_layers or 1)
        self.view: View = self._sessions[clip.name].view(state)
        self.wanted, self._sent = self.view.state, self.view.payload()
        self.message, self._kind, self.refused, self.work = "", "", frozenset[str](), Work()
        super().__init__(thumbnails=[image_url(offer.source.image, 80) for offer in self.offers])
        self.on_msg(lambda _, message, buffers: self.press(message, buffers))
        self._show()

    @property
    def session(self) -> Session:
        """Of the model that is shown."""
        return self._sessions[self.view.state.model]

    @property
    def _unseen(self) -> str:
        """What is to be noted of an image such as the model never saw; "" of any other."""
        usual = self.view.state.source.drawn or self.session.clip.vocabulary is None
        return "" if usual else UNSEEN

    @property
    def surprises(self) -> list[Surprise]:
        """What can be had in one press: the captions that there are; on the whole panel a change of the scene."""
        ready = [Surprise(text, "Explain this caption.", partial(dict, caption=text)) for text in self._captions]
        return ready + (surprises(self.wanted) if "model" in self._controls else [])

    # ------------------------------------------------------------------------------------------------- what is asked

    def change(self, **fields) -> None:
        """Show another state, and wait for it, however long it takes."""
        self._ask(fields, wait=True)

    def _ask(self, fields: dict, wait: bool = False, note: str = "") -> None:
        """Ask for a state that differs in some fields. What was chosen in an old caption goes with it."""
        with self.work.turn:
            turned = frozenset(fields)
            if {"caption", "source", "resolution"} & fields.keys():
                fields = {"phrase": None, "patch": None, **fields}
            if fields.keys() - DISPLAY:
                fields = {"dependence": False, **fields}
            try:
                for name in fields:
                    chosen("the name of a field", name, State.__dataclass_fields__)
                wanted = replace(self.wanted, **fields)
                chosen("model", wanted.model, self.models)
            except ANSWERS as refusal:  # nothing that the panel holds has changed
                return self._told(refusal, turned)
            self.wanted = wanted
            if fields.keys() <= set(DISPLAY):  # no reason to compute again, or to forget what was refused
                self.view = replace(self.view, state=replace(self.view.state, **fields))
                return self._show()
            session = self._sessions.get(wanted.model)
            quick = wait or (session is not None and session.is_quick(wanted))
            job, done = partial(self._computed, wanted), partial(self._found, note=note)
            return self.work.start(job, done, partial(self._told, fields=turned, ended=True), self._tell, quick=quick)

    def _computed(self, state: State, before_a_pass) -> tuple[View, dict]:
        """What a state asks for, and what is sent of it; what does not fit another model's layers or grid is fitted."""
        session = self._session(state.model)
        if session is not self.session:
            usual, own = (one.clip.image_layers or 1 for one in (self.session, session))
            state = replace(state, layers=own if state.layers == usual else min(state.layers, session.depth))
        try:
            view = session.view(state, before_a_pass)
        except ANSWERS:
            if session is self.session or state.patch is None:
                raise
            view = session.view(replace(state, patch=None), before_a_pass)
        return view, view.payload()

    def _session(self, name: str) -> Session:
        if name not in self._sessions:
            try:
                self._sessions[name] = Session(self.models[name] or load_clip(name))
            except (ValueError, OSError) as error:
                raise GradeclipError(f"The model {name!r} cannot be used: {sentence(error)}") from error
        return self._sessions[name]

    def _found(self, found: tuple[View, dict], note: str) -> None:
        view, self._sent = found
        self.wanted = replace(view.state, **{name: getattr(self.wanted, name) for name in DISPLAY})  # as it is by now
        self.view, self.refused = replace(view, state=self.wanted), frozenset()
        self._say(f"{note} {self._unseen}".strip() if note else "", "note")

    def _told(self, error: BaseException, fields: frozenset[str] = frozenset(), ended: bool = False) -> None:
        """Say what is wrong; where it ended the work, the view is wanted again."""
        self.refused, self.wanted = fields, self.view.state if ended else self.wanted
        self._say(f"{sentence(error)}. What is shown is still the last view, as its title says.", "wrong")

    def _say(self, text: str, kind: str) -> None:
        self.message, self._kind = text, text and kind
        self._show()

    def _tell(self, passes: float) -> None:
        """Long work is under way."""
        wanted = self.wanted
        names, times = [name for name in (wanted.method, wanted.beside) if name], NULLS if wanted.dependence else 1
        expected = times * sum(self.session.expected(name, wanted.resolution) for name in names)
        known = self.session.lengths.get((wanted.method, wanted.beside, wanted.dependence))
        took = f", {NULLS} other prompts" * wanted.dependence + f", about {expected:.0f} s here" * (expected >= 1)
        text = f"{' and '.join(METHODS[name].title for name in names)}{took}. Any change stops it."
        self.busy = {"kind": "busy", "text": text, "done": min(passes / known, 1) if known else None}

    # ------------------------------------------------------------------------------------------- what the browser says

    def press(self, message: Any, buffers: Sequence = ()) -> None:
        """Answer a message of the browser."""
        with self.work.turn:
            match message:
                case {"kind": "change", "fields": dict(fields)}:
                    self._ask({name: value for name, value in fields.items() if name != "source"})
                case {"kind": "scene", "index": int(index)} if 0 <= index < len(self.offers):
                    source, note, failure = self.offers[index]
                    self._ask({"source": source, "caption": source.caption, "against": ""}, note=note * failure)
                case {"kind": "surprise", "index": int(index)} if 0 <= index < len(self.surprises):
                    self._ask(self.surprises[index].fields())
                case {"kind": "image", "name": str(name)} if buffers:
                    with tempfile.TemporaryDirectory() as folder:
                        path, note = Path(folder) / "upload", message.get("note")
                        path.write_bytes(bytes(buffers[0]))
                        self.open_image(path, name, f"{name}: {note}" if note else "")
                case {"kind": "path", "path": str(path)} if path.strip():
                    self.open_image(re.sub(r"^([\"'])(.+)\1$", r"\2", path.strip()))  # some copy a path with its quotes
                case {"kind": "path", "path": str()}:  # an emptied field takes its answer away
                    self._say("", "")
                case {"kind": "save", "what": "image" | "explanation" as what, "name": name}:
                    self.save(what, name)
                case {"kind": "stop"}:
                    self.work.stop()
                    self.wanted = self.view.state
                    self._show()
                case _:
                    self._told(GradeclipError(f"The panel does not know what {message!r} is"))

    def open_image(self, image, name: str = "", note: str = "") -> None:
        """Show another image; what is no image is answered in words."""
        try:
            source = as_source(image, name, name and f"image = read_image({name!r})")
        except (ValueError, TypeError, OSError) as error:  # what `read_image` raises of what is no image
            return self._told(ValueError(str(error).replace(str(image), name)) if name else error)
        return self._ask({"source": source, "caption": source.caption or self.wanted.caption}, note=note)

    def save(self, what: str, name: str) -> None:
        """Write what is shown, and say where."""
        suffix = ".png" if what == "image" else ""
        try:
            stem = str(name).strip() or "explanation"
            paths = (as_path(f"{stem}{end}{suffix}", "The name") for end in ("", *(f"-{i}" for i in range(2, 1000))))
            path = writable(next(path for path in paths if not path.exists()), "The name", folder=not suffix)
            if what == "image":
                write_whole(path, lambda stream: self.figure().savefig(stream, format="png"))
            else:
                self.view.panels[0].explanation.save(path)
        except OSError as error:
            self._say(f"{sentence(error)}.", "wrong")
        else:
            self._say(f"Saved as {path.absolute()}", "note")

    # --------------------------------------------------------------------------------------------------- what is shown

    def figure(self):
        """What is shown, as a static matplotlib figure."""
        return self.view.figure()

    def python(self) -> str:
        """The script that reproduces what is shown."""
        return self.view.python(model_line(self.session.clip))

    def __repr__(self) -> str:
        return f"a panel that shows {self.view}"

    def _repr_mimebundle_(self, **options):
        """Beside the widget the same view for a page without a kernel, or those of all captions that can be pressed."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        state = self.view.state
        views = [self.session.view(replace(state, caption=caption)) for caption in self._captions] or [self.view]
        made, _ = page([view.payload() for view in views], state.source.image, views[0].figure())
        return data | {"text/html": made["text/html"]}, metadata

    def _show(self) -> None:
        """Bring everything on the panel in line with the view, but leave a refused text for its author to mend."""
        state = self.view.state
        sent = self._sent | {name: getattr(state, name) for name in DISPLAY}
        text = self.message or self._unseen
        sent["message"] = {"text": text, "kind": text and (self._kind or "note")}
        sent["surprises"] = [{"text": one.text, "help": one.help} for one in self.surprises]
        sent["controls"] = self._specs()
        with self.hold_sync():
            if "model" in self._controls:
                sent |= self._around(state)
                self.vocabulary = sorted(self.session.clip.vocabulary or ())
            self.image, self.data, self.busy = state.source.url, sent, self.busy if self.work.running else {}

    def _specs(self) -> list[dict]:
        """The controls as `desk.js` takes them."""
        state, titles = self.wanted, {}
        for key, method in METHODS.items():
            if method.image:
                seconds = self.session.expected(key, state.resolution)
                titles[key] = f"{method.title} (about {seconds:.0f} s here)" if seconds >= 1 else method.title
        models, own = {name: name for name in self.models}, state.method == GRAD_ECLIP
        choices = {**CHOICES, "model": models, "method": titles, "beside": {"": "none", **titles}}
        useful = {"layers": state.method.startswith(GRAD_ECLIP), "attention": own, "centred": own}
        useful["spatial"] = own and state.attention == "model"  # one head is the published variant, with its own weight
        return [
            {
                "name": name, "label": label, "help": text, "value": getattr(state, name),
                "refused": name in self.refused, "disabled": not useful.get(name, True),
                "place": place if "caption" in self._controls else "plain",
                "options": [(said, value) for value, said in choices.get(name, {}).items()],
                "kind": "choice" if name in choices else type(getattr(state, name)).__name__,
                **({"min": 1, "max": self.session.depth, "step": 1} if name == "layers" else {}),
            }
            for name, (place, label, text) in CONTROLS.items()
            if name in self._controls
        ]  # fmt: skip

    def _around(self, state: State) -> dict:
        """What only the whole panel has: scenes, questions, the script."""
        scenes = [
            {"caption": offer.source.caption, "note": offer.note, "failure": offer.failure,
             "chosen": offer.source in (state.source, state.source.before)}
            for offer in self.offers
        ]  # fmt: skip
        other, plain = self.wanted.against or other_caption(state), {"against": "", "beside": ""}
        asks = [
            {"key": key, "text": text, "help": hint, "fields": {**plain, **fields}}
            for key, text, hint, fields in (
                ("where", "where?", "Which patches match the caption, or a word of it?", {}),
                ("against", "why not another caption?", "What speaks for this one?", {"against": other}),
                ("beside", "compare methods", "The same by two methods.", {"beside": self.wanted.beside or "rollout"}),
            )
        ]
        ask = "against" if self.wanted.against else "beside" if self.wanted.beside else "where"
        return {"scenes": scenes, "rule": RULE, "asks": asks, "ask": ask, "script": self.python()}


explore = Explorer
layer_slider = partial(Explorer, controls=("layers", "spatial"))  # for the lesson on the method
