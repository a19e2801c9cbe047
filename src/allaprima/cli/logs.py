"""What the server says on stderr: lines for people, or one JSON object a line. Prompts and keys are in neither."""

import logging
from typing import Literal

import structlog

#: Logs every exchange; too much for a terminal.
ACCESS_LOGGER = "allaprima.access"


def configure_logs(form: Literal["text", "json"]) -> None:
    """Set up logging for the process."""
    handler = logging.StreamHandler()
    if form == "json":
        shared: list[structlog.types.Processor] = [
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without the variables of each frame: there are prompts and keys among them.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
        ]
        remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared, processors=[remove, structlog.processors.JSONRenderer()]
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logging.getLogger(ACCESS_LOGGER).setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("alembic", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
