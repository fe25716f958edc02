import type { Permissions } from '../core/keys/permissions.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { isLatchkeyError, type LatchkeyError } from '../errors.ts'
import { getAuth } from '../http/auth-mark.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type AuthenticatorOptions,
  createAuthenticator,
} from '../http/authenticate-request.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { type Challenges, challenge, createChallenges, type RateLimitSyntax } from '../http/header-fields.ts'
import { renderProblem } from '../http/problem.ts'
import { headerFields, type RequestParts } from '../http/raw-request.ts'
import { type BodySource, checkMaxBodyBytes, readBody } from '../http/read-body.ts'
import { refusal } from '../http/refused-request.ts'
import { stateOf } from '../http/request-state.ts'
import { verifyAgain } from '../http/verify-once.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction, checkInteger, checkObject } from '../internal/options.ts'
import { warnOnce } from '../internal/process-warning.ts'
import { type KeyAuth, type McpAuthInfo, toAuthInfo } from './auth-info.ts'
import { checkHeaderFields } from './check-header-fields.ts'
import { judge } from './judge.ts'
import { readMessages } from './messages.ts'
import { RpcRefusal } from './rpc-refusal.ts'
import { checkRules, type McpRules, RULE_OPTIONS } from './rules.ts'
import { SessionIds } from './session-ids.ts'

/** The options of both guards: the rules, and where and how keys are read. */
export interface McpOptions<User = unknown> extends Omit<AuthenticatorOptions<User>, 'tickets'>, McpRules {
  /**
   * The URL of the protected-resource metadata (RFC 9728), for servers that also have an OAuth authorization server whose tokens are
   * keys. Each 401 then challenges with it. Without it no challenge names Bearer, so that clients ask for a key and do not
   * begin an OAuth flow.
   *
   * ```http
   * WWW-Authenticate: Bearer realm="Users", resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource"
   * ```
   *
   * @default no metadata
   */
  resourceMetadata?: string | URL
  /**
   * Signs session ids, at least 32 characters. Give all processes the same if they share sessions. If it changes, all sessions end:
   * clients get a 404 and open new ones.
   *
   * @default a random secret of this process, whose sessions end with it
   */
  sessionSecret?: string
  /**
   * The largest body, in bytes. A larger one is a 413. The key is verified before the body is read.
   *
   * @default 4_194_304
   */
  maxBodyBytes?: number
  /**
   * The most messages in a batch. A larger one is a 400. Protocol revisions from 2025-06-18 on have no batches.
   *
   * @default 100
   */
  maxBatchSize?: number
}

/** A request that is admitted, or how to refuse it. */
export type McpOutcome<User> =
  | {
      readonly ok: true
      readonly authInfo: McpAuthInfo<User>
      /** The parsed body of a POST; undefined for other methods. */
      readonly body: unknown
      readonly limits: Extract<Authentication, { ok: true }>['limits']
      createSessionId(): string
    }
  | {
      readonly ok: false
      readonly error: LatchkeyError
      readonly headers: Record<string, string>
      readonly body: string
    }

/** A request, as a guard takes it from its server. */
export interface McpRequest {
  readonly parts: RequestParts
  readonly method: string | undefined
  readonly ip: unknown
  readonly source: Pick<BodySource, 'stream' | 'parsed'>
}

export interface McpAuthenticator<User> {
  readonly rateLimitHeaders: RateLimitSyntax | false
  /** Never rejects. */
  authenticate(request: McpRequest): Promise<McpOutcome<User>>
  /** Warns if a response opens a session whose id no guard made: none of its later requests would get in. */
  checkSession(id: string | null | undefined, authInfo: McpAuthInfo<User>): void
}

