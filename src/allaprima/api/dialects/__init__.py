"""Wire formats, one module or package each, and the table of them."""

from allaprima.api.dialects.aiml.dialect import AimlDialect
from allaprima.api.dialects.base import Dialect

AIML = AimlDialect()

#: By name; the first is the default.
DIALECTS: dict[str, Dialect] = {AIML.name: AIML}

__all__ = ["AIML", "DIALECTS", "Dialect"]
