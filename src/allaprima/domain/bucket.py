"""The address of a bucket: `s3://bucket/prefix?endpoint=...&region=...`, `gs://bucket/prefix` or `az://container/prefix`."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

#: Query parameters by scheme.
PARAMETERS = {"s3": ("endpoint", "region"), "gs": (), "az": ()}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Where a bucket is. Credentials are no part of it."""

    #: "s3", "gs" (Google Cloud Storage) or "az" (Azure Blob Storage).
    scheme: str
    bucket: str
    #: Without slashes at its ends; may be empty.
    prefix: str = ""
    #: Base URL of an S3 server other than Amazon's.
    endpoint: str | None = None
    region: str | None = None


def parse_bucket(url: str) -> BucketAddress:
    """Return the address in a URL. Raises ValueError, whose message repeats no part of a URL with credentials."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a URL, such as s3://bucket/prefix") from None
    if parts.scheme not in PARAMETERS or not url.startswith(f"{parts.scheme}://"):
        raise ValueError("must start with s3://, gs:// or az://")
    if "@" in parts.netloc:
        raise ValueError("must contain no credentials; they are read from the environment (AWS_ACCESS_KEY_ID, ...)")
    if parts.fragment:
        raise ValueError("must contain no '#'")
    if not parts.netloc:
        raise ValueError("has no bucket name; the form is s3://bucket/prefix")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("has an invalid bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")
    prefix = parts.path.strip("/")
    if prefix and not all(_SEGMENT.fullmatch(segment) for segment in prefix.split("/")):
        raise ValueError("has an invalid prefix: letters, digits, and . _ = - within names separated by single slashes")
    parameters = _parameters(parts.scheme, parts.query)
    return BucketAddress(parts.scheme, parts.netloc, prefix, parameters.get("endpoint"), parameters.get("region"))


def _parameters(scheme: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("has an invalid query; the form is ?endpoint=...&region=...") from None
    allowed = PARAMETERS[scheme]
    if unknown := sorted({name for name, _ in pairs if name not in allowed}):
        known = " and ".join(allowed) or "none"
        # Only plain names are repeated: another text may be a part of a secret.
        shown = ", ".join(name for name in unknown if re.fullmatch(r"[a-z_]{1,40}", name)) or "one"
        raise ValueError(f"has an unknown parameter ({shown}); {scheme} takes {known}")
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ValueError("has a parameter twice")
    if "region" in parameters and not _REGION.fullmatch(parameters["region"]):
        raise ValueError("has an invalid region; one is like eu-central-1")
    if "endpoint" in parameters:
        _check_endpoint(parameters["endpoint"])
        parameters["endpoint"] = parameters["endpoint"].rstrip("/")
    return parameters


def _check_endpoint(endpoint: str) -> None:
    wrong = "has an invalid endpoint; one is like http://127.0.0.1:8333, without credentials, path or query"
    try:
        parts = urlsplit(endpoint)
        is_valid = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError(wrong) from None
    rest = (parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or any(rest) or not is_valid:
        raise ValueError(wrong)
