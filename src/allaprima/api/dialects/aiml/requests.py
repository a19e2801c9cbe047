"""Reads request bodies: maps their members, including the aliases of all published variants, to fields of the domain.

Each member is one line of a table. The domain defines its bounds, its description and its error messages.
"""

import secrets
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from allaprima.api.dialects.aiml.sizes import RATIOS, SIDE_SCHEMA, SIZE_NAMES, SIZE_SCHEMA, SizeReader
from allaprima.api.dialects.base import ParsedBody
from allaprima.domain.fields import RANDOM_SEED_BOUND, Flag, choice, problems_in
from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.domain.jobs import Delivery, JobOptions
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.service.models import Models, ServedModel

#: The field of `GenerationRequest` that each member of the body sets. A second member of a field is an alias.
REQUEST_MEMBERS = {
    "prompt": "prompt",
    "num_images": "count",
    "n": "count",
    "num_inference_steps": "steps",
    "steps": "steps",
    "seed": "seed",
    "enable_safety_checker": "check_safety",
    "on_long_prompt": "on_long_prompt",
    "safety_threshold": "safety_threshold",
}
#: The same for `JobOptions`.
OPTION_MEMBERS = {
    "model": "model",
    "priority": "priority",
    "group_id": "group_id",
    "expires_in": "image_ttl_s",
    "webhook_url": "webhook_url",
    "store": "store",
    "use_cache": "use_cache",
}
REQUIRED = ("model", "prompt")
#: Members that state the size in other forms, with their JSON Schema and description.
SHAPE_MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "aspect_ratio": (
        {"type": "string", "enum": list(RATIOS)},
        "Selects the preset of this ratio; a given size must match it.",
    ),
    "width": (SIDE_SCHEMA, "Alias of image_size.width."),
    "height": (SIDE_SCHEMA, "Alias of image_size.height."),
}
OUTPUT_FORMATS = (*ImageFormat, "url", "b64_json")
RESPONSE_FORMATS = ("url", "b64_json")
#: Members that select the form of the response, with their JSON Schema and description.
ANSWER_MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "output_format": (
        {"type": "string", "enum": list(OUTPUT_FORMATS)},
        "File format of the images; the values url and b64_json act as response_format.",
    ),
    "response_format": (
        {"type": "string", "enum": list(RESPONSE_FORMATS)},
        "Return the images as links (default) or in base64.",
    ),
    "sync_mode": ({"type": "boolean"}, "Return the images as data URIs instead of links; default false."),
    "stream": ({"type": "boolean", "const": False}, "Streaming is not supported; true is refused."),
    "dry_run": ({"type": "boolean"}, "Return a cost and time estimate without generating."),
}
_FLAG = TypeAdapter(Flag)

M = TypeVar("M", bound=BaseModel)


#: Ignored members that the response and the job name, and the characters of each name. The rest is counted.
MAX_IGNORED, MAX_NAME = 32, 64


