import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import express, { type RequestHandler } from 'express'
import { type ApiKeys, LatchkeyError } from 'latchkey'
import { type ApiKeyAuthOptions, apiKeyAuth } from 'latchkey/express'
import { apiKeyRouter } from 'latchkey/management/express'
import { ApiKeyStrategy, type VerifyFunction } from 'latchkey/passport'
import { Passport } from 'passport'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, type TestKeys } from '../support/test-keys.ts'

const CAUSE = new Error('the cause')
const fails = () => Promise.reject(CAUSE)
const throws = () => {
  throw CAUSE
}

const auth = (options: ApiKeyAuthOptions) => (keys: ApiKeys) => apiKeyAuth(keys, options)
const strategy = (verify: VerifyFunction) => (keys: ApiKeys) => {
  const passport = new Passport()
  passport.use(new ApiKeyStrategy({ keys }, verify))
  return passport.authenticate('apikey') as RequestHandler
}
const router = (actor: () => unknown) => (keys: ApiKeys) => apiKeyRouter(keys, { actor: actor as never })
const alice = () => ({ id: 'u_alice', owners: [ALICE] })

interface Fault {
  readonly from: (keys: ApiKeys) => RequestHandler
  readonly keys?: Parameters<typeof createTestKeys>[0]
  readonly given?: (test: TestKeys) => unknown
  /** Whether the request has no key. */
  readonly isLogin?: boolean
  readonly error?: unknown
}

const FAULTS: Readonly<Record<string, readonly Fault[]>> = {
  resolve_user: [
    { from: auth({ resolveUser: fails }) },
    { from: auth({ resolveUser: throws }) },
    { from: strategy((_apiKey, done) => done(CAUSE)) },
    { from: strategy(throws) },
    { from: strategy(fails) },
    // An error of ours that the application throws is its fault all the same.
    {
      from: auth({
        resolveUser() {
          throw new LatchkeyError('unavailable')
        },
      }),
      error: expect.objectContaining({ code: 'unavailable' }),
    },
  ],
  verify: [
    {
      from: auth({}),
      given: ({ keys }) => keys.close(),
      error: expect.objectContaining({ code: 'unavailable' }),
    },
    {
      from: (keys) => apiKeyAuth({ ...keys, verify: fails, verifyEager: throws }),
    },
  ],
  actor: [
    { from: router(throws), isLogin: true },
    { from: router(fails), isLogin: true },
    { from: router(() => 'alice'), isLogin: true, error: expect.any(TypeError) },
  ],
  management: [{ from: (keys) => apiKeyRouter({ ...keys, list: fails }, { actor: alice }), isLogin: true }],
  store: [
    { from: auth({}), given: ({ store }) => store.fail('find', rejects(CAUSE)) },
    { from: router(alice), isLogin: true, given: ({ store }) => store.fail('list', rejects(CAUSE)) },
  ],
  owner_status: [
    { from: auth({}), keys: { isOwnerActive: throws } },
    { from: auth({}), keys: { ownerPermissions: fails } },
  ],
  format: [{ from: auth({}), keys: { formats: [{ name: 'mine', lookup: throws }] }, given: () => 'junk' }],
}

describe.each(Object.keys(FAULTS))('a fault named %s', (operation) => {
  it.each((FAULTS[operation] as readonly Fault[]).map((fault, i) => [i + 1, fault] as const))(
    'says where it happened (%i)',
    async (_number, { from, keys, given, isLogin, error = CAUSE }) => {
      const test = createTestKeys(keys)
      const { key } = await issueKey(test.keys)
      const ask = await serve(express().use(from(test.keys), (_req, res) => void res.end()))
      const other = await given?.(test)
      const answer = await ask('/', isLogin ? [] : [`X-Api-Key: ${other === 'junk' ? 'junk' : key}`])
      expect(answer.status).toBe(503)
      expect(test.eventsOf('fault')).toEqual([{ type: 'fault', at: expect.any(Date), operation, error }])
    },
  )
})

it('is named at the place itself, wherever one is reported', () => {
  const lib = fileURLToPath(new URL('../../lib', import.meta.url))
  const files = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  const reports = files.flatMap((file) =>
    [
      ...readFileSync(join(lib, file), 'utf8').matchAll(
        /(?:emit|report)(?:\?\.)?\(\{ type: 'fault'[^{}]*\}/g,
      ),
    ].map(([report]) => `${file}: ${report}`),
  )
  expect(reports.length).toBeGreaterThan(5)
  expect(reports.filter((report) => !/\boperation\b/.test(report))).toEqual([])
  const naming = files.filter((file) =>
    /(?:operation:[\s|]*|fault\()'resolve_user'/.test(readFileSync(join(lib, file), 'utf8')),
  )
  expect(naming.sort()).toEqual([
    'core/verify/key-verifier.ts',
    'http/authenticate-request.ts',
    'passport/api-key-strategy.ts',
  ])
})
