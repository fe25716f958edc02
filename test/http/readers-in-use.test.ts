import { apiKeyAuth } from 'latchkey/express'
import { expect, it } from 'vitest'
import { createCredentialReader, presentsAnyKey, registerReader } from '../../lib/http/credential.ts'
import { collectGarbage } from '../support/heap-growth.ts'
import { createTestKeys } from '../support/test-keys.ts'

const bearer = (token: string) => {
  const authorization = `Bearer ${token}`
  return { headers: { authorization }, rawHeaders: ['Authorization', authorization] }
}

/** A reader of keys that begin so, which are no keys of ours. */
function noteForeign(start: string) {
  const isImportedKey = (text: string) => text.startsWith(start)
  const reader = createCredentialReader({ bearer: true }, { prefix: 'acme', isImportedKey })
  registerReader(reader)
  return reader
}

it('knows how keys are presented for as long as a middleware reads them so, and no longer', async () => {
  const kept = noteForeign('kept-')
  noteForeign('dropped-')
  expect(presentsAnyKey(bearer('kept-1'))).toBe('by options')
  expect(presentsAnyKey(bearer('dropped-1'))).toBe('by options')
  await collectGarbage()
  expect(presentsAnyKey(bearer('dropped-1'))).toBeNull()
  expect(presentsAnyKey(bearer('kept-1'))).toBe('by options')
  expect(kept.form).toContain('x-api-key')
})

it('knows it while any one of several that read alike is left', async () => {
  const note = () => {
    const reader = createCredentialReader({ headers: ['X-Of-Several'] }, undefined)
    registerReader(reader)
    return reader
  }
  note()
  const kept = note()
  note()
  await collectGarbage()
  const request = { headers: { 'x-of-several': 'k' }, rawHeaders: ['X-Of-Several', 'k'] }
  expect(presentsAnyKey(request)).toBe('by options')
  expect(kept.read(request)).toEqual({ kind: 'one', key: 'k' })
})

it('drops readers after the members of globals were deleted, as Jest does after each test file', async () => {
  const shared = (globalThis as { [name: symbol]: object })[Symbol.for('latchkey.readers')] as object
  const members = Object.getOwnPropertyDescriptors(shared)
  const failures: unknown[] = []
  const note = (error: unknown) => failures.push(error)
  process.on('uncaughtException', note)
  try {
    noteForeign('late-')
    for (const name of Object.keys(members)) Reflect.deleteProperty(shared, name)
    await collectGarbage()
  } finally {
    Object.defineProperties(shared, members)
    process.off('uncaughtException', note)
  }
  expect(failures).toEqual([])
  expect(presentsAnyKey(bearer('late-1'))).toBeNull()
})

it('holds nothing of middlewares that were made for one request', async () => {
  const made: WeakRef<object>[] = []
  for (let i = 0; i < 50; i++) {
    const { keys } = createTestKeys({ prefix: `acme${i}` })
    made.push(new WeakRef(apiKeyAuth(keys)))
  }
  expect(presentsAnyKey(bearer('acme7_k'))).toBe('by default')
  // A turn of the event loop, or what was made in it is held.
  await collectGarbage()
  expect(made.filter((middleware) => middleware.deref())).toEqual([])
  expect(presentsAnyKey(bearer('acme7_k'))).toBeNull()
})
