import type { ApiKey, Owner } from './keys/record.ts'
import type { AcceptedConfiguration } from './manage/key-management.ts'
import type { Explanation } from './verify/explanation.ts'
import type { InvalidReason } from './verify/verify-result.ts'

/** What every change event carries. */
interface Change {
  readonly at: Date
  readonly keyId: string
  readonly owner: Owner
  /** Who made the change, if the call said so. */
  readonly by: string | null
  /** The key before the change; null for one that is new. */
  readonly before: ApiKey | null
  /** The key after the change. */
  readonly apiKey: ApiKey
}

/**
 * What happened, for audit logs and metrics. No event holds a key, a digest or a header value.
 *
 * A refusal names its precise reason here and only here: clients get the same answer for every kind of bad key.
 */
export type ApiKeyEvent =
  | ({ readonly type: 'key.issued' | 'key.imported' } & Change)
  | { readonly type: 'keys.imported'; readonly at: Date; readonly count: number; readonly by: string | null }
  | ({ readonly type: 'key.updated'; readonly changed: readonly string[] } & Change)
  | ({ readonly type: 'key.enabled' | 'key.disabled' | 'key.revoked' } & Change)
  | ({ readonly type: 'key.rotated'; readonly successor: ApiKey } & Change)
  | {
      /** The management API showed a key to an actor who does not own it. */
      readonly type: 'key.read'
      readonly at: Date
      readonly keyId: string
      readonly owner: Owner
      /** Who has read it. */
      readonly by: string | null
    }
  | {
      /** An administrator had a decision explained over HTTP. */
      readonly type: 'key.explained'
      readonly at: Date
      /** The key that was found; null if there is none. */
      readonly keyId: string | null
      readonly owner: Owner | null
      /** What the explanation came to. */
      readonly outcome: Explanation['outcome']
      readonly reason: Explanation['reason']
      /** Who has asked. */
      readonly by: string | null
    }
  | {
      /** An active key expires soon: once for each time of `expiryReminders`, in one of the processes that share a store. */
      readonly type: 'key.expiring'
      readonly at: Date
      readonly keyId: string
      readonly owner: Owner
      /** The name of the key. */
      readonly name: string
      /** Who issued it, if that is known. */
      readonly createdBy: string | null
      readonly expiresAt: Date
      /** Which of the times it is, in milliseconds: 604_800_000 for a week before the end. After an outage, less time may be left. */
      readonly beforeMs: number
    }
  | { readonly type: 'keys.purged'; readonly at: Date; readonly count: number; readonly by: string | null }
  | {
      readonly type: 'owner.revoked' | 'owner.invalidated'
      readonly at: Date
      readonly owner: Owner
      readonly count: number
      readonly by: string | null
    }
  | {
      /** An owner was erased, or the erasure began and failed. The event does not say what was erased. */
      readonly type: 'owner.erased'
      readonly at: Date
      readonly owner: Owner
      /** How many keys of the owner were removed. */
      readonly removed: number
      /** On how many remaining keys the owner's identifier was cleared. */
      readonly forgotten: number
      /** False if it failed and must be called again. */
      readonly complete: boolean
      readonly by: string | null
    }
  | {
      readonly type: 'creator.revoked'
      readonly at: Date
      /** Whose keys were revoked: their `createdBy`. */
      readonly createdBy: string
      /** The only owner whose keys were revoked; null for every owner. */
      readonly owner: Owner | null
      readonly count: number
      readonly by: string | null
    }
  | {
      /** A key was refused, or text that looks like a key came in the wrong place. */
      readonly type: 'key.refused'
      readonly at: Date
      readonly code:
        | 'missing_key'
        | 'multiple_credentials'
        | 'invalid_key'
        | 'address_not_allowed'
        | 'insufficient_permissions'
        | 'rate_limited'
        | 'quota_exceeded'
        | 'too_many_failures'
      /**
       * Why an invalid key is invalid. With `missing_key` it is always `bearer_not_read`: a text that begins like a key
       * came as `Authorization: Bearer`, which this middleware does not read. Null for the other codes.
       */
      readonly reason: InvalidReason | 'bearer_not_read' | null
      /** The id that the key claims; null when it is malformed. It is proven for the reasons after `wrong_secret`. */
      readonly keyId: string | null
      /** The owner of the record; null when there is none. */
      readonly owner: Owner | null
      /** The client's address, without a port; null if there is none. */
      readonly ip: string | null
    }
  | {
      /** A stored digest was rewritten under the current scheme. */
      readonly type: 'digest.upgraded'
      readonly at: Date
      readonly keyId: string
      readonly owner: Owner
    }
  | {
      /** An operator accepted the configuration of this process with `keys.acceptConfiguration`. */
      readonly type: 'configuration.accepted'
      readonly at: Date
      readonly accepted: AcceptedConfiguration
      readonly by: string | null
    }
  | {
      /**
       * A change was committed, but the limiter could not be updated. The call resolved only after cached records had
       * expired.
       */
      readonly type: 'change.delayed'
      readonly at: Date
      readonly keyIds: readonly string[]
      readonly delayMs: number
      readonly error: unknown
    }
  | {
      /** The rate limiter stopped asking a server that keeps failing. It follows its `onUnavailable` policy. */
      readonly type: 'limiter.suspended'
      readonly at: Date
      readonly error: unknown
    }
  | {
      /** That server answers again. */
      readonly type: 'limiter.resumed'
      readonly at: Date
      readonly afterMs: number
    }
  | {
      /** An address sent too many invalid keys. For `forMs`, it can use only keys that this process verified recently. */
      readonly type: 'address.blocked'
      readonly at: Date
      /** An IPv4 address, or an IPv6 network of 64 bits. */
      readonly address: string
      readonly forMs: number
    }
  | {
      /** A client's address is missing or unreadable: `allowedIps` refuses the key, `failedAttempts` does not count it. */
      readonly type: 'address.missing'
      readonly at: Date
      readonly neededFor: 'allowedIps' | 'failedAttempts'
      /** What the framework gave as the address: nothing, as on a Unix socket, or text that is not an address. */
      readonly found: 'nothing' | 'no address'
    }
  | {
      /** Something that Latchkey depends on failed, even if Latchkey recovered. */
      readonly type: 'fault'
      readonly at: Date
      readonly operation:
        | 'store'
        | 'rate_limiter'
        | 'invalidation'
        | 'digest'
        | 'format'
        | 'owner_status'
        /** `rateLimits`, if it is a function or has plans. */
        | 'owner_limits'
        | 'usage'
        | 'digest_upgrade'
        /** `resolveUser`, or a verify callback of Passport's kind. */
        | 'resolve_user'
        /** The option `cost` of a middleware or a route, if it is a function. */
        | 'cost'
        /** The option `permissions` of a middleware, a route or a guard, if it is a function. */
        | 'permissions'
        /** The option `actor` of the management API. */
        | 'actor'
        /** A management request failed for any other reason. */
        | 'management'
        /** `verify` itself: called wrongly, or after `close()`. */
        | 'verify'
        | 'remote'
        /** A listener of `onEnd` threw: it may not have closed its connection. */
        | 'end_listener'
        /** The listener `onAdmitted` threw: it may have missed a call. */
        | 'admission_listener'
        /** The store of tickets. */
        | 'tickets'
      readonly error: unknown
    }

/** Receives events. Latchkey ignores what it throws, so a listener cannot break a verification. */
export type ApiKeyListener = (event: ApiKeyEvent) => unknown
