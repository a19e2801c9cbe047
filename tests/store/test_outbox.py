"""The outbox: which deliveries a process leases while others are being sent."""

from allaprima.domain.accounts import ApiKey
from allaprima.errors import GenerationFailed
from allaprima.store.database import Database
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.outbox import DeliveryLimits, Outbox
from tests.clock import NOW
from tests.store.factories import new_job
from tests.store.reaping import WORKER


async def test_deliveries_that_are_sent_count_against_limits(database: Database, owner: ApiKey) -> None:
    outbox, transitions = Outbox(database), JobTransitions(database)
    for url in ("https://a.example", "https://a.example", "https://a.example", "https://b.example"):
        await transitions.admit(new_job(owner, webhook_url=url), 1000)
        job = (await transitions.lease(WORKER, NOW)).job
        assert job is not None
        assert await transitions.fail(job, NOW, GenerationFailed("no"))
    per_endpoint = DeliveryLimits(total=8, per_account=8, per_endpoint=1)
    first = await outbox.lease_due(NOW, per_endpoint)
    assert sorted(delivery.url for delivery in first) == ["https://a.example", "https://b.example"]
    sending = [delivery.id for delivery in first]
    assert await outbox.lease_due(NOW, per_endpoint, sending) == []
    assert await outbox.lease_due(NOW, DeliveryLimits(total=2, per_account=8, per_endpoint=8), sending) == []
    assert await outbox.lease_due(NOW, DeliveryLimits(total=8, per_account=2, per_endpoint=8), sending) == []
    [next_] = await outbox.lease_due(NOW, DeliveryLimits(total=8, per_account=3, per_endpoint=8), sending)
    assert next_.url == "https://a.example"
    sending.append(next_.id)
    [last] = await outbox.lease_due(NOW, DeliveryLimits(total=8, per_account=8, per_endpoint=8), sending)
    assert last.id not in sending
