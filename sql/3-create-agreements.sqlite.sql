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
