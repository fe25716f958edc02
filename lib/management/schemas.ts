import { z } from 'zod'
import { BOUNDS, type Bounds } from '../core/keys/bounds.ts'
import { readAddress } from '../core/keys/client-address.ts'
import { PREFIX } from '../core/keys/key-format.ts'
import { PERMISSION_NAME } from '../core/keys/permissions.ts'
import { LIMIT_NAME } from '../core/limits/rate-limit.ts'
import type { Explanation as CoreExplanation, ExplainedStepName } from '../core/verify/explanation.ts'
import { holdsKey } from '../internal/key-text.ts'
import { isLonger, isStorable } from '../internal/options.ts'

/**
 * Everything that travels over HTTP. These schemas check bodies, and the OpenAPI document is made from them. Dates are ISO 8601
 * strings here. `keys` checks later what a schema cannot express, such as whether an address is valid.
 */

/** How many days back uses of permissions can be looked for. */
const MAX_DAYS = 3_650

const LAST_TIME = Date.parse('9999-12-31T23:59:59.999Z')

/** The year in UTC has at most four digits: not every client can parse the format of a five-digit year. */
const date = z.iso
  .datetime({ offset: true })
  .refine((value) => !(Date.parse(value) > LAST_TIME), 'a time up to the year 9999 in UTC')
const text = ({ min, max }: Bounds) =>
  z
    .string()
    .min(min)
    .refine((value) => !isLonger(value, max), { error: `at most ${max} characters`, abort: true })
    .refine(isStorable, 'well-formed Unicode without NUL')
    .refine((value) => !holdsKey(value), 'a text without a key in it')
    .meta({ maxLength: max })
const integer = ({ min, max }: Bounds) => z.int().min(min).max(max)

export const owner = z.strictObject({ type: text(BOUNDS.ownerType), id: text(BOUNDS.ownerId) })

const permissionName = z.string().regex(PERMISSION_NAME)

/** Actions by resource: those that a key holds, or those that a request requires. A requirement must not be empty. */
const namedActions = ({ min, max }: Bounds) =>
  z
    .record(permissionName, z.array(permissionName).min(min).max(max))
    .refine((given) => Object.keys(given).length >= min, `at least ${min} resource`)
    .refine((given) => Object.keys(given).length <= max, `at most ${max} resources`)
    .meta({ ...(min > 0 && { minProperties: min }), maxProperties: max })

export const permissions = namedActions(BOUNDS.permissions).describe(
  'The allowed actions for each resource. `*` stands for every action, or for every resource.',
)

const limit = integer(BOUNDS.limit)
const name = z
  .string()
  .regex(LIMIT_NAME)
  .refine((value) => value !== 'quota', 'a name other than "quota"')
  .meta({ not: { const: 'quota' } })
const timeZone = z.string().describe('An IANA name such as `Europe/Berlin`, or an offset. Default: `UTC`.')

const only = z
  .enum(['named'])
  .optional()
  .describe('The limit counts only calls whose cost names it. By default, every call counts.')

export const rateLimit = z.union([
  z.strictObject({
    name,
    limit,
    only,
    windowMs: integer(BOUNDS.windowMs),
    burst: integer(BOUNDS.burst).optional(),
  }),
  z.strictObject({ name, limit, only, per: z.enum(['day', 'month']), timeZone: timeZone.optional() }),
  z.strictObject({
    name,
    only,
    concurrent: integer(BOUNDS.concurrent).describe('How many requests may be under way at once.'),
    maxHeldMs: integer(BOUNDS.maxHeldMs)
      .optional()
      .describe('How long a place stays taken if its process dies, in milliseconds. Default: 60000.'),
  }),
])

const amount = integer(BOUNDS.refillAmount)
const refill = z.union([
  z.strictObject({ amount, everyMs: integer(BOUNDS.refillEveryMs) }),
  z.strictObject({ amount, per: z.enum(['day', 'month']), timeZone: timeZone.optional() }),
])

