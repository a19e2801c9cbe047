"""Configuration: small frozen models, composed. Environment over default; the command line over both.

Every field is read from `ALLAPRIMA_<GROUP>__<FIELD>`, such as `ALLAPRIMA_SERVER__PORT`; lists are JSON. A variable
that names no field is refused, so that a typing error can't pass for a setting.
"""

import json
import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from allaprima.domain.billing import Price
from allaprima.errors import SettingsError

PREFIX = "ALLAPRIMA_"

#: An image is flagged when its score is at least this. The authors call a score above 0.8 highly probable to be
#: pornographic, one below 0.2 very likely safe, and leave those between to the user (yahoo/open_nsfw, README.md).
#: Between lie many harmless images: of 150 of nothing but skin-coloured ellipses, 0.8 flags 3, and 0.5 flags 14.
DEFAULT_SAFETY_THRESHOLD = 0.8


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        try:
            ip_network(network, strict=False)
        except ValueError as exc:
            raise ValueError(f"{network!r} is no IP address or network, such as 10.0.0.7 or 10.0.0.0/8") from exc
    return value


class ServerSettings(_Group):
    """The HTTP side."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    public_url: str | None = Field(None, description="What image URLs start with; else the request's own host.")
    allowed_hosts: tuple[str, ...] = Field(("*",), description="Host names that image URLs may be built on.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses whose X-Forwarded headers are trusted.")
    cors_origins: tuple[str, ...] = Field(("*",), description="Origins whose pages may call the API.")
    max_body_bytes: int = Field(1024 * 1024, ge=1024, description="Largest request body.")
    requests_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="Generation requests that a key may make in a minute; default: any."
    )
    wait_s: float = Field(280.0, gt=0, description="Longest wait of a synchronous request, in seconds.")
    receive_s: float = Field(20.0, gt=0, description="Longest time that a client may take to send a request's body.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or JSON; no prompt is in them.")
    traces_endpoint: str | None = Field(
        None, description="URL of an OpenTelemetry collector's OTLP/HTTP traces; needs the extra `traces`."
    )
    metrics_token: str | None = Field(
        None,
        min_length=8,
        description="Bearer token that reads /metrics from anywhere; without one only this machine may.",
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
    """What survives a restart."""

    data_dir: Path = Field(Path("data"), description="Folder of the database, the images and the secrets.")
    image_ttl_s: float = Field(7 * 86400.0, gt=0, description="Seconds an image is kept.")
    max_image_ttl_s: float = Field(
        366 * 86400.0, gt=0, description="Longest time for which a request may keep an image."
    )
    sweep_every_s: float = Field(600.0, gt=0, description="Seconds between removals of expired images.")


class EngineSettings(_Group):
    """The model side."""

    models: tuple[str, ...] = Field(
        (), description="Folders or files of models to load in addition to the built-in one."
    )
    tokenizer_dir: Path | None = Field(
        None, description="Folder of FLUX's tokenizers, for models whose files bring none."
    )
    has_fallback: bool = Field(
        default=True, description="Whether the built-in model serves known models that are not here."
    )
    weights_dir: Path | None = Field(
        None, description="Folder of pulled models and of packed weights; default: the user's cache folder."
    )
    precision: Literal["fp32", "bf16", "fp8", "int8", "int8wo", "int4wo"] | None = Field(
        None, description="Number format of the models' weights (quantization); default: bf16 where it fits, else int8."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the models run: cpu or cuda.")
    threads: int | None = Field(None, ge=1, description="CPU threads of the engine; default: all cores.")
    safety_threshold: float = Field(
        DEFAULT_SAFETY_THRESHOLD, ge=0, le=1, description="Score from which an image is withheld."
    )
    lowest_safety_threshold: float = Field(0.0, ge=0, le=1, description="Strictest threshold that a request may ask.")
    highest_safety_threshold: float = Field(1.0, ge=0, le=1, description="Laxest threshold that a key or request has.")
    safety_is_optional: bool = Field(default=True, description="Whether a request may switch the checker off.")
    max_side: int = Field(1536, ge=64, le=1536, description="Longest side of an image, in pixels.")
    max_steps: int = Field(12, ge=1, le=12, description="Most steps of a request.")
    max_images: int = Field(4, ge=1, le=4, description="Most images of a request.")
    queue_size: int = Field(256, ge=1, description="Jobs that may be unfinished before requests are refused.")


class BillingSettings(_Group):
    """What use costs: nothing, unless a price is set; then accounts need credits."""

    prices: dict[str, Price] = Field(
        default_factory=dict,
        description='Prices by model, such as `{"flux/schnell": {"megapixel": 0.003}}`; also `megapixel_step` and '
        "`cached_share`.",
    )


class WebhookSettings(_Group):
    """Where webhooks may go."""

    allowed_networks: tuple[str, ...] = Field(
        (), description="Private networks that webhooks may be sent into, on any port."
    )

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(value)


class Settings(BaseSettings):
    """The whole configuration."""

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
    """Return the settings: the given values by group over the environment over the defaults.

    Raises `SettingsError` naming every key and value that can't be used.
    """
    known = {
        f"{PREFIX}{group}__{name}".upper(): field.annotation
        for group, info in Settings.model_fields.items()
        for name, field in (info.annotation.model_fields if info.annotation else {}).items()
    }
    stray = [name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known]
    # A client's address and key may be in the environment too, and the kernels read a variable of their own.
    stray = [name for name in stray if name.upper() not in (f"{PREFIX}URL", f"{PREFIX}KEY", f"{PREFIX}KERNELS")]
    if stray:
        raise SettingsError(f"unknown setting {', '.join(sorted(stray))}; known are {', '.join(sorted(known))}")
    for kind, example in ((tuple, 'list, such as ["a", "b"]'), (dict, 'object, such as {"a": {}}')):
        given = {name: value for name, value in os.environ.items() if get_origin(known.get(name.upper())) is kind}
        if unread := [f"{name} = {value!r}" for name, value in given.items() if not _is_json(value)]:
            raise SettingsError(f"{'; '.join(unread)}: must be a JSON {example}")
    try:
        return Settings(**groups)  # type: ignore[arg-type]
    except ValidationError as exc:
        lines = [f"{'.'.join(map(str, error['loc']))} = {error['input']!r}: {error['msg']}" for error in exc.errors()]
        raise SettingsError("; ".join(lines)) from exc


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
