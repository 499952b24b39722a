"""What a tunnel gives to each of its parts: time and chance, the log, and the limits of the backoff."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.backoff import Limits
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.timing import Timing

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class TunnelContext:
    """One for each tunnel; `log` has the tunnel's name bound, and `limits` are its profile's [backoff]."""

    log: FilteringBoundLogger
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    repeats: Repeats = field(default_factory=Repeats)

    def tell(self, level: Level, event: str, *, key: Hashable, **about: object) -> None:
        """Log an event. Of events with the same `key` few get a line at `level`, and the others one at debug.

        Those that get one (see Repeats) say how many there were, as `times`.
        """
        times = self.repeats.count(key)
        if times > 1:
            about["times"] = times
        getattr(self.log, level if times else "debug")(event, **about)
