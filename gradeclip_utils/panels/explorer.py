"""Explorer: the panel for JupyterLab, around `session`, which knows nothing of widgets.

    Explainer -> session -> explorer

A change is shown whole or not at all: wrong input is answered by a sentence, while the last good
view stays. The browser's half is `desk.js` around `plots/front/view.js`.
"""

import re
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import traitlets
from anywidget import AnyWidget
from IPython import get_ipython

from ..errors import GradeclipError, hint, short
from ..files import data_path
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip, load_clip
from ..plots.figures import figure_tag
from ..plots.maps import draw
from ..plots.page import STYLE, embedded, script
from ..prompts import one_string
from ..scenes import arrange, draw_scene, showable
from ..scenes.emoji import words_by_kind
from .session import ExplorerView, Session, Source, State

_BUSY = {"kind": "busy", "text": "Working ... (the button ■ above the notebook stops it)"}
_WITHOUT_KERNEL = (
    "Words and patches can be pressed here. Other captions and images need a running notebook, or "
    "the live page."
)
_STAYS = "The panel still shows the last view"


@dataclass(frozen=True)
class _Control:
    """A control: the field of a state that it turns, its place in the panel, its label and help."""

    name: str
    place: str
    label: str
    help: str


_CONTROLS = (
    _Control("model", "head", "Model", "Which CLIP is explained. Image and caption stay."),
    _Control(
        "prompt",
        "prompt",
        "Caption",
        "The caption whose similarity to the image is explained. Enter applies it.",
    ),
    _Control(
        "compared",
        "compare",
        "compared with",
        "Nothing: the similarity is explained. Else the lead over other captions, or over yours.",
    ),
    _Control(
        "against",
        "compare",
        "rather than",
        "Another caption: the lead over it is explained.",
    ),
    _Control("method", "method", "method", "How relevance is computed."),
    _Control(
        "layers",
        "method",
        "explained layers",
        "How many of the image encoder's last layers are explained, and added.",
    ),
    _Control(
        "resolution",
        "method",
        "input resolution",
        "The image as the model's preprocessing cuts it, or the whole image at its own size.",
    ),
)


