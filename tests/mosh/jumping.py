"""A jump host on loopback, which is also the machine behind it, and both ends of a pair that may meet there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab.client import Person, person
from tests.lab.machine import Machine
from tests.lab.sshd import Sshd
from tests.shipped.test_pair_loop import SECRET, End, pipes
from tests.sshd import SSHD, free_port
from tunneld.core.pair.candidate import UdpAddress
from tunneld.mosh import jump_agent_client, jump_host
from tunneld.mosh.jump_agent_client import JumpAgentClient
from tunneld.mosh.jump_route import JumpRoute

needs_openssh = pytest.mark.skipif(not (SSHD and shutil.which("ssh")), reason="OpenSSH is not installed")


class TwoEnds:
    """The two ends of a pair with a stream between them, and the client's agent on the jump host."""

    def __init__(self) -> None:
        self.client, self.server = End(is_client=True), End(is_client=False)
        here, there = pipes()
        self.client.loop.add_stream("first", *here)
        self.server.loop.add_stream("first", *there)
        self.route: JumpRoute
        self.agent: JumpAgentClient | None = None

    def use(self, route: JumpRoute, ports: tuple[int, int] = (0, 0)) -> JumpAgentClient:
        """Prepare an agent on this route."""
        self.route = route
        self.agent = JumpAgentClient(route, ports=ports)
        return self.agent

    def begin(self) -> None:
        """mosh-client runs."""
        assert self.agent
        self.agent.begin(self.client.loop, SECRET, ssh_connection="192.0.2.9 1 192.0.2.8 22", stun=list)

    def run(self, is_so: Callable[[], object]) -> None:
        """Run both ends until this is true; where it does not become true, the test fails with what the agent says."""
        give_up = time.monotonic() + jump_agent_client.AGENT_START_TIMEOUT + 5
        while not is_so():
            assert time.monotonic() < give_up, self.agent and self.agent.says
            self.client.step()
            self.server.step()

    def relay(self) -> list[UdpAddress]:
        """The addresses of the agent that the server's end was told last."""
        found = [body["relay"] for _, _, body in self.server.heard if "relay" in body]
        return [UdpAddress(*each) for each in found[-1]] if found else []

    def close(self) -> None:
        if self.agent:
            self.agent.close()
        self.client.loop.close()
        self.server.loop.close()


class Jump(TwoEnds):
    """Two ends with a real jump host between them. Its sessions have `mark` in their environment."""

    def __init__(self, sshd: Sshd, guest: Person, mark: str) -> None:
        super().__init__()
        self.sshd = sshd
        self.guest = guest
        self.mark = mark
        self.sessions: list[subprocess.Popen[bytes]] = []

    def prepare(self, *options: str, ports: tuple[int, int] = (0, 0)) -> JumpAgentClient:
        """The agent on the route that ssh takes with these options."""
        words = ["-F", str(self.guest.config), *options]
        return self.use(JumpRoute(words, jump_host.configuration([*words, "--", "dest"])), ports)

    def connect(self, name: str = "first") -> subprocess.Popen[bytes]:
        """ssh to the machine behind, as a session would start it; the connection works when this returns."""
        words = ["ssh", "-T", *self.route.options(name), "dest", "cat"]
        self.sessions.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        session = self.sessions[-1]
        assert session.stdin
        assert session.stdout
        session.stdin.write(b"through\n")
        session.stdin.flush()
        assert session.stdout.readline()
        return session

    @property
    def logins(self) -> int:
        return self.sshd.log.count("Accepted publickey")

    def agents(self) -> list[int]:
        """The processes of our agent that sshd's sessions have started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    self.mark.encode() in (folder / "environ").read_bytes()
                    and b"zlib" in (folder / "cmdline").read_bytes()
                ):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        super().close()
        for session in self.sessions:
            session.kill()
            session.communicate()
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def jumping(folder: Path, options: Mapping[str, str], *, config: str = "") -> Iterator[Jump]:
    """A jump host whose sshd has these options, and a person whose ssh_config begins with `config`."""
    machine = Machine("here", folder / "here")
    guest = person(machine, "guest")
    mark = f"JUMP={folder}"
    settings = {"SetEnv": f"SHLVL=2 {mark}", **options}
    with Sshd(machine, (guest.key.public,), settings, address="127.0.0.1", port=free_port()) as sshd:
        guest.trust(sshd.known_hosts("127.0.0.1"))
        hosts = f"Host dest jump\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        guest.config.write_text(f"{config}\n{hosts}{guest.config.read_text()}")
        made = Jump(sshd, guest, mark)
        try:
            yield made
        finally:
            made.close()
            machine.close()
