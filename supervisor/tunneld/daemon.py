"""Several tunnels in one process: signals, reload, a status socket for each, and a claim against a second daemon."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from structlog.typing import FilteringBoundLogger

from tunneld import runtime
from tunneld.answer import Answers
from tunneld.core.lifecycle import State
from tunneld.errors import Problem, ProfileError, TunneldError
from tunneld.profile import Profile, conflicts, load
from tunneld.status import to_json
from tunneld.tunnel import Tunnel

FAULT = TunneldError.exit_code
ENDING = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """Runs tunnels until a signal stops them, or until none is left that runs."""

    def __init__(
        self, profiles: Iterable[Profile], *, log: FilteringBoundLogger, read: Callable[[str], Profile] = load
    ) -> None:
        """Of profiles that can run side by side; `read` gives one again, by its file's path."""
        self._log = log
        self._read = read
        self._profiles = {profile.name: profile for profile in profiles}
        self._tunnels = {name: Tunnel(profile, log=log) for name, profile in self._profiles.items()}
        self._stopping = False
        self._reload = asyncio.Event()

    async def run(self) -> int:
        """Until stopped.

        Returns: the exit code: 0 after a stop that was asked for, 70 when every tunnel failed by a fault of ours, so
        that whoever watches the process starts it again.

        Raises:
            BusyError, RightsError: another daemon holds one of the tunnels; no room for the sockets.
        """
        async with contextlib.AsyncExitStack() as held:
            await self._claim(held)
            held.enter_context(self._signals())
            async with asyncio.TaskGroup() as beside:
                reloading = beside.create_task(self._follow_reloads())
                async with asyncio.TaskGroup() as self._group:
                    for tunnel in self._tunnels.values():
                        self._group.create_task(self._hold(tunnel))
                reloading.cancel()
        return 0 if self._stopping else FAULT

    def stop(self) -> None:
        """Drain every tunnel."""
        self._stopping = True
        for tunnel in self._tunnels.values():
            tunnel.stop()

    def reload(self) -> None:
        """Read every profile again; only what changed restarts."""
        self._reload.set()

    async def _claim(self, held: contextlib.AsyncExitStack) -> None:
        folder = runtime.prepare(runtime.own_directory())
        for name in self._tunnels:
            path = runtime.socket_path(folder, name)
            held.callback(runtime.Claim(folder, name).release)
            answers = Answers(path, partial(self._say, name))
            held.callback(answers.close)
            await answers.open()

    def _say(self, name: str) -> str:
        return to_json(self._tunnels[name].status())

    async def _hold(self, tunnel: Tunnel) -> None:
        """Run one tunnel; its crash is its own."""
        try:
            await tunnel.run()
        except Exception:  # the barrier between tunnels: the fault is logged, and the others go on
            self._log.exception("tunnel_failed", tunnel=tunnel.name)

    async def _follow_reloads(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            for profile in self._valid([await self._again(each) for each in self._profiles.values()]):
                await self._follow(profile)

    async def _again(self, held: Profile) -> Profile:
        """A profile as its file now has it, or as we have it, if that is invalid."""
        try:
            return await asyncio.to_thread(self._read, str(held.file))
        except ProfileError as error:
            self._reject(error.problems)
            return held

    def _valid(self, profiles: list[Profile]) -> list[Profile]:
        """Those that can run beside each other; one that cannot stays as it is."""
        problems = conflicts(profiles)
        self._reject(problems)
        rejected = {problem.file for problem in problems}
        return [self._profiles[each.name] if each.file in rejected else each for each in profiles]

    def _reject(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._log.error("profile_rejected", problem=str(problem))

    async def _follow(self, profile: Profile) -> None:
        changed = profile != self._profiles[profile.name]
        self._profiles[profile.name] = profile
        tunnel = self._tunnels[profile.name]
        if tunnel.status().state is State.FAILED and not self._stopping:
            tunnel = self._tunnels[profile.name] = Tunnel(profile, log=self._log)
            self._group.create_task(self._hold(tunnel))
        elif changed:
            await tunnel.apply(profile)
        else:
            self._log.info("profile_unchanged", tunnel=profile.name)

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
