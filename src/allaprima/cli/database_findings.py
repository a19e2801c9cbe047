"""The checks of `allaprima doctor` on a PostgreSQL database."""

from allaprima.bootstrap.operator import report_database
from allaprima.cli.finding import Finding
from allaprima.domain.database_url import place_of
from allaprima.domain.postgres_report import MIN_VERSION, PostgresReport
from allaprima.errors import SettingsError, StoreError
from allaprima.settings import StoreSettings

#: Difference of the clocks from which a warning is given, in seconds.
LARGEST_CLOCK_DIFFERENCE_S = 1.0


def check_postgres(settings: StoreSettings) -> list[Finding]:
    """Check the configured PostgreSQL database: from its server and its schema to its clock and its privileges."""
    try:
        report = report_database(settings)
    except (SettingsError, StoreError) as exc:
        return [Finding("database", exc.message, is_ok=False, is_required=True)]
    assert settings.database_url is not None
    return [
        _server(report, place_of(settings.database_url.get_secret_value())),
        _schema(report),
        _text(report),
        _clock(report),
        _privileges(report),
        _commits(report),
        _connections(report),
    ]


def _server(report: PostgresReport, place: str) -> Finding:
    is_ok = report.major_version >= MIN_VERSION
    message = f"PostgreSQL {report.version} at {place}; one round trip takes {report.round_trip_s * 1000:.1f} ms"
    if not is_ok:
        message = f"PostgreSQL {report.version} at {place}; allaprima needs version {MIN_VERSION} or later"
    return Finding("database", message, is_ok, is_required=True)


def _schema(report: PostgresReport) -> Finding:
    name, newest = "database schema", report.newest_revision
    if report.is_empty:
        return Finding(name, "the database is empty; `allaprima serve` or `allaprima migrate` creates the tables")
    if report.revision is None and report.missing_privileges:
        return Finding(name, "the role may not read it", is_ok=False, is_required=True)
    if report.revision is None:
        message = "the database has tables of another program; use an empty one"
        return Finding(name, message, is_ok=False, is_required=True)
    if report.revision != newest:
        message = f"{report.revision}, and this version needs {newest}; run `allaprima migrate`, or start the version "
        return Finding(name, f"{message}that wrote it", is_ok=False, is_required=True)
    return Finding(name, f"{newest}, the newest", is_required=True)


def _text(report: PostgresReport) -> Finding:
    message = f"encoding {report.encoding}, collation {report.collation}"
    if report.encoding != "UTF8":
        message = f"{message}; allaprima needs a database with the encoding UTF8"
        return Finding("database text", message, is_ok=False, is_required=True)
    return Finding("database text", f"{message}; allaprima compares text by its bytes", is_required=True)


def _clock(report: PostgresReport) -> Finding:
    seconds = report.clock_difference_s
    message = f"{abs(seconds):.3f} s {'ahead of' if seconds >= 0 else 'behind'} this machine's"
    if abs(seconds) < LARGEST_CLOCK_DIFFERENCE_S:
        return Finding("database clock", message)
    message = f"{message}; synchronise both, since the database's clock counts"
    return Finding("database clock", message, is_ok=False, failure="warning")


def _privileges(report: PostgresReport) -> Finding:
    name = "database privileges"
    if report.is_read_only:
        message = "the role or the server only reads, and allaprima writes"
        return Finding(name, message, is_ok=False, is_required=True)
    if report.missing_privileges:
        message = f"the role may not {', '.join(report.missing_privileges[:5])}"
        return Finding(name, message, is_ok=False, is_required=True)
    if not report.is_owner:
        message = "the role does not own the tables, so it can neither upgrade them nor rewrite them after an erasure"
        return Finding(name, message, is_ok=False, failure="warning")
    return Finding(name, "the role may read and write, and owns the tables", is_required=True)


def _commits(report: PostgresReport) -> Finding:
    message = f"synchronous_commit {report.synchronous_commit}, fsync {'on' if report.fsync else 'off'}"
    if report.synchronous_commit != "off" and report.fsync:
        return Finding("database commits", message)
    message = f"{message}: a crash of the database loses accepted jobs; turn both on"
    return Finding("database commits", message, is_ok=False, failure="warning")


def _connections(report: PostgresReport) -> Finding:
    servers = report.max_connections // report.connections_per_server
    message = (
        f"max_connections {report.max_connections}; a server of allaprima uses {report.connections_per_server}, so "
        f"at most {servers} fit"
    )
    return Finding("database connections", message, servers > 0, failure="warning")
