"""Every statement of the store that is correct only because one transaction writes at a time.

Each entry names a race: two transactions that a backend with concurrent writers could interleave. A test of the same
name in tests/store/test_races.py runs them concurrently on every backend. A backend that lets several transactions
write at a time prevents each race as its entry says; its writes are READ COMMITTED and take their locks in one order:
idempotency record, job, key, account, usage bucket, admission lock.

Not listed: single conditional statements (`UPDATE ... WHERE state = ...`), which are correct on every backend, and
`outbox.due`, which relies on one sender process rather than on one writer.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Race:
    """A race between two transactions that a single writer prevents."""

    #: The name of its test without `test_`.
    name: str
    #: Path of the function with the statements, below `allaprima.store`.
    function: str
    #: The wrong result of two concurrent writers.
    hazard: str
    #: The locks or clauses that prevent the race in PostgreSQL.
    postgresql: str


RACES = (
    Race(
        "queue_holds_no_more_jobs_than_its_size",
        "job_transitions._admit",
        "Both count one job less than the queue holds, and both insert.",
        "pg_advisory_xact_lock of the queue before the count, held until the commit.",
    ),
    Race(
        "jobs_of_key_have_distinct_turns",
        "fair_queue.next_turn",
        "Both read the same last turn of the key, and two jobs get one turn.",
        "Under the advisory lock of the queue, with the count and the insert.",
    ),
    Race(
        "disabled_key_admits_no_job",
        "job_transitions._admit",
        "The key is read as valid, then disabled by another transaction, and the job is inserted afterwards.",
        "SELECT ... FOR KEY SHARE of the key before the insert; disabling and revoking it take FOR UPDATE.",
    ),
    Race(
        "every_job_is_leased_once",
        "fair_queue.take_next",
        "Both read the same head and lease it with one attempt number, or both swap turns with it and lose a turn.",
        "FOR UPDATE SKIP LOCKED on the head and on the key's most urgent job; the lease checks its row count.",
    ),
    Race(
        "usage_bucket_counts_every_job",
        "charges._add_to_bucket",
        "Both find no bucket to update, and the second insert violates the primary key: its job does not end.",
        "INSERT ... ON CONFLICT DO UPDATE SET x = usage_buckets.x + excluded.x.",
    ),
    Race(
        "key_holds_no_more_than_its_limit",
        "charges.hold",
        "Both read what the key has spent and holds, and both hold the last credits below its limit.",
        "SELECT ... FOR NO KEY UPDATE of the key before the check.",
    ),
    Race(
        "no_charge_of_key_is_lost",
        "charges._capture",
        "Both read the key's sums and write what they computed: one charge and one release are lost.",
        "SELECT ... FOR NO KEY UPDATE of the key first, always before the account.",
    ),
    Race(
        "key_prefix_is_stored_once",
        "keys._is_taken",
        "Both find the prefix free, and the second insert or rotation violates the unique constraint.",
        "INSERT ... ON CONFLICT DO NOTHING RETURNING; a rotation in a savepoint, with its unique violation caught.",
    ),
    Race(
        "new_limit_counts_every_charge",
        "keys.KeyRepository.change",
        "The sum of the charges is read, another transaction charges the key, and the older sum is written.",
        "SELECT ... FOR NO KEY UPDATE of the key before the sum.",
    ),
    Race(
        "replayed_requests_create_one_job",
        "idempotency.find_resource",
        "Both find no record, and both create a job.",
        "Before the job, INSERT ... ON CONFLICT DO UPDATE ... WHERE the record has expired RETURNING; a transaction "
        "that gets no row reads the record.",
    ),
    Race(
        "expired_record_is_replaced_once",
        "idempotency.record_resource",
        "Both delete the record and insert their own: the second violates the primary key, or deletes the first's.",
        "The same INSERT ... ON CONFLICT DO UPDATE; nothing is deleted.",
    ),
    Race(
        "webhook_url_has_one_endpoint",
        "outbox.add_endpoint",
        "Both find no endpoint, and the second insert violates the unique constraint.",
        "INSERT ... ON CONFLICT (account_id, url) DO NOTHING RETURNING, then a read.",
    ),
    Race(
        "deleted_endpoint_leaves_no_delivery",
        "outbox.Outbox.delete_endpoint",
        "A job ends between the deletion of the deliveries and of the endpoint: the foreign key refuses the second.",
        "SELECT ... FOR UPDATE of the endpoint before its deliveries are deleted.",
    ),
    Race(
        "job_ends_while_endpoint_is_deleted",
        "outbox.enqueue",
        "The endpoint is read, then deleted or disabled by another transaction: the insert violates the foreign key, "
        "so that the job does not end, or the delivery of a disabled endpoint is never removed.",
        "SELECT ... FOR KEY SHARE of the endpoint; disabling and deleting it take FOR UPDATE.",
    ),
    Race(
        "replayed_request_rotates_secret_once",
        "outbox.Outbox.rotate_secret",
        "Both find no record, and both rotate: the secret that was valid before is lost.",
        "The idempotency record first, by INSERT ... ON CONFLICT.",
    ),
    Race(
        "empty_store_gets_one_account",
        "accounts.AccountRepository.first",
        "Both find no account, and both insert one.",
        "pg_advisory_xact_lock before the read; the command line alone creates accounts there.",
    ),
    Race(
        "request_has_one_cached_result",
        "job_transitions._succeed",
        "Both delete the older result and insert their own: the second violates the primary key, so that its job does "
        "not succeed.",
        "INSERT ... ON CONFLICT (account_id, fingerprint) DO UPDATE SET job_id = excluded.job_id.",
    ),
    Race(
        "cancel_request_reaches_job_during_lease",
        "job_transitions.JobTransitions.request_cancel",
        "The job is read as queued and leased by another transaction: the answer names a state that it never had, or "
        "marks a finished job.",
        "SELECT ... FOR UPDATE of the job first.",
    ),
    Race(
        "job_is_removed_once",
        "job_transitions.JobTransitions.remove",
        "Both read the same file names and both answer that they removed the job.",
        "SELECT ... FOR UPDATE of the job first.",
    ),
    Race(
        "missed_start_is_reported_once",
        "job_transitions.JobTransitions.fail_missed_starts",
        "Both read the late jobs; the second reports jobs as failed that the first failed, or that were leased since.",
        "FOR UPDATE SKIP LOCKED on the late jobs; only those that the update moved are reported.",
    ),
    Race(
        "crash_is_counted_once",
        "job_transitions.JobTransitions.recover",
        "Both count a crash of the same jobs, which fail after half as many crashes.",
        "Workers recover the jobs of a worker whose lease has expired, under a lock of that worker's row.",
    ),
    Race(
        "account_names_are_unique",
        "accounts.AccountRepository.add",
        "Both find no account with the name, and both insert.",
        "pg_advisory_xact_lock of the name before the search; a unique index would refuse older data folders.",
    ),
    Race(
        "account_stars_no_more_than_its_bytes",
        "images.ImageRepository.star",
        "Both sum the account's starred images and find room for their own, and both star it.",
        "SELECT ... FOR NO KEY UPDATE of the account before the sum.",
    ),
    Race(
        "unreadable_job_ends_once",
        "job_transitions._fail_unreadable",
        "Both end the job without its attempt in the condition: the second usage row violates the primary key.",
        "The row comes from a SELECT ... FOR UPDATE, and the update names its attempt and state.",
    ),
)