const quota = z.strictObject({ remaining: integer(BOUNDS.remaining), refill: refill.nullable().optional() })
const metadata = z
  .record(z.string(), z.unknown())
  .describe('JSON stored with the key. Do not put secrets here.')
const status = z.enum(['active', 'disabled', 'expired', 'revoked'])
const reason = text(BOUNDS.reason).describe('Stored with the key.')
const prefix = z.string().regex(PREFIX)
// No address and no block is shorter or longer.
const addressRule = z.string().min(2).max(49)

const settings = {
  name: text(BOUNDS.name).describe('A name for people to recognise the key by.'),
  permissions: permissions.optional(),
  rateLimits: z
    .array(rateLimit)
    .max(BOUNDS.rateLimits.max)
    .nullable()
    .optional()
    .describe('`null` means the default limits of the service.'),
  quota: quota.nullable().optional(),
  allowedIps: z
    .array(addressRule)
    .max(BOUNDS.allowedIps.max)
    .nullable()
    .optional()
    .describe('IP addresses and CIDR blocks that may use the key.'),
  expiresAt: date.nullable().optional(),
  idleExpiryMs: integer(BOUNDS.idleExpiryMs).nullable().optional(),
  metadata: metadata.optional(),
}

export const listQuery = z.strictObject({
  ownerType: text(BOUNDS.ownerType).optional().describe('Use together with `ownerId`.'),
  ownerId: text(BOUNDS.ownerId).optional(),
  createdBy: text(BOUNDS.createdBy).optional(),
  status: status.optional(),
  name: text(BOUNDS.name).optional().describe('Only keys with exactly this name.'),
  expiresBefore: date
    .optional()
    .describe('Only keys whose `expiresAt` is before this time, in any status. Ignores idle expiry.'),
  order: z
    .enum(['oldest', 'newest'])
    .optional()
    .describe('Which keys come first, by creation time. Default: `oldest`.'),
  limit: z
    .string()
    .regex(/^\d{1,9}$/)
    .transform(Number)
    .pipe(z.int().min(1).max(100))
    .optional()
    .describe('The maximum number of keys on the page. Default: 20.'),
  cursor: text({ min: 1, max: 1_000 })
    .optional()
    .describe('The `nextCursor` of the previous page. Keep the same filter and order.'),
})

const usageSpan = {
  from: date.optional().describe('The first moment. Default: 30 days before `to`, or 24 hours by hour.'),
  to: date.optional().describe('The moment after the last. Default: now.'),
  by: z.enum(['hour', 'day']).optional().describe('The length of a bucket. Default: `day`.'),
  timeZone: timeZone.optional(),
}

export const usageQuery = z.strictObject(usageSpan)

export const ownerUsageQuery = z.strictObject({
  ownerType: text(BOUNDS.ownerType),
  ownerId: text(BOUNDS.ownerId),
  ...usageSpan,
})

export const unusedPermissionsQuery = z.strictObject({
  days: z
    .string()
    .regex(/^\d{1,4}$/)
    .transform(Number)
    .pipe(z.int().min(1).max(MAX_DAYS))
    .optional()
    .describe('How many days back to look. Default: 30.'),
})

export const noQuery = z.strictObject({})
export const noBody = z.strictObject({})

export const issueBody = z.strictObject({
  owner: owner.optional().describe('Omit it if you have only one owner.'),
  prefix: prefix.optional(),
  ...settings,
})

export const updateBody = z.strictObject({ ...settings, name: settings.name.optional() })

export const rotateBody = z.strictObject({
  graceMs: integer(BOUNDS.graceMs)
    .optional()
    .describe('How long the previous key keeps working, in milliseconds. Default: 24 hours.'),
  expiresAt: date.nullable().optional().describe('When the new key expires.'),
  onlyUsed: z
    .strictObject({ days: z.int().min(1).max(MAX_DAYS).optional() })
    .optional()
    .describe(
      'Gives the new key only those permissions that calls needed in the last `days`, 30 by default.',
    ),
})

export const revokeBody = z.strictObject({ reason: reason.optional() })

