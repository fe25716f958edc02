import { memberPath } from '../../internal/key-text.ts'
import { OptionError } from '../../internal/option-error.ts'
import {
  checkInteger,
  checkIntegerOfGroup,
  checkObject,
  checkOneOf,
  fail,
  isPlainObject,
} from '../../internal/options.ts'
import { checkKeyPrefix } from '../../redis/options.ts'

/**
 * What happens to a call if Redis does not answer in time or returns an error:
 *
 * - `local`: this process counts by itself, from zero. With *n* processes, a key gets up to *n* times the limit.
 * - `open`: the limit does not apply.
 * - `closed`: the call fails with `unavailable`, a 503.
 */
export type UnavailablePolicy = 'local' | 'open' | 'closed'

export interface RedisRateLimiterOptions {
  /**
   * The prefix of all key names in Redis: 1 to 100 characters, no braces. One hash, `<keyPrefix>:{<lineageId>}`, holds everything
   * about a key and its successors. With limits of the owner, there is one more for each owner.
   *
   * @default 'latchkey'
   */
  keyPrefix?: string
  /**
   * How long a check may take, in milliseconds, whatever the client's own settings are. A call that reaches Redis later spends
   * nothing.
   *
   * @default 100
   */
  timeoutMs?: number
  /**
   * What happens while Redis does not answer: one policy for all limits, or one for each named limit. `default` also applies to keys
   * without limits. A quota is always closed. While calls pass without Redis, this process notices revocations by other processes
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
  /**
   * How to keep refusals in memory, so that a flood of calls with an exhausted key does not reach Redis. `false` keeps none.
   */
  denials?:
    | false
    | {
        /** How many keys to keep refusals for. @default 10_000 */
        maxEntries?: number
        /**
         * How long to keep a refusal, in milliseconds. After another process raises a limit or gives units back, this process may
         * refuse the key for this much longer.
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
  return Object.freeze({
    keyPrefix: checkKeyPrefix(keyPrefix),
    timeoutMs: checkInteger('timeoutMs', timeoutMs, 1, 60_000),
    policyOf: resolvePolicies(onUnavailable),
    denials: denials === false ? false : resolveDenials(denials),
  })
}

function resolveDenials(denials: Exclude<RedisRateLimiterOptions['denials'], false | undefined>) {
  if (!isPlainObject(denials)) fail('denials', 'an object or false', denials)
  checkObject('denials', denials, ['maxEntries', 'maxAgeMs'])
  const { maxEntries = 10_000, maxAgeMs = 5_000 } = denials
  return {
    maxEntries: checkInteger('denials.maxEntries', maxEntries, 1, 10_000_000),
    maxAgeMs: checkIntegerOfGroup('denials', 'maxAgeMs', maxAgeMs, 3_600_000),
  }
}

/** The policy of a limit by its name; null is for a key without limits. */
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
  return checkOneOf(name, value, ['local', 'open', 'closed'])
}
