import { createScript, type Script } from '../../redis/run-script.ts'

/** A script, and the digest by which a server knows it. */
export interface StoreScript extends Script {
  readonly writes: boolean
}

/**
 * Every script answers an array that begins with the time of the server and, if it writes, with how many replicas are
 * connected and the name of the server's history, as `2 8371b4fb…`: a failover begins another. It is empty where that may
 * not be asked, and for a script that only reads.
 *
 * What a record is made of, in a hash of its own:
 *
 * - `r` the record as JSON, without what follows; `v` its version; `d` the digest, as JSON
 * - `c` how often it was used, `t` when last, in milliseconds, `a` from where, as JSON
 * - `s` the stamp of its insertion, which no other record has; `n` the stamp of its entry in the index of names
 * - `o` is there where its id is its lookup, so that no pointer leads to it
 * - `m` the token of the last change, by which one that is sent twice knows itself
 * - `q` what is still to be done to the quota of its lineage
 * - `b` the batch that it waits for: such a record exists once that is committed, and not before
 *
 * A pointer from an id to its lookup has `l`, `s` and `b`; the quota of a lineage `j` (as JSON), `u` where it was
 * removed, and for every record that has changed it the version up to which it did.
 */
const READING = `
local call, t = redis.call, redis.call('TIME')
local now, online = t[1] * 1000 + math.floor(t[2] / 1000), ''
`

const WRITING = `${READING}
local known, info = pcall(call, 'INFO', 'replication')
if known and type(info) == 'string' then
  local count = select(2, string.gsub(info, 'state=online', ''))
  online = count .. ' ' .. (string.match(info, 'master_replid:(%x+)') or '')
end
`

/** KEYS: anything. */
export const CLOCK = script(`${READING}
return { now, online }
`)

/** Writes, after all that was written before. KEYS: what is never read. */
export const TOUCH = script(`${WRITING}
call('SET', KEYS[1], '1', 'PX', 1)
return { now, online }
`)

/** KEYS: record, pointer, quota for each. ARGV: for each `i` to look by id, `l` by lookup. */
export const READ = script(`${READING}
local found = {}
for i = 1, #ARGV do
  local record, pointer, quota = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local fields, q = call('HGETALL', record), nil
  found[i] = false
  if #fields > 0 and (ARGV[i] == 'l' or call('HEXISTS', record, 'o') == 1) then
    q = call('HMGET', quota, 'j', 'u')
    found[i] = { 'record', fields, q[1], q[2] }
  elseif ARGV[i] == 'i' then
    fields = call('HGETALL', pointer)
    if #fields > 0 then found[i] = { 'pointer', fields } end
  end
end
return { now, online, found }
`)

/** KEYS: indexes. ARGV: for each what to add to it. */
export const ADD_TO_INDEXES = script(`${WRITING}
for i = 1, #KEYS do call('ZADD', KEYS[i], 0, ARGV[i]) end
return { now, online }
`)

/** KEYS: indexes. ARGV: for each what to remove from it. */
export const REMOVE_FROM_INDEXES = script(`${WRITING}
for i = 1, #KEYS do call('ZREM', KEYS[i], ARGV[i]) end
return { now, online }
`)

/** KEYS: indexes. ARGV: where to begin and to end, how many of each, -1 being all, and the command that reads in the order wanted. */
export const READ_INDEXES = script(`${READING}
local found = {}
for i = 1, #KEYS do found[i] = call(ARGV[4], KEYS[i], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3]) end
return { now, online, found }
`)

/** Removes from the index of a lineage, and with the last of it the quota. KEYS: index, quota. ARGV: what to remove. */
export const LEAVE_LINEAGE = script(`${WRITING}
for i = 1, #ARGV do call('ZREM', KEYS[1], ARGV[i]) end
if call('EXISTS', KEYS[1]) == 0 then call('DEL', KEYS[2]) end
return { now, online }
`)

/**
 * Writes all of some entries, or says what is in the way of the first that cannot be written. KEYS: two for each entry; the
 * second must not hold the same id. ARGV: the batch, or empty to write for good; how many batches are known to be dead, and
 * these; then for each entry its kind (`n` a record whose id is its lookup, `f` any other, `p` a pointer), its stamp, how many
 * fields and values, and these.
 */
