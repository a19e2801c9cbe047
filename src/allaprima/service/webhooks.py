"""Webhooks: the outbox sent out, signed, at least once.

Signed after the Standard Webhooks specification (standard-webhooks/standard-webhooks, `spec/standard-webhooks.md`), by
its own library: `webhook-id`, `webhook-timestamp` and `webhook-signature` over id, time and body. Only a 2xx is
success; 410 disables the endpoint; Retry-After is obeyed; the schedule of tries is the specification's example.
"""

import asyncio
import email.utils
import json
import logging
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import httpx2
from standardwebhooks import Webhook

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.jobs import Job, StoredImage
from allaprima.domain.ports import Clock
from allaprima.domain.webhooks import WebhookDelivery, WebhookEndpoint
from allaprima.errors import EndpointNotFound, FieldProblem, InvalidRequest, StoreError
from allaprima.metrics import Metrics
from allaprima.service.links import Links
from allaprima.service.outbound import Addresses, Refused
from allaprima.store.jobs import JobRepository
from allaprima.store.outbox import Outbox

logger = logging.getLogger(__name__)

#: Seconds from one try to the next; after the last, the webhook is given up.
SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
TIMEOUT_S = 20.0
#: Tries at a time.
ABREAST = 8
#: Seconds that the secret before a rotation still signs.
OLD_SECRET_S = 86_400.0
SECRET_BYTES = 32
#: Longest time between two looks into the outbox.
LOOK_S = 30.0


