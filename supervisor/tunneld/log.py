"""The log: one event per transition, in past tense, with `tunnel=`; structlog over the standard library's handlers.

On a terminal lines are for reading, elsewhere logfmt; JSON on request; the journal gets sentences and fields of its own
(`journalctl TUNNELD_TUNNEL=pi-home`). asyncssh and asyncio say their warnings in the same format. Tracebacks are the
plain ones: others print local variables, and keys are among those.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from tunneld.systemd.journal import Journal, is_journal
from tunneld.systemd.journal_entry import entry

FORMATS = ("console", "logfmt", "json")


def configure(format: str | None = None, *, stream: TextIO | None = None, debug: bool = False) -> None:
    """Set the process's log up.

    `format` is one of FORMATS; None asks whether `stream` (stderr) is a terminal or the journal's.
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
        output = Entries(stream, _formatter(shared, [structlog.processors.format_exc_info, entry]))
    output.setFormatter(_formatter(shared, _ending(chosen, stream)))
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.WARNING)
    logging.getLogger("tunneld").setLevel(logging.DEBUG)  # structlog has filtered by then
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # below that it tells every channel's life
    logging.raiseExceptions = False  # a terminal that was closed must not end the tunnels


class Entries(logging.StreamHandler[TextIO]):
    """Native entries for the journal; if it does not take one, a line on `stream`, which leads there as well."""

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
    """The daemon's logger, as configure() set it up."""
    log: FilteringBoundLogger = structlog.get_logger("tunneld")
    return log


def _formatter(shared: list[Processor], ending: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending], foreign_pre_chain=shared
    )


def _shared(format: str | None) -> list[Processor]:
    """What happens to every event, ours or another library's. No format: no time, since the journal has a better."""
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    if format is not None:
        shared.append(
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if format == "console" else "iso", utc=format != "console")
        )
    return [*shared, _rounded, _printable]


def _ending(format: str, stream: TextIO) -> list[Processor]:
    """From an event to its line."""
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
    """Seconds to a tenth: nobody reads further."""
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in event.items()}


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A relay's own words go into the log; its escape sequences must not reach a terminal."""
    return {key: _escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
