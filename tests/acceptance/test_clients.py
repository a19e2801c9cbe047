"""The official OpenAI SDK and curl work as clients."""

import base64
import io
import json
import subprocess
from collections.abc import Iterator

import httpx2
import pytest
from openai import AuthenticationError, BadRequestError, OpenAI
from PIL import Image

from tests.acceptance.processes import LIMIT_S, Server, environment
from tests.programs import need

pytestmark = pytest.mark.timeout(900)

WRONG_KEY = "ap_" + "0" * 36


def client_of(server: Server, key: str) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, timeout=LIMIT_S, max_retries=0)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with client_of(server, server.key) as opened:
        yield opened


def check_image(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (512, 512))


def test_openai_sdk_gets_link(client: OpenAI) -> None:
    answer = client.images.generate(model="flux/schnell", prompt="a red apple", size="512x512", n=1)

    assert answer.data is not None
    [image] = answer.data
    assert image.b64_json is None
    assert image.url is not None
    assert answer.created > 0
    check_image(httpx2.get(image.url, timeout=LIMIT_S).raise_for_status().content)


def test_openai_sdk_gets_base64(client: OpenAI) -> None:
    answer = client.images.generate(
        model="flux/schnell", prompt="a red apple", size="512x512", n=2, response_format="b64_json"
    )

    assert answer.data is not None
    assert [image.url for image in answer.data] == [None, None]
    for image in answer.data:
        assert image.b64_json is not None
        check_image(base64.b64decode(image.b64_json, validate=True))


@pytest.mark.parametrize("key", [WRONG_KEY, "sk-another-services"])
def test_openai_sdk_raises_authentication_error(server: Server, key: str) -> None:
    with client_of(server, key) as client, pytest.raises(AuthenticationError) as caught:
        client.images.generate(model="flux/schnell", prompt="a red apple", size="512x512", n=1)

    assert caught.value.status_code == 401
    assert caught.value.code == "invalid_api_key"


def test_openai_sdk_raises_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="size") as caught:
        client.images.generate(model="flux/schnell", prompt="a red apple", size="100x512", n=1)  # type: ignore[call-overload]

    assert caught.value.status_code == 400
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param is not None
    assert caught.value.param.startswith("size")


def test_openai_sdk_lists_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["flux/schnell", "allaprima/sketch"]


def curl(*arguments: str) -> bytes:
    command = [need("curl", "is the client"), "--silent", "--show-error", "--noproxy", "*", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, timeout=LIMIT_S, check=True).stdout


def test_curl_gets_image(server: Server) -> None:
    body = {"model": "flux/schnell", "prompt": "a red apple", "image_size": "square"}

    answer = json.loads(
        curl(
            f"{server.url}/v1/images/generations",
            *("-H", f"Authorization: Bearer {server.key}"),
            *("-H", "Content-Type: application/json"),
            *("-d", json.dumps(body)),
        )
    )

    check_image(curl(answer["images"][0]["url"]))


def test_curl_without_key_is_refused_with_message(server: Server) -> None:
    answer = json.loads(curl(f"{server.url}/v1/images/generations", "-X", "POST"))

    assert answer["statusCode"] == 401
    assert "API key" in answer["message"]
