"""A JSON socket: a Unix socket that gives one line of JSON to everybody who connects, and then the end of file.

The daemon shows its tunnels on such sockets, and a running `tunneld mosh` its paths. `tunneld mosh` imports this module
when it starts, so it uses nothing that is slow to import: no asyncio, no pathlib.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

WAITING_ASKERS = 8
"""Connections that the system holds until the program accepts them; an answer takes a millisecond."""


def listen(path: str, *, mode: int = 0o600) -> socket.socket:
    """A non-blocking socket that listens at `path`, where nothing may be yet.

    Its file has `mode` from its first moment on, whatever the umask was, and no path is looked up a second time.

    Raises:
        OSError: the socket cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(WAITING_ASKERS)
    except BaseException:
        listener.close()
        raise
    return listener


def ask(path: str, *, timeout: float, longest: int) -> dict[str, Any]:
    """The JSON object that the socket at `path` gives.

    Args:
        timeout: seconds for the connection and the whole answer together.
        longest: bytes that an answer may have.

    Raises:
        OSError: nobody listens there, or we may not ask; TimeoutError if the answer has not ended in time.
        ValueError: the answer is too long, or is no JSON object.
    """
    deadline = time.monotonic() + timeout
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(timeout)
        asking.connect(path)
        while part := asking.recv(65536):
            answer += part
            if len(answer) > longest:
                raise ValueError(f"it is longer than {longest} bytes")
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError("timed out")
            asking.settimeout(left)
    try:
        value = json.loads(answer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value