export const CLAIM = script(`${WRITING}
local batch, dead, at = ARGV[1], {}, 3
for _ = 1, tonumber(ARGV[2]) do
  dead[ARGV[at]] = true
  at = at + 1
end
local function holder(key, stamp)
  local s, b = unpack(call('HMGET', key, 's', 'b'))
  if not s then return call('EXISTS', key) == 1 and '' or nil end
  if s == stamp then return 'own' end
  if b then return not dead[b] and b or nil end
  return ''
end
local first, own = at, {}
for i = 1, #KEYS, 2 do
  local kind, stamp = ARGV[at], ARGV[at + 1]
  local by, key = holder(KEYS[i], stamp), i
  own[i] = by == 'own'
  if own[i] then by = nil end
  if not by and not own[i] and (kind == 'n' or kind == 'p' and call('HEXISTS', KEYS[i + 1], 'o') == 1) then
    by, key = holder(KEYS[i + 1], stamp), i + 1
  end
  if by then return { now, online, 'taken', by, key } end
  at = at + 3 + tonumber(ARGV[at + 2])
end
at = first
for i = 1, #KEYS, 2 do
  local kind, count = ARGV[at], tonumber(ARGV[at + 2])
  if not own[i] then
    call('DEL', KEYS[i])
    if kind == 'n' or kind == 'p' and call('HEXISTS', KEYS[i + 1], 'o') == 1 then call('DEL', KEYS[i + 1]) end
    call('HSET', KEYS[i], 's', ARGV[at + 1], unpack(ARGV, at + 3, at + 2 + count))
    if batch ~= '' then call('HSET', KEYS[i], 'b', batch) end
  end
  at = at + 3 + count
end
return { now, online, 'claimed' }
`)

/** Makes entries of a committed batch plain. KEYS: entries. ARGV: the batch. */
export const SETTLE = script(`${WRITING}
for i = 1, #KEYS do
  if call('HGET', KEYS[i], 'b') == ARGV[1] then call('HDEL', KEYS[i], 'b') end
end
return { now, online }
`)

/** Removes entries of a batch that is not to be. KEYS: entries. ARGV: the batch. */
export const DROP = script(`${WRITING}
for i = 1, #KEYS do
  if call('HGET', KEYS[i], 'b') == ARGV[1] then call('DEL', KEYS[i]) end
end
return { now, online }
`)

/** Begins a batch. KEYS: it. ARGV: milliseconds it may stay open. */
export const OPEN_BATCH = script(`${WRITING}
call('SET', KEYS[1], 'open', 'PX', ARGV[1])
return { now, online }
`)

/** Decides that a batch is to be, if it still may. KEYS: it. ARGV: its entries. */
export const COMMIT_BATCH = script(`${WRITING}
local state = call('GET', KEYS[1])
if state == 'open' then call('SET', KEYS[1], ARGV[1]) end
return { now, online, (state == 'open' or state == ARGV[1]) and 1 or 0 }
`)

/** Decides that a batch is not to be, if that is open. KEYS: it. */
export const ABORT_BATCH = script(`${WRITING}
if call('GET', KEYS[1]) == 'open' then call('DEL', KEYS[1]) end
return { now, online }
`)

/** KEYS: a batch. */
export const READ_BATCH = script(`${READING}
return { now, online, call('GET', KEYS[1]) }
`)

/** Forgets a batch whose entries are all plain. KEYS: it. */
export const END_BATCH = script(`${WRITING}
call('DEL', KEYS[1])
return { now, online }
`)

/**
 * KEYS: a record. ARGV: its stamp, expected and next version, token, JSON, stamp of its name, what to do to the quota, and `1`
 * where the address of its last use is to be forgotten.
 */
export const UPDATE = script(`${WRITING}
local stamp, version, token = unpack(call('HMGET', KEYS[1], 's', 'v', 'm'))
if stamp ~= ARGV[1] then return { now, online, 'missing' } end
if version == ARGV[3] and token == ARGV[4] then return { now, online, 'updated' } end
if version ~= ARGV[2] then return { now, online, 'conflict' } end
call('HSET', KEYS[1], 'v', ARGV[3], 'm', ARGV[4], 'r', ARGV[5], 'n', ARGV[6])
if ARGV[7] ~= '' then call('HSET', KEYS[1], 'q', ARGV[7]) end
if ARGV[8] == '1' then call('HSET', KEYS[1], 'a', 'null') end
return { now, online, 'updated' }
`)

/** KEYS: a record. ARGV: its stamp, expected and next digest. */
export const REPLACE_DIGEST = script(`${WRITING}
local stamp, digest = unpack(call('HMGET', KEYS[1], 's', 'd'))
if stamp ~= ARGV[1] or digest ~= ARGV[2] then return { now, online, 0 } end
call('HSET', KEYS[1], 'd', ARGV[3])
return { now, online, 1 }
`)

/**
 * KEYS: record and pointer for each. ARGV: for each the stamp, or empty where only the id is known; count, time, address.
 * Answers for each where the pointer leads, if it has to be followed.
 */