class Explorer(AnyWidget):
    """The panel that `explore` gives: it explains any image and prompt, with every control.

    Attributes:
        view: what is shown; `change(...)` turns any control, and `figure()` is the same without a
            widget.
        models: name -> what it can switch to; None is a bundled model that is still to be loaded.
        shelf: the images that can be chosen.
        message: an error or a note; "" if there is none.
    """

    _esm = script(Path(__file__).with_name("desk.js"))
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    thumbnails = traitlets.List(traitlets.Unicode()).tag(sync=True)
    vocabulary: traitlets.List = traitlets.List().tag(sync=True)
    busy = traitlets.Dict().tag(sync=True)

    def __init__(self, image=None, prompt: str | None = None, clip: Clip | None = None):
        if clip is None:
            clip = load_clip()
        elif not isinstance(clip, Clip):
            raise GradeclipError(f"clip must be a Clip, as load_clip gives one, got {short(clip)}")
        self.models = _models_beside(clip)
        self._sessions = {clip.name: Session(clip)}

        source = Source.of(arrange(["dog", "umbrella"], seed=3) if image is None else image)
        if prompt is None:
            prompt = source.caption or "a photo"
        prompt = one_string(prompt)
        self.shelf = [replace(source, caption=prompt)]
        if clip.trained_on_drawn_scenes:
            self.shelf += [Source.of(scene) for scene in _development_scenes()]
        layers = clip.image_layers or 1
        self._start = State(self.shelf[0], prompt, clip.name, layers=layers)

        self.view = self._session(clip.name).view(self._start)
        self.pinned: State | None = None
        self.beside: ExplorerView | None = None  # the view of the pinned state
        self.message = ""
        self._typed = prompt  # as it stands in the field, with unknown words
        self._struck = self.view.struck
        self._refused: frozenset[str] = frozenset()  # fields with a wrong value
        self._shows_heads = False  # whether the fold of all layers and heads is open
        self._past: list[tuple[State, State | None, str]] = []  # state, pinned, typed
        self._turns = count()  # a new number lets the browser hear the same data again
        super().__init__()
        self.on_msg(lambda _, message, buffers: self.press(message, buffers))
        self._say(_sentences(*self.view.notes), "note")

    # --------------------------------------------------------------------------- what is wanted

    def change(self, note: str = "", /, **fields: Any) -> None:
        """Show another state, which differs in some fields of `State`.

        A wrong value changes nothing, and `message` holds the error; else it holds the note.
        """
        if {"prompt", "source", "resolution", "method", "compared", "against"} & fields.keys():
            # A phrase and a patch belong to the map before.
            fields = {"phrase": None, "patch": None, **fields}

        before = (self.view.state, self.pinned, self._typed)
        try:
            state = self._next_state(fields)
            view = self._session(state.model).view(state)
            beside = self._view_beside(state)
        except (ValueError, OSError) as error:
            self._refused = frozenset(fields)
            if "prompt" in fields:
                self._struck = getattr(error, "struck", ())
            self._say(_sentences(error, _STAYS), "wrong")
        except Exception as error:  # a fault of the package, which a user should report
            self._say(f"{type(error).__name__}: {error}", "wrong")
            raise
        else:
            if state != before[0]:
                self._past.append(before)
            self.view = view
            self.beside = beside
            self._refused = frozenset()
            self._struck = view.struck
            self._typed = fields.get("prompt", self._typed)
            notes = [note, *view.notes]
            if view.explanation and self.pinned and self.pinned.source is not state.source:
                notes.append("The pinned caption is explained on the new image, too")
            self._say(_sentences(*notes), "note")

    def _next_state(self, fields: dict[str, Any]) -> State:
        """The state with changed fields; another model begins with its own number of layers."""
        for name in fields:
            if name not in vars(self._start):
                raise GradeclipError(f"there is no field {name!r}: {hint(name, vars(self._start))}")

        # What the prompt is compared with, and another caption, imply each other.
        if fields.get("against"):
            fields = {**fields, "compared": "own"}
        elif fields.get("compared", "own") != "own":
            fields = {**fields, "against": ""}
        session = self._session(fields.get("model", self.view.state.model))
        if session is not self._shown:
            fields = {"layers": session.clip.image_layers or 1, "patch": None, **fields}
        return replace(self.view.state, **fields)

    def _view_beside(self, state: State) -> ExplorerView | None:
        """The view of the pinned state on the image of another state."""
        if self.pinned is None:
            return None
        return self._session(self.pinned.model).view(replace(self.pinned, source=state.source))

    def _session(self, name: str) -> Session:
        """The session of a model, which is loaded when it is first wanted."""
        if name not in self.models:
            raise GradeclipError(f"there is no model {name!r}: {hint(name, self.models)}")
        if name not in self._sessions:
            self._sessions[name] = Session(self.models[name] or load_clip(name))
        return self._sessions[name]

    @property
    def _shown(self) -> Session:
        return self._sessions[self.view.state.model]

    # ------------------------------------------------------------------- messages of the browser

    def press(self, message: Any, buffers: Sequence = ()) -> None:
        """Answer a message of the browser. The button ■ above the notebook stops the answer."""
        if threading.current_thread() is not threading.main_thread():
            # JupyterLab has a thread for messages of widgets, which no ■ interrupts.
            if kernel := getattr(get_ipython(), "kernel", None):
                kernel.io_loop.add_callback(self.press, message, buffers)
            else:
                self._answer(message, buffers)
            return
        # A kernel that runs no cell ignores interrupts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._answer(message, buffers)
        except KeyboardInterrupt:  # it would end the kernel
            self._say(f"Stopped. {_STAYS}.", "wrong")
        finally:
            signal.signal(signal.SIGINT, before)

    def _answer(self, message: Any, buffers: Sequence) -> None:
        """Do what a message asks for."""
        self.busy = _BUSY
        match message:
            case {"kind": "change", "fields": dict(fields)}:
                self.change(**{name: value for name, value in fields.items() if name != "source"})
            case {"kind": "scene", "index": int(index)} if 0 <= index < len(self.shelf):
                source = self.shelf[index]
                self.change(source=source, prompt=source.caption, against="")
            case {"kind": "scene", "name": str(name)} if name in (changes := self.view.changes):
                self.change(**{"prompt": self.view.state.prompt, **changes[name]()})
            case {"kind": "scene"}:
                self.busy = {}  # pressed twice: the button is gone
            case {"kind": "image", "name": str(name)} if buffers:
                self._take_upload(name, bytes(buffers[0]), message.get("note"))
            case {"kind": "pin"}:
                self.pin()
            case {"kind": "unpin"}:
                self.pinned = None
                self.change()
            case {"kind": "reset"}:
                self.reset()
            case {"kind": "back"}:
                self.back()
            case {"kind": "heads", "shown": bool(shown)}:
                self._shows_heads = shown
                self._say(self.message, "note")
            case {"kind": "save", "name": name}:
                self.save(name)
            case _:
                self._say(f"The panel does not know what {message!r} is", "wrong")

    def _take_upload(self, name: str, content: bytes, note: str | None) -> None:
        """Open the file that a browser sent."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(content)
            self.open_image(path, name, f"{name}: {note}" if note else "")

    def open_image(self, image, name: str = "", note: str = "") -> None:
        """Show another image with an empty prompt, and keep it beside the scenes."""
        try:
            source = Source.of(image, name)
        except (ValueError, TypeError, OSError) as error:  # of `read_image`
            self._say(_sentences(error).replace(str(image), name or str(image)), "wrong")
        else:
            self.shelf.append(source)
            self.change(note, source=source, prompt=source.caption, against="")

    def pin(self) -> None:
        """Keep what is shown beside the next view, with the difference of both maps."""
        self.pinned = self.view.state
        self.change("Pinned. Now change the caption, the model or the method.")

    def reset(self) -> None:
        """Show the start again, with all settings as they were."""
        self.pinned = None
        self.change(**vars(self._start))

    def back(self) -> None:
        """Show the state before the last change, as often as there were changes."""
        if not self._past:
            self.busy = {}  # pressed once too often
            return
        state, self.pinned, typed = self._past.pop()
        past = list(self._past)
        self.change(**{**vars(state), "prompt": typed})
        self._past = past  # a step back is no change that can be taken back
        self._say(self.message, "note")

    def save(self, name: str = "explanation") -> None:
        """Write what is shown as a PNG file, beside those that are there, and say where."""
        stem = str(name).strip().removesuffix(".png") or "explanation"
        sentences = self.data["sentences"]
        figure = self.figure(sentences.get("phrase") or sentences.get("all", ""))
        try:
            path = Path(f"{stem}.png")
            number = 1
            while path.exists():
                number += 1
                path = Path(f"{stem}-{number}.png")
            figure.savefig(path)
        except (OSError, ValueError) as error:
            self._say(_sentences(error), "wrong")
        else:
            self._say(f"Saved as {path.resolve()}", "note")
        finally:
            plt.close(figure)

    # ----------------------------------------------------------------------------- what is shown

    def figure(self, sentence: str = ""):
        """What is shown as a static matplotlib figure, with a sentence at its foot."""
        drawing = self.view.drawing(self.beside)
        foot = "\n".join(line for line in (sentence, drawing.origin) if line)
        return draw(replace(drawing, origin=foot))

    def python(self) -> str:
        """The script that computes what is shown, and then the pinned map."""
        script = self.view.python(self._shown.clip)
        if self.pinned is None or self.beside is None or self.beside.explanation is None:
            return script
        pinned = self.beside.python(self._session(self.pinned.model).clip)
        return f"{script}\n# the pinned map\n" + re.sub(r"\bmap_\b", "pinned_map", pinned)

    def __repr__(self) -> str:
        return f"a panel that shows {self.view}"

    def _repr_mimebundle_(self, **options):
        """The widget and, for a page without a kernel, the same view."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        still = figure_tag(self.figure())
        page = embedded(self.view.payload(self.beside), self.view.state.source.image, still)
        return data | {"text/html": f"{page}<small>{_WITHOUT_KERNEL}</small>"}, metadata

    def _say(self, text: str, kind: str) -> None:
        """Send the view with a message to the browser."""
        self.message = text
        state = self.view.state
        chosen = (state.source, state.source.before)
        scenes = [
            {"text": source.caption or source.name, "chosen": source in chosen}
            for source in self.shelf
        ]
        heads = None
        if self._shows_heads and self.view.explanation:
            heads = self._shown.heads(state)
        data = {
            **self.view.payload(self.beside),
            "message": {"text": text, "kind": text and kind},
            "struck": list(self._struck),
            "scenes": scenes,
            "changes": list(self.view.changes),
            "controls": self._controls(),
            "pinned": self.pinned is not None,
            "turn": next(self._turns),
            "script": self.python() if self.view.explanation else "",
            "empty": not state.prompt,
            "undoable": bool(self._past),
            "heads": heads,
        }
        with self.hold_sync():
            self.thumbnails = [source.thumbnail for source in self.shelf]
            self.image = state.source.url
            self.vocabulary = words_by_kind(self._shown.clip.vocabulary)
            self.data = data
            self.busy = {}

    def _controls(self) -> list[dict[str, Any]]:
        """The controls, as `desk.js` takes them; one with options is a menu."""
        state = self.view.state
        options = {
            "model": [(name, name) for name in self.models],
            "method": [(method.title, name) for name, method in METHODS.items() if method.image],
            "compared": [
                ("nothing", "nothing"),
                ("other captions", "others"),
                ("a caption of your own", "own"),
            ],
            "resolution": [("the model's own", "model"), ("the image's own", "native")],
        }
        is_hidden = {"layers": not state.layered, "against": state.compared == "others"}
        values = {**vars(state), "prompt": self._typed}
        controls = []
        for control in _CONTROLS:
            name = control.name
            spec = {
                **asdict(control),
                "refused": name in self._refused,
                "value": values[name],
                "hidden": is_hidden.get(name, False),
                "options": options.get(name, []),
                "max": self._shown.depth,
                "kind": "choice" if name in options else type(values[name]).__name__,
            }
            controls.append(spec)
        return controls


