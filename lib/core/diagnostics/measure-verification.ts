import { isLatchkeyError } from '../../errors.ts'
import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import type { VerifyResult } from '../verify/verify-result.ts'
import { verifyChannel, verifyStartChannel } from './channels.ts'
import type { VerifyMessage, VerifyStartMessage } from './messages.ts'
import { failedStepOf, stepOfRefusal } from './verify-step.ts'

type Verify = () => Awaitable<VerifyResult>
type End = Pick<VerifyMessage, 'outcome' | 'step' | 'reason'>
type Inside = Parameters<VerifyStartMessage['runInside']>[0]

/** Whether anybody wants to know of verifications. Asked once for each: while nobody does, it costs nothing else. */
export function isVerificationMeasured(): boolean {
  return verifyChannel.hasSubscribers
}

/** Verifies, and tells how it began and ended. What it returns or throws stays as it is. */
export function measureVerification(verify: Verify): Awaitable<VerifyResult> {
  const start = verifyStartChannel.hasSubscribers ? new VerifyStart() : null
  if (start) verifyStartChannel.publish(start.message)
  const startedAt = performance.now()
  const tell = (end: End) =>
    verifyChannel.publish({
      ...end,
      durationMs: performance.now() - startedAt,
      start: start?.message ?? null,
    })
  let result: Awaitable<VerifyResult>
  try {
    result = start ? start.run(verify) : verify()
  } catch (error) {
    tell(endOfError(error))
    throw error
  }
  if (!isPromiseLike(result)) {
    tell(endOf(result))
    return result
  }
  return result.then(
    (known) => {
      tell(endOf(known))
      return known
    },
    (error: unknown) => {
      tell(endOfError(error))
      throw error
    },
  )
}

const ADMITTED: End = Object.freeze({ outcome: 'admitted', step: null, reason: null })

function endOf(result: VerifyResult): End {
  if (result.ok) return ADMITTED
  const reason = result.code === 'invalid_key' ? result.reason : null
  return { outcome: result.code, step: stepOfRefusal(result), reason }
}

function endOfError(error: unknown): End {
  const isUnavailable = isLatchkeyError(error) && error.code === 'unavailable'
  return { outcome: isUnavailable ? 'unavailable' : 'failed', step: failedStepOf(error), reason: null }
}

/** Runs a verification inside what subscribers asked for, the first of them outermost. */
class VerifyStart {
  readonly message: VerifyStartMessage = Object.freeze({
    runInside: (run: Inside) => void this.insides.push(run),
  })
  private readonly insides: Inside[] = []

  run(verify: Verify): Awaitable<VerifyResult> {
    return this.insides.reduceRight((inner: Verify, run) => () => runOnce(run, inner), verify)()
  }
}

/** The result of `work`, which runs once, whatever a subscriber does with it. */
function runOnce<T>(run: Inside, work: () => T): T {
  let ended: { readonly value: T } | { readonly error: unknown } | null = null
  function attempt(): typeof ended {
    if (ended) return ended
    try {
      ended = { value: work() }
    } catch (error) {
      ended = { error }
    }
    return ended
  }
  try {
    run(() => void attempt())
  } catch {
    // A subscriber's failure is its own.
  }
  const end = attempt()
  if (end && 'value' in end) return end.value
  throw end?.error
}
