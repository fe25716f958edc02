import { z } from 'zod'
import { BOUNDS, type Bounds } from '../core/keys/bounds.ts'
import { readAddress } from '../core/keys/client-address.ts'
import { PREFIX } from '../core/keys/key-format.ts'
import { PERMISSION_NAME } from '../core/keys/permissions.ts'
import { LIMIT_NAME } from '../core/limits/rate-limit.ts'
import { holdsKey } from '../internal/key-text.ts'
import { isLonger, isStorable } from '../internal/options.ts'

/**
 * What travels over HTTP, in one place: bodies are checked by these schemas, and the OpenAPI document is made from them. Dates are
 * ISO 8601 texts here. What they cannot say, such as that an address is one, is checked by `keys` afterwards.
 */

const LAST_TIME = Date.parse('9999-12-31T23:59:59.999Z')

/** In UTC a year of four digits: a fifth one is answered in a form that not everybody reads. */
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

/** For each resource its actions: as a key holds them, or as they are asked for, which must ask for something. */
const namedActions = ({ min, max }: Bounds) =>
  z
    .record(permissionName, z.array(permissionName).min(min).max(max))
    .refine((given) => Object.keys(given).length >= min, `at least ${min} resource`)
    .refine((given) => Object.keys(given).length <= max, `at most ${max} resources`)
    .meta({ ...(min > 0 && { minProperties: min }), maxProperties: max })

export const permissions = namedActions(BOUNDS.permissions).describe(
  'For each resource the actions allowed on it. `*` stands for every action, or every resource.',
)

const limit = integer(BOUNDS.limit)
const name = z
  .string()
  .regex(LIMIT_NAME)
  .refine((value) => value !== 'quota', 'another name than "quota"')
  .meta({ not: { const: 'quota' } })
const timeZone = z.string().describe('An IANA name such as `Europe/Berlin`, or an offset; `UTC` if left out.')

export const rateLimit = z.union([
  z.strictObject({
    name,
    limit,
    windowMs: integer(BOUNDS.windowMs),
    burst: integer(BOUNDS.burst).optional(),
  }),
  z.strictObject({ name, limit, per: z.enum(['day', 'month']), timeZone: timeZone.optional() }),
])

const amount = integer(BOUNDS.refillAmount)
const refill = z.union([
  z.strictObject({ amount, everyMs: integer(BOUNDS.refillEveryMs) }),
  z.strictObject({ amount, per: z.enum(['day', 'month']), timeZone: timeZone.optional() }),
])

const quota = z.strictObject({ remaining: integer(BOUNDS.remaining), refill: refill.nullable().optional() })
const metadata = z
  .record(z.string(), z.unknown())
  .describe('JSON that is kept with the key; not for secrets.')
const status = z.enum(['active', 'disabled', 'expired', 'revoked'])
const reason = text(BOUNDS.reason).describe('Kept with the key.')
const prefix = z.string().regex(PREFIX)
// No address and no block is shorter or longer.
const addressRule = z.string().min(2).max(49)

const settings = {
  name: text(BOUNDS.name).describe('For people.'),
  permissions: permissions.optional(),
  rateLimits: z
    .array(rateLimit)
    .max(BOUNDS.rateLimits.max)
    .nullable()
    .optional()
    .describe('`null`: the limits of the service.'),
  quota: quota.nullable().optional(),
  allowedIps: z
    .array(addressRule)
    .max(BOUNDS.allowedIps.max)
    .nullable()
    .optional()
    .describe('Addresses and CIDR blocks.'),
  expiresAt: date.nullable().optional(),
  idleExpiryMs: integer(BOUNDS.idleExpiryMs).nullable().optional(),
  metadata: metadata.optional(),
}

export const listQuery = z.strictObject({
  ownerType: text(BOUNDS.ownerType).optional().describe('Together with `ownerId`.'),
  ownerId: text(BOUNDS.ownerId).optional(),
  createdBy: text(BOUNDS.createdBy).optional(),
  status: status.optional(),
  name: text(BOUNDS.name).optional().describe('The exact name.'),
  expiresBefore: date
    .optional()
    .describe(
      'Only keys whose `expiresAt` is before this time, whatever their status. Idle expiry does not count.',
    ),
  order: z
    .enum(['oldest', 'newest'])
    .optional()
    .describe('Which come first, by creation; `oldest` if left out.'),
  limit: z
    .string()
    .regex(/^\d{1,9}$/)
    .transform(Number)
    .pipe(z.int().min(1).max(100))
    .optional()
    .describe('20 if left out.'),
  cursor: text({ min: 1, max: 1_000 })
    .optional()
    .describe('The `nextCursor` of the page before, with the same filter and order.'),
})

export const noQuery = z.strictObject({})
export const noBody = z.strictObject({})

export const issueBody = z.strictObject({
  owner: owner.optional().describe('Left out where you have one owner.'),
  prefix: prefix.optional(),
  ...settings,
})

export const updateBody = z.strictObject({ ...settings, name: settings.name.optional() })

export const rotateBody = z.strictObject({
  graceMs: integer(BOUNDS.graceMs)
    .optional()
    .describe('How long the previous key keeps working; 24 hours if left out.'),
  expiresAt: date.nullable().optional().describe('When the new key expires.'),
})

export const revokeBody = z.strictObject({ reason: reason.optional() })

