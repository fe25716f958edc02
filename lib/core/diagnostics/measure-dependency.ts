import { isLatchkeyError } from '../../errors.ts'
import { DeadlinePassed } from '../clock.ts'
import { dependencyChannel } from './channels.ts'
import type { DependencyMessage } from './messages.ts'

/** What is called. */
export type CalledPart = Pick<DependencyMessage, 'operation' | 'method'>

/** Does `work`, and tells how long the part took if anybody listens. */
export function measureDependency<T>(called: CalledPart, work: () => Promise<T>): Promise<T> {
  return dependencyChannel.hasSubscribers ? measure(called, work) : work()
}

/** The same for an answer that is under way. */
export function measureAnswer<T>(called: CalledPart, answer: PromiseLike<T>): PromiseLike<T> {
  return dependencyChannel.hasSubscribers ? measure(called, async () => answer) : answer
}

async function measure<T>({ operation, method }: CalledPart, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now()
  const tell = (outcome: DependencyMessage['outcome']) =>
    dependencyChannel.publish({ operation, method, outcome, durationMs: performance.now() - startedAt })
  let result: T
  try {
    result = await work()
  } catch (error) {
    tell(outcomeOf(error))
    throw error
  }
  tell('ok')
  return result
}

function outcomeOf(error: unknown): DependencyMessage['outcome'] {
  if (!isLatchkeyError(error)) return 'failed'
  // Every other code of ours is the part's answer.
  if (error.code !== 'unavailable') return 'ok'
  return error.cause instanceof DeadlinePassed ? 'timed_out' : 'failed'
}