export const revokeAllBody = z.strictObject({
  owner: owner.optional().describe('Revokes keys of this owner.'),
  createdBy: text(BOUNDS.createdBy)
    .optional()
    .describe(
      'Revokes keys that this user or program issued. Together with `owner`, only those among its keys. Only administrators may use it alone.',
    ),
  reason: reason.optional(),
})

export const eraseBody = z.strictObject({
  owner: owner.describe('The owner whose keys to remove, in any status.'),
  knownAs: text(BOUNDS.createdBy)
    .nullable()
    .optional()
    .describe(
      'The identifier to clear from `createdBy` and `revokedBy` on keys of others. Default: the id of the owner. `null` clears nothing.',
    ),
})

const required = namedActions({ ...BOUNDS.permissions, min: 1 })
const requirement = z
  .union([required, z.array(required).min(1).max(BOUNDS.permissions.max)])
  .describe(
    'The permissions that the key needs: all of them. A list names alternatives, of which one is enough.',
  )

const acceptedPrefix = text({ min: 1, max: 32 })
const cost = z.union([integer(BOUNDS.cost), z.record(z.string().regex(LIMIT_NAME), integer(BOUNDS.cost))])
const presentedKey = z.string().describe('The presented key. The service neither stores nor returns it.')

/** What a verification asks for, besides the key and its cost. */
const asked = {
  permissions: requirement.optional(),
  ip: text({ min: 2, max: 64 })
    .refine((ip) => readAddress(ip) !== null, 'an IP address')
    .optional()
    .describe(
      'The IP address of the client that presented the key. The service trusts the caller to send the real one.',
    ),
  prefix: z
    .union([acceptedPrefix, z.array(acceptedPrefix).min(1).max(256)])
    .optional()
    .describe('Accepts only keys with this prefix, or with one of these prefixes.'),
}

export const verifyBody = z.strictObject({
  key: presentedKey,
  permissions: asked.permissions,
  cost: cost
    .optional()
    .describe(
      'How much the call spends if `charge` is true: a number, or numbers by the name of a limit. Default: 1. Without `charge` it spends nothing.',
    ),
  ip: asked.ip,
  prefix: asked.prefix,
  charge: z
    .boolean()
    .optional()
    .describe('Whether the call counts against the limits and the quota of the key. Default: false.'),
})

export const explainBody = z.strictObject({
  key: presentedKey.optional().describe('The text of a key. Send either `key` or `id`.'),
  id: text({ min: 1, max: 255 })
    .optional()
    .describe('The id of a key. The text and the secret count as right.'),
  permissions: asked.permissions,
  cost: cost
    .optional()
    .describe(
      'How much the call would spend: a number, or numbers by the name of a limit. Default: 1. Nothing is spent.',
    ),
  ip: asked.ip,
  prefix: asked.prefix,
})

const nullableDate = date.nullable()

export const apiKey = z
  .strictObject({
    id: z.string(),
    lineageId: z.string().describe('Shared by a key and its successors.'),
    name: z.string(),
    prefix: z.string(),
    hint: z.string().describe('The first characters of the key, to recognise it by.'),
    owner,
    createdBy: z.string().nullable(),
    permissions,
    metadata,
    enabled: z.boolean(),
    status: status.describe('The status at the time of the response. A verified key is `active`.'),
    rateLimits: z.array(rateLimit).nullable(),
    quota: z
      .strictObject({ remaining: z.int(), refill: refill.nullable(), nextRefillAt: nullableDate })
      .nullable(),
    allowedIps: z.array(z.string()).nullable(),
    createdAt: date,
    updatedAt: date,
    expiresAt: nullableDate,
    idleExpiryMs: z.int().nullable(),
    usageCount: z.int(),
    lastUsedAt: nullableDate,
    lastUsedIp: z.string().nullable(),
    revokedAt: nullableDate,
    revokedBy: z.string().nullable(),
    revokedReason: z.string().nullable(),
    rotatedFrom: z.string().nullable().describe('The id of the key that this one replaced.'),
    rotatedTo: z.string().nullable().describe('The id of the key that replaced this one.'),
    version: z.int().describe('Rises with every change. It is also the `ETag`.'),
  })
  .describe('An API key without its secret.')

