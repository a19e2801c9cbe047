"""Configuration as small frozen models, one per group.

Environment variables override the defaults; command-line options override both. The variable of a field is
`ALLAPRIMA_<GROUP>__<FIELD>`, such as `ALLAPRIMA_SERVER__PORT`; lists are JSON. A variable that names no field is an
error, so that a misspelled name is never ignored.
"""

import json
import os
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from allaprima.domain.addresses import parse_network
from allaprima.domain.billing import Price
from allaprima.domain.bucket import parse_bucket
from allaprima.domain.database_url import check_database_url
from allaprima.errors import SettingsError

PREFIX = "ALLAPRIMA_"
#: Variables with the prefix that are no settings: a client's address and API key, and the choice of the kernels.
OTHER_VARIABLES = (f"{PREFIX}URL", f"{PREFIX}KEY", f"{PREFIX}KERNELS")
#: Likeness, 0 to 1, from which an unknown variable is taken for a misspelled one.
MIN_LIKENESS = 0.7

#: An image is flagged when its score is at least this. According to the checker's authors an image above 0.8 is unsafe
#: with high probability, one below 0.2 is most likely safe, and the user decides in between (yahoo/open_nsfw, README).
#: Many harmless images score between them: of 150 images of skin-coloured ellipses, 0.8 flags 3 and 0.5 flags 14.
DEFAULT_SAFETY_THRESHOLD = 0.8


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            parse_network(network)
        except ValueError as exc:
            raise ValueError(f"{network!r} is not an IP address or network, such as 10.0.0.7 or 10.0.0.0/8") from exc
    return value


class ServerSettings(_Group):
    """Settings of the HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    public_url: str | None = Field(
        None, description="Base URL of image links; default: the host that the request names."
    )
    allowed_hosts: tuple[str, ...] = Field(("*",), description="Host names that image links may have.")
    requires_key: bool = Field(
        default=True,
        description="Whether requests need an API key; false only on a loopback address with a single account "
        "(`allaprima serve --no-auth`).",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="IP addresses or networks of proxies whose X-Forwarded headers are trusted."
    )
    cors_origins: tuple[str, ...] = Field(("*",), description="Origins whose web pages may call the API.")
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Generation requests that a key may make per minute; default: unlimited."
    )
    wait_s: float = Field(
        280.0, gt=0, description="Longest time that a synchronous request waits for its images, in seconds."
    )
    receive_s: float = Field(
        20.0, gt=0, description="Longest time to receive the head or the body of a request, in seconds."
    )
    max_connections_per_address: int | None = Field(
        None,
        ge=1,
        description="Largest number of connections of one IP address, except trusted proxies; default: unlimited.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: text or json. No prompt is logged."
    )
    traces_endpoint: str | None = Field(
        None, description="URL to which traces are sent by OTLP over HTTP; requires the extra `traces`."
    )
    metrics_token: str | None = Field(
        None,
        min_length=8,
        description="Bearer token that /metrics requires; without one, /metrics answers this machine only.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/") if value else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)


class StoreSettings(_Group):
    """Settings of the data folder, the database and the images."""

    data_dir: Path = Field(Path("data"), description="Folder of the database, the images and the signing secret.")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database, such as `postgresql://user@host:5432/database`; a password may be in it, in "
        "`PGPASSWORD` or in a pass file. Requires the extra `postgres`. Default: a SQLite file in the data folder.",
    )
    pooled: bool = Field(
        default=False,
        description="Whether the database's URL leads through PgBouncer in transaction mode, where neither prepared "
        "statements nor settings of a session last.",
    )
    hints_url: SecretStr | None = Field(
        None,
        description="URL of the same database without PgBouncer, which passes no notifications on: the processes tell "
        "each other at once what happened to a job. Default: the database's URL; if that is pooled, they poll.",
    )
    bucket: str | None = Field(
        None,
        description="Bucket of the images, such as `s3://bucket/prefix?endpoint=https://s3.example&region=eu-central-1`"
        "; credentials are read from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Default: the data folder.",
    )
    redirects_links: bool = Field(
        default=False,
        description="Whether links to images redirect to the bucket, by URLs that are valid for 60 seconds even if the "
        "image is deleted; otherwise the server sends the images.",
    )
    image_ttl_s: float = Field(7 * 86400.0, gt=0, description="How long an image is stored, in seconds.")
    max_image_ttl_s: float = Field(
        366 * 86400.0, gt=0, description="Longest storage time that a request may ask for, in seconds."
    )
    job_ttl_s: float | None = Field(
        None,
        gt=0,
        description="How long a finished job is stored, in seconds; default: until a client deletes it. Its images end "
        "with it; its usage and its charge remain.",
    )
    max_starred_bytes: int = Field(
        10 * 2**30, ge=0, description="Most bytes of an account's starred images, which never expire."
    )
    max_image_bytes: int | None = Field(
        None,
        ge=1,
        description="Most bytes of all images; at this size new requests are refused. Default: unlimited.",
    )
    sweep_every_s: float = Field(600.0, gt=0, description="Time between two removals of expired images, in seconds.")

    @field_validator("database_url")
    @classmethod
    def _is_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
        return value

    @field_validator("hints_url")
    @classmethod
    def _is_hints_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
            if info.data.get("database_url", value) is None:
                raise ValueError(f"requires {PREFIX}STORE__DATABASE_URL")
        return value

    @field_validator("bucket")
    @classmethod
    def _is_bucket(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bucket(value)
        return value


class EngineSettings(_Group):
    """Settings of the models, and the operator's limits on requests."""

    models: tuple[str, ...] = Field(
        (),
        description="Models to load in addition to the built-in one: folders or files, as `PATH` or `NAME=PATH`.",
    )
    tokenizer_dir: Path | None = Field(
        None, description="Folder of FLUX's tokenizers, instead of the model's own or the package's."
    )
    has_fallback: bool = Field(
        default=True, description="Whether the built-in model serves requests for known models that are not loaded."
    )
    weights_dir: Path | None = Field(
        None, description="Folder of downloaded models and packed weights; default: the user's cache folder."
    )
    precision: Literal["fp32", "bf16", "fp8", "int8", "int8wo", "int4wo"] | None = Field(
        None, description="Number format of the models' weights (quantization); default: bf16 if it fits, else int8."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device that runs the models: auto (a GPU if torch finds one), cpu or cuda."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of the engine; default: all cores.")
    safety_threshold: float = Field(
        DEFAULT_SAFETY_THRESHOLD, ge=0, le=1, description="Safety score from which an image is withheld."
    )
    lowest_safety_threshold: float = Field(0.0, ge=0, le=1, description="Lowest (strictest) threshold of a request.")
    highest_safety_threshold: float = Field(1.0, ge=0, le=1, description="Highest threshold of a key or request.")
    safety_is_optional: bool = Field(default=True, description="Whether a request may disable the safety checker.")
    max_side: int = Field(1536, ge=64, le=1536, description="Longest side of an image, in pixels.")
    max_steps: int = Field(12, ge=1, le=12, description="Largest number of steps per request.")
    max_images: int = Field(4, ge=1, le=4, description="Largest number of images per request.")
    queue_size: int = Field(256, ge=1, description="Largest number of unfinished jobs; further requests are refused.")

    @field_validator("device", mode="before")
    @classmethod
    def _is_supported(cls, value: object) -> object:
        if value == "mps":
            raise ValueError("mps (Apple's GPUs) was never tried and is not supported; use cpu")
        return value


