"""Webhooks: sends the deliveries of the outbox, each at least once. A process leases a delivery before it sends it.

The dialect of a job writes and signs its message (`domain.ports.WebhookFormat`). Only a 2xx status is a success; 410
disables the endpoint; Retry-After is honoured. The retry schedule is the example of the Standard Webhooks specification
(standard-webhooks/standard-webhooks, `spec/standard-webhooks.md`).
"""

import asyncio
import email.utils
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from allaprima.domain.clock import Clock
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.ports import WebhookFormat
from allaprima.domain.webhooks import JobEnd, LinkedImage, WebhookDelivery, WebhookEndpoint, WebhookMessage
from allaprima.errors import EndpointNotFound, FieldProblem, InvalidRequest, StoreError
from allaprima.metrics import Metrics
from allaprima.service.images import Links
from allaprima.service.outbound import OutboundUrls, UrlRefused
from allaprima.store.jobs import JobRepository
from allaprima.store.outbox import DeliveryLimits, Outbox, new_secret

logger = logging.getLogger(__name__)

#: Seconds between consecutive attempts. After the last attempt the delivery fails.
SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
TIMEOUT_S = 20.0
#: Longest Retry-After that is honoured, in seconds.
MAX_RETRY_AFTER_S = 86_400.0
#: Concurrent deliveries. An account whose receivers hang leaves room for those of 15 others.
LIMITS = DeliveryLimits(total=128, per_account=8, per_endpoint=2)
#: Seconds for which the previous secret also signs after a rotation.
OLD_SECRET_TTL_S = 86_400.0
#: Longest time between two polls of the outbox, in seconds.
POLL_INTERVAL_S = 30.0


class Webhooks:
    """Manages the endpoints and signing secrets of accounts, and wakes the sender."""

    def __init__(self, outbox: Outbox, urls: OutboundUrls, clock: Clock) -> None:
        self._outbox = outbox
        self._urls = urls
        self._clock = clock
        self._due = asyncio.Event()

    async def check(self, account_id: str, url: str) -> None:
        """Check the webhook URL of a submission; the job that it becomes creates the endpoint.

        Raises `InvalidRequest` for a URL that is not allowed or whose endpoint is disabled.
        """
        try:
            self._urls.check(url)
        except UrlRefused as exc:
            raise InvalidRequest(FieldProblem("webhook_url", str(exc))) from exc
        endpoint = await self._outbox.find(account_id, url)
        if endpoint is not None and endpoint.disabled_at is not None:
            reason = endpoint.disabled_reason or "it returned 410 or its URL was refused"
            problem = f"is disabled: {reason}; DELETE /v1/webhooks/{endpoint.id} enables it"
            raise InvalidRequest(FieldProblem("webhook_url", problem))

    async def endpoints(self, account_id: str) -> list[WebhookEndpoint]:
        """Return an account's endpoints, oldest first."""
        return await self._outbox.endpoints(account_id)

    async def delete_endpoint(self, account_id: str, endpoint_id: str) -> None:
        """Delete an endpoint and its deliveries. Raises `EndpointNotFound`."""
        if not await self._outbox.delete_endpoint(account_id, endpoint_id):
            raise EndpointNotFound

    async def secret(self, account_id: str) -> str:
        """Return an account's signing secret. The first call creates it."""
        if not (found := await self._outbox.secrets(account_id, self._clock())):
            await self._outbox.set_first_secret(account_id)
            found = await self._outbox.secrets(account_id, self._clock())
        return found[0]

    async def rotate_secret(self, account_id: str, claim: IdempotencyClaim | None = None) -> str:
        """Replace the signing secret and return the new one. A repeated claim changes nothing.

        The previous secret signs webhooks too for `OLD_SECRET_TTL_S`. Raises `IdempotencyMismatch`.
        """
        now = self._clock()
        await self._outbox.rotate_secret(account_id, new_secret(), now + OLD_SECRET_TTL_S, now, claim)
        return await self.secret(account_id)

    def wake(self) -> None:
        """Wake the sender, because a delivery may be due."""
        self._due.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when `wake` has been called since the last wait, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._due.wait()
        self._due.clear()


