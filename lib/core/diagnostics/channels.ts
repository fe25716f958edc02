import { channel } from 'node:diagnostics_channel'
import { isLatchkeyError } from '../../errors.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { CacheMessage, LatchkeyChannels, UsageMessage } from './messages.ts'

interface TypedChannel<Message> {
  /** Ask this before measuring anything. */
  readonly hasSubscribers: boolean
  publish(message: Message): void
}

function open<Name extends keyof LatchkeyChannels>(name: Name): TypedChannel<LatchkeyChannels[Name]> {
  return channel(name)
}

export const verifyStartChannel = open('latchkey:verify:start')
export const verifyChannel = open('latchkey:verify')
export const dependencyChannel = open('latchkey:dependency')
const usageChannel = open('latchkey:usage')
const cacheChannel = open('latchkey:cache')
const faultChannel = open('latchkey:fault')
const limiterChannel = open('latchkey:limiter')

/** Tells what the memory of this process knew about a key. */
export function tellCacheResult(result: CacheMessage['result']): void {
  if (cacheChannel.hasSubscribers) cacheChannel.publish({ result })
}

/** Tells of a write of uses, the oldest of which came at `sinceMs`: `Infinity` if there was none. */
export function tellUsageLag(
  kind: UsageMessage['kind'],
  isWritten: boolean,
  sinceMs: number,
  nowMs: number,
): void {
  if (sinceMs === Infinity || !usageChannel.hasSubscribers) return
  usageChannel.publish({
    kind,
    outcome: isWritten ? 'written' : 'failed',
    lagMs: Math.max(0, nowMs - sinceMs),
  })
}

/** Tells of an event that says how the parts are; of others nothing. */
export function tellCondition(event: ApiKeyEvent): void {
  if (event.type === 'fault') {
    if (!faultChannel.hasSubscribers) return
    const { operation, error } = event
    faultChannel.publish({ operation, code: isLatchkeyError(error) ? error.code : null })
  } else if (event.type === 'limiter.suspended' || event.type === 'limiter.resumed') {
    if (!limiterChannel.hasSubscribers) return
    limiterChannel.publish({ state: event.type === 'limiter.suspended' ? 'suspended' : 'resumed' })
  }
}
