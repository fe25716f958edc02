import { createHash } from 'node:crypto'
import type { RedisClient } from 'latchkey/redis'

/** A client under whose scripts time stands still until a test moves it. */
export interface TimedRedis extends RedisClient {
  setTime(now: number): Promise<void>
}

type Scripting = Pick<RedisClient, 'eval' | 'evalsha'>

const TIME = "call('TIME')"

/**
 * The limiter's own scripts, on a real server, by a clock that a test moves: where they ask the server for its time, they
 * read a key instead. Nothing else in them is changed.
 */
export function timedRedis(
  redis: Scripting & { set(key: string, value: string): Promise<unknown> },
  clockKey: string,
): TimedRedis {
  const shas = new Map<string, string>()

  return {
    async setTime(now) {
      await redis.set(clockKey, JSON.stringify([Math.floor(now / 1000), (now % 1000) * 1000]))
    },
    async evalsha(sha, numberOfKeys, ...args) {
      const timed = shas.get(sha)
      // The server may know the script from somebody else, and by its own clock.
      if (!timed) throw new Error('NOSCRIPT not under this clock yet')
      return redis.evalsha(timed, numberOfKeys, ...args)
    },
    async eval(source, numberOfKeys, ...args) {
      const parts = source.split(TIME)
      if (parts.length !== 2) throw new Error(`a script asks for the time ${parts.length - 1} times`)
      const timed = parts.join(`cjson.decode(call('GET', '${clockKey}'))`)
      shas.set(sha1(source), sha1(timed))
      return redis.eval(timed, numberOfKeys, ...args)
    },
  }
}

/**
 * The same on a Cluster, where a script reads no key of another slot: its text says what time it is.
 */
export function timedCluster(cluster: Scripting): TimedRedis {
  const sources = new Map<string, string>()
  let time = ''

  return {
    async setTime(now) {
      time = `{${Math.floor(now / 1000)}, ${(now % 1000) * 1000}}`
    },
    async evalsha(sha, numberOfKeys, ...args) {
      const source = sources.get(sha)
      if (source === undefined) throw new Error('NOSCRIPT not under this clock yet')
      return cluster.eval(source.replace(TIME, time), numberOfKeys, ...args)
    },
    async eval(source, numberOfKeys, ...args) {
      sources.set(sha1(source), source)
      return cluster.eval(source.replace(TIME, time), numberOfKeys, ...args)
    },
  }
}

function sha1(text: string): string {
  return createHash('sha1').update(text).digest('hex')
}
