import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createApiKeys, type KeyRecord, memoryRateLimiter } from 'latchkey'
import { migrate, type SqlStore, sqliteStore } from 'latchkey/sql'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { at, record } from '../support/key-records.ts'
import { type CliFolder, cliFolder } from '../support/run-cli.ts'

let cli: CliFolder
let source: SqlStore
let target: SqlStore

beforeEach(async () => {
  cli = await cliFolder()
  source = sqliteStore(join(cli.folder, 'keys.db'))
  target = sqliteStore(join(cli.folder, 'other.db'))
  await migrate(target)
})

afterEach(async () => {
  await source.close()
  await target.close()
})

const OTHER = 'env:OTHER'
const withOther = () => ({ env: { ...cli.env, OTHER: `sqlite:${join(cli.folder, 'other.db')}` } })
const run = (...words: string[]) => cli.run(words, withOther())
const json = (...words: string[]) => cli.json(words, withOther())

const all = (store: SqlStore) => store.list({}, { limit: 10_000 })
const fill = (count: number) =>
  source.insert(
    [...Array(count).keys()].map((n) => record({ id: `k${n}`, createdAt: at(Math.floor(n / 3)) })),
  )

/** A key with everything set, that was used, and has an odd name. */
const FULL: KeyRecord = record({
  id: 'full',
  name: 'a\u2028b\u001b[31m"\n',
  owner: { type: 'organization', id: 'o:1' },
  createdBy: 'u_9',
  permissions: { projects: ['read', 'write'] },
  metadata: { deep: { list: [1, null, 'x'] } },
  rateLimits: [{ name: 'minute', limit: 5, windowMs: 60_000 }],
  quota: {
    remaining: 5,
    epoch: 7,
    allotted: 3,
    refill: { amount: 9, per: 'day', timeZone: 'UTC' },
    nextRefillAt: at(9),
  },
  createdAt: at(99),
  expiresAt: at(1_000_000),
  idleExpiryMs: 90_000,
  usageCount: 12,
  lastUsedAt: at(500),
  lastUsedIp: '192.0.2.7',
  revokedAt: at(600),
  revokedBy: 'ops',
  revokedReason: 'leaked',
  rotatedFrom: 'k1',
  version: 4,
})

describe('export', () => {
  it('keeps a file that exists, and leaves none behind that it cannot finish', async () => {
    await fill(3)
    const file = join(cli.folder, 'keys.jsonl')
    writeFileSync(file, 'precious')
    expect(await run('export', 'keys.jsonl')).toMatchObject({
      code: 2,
      stderr: 'latchkey: keys.jsonl exists: --force replaces it\n',
    })
    const signal = AbortSignal.abort()
    expect(await cli.run(['export', 'other.jsonl'], { signal })).toMatchObject({ code: 130, stdout: '' })
    expect(await run('export', 'nowhere/keys.jsonl')).toMatchObject({ code: 1, stdout: '' })
    expect(readFileSync(file, 'utf8')).toBe('precious')
    expect(readdirSync(cli.folder).filter((name) => /jsonl|tmp/.test(name))).toEqual(['keys.jsonl'])
    expect(await run('export', 'keys.jsonl', '--force')).toMatchObject({ code: 0 })
    expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(6)
  })

  it('shows no digests on a terminal', async () => {
    expect(await cli.run(['export'], { columns: 100 })).toMatchObject({ code: 2, stdout: '' })
  })

  it('makes a file that its owner alone may read', async () => {
    await fill(3)
    expect(await json('export', 'keys.jsonl')).toEqual({ exported: 3 })
    expect(statSync(join(cli.folder, 'keys.jsonl')).mode & 0o777).toBe(0o600)
  })

  it('writes those of an owner only', async () => {
    await fill(3)
    await source.insert([FULL])
    const { stdout } = await run('export', '--owner', 'organization:o:1')
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map(({ id }) => id)).toEqual([undefined, 'full', undefined])
    expect(lines[2]).toEqual({ end: true, count: 1 })
  })
})

