import { LatchkeyError } from '../../errors.ts'
import type { RedisStoreClient } from './client.ts'
import { type RedisLink, type Server, toError } from './link.ts'
import { TOUCH } from './scripts.ts'
import { serverOf, slotOf } from './slots.ts'

/** Notes what the reply to a write says about the replicas and the history of the server that holds a key. */
export function learn({ client, servers }: RedisLink, key: string, online: unknown): Server {
  const slot = slotOf(client, key)
  const known = servers.get(slot)
  const [, count, history = ''] = /^(\d+) (\w*)$/.exec(String(online)) ?? []
  const isAnother = known !== undefined && known.history !== history
  const server = {
    online: count === undefined ? null : Number(count),
    history,
    changedAt: isAnother ? performance.now() : (known?.changedAt ?? -Infinity),
  }
  servers.set(slot, server)
  return server
}

/**
 * Waits until enough replicas have what was written under these keys since a moment of `performance.now()`.
 *
 * @throws LatchkeyError `unavailable` if too few have it in time, or if a failover may have lost it.
 */
export async function confirm(link: RedisLink, keys: readonly string[], since: number): Promise<void> {
  if (link.settings.replicas === 0) return
  const keysByServer = new Map<string, string[]>()
  for (const key of new Set(keys)) {
    const name = serverOf(link.client, key)
    const together = keysByServer.get(name)
    if (together) together.push(key)
    else keysByServer.set(name, [key])
  }
  await Promise.all([...keysByServer.values()].map((some) => confirmOnServer(link, some, since)))
}

async function confirmOnServer(link: RedisLink, keys: readonly string[], since: number): Promise<void> {
  const { client, servers, settings } = link
  const [first] = keys as [string]
  const needed = replicasNeeded(link, first)
  if (needed === 0) return
  const { acknowledged, history } = await wait(link, first, needed)
  for (const key of keys) {
    const known = servers.get(slotOf(client, key))
    if (known && (known.history !== history || known.changedAt >= since)) {
      throw new LatchkeyError('unavailable', 'Another server has taken over and may not have the change')
    }
  }
  if (acknowledged >= needed) return
  throw new LatchkeyError(
    'unavailable',
    `The change is made, but only ${acknowledged} of ${needed} replicas have confirmed it within ${settings.waitMs} ms`,
  )
}

/** As many as the options say. By default one, or none if the server has no replicas. */
function replicasNeeded({ client, servers, settings: { replicas } }: RedisLink, key: string): number {
  const online = servers.get(slotOf(client, key))?.online
  if (replicas === null && online === null) {
    throw new LatchkeyError(
      'unavailable',
      'This Redis user may not run INFO replication: set "replicas" to how many replicas must confirm a change',
    )
  }
  return replicas ?? Math.min(online ?? 0, 1)
}

/**
 * Sends WAIT right after a write. WAIT covers the last write of its own connection and returns at once on a connection without one,
 * such as a new one. This write comes after all others on that server.
 */
async function wait(link: RedisLink, key: string, needed: number) {
  const { client, settings, noteFailure } = link
  const touched = `${settings.keyPrefix}:w:${/\{[^}]*\}/.exec(key)?.[0]}`
  const commands = [
    ['eval', TOUCH.source, '1', touched],
    ['wait', String(needed), String(settings.waitMs)],
  ]
  let replies: Awaited<ReturnType<ReturnType<RedisStoreClient['pipeline']>['exec']>>
  try {
    replies = await client.pipeline(commands).exec()
  } catch (error) {
    throw toError(error)
  }
  const failure = replies?.find(([error]) => error)
  if (failure) {
    noteFailure(failure[0])
    throw toError(failure[0])
  }
  const touch = replies?.[0]?.[1]
  const { history } = learn(link, key, Array.isArray(touch) ? touch[1] : '')
  return { acknowledged: Number(replies?.[1]?.[1] ?? 0), history }
}
