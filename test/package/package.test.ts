import { execFileSync } from 'node:child_process'
import { posix } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import tsconfig from '../../tsconfig.json' with { type: 'json' }
import { doors as entries } from '../../tsdown.config.ts'
import { type Consumer, type PackedPackage, packPackage } from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

/** Runs a program in the consumer's folder and returns what it printed, as JSON. */
async function evaluate(consumer: Consumer, type: 'module' | 'commonjs', program: string): Promise<unknown> {
  const result = await consumer.run(`--input-type=${type}`, '--eval', program)
  expect(result, program).toMatchObject({ status: 0, stderr: '' })
  return JSON.parse(result.stdout)
}

describe('the tarball', () => {
  it('holds dist, the SQL, the guides, the examples, a folder for each door and five files beside them', () => {
    const folders = packed.doors.filter((door) => door !== 'latchkey').map((door) => `${door}/package.json`)
    expect(packed.files.filter((file) => !/^(?:dist|docs|examples)\/|\.sql$/.test(file))).toEqual(
      [
        'CHANGELOG.md',
        'LICENSE',
        'README.md',
        'SECURITY.md',
        'package.json',
        ...folders.map((file) => file.slice('latchkey/'.length)),
      ].sort(),
    )
    expect(packed.files).toContain('sql/1-create-tables.postgres.sql')
  })

  it('holds every page and example that the README and the guides link to', () => {
    const consumer = packed.createConsumer()
    const pages = packed.files.filter((file) => /^(?:README|docs\/[\w-]+)\.md$/.test(file))
    const linked = pages.flatMap((page) =>
      [...consumer.read(page).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path = '']) =>
        posix.join(posix.dirname(page), path),
      ),
    )
    expect(linked.length).toBeGreaterThan(100)
    const left = new Set(linked.filter((file) => !packed.files.includes(file)))
    // About work on the repository.
    expect([...left].sort()).toEqual(['CONTRIBUTING.md', 'bench/README.md'])
  })

  it('holds of the guides and examples what the repository does', () => {
    const shipped = packed.files.filter((file) => /^(?:docs|examples)\//.test(file))
    const tracked = execFileSync('git', ['ls-files', 'docs', 'examples'], { encoding: 'utf8' })
    expect(shipped).toEqual(tracked.trim().split('\n').sort())
  })

  it('holds code and declarations only, without source maps', () => {
    const consumer = packed.createConsumer()
    const dist = packed.files.filter((file) => file.startsWith('dist/'))
    expect(dist.filter((file) => !/\.(?:mjs|cjs|d\.mts|d\.cts)$/.test(file))).toEqual([])
    expect(dist.filter((file) => consumer.read(file).includes('sourceMappingURL'))).toEqual([])
  })

  it('names no folder of the machine that built it', () => {
    const consumer = packed.createConsumer()
    const root = process.cwd()
    expect(packed.files.filter((file) => consumer.read(file).includes(root))).toEqual([])
  })

  it('opens the same doors to users, to the build, and to the compiler and tests of this repository', () => {
    const { doors } = packed
    expect(doors).toContain('latchkey')
    expect(Object.keys(tsconfig.compilerOptions.paths).sort()).toEqual([...doors].sort())
    const built = Object.keys(entries).map((name) => (name === 'index' ? 'latchkey' : `latchkey/${name}`))
    expect(built.sort()).toEqual([...doors].sort())
    const classic = Object.entries(packed.manifest.typesVersions['*']).map(([name, [file]]) => {
      expect(file).toBe(`./dist/${name}.d.cts`)
      return `latchkey/${name}`
    })
    expect(['latchkey', ...classic].sort()).toEqual([...doors].sort())
  })
})

/** The peer that a door needs to open; most open without any. */
function neededPeer(door: string): string | undefined {
  if (door === 'latchkey/opentelemetry') return '@opentelemetry/api'
  return /(?:^|\/)nest$/.test(door) ? '@nestjs/common' : undefined
}
const NEEDED = ['@nestjs/common', '@nestjs/core', '@opentelemetry/api', 'reflect-metadata', 'rxjs']

