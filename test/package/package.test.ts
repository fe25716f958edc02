import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import tsconfig from '../../tsconfig.json' with { type: 'json' }
import tsdownConfig from '../../tsdown.config.ts'
import { type Consumer, compilerOf, type PackedPackage, packPackage } from '../support/packed-package.ts'

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
  it('holds dist, the published SQL, a folder for each door and four files beside them', () => {
    const folders = packed.doors.filter((door) => door !== 'latchkey').map((door) => `${door}/package.json`)
    expect(packed.files.filter((file) => !/^dist\/|\.sql$/.test(file))).toEqual(
      [
        'CHANGELOG.md',
        'LICENSE',
        'README.md',
        'package.json',
        ...folders.map((file) => file.slice('latchkey/'.length)),
      ].sort(),
    )
    expect(packed.files).toContain('sql/1-create-tables.postgres.sql')
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
    const { entry } = tsdownConfig as { entry: Record<string, string> }
    const built = Object.keys(entry).map((name) => (name === 'index' ? 'latchkey' : `latchkey/${name}`))
    expect(built.sort()).toEqual([...doors].sort())
    const classic = Object.entries(packed.manifest.typesVersions['*']).map(([name, [file]]) => {
      expect(file).toBe(`./dist/${name}.d.cts`)
      return `latchkey/${name}`
    })
    expect(['latchkey', ...classic].sort()).toEqual([...doors].sort())
  })
})

