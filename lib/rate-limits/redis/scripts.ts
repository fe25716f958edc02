import { BUCKET_SLACK, MAX_BUCKET_SLACK, MAX_LIFETIME_MS, MAX_METERS } from '../../core/limits/rate-limit.ts'
import { createScript } from '../../redis/run-script.ts'

/** The first part of a script's reply. The server's time is the second. */
export const CODE = Object.freeze({ refused: 0, admitted: 1, stale: 2, late: 3, otherPeriod: 4 })

/** A hash with more fields than this is searched for ended ones when its lifetime is extended, or versions rise. */
const TIDY_FROM = 16
/** A hash that would get more fields than this is also searched when a call adds a meter. */
const TIDY_TO_OPEN = 64

/** Longer than any deadline. */
const SETTLE_ID_MS = 120_000

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
const CLOCK = `
local call, tonumber, key, args = redis.call, tonumber, KEYS[1], ARGV
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`
const TOOLS = `
local pack, max, min, ceil, most = struct.pack, math.max, math.min, math.ceil, 9007199254740991
local function read(s, size, format)
  local a, b, c
  if #s == size then a, b, c = struct.unpack(format, s) end
  if a and a >= 0 and a <= most and b >= 0 and b <= most and c >= 0 and c <= most then return a, b, c end
  error('LATCHKEY a value that is not one of ours')
end
`
const PRELUDE = `${CLOCK}${TOOLS}`
const VERSION = `16, '<dd'`
const METER = `24, '<ddd'`

/** Sets `extended`: whether the hash expires before `keep` milliseconds have passed. `x` is the field of that name. */
const LIFETIME = `
local till = x and tonumber(x) or x and -1 or 0
if not (till >= 0 and till <= most) then read('', ${VERSION}) end
local extended = till < now + keep
`

/**
 * Drops ended meters, and versions so old that no cache holds an older record. Sets `running` to the number of running meters.
 */
const TIDY = `
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
const WRITE = `
if extended then
  -- Twice as long as it must, so that not every call extends it.
  w[n + 1], w[n + 2], n = 'x', string.format('%.0f', now + 2 * keep), n + 2
end
if n == 4 then call('HSET', key, w[3], w[4]) elseif n > 4 then call(unpack(w, 1, n)) end
if extended then call('PEXPIRE', key, 2 * keep) end
`

/**
 * The common case of CHECK, which does only what it needs: one window that is open and has room, and the version of the hash. In every
 * other case it changes nothing, and the rest of CHECK decides.
 *
 * ARGV: `deadline cost version fresh retain`, the window's capacity and field, and the version field, all in one: an argument costs the
 * client more than parsing costs here. The version field is last, because an id may hold any text.
 */
const CHARGE_WINDOW = `
local match = string.match
if #args == 1 then
  local deadline, cost, version, fresh, retain, cap, field, mark =
    match(args[1], '^(%d+) (%d+) (%d+) (%d) (%d+) (%d+) (xw%S+ window %d+) (.+)$')
  if now >= deadline + 0 then return { ${CODE.late}, now } end
  local kept = call('HMGET', key, 'x', mark, field)
  local x, known, meter = tonumber(kept[1] or ''), kept[2], kept[3]
  if x and known and meter and #known == 16 and #meter == 24 then
    local used, since, ends = struct.unpack('<ddd', meter)
    if struct.unpack('<d', known) == version + 0 and used >= 0 and used + cost <= cap + 0
      and since >= 0 and since <= now and now < ends and ends <= x and now + retain <= x then
      used = used + cost
      call('HSET', key, field, struct.pack('<ddd', used, since, ends))
      return { ${CODE.admitted}, now, used, since }
    end
  end
  local facts = deadline .. ' ' .. cost .. ' ' .. version .. ' ' .. fresh .. ' ' .. retain
  args = { facts, mark, field, cap .. ' ' .. match(field, '%d+$') .. ' 0' }
