"""Ctrl-C, SIGTERM and a lost terminal: a wish that the loop grants at an epoch's end, or the word to stop others."""

import contextlib
import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from types import FrameType

LOST_TERMINAL = getattr(signal, "SIGHUP", None)
"""What says that a window was closed, or a connection; None where the system knows no such signal."""
STDOUT, STDERR = 1, 2


def unread(descriptor: int) -> bool:
    """Whether what is written there goes to nobody any more, as after `| head`."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))  # nothing but an error, or a reader that hung up, is told unasked


def silence(descriptor: int) -> None:
    """Let what is written there vanish, where nobody can read it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


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
        if signum == LOST_TERMINAL:
            for output in (STDOUT, STDERR):
                if stat.S_ISCHR(os.fstat(output).st_mode):
                    silence(output)


@contextlib.contextmanager
def listen() -> Iterator[Interrupt]:
    """Catch signals within the block. Outside the main thread, where Python allows no handlers, there are none."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    heard = [signal.SIGINT, signal.SIGTERM]
    if LOST_TERMINAL and signal.getsignal(LOST_TERMINAL) != signal.SIG_IGN:  # which `nohup` asks for
        heard.append(LOST_TERMINAL)
    before = {s: signal.signal(s, interrupt.receive) for s in heard}
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
