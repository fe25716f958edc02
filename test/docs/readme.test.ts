import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type Server, STATUS_CODES } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import express, { type RequestHandler } from 'express'
import session from 'express-session'
import { createApiKeys, type ErrorCode, LatchkeyError, memoryRateLimiter, memoryStore } from 'latchkey'
import {
  apiKeyAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { migrationSql } from 'latchkey/sql'
import request from 'supertest'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { type PublicTypes, readPublicTypes } from '../support/compiler.ts'
import { type CurlAnswer, fetcher } from '../support/curl.ts'
import { type CodeBlock, codeIn, deadLinks, readCodeBlocks, readTable } from '../support/markdown.ts'
import { startProgram } from '../support/program.ts'

// Compilers and child processes are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const root = fileURLToPath(new URL('../../', import.meta.url))
const readme = readFileSync(`${root}README.md`, 'utf8')
const blocks = readCodeBlocks(readme)
const firstScreen = blocks.filter(({ heading }) => heading === 'Latchkey')

describe('the code of the README', () => {
  it('is of a kind that is checked here', () => {
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts', 'sh', 'http']))
  })
})

describe('the first screen', () => {
  const [install, program, ...answers] = firstScreen

  it('shows a program of twenty lines at most', () => {
    expect(install?.text).toBe('npm install latchkey\n')
    expect(program?.language).toBe('ts')
    expect(program?.text.trim().split('\n').length).toBeLessThanOrEqual(20)
  })

  it('shows what its program answers', async () => {
    const port = await findFreePort()
    const source = (program as CodeBlock).text.replace('app.listen(3000)', `app.listen(${port})`)
    expect(source).toContain(String(port))
    const running = startProgram(['--input-type=module', '--eval', source])
    try {
      const key = (await running.waitFor(/^acme_\w+\n/)).trim()
      const run = fetcher()
      expect(answers.map(({ language }) => language)).toEqual(['sh', 'http', 'sh', 'http'])
      await listensOn(port)
      for (const [command, shown] of [answers.slice(0, 2), answers.slice(2)] as [CodeBlock, CodeBlock][]) {
        expect(command.text).toContain('http://localhost:3000/')
        const line = command.text.replace('localhost:3000', `localhost:${port}`).replace('acme_…', key)
        const [answer] = await run(line)
        expectShown(shown, answer as CurlAnswer)
      }
    } finally {
      running.signal('SIGKILL')
      await running.ended()
    }
  })
})

describe('the answers', () => {
  let server: Server | undefined
  afterEach(() => void server?.close())

  it('are those that the README shows', async () => {
    const keys = createApiKeys({
      store: memoryStore(),
      rateLimiter: memoryRateLimiter({ clock: { now: () => 0 } }),
      prefix: 'acme',
      rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }],
    })
    const app = express()
    app.get('/', apiKeyAuth(keys), answer)
    app.post('/', apiKeyAuth(keys, { permissions: { projects: ['write'] } }), answer)
    server = createServer(app).listen(0)
    const { key } = await keys.issue({
      owner: { type: 'user', id: 'u_1' },
      name: 'CI',
      permissions: { projects: ['read'] },
    })
    const url = `http://localhost:${(server.address() as AddressInfo).port}`
    const run = fetcher()
    const [forbidden] = await run(`curl -i ${url}/ -H 'X-Api-Key: ${key}' -d ''`)
    await run(`curl -i ${url}/ -H 'X-Api-Key: ${key}'`)
    const [limited] = await run(`curl -i ${url}/ -H 'X-Api-Key: ${key}'`)
    const shown = blocks.filter(({ language, heading }) => language === 'http' && heading === 'Answers')
    expect(shown).toHaveLength(2)
    expectShown(shown[0] as CodeBlock, forbidden as CurlAnswer)
    expectShown(shown[1] as CodeBlock, limited as CurlAnswer)
  })
})

