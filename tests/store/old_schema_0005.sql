-- The schema of an earlier commit (revision 0005), with an account, a key and a queued job.
BEGIN TRANSACTION;
CREATE TABLE "accounts" (
  id VARCHAR NOT NULL,
  name VARCHAR NOT NULL,
  created_at FLOAT NOT NULL,
  balance BIGINT DEFAULT 0 NOT NULL,
  held BIGINT DEFAULT 0 NOT NULL,
  webhook_secret VARCHAR,
  old_webhook_secret VARCHAR,
  old_webhook_secret_until FLOAT,
  CONSTRAINT pk_accounts PRIMARY KEY (id)
);
INSERT INTO "accounts" VALUES('account','default',1768464000.0,100,0,NULL,NULL,NULL);
CREATE TABLE alembic_version (
  version_num VARCHAR(32) NOT NULL,
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE deliveries (
  id VARCHAR NOT NULL,
  account_id VARCHAR NOT NULL,
  endpoint_id VARCHAR NOT NULL,
  job_id VARCHAR NOT NULL,
  event VARCHAR NOT NULL,
  created_at FLOAT NOT NULL,
  attempt INTEGER DEFAULT 0 NOT NULL,
  next_at FLOAT,
  delivered_at FLOAT,
  last_error VARCHAR,
  CONSTRAINT pk_deliveries PRIMARY KEY (id),
  CONSTRAINT fk_deliveries_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT fk_deliveries_endpoint_id_webhook_endpoints FOREIGN KEY(endpoint_id) REFERENCES webhook_endpoints (id)
);
CREATE TABLE idempotency (
  account_id VARCHAR NOT NULL,
  "key" VARCHAR NOT NULL,
  fingerprint VARCHAR NOT NULL,
  made_id VARCHAR NOT NULL,
  created_at FLOAT NOT NULL,
  CONSTRAINT pk_idempotency PRIMARY KEY (account_id, "key"),
  CONSTRAINT fk_idempotency_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);
CREATE TABLE images (
  id VARCHAR NOT NULL,
  job_id VARCHAR NOT NULL,
  place INTEGER NOT NULL,
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
CREATE TABLE "jobs" (
  id VARCHAR NOT NULL,
  account_id VARCHAR NOT NULL,
  key_id VARCHAR NOT NULL,
  state VARCHAR NOT NULL,
  request JSON NOT NULL,
  created_at FLOAT NOT NULL,
  started_at FLOAT,
  finished_at FLOAT,
  attempt INTEGER DEFAULT 0 NOT NULL,
  error_code VARCHAR,
  error_message VARCHAR,
  result JSON,
  crashes INTEGER DEFAULT 0 NOT NULL,
  terms JSON,
  group_id VARCHAR,
  queue INTEGER DEFAULT 0 NOT NULL,
  priority INTEGER DEFAULT 1 NOT NULL,
  turn FLOAT DEFAULT 0 NOT NULL,
  predicted_s FLOAT DEFAULT 0 NOT NULL,
  start_by FLOAT,
  leased_until FLOAT,
  cancel_asked_at FLOAT,
  held BIGINT DEFAULT 0 NOT NULL,
  CONSTRAINT pk_jobs PRIMARY KEY (id),
  CONSTRAINT fk_jobs_key_id_keys FOREIGN KEY(key_id) REFERENCES keys (id),
  CONSTRAINT fk_jobs_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);
INSERT INTO "jobs" VALUES('job','account','key','queued','{"prompt": "a boat"}',1768464000.0,NULL,NULL,0,NULL,NULL,NULL,0,'{}',NULL,0,1,0.0,0.0,NULL,NULL,NULL,0);
CREATE TABLE "keys" (
  id VARCHAR NOT NULL,
  account_id VARCHAR NOT NULL,
  name VARCHAR,
  prefix VARCHAR NOT NULL,
  hash VARCHAR NOT NULL,
  created_at FLOAT NOT NULL,
  revoked_at FLOAT,
  updated_at FLOAT DEFAULT 0 NOT NULL,
  is_management INTEGER DEFAULT 0 NOT NULL,
  is_disabled INTEGER DEFAULT 0 NOT NULL,
  scopes JSON,
  limit_retention VARCHAR,
  limit_credits BIGINT,
  requests_per_minute INTEGER,
  safety_threshold FLOAT,
  window_start FLOAT DEFAULT 0 NOT NULL,
  spent BIGINT DEFAULT 0 NOT NULL,
  held BIGINT DEFAULT 0 NOT NULL, month_start FLOAT DEFAULT 0 NOT NULL, month_spent BIGINT DEFAULT 0 NOT NULL,
  CONSTRAINT pk_keys PRIMARY KEY (id),
  CONSTRAINT uq_keys_hash UNIQUE (hash),
  CONSTRAINT fk_keys_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT uq_keys_prefix UNIQUE (prefix)
);
INSERT INTO "keys" VALUES('key','account','first','abcd1234','hash',1768464000.0,NULL,0.0,0,0,NULL,NULL,NULL,NULL,NULL,0.0,0,0,0.0,0);
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
  CONSTRAINT fk_ledger_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT uq_ledger_reference_id_type UNIQUE (reference_id, type)
);
CREATE TABLE results (
  account_id VARCHAR NOT NULL,
  fingerprint VARCHAR NOT NULL,
  job_id VARCHAR NOT NULL,
  CONSTRAINT pk_results PRIMARY KEY (account_id, fingerprint),
  CONSTRAINT fk_results_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT fk_results_job_id_jobs FOREIGN KEY(job_id) REFERENCES jobs (id)
);
CREATE TABLE "usage" (
  job_id VARCHAR NOT NULL,
  account_id VARCHAR NOT NULL,
  key_id VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  images INTEGER NOT NULL,
  megapixels FLOAT NOT NULL,
  credits BIGINT NOT NULL,
  created_at FLOAT NOT NULL,
  slot BIGINT DEFAULT 0 NOT NULL,
  state VARCHAR DEFAULT 'succeeded' NOT NULL,
  origin VARCHAR DEFAULT 'api' NOT NULL,
  client_request_id VARCHAR,
  duration_s FLOAT DEFAULT 0 NOT NULL,
  CONSTRAINT pk_usage PRIMARY KEY (job_id),
  CONSTRAINT fk_usage_key_id_keys FOREIGN KEY(key_id) REFERENCES keys (id),
  CONSTRAINT fk_usage_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id)
);
CREATE TABLE usage_slots (
  account_id VARCHAR NOT NULL,
  slot BIGINT NOT NULL,
  key_id VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  succeeded INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  charged INTEGER NOT NULL,
  images INTEGER NOT NULL,
  megapixels FLOAT NOT NULL,
  credits BIGINT NOT NULL,
  CONSTRAINT pk_usage_slots PRIMARY KEY (account_id, slot, key_id, model),
  CONSTRAINT fk_usage_slots_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT fk_usage_slots_key_id_keys FOREIGN KEY(key_id) REFERENCES keys (id)
);
CREATE TABLE webhook_endpoints (
  id VARCHAR NOT NULL,
  account_id VARCHAR NOT NULL,
  url VARCHAR NOT NULL,
  created_at FLOAT NOT NULL,
  disabled_at FLOAT,
  CONSTRAINT pk_webhook_endpoints PRIMARY KEY (id),
  CONSTRAINT fk_webhook_endpoints_account_id_accounts FOREIGN KEY(account_id) REFERENCES accounts (id),
  CONSTRAINT uq_webhook_endpoints_account_id_url UNIQUE (account_id, url)
);
CREATE INDEX ix_images_expires_at ON images (expires_at);
CREATE INDEX ix_images_job_id ON images (job_id);
CREATE INDEX ix_keys_account_id_created_at ON keys (account_id, created_at);
CREATE INDEX ix_jobs_state_created_at ON jobs (state, created_at);
CREATE INDEX ix_jobs_account_id_id ON jobs (account_id, id);
CREATE INDEX ix_jobs_account_id_state_id ON jobs (account_id, state, id);
CREATE INDEX ix_jobs_account_id_group_id_id ON jobs (account_id, group_id, id);
CREATE INDEX ix_jobs_order ON jobs (queue, turn, id, predicted_s) WHERE state = 'queued';
CREATE INDEX ix_jobs_urgency ON jobs (key_id, queue, priority, id) WHERE state = 'queued';
CREATE INDEX ix_jobs_order_of_key ON jobs (key_id, queue, turn, id) WHERE state = 'queued';
CREATE INDEX ix_jobs_start_by ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL;
CREATE INDEX ix_usage_account_id_created_at_job_id ON usage (account_id, created_at, job_id);
CREATE INDEX ix_usage_account_id_key_id_created_at ON usage (account_id, key_id, created_at);
CREATE INDEX ix_usage_created_at ON usage (created_at);
CREATE INDEX ix_usage_account_id_state_created_at_job_id ON usage (account_id, state, created_at, job_id);
CREATE INDEX ix_ledger_account_id_id ON ledger (account_id, id);
CREATE INDEX ix_ledger_account_id_type_id ON ledger (account_id, type, id);
CREATE INDEX ix_idempotency_created_at ON idempotency (created_at);
CREATE INDEX ix_deliveries_next_at ON deliveries (next_at);
CREATE INDEX ix_deliveries_job_id ON deliveries (job_id);
CREATE INDEX ix_deliveries_endpoint_id ON deliveries (endpoint_id);
CREATE INDEX ix_results_job_id ON results (job_id);
CREATE INDEX ix_deliveries_over ON deliveries (created_at) WHERE next_at IS NULL;
CREATE INDEX ix_jobs_key_id_id ON jobs (key_id, id);
COMMIT;