class Webhooks:
    """Sends what the outbox holds, and keeps the endpoints."""

    def __init__(
        self, outbox: Outbox, jobs: JobRepository, links: Links, addresses: Addresses, clock: Clock, metrics: Metrics
    ) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._links = links
        self._addresses = addresses
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._metrics = metrics

    async def expect(self, account_id: str, url: str) -> None:
        """Be ready to call a URL. Raises `InvalidRequest` for one that may not be called, or that was disabled."""
        try:
            self._addresses.check_url(url)
        except Refused as exc:
            raise InvalidRequest(FieldProblem("webhook_url", str(exc))) from exc
        await self.secret(account_id)
        endpoint = await self._outbox.ensure(account_id, url, self._clock())
        if endpoint.disabled_at is not None:
            problem = "is disabled, for it answered 410 or never; remove it with DELETE /v1/webhooks/{id} to start anew"
            raise InvalidRequest(FieldProblem("webhook_url", problem))

    async def endpoints(self, account_id: str) -> list[WebhookEndpoint]:
        """Return an account's endpoints, oldest first."""
        return await self._outbox.endpoints(account_id)

    async def forget(self, account_id: str, endpoint_id: str) -> None:
        """Remove an endpoint. Raises `EndpointNotFound`."""
        if not await self._outbox.forget(account_id, endpoint_id):
            raise EndpointNotFound

    async def secret(self, account_id: str) -> str:
        """Return what signs an account's webhooks, made when it is first asked for."""
        if not (found := await self._outbox.secrets(account_id, self._clock())):
            await self._outbox.set_first_secret(account_id, _new_secret())
            found = await self._outbox.secrets(account_id, self._clock())
        return found[0]

    async def rotate(self, account_id: str, claim: IdempotencyClaim | None = None) -> str:
        """Return a new secret; the one before signs too for a day. An equal request changes nothing.

        Raises `IdempotencyMismatch`.
        """
        now = self._clock()
        await self._outbox.rotate_secret(account_id, _new_secret(), now + OLD_SECRET_S, now, claim)
        return await self.secret(account_id)

    # Sending ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send while the context lasts. What was not delivered then is tried again at the next start."""
        # No redirects, no proxies of the environment: only the address that was looked at is called.
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            task = asyncio.create_task(self._send_all(client))
            try:
                yield
            finally:
                self._stopping.set()
                # What is in flight is sent again at the next start: at least once.
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def wake(self) -> None:
        """Look into the outbox: there is something new."""
        self._wake.set()

    async def _send_all(self, client: httpx2.AsyncClient) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            # The store has logged what failed; what could not be noted is sent again.
            with suppress(StoreError):
                due = await self._outbox.due(self._clock(), ABREAST)
                await asyncio.gather(*(self._send(client, delivery) for delivery in due))
                # What one receiver set is nobody else's business, and they may share an address.
                client.cookies.clear()
                if due:
                    continue
            next_due = None
            with suppress(StoreError):
                next_due = await self._outbox.next_due()
            wait_s = LOOK_S if next_due is None else min(LOOK_S, max(0.05, next_due - self._clock()))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _send(self, client: httpx2.AsyncClient, delivery: WebhookDelivery) -> None:
        """Try once, and note what it came to."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._post(client, delivery)
        except Refused as exc:
            await self._outbox.disable(delivery, f"the URL {exc}", self._clock())
            return
        # Whatever one URL or its receiver does, the others are still sent to.
        except Exception as exc:  # noqa: BLE001
            self._metrics.webhook("failed")
            await self._try_again(delivery, f"{type(exc).__name__}: {exc}", 0.0)
            return
        self._metrics.webhook("delivered" if answer.is_success else "failed")
        if answer.is_success:
            await self._outbox.delivered(delivery, self._clock())
        elif answer.status_code == 410:
            await self._outbox.disable(delivery, "answered 410", self._clock())
        else:
            await self._try_again(delivery, f"answered {answer.status_code}", self._retry_after(answer))

    async def _post(self, client: httpx2.AsyncClient, delivery: WebhookDelivery) -> httpx2.Response:
        target = await self._addresses.find(delivery.url)
        body = json.dumps(await self._payload(delivery), separators=(",", ":"))
        headers = self._headers(delivery, body) | {"host": target.authority}
        extensions = {"sni_hostname": target.host}
        # Of the answer the status and the headers count; whatever follows them is never read.
        async with client.stream(
            "POST", target.url, content=body.encode(), headers=headers, extensions=extensions
        ) as answer:
            return answer

    def _headers(self, delivery: WebhookDelivery, body: str) -> dict[str, str]:
        at = datetime.fromtimestamp(int(self._clock()), UTC)
        signatures = [Webhook(secret).sign(delivery.id, at, body) for secret in delivery.secrets]
        return {
            "content-type": "application/json",
            "user-agent": "allaprima",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    async def _payload(self, delivery: WebhookDelivery) -> dict[str, Any]:
        job = await self._jobs.get(delivery.job_id)
        data: dict[str, Any] = {"id": delivery.job_id}
        if job is not None:
            pictures = (await self._jobs.images_of([job.id], self._clock()))[job.id]
            data = _shown(job, [self._shown_image(job, picture) for picture in pictures])
        at = datetime.fromtimestamp(delivery.created_at, UTC).isoformat(timespec="milliseconds")
        return {"type": delivery.event, "timestamp": at.replace("+00:00", "Z"), "data": data}

    def _shown_image(self, job: Job, image: StoredImage) -> dict[str, Any]:
        return {
            "id": image.id,
            "url": f"{job.terms.base_url}{self._links.path(image)}",
            "seed": image.seed,
            "sha256": image.sha256,
            "has_nsfw_concepts": image.is_flagged,
            "expires_at": int(image.expires_at),
        }

    async def _try_again(self, delivery: WebhookDelivery, error: str, at_least_s: float) -> None:
        if delivery.attempt >= len(SCHEDULE_S):
            logger.warning("webhook %s is given up after %d tries: %s", delivery.id, delivery.attempt + 1, error)
            await self._outbox.failed(delivery, error, None)
            return
        wait_s = max(SCHEDULE_S[delivery.attempt], at_least_s)
        await self._outbox.failed(delivery, error, self._clock() + wait_s)

    def _retry_after(self, answer: httpx2.Response) -> float:
        """Return the seconds that an answer asks for; a day at most."""
        asked = answer.headers.get("retry-after", "")
        if asked.isascii() and asked.isdigit():
            return min(86_400.0, float(asked[:9]))
        with suppress(ValueError, TypeError, OverflowError):
            return min(86_400.0, max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - self._clock()))
        return 0.0


def _shown(job: Job, images: list[dict[str, Any]]) -> dict[str, Any]:
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": job.id,
        "object": "job",
        "status": job.state.value,
        "group_id": job.terms.group_id,
        "model": job.terms.model,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "images": images,
        "error": error,
    }


def _new_secret() -> str:
    return f"whsec_{b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
