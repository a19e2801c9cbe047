"""Reads generation requests: body, headers, model, the operator's policy, and finally the key's rate limit.

A request that is invalid by itself is refused here and does not count against the rate limit. Checks that depend on the
model's tokenizer, the account or the queue follow in `service.jobs.admission`.
"""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from allaprima.api.deps import ImageKey, SettingsDep
from allaprima.api.dialects.base import ParsedBody
from allaprima.api.errors import rate_headers, set_dialect
from allaprima.api.http.body import read_object
from allaprima.api.http.idempotency import NAME, ClaimHeader, claim_of
from allaprima.api.http.request_id import client_request_id, request_id_of
from allaprima.api.v1.exchange import Exchange, ExchangeDep
from allaprima.domain.accounts import ApiKey
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import JobOptions, Submission
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.service.app import Service

#: Values of `X-Origin`, which the usage log shows as the source of a request. The first is the default.
SOURCES = ("api", "playground")
#: Dry runs that a key may make per minute. They do not count against the key's rate limit.
DRY_RUNS_PER_MINUTE = 300
START_DEADLINE = "X-Start-Deadline"
ON_DISCONNECT = "X-On-Disconnect"
MAX_DEADLINE_S = 86_400.0

DeadlineHeader = Annotated[
    str | None,
    Header(
        alias=START_DEADLINE,
        description="Seconds, at most 86400, within which generation must start; otherwise the job fails (504).",
    ),
]
DisconnectHeader = Annotated[
    str | None,
    Header(
        alias=ON_DISCONNECT,
        description="What happens to the job if the client disconnects: finish (default) or cancel.",
    ),
]


async def read_submission(
    request: Request,
    key: ImageKey,
    exchange: ExchangeDep,
    settings: SettingsDep,
    idempotency_key: ClaimHeader = None,
    start_deadline: DeadlineHeader = None,
    on_disconnect: DisconnectHeader = None,
) -> Submission:
    """Return the submission of a synchronous request. Raises `InvalidRequest` or `RateLimited`."""
    body = await read_object(request, settings)
    submission = _parse(body, key, exchange, claim_of(idempotency_key, "images", body), start_deadline)
    submission = replace(submission, cancel_on_disconnect=_cancels_on_disconnect(on_disconnect))
    if submission.claim and not submission.options.store:
        raise InvalidRequest(FieldProblem(NAME, "cannot be combined with store=false"))
    return _counted(submission, exchange)


async def read_job_submission(
    request: Request,
    key: ImageKey,
    exchange: ExchangeDep,
    settings: SettingsDep,
    idempotency_key: ClaimHeader = None,
    start_deadline: DeadlineHeader = None,
) -> Submission:
    """Return the submission of an asynchronous request. Raises `InvalidRequest` or `RateLimited`."""
    body = await read_object(request, settings)
    submission = _parse(body, key, exchange, claim_of(idempotency_key, "jobs", body), start_deadline)
    if not submission.options.store and not submission.dry_run:
        raise InvalidRequest(FieldProblem("store", "must be true for a job, because its images are fetched later"))
    return _counted(submission, exchange)


ReadSubmission = Annotated[Submission, Depends(read_submission)]
ReadJobSubmission = Annotated[Submission, Depends(read_job_submission)]


def _parse(
    body: dict[str, Any], key: ApiKey, exchange: Exchange, claim: IdempotencyClaim | None, start_deadline: str | None
) -> Submission:
    """Return a submission within the operator's policy. Raises `InvalidRequest`."""
    set_dialect(exchange.request, exchange.dialect)
    parsed = exchange.dialect.parse(body, exchange.service.models)
    if parsed.ignored:
        exchange.headers["x-ignored-fields"] = ", ".join(name for name in parsed.ignored if name.isprintable())
    return Submission(
        key=key,
        request=_within_policy(parsed, key, exchange.service),
        options=_options(parsed.options, key, exchange),
        job_id=request_id_of(exchange.request),
        claim=claim,
        start_within_s=_start_within(start_deadline),
        dry_run=parsed.dry_run,
    )


def _within_policy(parsed: ParsedBody, key: ApiKey, service: Service) -> GenerationRequest:
    try:
        return service.policy.apply(parsed.request, parsed.options.image_ttl_s, key)
    except InvalidRequest as exc:
        named = (FieldProblem(parsed.names.get(one.field, one.field), one.message) for one in exc.problems)
        raise InvalidRequest(*named) from exc


def _options(options: JobOptions, key: ApiKey, exchange: Exchange) -> JobOptions:
    headers = exchange.request.headers
    source = headers.get("x-origin", "")
    return options.model_copy(
        update={
            "dialect": exchange.dialect.name,
            "source": source if source in SOURCES else SOURCES[0],
            "key_prefix": key.prefix,
            "base_url": exchange.base_url,
            "client_request_id": client_request_id(exchange.request),
            "traceparent": headers.get("traceparent", "")[:64] or None,
        }
    )


def _start_within(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_DEADLINE_S:
        problem = f"must be a number of seconds above 0, at most {MAX_DEADLINE_S:.0f}"
        raise InvalidRequest(FieldProblem(START_DEADLINE, problem))
    return seconds


def _cancels_on_disconnect(text: str | None) -> bool:
    wanted = "finish" if text is None else text.strip().lower()
    if wanted not in ("finish", "cancel"):
        raise InvalidRequest(FieldProblem(ON_DISCONNECT, "Invalid enum value. Expected 'finish' | 'cancel'"))
    return wanted == "cancel"


def _counted(submission: Submission, exchange: Exchange) -> Submission:
    """Count a submission against its key's rate limit and return it. Raises `RateLimited`."""
    rates, key = exchange.service.rates, submission.key
    if submission.dry_run:
        rates.take(f"dry-runs/{key.id}", DRY_RUNS_PER_MINUTE)
    elif (rate := rates.take(key.id, key.requests_per_minute)) is not None:
        exchange.headers |= rate_headers(rate.limit, rate.remaining, rate.reset_s)
    return submission
