"""The tree of errors: its drawing, and the message, code, HTTP status and attributes of each class."""

import inspect
import re

import pytest

from allaprima import errors
from allaprima.api.errors import STATUS, status_of
from allaprima.errors import (
    Busy,
    Draining,
    Error,
    FieldProblem,
    GenerationTimeout,
    ImageLimitReached,
    InvalidRequest,
    JobFinished,
    JobNotFound,
    JobUnfinished,
    KeyLimitReached,
    OutOfCredits,
    QueueFull,
    RateLimited,
    ScopeMissing,
    StarLimitReached,
)

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Error)]
#: Classes whose message is not their docstring alone.
WITH_DETAILS = (ScopeMissing, JobFinished, JobUnfinished, StarLimitReached)
STATUSES = {
    "IdempotencyMismatch": 422,
    "IdempotencyInFlight": 409,
    "Forbidden": 403,
    "ScopeMissing": 403,
    "ManagementOnly": 403,
    "OrdinaryOnly": 403,
    "OutOfCredits": 403,
    "KeyLimitReached": 403,
    "ForeignRequest": 403,
    "AccountNotFound": 404,
    "ModelNotFound": 404,
    "EndpointNotFound": 404,
    "Conflict": 409,
    "JobFinished": 409,
    "JobUnfinished": 409,
    "StartDeadlineMissed": 504,
    "Error": 500,
    "InvalidRequest": 400,
    "Unauthorized": 401,
    "SignInTokenInvalid": 401,
    "NotFound": 404,
    "JobNotFound": 404,
    "ImageNotFound": 404,
    "KeyNotFound": 404,
    "Busy": 503,
    "QueueFull": 429,
    "RateLimited": 429,
    "Draining": 503,
    "StorageLimitReached": 507,
    "StarLimitReached": 507,
    "ImageLimitReached": 507,
    "GenerationTimeout": 504,
    "GenerationFailed": 500,
    "Cancelled": 409,
    "WeightsError": 500,
    "WeightsMissing": 500,
    "WeightsCorrupt": 500,
    "WeightsUnsafe": 500,
    "WeightsTooLarge": 500,
    "PullFailed": 500,
    "SettingsError": 500,
    "StoreError": 500,
    "StoreFull": 507,
    "DatabaseUnavailable": 503,
    "ImageStoreUnavailable": 503,
    "ImageDamaged": 500,
    "StoreLocked": 500,
    "StoreUnreachable": 500,
}


def create(kind: type[Error]) -> Error:
    """Return an error of that class with its default message."""
    if issubclass(kind, RateLimited):
        return kind(5, retry_after_s=3)
    if issubclass(kind, Busy):
        return kind(retry_after_s=3)
    if issubclass(kind, (*WITH_DETAILS, GenerationTimeout)):
        return kind("0190")
    return kind()


@pytest.mark.parametrize("kind", CLASSES)
def test_docstring_is_default_message(kind: type[Error]) -> None:
    assert "__doc__" in vars(kind)
    assert kind.__doc__
    if not issubclass(kind, (*WITH_DETAILS, RateLimited)):
        assert str(create(kind)) == create(kind).message == kind.__doc__


@pytest.mark.parametrize("kind", CLASSES)
def test_error_codes_are_unique(kind: type[Error]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", vars(kind)["code"])
    assert [other for other in CLASSES if other.code == kind.code] == [kind]


def test_every_error_has_http_status() -> None:
    assert {kind.__name__: status_of(create(kind)) for kind in CLASSES} == STATUSES


def test_status_table_names_only_existing_errors() -> None:
    assert set(STATUS) <= set(CLASSES)


def test_documented_tree_matches_error_classes() -> None:
    assert errors.__doc__
    parents: list[str] = []
    drawn = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^(Error):$|^([ │]*)[├└]── (\w+)", line)
        if found:
            depth = 0 if found[1] else len(found[2]) // 4
            name = found[1] or found[3]
            parents[depth:] = [name]
            drawn[name] = parents[depth - 1] if depth else None
    actual = {kind.__name__: kind.__base__.__name__ if kind is not Error else None for kind in CLASSES}
    assert drawn == actual


def test_error_accepts_message() -> None:
    assert str(JobNotFound("no job 7")) == "no job 7"
    assert JobNotFound("no job 7").message == "no job 7"


def test_invalid_request_names_every_field() -> None:
    error = InvalidRequest(FieldProblem("n", "must be from 1 to 4"), FieldProblem("size.width", "must be an integer"))
    assert str(error) == "n: must be from 1 to 4; size.width: must be an integer"
    assert [problem.field for problem in error.problems] == ["n", "size.width"]


def test_errors_have_attributes_for_client() -> None:
    assert QueueFull(retry_after_s=2.5).retry_after_s == 2.5
    assert RateLimited(5, retry_after_s=2.5).limit == 5
    assert GenerationTimeout("0190").job_id == "0190"


def test_error_of_continuing_job_forbids_retry() -> None:
    assert GenerationTimeout("0190").retryable is False
    assert Draining(retry_after_s=5, job_id="0190").retryable is False
    assert Draining(retry_after_s=5).retryable is None


def test_refusals_count_only_capacity_and_credits() -> None:
    refusals = {kind for kind in CLASSES if kind.is_refusal}
    assert refusals == {
        OutOfCredits,
        KeyLimitReached,
        ImageLimitReached,
        *(kind for kind in CLASSES if issubclass(kind, Busy)),
    }
