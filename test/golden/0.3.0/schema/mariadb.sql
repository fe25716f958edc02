-- 1-create-tables

create table if not exists `latchkey_keys_migrations` (
  name varchar(255) primary key,
  applied_at_ms bigint not null
) engine = InnoDB, character set utf8mb4;

create table if not exists `latchkey_keys` (
  id varchar(255) primary key,
  lookup varchar(700) not null,
  digest text not null,
  lineage_id varchar(255) not null,
  name varchar(255) not null,
  prefix text not null,
  hint text not null,
  owner_type varchar(64) not null,
  owner_id varchar(255) not null,
  created_by varchar(255),
  permissions longtext not null,
  metadata longtext not null,
  enabled boolean not null,
  rate_limits longtext,
  allowed_ips longtext,
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
  rotated_from varchar(255),
  rotated_to varchar(255),
  version bigint not null,
  unique key lookup (lookup),
  key created (created_at_ms, id),
  key owner (owner_type, owner_id, created_at_ms, id),
  key created_by (created_by, created_at_ms, id),
  key name (name, created_at_ms, id),
  key lineage (lineage_id, created_at_ms, id),
  key revoked (revoked_at_ms, created_at_ms, id),
  key disabled (enabled, created_at_ms, id),
  key expires (expires_at_ms, created_at_ms, id)
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_nopad_bin;

create table if not exists `latchkey_keys_quotas` (
  lineage_id varchar(255) primary key,
  remaining bigint not null,
  epoch bigint not null,
  allotted bigint not null,
  refill longtext,
  next_refill_at_ms bigint,
  removed boolean not null
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_nopad_bin;

insert into `latchkey_keys_migrations` (name, applied_at_ms)
values ('1-create-tables', floor(unix_timestamp(now(3)) * 1000))
on duplicate key update name = '1-create-tables';

-- 2-index-statuses

create table if not exists `latchkey_keys_migrations` (
  name varchar(255) primary key,
  applied_at_ms bigint not null
) engine = InnoDB, character set utf8mb4;

insert into `latchkey_keys_migrations` (name, applied_at_ms)
values ('2-index-statuses', floor(unix_timestamp(now(3)) * 1000))
on duplicate key update name = '2-index-statuses';

-- 3-create-agreements

create table if not exists `latchkey_keys_migrations` (
  name varchar(255) primary key,
  applied_at_ms bigint not null
) engine = InnoDB, character set utf8mb4;

create table if not exists `latchkey_keys_agreements` (
  name varchar(255) primary key not null,
  value varchar(255) not null
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_nopad_bin;

insert into `latchkey_keys_migrations` (name, applied_at_ms)
values ('3-create-agreements', floor(unix_timestamp(now(3)) * 1000))
on duplicate key update name = '3-create-agreements';
