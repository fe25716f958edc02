import { createHash } from 'node:crypto'
import { messageOf } from '../internal/any-realm.ts'

/** The methods of a client that running a script needs. */
export interface ScriptClient {
  eval(script: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
  evalsha(sha: string, numberOfKeys: number, ...args: (string | number)[]): Promise<unknown>
}

/** A Lua script, and the SHA-1 by which Redis knows it once it is loaded. */
export interface Script {
  readonly source: string
  readonly sha: string
}

export function createScript(text: string): Script {
  const source = text.trim()
  return Object.freeze({ source, sha: createHash('sha1').update(source).digest('hex') })
}

/** Runs a script. `given` has the keys, `keyCount` of them, and then the arguments. Every failure rejects. */
export type RunScript = (
  script: Script,
  keyCount: number,
  given: readonly (string | number)[],
) => Promise<unknown>

/**
 * Sends EVALSHA, or EVAL if the server does not know the script. Of many calls at once, only the first sends the source; the others
 * wait until the server knows the script.
 */
export function createScriptRunner(current: () => ScriptClient): RunScript {
  /** Scripts whose source is being sent. */
  const loading = new Map<string, Promise<unknown>>()

  function runScript(
    script: Script,
    keyCount: number,
    given: readonly (string | number)[],
  ): Promise<unknown> {
    const client = current()
    return client.evalsha(script.sha, keyCount, ...given).catch((error: unknown) => {
      if (!isUnknownScript(error)) throw error
      return load(client, script, keyCount, given)
    })
  }

  async function load(
    client: ScriptClient,
    { sha, source }: Script,
    keyCount: number,
    given: readonly (string | number)[],
  ): Promise<unknown> {
    const first = loading.get(sha)
    if (first) {
      await first.catch(() => {})
      try {
        return await client.evalsha(sha, keyCount, ...given)
      } catch (error) {
        // In a Cluster this may be another server.
        if (!isUnknownScript(error)) throw error
        return client.eval(source, keyCount, ...given)
      }
    }
    const sent = client.eval(source, keyCount, ...given)
    loading.set(sha, sent)
    try {
      return await sent
    } finally {
      loading.delete(sha)
    }
  }

  return runScript
}

function isUnknownScript(error: unknown): boolean {
  return messageOf(error).startsWith('NOSCRIPT')
}
