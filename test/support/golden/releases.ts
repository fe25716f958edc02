import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { KeyRecord, Pepper, RateLimit, VerifyOptions } from 'latchkey'

/** Where each release has a folder, named by its version. */
export const GOLDEN_FOLDER = fileURLToPath(new URL('../../golden/', import.meta.url))

/** Keys that a release has issued, as its stores kept them, and what it answered when they were presented. */
export interface FrozenKeys {
  readonly release: string
  /** When the last record was written. */
  readonly madeAt: string
  /** What `createApiKeys` needs to verify the keys. */
  readonly options: FrozenOptions
  readonly keys: readonly FrozenKey[]
  /** Every record of the store, those of no key above too; dates as ISO text. */
  readonly records: readonly FrozenRecord[]
}

export interface FrozenOptions {
  readonly prefix: string
  readonly peppers: readonly Pepper[]
  readonly rateLimits: readonly RateLimit[]
  /** Names of entries in `GOLDEN_FORMATS`. */
  readonly formats?: readonly string[]
}

export interface FrozenKey {
  readonly title: string
  readonly id: string
  /** What a caller presents. */
  readonly key: string
  /** In the order in which they were given, by one process. */
  readonly answers: readonly FrozenAnswer[]
}

export interface FrozenAnswer {
  readonly at: string
  readonly ask: VerifyOptions
  /** The result of `verify` without its `apiKey`. */
  readonly answer: Readonly<Record<string, unknown>>
}

export type FrozenRecord = Readonly<Record<keyof KeyRecord, unknown>>

/** What a release did, by section and name; every row is one promise. */
export type FrozenBehaviour = Readonly<Record<string, Readonly<Record<string, unknown>>>>

/** A row that a later release changed on purpose. */
export interface ChangedRow {
  /** One of `behaviour.json`, or `keys` for an answer to a key: only its words may change, never whether it passes. */
  readonly section: string
  /** For `keys` the title of the key, and which of its answers: `a quota of three, answer 4`. */
  readonly row: string
  /** What the row is now. Absent where the row is gone. */
  readonly now?: unknown
  /** The line of the changelog that tells of it. */
  readonly changelog: string
}

/** A text that a later release changed on purpose, in every row that has it. */
export interface ChangedText {
  readonly was: string
  readonly now: string
  /** The line of the changelog that tells of it. */
  readonly changelog: string
}

/** The versions that have a folder, the oldest first. */
export function frozenReleases(): string[] {
  return readdirSync(GOLDEN_FOLDER)
    .filter((name) => /^\d+\.\d+\.\d+$/.test(name))
    .sort(compareVersions)
}

/** Negative where `a` is older than `b`. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number)) as [number[], number[]]
  const at = left.findIndex((part, i) => part !== right[i])
  return at === -1 ? 0 : (left[at] as number) - (right[at] as number)
}

export function readFrozen<T>(release: string, file: string): T {
  return JSON.parse(readFileSync(`${GOLDEN_FOLDER}${release}/${file}`, 'utf8'))
}

/** What later releases have changed on purpose of this one. */
export function readChanged(release: string): readonly ChangedRow[] {
  return frozenFile(release, 'changed.json') === null ? [] : readFrozen(release, 'changed.json')
}

/** The texts that releases after this one have changed in it. */
export function readChangedTexts(release: string): readonly ChangedText[] {
  return frozenFile(release, 'changed-texts.json') === null ? [] : readFrozen(release, 'changed-texts.json')
}

/** What was promised, with the texts that were changed since; the JSON of a body is looked into. */
export function withChangedTexts(promised: unknown, texts: readonly ChangedText[]): unknown {
  if (typeof promised === 'string') {
    // The documented default of an option may look like this too.
    if (promised.startsWith('{"')) return JSON.stringify(withChangedTexts(JSON.parse(promised), texts))
    return texts.find(({ was }) => was === promised)?.now ?? promised
  }
  if (Array.isArray(promised)) return promised.map((entry) => withChangedTexts(entry, texts))
  if (typeof promised !== 'object' || promised === null) return promised
  const members = Object.entries(promised).map(([name, value]) => [name, withChangedTexts(value, texts)])
  return Object.fromEntries(members)
}

/** What a key is answered today at each of its moments. */
export function answersToday(release: string, { title, answers }: FrozenKey): FrozenAnswer['answer'][] {
  const changed = readChanged(release).filter(({ section }) => section === 'keys')
  return answers.map(({ answer }, i) => {
    const change = changed.find(({ row }) => row === `${title}, answer ${i + 1}`)
    return change ? { ...answer, ...(change.now as object), ok: answer.ok, code: answer.code } : answer
  })
}

/** The path of a frozen file, or null where the release has none. */
export function frozenFile(release: string, file: string): string | null {
  const path = `${GOLDEN_FOLDER}${release}/${file}`
  return existsSync(path) ? path : null
}

const DATES = ['createdAt', 'updatedAt', 'expiresAt', 'lastUsedAt', 'revokedAt'] as const

/** The record of a JSON dump. Only its own dates become dates: metadata may hold a text that looks like one. */
export function toRecord(frozen: FrozenRecord): KeyRecord {
  const quota = frozen.quota as { nextRefillAt: string | null } | null
  const dates = DATES.map((member) => [member, toDate(frozen[member])])
  return {
    ...structuredClone(frozen),
    ...Object.fromEntries(dates),
    quota: quota && { ...quota, nextRefillAt: toDate(quota.nextRefillAt) },
  } as unknown as KeyRecord
}

/** What JSON makes of a value, as it was read from a file. */
export function asJson<T>(value: unknown): T {
  return JSON.parse(JSON.stringify(value))
}

function toDate(value: unknown): Date | null {
  return typeof value === 'string' ? new Date(value) : null
}
