import { BUCKET_SLACK, MAX_BUCKET_SLACK, MAX_LIFETIME_MS, MAX_METERS } from '../../../core/limits/meter.ts'
import { createScript } from '../../../redis/run-script.ts'
import {
  byte,
  CLOCK,
  CODE,
  LIFETIME,
  METER,
  TIDY,
  TIDY_FROM,
  TIDY_TO_OPEN,
  TOOLS,
  VERSION,
  WRITE,
} from './parts.ts'

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
 * It runs with every request and is written for speed. It creates no function and no table that it can avoid. It prepares the write
 * while it reads the limits, and discards it if one of them refuses.
 *
 * ARGV: `deadline cost version fresh retain` (fresh: 1 or 0; retain: milliseconds for the version to live), the version
 * field, then for each limit its field and `capacity a b` (window: its length and 0, bucket: limit and length, calendar:
 * start and end). With one window only, what CHARGE_WINDOW reads.
 */
export const CHECK = createScript(`${CLOCK}${CHARGE_WINDOW}${TOOLS}
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
`)
