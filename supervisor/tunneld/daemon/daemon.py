"""Several tunnels in one process: signals, reload, and for each tunnel a status socket and a lock.

The daemon tells systemd when it runs, reloads and stops, and how the tunnels are.

Tested in tests/daemon/test_daemon.py, and as systemd sees it in test_daemon_notifies.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.lifecycle import State
from tunneld.daemon import run_folder
from tunneld.daemon.status_socket import StatusSocket
from tunneld.daemon.systemd_line import SystemdLine
from tunneld.errors import Problem, ProfileError, TunneldError
from tunneld.net.network_watch import Change, NetworkWatch
from tunneld.profile import Profile, conflicts, load
from tunneld.status.brief import summary
from tunneld.status.quantities import counted
from tunneld.status.snapshot import to_json
from tunneld.systemd.notify import NotifySocket
from tunneld.tunnel.relay_group import RelayGroup

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """Runs tunnels until a signal stops them, or until no tunnel is left that runs."""

    def __init__(
        self,
        profiles: Iterable[Profile],
        *,
        log: FilteringBoundLogger,
        read: Callable[[str], Profile] = load,
        found: Callable[[], Iterable[Path]] = tuple,
        rejected: Sequence[Problem] = (),
    ) -> None:
        """Prepare a tunnel for each profile; `run` starts them.

        Args:
            profiles: no profile conflicts with another one.
            log: where events go.
            read: reads a profile again, by the path of its file. It may raise ProfileError.
            found: lists more files. A reload runs their profiles as well, as soon as they are valid.
            rejected: the problems of such files now.
        """
        self._log = log
        self._read = read
        self._found = found
        self._rejected = list(rejected)
        self._notify = NotifySocket()
        self._systemd = SystemdLine(self._notify, self._line)
        self._profiles = {profile.name: profile for profile in profiles}
        self._tunnels = {name: self._tunnel(profile) for name, profile in self._profiles.items()}
        self._stopping = False
        self._reload = asyncio.Event()

    async def run(self) -> int:
        """Run until stopped, and return the exit code.

        That is 0 after a stop that somebody asked for. It is 70 when each tunnel has failed by a fault of ours, so that
        whoever watches the process starts it again.

        Raises:
            BusyError: another daemon runs one of the tunnels.
            RightsError, UnavailableError: there is no safe folder, or no room, for the sockets.
        """
        async with contextlib.AsyncExitStack() as self._held:
            for name in self._tunnels:
                await self._take(name)
            self._held.enter_context(self._signals())
            async with asyncio.TaskGroup() as side:
                watch = NetworkWatch(self._changed, toward=self._relays)
                others = [side.create_task(each) for each in (self._follow_reloads(), self._systemd.run(), watch.run())]
                async with asyncio.TaskGroup() as self._group:
                    for tunnel in self._tunnels.values():
                        self._group.create_task(tunnel.run())
                    self._notify.ready()  # without waiting for the relays: a boot without network is no failure
                for each in others:
                    each.cancel()
        return 0 if self._stopping else TunneldError.exit_code

    def stop(self) -> None:
        """Drain every tunnel."""
        self._stopping = True
        self._notify.stopping()
        for tunnel in self._tunnels.values():
            tunnel.stop()

    def reload(self) -> None:
        """Read each profile again. Only what has changed is restarted."""
        self._reload.set()

    def _relays(self) -> list[str]:
        """The addresses that our sessions lead to. The route to them may differ from the default route."""
        return [address for tunnel in self._tunnels.values() for address in tunnel.peers]

    def _changed(self, change: Change) -> None:
        """This machine's network has changed, or the machine has slept: have each tunnel look after its session."""
        self._log.debug("machine_changed", what=change.value)
        for tunnel in self._tunnels.values():
            tunnel.nudge()

    async def _take(self, name: str) -> None:
        """Take the tunnel's lock, and open its status socket."""
        folder = run_folder.prepare(run_folder.own_directory())
        path = run_folder.socket_path(folder, name)
        self._held.callback(run_folder.TunnelLock(folder, name).release)
        status_socket = StatusSocket(path, partial(self._say, name))
        self._held.callback(status_socket.close)
        await status_socket.open()

    def _tunnel(self, profile: Profile) -> RelayGroup:
        return RelayGroup(profile, log=self._log, changed=self._systemd.moved)

    def _line(self) -> str:
        """How all tunnels are, in one line for systemd."""
        line = summary([tunnel.status() for tunnel in self._tunnels.values()])
        if not self._rejected:
            return line
        return f"{line}; {counted(len(self._rejected), 'problem')} in profiles: {self._rejected[0]}"

    def _say(self, name: str) -> str:
        return to_json(self._tunnels[name].status())

    async def _follow_reloads(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            if self._stopping:
                continue
            self._notify.reloading()
            self._rejected.clear()
            files = [*(each.file for each in self._profiles.values()), *self._found()]
            read = [await self._read_again(file) for file in dict.fromkeys(files)]
            for profile in self._valid([each for each in read if each is not None]):
                await self._follow(profile)
            self._systemd.moved()
            self._notify.ready()

    async def _read_again(self, file: Path) -> Profile | None:
        """The profile as its file has it now. If that is invalid: the profile as we run it, or None."""
        try:
            return await asyncio.to_thread(self._read, str(file))
        except ProfileError as error:
            self._reject(error.problems)
            return next((held for held in self._profiles.values() if held.file == file), None)

    def _valid(self, profiles: list[Profile]) -> list[Profile]:
        """Those that can run side by side. A profile that cannot is replaced by what we run already, if we run it."""
        problems = conflicts(profiles)
        self._reject(problems)
        rejected = {problem.file for problem in problems}
        kept = [self._profiles.get(each.name) if each.file in rejected else each for each in profiles]
        return [each for each in kept if each is not None]

    def _reject(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._rejected.append(problem)
            self._log.error("profile_rejected", problem=str(problem))

    async def _follow(self, profile: Profile) -> None:
        if profile.name not in self._tunnels:
            await self._add(profile)
            return
        changed = profile != self._profiles[profile.name]
        self._profiles[profile.name] = profile
        tunnel = self._tunnels[profile.name]
        if tunnel.status().state is State.FAILED:
            self._start(profile)
        elif changed:
            await tunnel.apply(profile)
        else:
            self._log.info("profile_unchanged", tunnel=profile.name)

    async def _add(self, profile: Profile) -> None:
        """Run a tunnel whose profile is new, or was invalid until now."""
        try:
            await self._take(profile.name)
        except TunneldError as error:
            self._reject([Problem(profile.file, 1, "", str(error))])
            return
        self._profiles[profile.name] = profile
        self._start(profile)

    def _start(self, profile: Profile) -> None:
        """Run a tunnel of this profile, unless a stop came during the reload: nobody would stop the tunnel later."""
        tunnel = self._tunnels[profile.name] = self._tunnel(profile)
        if not self._stopping:
            self._group.create_task(tunnel.run())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGHUP reloads; SIGTERM and SIGINT drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for each in STOP_SIGNALS:
            loop.add_signal_handler(each, self._asked_to_stop)
        try:
            yield
        finally:
            for each in (signal.SIGHUP, *STOP_SIGNALS):
                loop.remove_signal_handler(each)

    def _asked_to_stop(self) -> None:
        for each in STOP_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)  # a second signal ends the process at once
        self.stop()