describe('the table of keys and sessions', () => {
  const GUARDS: Record<string, RequestHandler> = {
    'requireSession()': requireSession(),
    'requireAuth()': requireAuth(),
    "requireAuth({ accept: ['session', 'apikey'] })": requireAuth({ accept: ['session', 'apikey'] }),
    'requireApiKey()': requireApiKey(),
    "requirePermissions({ projects: ['read'] })": requirePermissions({ projects: ['read'] }),
    "requirePermissions({ projects: ['read'] }, { accept: ['session'] })": requirePermissions(
      { projects: ['read'] },
      { accept: ['session'] },
    ),
  }
  const rows = readTable(readme, '').map(([first = '', ...rest]) => [codeIn(first)[0] ?? first, ...rest])

  it.each(Object.keys(GUARDS))('tells what %s does', async (guard) => {
    const [, forSession = '', forKey = ''] = rows.find(([first]) => first === guard) ?? []
    const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
    const owner = { type: 'user', id: 'u_1' }
    const holder = await keys.issue({ owner, name: 'holds', permissions: { projects: ['read'] } })
    const other = await keys.issue({ owner, name: 'holds none' })
    const app = express()
    app.use(session({ secret: 'only for this test', resave: false, saveUninitialized: true }))
    app.use(markSession({ user: (req) => (req.get('X-Logged-In') ? { id: 'u_1' } : null) }))
    app.use(apiKeyAuth(keys, { required: false }), GUARDS[guard] as RequestHandler, answer)

    expect(told(await request(app).get('/').set('X-Logged-In', 'yes'))).toBe(forSession)
    expect(told(await request(app).get('/').set('X-Api-Key', holder.key))).toBe(
      forKey.replace('passes if it holds them', 'passes'),
    )
    const poor = told(await request(app).get('/').set('X-Api-Key', other.key))
    expect(poor).toBe(forKey.replace('passes if it holds them', '`403 insufficient_permissions`'))
  })

  it('has no guard that is not tried here', () => {
    const named = rows.map(([first = '']) => first).filter((first) => first.startsWith('require'))
    expect(named).toEqual(Object.keys(GUARDS))
  })
})

describe('the tables of names', () => {
  let main: PublicTypes
  beforeAll(() => {
    main = readPublicTypes('latchkey')
  })

  it('list every code with its status', () => {
    const rows = readTable(readme, 'status').map(([status, code = '']) => [Number(status), codeIn(code)[0]])
    const codes = main.literals('ErrorCode') as ErrorCode[]
    expect(sorted(rows)).toEqual(sorted(codes.map((code) => [new LatchkeyError(code).status, code])))
  })

  it('list every event', () => {
    const named = readTable(readme, 'event').flatMap(([names = '']) => codeIn(names))
    expect(sorted(named)).toEqual(sorted([...new Set(main.literals('ApiKeyEvent', 'type'))]))
  })

  it('list every option with its default', () => {
    expect(namesAndDefaults('option of `createApiKeys`')).toEqual(
      main.members('ApiKeysOptions').map(({ name, defaultText }) => [name, shortDefault(name, defaultText)]),
    )
  })

  it('list every option of the limiter of Redis with its default', () => {
    expect(namesAndDefaults('option of `redisRateLimiter`')).toEqual(
      readPublicTypes('latchkey/redis')
        .members('RedisRateLimiterOptions')
        .map(({ name, defaultText }) => [name, shortDefault(name, defaultText)]),
    )
  })

  it('list every option of remote verification with its default', () => {
    expect(namesAndDefaults('option of `remoteApiKeys`')).toEqual(
      readPublicTypes('latchkey/remote')
        .members('RemoteApiKeysOptions')
        .map(({ name, defaultText }) => [name, shortDefault(name, defaultText)]),
    )
  })

  it('list every column of the SQL stores', () => {
    const named = readTable(readme, 'column').flatMap(([names = '']) => codeIn(names))
    const columns = [...migrationSql('postgres').matchAll(/^ {2}(\w+) (?:text|bigint|boolean)/gm)].map(
      ([, column]) => column as string,
    )
    const ofMigrations = ['name', 'applied_at_ms']
    const expected = new Set(columns.filter((column) => !ofMigrations.includes(column)))
    expect(sorted(named)).toEqual(sorted([...expected, 'name']))
  })

  it('list every setting with its default', () => {
    expect(namesAndDefaults('setting of a key')).toEqual(
      main.members('KeySettings').map(({ name, defaultText }) => [name, shortDefault(name, defaultText)]),
    )
  })

  it('list every method of a store', () => {
    const named = readTable(readme, 'method').flatMap(([names = '']) => codeIn(names))
    expect(named).toEqual(main.members('KeyStore').map(({ name }) => name))
  })

  it('list every warning', () => {
    const named = readTable(readme, 'warning').flatMap(([names = '']) => codeIn(names))
    const sources = readdirSync(`${root}lib`, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(`${root}lib/${name}`, 'utf8'))
    const given = sources.flatMap((source) => source.match(/(?<=')LATCHKEY_\w+(?=')/g) ?? [])
    expect(sorted(named)).toEqual(sorted([...new Set(given)]))
  })

  it('list every answer of getAuth', () => {
    const named = readTable(readme, '`method`').flatMap(([names = '']) => codeIn(names))
    expect(named).toEqual(readPublicTypes('latchkey/express').literals('Auth', 'method'))
  })
})

