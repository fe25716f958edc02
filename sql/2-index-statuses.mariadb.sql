-- 2-index-statuses

create table if not exists `latchkey_keys_migrations` (
  name varchar(255) primary key,
  applied_at_ms bigint not null
) engine = InnoDB, character set utf8mb4;

insert into `latchkey_keys_migrations` (name, applied_at_ms)
values ('2-index-statuses', floor(unix_timestamp(now(3)) * 1000))
on duplicate key update name = '2-index-statuses';
