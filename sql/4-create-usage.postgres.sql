-- 4-create-usage

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms bigint not null
);

create table if not exists "latchkey_keys_usage" (
  subject text collate "C" not null,
  day integer not null,
  counter text collate "C" not null,
  h00 bigint not null default 0,
  h01 bigint not null default 0,
  h02 bigint not null default 0,
  h03 bigint not null default 0,
  h04 bigint not null default 0,
  h05 bigint not null default 0,
  h06 bigint not null default 0,
  h07 bigint not null default 0,
  h08 bigint not null default 0,
  h09 bigint not null default 0,
  h10 bigint not null default 0,
  h11 bigint not null default 0,
  h12 bigint not null default 0,
  h13 bigint not null default 0,
  h14 bigint not null default 0,
  h15 bigint not null default 0,
  h16 bigint not null default 0,
  h17 bigint not null default 0,
  h18 bigint not null default 0,
  h19 bigint not null default 0,
  h20 bigint not null default 0,
  h21 bigint not null default 0,
  h22 bigint not null default 0,
  h23 bigint not null default 0,
  primary key (subject, day, counter)
);

create index if not exists "latchkey_keys_usage_day" on "latchkey_keys_usage" (day);

create table if not exists "latchkey_keys_usage_writers" (
  writer text collate "C" primary key,
  number bigint not null,
  at_ms bigint not null
);

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('4-create-usage', floor(extract(epoch from clock_timestamp()) * 1000))
on conflict (name) do nothing;
