-- 1-create-tables

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms integer not null
) strict;

create table if not exists "latchkey_keys" (
  id text primary key not null,
  lookup text not null,
  digest text not null,
  lineage_id text not null,
  name text not null,
  prefix text not null,
  hint text not null,
  owner_type text not null,
  owner_id text not null,
  created_by text,
  permissions text not null,
  metadata text not null,
  enabled integer not null,
  rate_limits text,
  allowed_ips text,
  created_at_ms integer not null,
  updated_at_ms integer not null,
  expires_at_ms integer,
  idle_expiry_ms integer,
  usage_count integer not null,
  last_used_at_ms integer,
  last_used_ip text,
  revoked_at_ms integer,
  revoked_by text,
  revoked_reason text,
  rotated_from text,
  rotated_to text,
  version integer not null
) strict;

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
  lineage_id text primary key not null,
  remaining integer not null,
  epoch integer not null,
  allotted integer not null,
  refill text,
  next_refill_at_ms integer,
  removed integer not null
) strict;

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('1-create-tables', cast((julianday('now') - 2440587.5) * 86400000 as integer))
on conflict (name) do nothing;

-- 2-index-statuses

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms integer not null
) strict;

create index if not exists "latchkey_keys_is_active" on "latchkey_keys" (created_at_ms, id)
  where enabled = true and revoked_at_ms is null;

create index if not exists "latchkey_keys_is_disabled" on "latchkey_keys" (created_at_ms, id)
  where enabled = false and revoked_at_ms is null;

create index if not exists "latchkey_keys_may_expire" on "latchkey_keys" (created_at_ms, id)
  where (revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null) and revoked_at_ms is null;

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('2-index-statuses', cast((julianday('now') - 2440587.5) * 86400000 as integer))
on conflict (name) do nothing;

-- 3-create-agreements

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms integer not null
) strict;

create table if not exists "latchkey_keys_agreements" (
  name text primary key not null,
  value text not null
) strict;

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('3-create-agreements', cast((julianday('now') - 2440587.5) * 86400000 as integer))
on conflict (name) do nothing;