export const USE = script(`${WRITING}
local further = {}
for i = 1, #KEYS / 2 do
  local record, pointer, at = KEYS[2 * i - 1], KEYS[2 * i], 4 * i - 3
  local stamp, own, last = unpack(call('HMGET', record, 's', 'o', 't'))
  further[i] = false
  if stamp and (ARGV[at] == '' and own or ARGV[at] == stamp) then
    call('HINCRBY', record, 'c', ARGV[at + 1])
    if not last or tonumber(last) < tonumber(ARGV[at + 2]) then
      call('HSET', record, 't', ARGV[at + 2], 'a', ARGV[at + 3])
    end
  elseif ARGV[at] == '' then
    local lookup, stamp = unpack(call('HMGET', pointer, 'l', 's'))
    if lookup and stamp then further[i] = { lookup, stamp } end
  end
end
return { now, online, further }
`)

/** Removes a record if it is as it was read. KEYS: it. ARGV: stamp, version, last use. */
export const REMOVE = script(`${WRITING}
local stamp, version, last = unpack(call('HMGET', KEYS[1], 's', 'v', 't'))
if stamp ~= ARGV[1] then return { now, online, 'missing' } end
if version ~= ARGV[2] or (last or '') ~= ARGV[3] then return { now, online, 'changed' } end
call('DEL', KEYS[1])
return { now, online, 'removed' }
`)

/** KEYS: a pointer. ARGV: its stamp. */
export const REMOVE_POINTER = script(`${WRITING}
local stamp, batch = unpack(call('HMGET', KEYS[1], 's', 'b'))
if stamp == ARGV[1] and not batch then call('DEL', KEYS[1]) end
return { now, online }
`)

/** KEYS: quotas. */
export const READ_QUOTAS = script(`${READING}
local found = {}
for i = 1, #KEYS do found[i] = call('HMGET', KEYS[i], 'j', 'u') end
return { now, online, found }
`)

/**
 * A client may send it again by itself after it has lost its connection: the second key says for a minute that it was done.
 * KEYS: a quota, and what no other swap names. ARGV: expected and next.
 */
export const SWAP_QUOTA = script(`${WRITING}
if call('EXISTS', KEYS[2]) == 1 then return { now, online, 1 } end
local quota, removed = unpack(call('HMGET', KEYS[1], 'j', 'u'))
if removed or quota ~= ARGV[1] then return { now, online, 0, quota, removed } end
call('HSET', KEYS[1], 'j', ARGV[2])
call('SET', KEYS[2], '1', 'PX', 60000)
return { now, online, 1 }
`)

/**
 * Does to a quota what a record asks for, once, and only while the lineage has records. KEYS: quota, index of the lineage.
 * ARGV: stamp of the record, version; the quota as expected, and whether removed; the same as it is to become.
 */
export const APPLY_TO_QUOTA = script(`${WRITING}
if call('EXISTS', KEYS[2]) == 0 then return { now, online, 1 } end
local quota, removed, version = unpack(call('HMGET', KEYS[1], 'j', 'u', 'by ' .. ARGV[1]))
if version and tonumber(version) >= tonumber(ARGV[2]) then return { now, online, 1 } end
if (quota or '') ~= ARGV[3] or (removed or '') ~= ARGV[4] then return { now, online, 0, quota, removed } end
call('HSET', KEYS[1], 'by ' .. ARGV[1], ARGV[2])
if ARGV[5] ~= '' then call('HSET', KEYS[1], 'j', ARGV[5]) end
if ARGV[6] ~= '' then call('HSET', KEYS[1], 'u', ARGV[6]) else call('HDEL', KEYS[1], 'u') end
return { now, online, 1 }
`)

/** KEYS: a record. ARGV: its stamp, and what was done to its quota. */
export const CLEAR_INTENT = script(`${WRITING}
local stamp, intent = unpack(call('HMGET', KEYS[1], 's', 'q'))
if stamp == ARGV[1] and intent == ARGV[2] then call('HDEL', KEYS[1], 'q') end
return { now, online }
`)

/** KEYS: an agreement. ARGV: `look`, `keep` or `replace`, and a value. Answers what is kept, and whether that was written. */
export const AGREE = script(`${WRITING}
local kept, written = call('GET', KEYS[1]), 0
if ARGV[1] == 'replace' or (ARGV[1] == 'keep' and not kept) then
  call('SET', KEYS[1], ARGV[2])
  kept, written = ARGV[2], 1
end
return { now, online, kept, written }
`)

function script(text: string): StoreScript {
  return Object.freeze({ ...createScript(text), writes: text.startsWith(WRITING) })
}