export const apiKeyPage = z.strictObject({
  apiKeys: z.array(apiKey),
  nextCursor: z
    .string()
    .optional()
    .describe('Send it as `cursor` to get the next page. Absent on the last page.'),
})

const secret = z.string().describe('The secret key. No other response contains it.')
export const issued = z.strictObject({ key: secret, apiKey })
export const rotated = z.strictObject({
  key: secret,
  apiKey,
  previous: apiKey.describe('The key that was replaced. It works until its `expiresAt`.'),
})
export const revokedCount = z.strictObject({ revoked: z.int() })
export const erasedOwner = z.strictObject({
  removed: z.int().describe('The number of removed keys.'),
  forgotten: z.int().describe('The number of keys of other owners on which the identifier was cleared.'),
})

const limitState = z.strictObject({
  type: z.enum(['rate_limit', 'quota', 'concurrent']),
  name: z.string(),
  limit: z.number().nullable(),
  remaining: z.number(),
  windowMs: z.number().nullable(),
  resetMs: z.number().nullable(),
  exceeded: z.boolean(),
})

export const limits = z.strictObject({
  limits: z
    .array(limitState)
    .describe(
      'The rate limits of the key and those of its owner, then limits on requests under way, then the quota.',
    ),
})

const units = z.record(z.string(), z.int())
const usageTotals = {
  admitted: z.int().describe('Calls that were admitted.'),
  refused: z.int().describe('Calls that were refused although the key was right.'),
  refusedBy: units.describe('The same by reason.'),
  units: units.describe('What calls were charged, by the name of the limit or `quota`.'),
}

export const usageReport = z.strictObject({
  startsAt: date,
  endsAt: date,
  by: z.enum(['hour', 'day']),
  timeZone: z.string(),
  buckets: z
    .array(z.strictObject({ startsAt: date, endsAt: date, ...usageTotals }))
    .describe('In order, without gaps.'),
  total: z.strictObject(usageTotals),
})

export const unusedPermissions = z.strictObject({
  used: permissions.describe('Permissions that some call needed.'),
  unused: permissions.describe('Permissions that no call needed.'),
  unwatched: permissions.describe('Permissions that are not watched: all but the first 100.'),
  since: date.describe('Since when uses are known.'),
})

const refused = z.strictObject({
  code: z.enum(['address_not_allowed', 'insufficient_permissions', 'rate_limited', 'quota_exceeded']),
  missing: permissions.optional(),
  retryAfterMs: z.number().nullable().optional(),
  exceeded: z.array(z.string()).optional(),
})

export const verification = z.union([
  z
    .strictObject({
      active: z.literal(false),
      refused: z
        .strictObject({ code: z.literal('too_many_failures'), retryAfterMs: z.number() })
        .optional()
        .describe(
          'The service says nothing about the key: the client or the calling service has sent too many invalid keys.',
        ),
    })
    .describe('The key does not exist or is not valid. The response does not say which.'),
  z
    .strictObject({
      active: z.literal(true),
      apiKey: apiKey.optional(),
      limits: z.array(limitState),
      refused: refused.optional().describe('Why the service refuses this call although the key is valid.'),
    })
    .describe('The key is valid.'),
])

const step = z.strictObject({
  step: z
    .enum([
      'format',
      'prefix',
      'failed_attempts',
      'record',
      'secret',
      'revocation',
      'enabled',
      'expiry',
      'idle_expiry',
      'owner',
      'address',
      'permissions',
      'quota',
      'rate_limits',
    ] satisfies readonly ExplainedStepName[])
    .describe('Each once, in the order in which a verification takes them.'),
  outcome: z
    .enum(['passed', 'refused', 'skipped'])
    .describe('The first `refused` decides; later ones show what else is in the way.'),
  message: z.string().describe('What the step found, for people.'),
  read: z.record(z.string(), z.unknown()).describe('What the step read. It never holds a key or a digest.'),
})

