"""The wire formats (dialects) of the API, one package each, and their table."""

from allaprima.api.dialects.aiml.dialect import AimlDialect
from allaprima.api.dialects.base import Dialect

AIML = AimlDialect()

#: The dialects by name.
DIALECTS: dict[str, Dialect] = {AIML.name: AIML}

__all__ = ["AIML", "DIALECTS", "Dialect"]
