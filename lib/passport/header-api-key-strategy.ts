import type { ErrorCode } from '../errors.ts'
import { showMark, writeMark } from '../http/auth-mark.ts'
import { isFieldName, registerReader } from '../http/credential.ts'
import { challengeFailure, keepFailureUncached } from '../http/failed-response.ts'
import { type Challenges, createChallenges } from '../http/header-fields.ts'
import { rawRequest, responseOf, setUser } from '../http/raw-request.ts'
import { stateOf } from '../http/request-state.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkBoolean, checkFunction, checkObject, fail, isPlainObject } from '../internal/options.ts'
import { warnOnce } from '../internal/process-warning.ts'
import { answerLate } from './answer-late.ts'
import { BadRequestError } from './bad-request-error.ts'
import { checkSessionOptions } from './check-session-options.ts'
import { createPrefixedHeaderReader, type PrefixedHeaderReader } from './prefixed-header.ts'
import { type Actions, type PassportRequest, StrategyBase } from './strategy-base.ts'
import { succeedWithoutSession } from './succeed-without-session.ts'

/** Where a request carries its key. */
export interface HeaderAPIKeyConfig {
  /**
   * The header field, in any case; `Cookie` is none for keys.
   *
   * @default 'X-Api-Key'
   */
  header?: string | null
  /**
   * What stands before the key and is no part of it, taken literally; give the blank that ends it. A scheme with its
   * blank, such as `'Api-Key '` or `'Bearer '`, is compared in any case.
   *
   * @default ''
   */
  prefix?: string | null
  /**
   * With `passReqToCallback`, hands the request to `verify` before `done` and not behind it: Nest takes what comes
   * last for `done`.
   *
   * @default false
   */
  doneLast?: boolean
}

/** Ends a verify callback: with an error, with the user, or with none where the key is not valid. */
export type HeaderAPIKeyDone = (error: unknown, user?: unknown, info?: unknown) => void

/**
 * The request as the application's framework makes it. Its own type would have to be imported, and no application needs
 * the types of Express for keys: annotate the parameter to have one.
 */
// biome-ignore lint/suspicious/noExplicitAny: programs written for the original read members of Express's request here.
type AnyRequest = PassportRequest & Express.Request & { [member: string]: any }

/** Finds the user of a key. The request comes last, for `passReqToCallback: true`. */
export type HeaderAPIKeyVerify = {
  // A method's parameters may be narrower, so that `done` and the request can have the types that applications gave them.
  bivariant(apiKey: string, done: HeaderAPIKeyDone, req?: AnyRequest): unknown
}['bivariant']

/** The same with `done` last, for `doneLast: true`. */
export type HeaderAPIKeyVerifyDoneLast = {
  bivariant(apiKey: string, req: AnyRequest, done: HeaderAPIKeyDone): unknown
}['bivariant']

/** What the strategy needs for each request. */
interface Settings {
  readonly reader: PrefixedHeaderReader
  readonly doneLast: boolean
  /** Challenges: where no key was sent, and where one was. */
  readonly challenges: Challenges
}

/** What came of a request. */
type Outcome =
  | { readonly code: null; readonly user: unknown; readonly info: unknown }
  | { readonly code: 'unavailable'; readonly error: unknown }
  | {
      readonly code: Extract<
        ErrorCode,
        'missing_key' | 'multiple_credentials' | 'invalid_key' | 'insufficient_permissions'
      >
      readonly info?: unknown
    }

// A symbol, so that it meets no member of an application's subclass: Nest's look like `constructor(private settings: …)`.
const SETTINGS = Symbol('settings')