const outcomes = [
  'admitted',
  'invalid_key',
  'address_not_allowed',
  'insufficient_permissions',
  'rate_limited',
  'quota_exceeded',
  'too_many_failures',
] satisfies readonly CoreExplanation['outcome'][]

export const explanation = z
  .strictObject({
    outcome: z.enum(outcomes).describe('`admitted`, or the code of the refusal.'),
    reason: z.string().nullable().describe('Why the key is invalid, if `outcome` is `invalid_key`.'),
    retryAfterMs: z
      .number()
      .nullable()
      .describe(
        'Milliseconds until the same call may pass, for `rate_limited`, `quota_exceeded` and `too_many_failures`. `null` if it never will.',
      ),
    apiKey: apiKey.nullable().describe('The key that was found, even if the secret is wrong.'),
    limits: z
      .array(limitState)
      .describe(
        'How the limits of the call and the quota stand before it. Empty if another step has refused already.',
      ),
    steps: z.array(step),
  })
  .describe('What a verification would say now, and why.')

export const problem = z
  .looseObject({
    type: z
      .string()
      .describe(
        '`urn:problem-type:latchkey:` and the code; for `rate_limited`, the type of draft-ietf-httpapi-ratelimit-headers-11, ' +
          'which may change.',
      ),
    title: z.string(),
    status: z.int(),
    code: z.string().describe('What programs rely on.'),
    detail: z.string().optional().describe('What to do about it, for people.'),
    field: z.string().optional().describe('The member of the request that caused the error.'),
    accepted: z.string().optional().describe('What `field` accepts, for people.'),
  })
  .describe('An error as problem details (RFC 9457).')

/** The named schemas of the document. */
export const NAMED = {
  ApiKey: apiKey,
  ApiKeyPage: apiKeyPage,
  IssuedKey: issued,
  RotatedKey: rotated,
  RevokedCount: revokedCount,
  ErasedOwner: erasedOwner,
  Limits: limits,
  UsageReport: usageReport,
  UnusedPermissions: unusedPermissions,
  Verification: verification,
  Explanation: explanation,
  Problem: problem,
  Owner: owner,
  Permissions: permissions,
  RateLimit: rateLimit,
  IssueRequest: issueBody,
  UpdateRequest: updateBody,
  RotateRequest: rotateBody,
  RevokeRequest: revokeBody,
  RevokeAllRequest: revokeAllBody,
  EraseRequest: eraseBody,
  VerifyRequest: verifyBody,
  ExplainRequest: explainBody,
  EmptyRequest: noBody,
} as const

/** An API key as JSON: its dates are ISO 8601 strings. */
export type ApiKeyJson = z.infer<typeof apiKey>
export type ApiKeyPageJson = z.infer<typeof apiKeyPage>
export type IssuedKeyJson = z.infer<typeof issued>
export type RotatedKeyJson = z.infer<typeof rotated>
export type RevokedCountJson = z.infer<typeof revokedCount>
export type ErasedOwnerJson = z.infer<typeof erasedOwner>
export type VerificationJson = z.infer<typeof verification>
export type UsageReportJson = z.infer<typeof usageReport>
export type UsageQuery = z.infer<typeof usageQuery>
export type OwnerUsageQuery = z.infer<typeof ownerUsageQuery>
export type UnusedPermissionsQuery = z.infer<typeof unusedPermissionsQuery>
export type ListQuery = z.infer<typeof listQuery>
export type IssueRequest = z.infer<typeof issueBody>
export type UpdateRequest = z.infer<typeof updateBody>
export type RotateRequest = z.infer<typeof rotateBody>
export type RevokeRequest = z.infer<typeof revokeBody>
export type RevokeAllRequest = z.infer<typeof revokeAllBody>
export type EraseRequest = z.infer<typeof eraseBody>
export type ExplanationJson = z.infer<typeof explanation>
export type ExplainRequest = z.infer<typeof explainBody>
export type VerifyRequest = z.infer<typeof verifyBody>
