"""Several tunnels in one process: signals, reload, a status socket for each, and a claim against a second daemon.

Whoever started it (systemd) is told when it runs, reloads and stops, and how the tunnels are.
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

FAULT = TunneldError.exit_code
ENDING = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """Runs tunnels until a signal stops them, or until none is left that runs."""

    def __init__(
        self,
        profiles: Iterable[Profile],
        *,
        log: FilteringBoundLogger,
        read: Callable[[str], Profile] = load,
        found: Callable[[], Iterable[Path]] = tuple,
        rejected: Sequence[Problem] = (),
    ) -> None:
        """Of profiles that can run side by side; `read` gives one again, by its file's path.

        `found` are files whose profiles shall run as well, once a reload finds them right; `rejected` is what is wrong
        with those now.
        """
        self._log = log
        self._read = read
        self._found = found
        self._rejected = list(rejected)
        self._notify = NotifySocket()
        self._report = SystemdLine(self._notify, self._line)
        self._profiles = {profile.name: profile for profile in profiles}
        self._tunnels = {name: self._tunnel(profile) for name, profile in self._profiles.items()}
        self._stopping = False
        self._reload = asyncio.Event()

    async def run(self) -> int:
        """Until stopped.

        Returns: the exit code: 0 after a stop that was asked for, 70 when every tunnel failed by a fault of ours, so
        that whoever watches the process starts it again.

        Raises:
            BusyError, RightsError: another daemon holds one of the tunnels; no room for the sockets.
        """
        async with contextlib.AsyncExitStack() as self._held:
            for name in self._tunnels:
                await self._claim(name)
            self._held.enter_context(self._signals())
            async with asyncio.TaskGroup() as beside:
                watch = NetworkWatch(self._changed, toward=self._relays)
                others = [
                    beside.create_task(each) for each in (self._follow_reloads(), self._report.run(), watch.run())
                ]
                async with asyncio.TaskGroup() as self._group:
                    for tunnel in self._tunnels.values():
                        self._group.create_task(tunnel.run())
                    self._notify.ready()  # whatever the relays say: a boot without network is no failure
                for each in others:
                    each.cancel()
        return 0 if self._stopping else FAULT

    def stop(self) -> None:
        """Drain every tunnel."""
        self._stopping = True
        self._notify.stopping()
        for tunnel in self._tunnels.values():
            tunnel.stop()

    def reload(self) -> None:
        """Read every profile again; only what changed restarts."""
        self._reload.set()

    def _relays(self) -> list[str]:
        """Where our sessions lead: the way there may be another one than to everywhere."""
        return [address for tunnel in self._tunnels.values() for address in tunnel.peers]

    def _changed(self, change: Change) -> None:
        """This machine's network is another one, or it has slept."""
        self._log.debug("machine_changed", what=change.value)
        for tunnel in self._tunnels.values():
            tunnel.nudge()

    async def _claim(self, name: str) -> None:
        folder = run_folder.prepare(run_folder.own_directory())
        path = run_folder.socket_path(folder, name)
        self._held.callback(run_folder.TunnelLock(folder, name).release)
        answers = StatusSocket(path, partial(self._say, name))
        self._held.callback(answers.close)
        await answers.open()

    def _tunnel(self, profile: Profile) -> RelayGroup:
        return RelayGroup(profile, log=self._log, changed=self._report.moved)

    def _line(self) -> str:
        """How all is, in one line."""
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
            read = [await self._again(file) for file in dict.fromkeys(files)]
            for profile in self._valid([each for each in read if each is not None]):
                await self._follow(profile)
            self._report.moved()
            self._notify.ready()

    async def _again(self, file: Path) -> Profile | None:
        """A profile as its file now has it, or as we have it, if that is invalid."""
        try:
            return await asyncio.to_thread(self._read, str(file))
        except ProfileError as error:
            self._reject(error.problems)
            return next((held for held in self._profiles.values() if held.file == file), None)

    def _valid(self, profiles: list[Profile]) -> list[Profile]:
        """Those that can run beside each other; one that cannot stays as it is."""
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
        """A tunnel whose profile has come, or was wrong until now."""
        try:
            await self._claim(profile.name)
        except TunneldError as error:
            self._reject([Problem(profile.file, 1, "", str(error))])
            return
        self._profiles[profile.name] = profile
        self._start(profile)

    def _start(self, profile: Profile) -> None:
        """Hold a tunnel of this profile, unless a stop has overtaken the reload: nobody would stop it any more."""
        tunnel = self._tunnels[profile.name] = self._tunnel(profile)
        if not self._stopping:
            self._group.create_task(tunnel.run())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGHUP reloads; SIGTERM and SIGINT drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        for each in ENDING:
            loop.add_signal_handler(each, self._asked_to_stop)
        try:
            yield
        finally:
            for each in (signal.SIGHUP, *ENDING):
                loop.remove_signal_handler(each)

    def _asked_to_stop(self) -> None:
        for each in ENDING:
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)  # a second one ends the process at once
        self.stop()
