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
