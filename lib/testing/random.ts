/** Chances that come out the same for the same seed. */
export type Random = ReturnType<typeof createRandom>

/** Chance that comes out the same for the same seed: mulberry32. */
export function createRandom(seed: number) {
  let state = seed | 0

  function next(): number {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  const below = (limit: number) => Math.floor(next() * limit)
  return {
    below,
    chance: (share: number) => next() < share,
    /** One of these, of which there must be one. */
    of: <T>(items: readonly T[]): T => items[below(items.length)] as T,
  }
}