class RequestBody:
    """A request body. `problems` collects the errors of all its members."""

    def __init__(self, body: dict[str, Any], models: Models) -> None:
        self._body = body
        self._given = {name: value for name, value in body.items() if value is not None}
        self._models = models
        self._names: dict[str, str] = {}
        self.problems = [FieldProblem(name, "must not be null") for name in REQUIRED if body.get(name, 0) is None]

    def parse(self) -> ParsedBody:
        """Return the parsed request. Raises `InvalidRequest`, which lists every problem of the body."""
        size = SizeReader(self._given)
        self.problems += size.problems
        self._names |= size.names
        model = self._served_model()
        options = self._read_options(model.id if model else "", self._delivery())
        request = self._read_request(size.values, model.served_by.id if model else "")
        dry_run = self._flag("dry_run")
        self._check_stream()
        self._check_store()
        if self.problems or request is None or options is None or model is None:
            raise InvalidRequest(*self._in_order())
        ignored = (*(name for name in self._body if name not in MEMBERS), *size.ignored)
        warnings = []
        if model.is_fallback:
            warnings.append(f"the weights of {model.id} are not loaded; {model.served_by.id} generates instead")
        if ignored:
            more = f" and {len(ignored) - MAX_IGNORED} more" if len(ignored) > MAX_IGNORED else ""
            warnings.append(f"ignored fields: {', '.join(map(printable, ignored[:MAX_IGNORED]))}{more}")
        return ParsedBody(
            request=request,
            options=options.model_copy(update={"warnings": tuple(warnings)}),
            dry_run=dry_run,
            ignored=tuple(map(printable, ignored[:MAX_IGNORED])),
            names=self._names,
        )

    def _in_order(self) -> list[FieldProblem]:
        """Return the distinct problems in the order of the body's members."""
        positions = {name: position for position, name in enumerate(self._body)}
        distinct = dict.fromkeys(self.problems)
        return sorted(distinct, key=lambda problem: positions.get(problem.field.partition(".")[0], len(positions)))

    def _read_request(self, size: dict[str, Any], model: str) -> GenerationRequest | None:
        values = self._fields(REQUEST_MEMBERS) | size | {"model": model}
        values.setdefault("seed", secrets.randbelow(RANDOM_SEED_BOUND))
        if image_format := self._image_format():
            values["image_format"] = image_format
        return self._validate(GenerationRequest, values)

    def _read_options(self, model: str, delivery: Delivery) -> JobOptions | None:
        values = self._fields(OPTION_MEMBERS)
        # The requested name is replaced by the model's id; `_served_model` has reported an unknown name.
        if isinstance(values.get("model"), str):
            values["model"] = model
        return self._validate(JobOptions, values | {"delivery": delivery})

    def _fields(self, members: dict[str, str]) -> dict[str, Any]:
        """Return values by field, and record the client's name of each. Aliases with different values are a problem."""
        values: dict[str, Any] = {}
        for member, field in members.items():
            self._names.setdefault(field, member)
            if member not in self._given:
                continue
            value = self._given[member]
            if field not in values:
                values[field], self._names[field] = value, member
            elif value != values[field]:
                problem = f"contradicts {self._names[field]}, which sets the same field; send only one of them"
                self.problems.append(FieldProblem(member, problem))
        return values

    def _validate(self, kind: type[M], values: dict[str, Any]) -> M | None:
        try:
            return kind.model_validate(values)
        except ValidationError as exc:
            named = {problem.field for problem in self.problems}
            for problem in problems_in(exc):
                name = self._names.get(problem.field, problem.field)
                if name not in named:
                    self.problems.append(FieldProblem(name, problem.message))
        return None

    def _served_model(self) -> ServedModel | None:
        name = self._given.get("model")
        if not isinstance(name, str):
            return None
        if (found := self._models.find(name)) is None:
            loaded = ", ".join(f"'{model.id}'" for model in self._models.served())
            problem = f"this server has no model {name[:80]!a}; it serves {loaded}"
            self.problems.append(FieldProblem("model", problem))
        return found

    def _flag(self, name: str) -> bool:
        try:
            return _FLAG.validate_python(self._given.get(name, False))
        except ValidationError as exc:
            self.problems.append(FieldProblem(name, problems_in(exc)[0].message))
            return False

    def _choice(self, name: str, *allowed: str) -> str | None:
        if name not in self._given:
            return None
        try:
            return choice(*allowed)(self._given[name])
        except PydanticCustomError as exc:
            self.problems.append(FieldProblem(name, exc.message()))
            return None

    def _image_format(self) -> str | None:
        output = self._given.get("output_format")
        return output if output in list(ImageFormat) else None

    def _delivery(self) -> Delivery:
        output = self._choice("output_format", *OUTPUT_FORMATS)
        response = self._choice("response_format", *RESPONSE_FORMATS)
        if output in RESPONSE_FORMATS and response is not None and output != response:
            problem = "contradicts response_format; send png, jpeg or webp here"
            self.problems.append(FieldProblem("output_format", problem))
        has_base64 = "b64_json" in (response, output)
        has_data_uris = self._flag("sync_mode")
        return {
            (False, False): Delivery.LINKS,
            (True, False): Delivery.BASE64,
            (False, True): Delivery.DATA_URIS,
            (True, True): Delivery.BASE64_AND_DATA_URIS,
        }[has_base64, has_data_uris]

    def _check_stream(self) -> None:
        if self._flag("stream"):
            self.problems.append(FieldProblem("stream", "streaming is not supported; omit it or send false"))

    def _check_store(self) -> None:
        """Report members that cannot be combined with `store: false`."""
        if self._given.get("store") is not False:
            return
        formats = self._given.get("response_format"), self._given.get("output_format")
        if "b64_json" not in formats and not self._given.get("sync_mode"):
            problem = "can be false only if the response contains the images; request b64_json"
            self.problems.append(FieldProblem("store", problem))
        for name in ("use_cache", "webhook_url", "expires_in"):
            if self._given.get(name):
                self.problems.append(FieldProblem(name, "cannot be combined with store=false"))


def printable(name: str) -> str:
    """Return a member's name as printable ASCII of at most `MAX_NAME` characters, for a header."""
    text = name[:MAX_NAME].encode("ascii", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")
    return text[:MAX_NAME].strip()


def body_schema(models: list[str] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a body. models: the names that `model` may have."""
    properties: dict[str, Any] = {}
    for members, kind in ((REQUEST_MEMBERS, GenerationRequest), (OPTION_MEMBERS, JobOptions)):
        schema = kind.model_json_schema()
        documented: dict[str, str] = {}
        for member, field in members.items():
            properties[member] = _property(schema, field, documented.get(field), is_required=member in REQUIRED)
            documented.setdefault(field, member)
    size = {"title": "Image Size", "description": "Size in pixels, or the name of a preset; default 1024x768."}
    properties |= dict.fromkeys(SIZE_NAMES, SIZE_SCHEMA | size)
    properties["size"] = SIZE_SCHEMA | {"title": "Size", "description": "Alias of image_size."}
    for name, (of_value, description) in (SHAPE_MEMBERS | ANSWER_MEMBERS).items():
        properties[name] = {"anyOf": [of_value, {"type": "null"}], "description": description}
    if models:
        properties["model"]["enum"] = models
    return {
        "title": "ImagesRequest",
        "description": "Unknown members are ignored; the response lists them in x-ignored-fields and in its warnings.",
        "type": "object",
        "properties": properties,
        "required": list(REQUIRED),
        "additionalProperties": True,
    }


def _property(schema: dict[str, Any], field: str, alias_of: str | None, *, is_required: bool) -> dict[str, Any]:
    found = dict(schema["properties"][field])
    description = f"Alias of {alias_of}." if alias_of else found.pop("description", "")
    annotations = {name: found.pop(name) for name in ("title", "default") if name in found}
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
        found = {name: value for name, value in found.items() if name in ("type", "enum")}
    found.pop("description", None)
    if is_required:
        return found | {"description": description}
    variants = found.get("anyOf", [found])
    if {"type": "null"} not in variants:
        variants = [*variants, {"type": "null"}]
    shown = {"anyOf": variants, "description": description}
    return shown | ({"default": annotations["default"]} if annotations.get("default") is not None else {})


#: Every member that has an effect.
MEMBERS = (*REQUEST_MEMBERS, *OPTION_MEMBERS, *SIZE_NAMES, *SHAPE_MEMBERS, *ANSWER_MEMBERS)
