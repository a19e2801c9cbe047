"""allaprima: a self-hosted text-to-image API for FLUX.1 [schnell].

The floors, top to bottom, are drawn in `ARCHITECTURE.md`; imports only ever go down.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("allaprima")
