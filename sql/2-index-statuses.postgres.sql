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
