"""Threads for what blocks (name servers, key files) that the end of the process does not wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

# At once, the rest waits. A lookup may last a minute where no name server answers, and each tunnel has a few under way;
# Python's own bound, 6 on a machine with two cores, would let them hold up everything else.
MOST = 32

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """An event loop's executor, which must be of this class. Its threads are daemons, and `shutdown` leaves them be.

    Python's own are joined at exit: a stop while a name is looked up would take as long as the name server's silence.
    """

    def __init__(self) -> None:
        super().__init__(MOST)
        self._guard = Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = 0

    def submit(self, work: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._guard:
            self._waiting.append((future, partial(work, *args, **settings)))
            if self._running < MOST:
                self._running += 1
                Thread(target=self._run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing waits, and nothing is cancelled."""

    def _run(self) -> None:
        while task := self._next():
            _do(*task)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._guard:
            if self._waiting:
                return self._waiting.popleft()
            self._running -= 1
            return None


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # the one who awaits it gets it
        future.set_exception(error)
    else:
        future.set_result(result)
