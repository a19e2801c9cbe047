"""Generate images with OpenAI's SDK: as a link, and as base64 inside the answer."""

import base64
import os
from pathlib import Path

from openai import BadRequestError, OpenAI

URL = os.environ.get("ALLAPRIMA_URL", "http://127.0.0.1:8000")
PROMPT = "a red apple, blue background"


def main() -> None:
    """Generate three images, and show the error of a refused request."""
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ["ALLAPRIMA_KEY"])

    answer = client.images.generate(model="flux/schnell", prompt=PROMPT, size="512x512")
    print(f"link: {answer.data[0].url}")

    # Fields that OpenAI's API does not have go into `extra_body`.
    answer = client.images.generate(
        model="flux/schnell",
        prompt=PROMPT,
        size="512x512",
        n=2,
        response_format="b64_json",
        extra_body={"seed": 7, "num_inference_steps": 4},
    )
    for number, image in enumerate(answer.data):
        path = Path(f"openai-{number}.png")
        path.write_bytes(base64.b64decode(image.b64_json))
        print(f"saved {path}")

    try:
        client.images.generate(model="flux/schnell", prompt=PROMPT, size="100x512")
    except BadRequestError as error:
        print(f"refused: {error.body['message']}")


if __name__ == "__main__":
    main()