/** @throws TypeError naming the option. */
export function createMcpAuthenticator<User>(
  keys: ApiKeyVerifier,
  options: McpOptions<User> & { ip?: unknown },
): McpAuthenticator<User> {
  checkObject('options', options, [
    // A ticket opens one connection; clients of MCP make many requests, and can send header fields.
    ...AUTHENTICATOR_OPTIONS.filter((name) => name !== 'tickets'),
    ...RULE_OPTIONS,
    'resourceMetadata',
    'sessionSecret',
    'maxBodyBytes',
    'maxBatchSize',
    'ip',
  ])
  const { resolveUser, resourceMetadata, ip } = options
  if (ip !== undefined) checkFunction('ip', ip)
  const metadataUrl = resourceMetadata === undefined ? undefined : checkUrl(resourceMetadata)
  const maxBodyBytes = checkMaxBodyBytes(options.maxBodyBytes ?? 4_194_304)
  const maxBatchSize = checkInteger('maxBatchSize', options.maxBatchSize ?? 100, 1, 1_000)
  const sessions = new SessionIds(options.sessionSecret)
  const rules = checkRules(options)
  const challengesFor = (schemes: readonly string[], realm: string) =>
    challengesOf(schemes, realm, metadataUrl)
  const authenticator = createAuthenticator(keys, options, challengesFor)
  // Who the user is matters only once the request is known to be allowed.
  const { resolveUser: _resolveUser, ...others } = options
  const looker = resolveUser ? createAuthenticator(keys, others, challengesFor) : authenticator

  async function decide({ parts, method, ip, source }: McpRequest): Promise<McpOutcome<User>> {
    checkUncharged(parts, keys)
    // Strangers do not make us read and parse.
    const looked = await looker.authenticate(parts, { cost: 0 }, ip)
    if (!looked.ok) return refuse(parts, looked)
    const { lineageId, permissions } = looked.apiKey
    const headers = headerFields(parts.raw)
    const session = headers['mcp-session-id']
    if (session !== undefined && !sessions.belongs(String(session), lineageId)) {
      throw refusal('session_not_found')
    }
    let body: unknown
    let admitted: Authentication
    if (method === 'POST') {
      body = await readJson({ ...source, headers }, maxBodyBytes)
      // A client takes as long as it likes to send it, and its key may have been revoked meanwhile.
      verifyAgain(stateOf(parts.raw), keys)
      const messages = readMessages(body, maxBatchSize)
      checkHeaderFields(headers, messages)
      const admit = (granted: Permissions) => {
        const judged = judge(rules, messages, granted)
        if ('refused' in judged) throw judged.refused
        const isLacking = 'lacking' in judged
        const asked = isLacking ? { permissions: judged.lacking, cost: 0 } : judged
        return { isLacking, outcome: authenticator.authenticate(parts, asked, ip) }
      }
      const { isLacking, outcome } = admit(permissions)
      admitted = await outcome
      // It was given what it lacked meanwhile. The rest was not looked at, and nothing was charged.
      if (admitted.ok && isLacking) admitted = await admit(admitted.apiKey.permissions).outcome
    } else if (method === 'GET' || method === 'DELETE') {
      admitted = await authenticator.authenticate(parts, { cost: 0 }, ip)
    } else throw refusal('method_not_allowed', {}, { Allow: 'GET, POST, DELETE' })
    if (!admitted.ok) return refuse(parts, admitted)
    applyOutcome(parts, keys, admitted)
    return {
      ok: true,
      authInfo: toAuthInfo(getAuth(parts.request) as KeyAuth<User>, metadataUrl),
      body,
      limits: admitted.limits,
      createSessionId: () => sessions.create(lineageId),
    }
  }

  function refuse(parts: RequestParts, outcome: Extract<Authentication, { ok: false }>): McpOutcome<User> {
    applyOutcome(parts, keys, outcome)
    return refusedWith(outcome.error)
  }

  return {
    rateLimitHeaders: authenticator.rateLimitHeaders,
    async authenticate(request) {
      try {
        return await decide(request)
      } catch (error) {
        if (error instanceof RpcRefusal) return { ok: false, error: error.error, ...error.render() }
        if (isLatchkeyError(error)) return refusedWith(error)
        return refuse(request.parts, authenticator.refuse.fault('verify', error) as never)
      }
    },
    checkSession(id, { clientId }) {
      if (typeof id !== 'string' || sessions.belongs(id, clientId)) return
      warnOnce(
        'LATCHKEY_MCP_SESSION',
        'the MCP server opened a session whose id the guard did not make, and every later request of it gets a 404; ' +
          'give the transport the guard\'s "sessionIdGenerator"',
      )
    },
  }
}

function refusedWith(error: LatchkeyError): McpOutcome<never> {
  return { ok: false, error, ...renderProblem(error) }
}

/** The message that tells a client what is wrong with its body. */
async function readJson(source: BodySource, maxBodyBytes: number): Promise<unknown> {
  try {
    return await readBody(source, maxBodyBytes)
  } catch (error) {
    if (!isLatchkeyError(error) || error.code !== 'invalid_request') throw error
    throw new RpcRefusal(-32700, 'The body must be complete JSON in UTF-8')
  }
}

/** A request is charged once: what a middleware in front has charged would be all that its calls cost. @throws Error */
function checkUncharged({ raw }: RequestParts, keys: ApiKeyVerifier): void {
  const isCharged = stateOf(raw).admissions?.some((one) => one.keys === keys && one.cost !== 0)
  if (!isCharged) return
  throw new Error(
    'a middleware in front of the MCP guard has charged this request: remove it, or give it "cost: 0"',
  )
}

/**
 * A challenge for Bearer makes clients begin an OAuth flow, so it is there only with the metadata that they need for it, and first,
 * where the SDK looks for it.
 */
function challengesOf(
  schemes: readonly string[],
  realm: string,
  metadataUrl: string | undefined,
): Challenges {
  const own = schemes.filter((scheme) => scheme !== 'Bearer')
  if (metadataUrl === undefined) return createChallenges(own.length > 0 ? own : ['Api-Key'], realm)
  const write = (error?: 'invalid_key') =>
    [
      `${challenge(['Bearer'], realm, error)}, resource_metadata="${metadataUrl}"`,
      ...own.map((scheme) => challenge([scheme], realm, error)),
    ].join(', ')
  return Object.freeze({ bare: write(), invalid: write('invalid_key') })
}

function checkUrl(value: unknown): string {
  const text = String(value)
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return new URL(text).href
  throw new OptionError('resourceMetadata', 'be the URL of a document, beginning with https:')
}
