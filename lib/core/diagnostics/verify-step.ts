import type { InvalidReason, RefusedKey } from '../verify/verify-result.ts'
import { verifyChannel } from './channels.ts'
import type { CalledPart } from './measure-dependency.ts'
import type { DependencyOperation, VerifyStep } from './messages.ts'

/** The step that refused a key. */
export function stepOfRefusal(refusal: RefusedKey): VerifyStep {
  return refusal.code === 'invalid_key' ? STEP_OF_REASON[refusal.reason] : STEP_OF_CODE[refusal.code]
}

const STEP_OF_CODE: Readonly<Record<Exclude<RefusedKey['code'], 'invalid_key'>, VerifyStep>> = {
  too_many_failures: 'failed_attempts',
  address_not_allowed: 'address',
  insufficient_permissions: 'permissions',
  quota_exceeded: 'quota',
  rate_limited: 'rate_limits',
}

const STEP_OF_REASON: Readonly<Record<InvalidReason, VerifyStep>> = {
  malformed: 'parse',
  prefix_not_accepted: 'parse',
  unknown: 'record',
  inactive: 'record',
  wrong_secret: 'digest',
  revoked: 'status',
  disabled: 'status',
  expired: 'status',
  idle: 'status',
  owner_inactive: 'owner',
  no_user: 'owner',
  invalid_ticket: 'record',
}

const failures = new WeakMap<object, VerifyStep>()

/** Remembers which step an error belongs to, if anybody listens. */
export function noteFailedStep(error: object, { operation, method }: CalledPart): void {
  if (!verifyChannel.hasSubscribers) return
  const step = method === 'swapQuota' ? 'quota' : STEP_OF_OPERATION[operation]
  if (step) failures.set(error, step)
}

const STEP_OF_OPERATION: Partial<Readonly<Record<DependencyOperation, VerifyStep>>> = {
  format: 'parse',
  store: 'record',
  owner_limits: 'record',
  remote: 'record',
  digest: 'digest',
  owner_status: 'owner',
  permissions: 'permissions',
  rate_limiter: 'rate_limits',
}

/** The step that failed; null if none is to blame. */
export function failedStepOf(error: unknown): VerifyStep | null {
  return (typeof error === 'object' && error !== null && failures.get(error)) || null
}
