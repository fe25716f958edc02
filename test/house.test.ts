import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { findViolations } from './support/house-rules.ts'
import { findCycles, readImports, walkImports } from './support/import-graph.ts'
import { findRealmTraps, realmTrapsIn } from './support/realm-rules.ts'

const lib = fileURLToPath(new URL('../lib', import.meta.url))

/** What the rules say of a made-up house: file names with their text. */
function violationsOf(files: Record<string, string>): string[] {
  return findViolations(Object.entries(files).flatMap(([name, text]) => readImports(name, text)))
}

describe('the import graph of lib/', () => {
  const edges = walkImports(lib)

  it('reaches every layer', () => {
    expect(new Set(edges.map((edge) => edge.from.split('/')[0]))).toEqual(
      new Set([
        'cli',
        'client',
        'core',
        'express',
        'fastify',
        'fetch',
        'http',
        'import',
        'koa',
        'index.ts',
        'internal',
        'invalidation',
        'management',
        'mcp',
        'nest',
        'passport',
        'rate-limits',
        'redis',
        'redis.ts',
        'remote',
        'sql.ts',
        'stores',
        'telemetry',
        'testing',
        'tickets',
        'websocket',
      ]),
    )
  })

  it('has no arrow that runs back', () => {
    expect(findViolations(edges)).toEqual([])
  })

  it('has no circle, types included', () => {
    expect(findCycles(edges).map((cycle) => cycle.join(' → '))).toEqual([])
  })
})

describe('circles', () => {
  const edgesOf = (files: Record<string, string>) =>
    Object.entries(files).flatMap(([name, text]) => readImports(name, text))

  it('are found however long they are, and where only types lead round', () => {
    const files = {
      'core/a.ts': `import { b } from './b.ts'`,
      'core/b.ts': `import type { C } from './keys/c.ts'`,
      'core/keys/c.ts': `import { type A } from '../a.ts'`,
      'core/d.ts': `import { a } from './a.ts'`,
    }
    expect(findCycles(edgesOf(files))).toEqual([['core/a.ts', 'core/b.ts', 'core/keys/c.ts', 'core/a.ts']])
    expect(findCycles(edgesOf({ ...files, 'core/b.ts': '' }))).toEqual([])
  })
})

