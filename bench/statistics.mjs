/** The middle value; the mean of the two middle ones where the count is even. */
export function median(values) {
  return quantile(values, 0.5)
}

/** The value below which the share `q` of the values lies, interpolated between neighbours. */
export function quantile(values, q) {
  const sorted = sort(values)
  const position = (sorted.length - 1) * q
  const below = sorted[Math.floor(position)]
  const above = sorted[Math.ceil(position)]
  return below + (above - below) * (position - Math.floor(position))
}

/**
 * The median with an interval that holds the true median with at least 95 % confidence.
 * The ends are values that were measured, picked by rank from the binomial distribution, so nothing is
 * assumed about the noise. Below six values no such ranks exist: the interval is then the whole range
 * and `confidence` says how little that is worth.
 */
export function summarise(values) {
  const sorted = sort(values)
  const count = sorted.length
  let rank = 0
  while (rank + 1 < count / 2 && coverage(count, rank + 1) >= 0.95) rank += 1
  return {
    median: median(sorted),
    low: sorted[rank],
    high: sorted[count - 1 - rank],
    confidence: coverage(count, rank),
  }
}

/** What pairing is for: one figure per round from the two values measured in that round. */
export function pair(values, references, compare) {
  return values.map((value, round) => compare(value, references[round]))
}

/** A generator of numbers in [0, 1) that repeats for the same seed (mulberry32). */
export function createRandom(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A shuffled copy (Fisher and Yates). */
export function shuffle(items, random) {
  const shuffled = [...items]
  for (let last = shuffled.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1))
    ;[shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]]
  }
  return shuffled
}

/** The chance that the median lies between the value of this rank (from 0) and its mirror image. */
function coverage(count, rank) {
  let term = 0.5 ** count
  let outside = 0
  for (let successes = 0; successes <= rank; successes += 1) {
    outside += term
    term *= (count - successes) / (successes + 1)
  }
  return Math.max(0, 1 - 2 * outside)
}

function sort(values) {
  return Float64Array.from(values).sort()
}
