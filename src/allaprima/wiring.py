"""The composition root: settings to a running service. The only place that chooses implementations."""

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import torch

from allaprima.engine.painter import Painter
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.runner import Engine as LocalEngine
from allaprima.engine.safety import SafetyChecker
from allaprima.errors import SettingsError
from allaprima.flux import CancelCheck, never_cancelled
from allaprima.kernels import library
from allaprima.metrics import Metrics
from allaprima.request import ModelInfo, Precision
from allaprima.service.accounts import AccountBook
from allaprima.service.addresses import Addresses, Resolve, resolve
from allaprima.service.admission import Admission
from allaprima.service.dispatcher import Dispatcher
from allaprima.service.events import Events
from allaprima.service.housekeeping import Housekeeper
from allaprima.service.jobs import JobService
from allaprima.service.keys import KeyRing
from allaprima.service.limits import Limits
from allaprima.service.links import Links
from allaprima.service.models import Models
from allaprima.service.ports import Clock, Engine
from allaprima.service.prices import Prices
from allaprima.service.rates import Rates
from allaprima.service.safety import SafetyPolicy
from allaprima.service.service import OperatorService, Service
from allaprima.service.usage import Usage
from allaprima.service.webhooks import Webhooks
from allaprima.settings import BillingSettings, EngineSettings, Price, Settings
from allaprima.store.database import Database, open_database
from allaprima.store.idempotency import Claims
from allaprima.store.images import Images
from allaprima.store.jobs import Jobs
from allaprima.store.keys import Accounts, Keys
from allaprima.store.ledger import Ledger
from allaprima.store.outbox import Outbox
from allaprima.store.secret import read_secret
from allaprima.store.transitions import Transitions
from allaprima.store.usage import UsageBook
from allaprima.weights.catalog import CATALOG, find, find_path, sketch_folder
from allaprima.weights.model import open_model
from allaprima.weights.networks import ModelFiles
from allaprima.weights.precision import can_run, footprint
from allaprima.weights.pulled import default_folder

logger = logging.getLogger(__name__)

IMAGES_FOLDER = "images"
#: One picture of a model of no more bytes does not keep the cores busy, and memory has room for several.
SMALL_BYTES = 2**28
#: Most pictures painted at a time.
MAX_ABREAST = 4


def build_engine(settings: EngineSettings) -> LocalEngine:
    """Return an engine that will load the built-in model and the configured folders.

    Raises `WeightsError` when a folder's files are missing or are something else, `SettingsError` for a device that
    is not here.
    """
    prepare_device(settings)
    opened = open_models(settings)

    def load(check: CancelCheck) -> Mapping[str, Painter]:
        safety = SafetyChecker.load()
        return {files.id: build_painter(files, safety, settings, check) for files in opened}

    tokenizers = {files.id: files.tokenizers[0] for files in opened}
    return LocalEngine(tuple(_info(files) for files in opened), load, tokenizers, _abreast(settings, opened))


def _abreast(settings: EngineSettings, opened: list[ModelFiles]) -> int:
    """Return how many pictures are painted at a time: one a core, where every model is small and the device a CPU.

    Then each has more threads or fewer, by what is beside it; only our kernels promise the same bits whatever they are.
    """
    has_kernels = settings.device == "cpu" and library.level() >= library.IsaLevel.AVX512
    is_bf16 = settings.precision in (None, Precision.BF16.value)
    is_small = all(footprint(files.config, Precision.FP32).whole <= SMALL_BYTES for files in opened)
    return min(MAX_ABREAST, torch.get_num_threads()) if has_kernels and is_bf16 and is_small else 1


def build_painter(
    files: ModelFiles, safety: SafetyChecker, settings: EngineSettings, check: CancelCheck = never_cancelled
) -> Painter:
    """Read a model and return what paints with it. Raises `WeightsError`, and whatever `check` raises."""
    precision = Precision(settings.precision) if settings.precision else None
    model = files.load(settings.device, precision, check)
    logger.info("%s is loaded in %s, revision %s", model.id, model.precision, model.revision)
    return Painter(Pipeline(model, settings.device), safety, settings.safety_threshold)


def prepare_device(settings: EngineSettings) -> None:
    """Look whether the device is here and can what is asked, and give the CPU its threads. Raises `SettingsError`."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"engine.device = {settings.device!r}: this machine has no such device; use cpu")
    if settings.precision and not can_run(Precision(settings.precision), settings.device):
        raise SettingsError(
            f"engine.precision = {settings.precision!r} needs a GPU that multiplies float8 (compute capability 8.9 or "
            f"more), which engine.device = {settings.device!r} is not; use int8"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)


def open_models(settings: EngineSettings) -> list[ModelFiles]:
    """Return the built-in model's files and those of the configured ones, none read yet. Raises `WeightsError`."""
    weights_dir = settings.weights_dir or default_folder()
    named = (find_path(model, weights_dir) for model in settings.models)
    paths = {path.resolve(): None for path in (sketch_folder(), *named)}
    opened = [open_model(path, settings.tokenizer_dir, weights_dir) for path in paths]
    ids = [files.id for files in opened]
    if twice := {model_id for model_id in ids if ids.count(model_id) > 1}:
        raise SettingsError(f"engine.models: more than one path holds the model {', '.join(sorted(twice))}")
    return opened


