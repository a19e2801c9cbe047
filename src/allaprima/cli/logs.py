"""Logging of the server to stderr: as text, or as one JSON object per line. Logs contain no prompts and no keys."""

import logging
from typing import Literal

import structlog

#: Logs every HTTP exchange; disabled in text logs.
ACCESS_LOGGER = "allaprima.access"


def configure_logs(form: Literal["text", "json"]) -> None:
    """Configure the logging of this process. form: the format of the lines."""
    handler = logging.StreamHandler()
    if form == "json":
        shared: list[structlog.types.Processor] = [
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Local variables of the frames are omitted, because they contain prompts and keys.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        ]
        remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared, processors=[remove, structlog.processors.JSONRenderer()]
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logging.getLogger(ACCESS_LOGGER).setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("alembic", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