describe('the links and commands', () => {
  it.each(['README.md', 'CHANGELOG.md', 'SECURITY.md'])('lead somewhere: %s', (page) => {
    const url = new URL(`../../${page}`, import.meta.url)
    expect(readFileSync(url, 'utf8')).toContain('](')
    expect(deadLinks(url)).toEqual([])
  })

  it('exist: the commands of the README', () => {
    const { scripts } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))
    for (const [command = ''] of readTable(readme, 'command')) {
      const [, script = ''] = /^`npm ci && npm (\w+)`$/.exec(command) ?? []
      expect(scripts).toHaveProperty(script)
    }
  })
})

const answer: RequestHandler = (_req, res) => {
  res.json({})
}

/** An answer in the words of the table. */
function told({ status, body }: request.Response): string {
  return status === 200 ? 'passes' : `\`${status} ${body.code}\``
}

/** Requires the status line, the header fields that are shown, and the body to be those of the answer. */
function expectShown(shown: CodeBlock, answer: CurlAnswer): void {
  const [head = '', body = ''] = shown.text.split('\n\n')
  const [statusLine = '', ...lines] = head.split('\n')
  const headers = lines.map((line) => /^([^:]+): (.+)$/.exec(line)?.slice(1) ?? [line])
  expect(statusLine).toBe(`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`)
  expect(headers).toEqual(headers.map(([name = '']) => [name, answer.headers[name.toLowerCase()]]))
  expect(body.trimEnd()).toBe(answer.body)
}

function namesAndDefaults(title: string): (string | undefined)[][] {
  return readTable(readme, title).map(([name = '', value = '']) => [codeIn(name)[0], value])
}

/** `null (never)` in a docstring is `null` in a table; a default in words is left to the table. */
function shortDefault(name: string, text: string | null): string {
  if (name === 'digest') return "`'hmac-sha256'` with `peppers`, otherwise `'sha256'`"
  const value = /^(?:'\w+'|null|false|true|\[\]|\{\}|[\d_]+)/.exec(text ?? '')?.[0]
  return value === undefined ? '' : `\`${value}\``
}

function sorted<T>(values: readonly T[]): T[] {
  return [...values].sort((a, b) => String(a).localeCompare(String(b)))
}

