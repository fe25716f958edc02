import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import {
  type Compiler,
  type Consumer,
  compilerOf,
  type PackedPackage,
  packPackage,
} from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

const COMPILERS: readonly Compiler[] = ['typescript5', 'typescript', 'typescript7']

/** Strict in every way that a door could stumble over; `skipLibCheck` is off, so our declarations are checked as well. */
const STRICT = {
  target: 'es2022',
  module: 'nodenext',
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  esModuleInterop: true,
  skipLibCheck: false,
  noEmit: true,
  types: ['node'],
}

interface Compilation {
  packages: readonly string[]
  options?: Record<string, unknown>
}

/** What a compiler says of a program as ESM and as CommonJS, each complaint on a line that begins with its file. */
async function compile(compiler: Compiler, programs: readonly string[], { packages, options }: Compilation) {
  const consumer = packed.createConsumer(['@types/node', ...packages])
  // With these, a CommonJS file may not use `import`, or there is no telling the two apart.
  const isEsmOnly = options?.verbatimModuleSyntax === true || options?.moduleResolution === 'bundler'
  const files = programs.flatMap((program, i) => {
    const names = isEsmOnly ? [`esm${i}.mts`] : [`esm${i}.mts`, `cjs${i}.cts`]
    for (const name of names) consumer.write(name, program)
    return names
  })
  const config = { compilerOptions: { ...STRICT, ...options }, files }
  consumer.write('tsconfig.json', JSON.stringify(config))
  return complaintsOf(compiler, consumer)
}

async function complaintsOf(compiler: Compiler, consumer: Consumer): Promise<string[]> {
  const result = await consumer.run(compilerOf(compiler), '--project', 'tsconfig.json', '--pretty', 'false')
  // A complaint goes on in lines that are indented.
  const complaints = (result.stdout + result.stderr).split(/\n(?! )/)
  return complaints.filter((complaint) => complaint !== '' && !isAboutOthers(complaint))
}

const SERVICE = `
  import { type ApiKey, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
  const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme_live' })`

const EXPRESS = `${SERVICE}
  import express from 'express'
  import { apiKeyAuth, type ApiKeyRequest, getAuth, markSession, requireApiKey, requireSession, withApiKey } from 'latchkey/express'
  const app = express()
  app.use(markSession(), apiKeyAuth(keys, { required: false }))
  app.get('/settings', requireSession(), (req, res) => {
    const auth = getAuth(req)
    if (auth.method === 'session') res.json(auth.user)
    // @ts-expect-error nobody has proven that there is one
    res.json(req.apiKey.id)
  })
  app.get('/projects', requireApiKey(), withApiKey((req, res) => void res.json([req.apiKey.owner.id, req.user])))
  app.route('/projects/:id').get(withApiKey((req, res) => {
    const id: string = req.params.id
    const method: 'apikey' = req.authMethod
    res.json({ id, method })
  }))
  app.get('/projects/:id/keys', withApiKey<{ id: string }>((req, res) => void res.json(req.params.id)))
  const show = (req: ApiKeyRequest, res: express.Response) => void res.json(req.apiKey.id)
  app.get('/key', withApiKey(show, { permissions: { projects: ['read'] } }))
  // @ts-expect-error it answers only requests that a key has authenticated
  app.get('/key', show)`

const KOA = `${SERVICE}
  import Koa from 'koa'
  import { apiKeyAuth, markSession, requireApiKey, withApiKey } from 'latchkey/koa'
  new Koa().use(markSession()).use(apiKeyAuth(keys)).use((ctx) => {
    const apiKey: ApiKey | undefined = ctx.state.apiKey
    ctx.body = { id: apiKey?.id, by: ctx.state.authMethod, tenant: ctx.state.tenant }
    // @ts-expect-error there is no such way of authenticating
    if (ctx.state.authMethod === 'telepathy') return
  })
  new Koa<{ tenant: string }, { log(text: string): void }>().use(apiKeyAuth(keys)).use(requireApiKey()).use((ctx) => {
    const tenant: string = ctx.state.tenant
    ctx.log(tenant)
    // @ts-expect-error nobody has put that there
    ctx.state.other
    // @ts-expect-error nor that
    ctx.other
  })
  new Koa().use(withApiKey((ctx) => {
    ctx.body = ctx.state.apiKey.id
    // @ts-expect-error a key as everybody may see it has no digest
    ctx.state.apiKey.digest
  }))`

const NEIGHBOURS = `${EXPRESS}
  import { clerkMiddleware, getAuth as getClerkAuth } from '@clerk/express'
  import { expressjwt, type Request as JwtRequest } from 'express-jwt'
  import session from 'express-session'
  import { ApiKeyStrategy, getAuth as getAuthByPassport } from 'latchkey/passport'
  import passport from 'passport'
  interface Account { id: string; admin: boolean }
  declare module 'express-session' { interface SessionData { account: Account } }
  declare global {
    namespace Express {
      interface User extends Account {}
      interface AuthInfo { scope?: string }
    }
  }
  app.use(session({ secret: 's' }), passport.initialize(), passport.session(), clerkMiddleware())
  app.use(markSession({ user: (req) => req.session.account }))
  app.use(expressjwt({ secret: 's', algorithms: ['HS256'] }))
  passport.use(new ApiKeyStrategy({ keys, resolveUser: (): Account => ({ id: 'u_1', admin: false }) }))
  app.get('/all', passport.authenticate('apikey', { permissions: { projects: ['read'] } }), withApiKey((req, res) => {
    const admin: boolean = req.user.admin
    const scope: string | undefined = req.authInfo?.scope
    const subject: string | undefined = (req as JwtRequest).auth?.sub
    const auth = getAuth(req)
    if (auth.method === 'apikey') res.json([auth.user.id, getAuthByPassport(req).method, getClerkAuth(req)])
    if (req.isAuthenticated()) res.json([admin, scope, subject, req.session.account])
    // @ts-expect-error the user's type is the application's
    req.user.telephone
  }))`