describe('an application without passport, express, ioredis or bcrypt', () => {
  const names: Record<string, string[]> = {
    latchkey: ['createApiKeys', 'isLatchkeyError', 'memoryRateLimiter', 'memoryStore'],
    'latchkey/passport': ['ApiKeyStrategy'],
    'latchkey/express': ['apiKeyAuth'],
    'latchkey/koa': ['apiKeyAuth'],
    'latchkey/nest': ['CurrentAuth', 'LatchkeyGuard', 'LatchkeyModule', 'Public', 'RequireKey', 'getAuth'],
    'latchkey/fastify': ['apiKeyAuth', 'apiKeyPlugin', 'getAuth', 'markSession', 'requireSession'],
    'latchkey/fetch': ['apiKeyAuth', 'getAuth', 'markSession', 'requireSession', 'withApiKey'],
    'latchkey/mcp': ['getAuth', 'mcpGuard', 'mcpWebGuard', 'refund', 'settle'],
    'latchkey/websocket': ['apiKeyUpgrade', 'getAuth', 'markSession'],
    'latchkey/opentelemetry': ['LatchkeyInstrumentation'],
    'latchkey/redis': ['redisInvalidation', 'redisRateLimiter'],
    'latchkey/testing': ['keyRecord', 'limiterConformance', 'storeConformance'],
    'latchkey/management': ['createKeyManagementApi', 'openApiDocument'],
    'latchkey/management/express': ['apiKeyRouter'],
    'latchkey/management/koa': ['apiKeyRouter'],
    'latchkey/management/nest': ['ApiKeyRouterModule'],
    'latchkey/management/fetch': ['apiKeyRouter'],
    'latchkey/cli': ['defineConfig'],
    'latchkey/client': ['ApiKeysClientError', 'createApiKeysClient', 'isApiKeysClientError'],
    'latchkey/remote': ['remoteApiKeys'],
    'latchkey/import': ['betterAuthFormat', 'bcryptFormat', 'plainTextFormat', 'sanctumFormat'],
    'latchkey/sql': ['migrate', 'migrationSql', 'mysqlStore', 'postgresStore', 'sqliteStore'],
  }

  it('opens every door, as ESM and as CommonJS, and finds the same names there', async () => {
    const consumer = packed.createConsumer(NEEDED)
    const doors = JSON.stringify(packed.doors)
    const show = `console.log(JSON.stringify(names.map((door) => Object.keys(door).sort())))`
    const esm = await evaluate(
      consumer,
      'module',
      `const names = await Promise.all(${doors}.map((door) => import(door))); ${show}`,
    )
    const cjs = await evaluate(consumer, 'commonjs', `const names = ${doors}.map(require); ${show}`)
    expect(esm).toEqual(cjs)
    for (const [i, door] of packed.doors.entries()) {
      const wanted = names[door] ?? ['every door has its line above']
      expect((esm as string[][])[i], door).toEqual(expect.arrayContaining(wanted))
    }
  })

  it('is told what to install where there is no Nest, and no API of OpenTelemetry', async () => {
    const consumer = packed.createConsumer()
    for (const [open, type] of [
      ['import(door)', 'module'],
      ['require(door)', 'commonjs'],
    ] as const) {
      const outcomes = await evaluate(
        consumer,
        type,
        `const outcomeOf = (door) => (async () => ${open})().then(() => 'opens', ({ message }) => message.split('\\n')[0])
         Promise.all(${JSON.stringify(packed.doors)}.map(outcomeOf))
           .then((outcomes) => console.log(JSON.stringify(outcomes)))`,
      )
      for (const [i, door] of packed.doors.entries()) {
        const peer = neededPeer(door)
        const expected =
          peer === undefined ? 'opens' : expect.stringMatching(new RegExp(`^Cannot find \\w+ '${peer}'`))
        expect([door, (outcomes as string[])[i]]).toEqual([door, expected])
      }
    }
  })

  it('is told what to install where there is no driver for a SQLite file', async () => {
    const consumer = packed.createConsumer()
    const message = await evaluate(
      consumer,
      'commonjs',
      `process.getBuiltinModule = () => undefined
       const { sqliteStore } = require('latchkey/sql')
       sqliteStore('keys.db').find({ id: 'a' }).catch((error) => console.log(JSON.stringify(error.message)))`,
    )
    expect(message).toMatch(/run Node 22\.13 or later, or install better-sqlite3 or libsql/)
  })

  it('reads package.json', async () => {
    const consumer = packed.createConsumer()
    const version = await evaluate(
      consumer,
      'commonjs',
      `console.log(JSON.stringify(require('latchkey/package.json').name))`,
    )
    expect(version).toBe('latchkey')
  })

  it('finds every other path closed', async () => {
    const consumer = packed.createConsumer()
    const result = await consumer.run(
      '--input-type=module',
      '--eval',
      `await import('latchkey/dist/index.mjs')`,
    )
    expect(result.stderr).toContain('ERR_PACKAGE_PATH_NOT_EXPORTED')
  })
})

