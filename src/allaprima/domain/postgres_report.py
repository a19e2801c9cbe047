"""What `allaprima doctor` finds out about a PostgreSQL database."""

from dataclasses import dataclass

#: The oldest supported version of PostgreSQL.
MIN_VERSION = 13


@dataclass(frozen=True, slots=True)
class PostgresReport:
    """What was found in a database that answers, and what is needed."""

    #: As the server writes it, such as "15.18 (Debian 15.18-0+deb12u1)", and its first number.
    version: str
    major_version: int
    encoding: str
    collation: str
    #: Revision of the schema; None: the database has none, or the role may not read it.
    revision: str | None
    #: Revision that this version needs.
    newest_revision: str
    #: Whether the database has no tables.
    is_empty: bool
    #: What the role may not do, such as "INSERT into jobs".
    missing_privileges: tuple[str, ...]
    #: Whether the tables belong to the role, which alone may rewrite them after an erasure.
    is_owner: bool
    is_read_only: bool
    synchronous_commit: str
    #: Whether the server waits for the disk at all.
    fsync: bool
    max_connections: int
    #: Connections that one server of allaprima uses.
    connections_per_server: int
    #: How far the server's clock is ahead of this machine's, and the time of one statement, in seconds.
    clock_difference_s: float
    round_trip_s: float
