"""Threads for blocking work (name servers, key files). The end of the process does not wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

# Threads at the same time; more work waits. A lookup may last a minute where no name server answers, and each tunnel
# makes a few. With Python's own limit, 6 on a machine with two cores, those would delay all other work.
MOST_THREADS = 32

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Threads(ThreadPoolExecutor):
    """An executor for an event loop, which accepts this base class only. `shutdown` does not wait for the threads.

    Python joins the threads of its own executor at exit. A stop during a lookup would then last until the name server
    answers, or does not. These threads are daemon threads, which Python does not join.
    """

    def __init__(self) -> None:
        super().__init__(MOST_THREADS)
        self._guard = Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = 0

    def submit(
        self, work: Callable[Arguments, Result], /, *args: Arguments.args, **settings: Arguments.kwargs
    ) -> Future[Result]:
        future: Future[Result] = Future()
        with self._guard:
            self._waiting.append((future, partial(work, *args, **settings)))
            if self._running < MOST_THREADS:
                self._running += 1
                Thread(target=self._run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nothing, and cancel nothing."""

    def _run(self) -> None:
        while task := self._next():
            _do(*task)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._guard:
            if self._waiting:
                return self._waiting.popleft()
            self._running -= 1
            return None


def _do(future: Future[Result], work: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # whoever awaits the future gets the error
        future.set_exception(error)
    else:
        future.set_result(result)