describe('import of an export', () => {
  const exported = async () => (await run('export')).stdout
  const read = (text: string, ...words: string[]) =>
    cli.run(['import', '--store', OTHER, ...words], { ...withOther(), stdin: text })

  it('keeps everything of a key', async () => {
    await fill(10)
    await source.insert([FULL])
    expect(await read(await exported())).toMatchObject({ code: 0, stdout: 'Imported 11 keys.\n', stderr: '' })
    expect(await all(target)).toEqual(await all(source))
  })

  it('skips what is there when it is repeated, and adds what is missing', async () => {
    await fill(2_500)
    const text = await exported()
    const lines = text.split('\n')
    expect(await read([...lines.slice(0, 1_200), ...lines.slice(-2)].join('\n'))).toMatchObject({ code: 1 })
    expect(await read(text)).toMatchObject({
      code: 0,
      stdout: 'Imported 1301 keys; 1199 were there already.\n',
    })
    expect(await read(text)).toMatchObject({ code: 0, stdout: 'Imported 0 keys; 2500 were there already.\n' })
    expect(await all(target)).toEqual(await all(source))
  })

  it('takes lines in any order, and twice', async () => {
    await fill(50)
    const [header = '', ...lines] = (await exported()).trim().split('\n')
    const footer = lines.pop() ?? ''
    const shuffled = [header, ...lines.reverse(), footer, header, ...lines, footer].join('\n')
    expect(await read(shuffled)).toMatchObject({
      code: 0,
      stdout: 'Imported 50 keys; 50 were there already.\n',
    })
    expect(await all(target)).toEqual(await all(source))
  })

  it('leaves keys alone that are there with other contents, and says which', async () => {
    await fill(3)
    const text = await exported()
    await target.insert([
      record({ id: 'k0', name: 'Changed', version: 2 }),
      record({ id: 'k1', name: 'Other' }),
      record({ id: 'thief', lookup: 'k2', createdAt: at(77) }),
    ])
    const before = await all(target)
    const { code, stdout, stderr } = await read(text)
    expect({ code, stdout }).toEqual({
      code: 1,
      stdout: 'Imported 0 keys; 3 are there with other contents and were left alone.\n',
    })
    expect(stderr.split('\n').map((line) => line.slice(0, 40))).toEqual([
      'k0: there in a newer version, which was ',
      'k1: another key has this id or lookup, o',
      'k2: another key has this id or lookup, o',
      '',
    ])
    expect(await all(target)).toEqual(before)
  })

  it('names lines that are no keys, and imports the others', async () => {
    await fill(2)
    const [header, first, second, footer] = (await exported())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    const bad = [
      '{ "id": "cut',
      { ...first, id: 'a b' },
      { ...first, digest: 'acme_secret' },
      { ...first, lookup: '' },
      { ...first, createdAt: 'yesterday' },
      { ...first, rateLimits: [{ name: 'x' }] },
      { ...first, allowedIps: ['300.1.1.1'] },
      { ...first, quota: { ...FULL.quota, remaining: -1 } },
      { ...first, owner: { type: 'user' } },
      { ...first, version: 0 },
      { ...first, version: Number.MAX_SAFE_INTEGER },
      { ...first, digest: `$bcrypt-sha256$2b$22$${'a'.repeat(53)}` },
    ]
    const text = [header, first, ...bad, second, { ...footer, count: 14 }]
      .map((line) => (typeof line === 'string' ? line : JSON.stringify(line)))
      .join('\n')
    const { code, stdout, stderr } = await read(text)
    expect({ code, stdout }).toEqual({ code: 1, stdout: 'Imported 2 keys; 12 lines are not keys.\n' })
    expect(stderr.split('\n').filter((line) => /^line \d+: /.test(line))).toHaveLength(12)
    expect(stderr).not.toContain('acme_secret')
    expect(await all(target)).toHaveLength(2)
  })

  it('says that an empty file was cut off', async () => {
    expect(await read('')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('the file is empty'),
    })
  })

  it('says that a file was cut off', async () => {
    await fill(5)
    const text = await exported()
    for (const cut of [
      text.slice(0, -30),
      text.split('\n').slice(0, -2).join('\n'),
      text.replace('"count":5', '"count":6'),
    ]) {
      expect(await read(cut)).toMatchObject({ code: 1, stderr: expect.stringContaining('it was cut off') })
    }
  })

  it('refuses a file of a later release', async () => {
    expect(await read('{"latchkey":"keys","version":2}')).toMatchObject({ code: 2, stdout: '' })
    expect(await read('{"latchkey":"keys","version":1}', '--format', 'bcrypt')).toMatchObject({
      code: 2,
      stdout: '',
    })
    expect(await run('import', 'nowhere.jsonl')).toMatchObject({ code: 2, stdout: '' })
    expect(await run('import', '.')).toMatchObject({ code: 2, stdout: '' })
  })

  it('ends between batches when it is interrupted', async () => {
    await fill(5)
    const text = await exported()
    const ended = await cli.run(['import', '--store', OTHER], {
      ...withOther(),
      stdin: text,
      signal: AbortSignal.abort(),
    })
    expect(ended).toMatchObject({ code: 130, stdout: '', stderr: 'latchkey: interrupted\n' })
    expect(await all(target)).toEqual([])
  })
})

