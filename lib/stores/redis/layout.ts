import type { KeyPosition, ListPage } from '../../core/keys/key-store.ts'
import type { Owner } from '../../core/keys/record.ts'

/** The names of the store's keys in Redis. In a Cluster, the text in braces decides which server holds a key. */
export type RedisLayout = ReturnType<typeof createRedisLayout>

export function createRedisLayout(keyPrefix: string) {
  const nameOf = (kind: string, text: string) => `${keyPrefix}:${kind}:{${escapeText(text)}}`
  return {
    record: (lookup: string) => nameOf('k', lookup),
    /** Leads from the id to the lookup, if they differ. */
    pointer: (id: string) => nameOf('i', id),
    isPointer: (key: string) => key.startsWith(`${keyPrefix}:i:`),
    /** The quota of a lineage, on the same server as the lineage's index. */
    quota: (lineageId: string) => nameOf('q', lineageId),
    /** Exists for a while after a swap of the quota. */
    swap: (lineageId: string, token: string) => `${nameOf('s', lineageId)}${token}`,
    batch: (token: string) => nameOf('b', token),
    agreement: (name: string) => nameOf('a', name),
    /** One day of use, on the same server as the set of all days of its subject. */
    usage: (subject: string, day: number) => `${nameOf('u', subject)}${day}`,
    usageDays: (subject: string) => nameOf('u', subject),
    /** The latest batch of each writer for that day. */
    usageWriters: (subject: string, day: number) => `${nameOf('u', subject)}${day}w`,
    /** The hour since which use is kept. */
    usageSince: nameOf('v', 'since'),
    indexes: {
      all: nameOf('x', 'all'),
      owner: ({ type, id }: Owner) => nameOf('o', JSON.stringify([type, id])),
      createdBy: (createdBy: string) => nameOf('c', createdBy),
      name: (name: string) => nameOf('n', name),
      lineage: (lineageId: string) => nameOf('l', lineageId),
    },
  }
}

/** Ends each part of a member. It sorts before anything in an id, where `AFTER` replaces a zero. */
const END = '\0\u0001'
const AFTER = '\0\u0002'

/** A member of an index. Members sort by creation, then by id. `stamp` tells apart members with the same lookup. */
export function indexMember(position: KeyPosition, lookup: string, stamp: string): string {
  return `${sortKey(position)}${END}${escapeText(lookup)}${END}${stamp}`
}

/** The lookup and stamp of a member; null if the store did not write it. */
export function readIndexMember(member: string): { readonly lookup: string; readonly stamp: string } | null {
  const [, lookup, stamp] = member.split(END)
  if (lookup === undefined || stamp === undefined) return null
  const text = lookup.replace(/%([0-9a-f]{4})?/g, (_escaped, code?: string) =>
    code === undefined ? '' : String.fromCharCode(Number.parseInt(code, 16)),
  )
  return { lookup: text, stamp }
}

/** Where a listing begins: right after the position or, without one, at the start. */
export function rangeStart(position: KeyPosition | undefined, order: ListPage['order']): string {
  if (order === 'newest') return position ? `(${sortKey(position)}${END}` : '+'
  return position ? `[${sortKey(position)}${AFTER}` : '-'
}

const MAX_TIME = 8_640_000_000_000_000

function sortKey({ createdAt, id }: KeyPosition): string {
  const time = createdAt.getTime()
  // Times before and after 1970 together exceed the safe integers.
  const [era, ms] = time < 0 ? ['0', MAX_TIME + time] : ['1', time]
  return (
    era + String(ms).padStart(16, '0') + id.replaceAll('\0', AFTER).replace(/\p{Surrogate}/gu, sortSurrogate)
  )
}

/** UTF-8 cannot encode a lone surrogate. Its replacement sorts after \ud7ff and before \ue000. */
function sortSurrogate(surrogate: string): string {
  return `\ud7ff\u{10ffff}${hex(surrogate)}`
}

/** The text with its braces, zeros and lone surrogates escaped. Never empty: a Cluster ignores empty braces. */
function escapeText(text: string): string {
  return text === '' ? '%' : text.replace(/[{}%\0\p{Surrogate}]/gu, (character) => `%${hex(character)}`)
}

function hex(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(4, '0')
}

const STAMP_TIME_LENGTH = 9

/** Identifies one insertion of a record, or one change of its name. Begins with the time of it, by a server's clock. */
export function createStamp(now: number, random: string): string {
  return now.toString(36).padStart(STAMP_TIME_LENGTH, '0') + random
}

export function stampTime(stamp: string): number {
  return Number.parseInt(stamp.slice(0, STAMP_TIME_LENGTH), 36)
}