/**
 * A drop-in for the strategy of passport-headerapikey: a team moves over by changing the name of the module. The
 * application's own `verify` says whose key it is. Constructor, name, properties, order of parameters and what `done`
 * does are that package's. What differs, on purpose:
 *
 * - It never creates, changes or ends a login session, with or without `session: false`; a route with `failureMessage`,
 *   `successMessage`, their `…Flash` or `successReturnToOrRedirect`, by which Passport would, is an error. The request's
 *   `authMethod` is `'other'`. A bad key never falls back to a cookie.
 * - A 401 always has a challenge: `WWW-Authenticate: <scheme> realm="Users"`.
 * - `info` is never sent and never a status. Where it is no object, a failure gets it as `{ message }`.
 * - The prefix is a literal text and no regular expression; a scheme is compared in any case, and blanks around a key are
 *   no part of it.
 * - Two keys in one request are a 400. A key with other characters than printable ASCII or more than 512 is a 401. An
 *   empty key is none. `verify` is asked about none of these.
 * - What `verify` throws, or rejects with, is an error as if `done` had got it, also for a custom callback. Of several
 *   answers the first counts.
 * - A route that asks for `permissions` refuses with 403: these keys hold none.
 * - Wrong options are a `TypeError` at once, and the object they come in is not changed.
 *
 * @throws TypeError when an option is wrong or unknown, or there is no `verify`.
 * @example
 * passport.use(
 *   new HeaderAPIKeyStrategy({ header: 'Authorization', prefix: 'Api-Key ' }, false, (apiKey, done) => {
 *     users.findByKey(apiKey).then((user) => done(null, user), done)
 *   }),
 * )
 * app.get('/projects', passport.authenticate('headerapikey'), list)
 */
export class HeaderAPIKeyStrategy extends StrategyBase {
  // Node hands `import strategies from 'passport-headerapikey'` the exports as a whole.
  static readonly default: typeof HeaderAPIKeyStrategy = HeaderAPIKeyStrategy
  static readonly HeaderAPIKeyStrategy: typeof HeaderAPIKeyStrategy = HeaderAPIKeyStrategy
  static readonly BadRequestError: typeof BadRequestError = BadRequestError

  override name = 'headerapikey'
  /** The header field in lower case, and the prefix. */
  readonly apiKeyHeader: { readonly header: string; readonly prefix: string }
  verify: HeaderAPIKeyVerify
  passReqToCallback: boolean
  private readonly [SETTINGS]: Settings

  // The usual form comes last: it is the one that Nest's types are made of.
  constructor(
    headerConfig: HeaderAPIKeyConfig & { doneLast: true },
    passReqToCallback: true,
    verify: HeaderAPIKeyVerifyDoneLast,
  )
  constructor(
    headerConfig: HeaderAPIKeyConfig | null | undefined,
    passReqToCallback: boolean | null | undefined,
    verify: HeaderAPIKeyVerify,
  )
  constructor(
    headerConfig: HeaderAPIKeyConfig | null | undefined,
    passReqToCallback: boolean | null | undefined,
    verify: HeaderAPIKeyVerify | HeaderAPIKeyVerifyDoneLast,
  ) {
    super()
    const { header, prefix, doneLast } = resolveConfig(headerConfig ?? {})
    this.passReqToCallback = checkBoolean('passReqToCallback', passReqToCallback ?? false)
    checkFunction('verify', verify)
    this.verify = verify as HeaderAPIKeyVerify
    this.apiKeyHeader = Object.freeze({ header, prefix })
    const reader = createPrefixedHeaderReader(header, prefix)
    registerReader(reader)
    const challenges = createChallenges(reader.schemes, 'Users')
    this[SETTINGS] = Object.freeze({ reader, doneLast, challenges })
  }

  /** Called by Passport. */
  authenticate(req: PassportRequest, options: { assignProperty?: string; permissions?: unknown } = {}): void {
    const { success, fail, error } = this as unknown as Actions
    const { reader, doneLast, challenges } = this[SETTINGS]
    const answer = (outcome: Outcome) => {
      if (options.assignProperty === undefined) stamp(req, outcome)
      if (outcome.code === null) {
        succeedWithoutSession(req, options, () => success(outcome.user, outcome.info))
        return
      }
      const res = responseOf(req)
      keepFailureUncached(res)
      if (outcome.code === 'unavailable') error(outcome.error)
      else if (outcome.code === 'multiple_credentials') fail(challenges.invalid, 400)
      else if (outcome.code === 'insufficient_permissions') fail(challenges.invalid, 403)
      else {
        challengeFailure(res, outcome.code === 'missing_key' ? challenges.bare : challenges.invalid)
        fail(toFailureInfo(outcome.info))
      }
    }

    try {
      checkSessionOptions(options)
    } catch (mistake) {
      error(mistake)
      return
    }
    const raw = rawRequest(req)
    stateOf(raw).challenges = challenges
    const found = reader.read(raw)
    if (found.kind === 'none') answer({ code: 'missing_key', info: new BadRequestError('Missing API Key') })
    else if (found.kind === 'several') answer({ code: 'multiple_credentials' })
    else if (!found.isWellFormed)
      answer({ code: 'invalid_key', info: new BadRequestError(invalidMessage(this.apiKeyHeader)) })
    else if (options.permissions !== undefined) {
      warnOfPermissions()
      answer({ code: 'insufficient_permissions' })
    } else {
      const rest = (done: HeaderAPIKeyDone) => {
        if (!this.passReqToCallback) return [done]
        return doneLast ? [req, done] : [done, req]
      }
      const verify = this.verify as (...args: unknown[]) => unknown
      askVerify(req, (done) => verify.call(this, found.key, ...rest(done)), answer)
    }
  }
}

