/** The first part of a script's reply. The server's time is the second. */
export const CODE = Object.freeze({ refused: 0, admitted: 1, stale: 2, late: 3, otherPeriod: 4 })

/** A hash with more fields than this is searched for ended ones when its lifetime is extended, or versions rise. */
export const TIDY_FROM = 16
/** A hash that would get more fields than this is also searched when a call adds a meter. */
export const TIDY_TO_OPEN = 64

/**
 * The beginning of every script. One hash holds everything of a lineage:
 *
 * - `x`: the time at which the hash expires, as text
 * - `v<keyId>`: a version, and the time it was written
 * - `xw…`, `xb…`, `xc…`: a meter of a window, bucket or calendar limit: used units, when it began, when it ends
 *
 * Numbers are packed as little-endian doubles, which keeps them exact. Any other content is an error, never read as a number. Times are
 * in milliseconds, by Redis's clock.
 *
 * Processes of release 0.2 share `x` and the versions. Their meters (`w…`, `b…`, `c…`) and quota (`q`) have other meanings: these scripts
 * never read them, and they last as long as the hash. Release 0.2 in turn ignores fields that begin with `x`.
 */
export const CLOCK = `
local call, tonumber, key, args = redis.call, tonumber, KEYS[1], ARGV
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
export const TOOLS = `
local pack, max, min, ceil, most = struct.pack, math.max, math.min, math.ceil, 9007199254740991
local function read(s, size, format)
  local a, b, c
  if #s == size then a, b, c = struct.unpack(format, s) end
  if a and a >= 0 and a <= most and b >= 0 and b <= most and c >= 0 and c <= most then return a, b, c end
  error('LATCHKEY a value that is not one of ours')
end
`
export const PRELUDE = `${CLOCK}${TOOLS}`
export const VERSION = `16, '<dd'`
export const METER = `24, '<ddd'`

/** Sets `extended`: whether the hash expires before `keep` milliseconds have passed. `x` is the field of that name. */
export const LIFETIME = `
local till = x and tonumber(x) or x and -1 or 0
if not (till >= 0 and till <= most) then read('', ${VERSION}) end
local extended = till < now + keep
`

/**
 * Drops ended meters, and versions so old that no cache holds an older record. Sets `running` to the number of running meters.
 */
export const TIDY = `
  local all, gone = call('HGETALL', key), {}
  running = 0
  for i = 1, #all, 2 do
    local field = all[i]
    local kind = string.byte(field)
    if kind == ${byte('v')} then
      local _, at = read(all[i + 1], ${VERSION})
      if at + retain < now and field ~= args[2] then gone[#gone + 1] = field end
    elseif kind == ${byte('x')} and #field > 1 then
      local _, _, ends = read(all[i + 1], ${METER})
      if ends > now then running = running + 1 else gone[#gone + 1] = field end
    end
  end
  for i = 1, #gone, 1000 do call('HDEL', key, unpack(gone, i, min(i + 999, #gone))) end
`

/** Runs the command `w`, which has `n` words and begins with HSET and the key. Extends the lifetime of the hash. */
export const WRITE = `
if extended then
  -- Twice as long as it must, so that not every call extends it.
  w[n + 1], w[n + 2], n = 'x', string.format('%.0f', now + 2 * keep), n + 2
end
if n == 4 then call('HSET', key, w[3], w[4]) elseif n > 4 then call(unpack(w, 1, n)) end
if extended then call('PEXPIRE', key, 2 * keep) end
`

/** Lua tells kinds of fields apart by the bytes of their names. */
export function byte(letter: string): number {
  return letter.charCodeAt(0)
}
