import { memberPath } from '../../internal/key-text.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkInteger, checkObject, isPlainObject } from '../../internal/options.ts'
import { checkKeyPrefix } from '../../redis/options.ts'

/**
 * What happens to a call that Redis does not answer in time, or answers with an error:
 *
 * - `local`: this process counts for itself, from zero. With *n* processes a key gets up to *n* times the limit.
 * - `open`: the limit is not applied.
 * - `closed`: the call fails with `unavailable`, a 503.
 */
export type UnavailablePolicy = 'local' | 'open' | 'closed'

export interface RedisRateLimiterOptions {
  /**
   * What the names of keys in Redis begin with: 1 to 100 characters, no braces. Everything about a key and its
   * successors is in one hash, `<keyPrefix>:{<lineageId>}`.
   *
   * @default 'latchkey'
   */
  keyPrefix?: string
  /**
   * How long a check may take, in milliseconds, whatever the client's own settings are. A call that reaches Redis after
   * that spends nothing.
   *
   * @default 100
   */
  timeoutMs?: number
  /**
   * What happens while Redis does not answer, for all limits or apart for those named; `default` also holds for
   * keys without limits. A quota is always closed. Where a call is let pass, revocation by other processes is noticed
   * within the cache's age.
   *
   * @default 'local'
   */
  onUnavailable?:
    | UnavailablePolicy
    | {
        readonly default?: UnavailablePolicy
        readonly limits: Readonly<Record<string, UnavailablePolicy>>
      }
  /** How refusals are held in memory, so that a flood on an exhausted key does not reach Redis. */
  denials?: {
    /** How many keys are held at most. @default 10_000 */
    maxEntries?: number
    /**
     * For how long at most, in milliseconds: so much later may a key be refused after its limit was raised or units were
     * given back in another process. 0 holds none.
     *
     * @default 5_000
     */
    maxAgeMs?: number
  }
}

/** The options with their defaults. @throws TypeError naming the option. */
export function resolveRedisOptions(options: RedisRateLimiterOptions) {
  checkObject('options', options, ['keyPrefix', 'timeoutMs', 'onUnavailable', 'denials'])
  const { keyPrefix = 'latchkey', timeoutMs = 100, onUnavailable = 'local', denials = {} } = options
  checkObject('denials', denials, ['maxEntries', 'maxAgeMs'])
  const { maxEntries = 10_000, maxAgeMs = 5_000 } = denials
  return Object.freeze({
    keyPrefix: checkKeyPrefix(keyPrefix),
    timeoutMs: checkInteger('timeoutMs', timeoutMs, 1, 60_000),
    policyOf: resolvePolicies(onUnavailable),
    denials: {
      maxEntries: checkInteger('denials.maxEntries', maxEntries, 1, 10_000_000),
      maxAgeMs: checkInteger('denials.maxAgeMs', maxAgeMs, 0, 3_600_000),
    },
  })
}

/** The policy of a limit by its name; null stands for a key without limits. */
function resolvePolicies(
  value: NonNullable<RedisRateLimiterOptions['onUnavailable']>,
): (name: string | null) => UnavailablePolicy {
  if (!isPlainObject(value)) {
    const policy = checkPolicy('onUnavailable', value)
    return () => policy
  }
  checkObject('onUnavailable', value, ['default', 'limits'])
  const byName = new Map<string, UnavailablePolicy>()
  if (!isPlainObject(value.limits)) throw new OptionError('onUnavailable.limits', 'be an object')
  for (const [name, policy] of Object.entries(value.limits)) {
    byName.set(name, checkPolicy(memberPath('onUnavailable.limits', name), policy))
  }
  const fallback = checkPolicy('onUnavailable.default', value.default ?? 'local')
  return (name) => (name === null ? fallback : (byName.get(name) ?? fallback))
}

function checkPolicy(name: string, value: unknown): UnavailablePolicy {
  if (value === 'local' || value === 'open' || value === 'closed') return value
  throw new OptionError(name, 'be "local", "open" or "closed"')
}
