import { describe, expect, it, vi } from 'vitest'
import { startProgram } from '../support/program.ts'

// A process has to load the sources first.
vi.setConfig({ testTimeout: 60_000 })

const DAY_MS = 86_400_000

/** Resolves with how a process ends that does this and then has nothing left to do. */
async function endOf(code: string): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const source = `
    import { createApiKeys, memoryRateLimiter, memoryStore } from './lib/index.ts'
    const silent = () => new Promise(() => {})
    const never = new Proxy({}, { get: () => silent })
    const owner = { type: 'user', id: 'u_1' }
    const start = (options) =>
      createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme', timeoutMs: ${DAY_MS}, ...options })
    const { key } = await start().issue({ owner, name: 'CI' })
    ${code}
    console.log('done')`
  const program = startProgram(['--input-type=module', '-e', source])
  const ended = await program.ended()
  return { code: ended, stdout: program.stdout, stderr: program.stderr }
}

describe('a process with nothing left to do', () => {
  it.each([
    ['a store is silent', `start({ store: never }).verify(key)`],
    ['the store of a change is silent', `start({ store: never }).issue({ owner, name: 'CI' })`],
    [
      'a limiter is silent',
      `const keys = start({ rateLimiter: { ...memoryRateLimiter(), check: silent } })
       keys.verify((await keys.issue({ owner, name: 'CI' })).key)`,
    ],
    [
      'nobody says whether an owner is active',
      `const keys = start({ isOwnerActive: silent })
       keys.verify((await keys.issue({ owner, name: 'CI' })).key)`,
    ],
    [
      'a failed attempt cannot be counted',
      `const keys = start({ failedAttempts: true, rateLimiter: { ...memoryRateLimiter(), check: silent } })
       await keys.verify('junk', { ip: '203.0.113.7' })`,
    ],
    [
      'uses wait to be written, and cannot be',
      `const keys = start({ store: { ...memoryStore(), recordUsage: silent }, usage: { flushMs: 30_000 } })
       await keys.verify((await keys.issue({ owner, name: 'CI' })).key)`,
    ],
    [
      'somebody waits for the end of a key',
      `const keys = start()
       const issued = await keys.issue({ owner, name: 'CI', expiresAt: new Date(Date.now() + 60_000) })
       keys.onEnd(issued.apiKey, () => {})
       await new Promise(setImmediate)`,
    ],
    ['it looks for keys that expire soon', `start({ onEvent() {}, expiryReminders: { everyMs: 60_000 } })`],
  ])('ends although %s', async (_what, code) => {
    expect(await endOf(code)).toEqual({ code: 0, stdout: 'done\n', stderr: '' })
  })
})
