"""The log format of every process: one line per event on stderr, with a name and fields."""

import logging
import sys

import structlog


def configure(process: str, *, level: str = "INFO") -> None:
    """Send structlog and the standard library's loggers through one renderer.

    `process` (web, worker, agent) is added to every line. A terminal gets colors, a pipe gets JSON.
    """
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # httpx logs whole addresses, and presigned ones are secrets.
    logging.getLogger("httpx").setLevel("WARNING")
    # alembic reports at every start that it found a PostgreSQL.
    logging.getLogger("alembic").setLevel("WARNING")
    structlog.contextvars.bind_contextvars(process=process)
