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
 * Runs a script and continues with its reply, or with the error of any failure. A promise in between would cost every
 * call.
 */
export type CallScript = <T>(
  script: Script,
  keyCount: number,
  given: readonly (string | number)[],
  proceed: (reply: unknown) => T,
  fail: (error: unknown) => T,
) => Promise<T>

/**
 * Sends EVALSHA, or EVAL if the server does not know the script. Of many calls at once, only the first sends the source; the others
 * wait until the server knows the script.
 */
export function createScriptRunner(current: () => ScriptClient): RunScript {
  const callScript = createScriptCaller(current)
  return (script, keyCount, given) => callScript(script, keyCount, given, keepReply, rethrow)
}

function keepReply(reply: unknown): unknown {
  return reply
}

function rethrow(error: unknown): never {
  throw error
}

/** Like {@link createScriptRunner}, with the continuations as parameters. */
export function createScriptCaller(current: () => ScriptClient): CallScript {
  /** Scripts whose source is being sent. */
  const loading = new Map<string, Promise<unknown>>()

  function callScript<T>(
    script: Script,
    keyCount: number,
    given: readonly (string | number)[],
    proceed: (reply: unknown) => T,
    fail: (error: unknown) => T,
  ): Promise<T> {
    const client = current()
    return client.evalsha(script.sha, keyCount, ...given).then(proceed, (error: unknown) => {
      if (!isUnknownScript(error)) return fail(error)
      return load(client, script, keyCount, given).then(proceed, fail)
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

  return callScript
}

function isUnknownScript(error: unknown): boolean {
  return messageOf(error).startsWith('NOSCRIPT')
}
