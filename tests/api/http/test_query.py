"""Query parameters: validated after authentication and before rate limits, with every error named."""

import httpx2
import pytest

from allaprima.api.v1.usage import LOGS_PER_MINUTE

PATHS = ("/v2/usage", "/v2/usage/detail", "/v2/logs", "/v2/billing/transactions", "/v1/jobs")


def problems(answer: httpx2.Response) -> dict[str, str]:
    """Return the problems of a refused request by parameter."""
    assert answer.status_code == 400
    _, _, text = answer.json()["message"].partition("Body validation error! ")
    return dict(problem.split(": ", 1) for problem in text.split("; ") if ": " in problem)


async def test_query_errors_name_every_parameter(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v2/logs?start=yesterday&model=a,b&status=done&limit=0&offset=-1&colour=red")
    assert answer.json()["error"]["param"] == "start"
    assert list(problems(answer)) == ["start", "model", "status", "limit", "offset", "colour"]


@pytest.mark.parametrize("path", PATHS)
async def test_unknown_parameter_is_refused_by_name(client: httpx2.AsyncClient, path: str) -> None:
    found = problems(await client.get(f"{path}?period=1h&colour=red"))
    assert found["colour"] == "is not a parameter of this endpoint"


async def test_name_of_unknown_parameter_is_shortened(client: httpx2.AsyncClient) -> None:
    found = problems(await client.get("/v1/jobs", params={"x" * 1000: "1"}))
    assert list(found) == ["x" * 60]


async def test_repeated_parameter_is_refused(client: httpx2.AsyncClient) -> None:
    assert problems(await client.get("/v1/jobs?limit=5&limit=5")) == {"limit": "must be given once"}
    answer = await client.get("/v1/jobs?limit=0&limit=5&group_id=a&group_id=b&status=done")
    found = problems(answer)
    assert list(found) == ["group_id", "limit", "status"]
    assert found["group_id"] == found["limit"] == "must be given once"


async def test_repeated_parameter_with_alias_is_refused(client: httpx2.AsyncClient) -> None:
    query = "from=2026-01-15T00:00:00Z&from=2026-01-16T00:00:00Z"
    assert problems(await client.get(f"/v2/billing/transactions?{query}")) == {"from": "must be given once"}


async def test_nul_is_refused_by_the_name_of_its_parameter(client: httpx2.AsyncClient) -> None:
    found = problems(await client.get("/v1/jobs?group_id=a%00&cursor=%00"))
    assert found["group_id"] == "must not contain the NUL character"
    assert list(found) == ["group_id", "cursor"]


@pytest.mark.parametrize("value", ["", "1.0", "+1", "1e1", "0x1", " 1", "\u0661", "9" * 400])
async def test_integer_parameter_accepts_decimal_digits_only(client: httpx2.AsyncClient, value: str) -> None:
    found = problems(await client.get("/v1/jobs", params={"limit": value}))
    assert found == {"limit": "must be an integer from 1 to 100"}


async def test_time_offset_with_unescaped_plus_is_accepted(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v2/usage?start=2026-01-15T00:00:00+02:00&end=2026-01-15T01:00:00")
    assert (answer.json()["start"], answer.json()["end"]) == ("2026-01-14T22:00:00.000Z", "2026-01-15T01:00:00.000Z")


@pytest.mark.parametrize("path", PATHS)
async def test_authentication_comes_before_validation(anonymous: httpx2.AsyncClient, path: str) -> None:
    for query in ("colour=red", "limit=0&limit=0", "key_prefix=unknown"):
        assert (await anonymous.get(f"{path}?{query}")).status_code == 401


async def test_invalid_request_does_not_count_against_rate_limit(client: httpx2.AsyncClient) -> None:
    for _ in range(LOGS_PER_MINUTE + 1):
        assert (await client.get("/v2/logs?period=1h&limit=0")).status_code == 400
    assert (await client.get("/v2/logs?period=1h")).status_code == 200
