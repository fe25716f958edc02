import { createSecretKey } from 'node:crypto'
import { createAgreements } from '../../core/agreements.ts'
import { systemClock } from '../../core/clock.ts'
import type { Pepper } from '../../core/digests/digest.ts'
import { schemeOf } from '../../core/digests/digest.ts'
import { createPepperChecks } from '../../core/digests/pepper-check.ts'
import { createDependencyRunner } from '../../core/faults.ts'
import type { KeyStore } from '../../core/keys/key-store.ts'
import type { RateLimiter } from '../../core/limits/rate-limiter.ts'
import { firstLine } from '../describe-error.ts'
import { type Finding, findings } from './finding.ts'

const peppering = findings('peppers')
const limiting = findings('limiter')

/** How many of the latest keys are looked at. */
const SAMPLE = 1_000
const TIMEOUT_MS = 5_000

/** Whether this configuration has the peppers that keys were made with, with the same secrets as the servers. */
export async function checkPeppers(store: KeyStore, peppers: readonly Pepper[]): Promise<readonly Finding[]> {
  const found: Finding[] = []
  for (const { id, secret } of peppers) {
    const problem = await driftOf(store, id, secret)
    if (problem !== null) found.push(peppering.problem(problem))
  }
  const known = peppers.map(({ id }) => id)
  const latest = await store.list({}, { limit: SAMPLE, order: 'newest' })
  const used = new Set(latest.map(({ digest }) => schemeOf(digest).pepper))
  for (const pepper of used) {
    if (pepper === null || known.includes(pepper)) continue
    found.push(
      peppering.problem(
        `keys have digests with the pepper "${pepper}", which this configuration lacks: they cannot be verified`,
      ),
    )
  }
  if (found.length > 0) return found
  if (known.length > 0) return [peppering.ok(`${known.join(', ')}, as other processes have them`)]
  return [
    peppering.warning('none: digests of a stolen table could be tested against leaked keys. Set "peppers"'),
  ]
}

/** What is wrong with the secret of a pepper; null where nothing is known to be. It proposes nothing. */
async function driftOf(store: KeyStore, id: string, secret: string | Uint8Array): Promise<string | null> {
  const guard = createDependencyRunner(systemClock, TIMEOUT_MS, () => {})
  const createCheck = createPepperChecks(createAgreements(store), systemClock, guard, () => {})
  try {
    await createCheck(id, createSecretKey(Buffer.from(secret as string))).beforeBlame()
    return null
  } catch (error) {
    const { cause } = error as { cause?: unknown }
    return firstLine(cause ?? error)
  }
}

/** Whether all servers count in one place, and this configuration names it. */
export async function checkLimiter(
  store: KeyStore,
  limiter: RateLimiter,
  maxAgeMs: number,
): Promise<Finding> {
  const { sharedAs } = limiter
  const agreed = store.agree ? await store.agree('rateLimiter', null).catch(() => null) : null
  if (sharedAs === undefined) {
    if (agreed !== null) {
      return limiting.problem(
        `servers share a limiter (${agreed}), but this configuration names no Redis: changes made here reach them only within ${maxAgeMs} ms. Set "redis"`,
      )
    }
    return limiting.warning(
      `not shared: each process counts by itself, and revocations reach the others within ${maxAgeMs} ms. Set "redis" if you run several`,
    )
  }
  if (agreed === null) return limiting.ok(`${sharedAs}; no server has counted there yet`)
  if (agreed === sharedAs) return limiting.ok(`${sharedAs}, as servers have it`)
  return limiting.problem(
    `this configuration has the ${sharedAs}, servers have the ${agreed}: limits are counted apart, and changes made here arrive late`,
  )
}
