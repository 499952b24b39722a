"""The log: one event for each transition, in the past tense, with `tunnel=`; structlog on top of the standard library.

On a terminal, lines are made for reading; elsewhere they are logfmt, or JSON on request. The journal gets sentences
with fields of its own (`journalctl TUNNELD_TUNNEL=pi-home`). The warnings of asyncssh and asyncio have the same format.
Tracebacks are Python's plain ones: fancier ones print local variables, and some of those are keys.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from tunneld.core.printable import escaped
from tunneld.systemd.journal import Journal, is_journal
from tunneld.systemd.journal_entry import entry


def configure(format: str | None = None, *, stream: TextIO | None = None, debug: bool = False) -> None:
    """Set up the log of this process.

    Args:
        format: `console`, `logfmt` or `json`. None: sentences for the journal, if `stream` leads there; else `console`
            on a terminal, and `logfmt` anywhere else.
        stream: where the lines go. None: stderr.
        debug: whether events of the level `debug` are logged too.
    """
    stream = sys.stderr if stream is None else stream
    journal = is_journal(stream)
    chosen = format or ("console" if stream.isatty() else "logfmt")
    shared = _shared(None if journal else chosen)
    ours: list[Processor] = [*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=ours,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    output = logging.StreamHandler(stream)
    if journal and format is None:
        output = JournalOutput(stream, _formatter(shared, [structlog.processors.format_exc_info, entry]))
    output.setFormatter(_formatter(shared, _ending(chosen, stream)))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.WARNING)
    logging.getLogger("tunneld").setLevel(logging.DEBUG)  # structlog has already filtered by level
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # below that, it logs the life of each channel
    logging.raiseExceptions = False  # a closed terminal must not end the tunnels


class JournalOutput(logging.StreamHandler[TextIO]):
    """Writes native entries for the journal. An entry that the journal does not take goes to `stream`, as a line.

    `stream` leads to the journal as well. systemd keeps it open while the journal restarts.
    """

    def __init__(self, stream: TextIO, native: logging.Formatter) -> None:
        super().__init__(stream)
        self._native = native
        self._journal = Journal()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._journal.write(self._native.format(record).encode("utf-8", "surrogateescape")):
            super().emit(record)

    def close(self) -> None:
        self._journal.close()
        super().close()


def logger() -> FilteringBoundLogger:
    """The logger of the daemon, as configure() has set it up."""
    log: FilteringBoundLogger = structlog.get_logger("tunneld")
    return log


def _formatter(shared: list[Processor], ending: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending], foreign_pre_chain=shared
    )


def _shared(format: str | None) -> list[Processor]:
    """What happens to each event, ours or a library's. None: without a time, which the journal knows better."""
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    if format is not None:
        shared.append(
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if format == "console" else "iso", utc=format != "console")
        )
    return [*shared, _rounded, _printable]


def _ending(format: str, stream: TextIO) -> list[Processor]:
    """What makes a line of an event."""
    if format == "console":
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain, sort_keys=False)]
    if format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    order = ["timestamp", "level", "event", "tunnel"]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.LogfmtRenderer(key_order=order, drop_missing=True),
    ]


def _rounded(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Numbers are seconds, and nobody reads more than tenths."""
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in event.items()}


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A relay's own words go into the log. Escape sequences in them must not reach a terminal."""
    return {key: escaped(value) if isinstance(value, str) else value for key, value in event.items()}
