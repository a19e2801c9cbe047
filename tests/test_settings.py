"""Settings from the environment: each is read, and an invalid or unknown one is refused by name."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from allaprima.errors import SettingsError
from allaprima.settings import Settings, load_settings


def test_settings_have_defaults() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.store.data_dir == Path("data")
    assert settings.engine.has_fallback


def test_every_field_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "SERVER__HOST": "0.0.0.0",  # noqa: S104 - only read
        "SERVER__PORT": "9000",
        "SERVER__PUBLIC_URL": "https://images.example/",
        "SERVER__ALLOWED_HOSTS": '["images.example"]',
        "SERVER__REQUIRES_KEY": "false",
        "SERVER__TRUSTED_PROXIES": '["10.0.0.0/8", "::1"]',
        "SERVER__CORS_ORIGINS": "[]",
        "SERVER__MAX_BODY_BYTES": "2048",
        "SERVER__REQUESTS_PER_MINUTE": "600",
        "SERVER__WAIT_S": "1.5",
        "SERVER__RECEIVE_S": "2.5",
        "SERVER__MAX_CONNECTIONS_PER_ADDRESS": "50",
        "SERVER__METRICS_TOKEN": "scrape me",
        "SERVER__LOG_FORMAT": "json",
        "SERVER__TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces",
        "STORE__MAX_IMAGE_TTL_S": "120",
        "ENGINE__LOWEST_SAFETY_THRESHOLD": "0.25",
        "ENGINE__HIGHEST_SAFETY_THRESHOLD": "0.75",
        "ENGINE__SAFETY_IS_OPTIONAL": "false",
        "BILLING__PRICES": '{"flux/schnell": {"megapixel": 0.003}}',
        "WEBHOOKS__ALLOWED_NETWORKS": '["10.0.0.0/8"]',
        "STORE__DATA_DIR": "/tmp/elsewhere",  # noqa: S108 - only read
        "STORE__IMAGE_TTL_S": "60",
        "STORE__JOB_TTL_S": "3600",
        "STORE__DATABASE_URL": "postgresql://allaprima@db.example/allaprima",
        "STORE__HINTS_URL": "postgresql://allaprima@db.example:5433/allaprima",
        "STORE__POOLED": "true",
        "STORE__BUCKET": "s3://images/a?endpoint=http://127.0.0.1:8333&region=eu-central-1",
        "STORE__REDIRECTS_LINKS": "true",
        "STORE__MAX_STARRED_BYTES": "1000",
        "STORE__MAX_IMAGE_BYTES": "2000",
        "STORE__SWEEP_EVERY_S": "5",
        "ENGINE__MODELS": '["/models/schnell"]',
        "ENGINE__TOKENIZER_DIR": "/models/tokenizers",
        "ENGINE__WEIGHTS_DIR": "/weights",
        "ENGINE__PRECISION": "int8",
        "ENGINE__HAS_FALLBACK": "false",
        "ENGINE__DEVICE": "cuda",
        "ENGINE__THREADS": "2",
        "ENGINE__SAFETY_THRESHOLD": "0.5",
        "ENGINE__MAX_SIDE": "512",
        "ENGINE__MAX_STEPS": "3",
        "ENGINE__MAX_IMAGES": "2",
        "ENGINE__QUEUE_SIZE": "7",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"ALLAPRIMA_{name}", value)
    settings = load_settings()
    assert settings.server.model_dump() == {
        "host": "0.0.0.0",  # noqa: S104 - only read
        "port": 9000,
        "public_url": "https://images.example",
        "allowed_hosts": ("images.example",),
        "requires_key": False,
        "trusted_proxies": ("10.0.0.0/8", "::1"),
        "cors_origins": (),
        "max_body_bytes": 2048,
        "requests_per_minute": 600,
        "wait_s": 1.5,
        "receive_s": 2.5,
        "max_connections_per_address": 50,
        "log_format": "json",
        "traces_endpoint": "http://127.0.0.1:4318/v1/traces",
        "metrics_token": "scrape me",
    }
    assert settings.store.model_dump() == {
        "data_dir": Path("/tmp/elsewhere"),  # noqa: S108 - only read
        "database_url": SecretStr("postgresql://allaprima@db.example/allaprima"),
        "pooled": True,
        "hints_url": SecretStr("postgresql://allaprima@db.example:5433/allaprima"),
        "image_ttl_s": 60,
        "max_image_ttl_s": 120,
        "job_ttl_s": 3600,
        "bucket": "s3://images/a?endpoint=http://127.0.0.1:8333&region=eu-central-1",
        "redirects_links": True,
        "max_starred_bytes": 1000,
        "max_image_bytes": 2000,
        "sweep_every_s": 5,
    }
    assert settings.engine.model_dump() == {
        "models": ("/models/schnell",),
        "tokenizer_dir": Path("/models/tokenizers"),
        "weights_dir": Path("/weights"),
        "precision": "int8",
        "has_fallback": False,
        "device": "cuda",
        "threads": 2,
        "safety_threshold": 0.5,
        "lowest_safety_threshold": 0.25,
        "highest_safety_threshold": 0.75,
        "safety_is_optional": False,
        "max_side": 512,
        "max_steps": 3,
        "max_images": 2,
        "queue_size": 7,
    }
    assert settings.billing.model_dump() == {
        "prices": {"flux/schnell": {"megapixel": 0.003, "megapixel_step": 0, "cached_share": 0}}
    }
    assert settings.webhooks.model_dump() == {"allowed_networks": ("10.0.0.0/8",)}
    read = {f"{group}__{name}".upper() for group, fields in settings.model_dump().items() for name in fields}
    assert read == set(variables)


def test_variable_changes_only_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PORT", "0")
    assert load_settings().server == Settings().server.model_copy(update={"port": 0})


def test_arguments_override_environment_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PORT", "9000")
    monkeypatch.setenv("ALLAPRIMA_SERVER__HOST", "192.0.2.1")
    settings = load_settings(server={"port": 9001})
    assert (settings.server.port, settings.server.host) == (9001, "192.0.2.1")


def test_variable_names_ignore_letter_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("allaprima_server__port", "9000")
    assert load_settings().server.port == 9000


@pytest.mark.parametrize(
    "name",
    [
        "ALLAPRIMA_PORT", "ALLAPRIMA_SERVER_PORT", "ALLAPRIMA_SERVER__PROT", "ALLAPRIMA_SERVER", "ALLAPRIMA_SERVER__",
        "ALLAPRIMA_SERVER__PORT__X", "allaprima_serve__port", "ALLAPRIMA_", "ALLAPRIMA_KEYS",
    ],
)  # fmt: skip
def test_unknown_variable_is_refused_with_a_known_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert f"unknown setting {name};" in str(caught.value)
    assert re.search("ALLAPRIMA_(SERVER__PORT|KEY)\\b", str(caught.value))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SERVR__PORT", "SERVER__PORT"),
        ("SERVER_PORT", "SERVER__PORT"),
        ("PORT", "SERVER__PORT"),
        ("DATA_DIR", "STORE__DATA_DIR"),
        ("engine__devise", "ENGINE__DEVICE"),
        ("KEYS", "KEY"),
    ],
)
def test_refusal_of_misspelled_variable_names_the_nearest_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.setenv(f"ALLAPRIMA_{name}", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"unknown setting ALLAPRIMA_{name}; did you mean ALLAPRIMA_{nearest}?"


def test_refusal_of_other_variable_says_how_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_NOTHING_LIKE_IT", "1")
    with pytest.raises(SettingsError, match="the groups are server, store, engine, billing, webhooks"):
        load_settings()


def test_refusal_names_every_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_B", "1")
    monkeypatch.setenv("ALLAPRIMA_A", "1")
    with pytest.raises(SettingsError, match="unknown setting ALLAPRIMA_A, ALLAPRIMA_B;"):
        load_settings()


def test_client_address_and_api_key_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("ALLAPRIMA_KEY", "ap_" + "0" * 36)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value", "key", "allowed"),
    [
        ("SERVER__PORT", "70000", "server.port = '70000'", "65535"),
        ("SERVER__PORT", "-1", "server.port = '-1'", "0"),
        ("SERVER__PORT", "http", "server.port = 'http'", "integer"),
        ("SERVER__PUBLIC_URL", "images.example", "server.public_url = 'images.example'", "http:// or https://"),
        ("SERVER__WAIT_S", "0", "server.wait_s = '0'", "greater than 0"),
        ("SERVER__WAIT_S", "inf", "server.wait_s = 'inf'", "finite"),
        ("SERVER__WAIT_S", "nan", "server.wait_s = 'nan'", "finite"),
        ("SERVER__MAX_BODY_BYTES", "10", "server.max_body_bytes = '10'", "1024"),
        ("SERVER__TRUSTED_PROXIES", '["localhost"]', "server.trusted_proxies = ['localhost']", "address"),
        ("SERVER__TRUSTED_PROXIES", '["10.0.0.0/99"]', "server.trusted_proxies = ['10.0.0.0/99']", "address"),
        ("SERVER__CORS_ORIGINS", "*", "ALLAPRIMA_SERVER__CORS_ORIGINS = '*'", "a JSON list"),
        ("STORE__IMAGE_TTL_S", "inf", "store.image_ttl_s = 'inf'", "finite"),
        ("STORE__IMAGE_TTL_S", "-5", "store.image_ttl_s = '-5'", "greater than 0"),
        ("ENGINE__HAS_FALLBACK", "perhaps", "engine.has_fallback = 'perhaps'", "boolean"),
        ("ENGINE__THREADS", "0", "engine.threads = '0'", "greater than or equal to 1"),
        ("ENGINE__SAFETY_THRESHOLD", "1.5", "engine.safety_threshold = '1.5'", "less than or equal to 1"),
        ("ENGINE__MODELS", "/a", "ALLAPRIMA_ENGINE__MODELS = '/a'", "a JSON list"),
        ("ENGINE__MODELS", "5", "engine.models = 5", "tuple"),
    ],
)
def test_invalid_value_is_refused_with_allowed_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str, allowed: str
) -> None:
    monkeypatch.setenv(f"ALLAPRIMA_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert key in str(caught.value)
    assert allowed in str(caught.value)


def test_refusal_names_every_invalid_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_SERVER__PORT", "x")
    monkeypatch.setenv("ALLAPRIMA_ENGINE__QUEUE_SIZE", "0")
    with pytest.raises(SettingsError) as caught:
        load_settings(store={"sweep_every_s": 0})
    for key in ("server.port", "engine.queue_size", "store.sweep_every_s"):
        assert key in str(caught.value)


def test_unknown_field_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"server\.prot"):
        load_settings(server={"prot": 1})


def test_settings_are_immutable() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.server.port = 1


def test_every_setting_has_description() -> None:
    for info in Settings.model_fields.values():
        assert info.annotation
        for name, field in info.annotation.model_fields.items():
            assert field.description, name
            assert field.description.endswith(".")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("images", "must start with s3://"),
        ("s3:/images", "must start with s3://"),
        ("s3://", "has no bucket name"),
        ("s3:///prefix", "has no bucket name"),
        ("s3://No", "invalid bucket name"),
        ("s3://images/a//b", "invalid prefix"),
        ("s3://images/../b", "invalid prefix"),
        ("s3://images?endpont=http://a", "unknown parameter (endpont); s3 takes endpoint and region"),
        ("s3://images?access_key_id=hunter2", "unknown parameter (access_key_id)"),
        ("s3://images?region=eu&region=us", "a parameter twice"),
        ("s3://images?region=", "invalid region"),
        ("s3://images?endpoint=127.0.0.1:8333", "invalid endpoint"),
        ("s3://images?endpoint=http://me:hunter2@a", "invalid endpoint"),
        ("s3://images?hunter2", "invalid query"),
        ("s3://me:hunter2@images", "must contain no credentials"),
        ("gs://images?region=eu", "unknown parameter (region); gs takes none"),
    ],
)
def test_invalid_bucket_is_refused_by_setting_without_its_value(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__BUCKET", url)
    with pytest.raises(SettingsError, match=f"^ALLAPRIMA_STORE__BUCKET .*{re.escape(problem)}") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://me:hunter2@host/db", "must look like postgresql://user@host:5432/database"),
        ("postgresql://me:hunter2@host", "names no database"),
        ("postgresql://me:hunt/er2@host/db", "percent-encoded"),
    ],
)
def test_invalid_database_url_is_refused_by_setting_without_its_value(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", url)
    with pytest.raises(SettingsError, match=f"^ALLAPRIMA_STORE__DATABASE_URL .*{re.escape(problem)}") as refused:
        load_settings()
    assert "hunt" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_text_of_the_settings_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", "postgresql://me:hunter2@host/db")
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.store.model_dump())):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("database", "hints", "problem"),
    [
        (None, "postgresql://me:hunter2@db/a", "requires ALLAPRIMA_STORE__DATABASE_URL"),
        ("postgresql://db/a", "mysql://me:hunter2@db/a", "must look like postgresql://"),
        ("postgresql://db/a", "postgresql://me:hunter2@db", "names no database"),
    ],
)
def test_invalid_hints_url_is_refused_by_setting_without_its_value(
    monkeypatch: pytest.MonkeyPatch, database: str | None, hints: str, problem: str
) -> None:
    if database:
        monkeypatch.setenv("ALLAPRIMA_STORE__DATABASE_URL", database)
    monkeypatch.setenv("ALLAPRIMA_STORE__HINTS_URL", hints)
    with pytest.raises(SettingsError, match=f"^ALLAPRIMA_STORE__HINTS_URL .*{re.escape(problem)}") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)
