"""The TCP connection of the first ssh, made by us: earlier, and without Nagle's delays.

ssh and sshd set TCP_NODELAY when a session has begun, and until then each waits once for an acknowledgement that the
other delays: two round trips more, and 80 ms. So we connect while ssh starts, and hand it the socket (ProxyUseFdpass of
ssh_config(5)); from there on it is ssh's own. Only where ssh would connect by itself, to where it would; if that fails,
ssh does it alone, and says why in its own words.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping

from tunneld.core.happy_eyeballs import AttemptSchedule, SocketAddress, interleaved
from tunneld.mosh.jump_host import NONE

PATIENCE = 10.0
"""Seconds for a connection; then ssh may try for as long as it likes."""

MOST_TRIED = 16
"""Addresses of one name that are tried, which takes four seconds to begin with all; an answer may hold thousands."""

HURRY = 5.0
"""Seconds for which acknowledgements are not delayed: a login and the first screen take less, or wait for a person."""

HURRY_EVERY = 0.01
"""Seconds between two requests for that, each of which Linux forgets after a few packets (tcp(7))."""

NO_SHELLS = ("nologin", "false")

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

_TAKER = (
    "import _socket,sys;d=_socket.socket(1,1);d.connect(sys.argv[1]);"
    "_socket.socket(fileno=1).sendmsg([b'.'],d.recvmsg(1,64)[1])"
)
"""It takes the socket from us and gives it to ssh, on a Unix socket each. `_socket` has all that it needs, and
`socket` would take as long to import as Python does to start."""


def is_direct(settings: Mapping[str, str]) -> bool:
    """Whether ssh would just connect to HostName and Port."""
    master = settings.get("controlpath", NONE)  # an ssh that is older says it unexpanded
    has_master = master != NONE and ("%" in master or os.path.exists(master))
    is_bound = any(settings.get(keyword, NONE) != NONE for keyword in ("bindaddress", "bindinterface"))
    trusts_itself = settings.get("nohostauthenticationforlocalhost") == "yes"  # by an address that it would not see
    return connects_to(settings) is not None and not (has_master or is_bound or trusts_itself)


def connects_to(settings: Mapping[str, str]) -> str | None:
    """The host that the first ssh talks to over TCP; None where a proxy does."""
    is_ours = all(settings.get(keyword, NONE) == NONE for keyword in ("proxycommand", "proxyjump"))
    return settings.get("hostname") if is_ours else None


def has_shell(environment: Mapping[str, str]) -> bool:
    """Whether ssh can run a ProxyCommand. It does so in $SHELL, and that of an account for a service runs nothing."""
    shell = environment.get("SHELL") or "/bin/sh"
    return os.access(shell, os.X_OK) and os.path.basename(shell) not in NO_SHELLS


class Preconnect:
    """A connection under way. `fd` is readable when it has come to nothing."""

    def __init__(self, settings: Mapping[str, str], folder: str) -> None:
        """
        Raises:
            OSError: there is no place for its socket.
        """
        self._place = settings["hostname"], settings.get("port", "22")
        self._family = FAMILIES.get(settings.get("addressfamily", ""), socket.AF_UNSPEC)
        limit = settings.get("connecttimeout", NONE)
        self._limit = (limit.isdecimal() and float(limit)) or math.inf  # 0 is none as well
        self._began = time.monotonic()
        self._stays_alive = settings.get("tcpkeepalive") != "no"
        self._path = os.path.join(folder, f"{os.getpid()}-{os.urandom(3).hex()}.dial")
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.settimeout(PATIENCE)
        self._door.bind(self._path)
        self._door.listen(1)
        self._failed, self._failure = socket.socketpair()
        self.fd = self._failed.fileno()
        threading.Thread(target=self._run, name="dial", daemon=True).start()

    @property
    def options(self) -> tuple[str, ...]:
        """ssh's, with which it takes the socket."""
        taker = shlex.join([sys.executable, "-ISc", _TAKER, self._path]).replace("%", "%%")
        return ("-o", f"ProxyCommand={taker}", "-o", "ProxyUseFdpass=yes")

    @property
    def alone(self) -> tuple[str, ...]:
        """ssh's, with which it tries itself: what is left of the time that the person gives it."""
        left = self._limit - (time.monotonic() - self._began)
        return () if left == math.inf else ("-o", f"ConnectTimeout={max(1, round(left))}")

    def close(self) -> None:
        """ssh has its connection, or is not to any more."""
        for each in (self._failed, self._failure, self._door):
            each.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _run(self) -> None:
        """In a thread of its own, since looking names up waits."""
        try:
            with connect(addresses(*self._place, self._family), min(PATIENCE, self._limit)) as connected:
                with self._door.accept()[0] as taker:
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self._stays_alive)
                    socket.send_fds(taker, [b"."], [connected.fileno()])
                with contextlib.suppress(OSError):  # ssh notices itself what there is to notice
                    self._hurry(connected)
        except (OSError, UnicodeError):
            self._failure.close()

    def _hurry(self, connected: socket.socket) -> None:
        """sshd's answer to our request for a session waits for our acknowledgement of what it said before; that of a
        jump host has no session for a while, and goes on so."""
        end = time.monotonic() + HURRY
        while hasattr(socket, "TCP_QUICKACK") and time.monotonic() < end:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            time.sleep(HURRY_EVERY)


def addresses(host: str, port: str, family: int) -> list[SocketAddress]:
    """Where the name leads, in the order in which to try it.

    Raises:
        OSError: it leads nowhere.
    """
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    return interleaved(SocketAddress(each[0], each[4]) for each in found)[:MOST_TRIED]


def connect(places: Iterable[SocketAddress], patience: float = PATIENCE) -> socket.socket:
    """A socket that is connected to whichever place answers first; core/happy_eyeballs.py says when each is tried.

    Raises:
        OSError: none answers within `patience` seconds, or each refuses.
    """
    end = time.monotonic() + patience
    schedule = AttemptSchedule(places)
    attempts: dict[socket.socket, SocketAddress] = {}
    try:
        while (now := time.monotonic()) < end:
            if (place := schedule.start(now)) is not None:
                try:
                    attempts[_begin(place)] = place
                except OSError:
                    schedule.failed(place)
            elif attempts:
                for ended in select.select([], attempts, [], min(schedule.deadline(), end) - now)[1]:
                    place = attempts.pop(ended)
                    if ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        ended.setblocking(True)
                        return ended
                    ended.close()
                    schedule.failed(place)
            else:
                break
        raise TimeoutError
    finally:
        for attempt in attempts:
            attempt.close()


def _begin(place: SocketAddress) -> socket.socket:
    """A socket that has begun to connect, and is writable when that has ended."""
    attempt = socket.socket(place.family, socket.SOCK_STREAM)
    attempt.setblocking(False)
    try:
        attempt.connect(place.where)
    except BlockingIOError:
        pass
    except BaseException:
        attempt.close()
        raise
    return attempt