end
`

/**
 * Checks the version and all limits, and charges all of them or none. It writes nothing after the caller has given up, and changes no
 * meter when it refuses or the cost is 0. It returns the meters after the charge if it admits, and before it if it refuses.
 *
 * It runs with every request and is written for speed. It creates no function and no table that it can avoid. It prepares the write while it reads the limits, and
 * discards it if one of them refuses.
 *
 * ARGV: `deadline cost version fresh retain` (fresh: 1 or 0; retain: milliseconds for the version to live), the version
 * field, then for each limit its field and `capacity a b` (window: its length and 0, bucket: limit and length, calendar:
 * start and end). With one window only, what CHARGE_WINDOW reads.
 */
const CHECK_SOURCE = `${CLOCK}${CHARGE_WINDOW}${TOOLS}
local byte = string.byte
local deadline, cost, version, fresh, retain = match(args[1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
if now >= tonumber(deadline) then return { ${CODE.late}, now } end
cost, version, retain = tonumber(cost), tonumber(version), tonumber(retain)
local last, kept = #args, nil
if last == 2 then
  kept = call('HMGET', key, 'x', args[2])
elseif last == 4 then
  kept = call('HMGET', key, 'x', args[2], args[3])
else
  local get = { 'HMGET', key, 'x', args[2] }
  for i = 3, last, 2 do get[(i + 7) / 2] = args[i] end
  kept = call(unpack(get))
end
local x, w, n, keep, outcome = kept[1], { 'HSET', key }, 2, retain, ${CODE.refused}

local known
if kept[2] then known = read(kept[2], ${VERSION}) end
if known ~= version then
  if known and version < known or not known and fresh == '0' then
    outcome = ${CODE.stale}
  else
    w[3], w[4], n = args[2], pack('<dd', version, now), 4
  end
end

local out, o, running = { outcome, now }, 2, nil
if outcome ~= ${CODE.stale} then
  local fits, before, longest, opening, isNew, moved = true, n, 0, 0, false, nil
  for i = 3, last, 2 do
    local field, meter, used, since = args[i], kept[(i + 3) / 2], 0, now
    local kind, cap, a, b = byte(field, 2), match(args[i + 1], '^(%d+) (%d+) (%d+)$')
    cap, a, b = tonumber(cap), tonumber(a), tonumber(b)
    local room, ends = cap, now + a
    if kind == ${byte('c')} then
      if now < a or now >= b then return { ${CODE.otherPeriod}, now } end
      since, ends = a, b
    elseif kind == ${byte('b')} then
      room = cap + min(cap * ${BUCKET_SLACK}, ${MAX_BUCKET_SLACK})
    end
    local was, from, till
    if meter then was, from, till = read(meter, ${METER}) else isNew = true end
    if not till or till <= now then
      opening = opening + 1
    elseif kind == ${byte('b')} then
      used = max(0, was - (max(0, now - from) * a) / b)
    elseif from <= since then
      used, since, ends = was, from, till
    else
      used = was
    end
    if cost > 0 then
      if used + cost > room then fits = false end
      if kind == ${byte('b')} then ends = now + min(ceil((used + cost) * b / a), ${MAX_LIFETIME_MS}) end
      w[n + 1], w[n + 2], n = field, pack('<ddd', used + cost, since, ends), n + 2
      longest = max(longest, ends - now)
      if from and from > since and till > now then
        -- The clock went back: nobody has to wait for the time before.
        if kind == ${byte('b')} then ends = now + min(ceil(used * b / a), ${MAX_LIFETIME_MS}) end
        moved = moved or {}
        moved[#moved + 1] = field
        moved[#moved + 1] = pack('<ddd', used, since, ends)
      end
    end
    out[o + 1], out[o + 2], o = used, since, o + 2
  end
  -- Where every field is there already, they are no more than there may be.
  if fits and cost > 0 and isNew and call('HLEN', key) + opening > ${TIDY_TO_OPEN} then
    ${TIDY}
    if running + opening > ${MAX_METERS} then
      -- There is no room to count them: they are as good as used up.
      fits = false
      for i = 3, last, 2 do
        local meter, _, till = kept[(i + 3) / 2], nil, nil
        if meter then _, _, till = read(meter, ${METER}) end
        if not till or till <= now then out[i] = tonumber(match(args[i + 1], '^%d+')) end
      end
    end
  end
  if fits then
    out[1], keep = ${CODE.admitted}, max(keep, longest)
    -- A replica must not admit, since it may not know the latest version: a write is what it refuses.
    if n == 2 then call('HDEL', key, '') end
  else
    n, cost = before, 0
    for i = 1, moved and #moved or 0 do w[n + i] = moved[i] end
    n = n + (moved and #moved or 0)
  end
  for i = 3, o, 2 do
    local used = out[i] + cost
    out[i] = used % 1 == 0 and used or string.format('%.17g', used)
  end
end
${LIFETIME}
if extended and not running and call('HLEN', key) > ${TIDY_FROM} then
  ${TIDY}
end
${WRITE}
return out
`

/**
 * As CHECK, with a cost for each limit, and limits of the owner, which count in a hash of its own. A limit that costs 0 must still have
 * room for one unit.
 *
 * KEYS: the hash of the lineage; that of the owner, if the key has limits of its owner.
 *
 * ARGV: `deadline look version fresh retain own` (look: 1 if the call only looks; own: how many limits belong to the lineage; they come
 * first), the version field, then for each limit its field and `capacity a b cost`.
 */
const CHECK_SHARED_SOURCE = sharedCheck({
  facts: `
local deadline, look, version, fresh, retain, own = match(args[1], '^(%d+) (%d) (%d+) (%d) (%d+) (%d+)$')
local last, hashes = #args, #KEYS
`,
  count: '',
  take: '',
  tell: '',
})

/**
 * As CHECK_SHARED, for a call that also takes places: in all limits on calls under way, or in none. A limit has a sorted set of the
 * places that are taken, by the time at which each comes free. Places that should have come free are dropped only where one is needed.
 *
 * KEYS: as for CHECK_SHARED, then the sorted sets.
 *
 * ARGV: as for CHECK_SHARED, but the first also says how many hashes there are, and the id of the call's places; and for each sorted
 * set, last, `concurrent maxHeldMs`. The reply ends with the number of places taken and 0, for each.
 */
const CHECK_PLACES_SOURCE = sharedCheck({
  facts: `
local deadline, look, version, fresh, retain, own, hashes, id =
  match(args[1], '^(%d+) (%d) (%d+) (%d) (%d+) (%d+) (%d) (%S+)$')
hashes = tonumber(hashes)
local last, taken, at = #args - #KEYS + hashes, {}, string.format('%.0f', now)
`,
  count: `
  for j = hashes + 1, #KEYS do
    local set, most = KEYS[j], tonumber(match(args[last + j - hashes], '^%d+'))
    if look then
      taken[j] = call('ZCOUNT', set, '(' .. at, '+inf')
    else
      local count = call('ZCARD', set)
      if count >= most then
        call('ZREMRANGEBYSCORE', set, '-inf', at)
        count = call('ZCARD', set)
        if count >= most then fits = false end
      end
      taken[j] = count
    end
  end
`,
  take: `
    if not look then
      for j = hashes + 1, #KEYS do
        ${takePlace('KEYS[j]', "tonumber(match(args[last + j - hashes], '%d+$'))")}
        taken[j] = call('ZCARD', KEYS[j])
      end
    end
`,
  tell: `
  for j = hashes + 1, #KEYS do out[o + 1], out[o + 2], o = taken[j], 0, o + 2 end
`,
})

/** Takes the place `id` in a sorted set, or keeps it: for so many milliseconds. */
function takePlace(set: string, heldMs: string): string {
  return `
        local held = ${heldMs}
        call('ZADD', ${set}, string.format('%.0f', now + held), id)
        -- Twice as long as it must, so that not every call extends it. Another process may hold places for longer.
        if call('PTTL', ${set}) < held then call('PEXPIRE', ${set}, 2 * held) end
`
}

/** What the scripts that charge limits one by one have of their own. */
interface SharedCheck {
  /** Reads the first argument, and where the arguments of meters end. */
  readonly facts: string
  /** Counts what is taken besides, and clears `fits` where there is no room. */
  readonly count: string
  readonly take: string
  /** Adds it to the reply. */
  readonly tell: string
}

function sharedCheck({ facts, count, take, tell }: SharedCheck): string {
  return `${PRELUDE}
local match, byte = string.match, string.byte
${facts}
if now >= deadline + 0 then return { ${CODE.late}, now } end
look, version, retain, own = look == '1', tonumber(version), tonumber(retain), 2 + 2 * own
local kept, expiry, known = {}, {}, nil
for h = 1, hashes do
  local get, from, to = { 'HMGET', KEYS[h], 'x', args[2] }, h == 1 and 3 or own + 1, h == 1 and own or last
  local n = 4
  for i = from, to, 2 do
    n = n + 1
    get[n] = args[i]
  end
  local got = call(unpack(get))
  expiry[h] = got[1]
  if h == 1 and got[2] then known = read(got[2], ${VERSION}) end
  for i = from, to, 2 do kept[i] = got[(i - from) / 2 + 3] end
end

local outcome, writes, size, keeps = ${CODE.refused}, { { 'HSET', key }, { 'HSET', KEYS[2] } }, { 2, 2 }, { retain, 0 }
if known ~= version then
  if known and version < known or not known and fresh == '0' then
    outcome = ${CODE.stale}
  else
    writes[1][3], writes[1][4], size[1] = args[2], pack('<dd', version, now), 4
  end
end

local out, o, counted = { outcome, now }, 2, nil
if outcome ~= ${CODE.stale} then
  local fits, before, longest, opening, isNew, moved, costs = true, size[1], { 0, 0 }, { 0, 0 }, {}, { {}, {} }, {}
  for i = 3, last, 2 do
    local h, field, meter, used, since = i > own and 2 or 1, args[i], kept[i], 0, now
    local kind, cap, a, b, cost = byte(field, 2), match(args[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    cap, a, b, cost = tonumber(cap), tonumber(a), tonumber(b), tonumber(cost)
    local room, ends = cap, now + a
    if kind == ${byte('c')} then
      if now < a or now >= b then return { ${CODE.otherPeriod}, now } end
      since, ends = a, b
    elseif kind == ${byte('b')} then
      room = cap + min(cap * ${BUCKET_SLACK}, ${MAX_BUCKET_SLACK})
    end
    local was, from, till
    if meter then was, from, till = read(meter, ${METER}) end
    if not till or till <= now then
      if cost > 0 then
        opening[h] = opening[h] + 1
        if not meter then isNew[h] = true end
      end
    elseif kind == ${byte('b')} then
      used = max(0, was - (max(0, now - from) * a) / b)
    elseif from <= since then
      used, since, ends = was, from, till
    else
      used = was
    end
    if not look then
      if used + max(cost, 1) > room then fits = false end
      if cost > 0 then
        if kind == ${byte('b')} then ends = now + min(ceil((used + cost) * b / a), ${MAX_LIFETIME_MS}) end
        local w, n = writes[h], size[h]
        w[n + 1], w[n + 2], size[h] = field, pack('<ddd', used + cost, since, ends), n + 2
        longest[h] = max(longest[h], ends - now)
      end
      if from and from > since and till > now then
        -- The clock went back: nobody has to wait for the time before.
        if kind == ${byte('b')} then ends = now + min(ceil(used * b / a), ${MAX_LIFETIME_MS}) end
        local m = moved[h]
        m[#m + 1] = field
        m[#m + 1] = pack('<ddd', used, since, ends)
      end
    end
    out[o + 1], out[o + 2], costs[o + 1], o = used, since, cost, o + 2
  end
  if fits and not look then
    for h = 1, hashes do
      local key, running = KEYS[h], nil
      if isNew[h] and call('HLEN', key) + opening[h] > ${TIDY_TO_OPEN} then
        ${TIDY}
        if running + opening[h] > ${MAX_METERS} then
          -- There is no room to count them: they are as good as used up.
          fits = false
          for i = h == 1 and 3 or own + 1, h == 1 and own or last, 2 do
            local meter, _, till = kept[i], nil, nil
            if meter then _, _, till = read(meter, ${METER}) end
            if not till or till <= now then out[i] = tonumber(match(args[i + 1], '^%d+')) end
          end
        end
      end
    end
  end
  ${count}
  if fits then
    out[1], keeps[1], keeps[2] = ${CODE.admitted}, max(retain, longest[1]), longest[2]
    ${take}
    -- A replica must not admit, since it may not know the latest version: a write is what it refuses.
    if size[1] == 2 and size[2] == 2 then call('HDEL', key, '') end
  else
    size[1], size[2] = before, 2
    for h = 1, hashes do
      local m, w, n = moved[h], writes[h], size[h]
      for i = 1, #m do w[n + i] = m[i] end
      size[h] = n + #m
    end
  end
  for i = 3, o, 2 do
    local used = out[i]
    if fits and not look then used = used + costs[i] end
    out[i] = used % 1 == 0 and used or string.format('%.17g', used)
  end
  ${tell}
end
for h = 1, hashes do
  local key, x, w, n, keep, running = KEYS[h], expiry[h], writes[h], size[h], keeps[h], nil
  if keep > 0 then
    ${LIFETIME}
    if extended and call('HLEN', key) > ${TIDY_FROM} then
      ${TIDY}
    end
    ${WRITE}
  elseif n > 2 then
    call(unpack(w, 1, n))
  end
end
return out
`
}

/**
 * Raises versions that are lower.
 *
 * ARGV: milliseconds to keep the hash, then for each key: version field, version.
 */
const RAISE_SOURCE = `${PRELUDE}
local retain, x, w, n, running = tonumber(args[1]), call('HGET', key, 'x'), { 'HSET', key }, 2, nil
local keep = retain
for i = 2, #args, 2 do
  local known, version = call('HGET', key, args[i]), tonumber(args[i + 1])
  if known then version = max(version, (read(known, ${VERSION}))) end
  w[n + 1], w[n + 2], n = args[i], pack('<dd', version, now), n + 2
end
${LIFETIME}
if call('HLEN', key) > ${TIDY_FROM} then
  ${TIDY}
end
${WRITE}
return { ${CODE.admitted}, now }
`

/**
 * Changes what a call has cost, once, even if it is sent twice: its id is kept for longer than any deadline, under a key in the same slot
 * as the hash, with the time and what each change has done. It does nothing if Redis's clock shows another calendar period than its
 * caller. It returns the meters after the changes, and what it keeps under the id.
 *
 * KEYS as for CHECK_SHARED.
 *
 * ARGV: `deadline own id` (own as for CHECK_SHARED), then for each limit its field and `capacity a b`, followed by its changes: when units
 * that are given back were charged, and how many units there are to charge (a minus before them: to give back).
 */
const SETTLE_SOURCE = `${PRELUDE}
local match, byte = string.match, string.byte
local deadline, own, id = match(args[1], '^(%d+) (%d+) (.+)$')
if now >= deadline + 0 then return { ${CODE.late}, now } end
own = 2 * own + 1
for i = 2, #args, 2 do
  local _, a, b = match(args[i + 1], '^(%d+) (%d+) (%d+)')
  if byte(args[i], 2) == ${byte('c')} and (now < a + 0 or now >= b + 0) then return { ${CODE.otherPeriod}, now } end
end
local told = call('GET', key .. ':' .. id)
local made, m = { now }, 1
local out, o, writes, keeps = { ${CODE.admitted}, now }, 2, { { 'HSET', key }, { 'HSET', KEYS[2] } }, { 0, 0 }
for i = 2, #args, 2 do
  local h, field = i > own and 2 or 1, args[i]
  local kind, _, a, b, changes = byte(field, 2), match(args[i + 1], '^(%d+) (%d+) (%d+)(.*)$')
  a, b = tonumber(a), tonumber(b)
  local meter, was, from, till = call('HGET', KEYS[h], field), 0, 0, 0
  if meter then was, from, till = read(meter, ${METER}) end
  local runs, used, since, ends = till > now, 0, now, now + a
  if kind == ${byte('c')} then since, ends = a, b end
  local begins, isWritten = since, false
  if runs and kind == ${byte('b')} then
    used = max(0, was - (max(0, now - from) * a) / b)
  elseif runs and from <= since then
    used, since, ends = was, from, till
  elseif runs then
    used = was
  end
  if not told then
    for at, units in string.gmatch(changes, ' (%d+) (-?%d+)') do
      at, units, m = tonumber(at), tonumber(units), m + 1
      made[m] = 0
      if units > 0 then
        made[m] = units
        used, runs, isWritten = min(used + units, most), true, true
      elseif runs and (kind == ${byte('b')} or at >= since and (isWritten or from <= begins)) then
        local back = -units
        if kind == ${byte('b')} then back = max(0, back - (max(0, now - at) * a) / b) end
        if back > 0 then used, isWritten, made[m] = max(0, used - back), true, back end
      end
      if isWritten and kind == ${byte('b')} then
        ends = now + min(ceil(used * b / a), ${MAX_LIFETIME_MS})
        runs = ends > now
      end
    end
  end
  if isWritten then
    local w = writes[h]
    w[#w + 1] = field
    w[#w + 1] = pack('<ddd', used, since, ends)
    keeps[h] = max(keeps[h], ends - now)
  end
  out[o + 1], out[o + 2], o = used % 1 == 0 and used or string.format('%.17g', used), since, o + 2
end
if not told then
  for i = 1, m do made[i] = string.format('%.17g', made[i]) end
  told = table.concat(made, ' ')
  call('SET', key .. ':' .. id, told, 'PX', ${SETTLE_ID_MS})
end
for number in string.gmatch(told, '%S+') do
  out[o + 1], o = number, o + 1
end
for h = 1, #KEYS do
  local key, x, w, keep = KEYS[h], call('HGET', KEYS[h], 'x'), writes[h], keeps[h]
  local n = #w
  if n > 2 then
    ${LIFETIME}
    ${WRITE}
  end
end
return out
`

/** Gives back the place `id` in every sorted set. */
const RELEASE_SOURCE = `${CLOCK}
for i = 1, #KEYS do call('ZREM', KEYS[i], args[1]) end
return { ${CODE.admitted}, now }
`

/**
 * Keeps places, and takes those again that came free, even where others have taken them since. It does nothing after the caller has given
 * up, when the places may have been given back. It returns for each place whether it was still there.
 *
 * KEYS: a sorted set. ARGV: `deadline maxHeldMs`, then the ids.
 */
const RENEW_SOURCE = `${CLOCK}
local deadline, held = string.match(args[1], '^(%d+) (%d+)$')
if now >= deadline + 0 then return { ${CODE.late}, now } end
local out = { ${CODE.admitted}, now }
for i = 2, #args do
  local id, till = args[i], call('ZSCORE', key, args[i])
  out[i + 1] = till and tonumber(till) > now and 1 or 0
  ${takePlace('key', 'tonumber(held)')}
end
return out
`

export const CHECK = createScript(CHECK_SOURCE)
export const CHECK_SHARED = createScript(CHECK_SHARED_SOURCE)
export const CHECK_PLACES = createScript(CHECK_PLACES_SOURCE)
export const RELEASE = createScript(RELEASE_SOURCE)
export const RENEW = createScript(RENEW_SOURCE)
export const RAISE = createScript(RAISE_SOURCE)
export const SETTLE = createScript(SETTLE_SOURCE)

/** Lua tells kinds of fields apart by the bytes of their names. */
function byte(letter: string): number {
  return letter.charCodeAt(0)
}