/** What a failure tells a custom callback: a text or a number would be put into the answer. */
function toFailureInfo(info: unknown): object | null | undefined {
  if (info === undefined || typeof info === 'object') return info
  return { message: String(info) }
}

function invalidMessage({ header, prefix }: HeaderAPIKeyStrategy['apiKeyHeader']): string {
  return prefix === ''
    ? `Invalid API Key in the header ${header}`
    : `Invalid API Key, or no "${prefix}" before it, in the header ${header}`
}

/** Tells the programmer why a route lets no key pass. */
function warnOfPermissions(): void {
  warnOnce(
    'LATCHKEY_NO_PERMISSIONS',
    'a route asks HeaderAPIKeyStrategy for permissions, which its keys do not have, and refuses them all; ' +
      'import the keys and use ApiKeyStrategy there',
  )
}

/** @throws TypeError naming the option. */
function resolveConfig(config: HeaderAPIKeyConfig): { header: string; prefix: string; doneLast: boolean } {
  if (isPlainObject(config) && 'keys' in config) {
    throw new TypeError('"headerConfig" has no option "keys": use ApiKeyStrategy, which takes it')
  }
  checkObject('headerConfig', config, ['header', 'prefix', 'doneLast'])
  const header = config.header || 'X-Api-Key'
  const prefix = config.prefix || ''
  if (typeof header !== 'string' || !isFieldName(header)) {
    fail('headerConfig.header', 'the name of a header field', header)
  }
  if (header.toLowerCase() === 'cookie') {
    throw new OptionError('headerConfig.header', 'not be "cookie": browsers send it by themselves')
  }
  if (typeof prefix !== 'string' || !/^[\x20-\x7e]{0,255}$/.test(prefix)) {
    return fail('headerConfig.prefix', 'at most 255 characters of printable ASCII', prefix)
  }
  const doneLast = checkBoolean('headerConfig.doneLast', config.doneLast ?? false)
  return { header: header.toLowerCase(), prefix, doneLast }
}

/**
 * Asks the application, and takes its first answer: at once where it gives one at once, as unit tests of strategies
 * expect. Nothing of what follows runs inside `verify`, whose failure it would seem to be.
 */
function askVerify(
  req: PassportRequest,
  ask: (done: HeaderAPIKeyDone) => unknown,
  answer: (outcome: Outcome) => void,
): void {
  let first: Outcome | undefined
  let isLate = false
  const take = (outcome: Outcome) => {
    if (first) return
    first = outcome
    if (isLate) setImmediate(answerLate, req, () => answer(outcome))
  }
  const fault = (cause: unknown) => take({ code: 'unavailable', error: surelyError(cause) })
  const done: HeaderAPIKeyDone = (error, user, info) => {
    if (error) fault(error)
    else take(user ? { code: null, user, info } : { code: 'invalid_key', info })
  }
  try {
    const returned = ask(done)
    // Frameworks wrap callbacks in async functions: what they resolve with says nothing, a rejection does.
    if (isPromiseLike(returned)) returned.then(undefined, fault)
  } catch (thrown) {
    fault(thrown)
  }
  isLate = true
  if (first) answer(first)
}

/** The application's own error; but what is none for Express would let the request pass, and `'route'` skip to another. */
function surelyError(cause: unknown): unknown {
  if (cause && cause !== 'route' && cause !== 'router') return cause
  return new Error('verify of HeaderAPIKeyStrategy has failed without an error', { cause })
}

/** Marks the request by what came of it, and puts the user there. */
function stamp(req: PassportRequest, outcome: Outcome): void {
  if (outcome.code === null) {
    const { user } = outcome
    writeMark(req, { method: 'other', user })
    setUser(req, user)
  } else if (outcome.code === 'missing_key') showMark(req)
  else {
    // A bad key never falls back to whoever was there before it.
    writeMark(req, { method: 'rejected', code: outcome.code })
    setUser(req, undefined)
  }
}