describe('the rules of the house', () => {
  it('accept arrows that run the right way', () => {
    expect(
      violationsOf({
        'index.ts': `export { createApiKeys } from './core/api-keys.ts'\nexport { memoryStore } from './stores/memory.ts'`,
        'internal/clock.ts': `import { LatchkeyError } from '../errors.ts'`,
        'core/digest.ts': `import { createHash } from 'node:crypto'\nconst load = () => import('bcrypt')`,
        'core/calendar.ts': `import { tzOffset } from '@date-fns/tz/tzOffset'\nimport { LRUCache } from 'lru-cache'`,
        'http/guards.ts': `import onHeaders from 'on-headers'\nimport type { ApiKeys } from '../core/api-keys.ts'`,
        'passport/strategy.ts': `import { Strategy } from 'passport-strategy'\nimport type { Request } from 'express'`,
        'management/policy.ts': `import type { ApiKey } from '../core/record.ts'\nimport { z } from 'zod'`,
        'management/express.ts': `import type { Request } from 'express'\nimport { x } from './policy.ts'`,
        'express/index.ts': `import type { Request } from 'express'\nexport { getAuth } from '../http/mark.ts'`,
      }),
    ).toEqual([])
  })

  it.each([
    ['core importing http', 'core/verify.ts', `import { mark } from '../http/mark.ts'`],
    ['a type that runs back', 'core/verify.ts', `import type { Mark } from '../http/mark.ts'`],
    ['an inline type that runs back', 'errors.ts', `let a: import('./core/record.ts').ApiKey`],
    ['a re-export that runs back', 'internal/clock.ts', `export * from '../core/calendar.ts'`],
    ['a dynamic import that runs back', 'core/verify.ts', `await import('../stores/memory.ts')`],
    ['core importing the main door', 'core/verify.ts', `import { x } from '../index.ts'`],
    ['siblings: passport and express', 'passport/index.ts', `import { x } from '../express/index.ts'`],
    ['siblings: a store and a limiter', 'stores/memory.ts', `import { x } from '../rate-limits/memory.ts'`],
    [
      'siblings: the kit and the redis layer',
      'testing/list-filter-cases.ts',
      `import { x } from '../redis/x.ts'`,
    ],
    ['siblings: http and a store', 'http/guards.ts', `import { x } from '../stores/memory.ts'`],
    [
      'a framework adapter reaching for a store',
      'express/index.ts',
      `import { x } from '../stores/memory.ts'`,
    ],
    ['a guard importing the management', 'http/guards.ts', `import { x } from '../management/policy.ts'`],
    [
      'siblings: the management and express',
      'management/policy.ts',
      `import { x } from '../express/index.ts'`,
    ],
    [
      'siblings: the management and a store',
      'management/policy.ts',
      `import { x } from '../stores/memory.ts'`,
    ],
    ['the main door loading the command line', 'index.ts', `export { x } from './cli/index.ts'`],
    ['a guard importing the command line', 'http/guards.ts', `import { x } from '../cli/table.ts'`],
    ['the main door loading the management', 'index.ts', `export { x } from './management/policy.ts'`],
    ['the main door showing internal/', 'index.ts', `export { base62 } from './internal/base62.ts'`],
    ['the main door loading the limiter of Redis', 'index.ts', `export { x } from './redis.ts'`],
    ['a driver beside its limiter', 'rate-limits/redis.ts', `import { Redis } from 'ioredis'`],
    ['the main door loading an adapter', 'index.ts', `export { ApiKeyStrategy } from './passport/index.ts'`],
    ['a folder nobody placed', 'helpers/x.ts', `import { x } from '../core/record.ts'`],
    ['a file outside lib/', 'core/verify.ts', `import { x } from '../../test/support/x.ts'`],
  ])('refuse %s', (_what, file, text) => {
    expect(violationsOf({ [file]: text })).toHaveLength(1)
  })

  it.each([
    ['a framework in the handlers', 'management/handlers.ts', `import type { Request } from 'express'`],
    ['one framework in the router of another', 'management/koa.ts', `import type { Request } from 'express'`],
    ['a handler reaching for a router', 'management/handlers.ts', `import { x } from './express.ts'`],
    ['schemas behind a guard', 'http/guards.ts', `import { z } from 'zod'`],
    ['a framework in the core', 'core/verify.ts', `import express from 'express'`],
    ['the type of a framework in the core', 'core/verify.ts', `import type { Request } from 'express'`],
    ['bcrypt loaded at once', 'core/digest.ts', `import { compare } from 'bcrypt'`],
    ['the type of bcrypt', 'core/digest.ts', `let b: typeof import('bcrypt')`],
    ['a driver in a store', 'stores/memory.ts', `import { Pool } from 'pg'`],
    ['a test runner in the kit', 'testing/list-filter-cases.ts', `import { it } from 'vitest'`],
    [
      'a computed specifier of the command line beside its configuration',
      'cli/table.ts',
      `await import(name)`,
    ],
    ['express at run time in its own door', 'express/index.ts', `import { Router } from 'express'`],
    [
      'express kept at run time by an inline type',
      'express/index.ts',
      `import { type Router } from 'express'`,
    ],
    ['passport at run time in the strategy', 'passport/strategy.ts', `import passport from 'passport'`],
    ['an augmentation of a package not allowed', 'http/mark.ts', `declare module 'passport' {}`],
    ['this package by its own name', 'http/mark.ts', `import { x } from 'latchkey'`],
    ['a specifier that cannot be read', 'core/digest.ts', `const name = 'express'; await import(name)`],
    ['a Node module without its scheme', 'core/digest.ts', `import { createHash } from 'crypto'`],
    ['require', 'core/digest.ts', `const express = require('express')`],
  ])('refuse %s', (_what, file, text) => {
    expect(violationsOf({ [file]: text })).toHaveLength(1)
  })

  it('name the arrow and what is wrong with it', () => {
    expect(violationsOf({ 'core/verify.ts': `import { mark } from '../http/mark.ts'` })).toEqual([
      'core/verify.ts → http/mark.ts: core lies before http, the arrow runs back',
    ])
  })
})

describe('values of another realm', () => {
  it('are judged by no class of the one that lib/ runs in', () => {
    expect(findRealmTraps(lib)).toEqual([])
  })

  it.each([
    ['a class of the language', 'value instanceof Date'],
    ['a class of the platform', 'value instanceof Headers'],
    ['a class behind a name', 'value instanceof globalThis.Error'],
    ['a class of a package', `import { Decimal } from 'decimal'\nvalue instanceof Decimal`],
    [
      'a class that has a brand',
      `import { LatchkeyError } from './errors.ts'\nvalue instanceof LatchkeyError`,
    ],
    ['a constructor', 'value.constructor === Object'],
    ['a prototype', 'Object.getPrototypeOf(value) !== Object.prototype'],
    ['a copy made of other classes', 'structuredClone(value)'],
    ['an equality of classes', `import { isDeepStrictEqual } from 'node:util'`],
    ['a hidden instanceof', 'Buffer.isBuffer(value)'],
  ])('are not judged by %s', (_what, text) => {
    expect(realmTrapsIn('core/verify.ts', text)).toHaveLength(1)
  })

  it('leave a class of this package to itself', () => {
    const imported = `import { Failure } from './failure.ts'\nerror instanceof Failure`
    const declared = 'class Failure {}\nerror instanceof Failure'
    expect([imported, declared].flatMap((text) => realmTrapsIn('core/verify.ts', text))).toEqual([])
  })

  it('are named with the place', () => {
    expect(realmTrapsIn('core/verify.ts', '\nif (at instanceof Date) end()')).toEqual([
      'core/verify.ts:2: at instanceof Date',
    ])
  })
})
