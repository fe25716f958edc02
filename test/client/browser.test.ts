import { readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import type * as Client from 'latchkey/client'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { type ImportEdge, walkImports } from '../support/import-graph.ts'
import { createWorld } from '../support/management-world.ts'
import { ALICE, NAME } from '../support/test-keys.ts'

const lib = fileURLToPath(new URL('../../lib', import.meta.url))
const DOOR = 'client/index.ts'
const edges = walkImports(lib)

/** What a file loads, and what that loads: everything that is there at run time. */
function loadedBy(door: string, all: readonly ImportEdge[]): { files: string[]; others: string[] } {
  const files = new Set([door])
  const others: string[] = []
  // The set grows while it is walked.
  for (const file of files) {
    for (const { from, to, isFile, kind } of all) {
      if (from !== file || kind === 'type') continue
      if (isFile && kind !== 'opaque') files.add(to)
      else others.push(to)
    }
  }
  return { files: [...files], others }
}

/** What the client may use: nothing of a page, nothing of Node. */
const GLOBALS = [
  'fetch',
  'URL',
  'URLSearchParams',
  'TextDecoder',
  'AbortController',
  'setTimeout',
  'clearTimeout',
  'performance',
  'crypto',
] as const

/** Loads the client where there is the language, these globals, and nothing else. */
function loadInBareContext(globals: Partial<Record<string, unknown>> = {}): typeof Client {
  const given = Object.fromEntries(GLOBALS.map((name) => [name, globalThis[name]]))
  const context = createContext({ ...given, ...globals })
  const loaded = new Map<string, { exports: object }>()

  function load(file: string): object {
    const known = loaded.get(file)
    if (known) return known.exports
    const module = { exports: {} }
    loaded.set(file, module)
    const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 }
    const { outputText } = ts.transpileModule(readFileSync(`${lib}/${file}`, 'utf8'), { compilerOptions })
    const run = runInContext(`(function (module, exports, require) {${outputText}\n})`, context, {
      filename: file,
    }) as (module: object, exports: object, require: (name: string) => object) => void
    run(module, module.exports, (name) => {
      if (!name.startsWith('.')) throw new Error(`there is no "${name}" in a browser`)
      return load(posix.join(posix.dirname(file), name))
    })
    return module.exports
  }

  return load(DOOR) as typeof Client
}

describe('the door of the client', () => {
  it('loads no module of Node and no package', () => {
    const { files, others } = loadedBy(DOOR, edges)
    expect(others).toEqual([])
    expect(files).toContain('client/connection.ts')
    expect(files).toContain('core/keys/record.ts')
    expect(files.length).toBeLessThan(20)
  })

  it('would be found to load one, however far away', () => {
    const more: ImportEdge = { from: 'errors.ts', to: 'node:util', isFile: false, kind: 'static' }
    expect(loadedBy(DOOR, [...edges, more]).others).toEqual(['node:util'])
    const later: ImportEdge = {
      from: 'core/keys/record.ts',
      to: 'core/digests/digest.ts',
      isFile: true,
      kind: 'dynamic',
    }
    expect(loadedBy(DOOR, [...edges, later]).others.some(isBuiltin)).toBe(true)
  })
})

describe('a client where there is nothing but what browsers have', () => {
  async function place(globals?: Partial<Record<string, unknown>>) {
    const world = await createWorld()
    const { createApiKeysClient, isApiKeysClientError, keyStatus } = loadInBareContext(globals)
    const baseUrl = `http://127.0.0.1:${world.port}/api-keys`
    return { ...world, baseUrl, createApiKeysClient, isApiKeysClientError, keyStatus }
  }

  it('tells of refusals, of time that is over, and of a signal', async () => {
    const { createApiKeysClient, isApiKeysClientError, baseUrl } = await place()
    const client = createApiKeysClient({ baseUrl, headers: { 'X-Actor': 'alice' } })
    const error = await client.issue({ name: '' }).catch((reason: unknown) => reason)
    expect(isApiKeysClientError(error)).toBe(true)
    expect(error).toMatchObject({ code: 'invalid_request', field: 'name' })
    const silent = createApiKeysClient({ baseUrl, timeoutMs: 20, fetch: () => new Promise(() => {}) })
    await expect(silent.list()).rejects.toMatchObject({ code: 'unavailable' })
    const signal = AbortSignal.abort('gone')
    expect(await client.list({}, { signal }).catch((reason: unknown) => reason)).toBe('gone')
  })

  it('refuses an invalid date of whatever realm', async () => {
    const { createApiKeysClient, baseUrl } = await place()
    const client = createApiKeysClient({ baseUrl, headers: { 'X-Actor': 'alice' } })
    const never = new Date(Number.NaN)
    await expect(client.issue({ name: 'a', expiresAt: never })).rejects.toThrow('"expiresAt" must be a valid')
  })

  it('manages and verifies keys', async () => {
    const { createApiKeysClient, keyStatus, baseUrl, keys } = await place()
    const client = createApiKeysClient({ baseUrl, headers: { 'X-Actor': 'alice' } })
    const { key, apiKey } = await client.issue({ name: 'CI', permissions: { projects: ['read'] } })
    expect(apiKey).toMatchObject({ name: 'CI', owner: ALICE })
    expect(JSON.stringify(await client.list({ owner: ALICE }))).toBe(JSON.stringify({ apiKeys: [apiKey] }))
    const { key: own } = await keys.issue({ ...NAME, permissions: { 'api-keys': ['verify'] } })
    const verifier = createApiKeysClient({ baseUrl, key: own })
    expect(await verifier.verify({ key })).toMatchObject({ active: true, apiKey: { id: apiKey.id } })
    expect([apiKey.status, keyStatus(apiKey)]).toEqual(['active', 'active'])
    const revoked = await client.revoke(apiKey.id)
    expect([revoked.status, keyStatus(revoked)]).toEqual(['revoked', 'revoked'])
    expect((await verifier.verify({ key })).active).toBe(false)
  })

  it('issues keys on a page without https, where crypto has no randomUUID', async () => {
    const crypto = {
      getRandomValues: (bytes: Uint8Array<ArrayBuffer>) => globalThis.crypto.getRandomValues(bytes),
    }
    const { createApiKeysClient, baseUrl } = await place({ crypto })
    const client = createApiKeysClient({ baseUrl, headers: { 'X-Actor': 'alice' } })
    expect((await client.issue({ name: 'CI' })).apiKey).toMatchObject({ name: 'CI' })
  })

  it('has a page, below which the service may be', async () => {
    const { createApiKeysClient, port } = await place({
      location: { href: 'http://127.0.0.1:1/settings' },
    })
    const client = createApiKeysClient({
      baseUrl: '/api-keys',
      headers: { 'X-Actor': 'alice' },
      fetch: (url, init) => fetch(url.replace('127.0.0.1:1/', `127.0.0.1:${port}/`), init),
    })
    expect((await client.list()).apiKeys).toHaveLength(0)
  })
})
