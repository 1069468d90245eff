"""Ctrl-C and SIGTERM: a wish that the loop grants at the end of an epoch, or the word to stop what else is running."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupt:
    """`signum` is the first signal that asked to stop, 0 while none has."""

    signum = 0
    ctrl_c = False
    """Whether one of them was Ctrl-C."""

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second Ctrl-C stops as soon as the programs that are running have ended."""
        if self.ctrl_c and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.ctrl_c |= signum == signal.SIGINT
        self.signum = self.signum or signum


@contextlib.contextmanager
def listen() -> Iterator[Interrupt]:
    """Catch signals within the block. Outside the main thread, where Python allows no handlers, there are none."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {s: signal.signal(s, interrupt.receive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def terminating(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block SIGTERM calls `stop` and raises `SystemExit`. Outside the main thread it does what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(signum: int, frame: FrameType | None) -> None:
        stop()
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
