import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { curlLines } from '../../examples/two-services/curl-lines.ts'
import { fetcher, hasCurl, type RunCurl, shellIn } from '../support/curl.ts'
import { describeReadme } from '../support/example.ts'
import { findFreePort } from '../support/free-port.ts'
import { readPrintedLines, summaryOf } from '../support/printed-lines.ts'
import { type Program, startProgram } from '../support/program.ts'
import { createPostgres } from '../support/sql-databases.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 120_000 })

const FOLDER = 'examples/two-services'
const ADMIN_TOKEN = 'an-admin-token'
/** A database of its own on the Redis that all tests share. */
const REDIS_URL = `${inject('redisUrl')}/8`

describeReadme('two-services', curlLines({ auth: '', consumer: '', adminToken: '', key: '', id: '' }))

describe('both programs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-example-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const clients: [string, NodeJS.Signals, () => RunCurl][] = [['their requests', 'SIGINT', fetcher]]
  if (hasCurl) clients.push(['curl itself', 'SIGTERM', () => shellIn(folder)])
  it.each(clients)(
    'answer the lines that are printed as they promise: %s',
    async (_name, signal, createRun) => {
      const program = run('start.ts', { PORT: '0' })
      const lines = readPrintedLines(await program.waitFor(/knows too.*\n.*\n/))
      const [, key = ''] = /X-Api-Key: ([^']+)/.exec(lines[0]?.command ?? '') ?? []
      const runCurl = createRun()
      const told: string[] = []
      for (const { title, command } of lines) {
        const answers = await runCurl(command)
        told.push(`${title} → ${summaryOf(answers)}`)
        if (title === 'A report counts') expect(answers[0]?.headers.ratelimit).toMatch(/^"minute";r=2;t=\d+$/)
      }
      expect(told).toEqual(lines.map(({ title, promised }) => `${title} → ${promised}`))
      expect(told).toHaveLength(10)
      await program.waitFor(/^auth key\.refused revoked \w{16}$/m)
      await program.waitFor(/^consumer key\.refused inactive \w{16}$/m)
      program.signal(signal)
      expect(await program.ended()).toBe(0)
      expect(program.stderr).toBe('')
      // Nothing but the key to try is ever printed: not the consumer's own.
      const keys = new Set(program.stdout.match(/demo_\w{30,}/g))
      expect([...keys].sort()).toEqual([key, `${key}x`])
    },
  )

  it('end when whoever has started them was killed', async () => {
    const program = run('start.ts', { PORT: '0' })
    await program.waitFor(/knows too.*\n.*\n/)
    program.signal('SIGKILL')
    // Its output is theirs too, and is closed once they are gone.
    expect(await program.ended()).toBe('SIGKILL')
  })
})

describe('one after the other, with PostgreSQL and Redis', () => {
  it('start as the README says, and lose nothing when the auth service dies', async () => {
    const database = await createPostgres()
    onTestFinished(() => database.remove())
    const port = String(await findFreePort())
    const env = { PORT: port, ADMIN_TOKEN, DATABASE_URL: database.url, REDIS_URL }
    const startAuth = async () => {
      const program = run('auth.ts', env)
      await program.waitFor(/auth listens on/)
      return program
    }
    const url = `http://127.0.0.1:${port}/api-keys`
    const auth = await startAuth()

    const [answer] = await fetcher()(commandOfReadme(port))
    expect(answer?.status).toBe(201)
    const consumer = run('consumer.ts', {
      PORT: '0',
      AUTH_URL: url,
      AUTH_KEY: JSON.parse(answer?.body ?? '').key,
    })
    const [, at = ''] =
      /consumer listens on (\S+)/.exec(await consumer.waitFor(/consumer listens on \S+\n/)) ?? []
    const key = await issue(url, {
      permissions: { projects: ['read'] },
      rateLimits: [{ name: 'minute', limit: 3, windowMs: 600_000 }],
    })
    const ask = async (method: string, path: string, of = key) => {
      const response = await fetch(at + path, { method, headers: { 'X-Api-Key': of } })
      const { code } = (await response.json()) as { code?: string }
      return code === undefined ? String(response.status) : `${response.status} ${code}`
    }
    const other = await issue(url, { permissions: { projects: ['read'] } })
    expect(await ask('POST', '/reports')).toBe('201')
    expect(await ask('POST', '/reports')).toBe('201')
    expect(await ask('GET', '/projects')).toBe('200')

    auth.signal('SIGKILL')
    expect(await auth.ended()).toBe('SIGKILL')
    expect(await ask('GET', '/projects', other)).toBe('503 unavailable')
    expect(await ask('POST', '/reports')).toBe('503 unavailable')
    const seen = new Set<string>()
    while (!seen.has('503 unavailable')) seen.add(await ask('GET', '/projects'))
    expect([...seen].filter((told) => told !== '200')).toEqual(['503 unavailable'])
    expect(consumer.stderr).toMatch(/^consumer remote ApiKeysClientError: the service could not be reached$/m)

    const again = await startAuth()
    expect(await ask('GET', '/projects')).toBe('200')
    expect(await ask('GET', '/projects', other)).toBe('200')
    // Two of three were counted before it died.
    expect([await ask('POST', '/reports'), await ask('POST', '/reports')]).toEqual([
      '201',
      '429 rate_limited',
    ])

    for (const program of [consumer, again]) {
      program.signal('SIGTERM')
      expect(await program.ended()).toBe(0)
    }
  })

  /** What the README has one ask for the consumer's key, at this port. */
  function commandOfReadme(port: string): string {
    const readme = readFileSync(new URL(`../../${FOLDER}/README.md`, import.meta.url), 'utf8')
    const [command = ''] = /^curl .*$/m.exec(readme) ?? []
    return command.replace('127.0.0.1:3000', `127.0.0.1:${port}`).replace('$ADMIN_TOKEN', ADMIN_TOKEN)
  }

  async function issue(url: string, settings: object): Promise<string> {
    const response = await fetch(url, {
      method: 'POST',
      headers: { Authorization: `Bearer ${ADMIN_TOKEN}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ owner: { type: 'user', id: 'u_1' }, name: 'test', ...settings }),
    })
    expect(response.status).toBe(201)
    return ((await response.json()) as { key: string }).key
  }
})

describe('without what they need', () => {
  const missing: [string, NodeJS.ProcessEnv, string][] = [
    ['auth.ts', {}, 'ADMIN_TOKEN must be the token that administrators send to manage keys'],
    [
      'auth.ts',
      { ADMIN_TOKEN, DATABASE_URL: 'postgres://127.0.0.1/x' },
      'Set both DATABASE_URL and REDIS_URL, or neither',
    ],
    ['auth.ts', { ADMIN_TOKEN, PORT: 'http' }, 'PORT must be a number from 0 to 65535'],
    ['consumer.ts', {}, 'AUTH_URL must be the URL of the key routes of the auth service'],
    [
      'consumer.ts',
      { AUTH_URL: 'http://127.0.0.1:3000/api-keys' },
      'AUTH_KEY must be a key of the auth service that may verify other keys',
    ],
  ]
  it.each(missing)('%s says so in a line, and ends: %o', async (file, env, message) => {
    const program = run(file, env)
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe(`${message}\n`)
    expect(program.stdout).toBe('')
  })
})

function run(file: string, env: NodeJS.ProcessEnv): Program {
  const program = startProgram([`${FOLDER}/${file}`], env)
  onTestFinished(() => program.signal('SIGKILL'))
  return program
}
