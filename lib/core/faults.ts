import { type ErrorCode, isLatchkeyError, LatchkeyError } from '../errors.ts'
import { type Clock, startDeadline } from './clock.ts'
import { type CalledPart, measureDependency } from './diagnostics/measure-dependency.ts'
import { noteFailedStep } from './diagnostics/verify-step.ts'
import type { ApiKeyEvent } from './events.ts'

/** A part that may fail. Its failure becomes `unavailable` and an event, never a wrong answer. */
export type FaultyPart = Extract<ApiKeyEvent, { type: 'fault' }>['operation']

export interface DependencyRunner {
  /**
   * Runs `work` with a deadline; what it throws, or its silence, becomes `unavailable`. An error of ours with one of
   * the codes `answers` is an answer, and passes. `method` says what of the part is called.
   */
  run<T>(
    part: FaultyPart,
    work: () => T | PromiseLike<T>,
    answers?: readonly ErrorCode[],
    method?: string,
  ): Promise<T>
  /** The error that stands for `cause`; reports it. */
  toError(part: FaultyPart, cause: unknown): LatchkeyError
}

export function createDependencyRunner(
  clock: Clock,
  timeoutMs: number,
  emit: (event: ApiKeyEvent) => void,
): DependencyRunner {
  const toError = (part: FaultyPart, cause: unknown) => errorOf(part, null, cause)

  function errorOf(part: FaultyPart, method: string | null, cause: unknown): LatchkeyError {
    emit({ type: 'fault', at: new Date(clock.now()), operation: part, error: cause })
    // What is wrong with a store the message says too: it is for whoever sets it up, and clients never see it.
    const message = isLatchkeyError(cause) ? cause.message : undefined
    const error = new LatchkeyError('unavailable', message, { cause, stack: false })
    noteFailedStep(error, { operation: part, method })
    return error
  }

  function run<T>(
    part: FaultyPart,
    work: () => T | PromiseLike<T>,
    answers: readonly ErrorCode[] = [],
    method: string | null = null,
  ): Promise<T> {
    const called = { operation: part, method }
    return measureDependency(called, () => runInTime(called, work, answers))
  }

  async function runInTime<T>(
    { operation, method }: CalledPart,
    work: () => T | PromiseLike<T>,
    answers: readonly ErrorCode[],
  ): Promise<T> {
    const { passed, cancel } = startDeadline(clock, timeoutMs)
    try {
      // As `inTime`, without its steps: every call that asks somebody runs this.
      return await Promise.race([passed, (async () => work())()])
    } catch (error) {
      if (isLatchkeyError(error) && answers.includes(error.code)) throw error
      throw errorOf(operation, method, error)
    } finally {
      cancel()
    }
  }

  return { run, toError }
}
