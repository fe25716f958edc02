import type { TicketStore } from '../core/tickets/ticket-store.ts'
import { checkObject } from '../internal/options.ts'
import { isNodeRedis } from '../redis/accept-client.ts'
import { errorWords } from '../redis/error-words.ts'
import { NodeRedisAdapter } from '../redis/node-redis.ts'
import type { NodeRedisClient } from '../redis/node-redis-client.ts'
import { checkKeyPrefix } from '../redis/options.ts'
import { createRenewal } from '../redis/renew-connection.ts'
import { createScript, createScriptRunner, type Script, type ScriptClient } from '../redis/run-script.ts'

/** The parts of an ioredis 5 or 6 client that the store uses: `new Redis()`, also behind Sentinel, or `new Cluster()`. */
export interface RedisTicketClient extends ScriptClient {
  /** Reconnects. The store calls it when the server has become a replica and takes no writes. */
  disconnect?(reconnect?: boolean): void
}

export interface RedisTicketStoreOptions {
  /**
   * The prefix of all key names in Redis: 1 to 100 characters, no braces.
   *
   * @default 'latchkey:tickets'
   */
  keyPrefix?: string
}

/**
 * Keeps tickets in Redis: every process that shares it can redeem them, and one ticket works once in all of them. Redis removes what
 * nobody redeems.
 *
 * Whoever reads this Redis learns no key and no ticket. Whoever writes to it can destroy tickets, and can put a redeemed one back for
 * those who know it, until it expires, but cannot make one for a key that they do not have. A failover to a replica that has not
 * heard of a redemption allows a second one until the ticket expires.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const tickets = createTickets({ store: redisTicketStore(new Redis()) })
 */
export function redisTicketStore(
  client: RedisTicketClient | NodeRedisClient,
  options: RedisTicketStoreOptions = {},
): TicketStore {
  const sender: RedisTicketClient = isNodeRedis(client, ['eval', 'evalsha'])
    ? new NodeRedisAdapter(client)
    : client
  checkObject('options', options, ['keyPrefix'])
  const keyPrefix = checkKeyPrefix(options.keyPrefix ?? 'latchkey:tickets')
  const runScript = createScriptRunner(() => sender)
  const renew = () => sender.disconnect?.(true)
  const noteFailure = createRenewal(renew, () => performance.now())

  async function run(script: Script, id: string, ...args: (string | number)[]): Promise<unknown> {
    try {
      return await runScript(script, 1, [`${keyPrefix}:${id}`, ...args])
    } catch (error) {
      noteFailure(error)
      throw new Error(`Redis failed: ${errorWords(error)}`)
    }
  }

  return {
    async put(id, sealed, ttlMs) {
      await run(PUT, id, sealed, ttlMs)
    },
    async take(id) {
      const sealed = await run(TAKE, id)
      if (sealed === null || typeof sealed === 'string') return sealed
      throw new TypeError('Unexpected reply from Redis')
    },
  }
}

const PUT = createScript(`return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])`)

/** GETDEL needs Redis 6.2. */
const TAKE = createScript(`
local sealed = redis.call('GET', KEYS[1])
if sealed then redis.call('DEL', KEYS[1]) end
return sealed
`)
