"""Settings to a running service."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

from allaprima.api.dialects import DIALECTS
from allaprima.bootstrap.hints import open_hints
from allaprima.bootstrap.operator import operator_service
from allaprima.domain.clock import Clock, Clocks, SteadyClock
from allaprima.domain.ports import Engine, Hints
from allaprima.metrics import Metrics
from allaprima.service.accounts.erasure import Erasure
from allaprima.service.accounts.no_auth import renew_local_key, require_single_account
from allaprima.service.accounts.prices import Prices
from allaprima.service.accounts.rate_limits import MemoryRateLimiter
from allaprima.service.app import Service
from allaprima.service.archive import Archives
from allaprima.service.cleanup import Cleaner
from allaprima.service.image_space import ImageSpace
from allaprima.service.images import ImageService, Links
from allaprima.service.jobs.admission import Admission
from allaprima.service.jobs.cancellation import Cancellation
from allaprima.service.jobs.dispatcher import Dispatcher
from allaprima.service.jobs.ephemeral import MemoryEphemeralResults
from allaprima.service.jobs.estimates import Estimates
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.image_writer import ImageWriter
from allaprima.service.jobs.news import JobNews
from allaprima.service.jobs.positions import QueuePositions
from allaprima.service.jobs.queue import JobQueue
from allaprima.service.jobs.queue_monitor import QueueMonitor
from allaprima.service.jobs.reporter import JobReporter
from allaprima.service.jobs.result_cache import ResultCache
from allaprima.service.jobs.results import ResultStore
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.jobs.service import JobService
from allaprima.service.jobs.shared_events import SharedEventBus
from allaprima.service.jobs.signal import MemoryQueueSignal, SharedQueueSignal
from allaprima.service.jobs.worker import Worker
from allaprima.service.lifecycle import Lifecycle
from allaprima.service.models import Models
from allaprima.service.operator import OperatorService
from allaprima.service.outbound import OutboundUrls, Resolve, resolve
from allaprima.service.policy import Policy
from allaprima.service.sign_in import SignIn
from allaprima.service.thumbnails import Thumbnails
from allaprima.service.timekeeper import DatabaseTimekeeper, Timekeeper, boot_id, elapsed
from allaprima.service.webhooks import WebhookMessages, Webhooks, WebhookSender
from allaprima.settings import Settings
from allaprima.store.clock import ClockRepository
from allaprima.store.database import Database
from allaprima.store.erasure import ErasureRepository
from allaprima.store.idempotency import IdempotencyRepository
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.ledger import LedgerRepository
from allaprima.store.objects.open import open_objects
from allaprima.store.open import open_database
from allaprima.store.outbox import Outbox
from allaprima.store.reaper import Reaper
from allaprima.store.secret import open_secret
from allaprima.store.usage import UsageRepository
from allaprima.store.workers import WorkerRepository


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    engine: Engine | None = None,
    clock: Clock | None = None,
    monotonic: Clock = elapsed,
    resolve: Resolve = resolve,
) -> AsyncIterator[Service]:
    """Open the database and run the service until the context exits.

    engine: replaces the local engine. clock: replaces the system's clock, and that of a shared database. resolve:
    resolves the host names of webhook URLs. Raises `StoreLocked`, `StoreError`, `WeightsError` or `SettingsError`.
    """
    if engine is None:
        # Imported here because it loads torch, which the other commands do not need.
        from allaprima.engine.build import build_engine

        engine = build_engine(settings.engine)
    database = await open_database(settings.store)
    try:
        clocks = Clocks(clock or time.time, monotonic)
        follows_database = clock is None and database.is_shared
        async with (
            open_hints(settings.store) as hints,
            _run(settings, database, hints, engine, clocks, resolve, follows_database=follows_database) as service,
        ):
            yield service
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class _Stores:
    """The repositories that the jobs need, and the hints of the other processes."""

    jobs: JobRepository
    transitions: JobTransitions
    workers: WorkerRepository
    reaper: Reaper
    images: ImageRepository
    outbox: Outbox
    links: Links
    hints: Hints
    #: Whether several processes may have the database open.
    is_shared: bool


async def _stores(settings: Settings, database: Database, hints: Hints, clock: SteadyClock) -> _Stores:
    return _Stores(
        jobs=JobRepository(database),
        transitions=JobTransitions(database),
        workers=WorkerRepository(database),
        reaper=Reaper(database),
        images=ImageRepository(database, await open_objects(settings.store, may_be_away=True)),
        outbox=Outbox(database),
        links=Links(await open_secret(database, settings.store.data_dir), clock),
        hints=hints,
        is_shared=database.is_shared,
    )


@dataclass(frozen=True, slots=True)
class _Jobs:
    """The parts that queue, run and answer jobs."""

    lifecycle: Lifecycle
    eta: Eta
    ephemeral: MemoryEphemeralResults
    cache: ResultCache
    queue: JobQueue
    worker: Worker
    dispatcher: Dispatcher
    positions: QueuePositions
    service: JobService
    cancellation: Cancellation
    #: None: no other process runs jobs.
    news: JobNews | None


def _jobs(
    settings: Settings,
    stores: _Stores,
    engine: Engine,
    clocks: Clocks,
    metrics: Metrics,
    webhooks: Webhooks,
    prices: Prices,
) -> _Jobs:
    clock, jobs, transitions, images = clocks.unix, stores.jobs, stores.transitions, stores.images
    bus: MemoryEventBus = MemoryEventBus(clock, clocks.monotonic)
    signal, ephemeral = MemoryQueueSignal(), MemoryEphemeralResults()
    if stores.is_shared:
        bus = SharedEventBus(clock, clocks.monotonic, stores.hints)
        signal = SharedQueueSignal(stores.hints)
    lifecycle, eta = Lifecycle(bus, signal), Eta(engine.max_concurrency)
    reporter = JobReporter(bus, eta, metrics, webhooks, clock)
    image_ttl_s = settings.store.image_ttl_s
    cache = ResultCache(jobs, transitions, images, engine, prices, reporter, image_ttl_s)
    results = ResultStore(ImageWriter(images, lifecycle), ephemeral, cache, prices, clock, image_ttl_s)
    runner = JobRunner(engine, transitions, results, reporter, eta, lifecycle, clock)
    worker = Worker(stores.workers, transitions, runner, lifecycle, clocks, engine.max_concurrency)
    monitor = QueueMonitor(worker, stores.reaper, transitions, reporter, lifecycle, clock)
    positions = QueuePositions(jobs, eta, bus, lifecycle, clock)
    service = JobService(jobs, transitions, images, bus, positions, lifecycle)
    news = None
    if isinstance(bus, SharedEventBus) and isinstance(signal, SharedQueueSignal):
        news = JobNews(stores.hints, jobs, runner, bus, signal)
    return _Jobs(
        lifecycle=lifecycle,
        eta=eta,
        ephemeral=ephemeral,
        cache=cache,
        queue=JobQueue(jobs, transitions, eta, signal, worker, clocks, settings.engine.queue_size),
        worker=worker,
        dispatcher=Dispatcher(worker, monitor, engine, runner, reporter, signal, lifecycle),
        positions=positions,
        service=service,
        cancellation=Cancellation(service, jobs, transitions, runner, reporter, stores.hints, clock),
        news=news,
    )


@asynccontextmanager
async def _run(
    settings: Settings,
    database: Database,
    hints: Hints,
    engine: Engine,
    system: Clocks,
    resolve: Resolve,
    *,
    follows_database: bool,
) -> AsyncIterator[Service]:
    clock = SteadyClock(system)
    clocks = Clocks(clock, system.monotonic)
    stores, metrics = await _stores(settings, database, hints, clock), Metrics()
    images, outbox, links = stores.images, stores.outbox, stores.links
    prices = Prices.for_models(settings.billing.prices, engine)
    urls = OutboundUrls(settings.webhooks.allowed_networks, resolve)
    webhooks = Webhooks(outbox, urls, clock)
    sender = WebhookSender(webhooks, outbox, urls, WebhookMessages(stores.jobs, links, DIALECTS, clock), metrics, clock)
    jobs = _jobs(settings, stores, engine, clocks, metrics, webhooks, prices)
    cleaner = Cleaner(stores.transitions, images, IdempotencyRepository(database), outbox, clock, settings.store)
    erasure = Erasure(ErasureRepository(database), images, jobs.cancellation.cancel_account, clock)
    is_single_account = not settings.server.requires_key
    # Servers that share a database would each create an account and a key.
    operator = operator_service(
        database, clock, erasure.erase, is_single_account=is_single_account, makes_first_account=not database.is_shared
    )
    space = ImageSpace(images, clock, settings.store.max_image_bytes)
    estimates = Estimates(stores.jobs, engine, jobs.eta, prices, clock)
    records = ClockRepository(database)
    timekeeper: Timekeeper | DatabaseTimekeeper = (
        DatabaseTimekeeper(records, clock, system.monotonic, jobs.lifecycle)
        if follows_database
        else Timekeeper(records, clock, jobs.lifecycle, boot_id())
    )
    async with (
        timekeeper.running(),
        cleaner.running(),
        sender.running(),
        jobs.positions.publishing(),
        jobs.news.running() if jobs.news else nullcontext(),
        jobs.worker.registered(),
        jobs.dispatcher.running(),
    ):
        yield Service(
            operator=operator,
            admission=Admission(estimates, jobs.cache, jobs.queue, webhooks, space, jobs.lifecycle, metrics),
            jobs=jobs.service,
            cancellation=jobs.cancellation,
            images=ImageService(
                images,
                stores.jobs,
                links,
                clock,
                settings.store.max_starred_bytes,
                redirects_links=settings.store.redirects_links,
            ),
            thumbnails=Thumbnails(images, clock),
            archives=Archives(images, clock),
            space=space,
            ephemeral=jobs.ephemeral,
            models=Models(engine, has_fallback=settings.engine.has_fallback),
            webhooks=webhooks,
            prices=prices,
            policy=_policy(settings),
            rates=MemoryRateLimiter(clocks.monotonic, settings.server.requests_per_minute, metrics),
            roster=engine,
            lifecycle=jobs.lifecycle,
            clock=clock,
            metrics=metrics,
            job_records=stores.jobs,
            ledger=LedgerRepository(database),
            usage=UsageRepository(database),
            first_key=None if database.is_shared else await operator.keys.create_first(),
            local_key=await _local_key(settings, operator),
            sign_in=SignIn(operator, clocks),
        )


async def _local_key(settings: Settings, operator: OperatorService) -> str | None:
    if settings.server.requires_key:
        return None
    require_single_account(await operator.account_records.all())
    return await renew_local_key(operator.keys)


def _policy(settings: Settings) -> Policy:
    engine = settings.engine
    return Policy(
        max_side=engine.max_side,
        max_steps=engine.max_steps,
        max_count=engine.max_images,
        max_image_ttl_s=settings.store.max_image_ttl_s,
        default_safety_threshold=engine.safety_threshold,
        lowest_safety_threshold=engine.lowest_safety_threshold,
        highest_safety_threshold=engine.highest_safety_threshold,
        safety_is_optional=engine.safety_is_optional,
    )
