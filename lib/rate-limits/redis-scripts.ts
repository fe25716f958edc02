import { createHash } from 'node:crypto'

/** A Lua script and the SHA-1 that Redis knows it by once it was loaded. */
export interface Script {
  readonly source: string
  readonly sha: string
}

/** What a script answers, first of all; its time comes next. */
export const CODE = Object.freeze({ refused: 0, admitted: 1, stale: 2, late: 3, otherPeriod: 4 })

/** So many fields, and a hash is looked through for what no longer matters. */
const MAX_FIELDS = 64
const MAX_METERS = 32

/**
 * What every script begins with. One hash holds all of a lineage:
 *
 * - `x`: the moment until which it was told to live, in text
 * - `v<keyId>`: a version, and when it was written
 * - `w…`, `b…`, `c…`: a meter of a window, bucket or calendar limit: units used, and since when
 *
 * Numbers are doubles of fixed order, so that a value survives exactly; whatever else is found there is an error, never
 * a number. Times are those of Redis, in milliseconds.
 */
const PRELUDE = `
local call, pack, tonumber, max, min = redis.call, struct.pack, tonumber, math.max, math.min
local key, args, most = KEYS[1], ARGV, 9007199254740991
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function two(s)
  local a, b
  if #s == 16 then a, b = struct.unpack('<dd', s) end
  if a and a >= 0 and a <= most and b >= 0 and b <= most then return a, b end
  error('LATCHKEY a value that is not one of ours')
end
`

/**
 * Writes the `n` words of the command `w`, which begins with HSET and the key, and has the hash live for `keep`
 * milliseconds at least. `x` is the field of that name.
 */
const WRITE = `
local till = x and tonumber(x) or x and -1 or 0
if not (till >= 0 and till <= most) then two('') end
local extended = till < now + keep
if extended then
  -- Twice as long as it must, so that not every call extends it.
  w[n + 1], w[n + 2], n = 'x', string.format('%.0f', now + 2 * keep), n + 2
end
if n == 4 then call('HSET', key, w[3], w[4]) elseif n > 4 then call(unpack(w)) end
if extended then call('PEXPIRE', key, 2 * keep) end
`

/**
 * Version and limits, all or nothing. It writes nothing once its caller has given up. The meters it returns are those
 * after the charge where it admits, and those before it where it refuses.
 *
 * It runs with every request, and is written for speed: it makes no function and no table that it can do without, and
 * numbers come several to an argument, since every argument costs the client more than it costs to read them here.
 *
 * ARGV: `deadline cost version fresh keep` (fresh: 1 or 0; keep: milliseconds for the hash to live), the version field,
 * then for each limit its field and `capacity a b` (window: its length and 0, bucket: limit and length, calendar: start
 * and end).
 */
const CHECK_SOURCE = `${PRELUDE}
local match = string.match
local deadline, cost, version, fresh, keep = match(args[1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
if now >= tonumber(deadline) then return { ${CODE.late}, now } end
cost, version, keep = tonumber(cost), tonumber(version), tonumber(keep)
local last, kept = #args, nil
if last == 2 then
  kept = call('HMGET', key, 'x', args[2])
elseif last == 4 then
  kept = call('HMGET', key, 'x', args[2], args[3])
else
  local read = { 'HMGET', key, 'x', args[2] }
  for i = 3, last, 2 do read[(i + 7) / 2] = args[i] end
  kept = call(unpack(read))
end
local x, w, n, outcome = kept[1], { 'HSET', key }, 2, ${CODE.refused}

local known
if kept[2] then known = two(kept[2]) end
if known ~= version then
  if known and version < known or not known and fresh == '0' then
    outcome = ${CODE.stale}
  else
    w[3], w[4], n = args[2], pack('<dd', version, now), 4
  end
end

local out, o = { outcome, now }, 2
if outcome ~= ${CODE.stale} then
  local fits = true
  for i = 3, last, 2 do
    local field, meter, used, since = args[i], kept[(i + 3) / 2], 0, now
    local kind, cap, a, b = string.byte(field), match(args[i + 1], '^(%d+) (%d+) (%d+)$')
    cap, a = tonumber(cap), tonumber(a)
    if kind == ${byte('c')} then
      if now < a or now >= tonumber(b) then return { ${CODE.otherPeriod}, now } end
      since = a
    end
    if meter then
      local before, from = two(meter)
      if kind == ${byte('b')} then
        used = max(0, min(before, cap) - (max(0, now - from) * a) / b)
      elseif kind == ${byte('c')} and from >= a or kind == ${byte('w')} and now - from < a then
        used, since = before, min(from, since)
      end
    end
    if cost > 0 and used + cost > cap then fits = false end
    out[o + 1], out[o + 2], o = used, since, o + 2
  end
  if fits then
    out[1] = ${CODE.admitted}
    if cost > 0 then
      for i = 3, last, 2 do
        local used = out[i] + cost
        out[i], w[n + 1], w[n + 2], n = used, args[i], pack('<dd', used, out[i + 1]), n + 2
      end
    end
    -- A replica must not admit, since it may not know the latest version: a write is what it refuses.
    if n == 2 then call('HDEL', key, '') end
  else
    for i = 3, last, 2 do
      local meter = kept[(i + 3) / 2]
      if meter then
        local _, from = two(meter)
        -- The clock went back: nobody has to wait for the time before.
        if out[i + 1] < from then
          w[n + 1], w[n + 2], n = args[i], pack('<dd', out[i], out[i + 1]), n + 2
        end
      end
    end
  end
  for i = 3, o, 2 do
    if out[i] % 1 ~= 0 then out[i] = string.format('%.17g', out[i]) end
  end
end
${WRITE}
return out
`

