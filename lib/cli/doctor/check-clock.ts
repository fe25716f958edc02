import { type Finding, findings } from './finding.ts'

/** From here on, expiry, refills and windows begin noticeably early or late. */
const WARNING_MS = 1_000
/** From here on, servers disagree on which keys have expired for longer than they hold a record. */
const PROBLEM_MS = 5_000

/** Compares the clock of this machine with that of a server. The question travels for half of the time, as far as anybody knows. */
export async function clockFinding(of: 'store' | 'Redis', ask: () => Promise<number>): Promise<Finding> {
  const before = Date.now()
  const there = await ask()
  const after = Date.now()
  return judgeClock(of, there - (before + after) / 2, (after - before) / 2)
}

/** `uncertainMs` is how far the difference may be off. */
export function judgeClock(of: 'store' | 'Redis', offsetMs: number, uncertainMs: number): Finding {
  const clock = findings(`clock of ${of === 'store' ? 'the store' : of}`)
  const off = Math.max(0, Math.abs(offsetMs) - uncertainMs)
  const by = `${Math.round(Math.abs(offsetMs))} ms ${offsetMs < 0 ? 'behind' : 'ahead of'} this machine`
  if (off >= PROBLEM_MS) {
    return clock.problem(
      `${by}: keys expire, and limits end, at another time on each machine. Synchronise the clocks`,
    )
  }
  if (off >= WARNING_MS) return clock.warning(`${by}: synchronise the clocks`)
  return clock.ok('the same as here')
}
