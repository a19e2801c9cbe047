"""Every place of the store where two concurrent transactions could get a wrong result, and what prevents it.

A test of the same name in tests/store/test_races.py runs the two transactions concurrently on every backend. On SQLite
one transaction writes at a time; on PostgreSQL writes are READ COMMITTED and take their locks in one order: worker,
idempotency record, job, image, key, account, usage bucket, webhook endpoint, admission lock. A transaction that meets a
deadlock all the same is repeated.

Not listed: single conditional statements (`UPDATE ... WHERE state = ...`), which need no lock.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Race:
    """A race between two transactions."""

    #: The name of its test without `test_`.
    name: str
    #: Path of the function with the statements, below `allaprima.store`.
    function: str
    #: The wrong result of two concurrent writers without the protection.
    hazard: str
    #: The lock or the clause that prevents it.
    protection: str


RACES = (
    Race(
        "queue_holds_no_more_jobs_than_its_size",
        "job_transitions._admit",
        "Both count one job less than the queue holds, and both insert.",
        "The advisory lock of admission is held from the count to the commit.",
    ),
    Race(
        "jobs_of_key_have_distinct_turns",
        "fair_queue.next_turn",
        "Both read the same last turn of the key, and two jobs get one turn.",
        "The turn is read and written under the advisory lock of admission.",
    ),
    Race(
        "disabled_key_admits_no_job",
        "job_transitions._admit",
        "The key is read as valid, then disabled by another transaction, and the job is inserted afterwards.",
        "The key is read FOR KEY SHARE; a transaction that disables or revokes it locks it FOR UPDATE.",
    ),
    Race(
        "every_job_is_leased_once",
        "fair_queue.take_next",
        "Both read the same head and lease it with one attempt number, or both swap turns with it and lose a turn.",
        "The head and the key's most urgent job are read FOR UPDATE SKIP LOCKED; if all are locked, the lease waits.",
    ),
    Race(
        "worker_taken_for_dead_leases_no_job",
        "workers.lock_registered",
        "A worker leases a job just after another worker took it for dead and removed it: the job runs forever.",
        "A lease reads the worker's own row FOR KEY SHARE; the reaper locks it FOR UPDATE.",
    ),
    Race(
        "usage_bucket_counts_every_job",
        "charges.record_usage",
        "Both find no bucket to update, and the second insert violates the primary key: its job does not end.",
        "One statement: INSERT ... ON CONFLICT DO UPDATE SET x = usage_buckets.x + excluded.x.",
    ),
    Race(
        "key_holds_no_more_than_its_limit",
        "charges.hold",
        "Both read what the key has spent and holds, and both hold the last credits below its limit.",
        "The key is read FOR NO KEY UPDATE before the check.",
    ),
    Race(
        "no_charge_of_key_is_lost",
        "charges.capture",
        "Both read the key's sums and write what they computed: one charge and one release are lost.",
        "The key is read FOR NO KEY UPDATE, always before the account is changed.",
    ),
    Race(
        "key_prefix_is_stored_once",
        "keys.KeyRepository.rotate",
        "Both find the prefix free, and the second insert or rotation violates the unique constraint.",
        "INSERT ... ON CONFLICT DO NOTHING RETURNING; a rotation in a savepoint, whose unique violation is caught.",
    ),
    Race(
        "new_limit_counts_every_charge",
        "keys.KeyRepository.change",
        "The sum of the charges is read, another transaction charges the key, and the older sum is written.",
        "The key is read FOR UPDATE before the sum.",
    ),
    Race(
        "replayed_requests_create_one_job",
        "idempotency.claim_resource",
        "Both find no record, and both create a job.",
        "The record is inserted first, ON CONFLICT DO UPDATE WHERE it has expired; a transaction that gets no row "
        "reads the record and creates nothing.",
    ),
    Race(
        "expired_record_is_replaced_once",
        "idempotency.claim_resource",
        "Both delete the record and insert their own: the second violates the primary key, or deletes the first's.",
        "The same statement replaces an expired record; nothing is deleted.",
    ),
    Race(
        "webhook_url_has_one_endpoint",
        "outbox.add_endpoint",
        "Both find no endpoint, and the second insert violates the unique constraint.",
        "INSERT ... ON CONFLICT (account_id, url) DO NOTHING.",
    ),
    Race(
        "deleted_endpoint_leaves_no_delivery",
        "outbox.Outbox.delete_endpoint",
        "A job ends between the deletion of the deliveries and of the endpoint: the foreign key refuses the second.",
        "The endpoint is read FOR UPDATE before its deliveries are deleted.",
    ),
    Race(
        "job_ends_while_endpoint_is_deleted",
        "outbox.enqueue",
        "The endpoint is read, then deleted or disabled by another transaction: the insert violates the foreign key, "
        "so that the job does not end, or the delivery of a disabled endpoint is never removed.",
        "The endpoint is read FOR KEY SHARE; a transaction that disables or deletes it locks it FOR UPDATE.",
    ),
    Race(
        "replayed_request_rotates_secret_once",
        "outbox.Outbox.rotate_secret",
        "Both find no record, and both rotate: the secret that was valid before is lost.",
        "The idempotency record is inserted first.",
    ),
    Race(
        "delivery_is_leased_once",
        "outbox.Outbox.lease_due",
        "Both read the same due deliveries, and both send them at the same time.",
        "One statement locks the due deliveries FOR UPDATE SKIP LOCKED, makes them due later, and returns those that "
        "it changed.",
    ),
    Race(
        "late_result_of_delivery_is_ignored",
        "outbox.Outbox.failed",
        "A lease ends while its process is paused, another process records its attempt, and the first one's result "
        "replaces it: one attempt is counted twice, or a delivered webhook is sent again.",
        "A result is recorded WHERE attempt is the number that was leased.",
    ),
    Race(
        "empty_store_gets_one_account",
        "accounts.AccountRepository.first",
        "Both find no account, and both insert one.",
        "An advisory lock is taken before the search.",
    ),
    Race(
        "request_has_one_cached_result",
        "job_transitions._succeed",
        "Both delete the older result and insert their own: the second violates the primary key, so that its job does "
        "not succeed.",
        "One statement: INSERT ... ON CONFLICT (account_id, fingerprint) DO UPDATE SET job_id = excluded.job_id.",
    ),
    Race(
        "cancel_request_reaches_job_during_lease",
        "job_transitions.JobTransitions.request_cancel",
        "The job is read as queued and leased by another transaction: the answer names a state that it never had, or "
        "marks a finished job.",
        "The job is read FOR UPDATE.",
    ),
    Race(
        "job_is_removed_once",
        "job_transitions.JobTransitions.remove",
        "Both read the same file names and both answer that they removed the job.",
        "The job is read FOR UPDATE.",
    ),
    Race(
        "missed_start_is_reported_once",
        "job_transitions.JobTransitions.fail_missed_starts",
        "Both read the late jobs; the second reports jobs as failed that the first failed, or that were leased since.",
        "The late jobs are read FOR UPDATE SKIP LOCKED.",
    ),
    Race(
        "crash_is_counted_once",
        "reaper.Reaper.reap",
        "Both count a crash of the same jobs, which fail after half as many crashes.",
        "The dead workers are read FOR UPDATE SKIP LOCKED, so one transaction counts the crash of each.",
    ),
    Race(
        "account_names_are_unique",
        "accounts.AccountRepository.add",
        "Both find no account with the name, and both insert.",
        "An advisory lock of the name is taken before the search; a unique index would refuse older data folders.",
    ),
    Race(
        "starred_image_outlives_removal_of_old_jobs",
        "job_transitions.JobTransitions.remove_old",
        "The job is read as one without a starred image, an image is starred, and both are removed.",
        "The images of the jobs are read FOR UPDATE, and jobs with a starred one are left.",
    ),
    Race(
        "account_stars_no_more_than_its_bytes",
        "images.ImageRepository.star",
        "Both sum the account's starred images and find room for their own, and both star it.",
        "An advisory lock of the account's stars is taken before the sum.",
    ),
    Race(
        "unreadable_job_ends_once",
        "job_transitions.fail_unreadable",
        "Both end the job without its attempt in the condition: the second usage row violates the primary key.",
        "Every caller has read the job FOR UPDATE.",
    ),
)