/**
 * Raises versions, where they are lower. Once the hash has grown, what no longer matters leaves it: versions that were
 * written so long ago that nobody holds an older record, and the meters that were least lately used.
 *
 * ARGV: milliseconds to keep the hash, then for each key: version field, version.
 */
const RAISE_SOURCE = `${PRELUDE}
local keep, x, w, n = tonumber(args[1]), call('HGET', key, 'x'), { 'HSET', key }, 2
for i = 2, #args, 2 do
  local known, version = call('HGET', key, args[i]), tonumber(args[i + 1])
  if known then version = max(version, (two(known))) end
  w[n + 1], w[n + 2], n = args[i], pack('<dd', version, now), n + 2
end
${WRITE}
if call('HLEN', key) > ${MAX_FIELDS} then
  local all, meters, gone = call('HGETALL', key), {}, {}
  for i = 1, #all, 2 do
    local kind = string.byte(all[i])
    if kind == ${byte('v')} then
      local _, at = two(all[i + 1])
      if at + keep < now then gone[#gone + 1] = all[i] end
    -- A field q holds the quota of a process of 0.2, which needs it.
    elseif kind ~= ${byte('x')} and kind ~= ${byte('q')} then
      local _, since = two(all[i + 1])
      meters[#meters + 1] = { all[i], since }
    end
  end
  table.sort(meters, function(one, other) return one[2] < other[2] end)
  for i = 1, #meters - ${MAX_METERS} do gone[#gone + 1] = meters[i][1] end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
end
return { ${CODE.admitted}, now }
`

/**
 * Gives back what a call has spent, as far as it still counts.
 *
 * ARGV: cost, when it was charged, then the limits as above.
 */
const REFUND_SOURCE = `${PRELUDE}
local cost, at, w, n = tonumber(args[1]), tonumber(args[2]), { 'HSET', key }, 2
for i = 3, #args, 2 do
  local kind, meter = string.byte(args[i]), call('HGET', key, args[i])
  local cap, a, b = string.match(args[i + 1], '^(%d+) (%d+) (%d+)$')
  cap, a, b = tonumber(cap), tonumber(a), tonumber(b)
  if meter then
    local used, since = two(meter)
    local returned = 0
    if kind == ${byte('b')} then
      used = max(0, min(used, cap) - (max(0, now - since) * a) / b)
      returned, since = max(0, cost - (max(0, now - at) * a) / b), now
    elseif since <= now and since <= at then
      local lasts = kind == ${byte('c')} and since == a and now < b or kind == ${byte('w')} and now - since < a
      returned = lasts and cost or 0
    end
    if returned > 0 then
      w[n + 1], w[n + 2], n = args[i], pack('<dd', max(0, used - returned), since), n + 2
    end
  end
end
if n > 2 then call(unpack(w)) end
return { ${CODE.admitted}, now }
`

export const CHECK = script(CHECK_SOURCE)
export const RAISE = script(RAISE_SOURCE)
export const REFUND = script(REFUND_SOURCE)

function script(text: string): Script {
  const source = text.trim()
  return Object.freeze({ source, sha: createHash('sha1').update(source).digest('hex') })
}

/** How Lua tells the kinds of field apart: by the first byte of their name. */
function byte(letter: string): number {
  return letter.charCodeAt(0)
}
