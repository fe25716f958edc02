import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { curlLines } from '../../examples/redis/curl-lines.ts'
import { createSharedKeys } from '../../examples/redis/keys.ts'
import { type CurlAnswer, fetcher, hasCurl, type RunCurl, shellIn } from '../support/curl.ts'
import { describeReadme } from '../support/example.ts'
import { findFreePort } from '../support/free-port.ts'
import { readPrintedLines, summaryOf } from '../support/printed-lines.ts'
import { type Program, startProgram } from '../support/program.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const START = 'examples/redis/start.ts'
/** A database of its own on the Redis that all tests share. */
const REDIS_URL = `${inject('redisUrl')}/7`

describeReadme('redis', curlLines({ a: '', b: '', adminToken: '', keys: ['', ''], id: '' }))

describe('two processes', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-example-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  // The lines are always run; where there is a curl, they are also pasted into a shell.
  const clients: [string, NodeJS.Signals, () => RunCurl][] = [['their requests', 'SIGINT', fetcher]]
  if (hasCurl) clients.push(['curl itself', 'SIGTERM', () => shellIn(folder)])
  for (const [name, signal, createRun] of clients) {
    it(`answer the lines that are printed as they promise, and end at ${signal}: ${name}`, async () => {
      const { program, lines } = await start()
      const run = createRun()
      const answers: CurlAnswer[][] = []
      for (const { command } of lines) answers.push(await run(command))
      const told = lines.map(({ title }, i) => `${title} → ${summaryOf(answers[i] ?? [])}`)
      expect(told).toEqual(lines.map(({ title, promised }) => `${title} → ${promised}`))
      expect(told).toHaveLength(6)
      const [atA, atB, revoked] = answers.map(([answer]) => answer as CurlAnswer) as [
        CurlAnswer,
        CurlAnswer,
        CurlAnswer,
      ]
      const [a, b, revokedBy] = [atA, atB, revoked].map(({ body }) => JSON.parse(body).process)
      expect([a === b, a === revokedBy]).toEqual([false, true])
      expect(atA.headers.ratelimit).toMatch(/^"minute";r=4;.*, "day";r=999;.*, "quota";r=999/)
      expect(atB.headers.ratelimit).toMatch(/^"minute";r=3;.*, "day";r=998;.*, "quota";r=998/)
      expect(answers[4]?.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 429, 429])
      await program.waitFor(new RegExp(`^${b} key\\.refused revoked \\w{16}$`, 'm'))
      await stop(program, signal)
      await expectGone(lines.slice(0, 2).map(({ command }) => addressIn(command)))
    })
  }

  it('refuse at the very next request what the other has just revoked, time after time', async () => {
    const { program, a, b, authorization } = await start()
    const redis = new Redis(REDIS_URL)
    onTestFinished(() => redis.disconnect())
    const keys = createSharedKeys(redis)
    const ask = async (url: string, key: string) =>
      (await fetch(`${url}/projects`, { headers: { 'X-Api-Key': key } })).status
    for (let round = 0; round < 20; round += 1) {
      const owner = { type: 'user', id: 'u_1' }
      const { key, apiKey } = await keys.issue({ owner, name: 'CI', permissions: { projects: ['read'] } })
      expect([await ask(a, key), await ask(b, key)]).toEqual([200, 200])
      const [revoking, other] = round % 2 === 0 ? [a, b] : [b, a]
      const revoked = await fetch(`${revoking}/keys/${apiKey.id}/revoke`, {
        method: 'POST',
        headers: { authorization },
      })
      expect(await revoked.json()).toMatchObject({ id: apiKey.id, revokedAt: expect.any(String) })
      expect([await ask(other, key), await ask(revoking, key)]).toEqual([401, 401])
    }
    await keys.close()
    await stop(program, 'SIGTERM')
  })

  it('let nobody revoke but an administrator, and know what does not exist', async () => {
    const { program, a, authorization, lines } = await start()
    const [, id = ''] = /\/keys\/(\w+)\/revoke/.exec(lines[2]?.command ?? '') ?? []
    const [, key = ''] = /X-Api-Key: ([^']+)/.exec(lines[0]?.command ?? '') ?? []
    const revoke = (of: string, headers: Record<string, string>) =>
      fetch(`${a}/keys/${of}/revoke`, { method: 'POST', headers })
    for (const headers of [
      {},
      { 'X-Api-Key': key },
      { authorization: 'Bearer x' },
      { authorization: `${authorization}x` },
    ]) {
      expect((await revoke(id, headers as Record<string, string>)).status).toBe(401)
    }
    expect((await fetch(`${a}/projects`, { headers: { 'X-Api-Key': key } })).status).toBe(200)
    const unknown = await revoke('0000000000000000', { authorization })
    expect(unknown.status).toBe(404)
    expect(await unknown.json()).toMatchObject({ code: 'not_found' })
    await stop(program, 'SIGTERM')
  })

  it('end when whoever has started them was killed', async () => {
    const { program, a, b } = await start()
    program.signal('SIGKILL')
    // Its output is theirs too, and is closed once they are gone.
    expect(await program.ended()).toBe('SIGKILL')
    await expectGone([a, b])
  })
})

describe('without what it needs', () => {
  it('says that it needs a Redis, where it looked and how to name another, and no password', async () => {
    const port = await findFreePort()
    const program = startHere({ REDIS_URL: `redis://:s3cret@127.0.0.1:${port}` })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe(
      `This example needs a Redis, and none answers at 127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}\n` +
        'Start one there, or name another: REDIS_URL=redis://host:6379 node --import tsx examples/redis/start.ts\n',
    )
    expect(program.stdout).toBe('')
  })

  it('says that a port is none, and leaves no process behind', async () => {
    const program = startHere({ PORT: '65535' })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toContain('There is no process at port 65536\n')
  })

  it('runs no process without an administrator', async () => {
    const program = startProgram(['examples/redis/server.ts'], { REDIS_URL, PORT: '0' })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe('ADMIN_TOKEN must be the token that administrators send to revoke keys\n')
  })
})

function startHere(env: NodeJS.ProcessEnv = {}): Program {
  const program = startProgram([START], { REDIS_URL, PORT: '0', ...env })
  onTestFinished(() => program.signal('SIGKILL'))
  return program
}

/** Starts the example, and finds in what it prints where its processes are and what an administrator sends. */
async function start() {
  const program = startHere()
  const lines = readPrintedLines(await program.waitFor(/used up at B.*\n.*\n/))
  const [a = '', b = '', revoke = ''] = lines.map(({ command }) => command)
  const [, authorization = ''] = /Authorization: ([^']+)/.exec(revoke) ?? []
  return { program, lines, a: addressIn(a), b: addressIn(b), authorization }
}

function addressIn(command: string): string {
  return /http:\/\/[^/]+/.exec(command)?.[0] ?? ''
}

async function stop(program: Program, signal: NodeJS.Signals): Promise<void> {
  program.signal(signal)
  expect(await program.ended()).toBe(0)
  expect(program.stderr).toBe('')
}

async function expectGone(addresses: string[]): Promise<void> {
  const reached = await Promise.allSettled(addresses.map((address) => fetch(address)))
  expect(reached.map(({ status }) => status)).toEqual(addresses.map(() => 'rejected'))
}
