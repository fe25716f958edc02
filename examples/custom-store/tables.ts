import type { Knex } from 'knex'

/**
 * Makes the tables of `knexStore`. Ids are ordered by code point (`collate "C"`), as a listing promises. Metadata is `json`:
 * `jsonb` refuses texts that hold NUL. A lineage has a row as long as one of its keys does.
 */
export async function createTables(knex: Knex): Promise<void> {
  await knex.raw(`
    create table if not exists api_keys (
      id text collate "C" primary key,
      lookup text not null unique,
      digest text not null,
      "lineageId" text not null,
      name text not null,
      prefix text not null,
      hint text not null,
      "ownerType" text not null,
      "ownerId" text not null,
      "createdBy" text,
      permissions json not null,
      metadata json not null,
      enabled boolean not null,
      "rateLimits" json not null,
      "allowedIps" json not null,
      "createdAt" timestamptz not null,
      "updatedAt" timestamptz not null,
      "expiresAt" timestamptz,
      "idleExpiryMs" bigint,
      "usageCount" bigint not null,
      "lastUsedAt" timestamptz,
      "lastUsedIp" text,
      "revokedAt" timestamptz,
      "revokedBy" text,
      "revokedReason" text,
      "rotatedFrom" text,
      "rotatedTo" text,
      version bigint not null
    );
    create table if not exists api_key_lineages (
      lineage text primary key,
      quota json,
      "isUnlimited" boolean not null default false
    );
    create table if not exists api_key_agreements (name text collate "C" primary key, value text not null);
    create index if not exists api_keys_in_order on api_keys ("createdAt", id);
    create index if not exists api_keys_of_owner on api_keys ("ownerId", "ownerType", "createdAt", id);
    create index if not exists api_keys_of_lineage on api_keys ("lineageId", "createdAt", id);`)
}
