"""allaprima: a self-hosted text-to-image API for FLUX.1 [schnell].

The floors, top to bottom, are drawn in `ARCHITECTURE.md`; imports only ever go down.
"""

__all__ = ["__version__"]

#: The version of the installed package.
__version__: str


def __getattr__(name: str) -> str:
    # The import of the metadata takes a tenth of the start of a command.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("allaprima")
