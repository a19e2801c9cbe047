"""The response of a request with `store=false`: the job succeeds, and is charged, once its client has the images."""

from fastapi import Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from allaprima.api.v1.exchange import Exchange
from allaprima.api.v1.waiting import wait_for_result
from allaprima.domain.jobs import Job
from allaprima.domain.ports import Delivery
from allaprima.service.images import JobImages

#: Bytes of a body that are passed to the connection at a time, each when most of the earlier ones are sent.
PART_BYTES = 2**16


async def deliver(job: Job, prompt: str, exchange: Exchange, wait_s: float) -> Response:
    """Wait for the result of a job with `store=false`, and return the response that delivers it.

    prompt: the prompt that the client sent. wait_s: longest wait in seconds. Raises the errors of `wait_for_result`.
    """
    delivery = exchange.service.ephemeral.delivery(job.id)
    try:
        ready = await wait_for_result(job, delivery, exchange, wait_s)
        response = exchange.result(ready.job, JobImages(ephemeral=ready.result), prompt)
    except BaseException:
        delivery.abandon()
        raise
    return DeliveryResponse(response, delivery)


class DeliveryResponse(Response):
    """Sends a response, and confirms its delivery before it ends: the connection's next request sees the job's end."""

    def __init__(self, response: Response, delivery: Delivery) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. It is not completed, so that the server closes the connection, if the delivery fails."""
        try:
            if not await self._send_body(Request(scope, receive), send):
                return
            await self._delivery.confirm()
        finally:
            self._delivery.abandon()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, request: Request, send: Send) -> bool:
        """Send headers and body; return whether the client is still there and received each part in time."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        # The last part is empty: it is sent when the connection has passed most of the others to the system.
        for start in range(0, len(body) + PART_BYTES, PART_BYTES):
            part = bytes(body[start : start + PART_BYTES])
            await send({"type": "http.response.body", "body": part, "more_body": True})
            if await request.is_disconnected() or not self._delivery.progress():
                return False
        return True
