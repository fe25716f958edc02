import { createScript } from '../../../redis/run-script.ts'
import { CLOCK, CODE } from './parts.ts'

/** Takes the place `id` in a sorted set, or keeps it: for so many milliseconds. */
export function takePlace(set: string, heldMs: string): string {
  return `
        local held = ${heldMs}
        call('ZADD', ${set}, string.format('%.0f', now + held), id)
        -- Twice as long as it must, so that not every call extends it. Another process may hold places for longer.
        if call('PTTL', ${set}) < held then call('PEXPIRE', ${set}, 2 * held) end
`
}

/** Gives back the place `id` in every sorted set. */
export const RELEASE = createScript(`${CLOCK}
for i = 1, #KEYS do call('ZREM', KEYS[i], args[1]) end
return { ${CODE.admitted}, now }
`)

/**
 * Keeps places, and takes those again that came free, even where others have taken them since. It does nothing after the caller has given
 * up, when the places may have been given back. It returns for each place whether it was still there.
 *
 * KEYS: a sorted set. ARGV: `deadline maxHeldMs`, then the ids.
 */
export const RENEW = createScript(`${CLOCK}
local deadline, held = string.match(args[1], '^(%d+) (%d+)$')
if now >= deadline + 0 then return { ${CODE.late}, now } end
local out = { ${CODE.admitted}, now }
for i = 2, #args do
  local id, till = args[i], call('ZSCORE', key, args[i])
  out[i + 1] = till and tonumber(till) > now and 1 or 0
  ${takePlace('key', 'tonumber(held)')}
end
return out
`)
