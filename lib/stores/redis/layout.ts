import type { KeyPosition, ListPage } from '../../core/keys/key-store.ts'
import type { Owner } from '../../core/keys/record.ts'

/** How everything of the store is called in Redis. What is between braces decides in a Cluster where it is. */
export type RedisLayout = ReturnType<typeof createRedisLayout>

export function createRedisLayout(keyPrefix: string) {
  const nameOf = (kind: string, text: string) => `${keyPrefix}:${kind}:{${escapeText(text)}}`
  return {
    record: (lookup: string) => nameOf('k', lookup),
    /** Leads from the id to the lookup, where these are not the same. */
    pointer: (id: string) => nameOf('i', id),
    isPointer: (key: string) => key.startsWith(`${keyPrefix}:i:`),
    /** Of a lineage; beside its index. */
    quota: (lineageId: string) => nameOf('q', lineageId),
    /** That a swap of the quota was made. */
    swap: (lineageId: string, token: string) => `${nameOf('s', lineageId)}${token}`,
    batch: (token: string) => nameOf('b', token),
    agreement: (name: string) => nameOf('a', name),
    indexes: {
      all: nameOf('x', 'all'),
      owner: ({ type, id }: Owner) => nameOf('o', JSON.stringify([type, id])),
      createdBy: (createdBy: string) => nameOf('c', createdBy),
      name: (name: string) => nameOf('n', name),
      lineage: (lineageId: string) => nameOf('l', lineageId),
    },
  }
}

/** Ends each part of a member. It comes before all that an id can hold: there a zero is followed by a greater character. */
const END = '\0\u0001'
const BEHIND = '\0\u0002'

/** A member of an index, which sorts by creation, then by id; `stamp` tells it from others about the same record. */
export function indexMember(position: KeyPosition, lookup: string, stamp: string): string {
  return `${sortKey(position)}${END}${escapeText(lookup)}${END}${stamp}`
}

/** What a member is about. Null if it is none of ours. */
export function readIndexMember(member: string): { readonly lookup: string; readonly stamp: string } | null {
  const [, lookup, stamp] = member.split(END)
  if (lookup === undefined || stamp === undefined) return null
  const text = lookup.replace(/%([0-9a-f]{4})?/g, (_escaped, code?: string) =>
    code === undefined ? '' : String.fromCharCode(Number.parseInt(code, 16)),
  )
  return { lookup: text, stamp }
}

/** Where a range begins that holds what comes behind the position, in the order of the listing; without one, all. */
export function behind(position: KeyPosition | undefined, order: ListPage['order']): string {
  if (order === 'newest') return position ? `(${sortKey(position)}${END}` : '+'
  return position ? `[${sortKey(position)}${BEHIND}` : '-'
}

const MAX_TIME = 8_640_000_000_000_000

function sortKey({ createdAt, id }: KeyPosition): string {
  const time = createdAt.getTime()
  // Both together are more than a number can count.
  const [era, ms] = time < 0 ? ['0', MAX_TIME + time] : ['1', time]
  return (
    era + String(ms).padStart(16, '0') + id.replaceAll('\0', BEHIND).replace(/\p{Surrogate}/gu, sortSurrogate)
  )
}

/** A surrogate that stands alone cannot be written as UTF-8. It sorts between what comes before all of them and after. */
function sortSurrogate(surrogate: string): string {
  return `\ud7ff\u{10ffff}${hex(surrogate)}`
}

/** The text without braces and what UTF-8 does not have; never empty, since empty braces say nothing. */
function escapeText(text: string): string {
  return text === '' ? '%' : text.replace(/[{}%\0\p{Surrogate}]/gu, (character) => `%${hex(character)}`)
}

function hex(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(4, '0')
}

const STAMP_TIME_LENGTH = 9

/** What tells one writing of a record, or of its name, from every other; it begins with when that was, by a server's clock. */
export function createStamp(now: number, random: string): string {
  return now.toString(36).padStart(STAMP_TIME_LENGTH, '0') + random
}

export function stampTime(stamp: string): number {
  return Number.parseInt(stamp.slice(0, STAMP_TIME_LENGTH), 36)
}