def explore(
    image=None,
    prompt: str | None = None,
    clip: Clip | None = None,
) -> Explorer:
    """Open the explorer: a panel that explains any image and prompt, with every control.

        explore()                                          # the bundled model on a scene
        explore("dog.jpg", "a dog on a sofa", my_clip)

    Args:
        image: a scene, a PIL image, a path or a uint8 array (H, W, 3); None for a scene.
        prompt: what to look for; None for the scene's caption, or "a photo" where there is none.
        clip: a model; None for the bundled one. The panel can switch to models in other variables
            of the notebook.

    Returns:
        The panel. A notebook shows it as the last line of a cell.
    """
    return Explorer(image, prompt, clip)


def _models_beside(clip: Clip) -> dict[str, Clip | None]:
    """The models that a panel can switch to: bundled ones, its own, and the notebook's."""
    models: dict[str, Clip | None] = {
        name: None for name, file in BUNDLED_MODELS.items() if data_path(file).is_file()
    }
    models[clip.name] = clip
    for name, value in getattr(get_ipython(), "user_ns", {}).items():
        if isinstance(value, Clip) and value is not clip and not name.startswith("_"):
            models[f"{name} ({value.name})"] = value
    return models


def _development_scenes() -> list:
    """The first whole development scenes of one to four things."""
    draw_plain = partial(draw_scene, split="development", plain=True)
    scenes = []
    for n in range(1, 5):
        candidates = (draw_plain(seed, n_objects=n) for seed in count())
        scenes.append(next(filter(showable, candidates)))
    return scenes


def _sentences(*messages: str | Exception) -> str:
    """Notes and errors as sentences in one line. The name of a file is left as it is."""
    sentences = []
    for message in messages:
        text = str(message)
        if not text:
            continue
        if text.split()[0].isalpha():
            text = text[0].upper() + text[1:]
        sentences.append(f"{text.rstrip('.')}.")
    return " ".join(sentences)