export const revokeAllBody = z.strictObject({
  owner: owner.optional().describe('Whose keys to revoke.'),
  createdBy: text(BOUNDS.createdBy)
    .optional()
    .describe('Or: whose issues. With `owner`, those among its keys; alone it is for administrators.'),
  reason: reason.optional(),
})

export const eraseBody = z.strictObject({
  owner: owner.describe('Whose keys to remove, whatever their state.'),
  knownAs: text(BOUNDS.createdBy)
    .nullable()
    .optional()
    .describe(
      'The identifier to forget as `createdBy` and `revokedBy` on keys of others; the id of the owner if left out, `null` for none.',
    ),
})

const required = namedActions({ ...BOUNDS.permissions, min: 1 })
const requirement = z
  .union([required, z.array(required).min(1).max(BOUNDS.permissions.max)])
  .describe('What the key must be permitted: all of it, or of several alternatives any one.')

const acceptedPrefix = text({ min: 1, max: 32 })

export const verifyBody = z.strictObject({
  key: z.string().describe('The key that was presented. It is neither kept nor shown.'),
  permissions: requirement.optional(),
  cost: integer(BOUNDS.cost)
    .optional()
    .describe('What the call spends where `charge` is true; 1 if left out. Otherwise nothing is spent.'),
  ip: text({ min: 2, max: 64 })
    .refine((ip) => readAddress(ip) !== null, 'an IP address')
    .optional()
    .describe(
      'The address of the client that presented the key. It is believed: the key that asks is trusted with it.',
    ),
  prefix: z
    .union([acceptedPrefix, z.array(acceptedPrefix).min(1).max(256)])
    .optional()
    .describe('Accepts only keys with this prefix, or one of these.'),
  charge: z.boolean().optional().describe('Whether the call counts against the limits of the key.'),
})

const nullableDate = date.nullable()

export const apiKey = z
  .strictObject({
    id: z.string(),
    lineageId: z.string().describe('Shared by a key and its successors.'),
    name: z.string(),
    prefix: z.string(),
    hint: z.string().describe('How the key begins.'),
    owner,
    createdBy: z.string().nullable(),
    permissions,
    metadata,
    enabled: z.boolean(),
    status: status.describe('The status when this was answered. A verified key is `active`.'),
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
    version: z.int().describe('Rises with every change; the `ETag`.'),
  })
  .describe('A key as everybody may see it who may see it at all.')

export const apiKeyPage = z.strictObject({
  apiKeys: z.array(apiKey),
  nextCursor: z.string().optional().describe('Gets the next page; absent on the last one.'),
})

const secret = z.string().describe('The key itself, this once.')
export const issued = z.strictObject({ key: secret, apiKey })
export const rotated = z.strictObject({ key: secret, apiKey, previous: apiKey })
export const revokedCount = z.strictObject({ revoked: z.int() })
export const erasedOwner = z.strictObject({
  removed: z.int().describe('How many keys of the owner were removed.'),
  forgotten: z.int().describe('On how many keys of others the owner was forgotten.'),
})

const limitState = z.strictObject({
  type: z.enum(['rate_limit', 'quota']),
  name: z.string(),
  limit: z.number().nullable(),
  remaining: z.number(),
  windowMs: z.number().nullable(),
  resetMs: z.number().nullable(),
  exceeded: z.boolean(),
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
          'Nothing is told of the key: its client has sent too many bad ones, or the service that asks has.',
        ),
    })
    .describe('No key, or one that is not valid, for whatever reason.'),
  z
    .strictObject({
      active: z.literal(true),
      apiKey: apiKey.optional(),
      limits: z.array(limitState),
      refused: refused.optional().describe('Why a good key is refused this call.'),
    })
    .describe('A good key.'),
])

export const problem = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string().optional().describe('For people: what to do about it.'),
    field: z.string().optional().describe('The member that the refusal is about.'),
    accepted: z.string().optional().describe('For people: what would be accepted there.'),
  })
  .describe('RFC 9457.')

/** The schemas that have a name in the document. */
export const NAMED = {
  ApiKey: apiKey,
  ApiKeyPage: apiKeyPage,
  IssuedKey: issued,
  RotatedKey: rotated,
  RevokedCount: revokedCount,
  ErasedOwner: erasedOwner,
  Verification: verification,
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
  EmptyRequest: noBody,
} as const

/** A key as it travels: its dates are texts. */
export type ApiKeyJson = z.infer<typeof apiKey>
export type ApiKeyPageJson = z.infer<typeof apiKeyPage>
export type IssuedKeyJson = z.infer<typeof issued>
export type RotatedKeyJson = z.infer<typeof rotated>
export type RevokedCountJson = z.infer<typeof revokedCount>
export type ErasedOwnerJson = z.infer<typeof erasedOwner>
export type VerificationJson = z.infer<typeof verification>
export type ListQuery = z.infer<typeof listQuery>
export type IssueRequest = z.infer<typeof issueBody>
export type UpdateRequest = z.infer<typeof updateBody>
export type RotateRequest = z.infer<typeof rotateBody>
export type RevokeRequest = z.infer<typeof revokeBody>
export type RevokeAllRequest = z.infer<typeof revokeAllBody>
export type EraseRequest = z.infer<typeof eraseBody>
export type VerifyRequest = z.infer<typeof verifyBody>
