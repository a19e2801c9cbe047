"""Bodies of `POST /v1/images/generations` and `/v1/jobs`: every published variant's fields, the aliases that real
clients send, and our own.

`ImagesBody` is what the OpenAPI document shows and what validates single fields; `read_images_body` adds what holds
between fields (aliases that disagree, seed plus count) and gives every problem at once, under the client's own names.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from allaprima import request as limits
from allaprima.api.dialects.aiml.fields import (
    OUTPUT_FORMATS,
    RESPONSE_FORMATS,
    Count,
    ExpiresIn,
    Flag,
    GroupId,
    Prompt,
    Seed,
    Share,
    Size,
    SizeObject,
    Steps,
    Text,
    boolean,
    choice,
    integral,
    seconds_problem,
    size_of,
)
from allaprima.domain.generation import ImageFormat, LongPromptPolicy
from allaprima.domain.jobs import Priority
from allaprima.errors import FieldProblem, InvalidRequest

#: Each field's other names.
ALIASES: dict[str, tuple[str, ...]] = {
    "num_images": ("n",),
    "image_size": ("size",),
    "num_inference_steps": ("steps",),
}


class ImagesBody(BaseModel):
    """What to paint. Members that this server does not know are accepted and named in the answer."""

    model_config = ConfigDict(extra="allow", title="ImagesRequest")

    model: Text = Field(description="Id or alias of a served model.")
    prompt: Prompt = Field(description="What to paint.")
    image_size: Size | None = Field(None, description="Size in pixels or a preset; default 1024x768.")
    num_images: Count | None = Field(None, description="Number of images; image i is painted with seed + i.")
    num_inference_steps: Steps | None = Field(None, description="Steps of the flow.")
    seed: Seed | None = Field(None, description="Seed of the first image; drawn below 2**32 when absent.")
    enable_safety_checker: Flag | None = Field(None, description="Look at the pictures; default true.")
    sync_mode: Flag | None = Field(None, description="Give images as data URIs instead of links; default false.")
    output_format: (
        Annotated[str, BeforeValidator(choice(*OUTPUT_FORMATS)), WithJsonSchema({"enum": list(OUTPUT_FORMATS)})] | None
    ) = Field(None, description="File format; url and b64_json are taken as response_format.")
    response_format: (
        Annotated[str, BeforeValidator(choice(*RESPONSE_FORMATS)), WithJsonSchema({"enum": list(RESPONSE_FORMATS)})]
        | None
    ) = Field(None, description="Give images as links (default) or in base64.")
    on_long_prompt: (
        Annotated[str, BeforeValidator(choice(*LongPromptPolicy)), WithJsonSchema({"enum": list(LongPromptPolicy)})]
        | None
    ) = Field(None, description="What to do with more tokens than the model reads; truncate, the default, warns.")
    stream: Annotated[Literal[False], BeforeValidator(boolean)] | None = Field(
        None, description="Streaming is not offered yet: true is refused."
    )
    safety_threshold: Share | None = Field(
        None, description="Score from which a picture is withheld, within what the operator allows."
    )
    expires_in: ExpiresIn | None = Field(None, description="Seconds that the pictures are kept; the server's default.")
    store: Flag | None = Field(
        None, description="false: keep neither prompt nor pictures; they come in the answer, once. Default true."
    )
    use_cache: Flag | None = Field(
        None, description="Take pictures that this very request gave before, if they are still there. Default false."
    )
    priority: Annotated[str, BeforeValidator(choice(*Priority)), WithJsonSchema({"enum": list(Priority)})] | None = (
        Field(None, description="Which of the key's own jobs goes first; low runs while nothing else waits.")
    )
    group_id: GroupId | None = Field(None, description="A name that several jobs share, to list or cancel them by.")
    webhook_url: Text | None = Field(None, description="Is sent a signed webhook when the job ends.")
    dry_run: Flag | None = Field(None, description="Answer what it would come to, and paint nothing.")
    n: Count | None = Field(None, description="Alias of num_images.")
    size: Size | None = Field(None, description="Alias of image_size.")
    steps: Steps | None = Field(None, description="Alias of num_inference_steps.")


#: Fields whose null is refused: they have no absent meaning.
NOT_NULL = ("prompt", "model")


@dataclass(frozen=True, slots=True)
class ImagesCall:
    """A legal body, its aliases resolved."""

    model: str
    prompt: str
    width: int
    height: int
    count: int
    steps: int
    seed: int | None
    check_safety: bool
    image_format: ImageFormat
    on_long_prompt: LongPromptPolicy
    #: Whether `data` gives pictures in base64 instead of links.
    in_base64: bool
    #: Whether `images` gives pictures as data URIs instead of links.
    as_data_uri: bool
    #: Members without effect, in the client's order.
    ignored: tuple[str, ...]
    safety_threshold: float | None
    expires_in: float | None
    is_kept: bool
    use_cache: bool
    priority: Priority
    group_id: str | None
    webhook_url: str | None
    dry_run: bool
    #: The body as one text, whatever the order of its members.
    digest: str


def read_images_body(
    values: dict[str, Any], model_problem: Callable[[str], str | None], max_ttl_s: float | None = None
) -> ImagesCall:
    """Return the call that a JSON object makes. Raises `InvalidRequest` with every problem in it.

    model_problem: says what is wrong with a model's name, if anything. max_ttl_s: the longest that images are kept.
    """
    problems = [FieldProblem(name, "must not be null") for name in NOT_NULL if name in values and values[name] is None]
    given = {name: value for name, value in values.items() if value is not None}
    problems += _disagreements(given)
    body = None
    try:
        body = ImagesBody.model_validate(given)
    except ValidationError as exc:
        named = {problem.field for problem in problems}
        problems += [problem for problem in map(_problem, exc.errors(include_url=False)) if problem.field not in named]
    if given.get("stream") is True:
        problems = [problem for problem in problems if problem.field != "stream"]
        problems.append(FieldProblem("stream", "streaming is not offered yet; leave it out or send false"))
    problems += _last_seed(given)
    problems += _not_together(given)
    if message := given.get("expires_in") is not None and seconds_problem(given["expires_in"], max_ttl_s):
        problems = [problem for problem in problems if problem.field != "expires_in"]
        problems.append(FieldProblem("expires_in", message))
    if isinstance(name := given.get("model"), str) and (message := model_problem(name)):
        problems.append(FieldProblem("model", message))
    if problems or body is None:
        raise InvalidRequest(*problems)
    return _call(body, values)


def _call(body: ImagesBody, values: dict[str, Any]) -> ImagesCall:
    size = body.image_size or body.size or SizeObject()
    is_format = body.output_format in list(ImageFormat)
    response_format = body.response_format or (None if is_format else body.output_format) or "url"
    ignored = [name for name in values if name not in ImagesBody.model_fields]
    ignored += [f"{name}.{extra}" for name in ("image_size", "size") for extra in _extras(getattr(body, name))]
    return ImagesCall(
        model=body.model,
        prompt=body.prompt,
        width=size.width,
        height=size.height,
        count=body.num_images or body.n or 1,
        steps=body.num_inference_steps or body.steps or limits.DEFAULT_STEPS,
        seed=body.seed,
        check_safety=body.enable_safety_checker is not False,
        image_format=ImageFormat(body.output_format) if is_format and body.output_format else ImageFormat.PNG,
        on_long_prompt=LongPromptPolicy(body.on_long_prompt or LongPromptPolicy.TRUNCATE),
        in_base64=response_format == "b64_json",
        as_data_uri=body.sync_mode is True,
        ignored=tuple(ignored),
        safety_threshold=body.safety_threshold,
        expires_in=body.expires_in,
        is_kept=body.store is not False,
        use_cache=body.use_cache is True,
        priority=Priority(body.priority or Priority.NORMAL),
        group_id=body.group_id,
        webhook_url=body.webhook_url,
        dry_run=body.dry_run is True,
        digest=json.dumps(values, sort_keys=True, separators=(",", ":")),
    )


def _extras(size: SizeObject | None) -> list[str]:
    return list(size.model_extra or {}) if size else []


def _disagreements(given: dict[str, Any]) -> list[FieldProblem]:
    """Name fields that are given under two names with two values."""
    problems = []
    for name, others in ALIASES.items():
        for other in others:
            if name in given and other in given and _meaning(given[name]) != _meaning(given[other]):
                problems.append(FieldProblem(other, f"contradicts {name}, which is the same field; send one of them"))
    formats = given.get("output_format"), given.get("response_format")
    if formats[0] in RESPONSE_FORMATS and formats[1] is not None and formats[0] != formats[1]:
        problems.append(FieldProblem("output_format", "contradicts response_format; send png, jpeg or webp here"))
    return problems


def _not_together(given: dict[str, Any]) -> list[FieldProblem]:
    """Name what can't be had beside storing nothing."""
    if given.get("store") is not False:
        return []
    is_inline = "b64_json" in (given.get("response_format"), given.get("output_format")) or given.get("sync_mode")
    problems = []
    if not is_inline:
        problems.append(FieldProblem("store", "can be false only where the answer holds the pictures: b64_json"))
    for name in ("use_cache", "webhook_url", "expires_in"):
        if given.get(name):
            problems.append(FieldProblem(name, "has no meaning where nothing is stored; leave it out"))
    return problems


def _last_seed(given: dict[str, Any]) -> list[FieldProblem]:
    """Name a seed that is legal by itself but leaves no room for all the images."""
    try:
        seed = integral(limits.seed_problem)(given["seed"])
        count = integral(limits.count_problem)(given.get("num_images", given.get("n", 1)))
    except (KeyError, PydanticCustomError):
        return []
    message = limits.seed_problem(seed, count)
    return [FieldProblem("seed", message)] if message else []


def _meaning(value: Any) -> Any:
    if isinstance(value, str | dict):
        try:
            return SizeObject.model_validate(size_of(value))
        except (ValidationError, PydanticCustomError):
            return value
    return value


def _problem(error: Any) -> FieldProblem:
    field = ".".join(str(part) for part in error["loc"]) or "body"
    message = "is required" if error["type"] == "missing" else error["msg"]
    return FieldProblem(field, message)
