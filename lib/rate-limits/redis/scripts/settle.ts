import { MAX_LIFETIME_MS } from '../../../core/limits/meter.ts'
import { createScript } from '../../../redis/run-script.ts'
import { byte, CODE, LIFETIME, METER, PRELUDE, WRITE } from './parts.ts'

/** Longer than any deadline. */
const SETTLE_ID_MS = 120_000

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
export const SETTLE = createScript(`${PRELUDE}
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
`)
