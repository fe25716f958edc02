import { OptionError } from '../internal/option-error.ts'
import type { NodeRedisClient } from './node-redis-client.ts'

/**
 * Whether that is a client of node-redis; otherwise it must have these methods, as one of ioredis does.
 *
 * @throws TypeError
 */
export function isNodeRedis(client: unknown, methods: readonly string[]): client is NodeRedisClient {
  const { isOpen, sendCommand, evalSha, evalsha, withTypeMapping, subscribe, acquire, _execute } = (client ??
    {}) as Record<string, unknown>
  const isSending = typeof sendCommand === 'function'
  if (isSending && typeof isOpen === 'boolean') {
    if (!withTypeMapping) refuse('be of node-redis 5 or 6: this is version 4')
    if (!subscribe)
      refuse('be from createClient(), createCluster() or createSentinel(), not a pool or a lease')
    if (acquire && !_execute) refuse('be of node-redis 5 or 6: this is a version that Latchkey does not know')
    return true
  }
  if (isSending && evalSha && !evalsha) refuse('be the client itself, not what its legacy() returns')
  for (const method of methods) {
    if (typeof (client as Record<string, unknown> | null | undefined)?.[method] !== 'function') {
      refuse(`be a client of ioredis 5 or 6, or of node-redis 5 or 6: it has no method "${method}"`)
    }
  }
  return false
}

function refuse(expected: string): never {
  throw new OptionError('client', expected)
}
