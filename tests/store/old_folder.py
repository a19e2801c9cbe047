"""A data folder as the code before workers left it: the schema 0005_starred_images, with rows in every table."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER
from allaprima.store.secret import SECRET_FILE
from tests.clock import NOW

REVISION = "0005_starred_images"
SECRET = bytes(range(32))
#: The bytes of the images by file name. All belong to the succeeded job.
IMAGES = {
    "01990000-0000-7000-8000-000000000001.png": b"the first image",
    "01990000-0000-7000-8000-000000000002.png": b"the second image",
    "01990000-0000-7000-8000-000000000003.png": b"the third image",
}
STATES = ("queued", "running", "succeeded", "failed", "cancelled")

_REQUEST = json.dumps({"prompt": 'a "boat"\n\u00e9\U0001f6a2', "seed": 2**63 - 1, "model": "allaprima/sketch"})
_OPTIONS = json.dumps({"model": "allaprima/sketch"})
_TIMINGS = {"text": 0.1, "steps": [0.1, 0.1], "decode": 0.1, "safety": 0.1, "encode": 0.1}
_RESULT = json.dumps(
    {"model": "allaprima/sketch", "revision": "5" * 40, "precision": "fp32", "credits": 300, "timings": _TIMINGS}
)

_ROWS = f"""
INSERT INTO accounts VALUES ('account', 'Caf\u00e9', {NOW}, 9007199254740993, 700, 'whsec_bmV3', 'whsec_b2xk',
    {NOW + 60}, 46);
INSERT INTO accounts VALUES ('other', 'empty', {NOW + 0.1}, 0, 0, NULL, NULL, NULL, 0);
INSERT INTO api_keys VALUES ('key', 'account', 'first', 'abcd1234', '{"a" * 64}', {NOW}, NULL, {NOW}, 0, 0,
    '["model:image"]', 'month', 5000, 60, 0.5, {NOW}, 300, 700, {NOW}, 300);
INSERT INTO api_keys VALUES ('revoked', 'account', NULL, 'efgh5678', '{"b" * 64}', {NOW}, {NOW + 1}, {NOW}, 1, 1,
    NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0);
INSERT INTO idempotency_records VALUES ('account', 'a key of the client', 'fingerprint', 'job-queued', {NOW});
INSERT INTO ledger VALUES ('entry-1', 'account', {NOW}, 'topup', 'payment', 9007199254741293, NULL, NULL, NULL, 'cash');
INSERT INTO ledger VALUES ('entry-2', 'account', {NOW}, 'usage', 'generation', 300, 'allaprima/sketch', 'job-succeeded',
    3, NULL);
INSERT INTO webhook_endpoints VALUES ('endpoint', 'account', 'https://client.example/hook', {NOW}, NULL, NULL);
INSERT INTO webhook_endpoints VALUES ('gone', 'account', 'https://gone.example/hook', {NOW}, {NOW + 1},
    'it answered 410');
INSERT INTO webhook_deliveries VALUES ('message-1', 'account', 'endpoint', 'job-succeeded', 'job.succeeded', {NOW}, 1,
    NULL, {NOW + 1}, NULL);
INSERT INTO webhook_deliveries VALUES ('message-2', 'account', 'endpoint', 'job-failed', 'job.failed', {NOW}, 2,
    {NOW + 9}, NULL, 'HTTP 500');
INSERT INTO usage VALUES ('job-succeeded', 'account', 'key', 'allaprima/sketch', 3, 0.75, 300, {NOW},
    {int(NOW) // 900 * 900}, 'succeeded', 'api', 'client-1', 3.25, 1.1);
INSERT INTO usage_buckets VALUES ('account', {int(NOW) // 900 * 900}, 'key', 'allaprima/sketch', 1, 0, 1, 3, 0.75, 300,
    1.1);
INSERT INTO clock VALUES ('boot', {NOW - 1000.5}, 3);
"""  # noqa: S608 - constants


def write_old_folder(folder: Path) -> Path:
    """Write the folder; return it."""
    # That module imports this one.
    from tests.store.test_migrations import build

    (folder / IMAGES_FOLDER).mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / SECRET_FILE).write_bytes(SECRET)
    build(folder / DATABASE_FILE, REVISION)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        raw.executescript(f"BEGIN;{_ROWS}COMMIT;")
        for number, state in enumerate(STATES):
            _write_job(raw, number, state)
        for number, (name, data) in enumerate(IMAGES.items()):
            (folder / IMAGES_FOLDER / name).write_bytes(data)
            _write_image(raw, number, name, data)
        raw.execute("INSERT INTO cached_results VALUES ('account', 'fingerprint', 'job-succeeded')")
        raw.commit()
    return folder


def _write_job(raw: sqlite3.Connection, number: int, state: str) -> None:
    is_started, is_ended = state != "queued", state not in ("queued", "running")
    values = {
        "id": f"job-{state}",
        "account_id": "account",
        "key_id": "key",
        "state": state,
        "request": _REQUEST,
        "created_at": NOW + number,
        "started_at": NOW + 10 if is_started else None,
        "finished_at": NOW + 20 if is_ended else None,
        "attempt": int(is_started),
        "error_code": "generation_failed" if state == "failed" else None,
        "error_message": "the engine failed" if state == "failed" else None,
        "result": _RESULT if state == "succeeded" else None,
        "crashes": 0,
        "options": _OPTIONS,
        "group_id": "group",
        "queue": 0,
        "priority": 1,
        "turn": NOW + number / 3,
        "predicted_s": 1.5,
        "start_by": NOW + 3600 if state == "queued" else None,
        "leased_until": NOW + 30 if state == "running" else None,
        "cancel_asked_at": NOW if state == "cancelled" else None,
        "held": 0 if is_ended else 350,
    }
    names, slots = ", ".join(values), ", ".join(f":{name}" for name in values)
    raw.execute(f"INSERT INTO jobs ({names}) VALUES ({slots})", values)  # noqa: S608 - names above


def _write_image(raw: sqlite3.Connection, number: int, name: str, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    raw.execute(
        "INSERT INTO images VALUES (?, 'job-succeeded', ?, ?, 'image/png', ?, ?, ?, 0.25, 0, ?, ?, 'account', 'key', "
        "'a boat', ?)",
        (name.partition(".")[0], number, name, len(data), digest, str(2**63 - 1), NOW, NOW + 1e9, number % 2),
    )
