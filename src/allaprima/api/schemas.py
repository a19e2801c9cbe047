"""Bodies of `POST /v1/images/generations`: every published variant's fields, and the aliases that real clients send.

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
from allaprima.api.body import json_type
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.request import ImageFormat, LongPrompt

PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}

#: Each field's other names.
ALIASES: dict[str, tuple[str, ...]] = {
    "num_images": ("n",),
    "image_size": ("size",),
    "num_inference_steps": ("steps",),
}


def _refuse(message: str) -> PydanticCustomError:
    # Without a context pydantic takes the template as it stands, braces and all.
    return PydanticCustomError("allaprima", message)


def _integral(problem: Callable[[int], str | None]) -> Callable[[Any], int]:
    """Accept a JSON number without a fraction that has no problem; refuse booleans and numbers in strings."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refuse(f"must be an integer; it is {json_type(value)}")
        if isinstance(value, float) and not value.is_integer():
            raise _refuse(f"must be an integer; it is {value}")
        if message := problem(int(value)):
            raise _refuse(message)
        return int(value)

    return check


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refuse(f"must be true or false; it is {json_type(value)}")
    return value


def _prompt(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse(f"must be a string; it is {json_type(value)}")
    if message := limits.prompt_problem(value):
        raise _refuse(message)
    return value


def _model(value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse(f"must be a string; it is {json_type(value)}")
    return value


def _choice(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in allowed:
            shown = json.dumps(value)[:60] if isinstance(value, str) else json_type(value)
            expected = " | ".join(f"'{one}'" for one in allowed)
            raise _refuse(f"Invalid enum value. Expected {expected}, received {shown}")
        return str(value)

    return check


def _integer_schema(low: int, high: int, default: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high, "default": default})


_SIDE_SCHEMA = {
    "type": "integer",
    "minimum": limits.MIN_SIDE,
    "maximum": limits.MAX_SIDE,
    "multipleOf": limits.SIDE_STEP,
}

Side = Annotated[int, BeforeValidator(_integral(limits.side_problem)), WithJsonSchema(_SIDE_SCHEMA)]
Count = Annotated[
    int, BeforeValidator(_integral(limits.count_problem)), _integer_schema(1, limits.MAX_COUNT, default=1)
]
Steps = Annotated[
    int,
    BeforeValidator(_integral(limits.steps_problem)),
    _integer_schema(1, limits.MAX_STEPS, limits.DEFAULT_STEPS),
]
# A bound of the document is a floating-point number, which can say 2**63 exactly but not 2**63 - 1.
_SEED_SCHEMA = {"type": "integer", "minimum": 0, "exclusiveMaximum": limits.MAX_SEED + 1}
Seed = Annotated[int, BeforeValidator(_integral(limits.seed_problem)), WithJsonSchema(_SEED_SCHEMA)]
Flag = Annotated[bool, BeforeValidator(_boolean), WithJsonSchema({"type": "boolean"})]
OUTPUT_FORMATS = ("png", "jpeg", "webp", "url", "b64_json")
RESPONSE_FORMATS = ("url", "b64_json")


class SizeObject(BaseModel):
    """A size in pixels; a side that is left out is the default's."""

    model_config = ConfigDict(extra="allow")

    width: Side = limits.DEFAULT_WIDTH
    height: Side = limits.DEFAULT_HEIGHT


def _size(value: Any) -> Any:
    """Give presets and "WxH" the form of a size object."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        if value == "auto":
            return {}
        if value in PRESETS:
            width, height = PRESETS[value]
            return {"width": width, "height": height}
        width_text, by, height_text = value.lower().partition("x")
        if by and all(text.isascii() and text.isdigit() and len(text) < 10 for text in (width_text, height_text)):
            return {"width": int(width_text), "height": int(height_text)}
        expected = " | ".join(f"'{name}'" for name in PRESETS)
        raise _refuse(
            f'Invalid enum value. Expected {expected}, "WIDTHxHEIGHT" or an object, received {json.dumps(value)[:60]}'
        )
    raise _refuse(f"must be an object with width and height, or a preset's name; it is {json_type(value)}")


_SIZE_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "width": _SIDE_SCHEMA | {"default": limits.DEFAULT_WIDTH},
                "height": _SIDE_SCHEMA | {"default": limits.DEFAULT_HEIGHT},
            },
        },
        {"type": "string", "enum": list(PRESETS)},
        {"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$"},
        {"type": "string", "const": "auto"},
    ]
}
Size = Annotated[SizeObject, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)]


class ImagesBody(BaseModel):
    """What to paint. Members that this server does not know are accepted and named in the answer."""

    model_config = ConfigDict(extra="allow", title="ImagesRequest")

    model: Annotated[str, BeforeValidator(_model)] = Field(description="Id or alias of a served model.")
    prompt: Annotated[
        str,
        BeforeValidator(_prompt),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": limits.MAX_PROMPT}),
    ] = Field(description="What to paint.")
    image_size: Size | None = Field(None, description="Size in pixels or a preset; default 1024x768.")
    num_images: Count | None = Field(None, description="Number of images; image i is painted with seed + i.")
    num_inference_steps: Steps | None = Field(None, description="Steps of the flow.")
    seed: Seed | None = Field(None, description="Seed of the first image; drawn below 2**32 when absent.")
    enable_safety_checker: Flag | None = Field(None, description="Look at the pictures; default true.")
    sync_mode: Flag | None = Field(None, description="Give images as data URIs instead of links; default false.")
    output_format: (
        Annotated[str, BeforeValidator(_choice(*OUTPUT_FORMATS)), WithJsonSchema({"enum": list(OUTPUT_FORMATS)})] | None
    ) = Field(None, description="File format; url and b64_json are taken as response_format.")
    response_format: (
        Annotated[str, BeforeValidator(_choice(*RESPONSE_FORMATS)), WithJsonSchema({"enum": list(RESPONSE_FORMATS)})]
        | None
    ) = Field(None, description="Give images as links (default) or in base64.")
    on_long_prompt: (
        Annotated[str, BeforeValidator(_choice(*LongPrompt)), WithJsonSchema({"enum": list(LongPrompt)})] | None
    ) = Field(None, description="What to do with more tokens than the model reads; truncate, the default, warns.")
    stream: Annotated[Literal[False], BeforeValidator(_boolean)] | None = Field(
        None, description="Streaming is not offered yet: true is refused."
    )
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
    on_long_prompt: LongPrompt
    #: Whether `data` gives pictures in base64 instead of links.
    in_base64: bool
    #: Whether `images` gives pictures as data URIs instead of links.
    as_data_uri: bool
    #: Members without effect, in the client's order.
    ignored: tuple[str, ...]


def read_images_body(values: dict[str, Any], model_problem: Callable[[str], str | None]) -> ImagesCall:
    """Return the call that a JSON object makes. Raises `InvalidRequest` with every problem in it.

    model_problem: says what is wrong with a model's name, if anything.
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
        on_long_prompt=LongPrompt(body.on_long_prompt or LongPrompt.TRUNCATE),
        in_base64=response_format == "b64_json",
        as_data_uri=body.sync_mode is True,
        ignored=tuple(ignored),
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


def _last_seed(given: dict[str, Any]) -> list[FieldProblem]:
    """Name a seed that is legal by itself but leaves no room for all the images."""
    try:
        seed = _integral(limits.seed_problem)(given["seed"])
        count = _integral(limits.count_problem)(given.get("num_images", given.get("n", 1)))
    except (KeyError, PydanticCustomError):
        return []
    message = limits.seed_problem(seed, count)
    return [FieldProblem("seed", message)] if message else []


def _meaning(value: Any) -> Any:
    if isinstance(value, str | dict):
        try:
            return SizeObject.model_validate(_size(value))
        except (ValidationError, PydanticCustomError):
            return value
    return value


def _problem(error: Any) -> FieldProblem:
    field = ".".join(str(part) for part in error["loc"]) or "body"
    message = "is required" if error["type"] == "missing" else error["msg"]
    return FieldProblem(field, message)