describe('import of other rows', () => {
  const rows = (count: number) =>
    [...Array(count).keys()].map((n) => ({
      format: 'legacy',
      key: `legacy-${String(n).padStart(20, '0')}`,
      owner: { type: 'user', id: 'u_1' },
      name: `row ${n}`,
      createdAt: '2026-01-01T00:00:00.000Z',
    }))

  beforeEach(() => {
    writeFileSync(
      join(cli.folder, 'latchkey.config.mjs'),
      `const lookup = (key) => (/^legacy-\\d{20}$/.test(key) ? key.slice(7) : null)
       const read = ({ token, user }) => ({ format: 'rows', key: token, owner: { type: 'user', id: user }, name: 'Row' })
       export default { formats: [{ name: 'legacy', lookup }, { name: 'rows', lookup, read }] }`,
    )
  })

  const read = (lines: readonly unknown[], ...words: string[]) =>
    cli.run(['import', ...words], { stdin: lines.map((line) => JSON.stringify(line)).join('\n\n') })

  it('names the line of what cannot be imported', async () => {
    const [first, second] = rows(2)
    const { code, stdout, stderr } = await read([
      first,
      { ...second, key: 'x' },
      { ...second, format: 'unknown' },
      second,
    ])
    expect({ code, stdout }).toEqual({ code: 1, stdout: 'Imported 2 keys; 2 lines are not keys.\n' })
    expect(stderr.match(/^line \d+/gm)).toEqual(['line 3', 'line 5'])
    expect(await read(rows(1), '--format', 'unknown')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('(it has legacy, rows)'),
    })
  })

  it('imports once, however often it is run', async () => {
    expect(await read(rows(10))).toMatchObject({ code: 0, stdout: 'Imported 10 keys.\n' })
    expect(await read(rows(12))).toMatchObject({
      code: 0,
      stdout: 'Imported 2 keys; 10 were there already.\n',
    })
    const { stdout } = await cli.run(['verify', '--json'], { stdin: `legacy-${'0'.repeat(20)}` })
    expect(JSON.parse(stdout)).toMatchObject({
      ok: true,
      apiKey: { name: 'row 0', createdAt: '2026-01-01T00:00:00.000Z' },
    })
  })

  it('reads rows through a format', async () => {
    const row = { token: `legacy-${'9'.repeat(20)}`, user: 'u_7' }
    expect(await read([row], '--format', 'rows', '--by', 'ops')).toMatchObject({
      code: 0,
      stdout: 'Imported 1 keys.\n',
    })
    expect((await all(source)).map(({ lookup, owner }) => [lookup, owner.id])).toEqual([
      [`rows:${'9'.repeat(20)}`, 'u_7'],
    ])
  })
})

