import type { ApiKeys, IssueOptions } from 'latchkey'
import { issueKey } from '../support/issue-key.ts'
import { BOB, forgeKey } from '../support/test-keys.ts'

/** Stands in header lines for what differs from run to run, and in what comes of a request as well. */
export type Token =
  | 'key'
  | 'key id'
  | 'wrong key'
  | 'unknown key'
  | 'malformed key'
  | 'Bob’s key'
  | 'Bob’s key id'
  | 'session'

export interface Tokens {
  of(token: Token): string
  set(token: Token, value: string): void
  /** Writes values in the places of their names. */
  fill(text: string): string
  /** Writes names in the places of what is public of their values. */
  hide(text: string): string
  /** What no response may ever show. */
  readonly secrets: readonly string[]
}

/** Issues the keys that header lines speak of. */
export async function createTokens(keys: ApiKeys, settings: Partial<IssueOptions> = {}): Promise<Tokens> {
  const { key, apiKey } = await issueKey(keys, settings)
  const bobs = await issueKey(keys, { owner: BOB, name: 'Bob’s' })
  const values = new Map<Token, string>([
    ['key', key],
    ['key id', apiKey.id],
    ['wrong key', forgeKey(key, { secret: '0'.repeat(43) })],
    ['unknown key', forgeKey(key, { keyId: '0'.repeat(16) })],
    ['malformed key', key.slice(0, -1) + (key.endsWith('0') ? '1' : '0')],
    ['Bob’s key', bobs.key],
    ['Bob’s key id', bobs.apiKey.id],
  ])
  const of = (token: Token) => {
    const value = values.get(token)
    if (value === undefined) throw new Error(`there is no ${token} here`)
    return value
  }
  return {
    of,
    set: (token, value) => void values.set(token, value),
    fill: (text) => text.replace(/<([^<>]+)>/g, (_all, name) => of(name as Token)),
    hide: (text) =>
      text.replaceAll(of('key id'), '<key id>').replaceAll(of('Bob’s key id'), '<Bob’s key id>'),
    secrets: [key, bobs.key].map((text) => text.slice(-49)),
  }
}
