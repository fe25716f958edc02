import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'

/** Reads and writes the values of a hash whose fields are named `<kind>:<name>`. */
export interface Transaction<Kinds> {
  /** What is there, or what this transaction has set. */
  get<K extends keyof Kinds & string>(kind: K, name: string): Promise<Kinds[K] | null>
  /** Null removes it. */
  set<K extends keyof Kinds & string>(kind: K, name: string, value: Kinds[K] | null): void
}

export type Transact<Kinds> = <T>(work: (transaction: Transaction<Kinds>) => Promise<T>) => Promise<T>

/**
 * Runs `work` and writes the values it has set, in one step, if nothing that it read has changed. Otherwise another call was first,
 * and it starts again. If `work` sets nothing, it ends at once: its reads may be from different moments. Redis holds values as JSON;
 * `parse` restores them.
 */
export function hashTransactions<Kinds>(
  redis: Redis,
  hash: string,
  parse: { readonly [K in keyof Kinds]: (text: string) => Kinds[K] },
): Transact<Kinds> {
  return async function transact(work) {
    for (;;) {
      const read = new Map<string, string>()
      const written = new Map<string, string>()
      const result = await work({
        async get(kind, name) {
          const field = `${kind}:${name}`
          const text = written.get(field) ?? read.get(field) ?? (await redis.hget(hash, field)) ?? NOTHING
          if (!written.has(field)) read.set(field, text)
          return text === NOTHING ? null : parse[kind](text)
        },
        set(kind, name, value) {
          written.set(`${kind}:${name}`, value === null ? NOTHING : JSON.stringify(value))
        },
      })
      if (written.size === 0) return result
      const args = [read.size, ...[...read].flat(), ...[...written].flat()]
      const done = `${hash}:${randomUUID()}`
      if ((await redis.eval(WRITE_IF_UNCHANGED, 2, hash, done, ...args)) === 1) return result
    }
  }
}

/** No JSON is empty. */
const NOTHING = ''

/**
 * After a lost connection, ioredis resends a command. The second key records for a minute that the command ran. Otherwise a
 * transaction would conflict with itself, and a quota would count units twice.
 *
 * KEYS: the hash, and a key that no other transaction uses. ARGV: the number of fields read, each of them with its text, then the
 * fields to write with theirs.
 */
const WRITE_IF_UNCHANGED = `
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
local last = 1 + 2 * ARGV[1]
for i = 2, last, 2 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = last + 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('SET', KEYS[2], 1, 'PX', 60000)
return 1`
