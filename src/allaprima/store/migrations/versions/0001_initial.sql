-- The first schema: accounts, keys, jobs, images, usage, ledger, webhooks. `store/schema.py` describes the columns.
-- The file uses only types and partial indexes that SQLite and PostgreSQL both support.

CREATE TABLE accounts (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    balance BIGINT NOT NULL,
    held BIGINT NOT NULL,
    webhook_secret VARCHAR,
    old_webhook_secret VARCHAR,
    old_webhook_secret_until FLOAT,
    CONSTRAINT pk_accounts PRIMARY KEY (id)
);

CREATE TABLE api_keys (
    id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    name VARCHAR,
    prefix VARCHAR NOT NULL,
    hash VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    revoked_at FLOAT,
    updated_at FLOAT NOT NULL,
    is_management INTEGER NOT NULL,
    is_disabled INTEGER NOT NULL,
    scopes JSON,
    limit_period VARCHAR,
    limit_credits BIGINT,
    requests_per_minute INTEGER,
    safety_threshold FLOAT,
    period_start FLOAT NOT NULL,
    spent BIGINT NOT NULL,
    held BIGINT NOT NULL,
    month_start FLOAT NOT NULL,
    month_spent BIGINT NOT NULL,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT uq_api_keys_prefix UNIQUE (prefix),
    CONSTRAINT uq_api_keys_hash UNIQUE (hash)
);

CREATE INDEX ix_api_keys_account_id_created_at ON api_keys (account_id, created_at);

CREATE TABLE idempotency_records (
    account_id VARCHAR NOT NULL,
    "key" VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    resource_id VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    CONSTRAINT pk_idempotency_records PRIMARY KEY (account_id, "key"),
    CONSTRAINT fk_idempotency_records_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_idempotency_records_created_at ON idempotency_records (created_at);

CREATE TABLE ledger (
    id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    direction VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    credits BIGINT NOT NULL,
    model VARCHAR,
    reference_id VARCHAR,
    images INTEGER,
    note VARCHAR,
    CONSTRAINT pk_ledger PRIMARY KEY (id),
    CONSTRAINT uq_ledger_reference_id_type UNIQUE (reference_id, type),
    CONSTRAINT fk_ledger_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_ledger_account_id_id ON ledger (account_id, id);

CREATE INDEX ix_ledger_account_id_type_id ON ledger (account_id, type, id);

CREATE TABLE webhook_endpoints (
    id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    url VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    disabled_at FLOAT,
    CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id),
    CONSTRAINT uq_webhook_endpoints_account_id_url UNIQUE (account_id, url),
    CONSTRAINT fk_webhook_endpoints_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE TABLE jobs (
    id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    request JSON NOT NULL,
    created_at FLOAT NOT NULL,
    started_at FLOAT,
    finished_at FLOAT,
    attempt INTEGER NOT NULL,
    error_code VARCHAR,
    error_message VARCHAR,
    result JSON,
    crashes INTEGER NOT NULL,
    options JSON NOT NULL,
    group_id VARCHAR,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    turn FLOAT NOT NULL,
    predicted_s FLOAT NOT NULL,
    start_by FLOAT,
    leased_until FLOAT,
    cancel_asked_at FLOAT,
    held BIGINT NOT NULL,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT fk_jobs_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT fk_jobs_key_id_api_keys FOREIGN KEY(key_id) REFERENCES api_keys (id)
);

CREATE INDEX ix_jobs_account_id_group_id_id ON jobs (account_id, group_id, id);

CREATE INDEX ix_jobs_account_id_id ON jobs (account_id, id);

CREATE INDEX ix_jobs_account_id_state_id ON jobs (account_id, state, id);

CREATE INDEX ix_jobs_key_id_id ON jobs (key_id, id);

CREATE INDEX ix_jobs_order ON jobs (queue, turn, id, predicted_s) WHERE state = 'queued';

CREATE INDEX ix_jobs_order_of_key ON jobs (key_id, queue, turn, id) WHERE state = 'queued';

CREATE INDEX ix_jobs_start_by ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL;

CREATE INDEX ix_jobs_state_created_at ON jobs (state, created_at);

CREATE INDEX ix_jobs_urgency ON jobs (key_id, queue, priority, id) WHERE state = 'queued';

CREATE TABLE usage (
    job_id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    key_id VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    images INTEGER NOT NULL,
    megapixels FLOAT NOT NULL,
    credits BIGINT NOT NULL,
    created_at FLOAT NOT NULL,
    bucket BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    client_request_id VARCHAR,
    duration_s FLOAT NOT NULL,
    CONSTRAINT pk_usage PRIMARY KEY (job_id),
    CONSTRAINT fk_usage_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT fk_usage_key_id_api_keys FOREIGN KEY(key_id) REFERENCES api_keys (id)
);

CREATE INDEX ix_usage_account_id_created_at_job_id ON usage (account_id, created_at, job_id);

CREATE INDEX ix_usage_account_id_key_id_created_at ON usage (account_id, key_id, created_at);

CREATE INDEX ix_usage_account_id_state_created_at_job_id ON usage (account_id, state, created_at, job_id);

CREATE INDEX ix_usage_created_at ON usage (created_at);

CREATE TABLE usage_buckets (
    account_id VARCHAR NOT NULL,
    start BIGINT NOT NULL,
    key_id VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    images INTEGER NOT NULL,
    megapixels FLOAT NOT NULL,
    credits BIGINT NOT NULL,
    CONSTRAINT pk_usage_buckets PRIMARY KEY (account_id, start, key_id, model),
    CONSTRAINT fk_usage_buckets_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT fk_usage_buckets_key_id_api_keys FOREIGN KEY(key_id) REFERENCES api_keys (id)
);

CREATE TABLE webhook_deliveries (
    id VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    endpoint_id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    attempt INTEGER NOT NULL,
    next_at FLOAT,
    delivered_at FLOAT,
    last_error VARCHAR,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT fk_webhook_deliveries_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT fk_webhook_deliveries_endpoint_id_webhook_endpoints FOREIGN KEY(endpoint_id) REFERENCES webhook_endpoints (id)
);

CREATE INDEX ix_webhook_deliveries_done ON webhook_deliveries (created_at) WHERE next_at IS NULL;

CREATE INDEX ix_webhook_deliveries_endpoint_id ON webhook_deliveries (endpoint_id);

CREATE INDEX ix_webhook_deliveries_job_id ON webhook_deliveries (job_id);

CREATE INDEX ix_webhook_deliveries_next_at ON webhook_deliveries (next_at);

CREATE TABLE cached_results (
    account_id VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    CONSTRAINT pk_cached_results PRIMARY KEY (account_id, fingerprint),
    CONSTRAINT fk_cached_results_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
    CONSTRAINT fk_cached_results_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_cached_results_job_id ON cached_results (job_id);

CREATE TABLE images (
    id VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    object_name VARCHAR NOT NULL,
    content_type VARCHAR NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 VARCHAR NOT NULL,
    seed VARCHAR NOT NULL,
    nsfw_score FLOAT,
    is_flagged INTEGER NOT NULL,
    created_at FLOAT NOT NULL,
    expires_at FLOAT NOT NULL,
    CONSTRAINT pk_images PRIMARY KEY (id),
    CONSTRAINT fk_images_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_images_expires_at ON images (expires_at);

CREATE INDEX ix_images_job_id ON images (job_id);
