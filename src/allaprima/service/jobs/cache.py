"""The result cache: the same request to the same numbers gives the same picture, so it need not be painted twice.

An account's own: nobody learns from a quick answer what a stranger asked for.
"""

import hashlib
import json

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import ModelInfo


def fingerprint(request: GenerationRequest, model: ModelInfo) -> str:
    """Return a name for all that decides a picture's bytes: the request, the weights, their precision, the kernels."""
    parts = [request.to_json(), model.revision, model.precision, model.kernels]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
