import { checkInteger } from '../../internal/options.ts'

/** The least and the most: of a number, of the characters of a text, of the entries of a list. */
export interface Bounds {
  readonly min: number
  readonly max: number
}

const DAY_MS = 86_400_000
const UNITS = 1_000_000_000_000

/** What may be set on a key, and how far: one table for `keys`, the HTTP interface, its document and the docs. */
export const BOUNDS = Object.freeze({
  ownerType: { min: 1, max: 64 },
  ownerId: { min: 1, max: 255 },
  createdBy: { min: 1, max: 255 },
  name: { min: 1, max: 255 },
  reason: { min: 1, max: 1_000 },
  /** Resources, and actions on each. */
  permissions: { min: 0, max: 256 },
  rateLimits: { min: 0, max: 16 },
  limit: { min: 1, max: UNITS },
  burst: { min: 1, max: UNITS },
  windowMs: { min: 1, max: 3_660 * DAY_MS },
  concurrent: { min: 1, max: 10_000 },
  maxHeldMs: { min: 1_000, max: 3_600_000 },
  remaining: { min: 0, max: UNITS },
  refillAmount: { min: 1, max: UNITS },
  refillEveryMs: { min: 1_000, max: 3_660 * DAY_MS },
  allowedIps: { min: 0, max: 256 },
  idleExpiryMs: { min: 60_000, max: 3_660 * DAY_MS },
  graceMs: { min: 0, max: 366 * DAY_MS },
  cost: { min: 0, max: Number.MAX_SAFE_INTEGER },
}) satisfies Readonly<Record<string, Bounds>>

/** Requires a whole number within bounds. @throws TypeError naming it */
export function checkBounded(name: string, value: unknown, { min, max }: Bounds): number {
  return checkInteger(name, value, min, max)
}