async function findFreePort(): Promise<number> {
  const server = createTcpServer()
  await once(server.listen(0), 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** The program prints its key before it listens. */
async function listensOn(port: number): Promise<void> {
  for (;;) {
    try {
      await fetch(`http://localhost:${port}/`)
      return
    } catch {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

interface CheckFigures {
  oneTimesAsFast: { median: number }
  threeTimesAsFast: { median: number }
}

/** How the README calls what the report calls otherwise. */
const LISTS = [
  ['all keys', 'all'],
  ["an owner's", 'owner'],
  ['the same, behind a cursor', 'owner, later'],
  ['those that somebody issued', 'creator'],
  ['of one name', 'name'],
  ['active ones', 'active'],
  ["an owner's active ones", 'owner, active'],
  ['revoked ones, behind a cursor', 'revoked, later'],
  ['expired ones', 'expired'],
  ['of ten owners', 'several owners'],
] as const

describe('the figures of the README', () => {
  it('are those of the last report', () => {
    const report = JSON.parse(readFileSync(`${root}bench/results.json`, 'utf8'))
    const speed = readme.slice(readme.indexOf('## Speed'), readme.indexOf('## Versions'))
    const percentOf = (target: string) => `${report.http.targets[target].addedPercent.median.toFixed(1)} % |`
    for (const target of ['middleware', 'koa-middleware', 'strategy', 'headerapikey', 'empty']) {
      expect(speed).toContain(percentOf(target))
    }
    const redis = report.redis.http.targets
    for (const target of ['redis-latchkey', 'redis-latchkey-three', 'redis-headerapikey']) {
      expect(speed).toContain(`${redis[target].addedPercent.median.toFixed(1)} % |`)
    }
    for (const [concurrent, figures] of Object.entries<CheckFigures>(report.redis.check)) {
      const [one, three] = [
        figures.oneTimesAsFast.median.toFixed(2),
        figures.threeTimesAsFast.median.toFixed(2),
      ]
      expect(speed).toContain(`| ${concurrent} | ${one} | ${three} |`)
    }
    const { cold, import: imported, peer } = report.stores
    for (const [name, figures] of [
      ['SQLite', cold.sqlite],
      ['PostgreSQL', cold.postgres],
    ]) {
      const [small, large] = ['1000', '1000000'].map((size) => figures.sizes[size].p50Us.median.toFixed(0))
      const times = figures.largestInSmallest.median.toFixed(2)
      expect(speed).toContain(`| ${name} | ${small} µs | ${large} µs | ${times} times |`)
    }
    const { lists } = report.list
    for (const [label, name] of LISTS) {
      const { sizes, largestInSmallest } = lists[name]
      const [small, large] = ['1000', '1000000'].map((size) => (sizes[size].p50Us.median / 1_000).toFixed(1))
      const times = largestInSmallest.median.toFixed(2)
      expect(speed).toContain(`| ${label} | ${small} ms | ${large} ms | ${times} times |`)
      expect(sizes['1000000'].statements).toBe(1)
    }
    for (const share of [peer.cpuShare, peer.cpuShareWithRedis]) {
      expect(speed).toContain(`${(100 * share.median).toFixed(1)} %`)
    }
    for (const { keysPerSecond } of [imported.sqlite, imported.postgres]) {
      expect(speed).toContain(Math.round(keysPerSecond.median).toLocaleString('en-US'))
    }
    expect(peer.subjects.latchkey.writesPerCall).toBe(0)
    expect(speed).toContain(`${report.verify.verifyInHashes.median.toFixed(1)} times`)
    expect(speed).toContain(`${report.verify.verifyRemoteInLocal.median.toFixed(2)} times a local one`)
    expect(speed).toContain(`${Math.round(report.memory.bytesPerCachedRecord).toLocaleString('en-US')} bytes`)
    for (const part of ['http', 'verify', 'redis', 'stores', 'list']) {
      expect(report[part].rounds, part).toBeGreaterThanOrEqual(25)
    }
  })
})
