"""Jobs: one at a time for a panel, beside the kernel's loop, until a newer one comes.

    session -> explorer_view -> jobs -> explorer, lesson

A job runs in a thread, so that the kernel goes on hearing the panel. Before every pass of the model it stops if a newer
job was started. What it found is handed over in the kernel's own loop; a result that was overtaken is never shown.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from ..errors import GradeclipError


class Interrupted(RuntimeError):
    """A newer request came while this one was computed."""


ANSWERS = (ValueError, GradeclipError)  # answered in a sentence; any other error is a fault of the package


def sentence(error: BaseException) -> str:
    """Return what is wrong, without a full stop."""
    said = str(error).rstrip(".")
    said = f"The {said[4:]}" if said.startswith("the ") else said
    return said if isinstance(error, ANSWERS) else f"{type(error).__name__}: {said}"


class Work:
    """Runs jobs, one at a time. An error that is none of `ANSWERS` is shown and raised.

    Attributes:
        running: whether a job is under way.
        turn: the panel's lock, held while a result is handed over.
    """

    def __init__(self):
        self.running, self.turn = False, threading.RLock()
        self._number = 0  # of the newest job

    def start(
        self, job: Callable[[Callable[..., None]], Any], done: Callable[[Any], None],
        failed: Callable[[BaseException], None], *, quick: bool = False,
    ) -> None:  # fmt: skip
        """Run ``job(before_a_pass)``, then ``done(result)`` or ``failed(error)``; stop the job before it."""
        with self.turn:
            self._number += 1
            number, loop, context = self._number, None if quick else running_loop(), contextvars.copy_context()
            self.running = loop is not None

        def hand_over(action: Callable, value) -> None:
            if loop is None:
                self._act(number, action, value)
            elif not loop.is_closed():  # else the kernel has ended
                loop.call_soon_threadsafe(self._act, number, action, value, context=context)

        def before_a_pass(*_) -> None:
            if loop and (self._number != number or loop.is_closed()):
                raise Interrupted

        def run() -> None:
            try:
                result = job(before_a_pass)
            except Interrupted:
                return
            except BaseException as error:
                hand_over(failed, error)
                if not isinstance(error, ANSWERS):
                    raise
            else:
                hand_over(done, result)

        if loop is None:
            return run()
        return threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """Forget the job under way."""
        with self.turn:
            self._number += 1
            self.running = False

    def _act(self, number: int, action: Callable, value) -> None:
        """Call ``action``, unless a newer job was started."""
        with self.turn:
            if self._number == number:
                self.running = False
                action(value)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the kernel's loop, where this thread runs in one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
