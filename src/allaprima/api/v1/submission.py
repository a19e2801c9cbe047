"""A request for pictures as it came over HTTP, read whole: body, headers, and the model that answers to its name."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Header, Request

from allaprima.api.deps import ImageKey, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml.requests import ImagesBody, ImagesCall, read_images_body
from allaprima.api.http.body import read_object
from allaprima.api.http.idempotency import NAME
from allaprima.api.http.request_id import client_request_id
from allaprima.api.openapi import body_of
from allaprima.domain.accounts import ApiKey
from allaprima.domain.fields import RANDOM_SEED_BOUND
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.jobs import JobOptions
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.service.app import Service
from allaprima.service.models import ServedModel

#: What a page of our own calls itself in `X-Origin`, for the logs.
ORIGINS = ("api", "playground")
#: Dry runs that a key may make in a minute; they are not counted against its limit.
QUOTES_PER_MINUTE = 300
START_DEADLINE = "X-Start-Deadline"
ON_DISCONNECT = "X-On-Disconnect"
MAX_DEADLINE_S = 86_400.0

DeadlineHeader = Annotated[
    str | None,
    Header(alias=START_DEADLINE, description="Seconds, up to a day, within which painting must begin; then it is 504."),
]
DisconnectHeader = Annotated[
    str | None,
    Header(alias=ON_DISCONNECT, description="What becomes of the job when the client goes away: finish, or cancel."),
]

#: The documented body of every route that takes one.
BODY = body_of(ImagesBody, is_required=True)


@dataclass(frozen=True, slots=True)
class Call:
    """A legal request for pictures."""

    body: ImagesCall
    served: ServedModel
    request: GenerationRequest

    def terms(self, request: Request, origin: str) -> JobOptions:
        """Return how the job is to be treated. origin: what links in a webhook start with."""
        warnings = []
        if self.served.is_stand_in:
            warnings.append(f"{self.served.id} has no weights here; {self.served.painted_by.id} paints in its stead")
        if self.body.ignored:
            warnings.append(f"fields without effect: {', '.join(map(_shown, self.body.ignored))}")
        came_from = request.headers.get("x-origin", "")
        return JobOptions(
            model=self.served.id,
            priority=self.body.priority,
            group_id=self.body.group_id,
            image_ttl_s=self.body.expires_in,
            webhook_url=self.body.webhook_url,
            is_kept=self.body.is_kept,
            use_cache=self.body.use_cache,
            in_base64=self.body.in_base64,
            as_data_uri=self.body.as_data_uri,
            origin=came_from if came_from in ORIGINS else ORIGINS[0],
            base_url=origin,
            client_request_id=client_request_id(request),
            traceparent=request.headers.get("traceparent", "")[:64] or None,
            warnings=tuple(warnings),
        )

    def ignored_header(self) -> dict[str, str]:
        """Return the header that names the members without effect, if there are any."""
        names = [name for name in map(_shown, self.body.ignored[:32]) if name and name.isprintable()]
        return {"x-ignored-fields": ", ".join(names)} if self.body.ignored else {}


async def read_call(request: Request, key: ImageKey, service: ServiceDep, settings: SettingsDep) -> Call:
    """Read the body, after the key has been found good. Raises `InvalidRequest` with every problem in it."""
    values = await read_object(request, settings)
    body = read_images_body(values, lambda name: _model_problem(service, name), service.max_image_ttl_s)
    service.limits.check(body.width, body.height, body.steps, body.count)
    served = service.models.find(body.model)
    assert served is not None  # an unknown name was a problem
    if not body.is_kept and NAME in request.headers:
        raise InvalidRequest(FieldProblem(NAME, "can't be had beside store: false, which leaves nothing to repeat"))
    return Call(body, served, _image_request(body, served, key, service))


def start_within(text: str | None) -> float | None:
    """Return the seconds within which the client wants the job to start. Raises `InvalidRequest`."""
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


def on_disconnect(text: str | None) -> Literal["finish", "cancel"]:
    """Return what becomes of the job when the client goes away. Raises `InvalidRequest`."""
    text = "finish" if text is None else text.strip().lower()
    if text not in ("finish", "cancel"):
        raise InvalidRequest(FieldProblem(ON_DISCONNECT, "Invalid enum value. Expected 'finish' | 'cancel'"))
    return "cancel" if text == "cancel" else "finish"


def _model_problem(service: Service, name: str) -> str | None:
    if service.models.find(name):
        return None
    loaded = ", ".join(f"'{model.id}'" for model in service.models.served())
    return f"there is no model {name[:80]!a} here; loaded are {loaded}"


def _image_request(body: ImagesCall, served: ServedModel, key: ApiKey, service: Service) -> GenerationRequest:
    return GenerationRequest(
        prompt=body.prompt,
        seed=secrets.randbelow(RANDOM_SEED_BOUND) if body.seed is None else body.seed,
        model=served.painted_by.id,
        width=body.width,
        height=body.height,
        steps=body.steps,
        count=body.count,
        check_safety=service.safety.check_wanted(key.safety_threshold, wanted=body.check_safety),
        safety_threshold=service.safety.threshold(key.safety_threshold, body.safety_threshold),
        image_format=body.image_format,
        on_long_prompt=body.on_long_prompt,
    )


def _shown(name: str) -> str:
    """A client's field name as text that a header can carry."""
    text = name[:60].encode("ascii", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")
    return text[:60].strip()
