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
