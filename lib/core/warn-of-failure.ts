import { warnEvery } from '../internal/process-warning.ts'
import type { ApiKeyEvent } from './events.ts'

type Operation = Extract<ApiKeyEvent, { type: 'fault' }>['operation']

/** How often a part that keeps failing is reported. */
const INTERVAL_MS = 60_000

/** What failed, and what to look at. */
interface Failure {
  readonly what: string
  readonly cure: string
}

const FAULTS: Readonly<Record<Operation, Failure>> = Object.freeze({
  store: {
    what: 'The store of API keys failed',
    cure: 'Requests that need it get a 503: check that it runs, can be reached, and is migrated',
  },
  rate_limiter: { what: 'The rate limiter failed', cure: 'Check that its server runs and can be reached' },
  invalidation: {
    what: 'Latchkey could not tell other processes of changed API keys',
    cure: 'They may notice only after "cache.maxAgeMs": check that the server of "invalidation" can be reached',
  },
  digest: {
    what: 'The digest of an API key could not be compared or made',
    cure: 'Check that "peppers" holds every pepper in use, and that bcrypt is installed if digests need it',
  },
  format: { what: 'A format of imported API keys failed', cure: 'Fix the "lookup" of your "formats"' },
  owner_status: {
    what: '"isOwnerActive" or "ownerPermissions" failed',
    cure: 'Requests with keys get a 503: check what the function depends on',
  },
  owner_limits: {
    what: '"rateLimits" could not tell the limits of an owner',
    cure: 'Requests with keys get a 503: check the function or "planOf", and what it returns',
  },
  usage: {
    what: 'Uses of API keys could not be written',
    cure: 'They stay in memory and are written later: check that the store accepts writes',
  },
  digest_upgrade: {
    what: 'A digest could not be rewritten under the current scheme',
    cure: 'The old one keeps working: check that the store accepts writes',
  },
  resolve_user: {
    what: 'Finding the user of an API key failed',
    cure: 'The request got a 503: check "resolveUser", or the verify callback of the strategy',
  },
  cost: {
    what: 'The cost of a request could not be told',
    cure: 'The request got a 503: check the function "cost" of the route, and what it returns',
  },
  permissions: {
    what: 'The permissions that a request needs could not be told',
    cure: 'The request got a 503: check the function "permissions" of the route, and what it returns',
  },
  actor: {
    what: '"actor" of the management API failed',
    cure: 'The request got a 503: fix the cause',
  },
  management: { what: 'A request to manage API keys failed', cure: 'It got a 503: fix the cause' },
  verify: {
    what: 'An API key could not be verified',
    cure: 'The request got a 503: check how "verify" is called, and call "close()" only after the last request',
  },
  remote: {
    what: 'The service that verifies API keys failed',
    cure: 'Check that it can be reached, and that the key of the client may verify',
  },
  end_listener: {
    what: 'A listener of "onEnd" failed',
    cure: 'The connection of a key that has ended may still be open: fix the listener',
  },
  admission_listener: {
    what: 'The listener "onAdmitted" failed',
    cure: 'It may have missed a call: fix the listener',
  },
  tickets: {
    what: 'The store of tickets failed',
    cure: 'The request got a 503: check that its server runs and can be reached',
  },
})

/**
 * Warns of a failure if the application has no `onEvent`: otherwise an operator would see only a 503. It reports each
 * kind of failure at most once a minute.
 */
export function warnOfFailure(event: ApiKeyEvent): void {
  const failure = failureOf(event)
  if (!failure || !('error' in event)) return
  const subject = event.type === 'fault' ? event.operation : event.type
  // What a format throws may quote the text that it received, in any form.
  const cause = subject === 'format' ? '' : `: ${describeCause(event.error)}`
  const message = `${failure.what}${cause}. ${failure.cure}. Pass "onEvent" to receive every failure; without it, each kind is reported once a minute`
  warnEvery(INTERVAL_MS, event.at.getTime(), 'LATCHKEY_FAULT', subject, message)
}

function failureOf(event: ApiKeyEvent): Failure | null {
  switch (event.type) {
    case 'fault':
      return FAULTS[event.operation]
    case 'limiter.suspended':
      return {
        what: 'The rate limiter keeps failing, so Latchkey has stopped asking it',
        cure: 'Limits follow "onUnavailable": check that its server runs and can be reached',
      }
    case 'change.delayed':
      return {
        what: 'The rate limiter could not be told that an API key has changed',
        cure: 'The change took effect only once caches had expired: check that its server can be reached',
      }
    default:
      return null
  }
}

const MAX_CAUSE_LENGTH = 300

/** What went wrong in the words of the error, on one line, without anything that may be a secret. */
function describeCause(error: unknown): string {
  const { message, code, errors } = (error ?? {}) as { message?: unknown; code?: unknown; errors?: unknown }
  // If every address of a server refuses, Node gives an error for each, and no message for all.
  if (message === '' && Array.isArray(errors) && errors.length > 0) return describeCause(errors[0])
  const told = typeof message === 'string' && message !== '' ? message : 'an error without a message'
  const text = withoutSecrets(told.slice(0, 2_000).replaceAll(/[\s\p{Cc}]+/gu, ' ')).slice(
    0,
    MAX_CAUSE_LENGTH,
  )
  const isNamed = typeof code === 'string' && /^\w{1,40}$/.test(code) && !text.includes(code)
  return isNamed && !isSecretive(code) ? `${text.replace(/\.$/, '')} (${code})` : text.replace(/\.$/, '')
}

/** A run of letters and digits of the length of a key, a digest or a token; names of hosts have dots in between. */
const SECRETIVE = /[\w+=$-]{20,}/g

function isSecretive(text: string): boolean {
  return text.length >= 20 && /\d/.test(text) && /[A-Za-z]/.test(text)
}

function withoutSecrets(text: string): string {
  return text
    .replaceAll(/\$2[aby]?\$\d\d\$[./\w]*/g, '…')
    .replaceAll(SECRETIVE, (run) => (isSecretive(run) ? '…' : run))
}
