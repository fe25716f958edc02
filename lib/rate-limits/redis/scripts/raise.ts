import { createScript } from '../../../redis/run-script.ts'
import { CODE, LIFETIME, PRELUDE, TIDY, TIDY_FROM, VERSION, WRITE } from './parts.ts'

/**
 * Raises versions that are lower.
 *
 * ARGV: milliseconds to keep the hash, then for each key: version field, version.
 */
export const RAISE = createScript(`${PRELUDE}
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
`)