const PASSPORT_ALONE = `${SERVICE}
  import { ApiKeyStrategy, getAuth } from 'latchkey/passport'
  export const strategy = new ApiKeyStrategy({ keys }, (apiKey, done) => done(null, apiKey.owner))
  const auth = getAuth({ headers: {} })
  if (auth.method === 'apikey') auth.apiKey.owner.id`

const REGISTERED = `${EXPRESS}
  import Koa from 'koa'
  import { type ApiKeyState, getAuth as getAuthOfKoa, withApiKey as withApiKeyOfKoa } from 'latchkey/koa'
  interface Member { id: string; admin: boolean }
  declare global {
    namespace Latchkey { interface Register { user: Member } }
  }
  app.get('/member', withApiKey((req, res) => {
    const admin: boolean = req.user.admin
    const member: Member = req.user
    res.json([admin, member])
  }))
  new Koa<ApiKeyState>().use(withApiKeyOfKoa((ctx) => {
    const admin: boolean = ctx.state.user.admin
    const auth = getAuthOfKoa(ctx)
    if (auth.method === 'session') ctx.body = [auth.user.admin, admin]
    // @ts-expect-error the user's type is the application's
    ctx.state.user.telephone
  }))`

const KOA_SESSION = `${SERVICE}
  import Koa from 'koa'
  import session from 'koa-session'
  import { markSession } from 'latchkey/koa'
  const app = new Koa()
  app.use(session(app)).use(markSession({ user: (ctx) => {
    // @ts-expect-error a session may have ended
    ctx.session.user
    return ctx.session?.user
  } }))`

describe.each(COMPILERS)('a strict application compiled by %s', (compiler) => {
  it('has each door without the types of the others', async () => {
    expect(await compile(compiler, [EXPRESS], { packages: ['@types/express'] })).toEqual([])
    expect(await compile(compiler, [KOA], { packages: ['@types/koa'] })).toEqual([])
    expect(await compile(compiler, [PASSPORT_ALONE], { packages: [] })).toEqual([])
  })

  it('has its own user type at every door', async () => {
    expect(await compile(compiler, [REGISTERED], { packages: ['@types/express', '@types/koa'] })).toEqual([])
  })

  it('reads the session that the types of koa-session know of', async () => {
    expect(
      await compile(compiler, [KOA_SESSION], { packages: ['@types/koa', '@types/koa-session'] }),
    ).toEqual([])
  })

  it('has Passport, express-session, express-jwt and Clerk beside it', async () => {
    const packages = [
      '@types/express',
      '@types/express-session',
      '@types/passport',
      'express-jwt',
      '@clerk/express',
    ]
    expect(await compile(compiler, [NEIGHBOURS], { packages })).toEqual([])
  })

  it('follows other ways of resolving modules, and verbatim imports', async () => {
    const packages = ['@types/express', '@types/koa']
    for (const options of [
      { module: 'esnext', moduleResolution: 'bundler' },
      { module: 'node16', moduleResolution: 'node16' },
      { verbatimModuleSyntax: true, isolatedModules: true },
    ]) {
      expect(await compile(compiler, [EXPRESS, KOA], { packages, options }), JSON.stringify(options)).toEqual(
        [],
      )
    }
  })
})

/** What Nest projects and Express starters had for years; TypeScript 7 has left it behind. */
const CLASSIC = [
  ['typescript5', 'by default', {}],
  ['typescript', 'on request', { moduleResolution: 'node10', ignoreDeprecations: '6.0' }],
] as const

describe.each(CLASSIC)('an application of "module": "commonjs" compiled by %s', (compiler, how, options) => {
  it(`finds every door and its types, resolved classically ${how}, and runs`, async () => {
    const consumer = packed.createConsumer(['@types/node', '@types/express', '@types/koa', 'express'])
    const doors = packed.doors.map((door, i) => `import * as door${i} from '${door}'`)
    const names = packed.doors.map((_door, i) => `Object.keys(door${i}).length > 0`)
    consumer.write('app.ts', `${doors.join('\n')}\nconsole.log(JSON.stringify([${names}]))\n${EXPRESS}`)
    const compilerOptions = { ...STRICT, noEmit: false, outDir: 'out', module: 'commonjs', ...options }
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['app.ts'] }))
    expect(await complaintsOf(compiler, consumer)).toEqual([])
    const { status, stdout, stderr } = await consumer.run('out/app.js')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual(packed.doors.map(() => true))
  })
})

/**
 * Whether a complaint is about a file of a package that does not compile strictly by itself, which is the package's to
 * mend: `@types/koa` 3.0.3 takes a type from `@types/content-disposition` that newer versions of `content-disposition`,
 * with types of their own, call otherwise; `@clerk/shared` declares index signatures twice.
 */
function isAboutOthers(complaint: string): boolean {
  const [file = ''] = complaint.split('(')
  return ['@types/koa', '@clerk/shared', '@clerk/backend', '@clerk/express'].some((name) =>
    file.includes(`/node_modules/${name}/`),
  )
}
