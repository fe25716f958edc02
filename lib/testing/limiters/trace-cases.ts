import { createRandom } from '../random.ts'
import type { TestAssert } from '../test-runner.ts'
import { lastSunday } from './calendar-cases.ts'
import { DAY, HOUR, type MadeLimiter } from './limiter-test.ts'
import { type Failure, playTrace } from './play-trace.ts'
import { randomTrace, type Step, type StepKinds, type Subject } from './traces.ts'

/** Seeds are below this. */
export const MAX_SEED = 2 ** 31

/** What a run of traces needs. */
export interface Traces {
  readonly subject: Subject
  readonly kinds: StepKinds
  readonly seed: number
  readonly runs: number
  readonly assert: TestAssert
  /** Runs something on a limiter of its own. */
  withLimiter<T>(run: (made: MadeLimiter) => Promise<T>): Promise<T>
}

/** Plays traces from a seed, each on an empty limiter, until the model disagrees with one. */
export async function playTraces(traces: Traces): Promise<void> {
  const { subject, kinds, seed, runs, assert, withLimiter } = traces
  const play = (steps: readonly Step[]) =>
    withLimiter(async (made) => {
      await moveToStart(made)
      return playTrace(steps, subject, made)
    })
  for (let run = 0; run < runs; run++) {
    const ownSeed = (seed + run) % MAX_SEED
    const steps = randomTrace(createRandom(ownSeed), subject, kinds)
    const failure = await play(steps)
    if (failure) assert.ok(false, report(ownSeed, await shorten(steps, failure, play)))
  }
}

/** Every trace begins an hour before a day of 25 hours, a few days before the month ends: a shorter one fails as the longer did. */
async function moveToStart({ clock }: MadeLimiter): Promise<void> {
  const now = clock.now()
  const OCTOBER = 9
  const nextYear = now + 365 * DAY
  const starts = [now, nextYear].map((moment) => lastSunday(moment, OCTOBER) - 3 * HOUR)
  await clock.advance((starts.find((start) => start > now) as number) - now)
}

interface Shortened {
  readonly steps: readonly Step[]
  readonly failure: Failure
}

/** How many shorter traces are tried. */
const MAX_TRIES = 300

/** Leaves out whatever the failure does not need, until every step that is left is needed. */
async function shorten(
  steps: readonly Step[],
  failure: Failure,
  play: (steps: readonly Step[]) => Promise<Failure | null>,
): Promise<Shortened> {
  let shortest: Shortened = { steps: steps.slice(0, failure.at + 1), failure }
  let needed = 0
  for (let tries = 0; tries < MAX_TRIES && needed < shortest.steps.length; tries++) {
    const length = shortest.steps.length
    const shorter = shortest.steps.toSpliced(length - 1 - needed, 1)
    const other = await play(shorter)
    if (other) shortest = { steps: shorter.slice(0, other.at + 1), failure: other }
    needed = other ? 0 : needed + 1
  }
  return shortest
}

function report(seed: number, { steps, failure }: Shortened): string {
  return [
    `the limiter answers the last of these steps otherwise than the model (seed: ${seed}, runs: 1 repeats it):`,
    ...steps.map((step, i) => `  ${i + 1}. ${JSON.stringify(step)}`),
    `  ${failure.problem}`,
  ].join('\n')
}
