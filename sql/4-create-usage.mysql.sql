-- 4-create-usage

create table if not exists `latchkey_keys_migrations` (
  name varchar(255) primary key,
  applied_at_ms bigint not null
) engine = InnoDB, character set utf8mb4;

create table if not exists `latchkey_keys_usage` (
  subject varchar(340) not null,
  day integer not null,
  counter varchar(160) not null,
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
  primary key (subject, day, counter),
  key day (day)
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_0900_bin;

create table if not exists `latchkey_keys_usage_writers` (
  writer varchar(64) primary key,
  number bigint not null,
  at_ms bigint not null
) engine = InnoDB, row_format = dynamic, character set utf8mb4, collate utf8mb4_0900_bin;

insert into `latchkey_keys_migrations` (name, applied_at_ms)
values ('4-create-usage', floor(unix_timestamp(now(3)) * 1000))
on duplicate key update name = '4-create-usage';
