-- 4-create-usage

create table if not exists "latchkey_keys_migrations" (
  name text primary key,
  applied_at_ms integer not null
) strict;

create table if not exists "latchkey_keys_usage" (
  subject text not null,
  day integer not null,
  counter text not null,
  h00 integer not null default 0,
  h01 integer not null default 0,
  h02 integer not null default 0,
  h03 integer not null default 0,
  h04 integer not null default 0,
  h05 integer not null default 0,
  h06 integer not null default 0,
  h07 integer not null default 0,
  h08 integer not null default 0,
  h09 integer not null default 0,
  h10 integer not null default 0,
  h11 integer not null default 0,
  h12 integer not null default 0,
  h13 integer not null default 0,
  h14 integer not null default 0,
  h15 integer not null default 0,
  h16 integer not null default 0,
  h17 integer not null default 0,
  h18 integer not null default 0,
  h19 integer not null default 0,
  h20 integer not null default 0,
  h21 integer not null default 0,
  h22 integer not null default 0,
  h23 integer not null default 0,
  primary key (subject, day, counter)
) strict;

create index if not exists "latchkey_keys_usage_day" on "latchkey_keys_usage" (day);

create table if not exists "latchkey_keys_usage_writers" (
  writer text primary key not null,
  number integer not null,
  at_ms integer not null
) strict;

insert into "latchkey_keys_migrations" (name, applied_at_ms)
values ('4-create-usage', cast((julianday('now') - 2440587.5) * 86400000 as integer))
on conflict (name) do nothing;
