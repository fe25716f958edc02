import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  customType,
  index,
  integer as int,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core'
import type { KeyRecord, QuotaRecord } from 'latchkey'

/** A text compared by code point, whatever the collation of the database. */
const byCodePoint = customType<{ data: string }>({ dataType: () => 'text collate "C"' })

/** A moment, as milliseconds since 1970. */
const moment = customType<{ data: Date; driverData: string | number }>({
  dataType: () => 'bigint',
  toDriver: (at) => at.getTime(),
  fromDriver: (ms) => new Date(Number(ms)),
})

const integer = (column: string) => bigint(column, { mode: 'number' })

/** JSON as text, unchanged to the last character. */
function json<T>(column: string) {
  return customType<{ data: T; driverData: string }>({
    dataType: () => 'text',
    toDriver: (value) => JSON.stringify(value),
    fromDriver: (value) => JSON.parse(value) as T,
  })(column)
}

/** The keys of `postgresStore`, which `migrate` of `latchkey/sql` creates. */
export const latchkeyKeys = pgTable(
  'latchkey_keys',
  {
    id: byCodePoint('id').primaryKey(),
    lookup: byCodePoint('lookup').notNull(),
    digest: byCodePoint('digest').notNull(),
    lineageId: byCodePoint('lineage_id').notNull(),
    name: byCodePoint('name').notNull(),
    prefix: byCodePoint('prefix').notNull(),
    hint: byCodePoint('hint').notNull(),
    ownerType: byCodePoint('owner_type').notNull(),
    ownerId: byCodePoint('owner_id').notNull(),
    createdBy: byCodePoint('created_by'),
    permissions: json<KeyRecord['permissions']>('permissions').notNull(),
    metadata: json<KeyRecord['metadata']>('metadata').notNull(),
    enabled: boolean('enabled').notNull(),
    rateLimits: json<NonNullable<KeyRecord['rateLimits']>>('rate_limits'),
    allowedIps: json<NonNullable<KeyRecord['allowedIps']>>('allowed_ips'),
    createdAt: moment('created_at_ms').notNull(),
    updatedAt: moment('updated_at_ms').notNull(),
    expiresAt: moment('expires_at_ms'),
    idleExpiryMs: integer('idle_expiry_ms'),
    usageCount: integer('usage_count').notNull(),
    lastUsedAt: moment('last_used_at_ms'),
    lastUsedIp: text('last_used_ip'),
    revokedAt: moment('revoked_at_ms'),
    revokedBy: text('revoked_by'),
    revokedReason: text('revoked_reason'),
    rotatedFrom: byCodePoint('rotated_from'),
    rotatedTo: byCodePoint('rotated_to'),
    version: integer('version').notNull(),
  },
  (key) => {
    const inOrder = (name: string) => index(`latchkey_keys_${name}`).on(key.createdAt, key.id)
    const mayEnd = sql`revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null`
    return [
      uniqueIndex('latchkey_keys_lookup').on(key.lookup),
      inOrder('created'),
      index('latchkey_keys_owner').on(key.ownerType, key.ownerId, key.createdAt, key.id),
      index('latchkey_keys_created_by').on(key.createdBy, key.createdAt, key.id),
      index('latchkey_keys_name').on(key.name, key.createdAt, key.id),
      index('latchkey_keys_lineage').on(key.lineageId, key.createdAt, key.id),
      inOrder('revoked').where(sql`revoked_at_ms is not null`),
      inOrder('disabled').where(sql`enabled = false`),
      inOrder('may_end').where(mayEnd),
      inOrder('is_active').where(sql`enabled = true and revoked_at_ms is null`),
      inOrder('is_disabled').where(sql`enabled = false and revoked_at_ms is null`),
      inOrder('may_expire').where(sql`(${mayEnd}) and revoked_at_ms is null`),
    ]
  },
)

/** The quota of each lineage: of a key with all its successors. */
export const latchkeyQuotas = pgTable('latchkey_keys_quotas', {
  lineageId: byCodePoint('lineage_id').primaryKey(),
  remaining: integer('remaining').notNull(),
  epoch: integer('epoch').notNull(),
  allotted: integer('allotted').notNull(),
  refill: json<NonNullable<QuotaRecord['refill']>>('refill'),
  nextRefillAt: moment('next_refill_at_ms'),
  removed: boolean('removed').notNull(),
})

/** What all processes have in common. */
export const latchkeyAgreements = pgTable('latchkey_keys_agreements', {
  name: byCodePoint('name').primaryKey(),
  value: byCodePoint('value').notNull(),
})

const count = (name: string) => integer(name).notNull().default(0)

/** What was counted of a key or an owner on one day, hour by hour: `keys.usage` reports it. */
export const latchkeyUsage = pgTable(
  'latchkey_keys_usage',
  {
    subject: byCodePoint('subject').notNull(),
    day: int('day').notNull(),
    counter: byCodePoint('counter').notNull(),
    h00: count('h00'),
    h01: count('h01'),
    h02: count('h02'),
    h03: count('h03'),
    h04: count('h04'),
    h05: count('h05'),
    h06: count('h06'),
    h07: count('h07'),
    h08: count('h08'),
    h09: count('h09'),
    h10: count('h10'),
    h11: count('h11'),
    h12: count('h12'),
    h13: count('h13'),
    h14: count('h14'),
    h15: count('h15'),
    h16: count('h16'),
    h17: count('h17'),
    h18: count('h18'),
    h19: count('h19'),
    h20: count('h20'),
    h21: count('h21'),
    h22: count('h22'),
    h23: count('h23'),
  },
  (usage) => [
    primaryKey({ name: 'latchkey_keys_usage_pkey', columns: [usage.subject, usage.day, usage.counter] }),
    index('latchkey_keys_usage_day').on(usage.day),
  ],
)

/** The latest batch of counts of each process. */
export const latchkeyUsageWriters = pgTable('latchkey_keys_usage_writers', {
  writer: byCodePoint('writer').primaryKey(),
  number: integer('number').notNull(),
  at: moment('at_ms').notNull(),
})

/** The migrations that `migrate` has applied. */
export const latchkeyMigrations = pgTable('latchkey_keys_migrations', {
  name: text('name').primaryKey(),
  appliedAt: moment('applied_at_ms').notNull(),
})
