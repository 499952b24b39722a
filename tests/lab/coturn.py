"""coturn, a STUN server in common use, set up so that it answers Binding requests and nothing else."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Final

from tests.lab.machine import end
from tests.lab.net import Host
from tests.lab.product import bound_ports
from tests.until import wait_until

PROGRAM: Final = "turnserver"
PORT: Final = 3478
ALONE: Final = ("--stun-only", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp")


def missing() -> tuple[str, ...]:
    return () if shutil.which(PROGRAM) else ("coturn is not installed",)


@contextlib.contextmanager
def stun_server(host: Host, address: str) -> Iterator[None]:
    """Run coturn on `host` in this block; it answers at `address`, which must be one of the host's."""
    folder = host.directory / "coturn"
    folder.mkdir()
    # Without these options coturn would read the system's configuration and write to the system's folders.
    files = ("-n", "--pidfile", folder / "pid", "--userdb", folder / "db", "--log-file", "stdout")
    with (folder / "log").open("wb") as log:
        process = host.popen([PROGRAM, *files, *ALONE, "-L", address], stdout=log, stderr=log)
    try:
        wait_until(lambda: PORT in bound_ports(host), what="coturn listens")
        yield
    finally:
        end(process)