describe('an application with passport, express, ioredis and bcrypt', () => {
  const peers = ['passport', 'express', 'koa', 'ioredis', 'bcrypt']
  const loaded = `Object.keys(require.cache).filter((file) =>
    /node_modules.(?:passport|passport-strategy|express|koa|ioredis|bcrypt)[\\\\/]/.test(file))`

  it('does not have them loaded by any door but that of Passport', async () => {
    const consumer = packed.createConsumer(peers)
    const others = packed.doors.filter(
      (door) => door !== 'latchkey/passport' && neededPeer(door) === undefined,
    )
    const doors = JSON.stringify(others)
    const loads = [
      `Promise.all(${doors}.map((door) => import(door)))`,
      `Promise.resolve(${doors}.map(require))`,
    ]
    for (const load of loads) {
      const program = `${load}.then((opened) => console.log(JSON.stringify([opened.length, ...${loaded}])))`
      expect(await evaluate(consumer, 'commonjs', program)).toEqual([others.length])
    }
  })

  it('has only passport-strategy loaded by latchkey/passport', async () => {
    const consumer = packed.createConsumer(peers)
    for (const load of [`import('latchkey/passport')`, `Promise.resolve(require('latchkey/passport'))`]) {
      const files = await evaluate(
        consumer,
        'commonjs',
        `${load}.then(() => console.log(JSON.stringify(${loaded})))`,
      )
      expect(files).not.toEqual([])
      expect((files as string[]).filter((file) => !file.includes('passport-strategy'))).toEqual([])
    }
  })
})

describe('an application without zod and raw-body', () => {
  it('opens every door but those that read bodies, as ESM and as CommonJS', async () => {
    const consumer = packed.createConsumer(NEEDED)
    // Each way in a program of its own: Node 22 stumbles over a door that failed to open in the other way.
    const outcomesOf = (open: string) => {
      const program = `
        if (existsSync('node_modules/zod')) for (const name of ['zod', 'raw-body']) unlinkSync('node_modules/' + name)
        const outcomeOf = (door) => (async () => ${open})().then(() => 'opens', ({ code }) => code)
        Promise.all(${JSON.stringify(packed.doors)}.map(outcomeOf))
          .then((outcomes) => console.log(JSON.stringify(outcomes)))`
      return evaluate(
        consumer,
        'commonjs',
        `const { existsSync, unlinkSync } = require('node:fs')\n${program}`,
      )
    }
    const expected = (closed: string) =>
      packed.doors.map((door) => (/^latchkey\/(management|mcp)/.test(door) ? closed : 'opens'))
    expect(await outcomesOf('import(door)')).toEqual(expected('ERR_MODULE_NOT_FOUND'))
    expect(await outcomesOf('require(door)')).toEqual(expected('MODULE_NOT_FOUND'))
  })
})

describe('an application that loads both copies', () => {
  it('recognises the errors of one in the other', async () => {
    const consumer = packed.createConsumer()
    const answers = await evaluate(
      consumer,
      'commonjs',
      `const cjs = require('latchkey')
       import('latchkey').then((esm) => console.log(JSON.stringify({
         twoCopies: esm.LatchkeyError !== cjs.LatchkeyError,
         esmInCjs: cjs.isLatchkeyError(new esm.LatchkeyError('invalid_key')),
         cjsInEsm: esm.isLatchkeyError(new cjs.LatchkeyError('invalid_key')),
         others: esm.isLatchkeyError(new Error('invalid_key')),
       })))`,
    )
    expect(answers).toEqual({ twoCopies: true, esmInCjs: true, cjsInEsm: true, others: false })
  })

  it('verifies with one what the other issued', async () => {
    const consumer = packed.createConsumer()
    const answer = await evaluate(
      consumer,
      'commonjs',
      `const cjs = require('latchkey')
       import('latchkey').then(async (esm) => {
         const store = cjs.memoryStore()
         const issuing = cjs.createApiKeys({ store, rateLimiter: cjs.memoryRateLimiter(), prefix: 'acme' })
         const verifying = esm.createApiKeys({ store, rateLimiter: esm.memoryRateLimiter(), prefix: 'acme' })
         const { key } = await issuing.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
         const { ok, apiKey } = await verifying.verify(key)
         console.log(JSON.stringify({ ok, owner: apiKey.owner }))
       })`,
    )
    expect(answer).toEqual({ ok: true, owner: { type: 'user', id: 'u_1' } })
  })
})
