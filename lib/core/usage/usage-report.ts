import type { Owner } from '../keys/record.ts'

/** Whose use to report, and of when. Give `key` or `owner`. */
export interface UsageOptions {
  /** The id of a key. */
  key?: string
  /** An owner: the use of all its keys together, those that were purged since included. */
  owner?: Owner
  /**
   * The first moment. The report begins with the hour, or the day, that holds it.
   *
   * @default 24 hours before `to` by hour, 30 days before it by day
   */
  from?: Date
  /** The moment after the last. The report ends with the hour, or the day, before it or around it. @default now */
  to?: Date
  /** The length of a bucket. A report has at most 8,784 buckets by hour (366 days), and at most 1,830 by day. @default 'day' */
  by?: 'hour' | 'day'
  /**
   * The IANA time zone whose days are meant, such as `Europe/Berlin`, or an offset such as `+01:00`. Use is counted in hours of UTC: where a
   * day begins at half past, the hour around its beginning belongs to the day before.
   *
   * @default 'UTC'
   */
  timeZone?: string
}

/** What was counted. */
export interface UsageTotals {
  /** Calls that were admitted. A call with cost 0 does not count. */
  readonly admitted: number
  /** Calls that were refused although the key was right. */
  readonly refused: number
  /**
   * The same by reason: the `reason` of an invalid key (`revoked`, `disabled`, `expired`, `idle`, `owner_inactive` and others), or
   * the code of another refusal (`address_not_allowed`, `insufficient_permissions`, `rate_limited`, `quota_exceeded`).
   */
  readonly refusedBy: Readonly<Record<string, number>>
  /** What calls were charged, by the name of the limit or `quota`, after settlements and refunds. */
  readonly units: Readonly<Record<string, number>>
}

/** What was counted in one hour or day. */
export interface UsageBucket extends UsageTotals {
  readonly startsAt: Date
  readonly endsAt: Date
}

/** The use of a key, or of an owner. */
export interface UsageReport {
  readonly startsAt: Date
  readonly endsAt: Date
  readonly by: 'hour' | 'day'
  readonly timeZone: string
  /** In order, without gaps. */
  readonly buckets: readonly UsageBucket[]
  readonly total: UsageTotals
}