describe('an application without passport, express, ioredis or bcrypt', () => {
  const names: Record<string, string[]> = {
    latchkey: ['createApiKeys', 'isLatchkeyError', 'memoryRateLimiter', 'memoryStore'],
    'latchkey/passport': ['ApiKeyStrategy'],
    'latchkey/express': ['apiKeyAuth'],
    'latchkey/koa': ['apiKeyAuth'],
    'latchkey/redis': ['redisInvalidation', 'redisRateLimiter'],
    'latchkey/testing': ['keyRecord', 'storeConformance'],
    'latchkey/management': ['createKeyManagementApi', 'openApiDocument'],
    'latchkey/management/express': ['apiKeyRouter'],
    'latchkey/management/koa': ['apiKeyRouter'],
    'latchkey/client': ['ApiKeysClientError', 'createApiKeysClient', 'isApiKeysClientError'],
    'latchkey/remote': ['remoteApiKeys'],
    'latchkey/sql': ['migrate', 'migrationSql', 'mysqlStore', 'postgresStore', 'sqliteStore'],
  }

  it('opens every door, as ESM and as CommonJS, and finds the same names there', async () => {
    const consumer = packed.createConsumer()
    for (const door of packed.doors) {
      const esm = await evaluate(
        consumer,
        'module',
        `import * as door from '${door}'; console.log(JSON.stringify(Object.keys(door).sort()))`,
      )
      const cjs = await evaluate(
        consumer,
        'commonjs',
        `console.log(JSON.stringify(Object.keys(require('${door}')).sort()))`,
      )
      expect(esm, door).toEqual(cjs)
      expect(esm, door).toEqual(expect.arrayContaining(names[door] ?? ['every door has its line above']))
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
  const loaded = `JSON.stringify(Object.keys(require.cache).filter((file) =>
    /node_modules.(?:passport|passport-strategy|express|koa|ioredis|bcrypt)[\\\\/]/.test(file)))`

  it.each([
    'latchkey',
    'latchkey/express',
    'latchkey/koa',
    'latchkey/redis',
    'latchkey/management',
    'latchkey/management/express',
    'latchkey/management/koa',
    'latchkey/client',
    'latchkey/remote',
  ])('does not have them loaded by %s', async (door) => {
    const consumer = packed.createConsumer(peers)
    const esm = await evaluate(consumer, 'commonjs', `import('${door}').then(() => console.log(${loaded}))`)
    const cjs = await evaluate(consumer, 'commonjs', `require('${door}'); console.log(${loaded})`)
    expect({ esm, cjs }).toEqual({ esm: [], cjs: [] })
  })

  it('has only passport-strategy loaded by latchkey/passport', async () => {
    const consumer = packed.createConsumer(peers)
    for (const load of [`import('latchkey/passport')`, `Promise.resolve(require('latchkey/passport'))`]) {
      const files = await evaluate(consumer, 'commonjs', `${load}.then(() => console.log(${loaded}))`)
      expect(files).not.toEqual([])
      expect((files as string[]).filter((file) => !file.includes('passport-strategy'))).toEqual([])
    }
  })
})

describe('an application without zod and raw-body', () => {
  /** Takes the links to them out of the folder, and opens a door as ESM and as CommonJS. */
  const open = (door: string) => `
    for (const name of ['zod', 'raw-body']) require('node:fs').unlinkSync('node_modules/' + name)
    const opened = [() => import('${door}'), async () => require('${door}')]
    Promise.all(opened.map((load) => load().then(() => 'opens', ({ code }) => code)))
      .then((outcomes) => console.log(JSON.stringify(outcomes)))`

  it('opens every door but those of the management', async () => {
    const doors = packed.doors.filter((door) => !door.startsWith('latchkey/management'))
    expect(doors).toContain('latchkey/express')
    for (const door of doors) {
      const consumer = packed.createConsumer()
      expect(await evaluate(consumer, 'commonjs', open(door)), door).toEqual(['opens', 'opens'])
    }
    const consumer = packed.createConsumer()
    expect(await evaluate(consumer, 'commonjs', open('latchkey/management'))).toEqual([
      'ERR_MODULE_NOT_FOUND',
      'MODULE_NOT_FOUND',
    ])
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

describe.each(['typescript5', 'typescript', 'typescript7'] as const)(
  'a strict application compiled by %s',
  (compiler) => {
    /** The same program as ESM and as CommonJS; `skipLibCheck` is off, so our declarations are checked as well. */
    async function compile(program: string, packages: readonly string[]): Promise<string> {
      const consumer = packed.createConsumer(['@types/node', ...packages])
      consumer.write('esm.mts', program)
      consumer.write('cjs.cts', program)
      consumer.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['esm.mts', 'cjs.cts'] }))
      const result = await consumer.run(
        compilerOf(compiler),
        '--project',
        'tsconfig.json',
        '--pretty',
        'false',
      )
      return result.stdout + result.stderr
    }

    const compilerOptions = {
      target: 'es2022',
      module: 'nodenext',
      strict: true,
      exactOptionalPropertyTypes: true,
      esModuleInterop: true,
      skipLibCheck: false,
      noEmit: true,
      types: ['node'],
    }

    const service = `
    import { type ApiKey, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
    export const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme_live' })
  `

    it('uses the main door without the types of any peer', async () => {
      const output = await compile(
        `${service}
       export async function issueKey(): Promise<ApiKey> {
         const issued = await keys.issue({
           owner: { type: 'user', id: 'u_1' },
           name: 'CI',
           permissions: { projects: ['read'] },
         })
         const result = await keys.verify(issued.key, { permissions: { projects: ['read'] } })
         if (!result.ok) throw new Error(result.code)
         // @ts-expect-error a key has no secret to show
         result.apiKey.digest
         return result.apiKey
       }
       // @ts-expect-error a prefix is text
       createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 1 })`,
        [],
      )
      expect(output).toBe('')
    })

    it('uses the Passport door', async () => {
      const output = await compile(
        `${service}
       import express from 'express'
       import { ApiKeyStrategy } from 'latchkey/passport'
       import passport from 'passport'
       const users = new Map([['u_1', { name: 'Ada' }]])
       passport.use(new ApiKeyStrategy({
         keys,
         resolveUser: (apiKey: ApiKey) => users.get(apiKey.owner.id) ?? null,
       }))
       const app = express()
       app.get('/projects', passport.authenticate('apikey', { permissions: { projects: ['read'] } }))
       // @ts-expect-error a strategy needs its keys
       new ApiKeyStrategy({})`,
        ['@types/express', '@types/passport'],
      )
      expect(output).toBe('')
    })

    it('uses the Redis door, with any ioredis and without one', async () => {
      const program = `${service}
       import { type RedisClient, redisRateLimiter } from 'latchkey/redis'
       declare const client: RedisClient
       createApiKeys({ store: memoryStore(), rateLimiter: redisRateLimiter(client), prefix: 'acme' })`
      const withIoredis = (name: string) => `${program}
       import { Cluster, Redis } from '${name}'
       import { redisInvalidation } from 'latchkey/redis'
       redisInvalidation(new Redis())
       createApiKeys({ store: memoryStore(), rateLimiter: redisRateLimiter(new Cluster([])), prefix: 'acme' })
       // @ts-expect-error an address is no client
       redisRateLimiter('redis://localhost')`
      expect(await compile(program, [])).toBe('')
      for (const name of ['ioredis', 'ioredis5']) expect(await compile(withIoredis(name), [name])).toBe('')
    })

    it('uses the SQL door, with any pool and without one', async () => {
      const program = `
       import { migrate, type PostgresPool, postgresStore, type SqlStore, sqliteStore } from 'latchkey/sql'
       declare const pool: PostgresPool
       const stores: SqlStore[] = [postgresStore(pool), sqliteStore('keys.db')]
       stores.map(migrate)`
      const withPools = `${program}
       import Libsql from 'libsql'
       import { createPool } from 'mysql2'
       import { createPool as createPromisePool } from 'mysql2/promise'
       import { Pool } from 'pg'
       import { mysqlStore } from 'latchkey/sql'
       stores.push(postgresStore(new Pool(), { schema: 'auth' }), sqliteStore(new Libsql('keys.db')))
       stores.push(mysqlStore(createPool('')), mysqlStore(createPromisePool(''), { table: 'api_keys' }))
       // @ts-expect-error an address is no pool
       postgresStore('postgres://localhost')
       // @ts-expect-error SQLite has no schemas
       sqliteStore('keys.db', { schema: 'auth' })`
      expect(await compile(program, [])).toBe('')
      expect(await compile(withPools, ['@types/pg', 'pg', 'mysql2', 'libsql'])).toBe('')
    })

    it('uses the doors of the management, each with its own framework and without the other', async () => {
      const neutral = `${service}
       import { type Actor, createKeyManagementApi } from 'latchkey/management'
       const api = createKeyManagementApi<{ user: string }>(keys, {
         actor: ({ user }): Actor => ({ id: user, owners: [{ type: 'user', id: user, can: ['read'] }] }),
         clientFields: { rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] },
       })
       // @ts-expect-error nobody says who asks
       createKeyManagementApi(keys, {})`
      const express = `${service}
       import express from 'express'
       import { apiKeyRouter } from 'latchkey/management/express'
       express().use('/api-keys', apiKeyRouter(keys, {
         actor: (req) => (req.get('x') ? { id: 'u_1', admin: true } : null),
         // @ts-expect-error nothing opens the management of keys to keys
         keyActions: { issue: { projects: ['read'] } },
       }))`
      const koa = `${service}
       import Koa from 'koa'
       import { apiKeyRouter } from 'latchkey/management/koa'
       new Koa().use(apiKeyRouter(keys, {
         path: '/keys',
         actor: async (ctx) => ctx.state.user && { id: ctx.state.user.id, admin: true },
       }))`
      expect(await compile(neutral, [])).toBe('')
      expect(await compile(express, ['@types/express'])).toBe('')
      // With later versions of what they import, the types of Koa have a mistake of their own.
      const complaints = (await compile(koa, ['@types/koa'])).split('\n')
      expect(complaints.filter((line) => line !== '' && !line.includes('/@types/koa/'))).toEqual([])
    })

    it('uses the Express door', async () => {
      const output = await compile(
        `${service}
       import express from 'express'
       import { apiKeyAuth } from 'latchkey/express'
       const app = express()
       app.use('/api', apiKeyAuth(keys))
       app.get('/api/me', (req, res) => {
         res.json({ owner: req.apiKey?.owner.id, by: req.authMethod })
         // @ts-expect-error there is no such way of authenticating
         if (req.authMethod === 'telepathy') return
       })`,
        ['@types/express'],
      )
      expect(output).toBe('')
    })
  },
)