class BillingSettings(_Group):
    """Prices. Without any, images are free; with a price, an account needs credits."""

    prices: dict[str, Price] = Field(
        default_factory=dict,
        description='Prices in US dollars by model, such as `{"flux/schnell": {"megapixel": 0.003}}`. A price may also '
        "have `megapixel_step`, and `cached_share` from 0 to 1.",
    )


class WebhookSettings(_Group):
    """Settings of webhooks."""

    allowed_networks: tuple[str, ...] = Field(
        (), description="Private networks to which webhooks may be sent, on any port."
    )

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    engine: EngineSettings = EngineSettings()
    billing: BillingSettings = BillingSettings()
    webhooks: WebhookSettings = WebhookSettings()


def load_settings(**groups: dict[str, Any]) -> Settings:
    """Return the settings. The given values override the environment, which overrides the defaults.

    groups: values by field name, one dict per group. Raises `SettingsError`, which names every invalid key and value.
    """
    known = {
        f"{PREFIX}{group}__{name}".upper(): field.annotation
        for group, info in Settings.model_fields.items()
        for name, field in (info.annotation.model_fields if info.annotation else {}).items()
    }
    stray = [name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known]
    stray = [name for name in stray if name.upper() not in OTHER_VARIABLES]
    if stray:
        raise SettingsError(f"unknown setting {', '.join(sorted(stray))}; {_hint(stray, [*known, *OTHER_VARIABLES])}")
    for kind, example in ((tuple, 'list, such as ["a", "b"]'), (dict, 'object, such as {"a": {}}')):
        given = {name: value for name, value in os.environ.items() if get_origin(known.get(name.upper())) is kind}
        if unread := [f"{name} = {value!r}" for name, value in given.items() if not _is_json(value)]:
            raise SettingsError(f"{'; '.join(unread)}: must be a JSON {example}")
    try:
        return Settings(**groups)  # type: ignore[arg-type]
    except ValidationError as exc:
        # The cause is not kept, since its text repeats the values.
        raise SettingsError("; ".join(map(_problem, exc.errors()))) from None


def _problem(error: Any) -> str:
    """Return the key, the value and the problem of an invalid setting. Some URLs may contain a password."""
    key, words = ".".join(map(str, error["loc"])), _words(error["msg"])
    if key in ("store.bucket", "store.database_url", "store.hints_url"):
        return f"{PREFIX}{key.replace('.', '__').upper()} {words}"
    return f"{key} = {error['input']!r}: {words}"


def _words(message: str) -> str:
    """Return a message of the library that checks values, as a clause of a sentence."""
    clause = message.removeprefix("Value error, ").partition(", unable to parse")[0]
    return clause.replace("Input should be", "must be")


def _hint(stray: list[str], known: list[str]) -> str:
    """Return which known variables unknown ones may stand for, or how known ones are named."""
    near = [found for name in sorted(stray) for found in [_nearest(name.upper(), known)] if found is not None]
    if near:
        return f"did you mean {' and '.join(dict.fromkeys(near))}?"
    groups = ", ".join(Settings.model_fields)
    return (
        f"a setting is {PREFIX}<GROUP>__<FIELD>, such as {PREFIX}SERVER__PORT; the groups are {groups}, and "
        "docs/reference/settings.md lists all settings"
    )


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the known variable whose name, or whose field, is most like a name; None if none is."""

    def likeness(other: str) -> float:
        given, path = name.removeprefix(PREFIX).rstrip("_"), other.removeprefix(PREFIX)
        return max(SequenceMatcher(None, given, part).ratio() for part in (path, path.rpartition("__")[2]))

    best = max(known, key=likeness)
    return best if likeness(best) >= MIN_LIKENESS else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
