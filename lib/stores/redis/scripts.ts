import { createScript, type Script } from '../../redis/run-script.ts'

/** A script, and whether it writes. */
export interface StoreScript extends Script {
  readonly writes: boolean
}

/**
 * Every script returns an array. First comes the server's time. Next, if the script writes, come the number of connected replicas and
 * the name of the server's history, as in `2 8371b4fb…`: a failover begins a new history. That text is empty if the user may not run
 * INFO, and for a script that only reads.
 *
 * A record is a hash:
 *
 * - `r` the record as JSON, without what follows; `v` its version; `d` the digest, as JSON
 * - `c` how often it was used, `t` the time of the last use in milliseconds, `a` its address, as JSON
 * - `s` the stamp of its insertion, unique to the record; `n` the stamp of its entry in the index of names
 * - `o` exists if its id is its lookup, so that no pointer leads to it
 * - `m` the token of the last change, to recognise a change that is sent twice
 * - `q` a change of the lineage's quota that is still to be made
 * - `b` the batch that it is pending for: the record exists once the batch is committed
 *
 * A pointer from an id to its lookup has `l` (the lookup), `s` and `b`. The quota of a lineage has `j` (as JSON), `u` if it was removed,
 * and, for each record that changed it, the version of the last such change.
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

/** Reads the time. KEYS: any key. */
export const CLOCK = script(`${READING}
return { now, online }
`)

/** Writes something, so that WAIT covers all earlier writes. KEYS: a key that nobody reads. */
export const TOUCH = script(`${WRITING}
call('SET', KEYS[1], '1', 'PX', 1)
return { now, online }
`)

/** KEYS: for each entry its record, pointer and quota. ARGV: for each, `i` to find it by id, `l` by lookup. */
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

/** KEYS: indexes. ARGV: for each, the member to add. */
export const ADD_TO_INDEXES = script(`${WRITING}
for i = 1, #KEYS do call('ZADD', KEYS[i], 0, ARGV[i]) end
return { now, online }
`)

/** KEYS: indexes. ARGV: for each, the member to remove. */
export const REMOVE_FROM_INDEXES = script(`${WRITING}
for i = 1, #KEYS do call('ZREM', KEYS[i], ARGV[i]) end
return { now, online }
`)

/** KEYS: indexes. ARGV: where to begin and end, how many members of each (-1 for all), and the command for the order. */
export const READ_INDEXES = script(`${READING}
local found = {}
for i = 1, #KEYS do found[i] = call(ARGV[4], KEYS[i], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3]) end
return { now, online, found }
`)

/** Removes members from the index of a lineage, and with the last one the quota. KEYS: index, quota. ARGV: members. */
export const LEAVE_LINEAGE = script(`${WRITING}
for i = 1, #ARGV do call('ZREM', KEYS[1], ARGV[i]) end
if call('EXISTS', KEYS[1]) == 0 then call('DEL', KEYS[2]) end
return { now, online }
`)

/**
 * Writes all entries, or returns what is in the way of the first one that cannot be written. KEYS: for each entry its key and its rival,
 * which must not hold the same id. ARGV: the batch, or empty to write final entries; the number of batches known to be dead, and their
 * tokens; then for each entry its kind (`n` a record whose id is its lookup, `f` any other record, `p` a pointer), its stamp, the number
 * of its field names and values, and these.
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

/** Makes the entries of a committed batch final. KEYS: entries. ARGV: the batch. */
export const SETTLE = script(`${WRITING}
for i = 1, #KEYS do
  if call('HGET', KEYS[i], 'b') == ARGV[1] then call('HDEL', KEYS[i], 'b') end
end
return { now, online }
`)

/** Removes the entries of an aborted batch. KEYS: entries. ARGV: the batch. */
export const DROP = script(`${WRITING}
for i = 1, #KEYS do
  if call('HGET', KEYS[i], 'b') == ARGV[1] then call('DEL', KEYS[i]) end
end
return { now, online }
`)

/** Opens a batch. KEYS: the batch. ARGV: how long it may stay open, in milliseconds. */
export const OPEN_BATCH = script(`${WRITING}
call('SET', KEYS[1], 'open', 'PX', ARGV[1])
return { now, online }
`)

/** Commits a batch if it is still open. KEYS: the batch. ARGV: its entries. */
export const COMMIT_BATCH = script(`${WRITING}
local state = call('GET', KEYS[1])
if state == 'open' then call('SET', KEYS[1], ARGV[1]) end
return { now, online, (state == 'open' or state == ARGV[1]) and 1 or 0 }
`)

/** Aborts a batch if it is still open. KEYS: the batch. */
export const ABORT_BATCH = script(`${WRITING}
if call('GET', KEYS[1]) == 'open' then call('DEL', KEYS[1]) end
return { now, online }
`)

/** Reads the state of a batch. KEYS: the batch. */
export const READ_BATCH = script(`${READING}
return { now, online, call('GET', KEYS[1]) }
`)

/** Removes a batch whose entries are all final. KEYS: the batch. */
export const END_BATCH = script(`${WRITING}
call('DEL', KEYS[1])
return { now, online }
`)