def _info(files: ModelFiles) -> ModelInfo:
    entry = find(files.id)
    return ModelInfo(files.id, "", entry.name if entry else files.id, entry.description if entry else "")


@asynccontextmanager
async def open_service(
    settings: Settings, *, engine: Engine | None = None, clock: Clock = time.time, resolve: Resolve = resolve
) -> AsyncIterator[Service]:
    """Open the data folder and run the service while the context lasts.

    engine: another than the local one. resolve: how the names in webhooks' URLs become addresses. Raises `StoreLocked`,
    `WeightsError` or `SettingsError`.
    """
    engine = engine or build_engine(settings.engine)
    database = await open_database(settings.store.data_dir)
    try:
        secret = read_secret(settings.store.data_dir)
        operator = _operator(database, secret, clock)
        images = Images(database, settings.store.data_dir / IMAGES_FOLDER)
        jobs, transitions, events = Jobs(database), Transitions(database), Events(clock)
        metrics, image_ttl_s = Metrics(), settings.store.image_ttl_s
        prices, links = _prices(settings.billing, engine), Links(secret)
        addresses = Addresses(settings.webhooks.allowed_networks, resolve)
        outbox = Outbox(database)
        webhooks = Webhooks(outbox, jobs, links, addresses, clock, metrics)
        dispatcher = Dispatcher(
            jobs, transitions, images, engine, clock, events, prices, webhooks, metrics, image_ttl_s=image_ttl_s
        )
        admission = Admission(
            jobs,
            transitions,
            images,
            engine,
            clock,
            dispatcher,
            prices,
            webhooks,
            queue_size=settings.engine.queue_size,
            image_ttl_s=image_ttl_s,
        )
        housekeeper = Housekeeper(images, Claims(database), outbox, clock, settings.store.sweep_every_s)
        async with housekeeper.running(), webhooks.running(), dispatcher.running():
            yield Service(
                accounts=operator.accounts,
                keys=operator.keys,
                jobs=JobService(jobs, transitions, images, clock, dispatcher, admission, events),
                usage=Usage(UsageBook(database)),
                prices=prices,
                safety=_safety(settings.engine),
                limits=Limits(settings.engine.max_side, settings.engine.max_steps, settings.engine.max_images),
                webhooks=webhooks,
                models=Models(engine, has_stand_in=settings.engine.has_stand_in),
                links=links,
                rates=Rates(clock, settings.server.requests_per_minute),
                engine=engine,
                clock=clock,
                metrics=metrics,
                max_image_ttl_s=settings.store.max_image_ttl_s,
                first_key=await operator.keys.create_first(),
            )
    finally:
        await database.close()


def _prices(settings: BillingSettings, engine: Engine) -> Prices:
    """Return the prices by the models' ids, whichever name they were given by.

    Raises `SettingsError` for a name that no model has.
    """
    loaded = {info.id for info in engine.models}
    table: dict[str, Price] = {}
    for name, price in settings.prices.items():
        entry = find(name)
        if entry is None and name not in loaded:
            known = ", ".join(sorted({*loaded, *(one.id for one in CATALOG)}))
            raise SettingsError(f"billing.prices: there is no model {name!r}; known are {known}")
        table[entry.id if entry else name] = price
    return Prices(table)


def _safety(settings: EngineSettings) -> SafetyPolicy:
    return SafetyPolicy(
        default=settings.safety_threshold,
        lowest=settings.lowest_safety_threshold,
        highest=settings.highest_safety_threshold,
        is_optional=settings.safety_is_optional,
    )


def _operator(database: Database, secret: bytes, clock: Clock) -> OperatorService:
    accounts = Accounts(database)
    return OperatorService(
        AccountBook(accounts, Ledger(database), clock), KeyRing(Keys(database), accounts, clock, secret)
    )


@asynccontextmanager
async def open_operator(settings: Settings, *, clock: Clock = time.time) -> AsyncIterator[OperatorService]:
    """Open the data folder for its accounts and keys alone, without an engine.

    Raises `StoreLocked` when a server has it.
    """
    database = await open_database(settings.store.data_dir)
    try:
        yield _operator(database, read_secret(settings.store.data_dir), clock)
    finally:
        await database.close()
