import type { ErrorCode } from '../errors.ts'
import { showMark, writeMark } from '../http/auth-mark.ts'
import { isFieldName, registerReader } from '../http/credential.ts'
import { challengeFailure, keepFailureUncached } from '../http/failed-response.ts'
import { type Challenges, createChallenges } from '../http/header-fields.ts'
import { partsOf, rawRequest, responseOf, setUser } from '../http/raw-request.ts'
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
   * The header field, in any case. `Cookie` is not allowed.
   *
   * @default 'X-Api-Key'
   */
  header?: string | null
  /**
   * The literal text before the key. Include the space that ends it. A scheme with its space, such as `'Api-Key '` or
   * `'Bearer '`, matches in any case.
   *
   * @default ''
   */
  prefix?: string | null
  /**
   * With `passReqToCallback`, passes the request to `verify` before `done` rather than after it. Nest expects `done`
   * last.
   *
   * @default false
   */
  doneLast?: boolean
}

/** Ends a verify callback: with an error, with the user, or without a user if the key is invalid. */
export type HeaderAPIKeyDone = (error: unknown, user?: unknown, info?: unknown) => void

/**
 * The request as your framework makes it. Annotate the parameter to give it a type: this package does not import
 * Express's types.
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
  /** The challenges for a missing and for an invalid key. */
  readonly challenges: Challenges
}

/** The outcome of a request. */
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
 * A drop-in replacement for the strategy of passport-headerapikey: change the name of the module to switch. Your own
 * `verify` finds the user of a key. The constructor, name, properties, parameter order and effects of `done` match that
 * package. The differences are deliberate:
 *
 * - It never creates, changes or ends a login session, with or without `session: false`. A route option that would make
 *   Passport do so is an error: `failureMessage`, `successMessage`, their `…Flash` forms and
 *   `successReturnToOrRedirect`. The request's `authMethod` is `'other'`. An invalid key never falls back to a cookie.
 * - A 401 always has a challenge: `WWW-Authenticate: <scheme> realm="Users"`.
 * - `info` is never sent and never used as a status. If it is not an object, a failure receives it as `{ message }`.
 * - The prefix is literal text, not a regular expression. A scheme matches in any case, and spaces around a key are
 *   ignored.
 * - Two keys in one request are a 400. A key that has other characters than printable ASCII, or is longer than 512, is
 *   a 401. An empty key counts as missing. `verify` sees none of these.
 * - An error that `verify` throws or rejects with counts as passed to `done`, also for a custom callback. Only the
 *   first of several answers counts.
 * - A route that requires `permissions` refuses with 403: these keys have none.
 * - Wrong options throw a `TypeError` at once, and the options object is not changed.
 *
 * @throws TypeError when an option is wrong or unknown, or `verify` is missing.
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
    // Passport adds these to a copy of the strategy for each request; its types do not say so.
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

/** The info that a custom callback receives on failure. Passport would send a text or number as the answer. */
function toFailureInfo(info: unknown): object | null | undefined {
  if (info === undefined || typeof info === 'object') return info
  return { message: String(info) }
}

function invalidMessage({ header, prefix }: HeaderAPIKeyStrategy['apiKeyHeader']): string {
  return prefix === ''
    ? `Invalid API Key in the header ${header}`
    : `Invalid API Key, or no "${prefix}" before it, in the header ${header}`
}

/** Warns that a route passes no key, and why. */
function warnOfPermissions(): void {
  warnOnce(
    'LATCHKEY_NO_PERMISSIONS',
    'a route requires permissions of HeaderAPIKeyStrategy, whose keys have none, so it refuses every key; ' +
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
    throw new OptionError('headerConfig.header', 'not be "cookie": browsers send it automatically')
  }
  if (typeof prefix !== 'string' || !/^[\x20-\x7e]{0,255}$/.test(prefix)) {
    return fail('headerConfig.prefix', 'at most 255 characters of printable ASCII', prefix)
  }
  const doneLast = checkBoolean('headerConfig.doneLast', config.doneLast ?? false)
  return { header: header.toLowerCase(), prefix, doneLast }
}

/**
 * Calls the application's `verify` and takes its first answer, synchronously if it comes at once, as unit tests of
 * strategies expect. The rest runs outside `verify`, so that its failures do not look like failures of `verify`.
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

/**
 * The application's own error, if Express treats it as one: a falsy value would let the request pass, and `'route'`
 * would skip to another route.
 */
function surelyError(cause: unknown): unknown {
  if (cause && cause !== 'route' && cause !== 'router') return cause
  return new Error('verify of HeaderAPIKeyStrategy failed without an error', { cause })
}

/** Marks the request with its outcome, and sets the user. */
function stamp(req: PassportRequest, outcome: Outcome): void {
  const parts = partsOf(req)
  if (outcome.code === null) {
    const { user } = outcome
    writeMark(parts, { method: 'other', user })
    setUser(parts, user)
  } else if (outcome.code === 'missing_key') showMark(parts)
  else {
    // A bad key never falls back to whoever was there before it.
    writeMark(parts, { method: 'rejected', code: outcome.code })
    setUser(parts, undefined)
  }
}