class WebhookSender:
    """Sends due deliveries and records their results."""

    def __init__(
        self,
        webhooks: Webhooks,
        outbox: Outbox,
        urls: OutboundUrls,
        messages: "WebhookMessages",
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._webhooks = webhooks
        self._outbox = outbox
        self._urls = urls
        self._messages = messages
        self._metrics = metrics
        self._clock = clock
        #: The deliveries that are being sent and their tasks, by id of the delivery.
        self._sending: dict[str, tuple[WebhookDelivery, asyncio.Task[None]]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send deliveries until the context exits. Pending deliveries are sent after the next start."""
        # Redirects and proxies are disabled, so that the client connects to the checked address only.
        async with httpx2.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            verify=_authorities(),
            limits=httpx2.Limits(max_connections=LIMITS.total),
            # Receivers may share an address, and none may see the cookies of another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        ) as client:
            task = asyncio.create_task(self._send_all(client))
            try:
                yield
            finally:
                # A delivery in flight is sent again, by another process or after the next start.
                interrupted = [delivery for delivery, _ in self._sending.values()]
                tasks = (task, *(one for _, one in self._sending.values()))
                for one in tasks:
                    one.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                # If the store fails, the leases end by themselves.
                with suppress(StoreError):
                    await self._outbox.release(interrupted, self._clock())

    async def _send_all(self, client: httpx2.AsyncClient) -> None:
        while True:
            wait_s = POLL_INTERVAL_S
            # The store has logged the error; the next round retries.
            with suppress(StoreError):
                now = self._clock()
                for delivery in await self._outbox.lease_due(now, LIMITS, self._sending):
                    self._sending[delivery.id] = delivery, asyncio.create_task(self._send_one(client, delivery))
                if (next_due := await self._outbox.next_due(now)) is not None:
                    wait_s = min(POLL_INTERVAL_S, max(0.05, next_due - self._clock()))
            # The end of a delivery wakes this loop, because another one may then be sent.
            await self._webhooks.wait(wait_s)

    async def _send_one(self, client: httpx2.AsyncClient, delivery: WebhookDelivery) -> None:
        try:
            # The store has logged the error. Without a recorded result the delivery is sent again when its lease ends.
            with suppress(StoreError):
                await self._send(client, delivery)
        finally:
            del self._sending[delivery.id]
            self._webhooks.wake()

    async def _send(self, client: httpx2.AsyncClient, delivery: WebhookDelivery) -> None:
        """Make one attempt, and record its result."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._post(client, delivery)
        except UrlRefused as exc:
            await self._disable(delivery, f"the URL {exc}")
            return
        # No error of one receiver may stop the other deliveries.
        except Exception as exc:  # noqa: BLE001
            self._metrics.webhook("failed")
            await self._retry(delivery, f"{type(exc).__name__}: {exc}", 0.0)
            return
        self._metrics.webhook("delivered" if response.is_success else "failed")
        if response.is_success:
            await self._outbox.delivered(delivery, self._clock())
        elif response.status_code == 410:
            await self._disable(delivery, "it returned 410 (Gone)")
        else:
            await self._retry(delivery, f"status {response.status_code}", self._retry_after(response))

    async def _disable(self, delivery: WebhookDelivery, reason: str) -> None:
        # The log has no URL, whose path or query may be a secret of the receiver.
        logger.warning("disabled the webhook endpoint %s: %s", delivery.endpoint_id, reason)
        self._metrics.webhook("disabled")
        await self._outbox.disable(delivery, reason, self._clock())

    async def _post(self, client: httpx2.AsyncClient, delivery: WebhookDelivery) -> httpx2.Response:
        target = await self._urls.resolve(delivery.url)
        message = await self._messages.write(delivery)
        headers = message.headers | {"host": target.authority}
        extensions = {"sni_hostname": target.host}
        # The body of the response is never read.
        async with client.stream(
            "POST", target.url, content=message.body, headers=headers, extensions=extensions
        ) as response:
            return response

    async def _retry(self, delivery: WebhookDelivery, error: str, at_least_s: float) -> None:
        if delivery.attempt >= len(SCHEDULE_S):
            logger.warning("webhook %s failed after %d attempts: %s", delivery.id, delivery.attempt + 1, error)
            await self._outbox.failed(delivery, error, None)
            return
        wait_s = max(SCHEDULE_S[delivery.attempt], at_least_s)
        await self._outbox.failed(delivery, error, self._clock() + wait_s)

    def _retry_after(self, response: httpx2.Response) -> float:
        """Return the seconds of a response's Retry-After, at most `MAX_RETRY_AFTER_S`; 0 without a valid one."""
        asked = response.headers.get("retry-after", "")
        if asked.isascii() and asked.isdigit():
            return min(MAX_RETRY_AFTER_S, float(asked[:9]))
        with suppress(ValueError, TypeError, OverflowError):
            wait_s = email.utils.parsedate_to_datetime(asked).timestamp() - self._clock()
            return min(MAX_RETRY_AFTER_S, max(0.0, wait_s))
        return 0.0


class WebhookMessages:
    """Writes the message of a delivery in the dialect of its job."""

    def __init__(self, jobs: JobRepository, links: Links, formats: Mapping[str, WebhookFormat], clock: Clock) -> None:
        """formats: the formats by name of their dialect; the first writes the messages of deleted jobs."""
        self._jobs = jobs
        self._links = links
        self._formats = formats
        self._clock = clock

    async def write(self, delivery: WebhookDelivery) -> WebhookMessage:
        """Return the message of a delivery, with a signature of the current time."""
        job = await self._jobs.get(delivery.job_id)
        default = next(iter(self._formats.values()))
        if job is None:
            return default.webhook(delivery, JobEnd(None, ()), self._clock())
        stored = (await self._jobs.images_of([job.id], self._clock()))[job.id]
        linked = tuple(LinkedImage(image, f"{job.options.base_url}{self._links.path(image)}") for image in stored)
        return self._formats.get(job.options.dialect, default).webhook(delivery, JobEnd(job, linked), self._clock())


@cache
def _authorities() -> ssl.SSLContext:
    """Return a TLS context with the certificates of the public authorities; loading them takes 30 ms."""
    return httpx2.create_ssl_context(trust_env=False)
