import type { ApiKey, Owner } from './keys/record.ts'
import type { AcceptedConfiguration } from './manage/key-management.ts'
import type { InvalidReason } from './verify/verify-result.ts'

/** What a change is reported with. */
interface Change {
  readonly at: Date
  readonly keyId: string
  readonly owner: Owner
  /** Who did it, where the call said so. */
  readonly by: string | null
  /** The key before the change; null for one that is new. */
  readonly before: ApiKey | null
  /** The key after the change. */
  readonly apiKey: ApiKey
}

/**
 * What happened, for audit logs and metrics. No event holds a key, a digest or a header value.
 *
 * A refusal names its precise reason here and only here: clients get one answer for every kind of bad key.
 */
export type ApiKeyEvent =
  | ({ readonly type: 'key.issued' | 'key.imported' } & Change)
  | { readonly type: 'keys.imported'; readonly at: Date; readonly count: number; readonly by: string | null }
  | ({ readonly type: 'key.updated'; readonly changed: readonly string[] } & Change)
  | ({ readonly type: 'key.enabled' | 'key.disabled' | 'key.revoked' } & Change)
  | ({ readonly type: 'key.rotated'; readonly successor: ApiKey } & Change)
  | {
      /** A key was shown to somebody who does not own it: whoever offers that reports it. */
      readonly type: 'key.read'
      readonly at: Date
      readonly keyId: string
      readonly owner: Owner
      /** Who has read it. */
      readonly by: string | null
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
      /** Everything of an owner was erased, or was begun to be. What was erased is not told. */
      readonly type: 'owner.erased'
      readonly at: Date
      readonly owner: Owner
      /** How many keys of the owner were removed. */
      readonly removed: number
      /** On how many keys that stay the owner was forgotten. */
      readonly forgotten: number
      /** False where it ended with an error, and has to be called again. */
      readonly complete: boolean
      readonly by: string | null
    }
  | {
      readonly type: 'creator.revoked'
      readonly at: Date
      /** Whose issues were revoked. */
      readonly createdBy: string
      /** Of whom alone; null where of every owner. */
      readonly owner: Owner | null
      readonly count: number
      readonly by: string | null
    }
  | {
      /** A presented key was refused, or what looks like one in the wrong place. */
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
       * Why an invalid key is invalid. With `missing_key` always `bearer_not_read`: something that begins as keys do came as
       * `Authorization: Bearer`, which is not read there. Null for the other codes.
       */
      readonly reason: InvalidReason | 'bearer_not_read' | null
      /** The id that the key claims; null when it is malformed. It is proven for the reasons after `wrong_secret`. */
      readonly keyId: string | null
      /** The owner of the record; null when there is none. */
      readonly owner: Owner | null
      /** The client's address, without a port; null where none can be read. */
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
      /** An operator said that what this process is configured with is right: see `keys.acceptConfiguration`. */
      readonly type: 'configuration.accepted'
      readonly at: Date
      readonly accepted: AcceptedConfiguration
      readonly by: string | null
    }
  | {
      /** A change was committed, but the limiter could not be told: it resolved only after the caches had aged. */
      readonly type: 'change.delayed'
      readonly at: Date
      readonly keyIds: readonly string[]
      readonly delayMs: number
      readonly error: unknown
    }
  | {
      /** The rate limiter no longer asks a server that keeps failing, and answers by its `onUnavailable` policy. */
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
      /** An address has sent too many invalid keys: for so long, keys from it that are not known here are not looked at. */
      readonly type: 'address.blocked'
      readonly at: Date
      /** An IPv4 address, or an IPv6 network of 64 bits. */
      readonly address: string
      readonly forMs: number
    }
  | {
      /** A client's address was needed and cannot be read: `allowedIps` refuses the key, `failedAttempts` does not count it. */
      readonly type: 'address.missing'
      readonly at: Date
      readonly neededFor: 'allowedIps' | 'failedAttempts'
      /** What the framework says of the address: nothing, as on a Unix socket, or no address. */
      readonly found: 'nothing' | 'no address'
    }
  | {
      /** A part that Latchkey depends on failed, or failed and was made up for. */
      readonly type: 'fault'
      readonly at: Date
      readonly operation:
        | 'store'
        | 'rate_limiter'
        | 'invalidation'
        | 'digest'
        | 'format'
        | 'owner_status'
        | 'usage'
        | 'digest_upgrade'
        /** `resolveUser`, or a verify callback of Passport's kind. */
        | 'resolve_user'
        /** `actor` of the management. */
        | 'actor'
        /** A request to manage keys, where nothing else is to blame. */
        | 'management'
        /** `verify` itself: it was called wrongly, or after `close()`. */
        | 'verify'
        | 'remote'
      readonly error: unknown
    }

/** Receives events. What it throws is ignored: a listener cannot break a verification. */
export type ApiKeyListener = (event: ApiKeyEvent) => unknown