describe('move', () => {
  it('refuses a store that is the same, unmigrated, or not there', async () => {
    expect(await run('move', '--to', 'env:LATCHKEY_STORE')).toMatchObject({
      code: 2,
      stderr: 'latchkey: both are the same store\n',
    })
    expect(await run('move', '--to', 'new')).toMatchObject({ code: 2, stdout: '' })
    const env = { ...cli.env, EMPTY: `sqlite:${join(cli.folder, 'empty.db')}` }
    expect(await cli.run(['move', '--to', 'env:EMPTY'], { env })).toMatchObject({ code: 5, stdout: '' })
    writeFileSync(join(cli.folder, 'empty.db'), '')
    expect(await cli.run(['move', '--to', 'env:EMPTY'], { env })).toMatchObject({ code: 5, stdout: '' })
  })

  it('copies all keys, and has nothing to do when it is repeated', async () => {
    await fill(2_500)
    await source.insert([FULL])
    expect(await json('move', '--to', OTHER)).toMatchObject({ copied: 2_501, complete: true })
    expect(await all(target)).toEqual(await all(source))
    expect(await json('move', '--to', OTHER)).toMatchObject({
      copied: 0,
      renewed: 0,
      same: 2_501,
      complete: true,
    })
  })

  it('goes on where it was interrupted', async () => {
    await fill(2_500)
    await target.insert((await all(source)).slice(0, 1_234))
    const interrupted = await cli.run(['move', '--to', OTHER], {
      ...withOther(),
      signal: AbortSignal.abort(),
    })
    expect(interrupted.code).toBe(130)
    expect(await json('move', '--to', OTHER)).toMatchObject({ copied: 1_266, same: 1_234, complete: true })
    expect(await all(target)).toEqual(await all(source))
  })

  it('brings over what has changed since: settings, revocations, versions, uses, quotas, digests, new keys', async () => {
    await fill(6)
    await source.insert([{ ...FULL, revokedAt: null, revokedBy: null, revokedReason: null }])
    await json('move', '--to', OTHER)
    await source.update('k0', 1, {
      updatedAt: at(2_000),
      name: 'Renamed',
      permissions: {},
      expiresAt: at(9_000_000),
    })
    await source.update('k0', 2, { updatedAt: at(2_001), enabled: false })
    await source.update('k1', 1, {
      updatedAt: at(2_002),
      revokedAt: at(2_002),
      revokedBy: 'ops',
      revokedReason: 'leaked',
    })
    await source.update('k2', 1, { updatedAt: at(2_003), quota: { remaining: 7 } })
    await source.recordUsage([{ id: 'k3', count: 5, lastUsedAt: at(3_000), lastUsedIp: '192.0.2.9' }])
    await source.replaceDigest('k4', '$sha256$k4', '$sha256$anew')
    const quota = FULL.quota as NonNullable<KeyRecord['quota']>
    await source.swapQuota('full', quota, { ...quota, remaining: 1, allotted: 7 })
    await source.forget('full', 4, { createdBy: null, updatedAt: at(2_004) })
    await source.insert([record({ id: 'late', createdAt: at(5_000) })])
    expect(await json('move', '--to', OTHER)).toMatchObject({
      copied: 1,
      renewed: 6,
      same: 1,
      complete: true,
    })
    const [moved, wanted] = [await all(target), await all(source)]
    // A quota that was given since begins its epoch anew, by the same moment.
    expect(moved).toEqual(wanted)
    expect(await json('move', '--to', OTHER)).toMatchObject({
      copied: 0,
      renewed: 0,
      same: 8,
      complete: true,
    })
  })

  it('never goes back: what is newer there, differs, or is only there, is named and left alone', async () => {
    await fill(4)
    await json('move', '--to', OTHER)
    await target.update('k0', 1, { updatedAt: at(2_000), name: 'Newer' })
    await target.update('k1', 1, { updatedAt: at(2_000), name: 'There' })
    await source.update('k1', 1, { updatedAt: at(2_000), name: 'Here' })
    await target.update('k3', 1, { updatedAt: at(2_000), revokedAt: at(2_000) })
    await source.update('k3', 1, { updatedAt: at(2_000), name: 'x' })
    await source.update('k3', 2, { updatedAt: at(2_000), name: 'y' })
    await target.recordUsage([{ id: 'k2', count: 5, lastUsedAt: at(3_000), lastUsedIp: null }])
    await target.insert([
      record({ id: 'only', createdAt: at(0) }),
      record({ id: 'zzz', createdAt: at(9_999) }),
    ])
    const before = await all(target)
    const { code, stderr, stdout } = await run('move', '--to', OTHER)
    expect(code).toBe(1)
    expect(stdout).toMatch(/2 differ, 1 are newer there, 2 are only there\.\n$/)
    expect(stderr.match(/^\w+(?=:)/gm)?.sort()).toEqual(['k0', 'k1', 'k3', 'only', 'zzz'])
    expect(await all(target)).toEqual(before)
  })

  it('takes along what servers agree on, and refuses a store whose servers agree on something else', async () => {
    const peppers = [{ id: '2026', secret: 'p'.repeat(32) }]
    const keys = createApiKeys({ store: source, rateLimiter: memoryRateLimiter(), prefix: 'acme', peppers })
    await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
    await keys.close()
    await source.agree('rateLimiter', { value: 'keyPrefix "ours"', replace: false })
    expect(await run('move', '--to', OTHER)).toMatchObject({ code: 0 })
    for (const name of ['pepper:2026', 'rateLimiter']) {
      expect(await target.agree(name, null)).toBe(await source.agree(name, null))
    }
    expect(await target.agree('pepper:2026', null)).not.toBeNull()
    await target.agree('pepper:2026', { value: 'another', replace: true })
    expect(await run('move', '--to', OTHER)).toMatchObject({
      code: 5,
      stderr: expect.stringContaining('agree on another pepper 2026'),
    })
  })
})
