"""Explorer: the panel for JupyterLab, around `session`, which knows nothing of widgets.

    Explainer -> session -> explorer

A change is shown whole or not at all: wrong input is answered by a sentence, while the last good
view stays. The browser's half is `desk.js` around `plots/front/view.js`.
"""

import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import traitlets
from anywidget import AnyWidget
from IPython import get_ipython

from ..checks import as_path, chosen, instance, writable
from ..files import data_path, write_whole
from ..methods import METHODS
from ..models import BUNDLED_MODELS, Clip, load_clip
from ..plots.figures import figure_tag
from ..plots.maps import draw
from ..plots.page import STYLE, embedded, script
from ..scenes import COLOURS, arrange, concepts, draw_scene, showable
from .session import ExplorerView, Session, Source, State

_CONTROLS = {  # field of a state -> where it stands, its name, what it does
    "model": ("head", "Model", "Which CLIP is explained. Image and caption stay."),
    "caption": (
        "caption",
        "Caption",
        "The prompt whose similarity to the image is explained. Enter applies it.",
    ),
    "against": (
        "compare",
        "rather than",
        "Another caption: the lead over it is explained. Empty: none.",
    ),
    "method": ("method", "method", "How relevance is computed."),
    "layers": (
        "method",
        "explained layers",
        "How many of the image encoder's last layers are explained, and added.",
    ),
    "resolution": (
        "method",
        "input resolution",
        "The image as the model's preprocessing cuts it, or the whole image at its own size.",
    ),
}


