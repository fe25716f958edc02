import { BUCKET_SLACK, MAX_BUCKET_SLACK, MAX_LIFETIME_MS, MAX_METERS } from '../../../core/limits/meter.ts'
import { createScript } from '../../../redis/run-script.ts'
import {
  byte,
  CODE,
  LIFETIME,
  METER,
  PRELUDE,
  TIDY,
  TIDY_FROM,
  TIDY_TO_OPEN,
  VERSION,
  WRITE,
} from './parts.ts'
import { takePlace } from './places.ts'

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

/** Reads the version and the meters, and decides whether the record is the latest. */
const READ = `local kept, expiry, known = {}, {}, nil
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
`

/** Reads each limit, and prepares what is written if the call fits. */
const EACH_LIMIT = `  for i = 3, last, 2 do
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
`

/** Finds room for meters that a call opens. */
const ROOM = `  if fits and not look then
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
`

/** Writes what was prepared, and extends the lifetime of each hash. */
const WRITE_ALL = `for h = 1, hashes do
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
`

function sharedCheck({ facts, count, take, tell }: SharedCheck): string {
  return `${PRELUDE}
local match, byte = string.match, string.byte
${facts}
if now >= deadline + 0 then return { ${CODE.late}, now } end
look, version, retain, own = look == '1', tonumber(version), tonumber(retain), 2 + 2 * own
${READ}${EACH_LIMIT}${ROOM}  ${count}
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
${WRITE_ALL}return out
`
}

/**
 * As CHECK, with a cost for each limit, and limits of the owner, which count in a hash of its own. A limit that costs 0 must still have
 * room for one unit.
 *
 * KEYS: the hash of the lineage; that of the owner, if the key has limits of its owner.
 *
 * ARGV: `deadline look version fresh retain own` (look: 1 if the call only looks; own: how many limits belong to the lineage; they come
 * first), the version field, then for each limit its field and `capacity a b cost`.
 */
export const CHECK_SHARED = createScript(
  sharedCheck({
    facts: `
local deadline, look, version, fresh, retain, own = match(args[1], '^(%d+) (%d) (%d+) (%d) (%d+) (%d+)$')
local last, hashes = #args, #KEYS
`,
    count: '',
    take: '',
    tell: '',
  }),
)

/**
 * As CHECK_SHARED, for a call that also takes places: in all limits on calls under way, or in none. A limit has a sorted set of the
 * places that are taken, by the time at which each comes free. Places that should have come free are dropped only where one is needed.
 *
 * KEYS: as for CHECK_SHARED, then the sorted sets.
 *
 * ARGV: as for CHECK_SHARED, but the first also says how many hashes there are, and the id of the call's places; and for each sorted
 * set, last, `concurrent maxHeldMs`. The reply ends with the number of places taken and 0, for each.
 */
export const CHECK_PLACES = createScript(
  sharedCheck({
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
  }),
)
