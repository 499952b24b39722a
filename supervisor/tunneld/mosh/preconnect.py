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
from itertools import chain, zip_longest

from tunneld.mosh.jump_host import NONE

PATIENCE = 10.0
"""Seconds for a connection; then ssh may try for as long as it likes."""

STAGGER = 0.25
"""Seconds between two attempts (RFC 8305, section 5)."""

MOST_ADDRESSES = 16

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


def addresses(host: str, port: str, family: int) -> list[tuple[int, tuple[object, ...]]]:
    """Socket addresses with their families, taken in turn.

    Raises:
        OSError: there are none.
    """
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    first = [(each[0], each[4]) for each in found if each[0] == found[0][0]]
    others = [(each[0], each[4]) for each in found if each[0] != found[0][0]]
    return [each for each in chain(*zip_longest(first, others)) if each][:MOST_ADDRESSES]


def connect(places: Iterable[tuple[int, tuple[object, ...]]], patience: float = PATIENCE) -> socket.socket:
    """The first that answers; another is tried each quarter of a second.

    Raises:
        OSError: none does.
    """
    end = time.monotonic() + patience
    waiting = list(places)
    trying: list[socket.socket] = []
    try:
        while waiting or trying:
            if waiting:
                family, address = waiting.pop(0)
                with contextlib.suppress(OSError):
                    trying.append(_begin(family, address))
            pause = STAGGER if waiting else end - time.monotonic()
            if pause <= 0:
                break
            _, done, _ = select.select([], trying, [], pause if trying else 0)
            for one in done:
                trying.remove(one)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    one.setblocking(True)
                    return one
                one.close()
        raise TimeoutError
    finally:
        for one in trying:
            one.close()


def _begin(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setblocking(False)
    try:
        one.connect(address)
    except BlockingIOError:
        pass
    except BaseException:
        one.close()
        raise
    return one
