"""Request bodies: every published variant's members and the aliases that real clients send, mapped onto the domain's.

A member is one line of a table here; its bounds, its description and the message that refuses it are the domain's.
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

#: Members of the body by the field of `GenerationRequest` that they set. A second name of a field is an alias.
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
#: Other forms of the size, with their JSON Schema and description.
SHAPE_MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "aspect_ratio": ({"type": "string", "enum": list(RATIOS)}, "The preset of a ratio; a given size must have it."),
    "width": (SIDE_SCHEMA, "As image_size.width."),
    "height": (SIDE_SCHEMA, "As image_size.height."),
}
OUTPUT_FORMATS = (*ImageFormat, "url", "b64_json")
RESPONSE_FORMATS = ("url", "b64_json")
#: Members that decide how the answer is given, with their JSON Schema and description.
ANSWER_MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "output_format": (
        {"type": "string", "enum": list(OUTPUT_FORMATS)},
        "File format; url and b64_json are taken as response_format.",
    ),
    "response_format": (
        {"type": "string", "enum": list(RESPONSE_FORMATS)},
        "Give images as links (default) or in base64.",
    ),
    "sync_mode": ({"type": "boolean"}, "Give images as data URIs instead of links; default false."),
    "stream": ({"type": "boolean", "const": False}, "Streaming is not offered: true is refused."),
    "dry_run": ({"type": "boolean"}, "Return a cost and time estimate without generating."),
}
_FLAG = TypeAdapter(Flag)

M = TypeVar("M", bound=BaseModel)


class RequestBody:
    """One body, read member by member; `problems` has everything that is wrong with it."""

    def __init__(self, body: dict[str, Any], models: Models) -> None:
        self._body = body
        self._given = {name: value for name, value in body.items() if value is not None}
        self._models = models
        self._names: dict[str, str] = {}
        self.problems = [FieldProblem(name, "must not be null") for name in REQUIRED if body.get(name, 0) is None]

    def parse(self) -> ParsedBody:
        """Return what the body asks. Raises `InvalidRequest` with every problem in it."""
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
            warnings.append(f"{model.id} has no weights here; {model.served_by.id} generates in its place")
        if ignored:
            warnings.append(f"fields without effect: {', '.join(map(printable, ignored))}")
        return ParsedBody(
            request=request,
            options=options.model_copy(update={"warnings": tuple(warnings)}),
            dry_run=dry_run,
            ignored=tuple(map(printable, ignored)),
            names=self._names,
        )

    def _in_order(self) -> list[FieldProblem]:
        """Return the problems, each once, in the order of the body's members."""
        places = {name: place for place, name in enumerate(self._body)}
        distinct = dict.fromkeys(self.problems)
        return sorted(distinct, key=lambda problem: places.get(problem.field.partition(".")[0], len(places)))

    def _read_request(self, size: dict[str, Any], model: str) -> GenerationRequest | None:
        values = self._fields(REQUEST_MEMBERS) | size | {"model": model}
        values.setdefault("seed", secrets.randbelow(RANDOM_SEED_BOUND))
        if image_format := self._image_format():
            values["image_format"] = image_format
        return self._validate(GenerationRequest, values)

    def _read_options(self, model: str, delivery: Delivery) -> JobOptions | None:
        values = self._fields(OPTION_MEMBERS)
        # The name that was asked for becomes the id of what serves it; an unknown one is a problem already.
        if isinstance(values.get("model"), str):
            values["model"] = model
        return self._validate(JobOptions, values | {"delivery": delivery})

    def _fields(self, members: dict[str, str]) -> dict[str, Any]:
        """Return the values of fields, and note their client's names; two names with two values are a problem."""
        values: dict[str, Any] = {}
        for member, field in members.items():
            self._names.setdefault(field, member)
            if member not in self._given:
                continue
            value = self._given[member]
            if field not in values:
                values[field], self._names[field] = value, member
            elif value != values[field]:
                problem = f"contradicts {self._names[field]}, which is the same field; send one of them"
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
            problem = f"there is no model {name[:80]!a} here; loaded are {loaded}"
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
            self.problems.append(FieldProblem("stream", "streaming is not offered; leave it out or send false"))

    def _check_store(self) -> None:
        """Note what `store: false` excludes."""
        if self._given.get("store") is not False:
            return
        formats = self._given.get("response_format"), self._given.get("output_format")
        if "b64_json" not in formats and not self._given.get("sync_mode"):
            problem = "can be false only where the answer holds the images: b64_json"
            self.problems.append(FieldProblem("store", problem))
        for name in ("use_cache", "webhook_url", "expires_in"):
            if self._given.get(name):
                self.problems.append(FieldProblem(name, "has no meaning where nothing is stored; leave it out"))


def printable(name: str) -> str:
    """Return a client's member name as text that a header can carry."""
    text = name[:60].encode("ascii", "backslashreplace").decode().replace("\r", "\\r").replace("\n", "\\n")
    return text[:60].strip()


def body_schema(models: list[str] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a body. models: names that can be asked for."""
    properties: dict[str, Any] = {}
    for members, kind in ((REQUEST_MEMBERS, GenerationRequest), (OPTION_MEMBERS, JobOptions)):
        schema = kind.model_json_schema()
        documented: dict[str, str] = {}
        for member, field in members.items():
            properties[member] = _property(schema, field, documented.get(field), is_required=member in REQUIRED)
            documented.setdefault(field, member)
    size = {"title": "Image Size", "description": "Size in pixels or a preset; default 1024x768."}
    properties |= dict.fromkeys(SIZE_NAMES, SIZE_SCHEMA | size)
    properties["size"] = SIZE_SCHEMA | {"title": "Size", "description": "Alias of image_size."}
    for name, (of_value, description) in (SHAPE_MEMBERS | ANSWER_MEMBERS).items():
        properties[name] = {"anyOf": [of_value, {"type": "null"}], "description": description}
    if models:
        properties["model"]["enum"] = models
    return {
        "title": "ImagesRequest",
        "description": "Members that this server does not know are accepted and named in the answer.",
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
