import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const doors = readFileSync(`${root}test/types/doors.types.ts`, 'utf8')
const { options } = ts.parseJsonConfigFileContent(
  ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile).config,
  ts.sys,
  root,
)

// Each test is a run of the compiler.
describe('the types of the doors', { timeout: 60_000 }, () => {
  // That nothing else is refused is what `npm run typecheck` shows.
  it('refuse every line that is expected to be wrong, and what is wrong beside them', () => {
    const directives = doors.match(/@ts-expect-error/g) ?? []
    expect(directives.length).toBeGreaterThan(10)
    const wrong = [
      'expectTypeOf(req.apiKey).toEqualTypeOf<string | undefined>()',
      "if (auth.method !== 'apikey') expectTypeOf(auth).toBeNever()",
      'new ApiKeyStrategy({ keys }, (apiKey, done, more) => {})',
      '// @ts-expect-error',
    ]
    const first = doors.split('\n').length
    const complaints = complaintsAbout(doors.replaceAll('@ts-expect-error', '') + wrong.join('\n'))
    const lines = complaints.map((complaint) => Number(/\d+/.exec(complaint)?.[0]))
    expect(lines.filter((line) => line < first)).toHaveLength(directives.length)
    expect(new Set(lines.filter((line) => line >= first))).toEqual(
      new Set(wrong.map((_line, i) => first + i)),
    )
  })
})

describe('the application’s user type', { timeout: 60_000 }, () => {
  const registration = `
    interface Member { id: string; admin: boolean }
    declare global { namespace Latchkey { interface Register { user: Member } } }`
  const handlers = `
    import express from 'express'
    import type { ApiKeys } from 'latchkey'
    import { apiKeyAuth, getAuth, withApiKey } from 'latchkey/express'
    import { ApiKeyStrategy, getAuth as getAuthByPassport } from 'latchkey/passport'
    import passport from 'passport'
    declare const keys: ApiKeys
    declare const members: Map<string, Member>
    const resolveUser = async ({ owner }: { owner: { id: string } }) => members.get(owner.id) ?? null
    passport.use(new ApiKeyStrategy({ keys, resolveUser }))
    passport.serializeUser<string>((user, done) => done(null, user.id))
    const app = express()
    app.use(apiKeyAuth(keys, { resolveUser }))
    app.get('/member', withApiKey((req, res) => void res.json(req.user.admin)))
    app.get('/', (req, res) => {
      const auth = getAuth(req)
      const byPassport = getAuthByPassport(req)
      const admins: boolean[] = []
      if (req.user) admins.push(req.user.admin)
      if (auth.method === 'session') admins.push(auth.user.admin)
      if (byPassport.method === 'apikey') admins.push(byPassport.user.admin)
      res.json(admins)
    })`
  const use = `
    import type { Request } from 'express'
    import { getAuth } from 'latchkey/express'
    import { getAuth as getAuthByPassport, type Auth, type RegisteredUser } from 'latchkey/passport'
    import { expectTypeOf } from 'vitest'
    declare const req: Request
    const auth = getAuth(req)
    if (auth.method === 'apikey' || auth.method === 'session' || auth.method === 'other')
      expectTypeOf(auth.user).toEqualTypeOf<Member>()
    const byPassport = getAuthByPassport(req)
    if (byPassport.method === 'apikey') expectTypeOf(byPassport.user).toEqualTypeOf<Member>()
    expectTypeOf<RegisteredUser>().toEqualTypeOf<Member>()
    expectTypeOf<Extract<Auth, { method: 'session' }>['user']>().toEqualTypeOf<Member>()`

  it('needs no cast in a handler, a resolver or a serializer', () => {
    const passportUser = '\ndeclare global { namespace Express { interface User extends Member {} } }'
    expect(complaintsAbout(handlers + registration + passportUser)).toEqual([])
    // Without the second registration, `req.user` and the serializer know no `admin`.
    expect(complaintsAbout(handlers + registration).length).toBeGreaterThan(0)
  })

  it('is registered once for every door', () => {
    expect(complaintsAbout(use + registration)).toEqual([])
  })

  it('is not there without registration', () => {
    const complaints = complaintsAbout(`${use}\ninterface Member { id: string; admin: boolean }`)
    expect(complaints).toHaveLength(4)
  })
})

/** What the compiler says about a program in this folder, one line for each complaint. */
function complaintsAbout(text: string): string[] {
  const file = `${root}test/types/program.ts`
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile, getSourceFile } = host
  host.fileExists = (name) => name === file || fileExists(name)
  host.readFile = (name) => (name === file ? text : readFile(name))
  host.getSourceFile = (name, languageVersion, ...rest) => {
    if (name === file) return ts.createSourceFile(name, text, languageVersion)
    if (!parsed.has(name)) parsed.set(name, getSourceFile(name, languageVersion, ...rest))
    return parsed.get(name)
  }
  const program = ts.createProgram([file], options, host)
  return ts.getPreEmitDiagnostics(program).map(({ file: source, start, messageText }) => {
    const line = source && start !== undefined ? source.getLineAndCharacterOfPosition(start).line + 1 : 0
    return `line ${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
  })
}

/** Files that no program here changes are parsed once. */
const parsed = new Map<string, ts.SourceFile | undefined>()
