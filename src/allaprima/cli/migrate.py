"""`allaprima migrate`: upgrades the schema of the database."""

from allaprima.cli.errors import console, reported_errors
from allaprima.cli.options import DatabaseUrl, DataDir, store_settings


def migrate(data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Upgrade the database's schema to that of this version.

    `allaprima serve` does it by itself for a data folder and for an empty database.
    """
    with reported_errors():
        import asyncio

        from allaprima.bootstrap.operator import migrate as migrate_database

        done = asyncio.run(migrate_database(store_settings(data_dir, database_url)))
    if done.before is None:
        outcome = f"was empty, and has the schema {done.after} now"
    elif done.before == done.after:
        outcome = f"has the newest schema, {done.after}, already"
    else:
        outcome = f"had the schema {done.before}, and has {done.after} now"
    console.print(f"the database {done.place} {outcome}", markup=False)