/**
 * Replaces a record. KEYS: the record. ARGV: its stamp, expected and next version, token, JSON, stamp of its name, change of the quota,
 * and `1` to forget the address of its last use.
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

/** Replaces a digest. KEYS: the record. ARGV: its stamp, expected and next digest. */
export const REPLACE_DIGEST = script(`${WRITING}
local stamp, digest = unpack(call('HMGET', KEYS[1], 's', 'd'))
if stamp ~= ARGV[1] or digest ~= ARGV[2] then return { now, online, 0 } end
call('HSET', KEYS[1], 'd', ARGV[3])
return { now, online, 1 }
`)

/**
 * Counts uses. KEYS: for each its record and pointer. ARGV: for each its stamp, or empty if only the id is known; count, time, address.
 * Returns for each where its pointer leads, if the use must be counted there.
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

/** Removes a record if it is unchanged. KEYS: the record. ARGV: its stamp, version and last use. */
export const REMOVE = script(`${WRITING}
local stamp, version, last = unpack(call('HMGET', KEYS[1], 's', 'v', 't'))
if stamp ~= ARGV[1] then return { now, online, 'missing' } end
if version ~= ARGV[2] or (last or '') ~= ARGV[3] then return { now, online, 'changed' } end
call('DEL', KEYS[1])
return { now, online, 'removed' }
`)

/** Removes a pointer. KEYS: the pointer. ARGV: its stamp. */
export const REMOVE_POINTER = script(`${WRITING}
local stamp, batch = unpack(call('HMGET', KEYS[1], 's', 'b'))
if stamp == ARGV[1] and not batch then call('DEL', KEYS[1]) end
return { now, online }
`)

/** Reads quotas. KEYS: quotas. */
export const READ_QUOTAS = script(`${READING}
local found = {}
for i = 1, #KEYS do found[i] = call('HMGET', KEYS[i], 'j', 'u') end
return { now, online, found }
`)

/**
 * Swaps a quota. A client may send it again after a lost connection: the second key remembers for a minute that it was made.
 * KEYS: the quota, and a key unique to this swap. ARGV: expected and next quota.
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
 * Makes the change of a quota that a record intends, once, and only while the lineage has records. KEYS: quota, index of the lineage.
 * ARGV: stamp and version of the record; the expected quota and whether it is removed; the next quota and whether it is removed.
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

/** Clears an intent. KEYS: the record. ARGV: its stamp, and the intent that was carried out. */
export const CLEAR_INTENT = script(`${WRITING}
local stamp, intent = unpack(call('HMGET', KEYS[1], 's', 'q'))
if stamp == ARGV[1] and intent == ARGV[2] then call('HDEL', KEYS[1], 'q') end
return { now, online }
`)

/** KEYS: an agreement. ARGV: `look`, `keep`, `replace` or `swap`, a value, and the one that it swaps. Returns the kept value, and whether this call wrote it. */
export const AGREE = script(`${WRITING}
local kept, written = call('GET', KEYS[1]), 0
local isNew = ARGV[1] ~= 'look' and not kept
if isNew or ARGV[1] == 'replace' or (ARGV[1] == 'swap' and kept == ARGV[3]) then
  call('SET', KEYS[1], ARGV[2])
  kept, written = ARGV[2], 1
end
return { now, online, kept, written }
`)

/**
 * Adds counts to days of use, each batch of a writer once. A day is a hash: for each hour and counter, as in `13 admitted`, an amount.
 * Another hash has the number of each writer's latest batch for that day, and is kept for longer than batches are sent again. KEYS: for
 * each day, both hashes and the set of days of its subject. ARGV: the writer, the number, how many seconds to keep a day, and a hash of
 * writers; for each day its number, how many amounts follow, and those.
 */
export const ADD_USAGE = script(`${WRITING}
local from = 5
for i = 1, #KEYS, 3 do
  local count = tonumber(ARGV[from + 1])
  if tonumber(call('HGET', KEYS[i + 1], ARGV[1]) or 0) < tonumber(ARGV[2]) then
    call('HSET', KEYS[i + 1], ARGV[1], ARGV[2])
    for j = from + 2, from + 2 * count, 2 do call('HINCRBY', KEYS[i], ARGV[j], ARGV[j + 1]) end
    call('SADD', KEYS[i + 2], ARGV[from])
    call('EXPIRE', KEYS[i], ARGV[3])
    call('EXPIRE', KEYS[i + 1], ARGV[4])
    call('EXPIRE', KEYS[i + 2], ARGV[3])
  end
  from = from + 2 + 2 * count
end
return { now, online }
`)

/** Reads days of use. KEYS: those. */
export const READ_USAGE = script(`${READING}
local found = {}
for i = 1, #KEYS do found[i] = call('HGETALL', KEYS[i]) end
return { now, online, found }
`)

/** Lists the days on which a subject has counts. KEYS: the set of its days. */
export const LIST_USAGE_DAYS = script(`${READING}
return { now, online, call('SMEMBERS', KEYS[1]) }
`)

/** Removes keys of one place. KEYS: those. */
export const REMOVE_USAGE = script(`${WRITING}
call('DEL', unpack(KEYS))
return { now, online }
`)

/** Raises the hour since which use is kept. KEYS: that. ARGV: the hour. */
export const KEEP_USAGE_SINCE = script(`${WRITING}
if tonumber(call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then call('SET', KEYS[1], ARGV[1]) end
return { now, online }
`)

/** KEYS: the hour since which use is kept. */
export const READ_USAGE_SINCE = script(`${READING}
return { now, online, call('GET', KEYS[1]) }
`)

function script(text: string): StoreScript {
  return Object.freeze({ ...createScript(text), writes: text.startsWith(WRITING) })
}
