-- 1-create-tables

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms bigint not null
);

create table if not exists "latchkey_keys" (
  id text collate "C" primary key,
  lookup text collate "C" not null,
  digest text collate "C" not null,
  lineage_id text collate "C" not null,
  name text collate "C" not null,
  prefix text collate "C" not null,
  hint text collate "C" not null,
  owner_type text collate "C" not null,
  owner_id text collate "C" not null,
  created_by text collate "C",
  permissions text not null,
  metadata text not null,
  enabled boolean not null,
  rate_limits text,
  allowed_ips text,
  created_at_ms bigint not null,
  updated_at_ms bigint not null,
  expires_at_ms bigint,
  idle_expiry_ms bigint,
  usage_count bigint not null,
  last_used_at_ms bigint,
  last_used_ip text,
  revoked_at_ms bigint,
  revoked_by text,
  revoked_reason text,
  rotated_from text collate "C",
  rotated_to text collate "C",
  version bigint not null
);

create unique index if not exists "latchkey_keys_lookup" on "latchkey_keys" (lookup);

create index if not exists "latchkey_keys_created" on "latchkey_keys" (created_at_ms, id);

create index if not exists "latchkey_keys_owner" on "latchkey_keys" (owner_type, owner_id, created_at_ms, id);

create index if not exists "latchkey_keys_created_by" on "latchkey_keys" (created_by, created_at_ms, id);

create index if not exists "latchkey_keys_name" on "latchkey_keys" (name, created_at_ms, id);

create index if not exists "latchkey_keys_lineage" on "latchkey_keys" (lineage_id, created_at_ms, id);

create index if not exists "latchkey_keys_revoked" on "latchkey_keys" (created_at_ms, id)
  where revoked_at_ms is not null;

create index if not exists "latchkey_keys_disabled" on "latchkey_keys" (created_at_ms, id)
  where enabled = false;

create index if not exists "latchkey_keys_may_end" on "latchkey_keys" (created_at_ms, id)
  where revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null;

create table if not exists "latchkey_keys_quotas" (
  lineage_id text collate "C" primary key,
  remaining bigint not null,
  epoch bigint not null,
  allotted bigint not null,
  refill text,
  next_refill_at_ms bigint,
  removed boolean not null
);

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('1-create-tables', floor(extract(epoch from clock_timestamp()) * 1000))
on conflict (name) do nothing;

-- 2-index-statuses

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms bigint not null
);

create index if not exists "latchkey_keys_is_active" on "latchkey_keys" (created_at_ms, id)
  where enabled = true and revoked_at_ms is null;

create index if not exists "latchkey_keys_is_disabled" on "latchkey_keys" (created_at_ms, id)
  where enabled = false and revoked_at_ms is null;

create index if not exists "latchkey_keys_may_expire" on "latchkey_keys" (created_at_ms, id)
  where (revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null) and revoked_at_ms is null;

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('2-index-statuses', floor(extract(epoch from clock_timestamp()) * 1000))
on conflict (name) do nothing;

-- 3-create-agreements

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms bigint not null
);

create table if not exists "latchkey_keys_agreements" (
  name text collate "C" primary key not null,
  value text collate "C" not null
);

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('3-create-agreements', floor(extract(epoch from clock_timestamp()) * 1000))
on conflict (name) do nothing;
