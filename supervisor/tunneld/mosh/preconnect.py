"""The TCP connection of the first ssh, made by us: earlier than by ssh, and without the delays of Nagle's algorithm.

ssh and sshd set TCP_NODELAY only when a session has begun. Until then each of them waits once for an acknowledgement
that the other delays, which costs two round trips and 80 ms. So we connect while ssh starts, and pass it the socket
(ProxyUseFdpass of ssh_config(5)), which is ssh's own from then on. We do so only where ssh itself would make a plain
TCP connection, and to the same address. If it fails, ssh connects without us, and says in its own words why not.
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

QUICKACK_FOR = 5.0
"""Seconds for which acknowledgements are not delayed: a login and the first screen take less, or wait for a person."""

QUICKACK_EVERY = 0.01
"""Seconds between two requests for undelayed acknowledgements: Linux forgets one after a few packets (tcp(7))."""

NO_SHELLS = ("nologin", "false")
"""Login shells of accounts that may run nothing."""

FAMILY_OF_SETTING = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
"""Values of ssh_config's AddressFamily; the third is `any`."""

_TAKER = (
    "import _socket,sys;d=_socket.socket(1,1);d.connect(sys.argv[1]);"
    "_socket.socket(fileno=1).sendmsg([b'.'],d.recvmsg(1,64)[1])"
)
"""ssh's ProxyCommand: it takes the connection from us over one Unix socket, and gives it to ssh over another.
`_socket` has all that it needs; to import `socket` would take as long as Python takes to start."""


def is_direct(settings: Mapping[str, str]) -> bool:
    """Whether ssh with these settings (of `ssh -G`) would make a plain TCP connection to HostName and Port."""
    master = settings.get("controlpath", NONE)  # older versions of ssh print it with its `%` as written
    has_master = master != NONE and ("%" in master or os.path.exists(master))
    is_bound = any(settings.get(keyword, NONE) != NONE for keyword in ("bindaddress", "bindinterface"))
    trusts_itself = settings.get("nohostauthenticationforlocalhost") == "yes"  # ssh would not see the address
    return connects_to(settings) is not None and not (has_master or is_bound or trusts_itself)


def connects_to(settings: Mapping[str, str]) -> str | None:
    """The host to which the first ssh connects over TCP; None where a proxy connects for it."""
    is_ours = all(settings.get(keyword, NONE) == NONE for keyword in ("proxycommand", "proxyjump"))
    return settings.get("hostname") if is_ours else None


def has_shell(environment: Mapping[str, str]) -> bool:
    """Whether ssh can run a ProxyCommand: it does so in $SHELL, which runs nothing in an account made for a service."""
    shell = environment.get("SHELL") or "/bin/sh"
    return os.access(shell, os.X_OK) and os.path.basename(shell) not in NO_SHELLS


class Preconnect:
    """A TCP connection that is being made in a thread. `fd` is readable when it has failed."""

    def __init__(self, settings: Mapping[str, str], folder: str) -> None:
        """
        Args:
            settings: what `ssh -G` says of the first machine on the way.
            folder: where to put the Unix socket over which ssh's ProxyCommand takes the connection.

        Raises:
            OSError: the Unix socket cannot be made there.
        """
        self._place = settings["hostname"], settings.get("port", "22")
        self._family = FAMILY_OF_SETTING.get(settings.get("addressfamily", ""), socket.AF_UNSPEC)
        limit = settings.get("connecttimeout", NONE)
        self._limit = (limit.isdecimal() and float(limit)) or math.inf  # ssh knows no limit of 0 s
        self._began = time.monotonic()
        self._stays_alive = settings.get("tcpkeepalive") != "no"
        self._path = os.path.join(folder, f"{os.getpid()}-{os.urandom(3).hex()}.dial")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(self._path)
        self._listener.listen(1)
        self._failed, self._failure = socket.socketpair()
        self.fd = self._failed.fileno()
        threading.Thread(target=self._run, name="preconnect", daemon=True).start()

    @property
    def options(self) -> tuple[str, ...]:
        """ssh's options for taking our connection."""
        taker = shlex.join([sys.executable, "-ISc", _TAKER, self._path]).replace("%", "%%")
        return ("-o", f"ProxyCommand={taker}", "-o", "ProxyUseFdpass=yes")

    @property
    def fallback_options(self) -> tuple[str, ...]:
        """ssh's options for connecting without us: it gets what is left of the person's ConnectTimeout."""
        left = self._limit - (time.monotonic() - self._began)
        return () if left == math.inf else ("-o", f"ConnectTimeout={max(1, round(left))}")

    def close(self) -> None:
        """Stop listening: ssh has its connection, or is to have none of ours."""
        for each in (self._failed, self._failure, self._listener):
            each.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _run(self) -> None:
        """Connect, and pass the connection on; in a thread, since looking up names waits."""
        try:
            with connect(addresses(*self._place, self._family), min(PATIENCE, self._limit)) as connected:
                with self._listener.accept()[0] as taker:
                    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self._stays_alive)
                    socket.send_fds(taker, [b"."], [connected.fileno()])
                with contextlib.suppress(OSError):  # ssh itself notices what happens to its connection
                    _acknowledge_at_once(connected)
        except (OSError, UnicodeError):
            self._failure.close()


def _acknowledge_at_once(connected: socket.socket) -> None:
    """Do not delay acknowledgements while ssh logs in: until a session has begun, sshd's next answer waits for them.

    On a jump host no session begins for a while, so this goes on for longer than a login takes.
    """
    end = time.monotonic() + QUICKACK_FOR
    while hasattr(socket, "TCP_QUICKACK") and time.monotonic() < end:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        time.sleep(QUICKACK_EVERY)


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