class Explorer(AnyWidget):
    """The panel that `explore` gives: it explains any image and caption, with every control.

    Args:
        image: a scene, a PIL image, a path or a uint8 array (H, W, 3); None for a scene.
        caption: of the image; None for the scene's own.
        clip: a model; None for the bundled one. Models in other variables of the notebook can be
            chosen too.

    Attributes:
        view: what is shown; `change(...)` turns any control, and `figure()` is the same without a
            widget.
        models: name -> what it can switch to; None is a bundled model that is still to be loaded.
        shelf: the images that can be chosen.
        message: what is wrong, or to be noted; "" where there is nothing to say.
    """

    _esm = script(Path(__file__).with_name("desk.js"))
    _css = STYLE
    data = traitlets.Dict().tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    thumbnails = traitlets.List(traitlets.Unicode()).tag(sync=True)
    vocabulary = traitlets.List().tag(sync=True)
    busy = traitlets.Dict().tag(sync=True)

    def __init__(self, image=None, caption: str | None = None, clip: Clip | None = None):
        clip = (
            load_clip()
            if clip is None
            else instance("clip", clip, Clip, "a Clip, as load_clip gives it")
        )
        others = [
            (name, one)
            for name, one in getattr(get_ipython(), "user_ns", {}).items()
            if isinstance(one, Clip)
        ]
        held = {
            f"{name} ({one.name})": one
            for name, one in others
            if one is not clip and not name.startswith("_")
        }
        bundled = {name: None for name, file in BUNDLED_MODELS.items() if data_path(file).is_file()}
        self.models: dict[str, Clip | None] = {**bundled, clip.name: clip, **held}
        self._sessions = {clip.name: Session(clip)}
        first = Source.of(arrange(["dog", "umbrella"], seed=3) if image is None else image)
        self.shelf = [
            replace(first, caption=(first.caption or "a photo") if caption is None else caption)
        ]
        if clip.vocabulary is not None:  # the first whole development scene of one to four things
            for n in range(1, 5):
                drawn = (
                    draw_scene(seed, split="development", n_objects=n, plain=True)
                    for seed in count()
                )
                self.shelf.append(Source.of(next(filter(showable, drawn))))
        self._start = State(
            self.shelf[0], self.shelf[0].caption, clip.name, layers=clip.image_layers or 1
        )
        self.view = self._session(clip.name).view(self._start)
        self.pinned: State | None = None
        self.beside: ExplorerView | None = None
        self.message, self._typed, self._struck = "", self._start.caption, self.view.struck
        self._refused, self._turns = (
            frozenset[str](),
            count(),
        )  # a new number lets the browser hear the same again
        super().__init__()
        self.on_msg(lambda _, message, buffers: self.press(message, buffers))
        self._say(_sentences(*self.view.notes), "note")

    # ------------------------------------------------------------------------------- what is wanted

    def change(self, note: str = "", /, **fields: Any) -> None:
        """Show another state, which differs in some fields of `State`, and say a note; `message` holds an error."""
        if {"caption", "source", "resolution", "method", "against"} & fields.keys():
            fields = {
                "phrase": None,
                "patch": None,
                **fields,
            }  # they belong to the map that was there
        try:
            for name in fields:
                chosen("the name of a field", name, vars(self._start))
            session = self._session(fields.get("model", self.view.state.model))
            if session is not self._shown:
                fields = {"layers": session.clip.image_layers or 1, "patch": None, **fields}
            state = replace(self.view.state, **fields)
            view, beside = session.view(state), None
            if self.pinned is not None:
                beside = self._session(self.pinned.model).view(
                    replace(self.pinned, source=state.source)
                )
        except (ValueError, OSError) as error:
            self._refused = frozenset(fields)
            self._struck = getattr(error, "struck", ()) if "caption" in fields else self.view.struck
            self._say(_sentences(error, "The panel still shows the last view"), "wrong")
        except Exception as error:  # a fault of the package
            self._say(f"{type(error).__name__}: {error}", "wrong")
            raise
        else:
            self.view, self.beside, self._refused, self._struck = (
                view,
                beside,
                frozenset(),
                view.struck,
            )
            self._typed, notes = fields.get("caption", self._typed), [note, *view.notes]
            if view.explanation and self.pinned and self.pinned.source is not state.source:
                notes.append("The pinned caption is explained on the new image, too")
            self._say(_sentences(*notes), "note")

    def _session(self, name: str) -> Session:
        """The session of a model, which is loaded when it is first wanted."""
        if chosen("model", name, self.models) not in self._sessions:
            self._sessions[name] = Session(self.models[name] or load_clip(name))
        return self._sessions[name]

    @property
    def _shown(self) -> Session:
        return self._sessions[self.view.state.model]

    # ------------------------------------------------------------------------ what the browser says

    def press(self, message: Any, buffers: Sequence = ()) -> None:
        """Answer a message of the browser."""
        if (
            threading.current_thread() is not threading.main_thread()
        ):  # JupyterLab's own, which no ■ interrupts
            if kernel := getattr(get_ipython(), "kernel", None):
                return kernel.io_loop.add_callback(self.press, message, buffers)
            return self._answer(message, buffers)  # of a host of widgets that is not Jupyter
        before = signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a kernel that runs no cell ignores it
        try:
            self._answer(message, buffers)
        except KeyboardInterrupt:  # which would end the kernel
            self._say("Stopped. The panel still shows the last view.", "wrong")
        finally:
            signal.signal(signal.SIGINT, before)

    def _answer(self, message: Any, buffers: Sequence) -> None:
        self.busy = {
            "kind": "busy",
            "text": "Working ... (the button ■ above the notebook stops it)",
        }  # until `_say`
        match message:
            case {"kind": "change", "fields": dict(fields)}:
                self.change(**{name: value for name, value in fields.items() if name != "source"})
            case {"kind": "scene", "index": int(index)} if 0 <= index < len(self.shelf):
                self.change(source=self.shelf[index], caption=self.shelf[index].caption, against="")
            case {"kind": "scene", "name": str(name)} if name in (changes := self.view.changes):
                self.change(**{"caption": self.view.state.caption, **changes[name]()})
            case {"kind": "image", "name": str(name)} if buffers:
                with tempfile.TemporaryDirectory() as folder:
                    path, note = Path(folder) / "upload", message.get("note")
                    path.write_bytes(bytes(buffers[0]))
                    self.open_image(path, name, f"{name}: {note}" if note else "")
            case {"kind": "pin"}:
                self.pin()
            case {"kind": "unpin"}:
                self.pinned = None
                self.change()
            case {"kind": "reset"}:
                self.reset()
            case {"kind": "save", "name": name}:
                self.save(name)
            case {"kind": "scene"}:
                self.busy = {}  # pressed twice: the button is gone
            case _:
                self._say(f"The panel does not know what {message!r} is", "wrong")

    def open_image(self, image, name: str = "", note: str = "") -> None:
        """Show another image with an empty caption, and keep it beside the scenes; an error is answered in words."""
        try:
            source = Source.of(image, name)
        except (ValueError, TypeError, OSError) as error:  # what `read_image` raises
            self._say(_sentences(error).replace(str(image), name or str(image)), "wrong")
        else:
            self.shelf.append(source)
            self.change(note, source=source, caption=source.caption, against="")

    def pin(self) -> None:
        """Keep what is shown beside the next view, with the difference of both maps."""
        self.pinned = self.view.state
        self.change("Pinned. Now change the caption, the model or the method.")

    def reset(self) -> None:
        """Show the start again, with all settings as they were."""
        self.pinned = None
        self.change(**vars(self._start))

    def save(self, name: str = "explanation") -> None:
        """Write what is shown as a PNG file, beside those that are there, and say where."""
        try:
            stem = str(name).strip().removesuffix(".png") or "explanation"
            ends = chain([""], (f"-{i}" for i in count(2)))
            paths = (as_path(f"{stem}{end}.png", "the name") for end in ends)
            path = writable(next(path for path in paths if not path.exists()), "the name")
            write_whole({path: partial(self.figure().savefig, format="png")})
        except (OSError, ValueError) as error:
            self._say(_sentences(error), "wrong")
        else:
            self._say(f"Saved as {path.absolute()}", "note")

    # -------------------------------------------------------------------------------- what is shown

    def figure(self):
        """What is shown as a static matplotlib figure."""
        return draw([self.view.drawing(self.beside)])

    def python(self) -> str:
        """The script that computes what is shown."""
        return self.view.python(self._shown.clip)

    def __repr__(self) -> str:
        return f"a panel that shows {self.view}"

    def _repr_mimebundle_(self, **options):
        """The widget and, for a page without a kernel, the same view."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        still = figure_tag(self.figure())
        page = embedded(self.view.payload(self.beside), self.view.state.source.image, still)
        return data | {"text/html": page}, metadata

    def _say(self, text: str, kind: str) -> None:
        """Bring everything on the panel in line with the view, and say something."""
        self.message, state, pinned = text, self.view.state, self.pinned is not None
        scenes = [
            {
                "text": source.caption or source.name,
                "chosen": source in (state.source, state.source.before),
            }
            for source in self.shelf
        ]
        more = {
            "message": {"text": text, "kind": text and kind},
            "struck": list(self._struck),
            "scenes": scenes,
            "changes": list(self.view.changes),
            "controls": self._specs(),
            "pinned": pinned,
            "turn": next(self._turns),
            "script": self.python() if self.view.explanation else "",
            "empty": not state.caption,
        }
        with self.hold_sync():
            self.thumbnails, self.image = (
                [source.thumbnail for source in self.shelf],
                state.source.url,
            )
            self.vocabulary = _grouped(self._shown.clip.vocabulary)
            self.data, self.busy = self.view.payload(self.beside) | more, {}

    def _specs(self) -> list[dict]:
        """The controls as `desk.js` takes them."""
        state = self.view.state
        choices = {
            "model": {name: name for name in self.models},
            "method": {method.title: key for key, method in METHODS.items() if method.image},
            "resolution": {"the model's own": "model", "the image's own": "native"},
        }
        return [
            {
                "name": name,
                "label": label,
                "help": text,
                "refused": name in self._refused,
                "place": place,
                "value": self._typed if name == "caption" else getattr(state, name),
                "disabled": name == "layers" and not state.layered,
                "options": list(choices.get(name, {}).items()),
                "max": self._shown.depth,
                "kind": "choice" if name in choices else type(getattr(state, name)).__name__,
            }
            for name, (place, label, text) in _CONTROLS.items()
        ]


def explore(
    image=None,
    caption: str | None = None,
    clip: Clip | None = None,
) -> Explorer:
    """Open the explorer: a panel that explains any image and caption, with every control.

        explore()                                          # the bundled model on a scene
        explore("dog.jpg", "a dog on a sofa", my_clip)

    Args:
        image: a scene, a PIL image, a path or a uint8 array (H, W, 3); None for a scene.
        caption: of the image; None for the scene's own.
        clip: a model; None for the bundled one.

    Returns:
        The panel. A notebook shows it as the last line of a cell.
    """
    return Explorer(image, caption, clip)


def _sentences(*said: str | Exception) -> str:
    """Notes and errors as sentences in one line. The name of a file is left as it is."""
    texts = [str(one) or type(one).__name__ for one in said if one]
    texts = [text[0].upper() + text[1:] if text.split()[0].isalpha() else text for text in texts]
    return " ".join(f"{text.rstrip('.')}." for text in texts)


def _grouped(words: frozenset[str] | None) -> list:
    """The words that a model knows as pairs of a category and its words."""
    if not words:
        return []
    known = concepts()[concepts()["noun"].isin(words)]
    groups = [[kind, list(some["noun"])] for kind, some in known.groupby("category")]
    colours = sorted(words & set(COLOURS))
    others = sorted(words - {*known["noun"], *known["plural"], *colours})
    return [["colours", colours], *groups, ["other words", others]]
