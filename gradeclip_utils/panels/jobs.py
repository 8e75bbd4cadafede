"""Jobs: one at a time for a panel. Quick ones at once, long ones beside the kernel's loop, until a newer one comes.

    session -> explorer_view -> jobs -> explorer, lesson

A long job runs in a thread, so that the kernel goes on hearing the panel. Before every pass of the model it stops if a
newer job was started. What it found is handed over in the kernel's own loop, in the order of the requests; a result
that was overtaken is never shown.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import GradeclipError


class Interrupted(RuntimeError):
    """A newer request came while this one was computed."""


ANSWERS = (ValueError, GradeclipError)  # raised of what cannot be had; any other error is a fault of ours
_EVERY = 0.2  # seconds between two reports


def sentence(error: BaseException) -> str:
    """What is wrong, without a full stop."""
    said = str(error).rstrip(".")
    return said if isinstance(error, ANSWERS) else f"{type(error).__name__}: {said}"


class Work:
    """Runs jobs, one at a time. An error that is none of `ANSWERS` is a fault: it is said, and then raised.

    Attributes:
        running: whether a job is under way beside the kernel's loop.
        turn: the panel's lock, held while a result is handed over: JupyterLab 4.4 and later may deliver messages in
            several threads.
    """

    def __init__(self):
        self.running, self.turn = False, threading.RLock()
        self._number = 0  # of the newest job

    def start(
        self, job: Callable[[Callable[[float], None]], Any], done: Callable[[Any], None],
        failed: Callable[[BaseException], None], tell: Callable[[float], None], *, quick: bool,
    ) -> None:  # fmt: skip
        """Run ``job``, then ``done(result)`` or ``failed(error)``. The job before it, if still under way, is stopped."""
        with self.turn:
            self._number += 1
            number, loop, context = self._number, None if quick else running_loop(), contextvars.copy_context()
            self.running, reported = loop is not None, time.monotonic()

        def hand_over(action: Callable, value) -> None:
            """Call ``action``, in the loop where there is one."""
            given = number, action is tell, action, value
            if loop is None:
                self._act(*given)
            elif not loop.is_closed():  # else the kernel has ended, and nobody waits
                loop.call_soon_threadsafe(self._act, *given, context=context)

        def before_a_pass(passes: float) -> None:
            """End a job that nobody waits for; tell now and then how far it is."""
            nonlocal reported
            if loop and (self._number != number or loop.is_closed()):
                raise Interrupted
            if loop and time.monotonic() - reported > _EVERY:
                reported = time.monotonic()
                hand_over(tell, passes)

        def run() -> None:
            """The whole job."""
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
        tell(0)
        return threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """Forget the job under way."""
        with self.turn:
            self._number += 1
            self.running = False

    def _act(self, number: int, running: bool, action: Callable, value) -> None:
        """Call ``action``, unless a newer job was started, maybe in another thread than the one that runs cells."""
        with self.turn:
            if self._number == number:
                self.running = running
                action(value)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The kernel's loop, where this thread runs in one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
