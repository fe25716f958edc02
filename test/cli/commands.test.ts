import { beforeAll, describe, expect, it } from 'vitest'
import { brokenOutput, type CliFolder, cliFolder } from '../support/run-cli.ts'

const ID = /^[0-9A-Za-z]{16}$/
const KEY = /^acme_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}$/

let cli: CliFolder
let owners = 0

beforeAll(async () => {
  cli = await cliFolder()
})

/** An owner of its own for each test. */
const newOwner = () => `user:u_${++owners}`

const issue = (owner: string, ...more: string[]) =>
  cli.json(['issue', '--owner', owner, '--name', 'CI', ...more])

describe('issue', () => {
  it('needs an owner and a name, and makes nothing without them', async () => {
    const { code, stdout, stderr } = await cli.run(['issue', '--owner', newOwner()])
    expect({ code, stdout, stderr }).toEqual({
      code: 2,
      stdout: '',
      stderr: "latchkey: required option '--name <name>' not specified\n",
    })
    expect(await cli.run(['issue', '--owner', 'u_1', '--name', 'CI'])).toMatchObject({
      code: 2,
      stderr: 'latchkey: --owner takes a type and an id, such as user:u_1\n',
    })
  })

  it('asks for a prefix where none is configured', async () => {
    const { LATCHKEY_STORE } = cli.env
    const words = ['issue', '--owner', newOwner(), '--name', 'CI']
    expect(await cli.run(words, { env: { LATCHKEY_STORE } })).toMatchObject({ code: 2, stdout: '' })
    const { code, stdout } = await cli.run([...words, '--prefix', 'other', '--quiet'], {
      env: { LATCHKEY_STORE },
    })
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringMatching(/^other_\w+\n$/) })
  })

  it.each(['EPIPE', 'ENOSPC'] as const)('revokes a key that cannot be written: %s', async (fault) => {
    const owner = newOwner()
    const { code, stderr } = await cli.run(['issue', '--owner', owner, '--name', 'CI'], {
      stdout: brokenOutput(fault),
    })
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^latchkey: standard output cannot be written .* the new key \w{16} is lost, and was revoked\n$/,
    )
    const { apiKeys } = await cli.json(['list', '--owner', owner])
    expect(apiKeys).toMatchObject([{ status: 'revoked', revokedReason: 'its text could not be written' }])
  })

  it('makes no key that nobody would see', async () => {
    const owner = newOwner()
    const issued = await cli.run(['issue', '--owner', owner, '--name', 'CI'], { isOutputLost: true })
    expect(issued).toMatchObject({ code: 2, stderr: expect.stringContaining('standard output goes nowhere') })
    expect((await cli.json(['list', '--owner', owner])).apiKeys).toEqual([])
  })

  it('prints the key and nothing else with --quiet', async () => {
    const words = ['issue', '--owner', newOwner(), '--name', 'CI', '--quiet']
    expect(await cli.run(words)).toEqual({
      code: 0,
      stderr: '',
      stdout: expect.stringMatching(/^acme_\w+\n$/),
    })
  })

  it('sets what its options say', async () => {
    const owner = newOwner()
    const before = Date.now()
    const { key, apiKey } = await issue(
      owner,
      ...[
        '--permissions',
        'projects:read,write',
        '--permissions',
        'projects:delete',
        '--permissions',
        'a:b:c',
      ],
      ...['--rate-limit', 'minute=100/1m', '--rate-limit', 'daily=1000/day', '--quota', '5000/month'],
      ...[
        '--allow-ip',
        '192.0.2.0/24',
        '--allow-ip',
        '2001:db8::/32',
        '--expires',
        '90d',
        '--idle-expiry',
        '30d',
      ],
      ...['--metadata', '{"team":"blue"}', '--by', 'ops'],
    )
    expect(key).toMatch(KEY)
    expect(apiKey).toMatchObject({
      owner: { type: 'user', id: owner.slice(5) },
      createdBy: 'ops',
      permissions: { projects: ['read', 'write', 'delete'], 'a:b': ['c'] },
      rateLimits: [
        { name: 'minute', limit: 100, windowMs: 60_000 },
        { name: 'daily', limit: 1_000, per: 'day' },
      ],
      quota: { remaining: 5_000, refill: { amount: 5_000, per: 'month', timeZone: 'UTC' } },
      allowedIps: ['192.0.2.0/24', '2001:db8::/32'],
      idleExpiryMs: 30 * 86_400_000,
      metadata: { team: 'blue' },
    })
    expect(Date.parse(apiKey.expiresAt) - before - 90 * 86_400_000).toBeLessThan(60_000)
  })

  it('shows a person the key, and what it may do', async () => {
    const { code, stdout, stderr } = await cli.run(['issue', '--owner', newOwner(), '--name', 'CI'])
    expect(code).toBe(0)
    const [key = '', empty, ...card] = stdout.trimEnd().split('\n')
    expect(key).toMatch(KEY)
    expect(empty).toBe('')
    expect(card.join('\n')).toMatch(/^id {11}\w{16}\nname {9}CI\nowner {8}user:u_\d+\nstatus {7}active\n/)
    expect(stderr).toBe('This is the only time that the key can be read.\n')
  })
})

describe('list', () => {
  it('refuses what no filter takes', async () => {
    expect(await cli.run(['list', '--status', 'gone'])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: 'latchkey: --status takes active, disabled, expired or revoked\n',
    })
    expect(await cli.run(['list', '--cursor', 'nonsense'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['list', '--limit', '1001'])).toMatchObject({ code: 2, stdout: '' })
  })

  it('says so where there is none', async () => {
    expect(await cli.run(['list', '--owner', newOwner()])).toEqual({
      code: 0,
      stdout: '',
      stderr: 'no keys\n',
    })
    expect(await cli.json(['list', '--owner', newOwner(), '--all'])).toEqual({ apiKeys: [] })
  })

  it('shows page by page, or all, in one document', async () => {
    const owner = newOwner()
    const ids: string[] = []
    for (let i = 0; i < 3; i += 1) ids.push((await issue(owner)).apiKey.id)
    const words = ['list', '--owner', owner, '--limit', '2']
    const first = await cli.json(words)
    const second = await cli.json([...words, '--cursor', first.nextCursor])
    expect([...first.apiKeys, ...second.apiKeys].map(({ id }) => id)).toEqual(ids)
    expect(second).not.toHaveProperty('nextCursor')
    const all = await cli.json(['list', '--owner', owner, '--all', '--order', 'newest'])
    expect(all.apiKeys.map(({ id }: { id: string }) => id)).toEqual([...ids].reverse())
    const shown = await cli.run(words)
    expect(shown.stdout.split('\n')).toHaveLength(4)
    expect(shown.stderr).toBe(`there are more: --cursor ${first.nextCursor}, or --all\n`)
  })

  it('escapes what would move the cursor of a terminal, or hide a part of a name', async () => {
    const owner = newOwner()
    const name = 'a\u001b[2Jb\u202ec\nd\u009be'
    await cli.json(['issue', '--owner', owner, '--name', name])
    const { stdout } = await cli.run(['list', '--owner', owner])
    expect(stdout).toContain('a\\u{1b}[2Jb\\u{202e}c\\nd\\u{9b}e')
    const raw = await cli.run(['list', '--owner', owner, '--json'])
    for (const hidden of '\u001b\u202e\u009b') expect(raw.stdout).not.toContain(hidden)
    expect(JSON.parse(raw.stdout).apiKeys[0].name).toBe(name)
  })

  it('goes quietly when its reader has gone', async () => {
    expect(await cli.run(['list', '--all'], { stdout: brokenOutput('EPIPE') })).toMatchObject({
      code: 141,
      stderr: '',
    })
    expect(await cli.run(['list'], { stdout: brokenOutput('ENOSPC') })).toMatchObject({
      code: 1,
      stderr: 'latchkey: standard output cannot be written: ENOSPC: no space left on device, write\n',
    })
  })
})

describe('show', () => {
  it('exits with 3 for an id that is nobody’s', async () => {
    expect(await cli.run(['show', 'A'.repeat(16)])).toEqual({
      code: 3,
      stdout: '',
      stderr: 'latchkey: There is no such API key\n',
    })
    expect(await cli.json(['show', 'A'.repeat(16)])).toEqual({
      error: { code: 'not_found', message: 'There is no such API key' },
    })
  })

  it('shows a key with everything that is set on it', async () => {
    const { apiKey } = await issue(newOwner(), '--quota', '10', '--metadata', '{"team":"\\u001b[31m"}')
    const { code, stdout } = await cli.run(['show', apiKey.id])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^quota {8}10 left$/m)
    expect(stdout).toContain('metadata     {"team":"\\u001b[31m"}')
    // Without a shared limiter, this process knows nothing of what servers count.
    expect(await cli.json(['show', apiKey.id])).toEqual({ apiKey, limits: null })
  })
})

describe('explain', () => {
  it('says which step refuses a key, and exits with 4', async () => {
    const { key, apiKey } = await issue(
      newOwner(),
      '--permissions',
      'projects:read',
      '--allow-ip',
      '192.0.2.1',
    )
    const words = ['explain', apiKey.id, '--ip', '192.0.2.1', '--permissions', 'projects:write']
    const { code, stdout } = await cli.run(words)
    expect(code).toBe(4)
    expect(stdout).toMatch(/^The key would be refused: insufficient_permissions\n\nSTEP +OUTCOME +FOUND\n/)
    expect(stdout).toMatch(/^permissions +refused /m)
    expect(await cli.json(['explain'], { stdin: key })).toMatchObject({ outcome: 'address_not_allowed' })
    expect(await cli.run(['explain'], { stdin: 'nonsense' })).toMatchObject({
      code: 4,
      stdout: expect.stringContaining('refused: invalid_key, malformed'),
    })
    expect(await cli.run(['explain', apiKey.id, '--cost', 'much'])).toMatchObject({ code: 2, stdout: '' })
  })

  it('spends nothing for a key that would be admitted', async () => {
    const { key, apiKey } = await issue(newOwner(), '--quota', '3')
    const { code, stdout } = await cli.run(['explain', '--cost', '2'], { stdin: key })
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^The key would be admitted\.\n/),
    })
    expect((await cli.json(['show', apiKey.id])).apiKey).toMatchObject({
      usageCount: 0,
      quota: { remaining: 3 },
    })
  })
})

describe('usage', () => {
  it('needs to know whose, and when', async () => {
    expect(await cli.run(['usage'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['usage', 'a', '--owner', 'user:u_1'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['usage', 'a', '--by', 'week'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['usage', 'a', '--from', 'then'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['usage', 'a', '--time-zone', 'Mars'])).toMatchObject({ code: 2, stdout: '' })
  })

  it('shows what was counted, for a key and for its owner', async () => {
    const owner = newOwner()
    const { key, apiKey } = await issue(owner, '--quota', '5')
    for (const stdin of [key, key]) await cli.run(['verify', '--charge', '2'], { stdin })
    await cli.run(['verify', '--charge', '4'], { stdin: key })
    for (const words of [[apiKey.id], ['--owner', owner]]) {
      const report = await cli.json(['usage', ...words, '--from', '1h', '--by', 'hour'])
      expect(report.total).toMatchObject({
        admitted: 2,
        refused: 1,
        refusedBy: { quota_exceeded: 1 },
        units: { quota: 4 },
      })
      const { stdout } = await cli.run(['usage', ...words, '--time-zone', 'Europe/Berlin'])
      const [head, day, total, ...rest] = stdout.split('\n')
      expect(head).toMatch(/^DAY \(Europe\/Berlin\) +ADMITTED +REFUSED +REFUSED BY +UNITS$/)
      expect(day).toMatch(/^\d{4}-\d\d-\d\d +2 +1 +quota_exceeded 1 +quota 4$/)
      expect([total?.slice(0, 5), rest]).toEqual(['total', ['']])
      const shifted = await cli.run(['usage', ...words, '--by', 'hour', '--time-zone', '+05:30'])
      expect(shifted).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:30 +2 /m),
      })
    }
  })
})

describe('update, enable and disable', () => {
  it('change nothing without a setting, or of another version', async () => {
    const { apiKey } = await issue(newOwner())
    expect(await cli.run(['update', apiKey.id])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['update', apiKey.id, '--name', 'x', '--expected-version', '7'])).toMatchObject({
      code: 6,
    })
    expect(await cli.run(['disable', apiKey.id, '--expected-version', '7'])).toMatchObject({ code: 6 })
    expect(await cli.run(['enable', 'A'.repeat(16)])).toMatchObject({ code: 3 })
    expect((await cli.json(['show', apiKey.id])).apiKey).toEqual(apiKey)
  })

  it('refuse a value that keys cannot have', async () => {
    const { apiKey } = await issue(newOwner())
    const run = (...words: string[]) => cli.run(['update', apiKey.id, ...words])
    expect(await run('--allow-ip', '300.1.1.1')).toMatchObject({ code: 2 })
    expect(await run('--expires', '2020-01-01')).toMatchObject({
      code: 2,
      stderr: 'latchkey: "expiresAt" must be in the future\n',
    })
    expect(await run('--metadata', '{')).toMatchObject({
      code: 2,
      stderr: 'latchkey: --metadata takes valid JSON\n',
    })
  })

  it('set, and take away again', async () => {
    const { apiKey } = await issue(newOwner(), '--expires', '90d', '--allow-ip', '192.0.2.1', '--quota', '5')
    const updated = await cli.json([
      ...[
        'update',
        apiKey.id,
        '--name',
        'Deploy',
        '--expires',
        'never',
        '--allow-ip',
        'any',
        '--quota',
        'unlimited',
      ],
      ...['--rate-limit', 'none', '--permissions', 'none'],
    ])
    expect(updated.apiKey).toMatchObject({
      name: 'Deploy',
      expiresAt: null,
      allowedIps: null,
      quota: null,
      rateLimits: [],
      permissions: {},
      version: 2,
    })
    expect((await cli.json(['disable', apiKey.id, '--by', 'ops'])).apiKey.status).toBe('disabled')
    expect((await cli.json(['enable', apiKey.id])).apiKey.status).toBe('active')
  })
})

describe('revoke', () => {
  it('needs to know which', async () => {
    expect(await cli.run(['revoke'])).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['revoke', 'A'.repeat(16), '--owner', 'user:u_1'])).toMatchObject({
      code: 2,
      stdout: '',
    })
    expect(await cli.run(['revoke', 'A'.repeat(16)])).toMatchObject({ code: 3, stdout: '' })
  })

  it('asks before it revokes many, and does nothing where nobody can answer', async () => {
    const owner = newOwner()
    await issue(owner)
    expect(await cli.run(['revoke', '--owner', owner])).toMatchObject({
      code: 2,
      stderr: `latchkey: Revoke 1 keys of ${owner} for good? Without a terminal to ask on, add --yes.\n`,
    })
    expect((await cli.json(['list', '--owner', owner])).apiKeys[0].status).toBe('active')
  })

  it('says by when servers notice, where no Redis is named', async () => {
    const { apiKey } = await issue(newOwner())
    const before = Date.now()
    const { code, stdout } = await cli.run(['revoke', apiKey.id, '--reason', 'leaked', '--by', 'ops'])
    expect(code).toBe(0)
    const [, by = ''] =
      /^Revoked \w{16}\. In effect by (\S+Z): no Redis is named, and servers hold a key for up to 5000 ms/.exec(
        stdout,
      ) ?? []
    expect(Date.parse(by)).toBeGreaterThanOrEqual(before + 5_000)
    expect(Date.parse(by)).toBeLessThan(Date.now() + 5_000)
    const { apiKey: shown } = await cli.json(['show', apiKey.id])
    expect(shown).toMatchObject({ status: 'revoked', revokedReason: 'leaked', revokedBy: 'ops' })
  })

  it('revokes all of an owner, or of an issuer', async () => {
    const [owner, other] = [newOwner(), newOwner()]
    for (const one of [owner, owner, other]) await issue(one, '--by', `who-${owner}`)
    expect(await cli.json(['revoke', '--owner', owner, '--yes'])).toMatchObject({ revoked: 2 })
    expect(await cli.json(['revoke', '--created-by', `who-${owner}`, '--yes'])).toMatchObject({ revoked: 1 })
    const { apiKeys } = await cli.json(['list', '--created-by', `who-${owner}`])
    expect(apiKeys.map(({ status }: { status: string }) => status)).toEqual(['revoked', 'revoked', 'revoked'])
  })
})

describe('rotate', () => {
  it('refuses a revoked key with 6', async () => {
    const { apiKey } = await issue(newOwner())
    await cli.run(['revoke', apiKey.id])
    expect(await cli.run(['rotate', apiKey.id])).toMatchObject({ code: 6, stdout: '' })
  })

  it('revokes a successor that cannot be written, and says how long the previous key works', async () => {
    const owner = newOwner()
    const { apiKey } = await issue(owner)
    const { code, stderr } = await cli.run(['rotate', apiKey.id], { stdout: brokenOutput('EPIPE') })
    expect(code).toBe(1)
    expect(stderr).toMatch(new RegExp(`was revoked; ${apiKey.id} works until \\S+ \\S+Z: issue another key`))
    const { apiKeys } = await cli.json(['list', '--owner', owner])
    expect(apiKeys.map(({ status }: { status: string }) => status)).toEqual(['active', 'revoked'])
  })

  it('leaves out what no call needed, if it is told to and knows', async () => {
    const { key, apiKey } = await issue(newOwner(), '--permissions', 'projects:read,write')
    const wrong = await cli.run(['rotate', apiKey.id, '--only-used', '0'])
    expect(wrong).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--only-used') })
    await cli.run(['verify', '--charge', '--permissions', 'projects:read'], { stdin: key })
    // Uses are known from the first full hour on, and this key is older.
    const unknown = await cli.run(['rotate', apiKey.id, '--only-used'])
    expect(unknown).toMatchObject({ code: 6, stderr: expect.stringContaining('Uses are known only since') })
    expect((await cli.json(['show', apiKey.id])).apiKey.rotatedTo).toBeNull()
  })

  it('replaces a key, which works for as long as it is told to', async () => {
    const { key, apiKey } = await issue(newOwner())
    const rotated = await cli.json(['rotate', apiKey.id, '--grace', '0s', '--expires', '30d'])
    expect(rotated).toMatchObject({ key: expect.stringMatching(KEY), previous: { id: apiKey.id } })
    expect(await cli.run(['verify'], { stdin: key })).toMatchObject({ code: 4 })
    expect(await cli.run(['verify'], { stdin: rotated.key })).toMatchObject({ code: 0 })
  })
})

describe('verify', () => {
  it('takes no key but the one on standard input', async () => {
    const { key } = await issue(newOwner())
    const typed = await cli.run(['verify', key])
    expect(typed).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('give it on standard input'),
    })
    expect(typed.stderr).not.toContain(key.slice(22))
    expect(await cli.run(['verify'])).toMatchObject({
      code: 2,
      stderr: 'latchkey: no key came on standard input\n',
    })
    expect(await cli.run(['verify'], { stdin: `${key}\n${key}\n` })).toMatchObject({ code: 2 })
    expect(await cli.run(['verify'], { stdin: 'x'.repeat(5_000) })).toMatchObject({ code: 2 })
  })

  it('exits with 4 for a key that is refused, and says why', async () => {
    const { key, apiKey } = await issue(
      newOwner(),
      '--allow-ip',
      '192.0.2.1',
      '--permissions',
      'projects:read',
    )
    const run = (...words: string[]) => cli.run(['verify', ...words], { stdin: `${key}\n` })
    expect(await run()).toMatchObject({
      code: 4,
      stdout: `Refused: address_not_allowed (key ${apiKey.id})\n`,
    })
    expect(await run('--ip', '192.0.2.1', '--permissions', 'projects:write')).toMatchObject({
      code: 4,
      stdout: `Refused: insufficient_permissions, missing projects:write (key ${apiKey.id})\n`,
    })
    expect(await run('--ip', '192.0.2.1', '--permissions', 'projects:read')).toMatchObject({ code: 0 })
    expect(await cli.run(['verify'], { stdin: 'nonsense' })).toMatchObject({
      code: 4,
      stdout: 'Refused: invalid_key, malformed\n',
    })
    const wrong = `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`
    expect(await cli.json(['verify'], { stdin: wrong })).toEqual({
      ok: false,
      code: 'invalid_key',
      reason: 'malformed',
    })
  })

  it('spends nothing, and counts no use, unless it is told to', async () => {
    const { key, apiKey } = await issue(newOwner(), '--quota', '3')
    await cli.json(['verify', '--permissions', 'projects:read'], { stdin: key })
    expect((await cli.json(['show', apiKey.id])).apiKey).toMatchObject({
      usageCount: 0,
      lastUsedAt: null,
      quota: { remaining: 3 },
    })
    expect((await cli.json(['usage', apiKey.id])).total).toMatchObject({ admitted: 0, refused: 0 })
    await cli.json(['verify', '--charge'], { stdin: key })
    await cli.json(['verify', '--charge', '2'], { stdin: key })
    expect((await cli.json(['show', apiKey.id])).apiKey).toMatchObject({
      usageCount: 2,
      quota: { remaining: 0 },
    })
    expect((await cli.json(['usage', apiKey.id])).total).toMatchObject({ admitted: 2, units: { quota: 3 } })
    expect(await cli.run(['verify', '--charge'], { stdin: key })).toMatchObject({
      code: 4,
      stdout: 'Refused: quota_exceeded, again in 5 s\n',
    })
  })
})

describe('erase', () => {
  it('needs --yes where nobody can answer', async () => {
    const owner = newOwner()
    await issue(owner)
    expect(await cli.run(['erase', '--owner', owner])).toMatchObject({ code: 2, stdout: '' })
    expect((await cli.json(['list', '--owner', owner])).apiKeys).toHaveLength(1)
  })

  it('removes the keys of an owner, and clears its name elsewhere', async () => {
    const [owner, other] = [newOwner(), newOwner()]
    await issue(owner)
    const { apiKey } = await issue(other, '--by', owner.slice(5))
    expect(await cli.json(['erase', '--owner', owner, '--yes'])).toMatchObject({ removed: 1, forgotten: 1 })
    expect((await cli.json(['list', '--owner', owner])).apiKeys).toEqual([])
    expect((await cli.json(['show', apiKey.id])).apiKey.createdBy).toBeNull()
  })

  it('leaves other keys alone with --no-known-as', async () => {
    const [owner, other] = [newOwner(), newOwner()]
    const { apiKey } = await issue(other, '--by', owner.slice(5))
    expect(await cli.json(['erase', '--owner', owner, '--no-known-as', '--yes'])).toMatchObject({
      removed: 0,
      forgotten: 0,
    })
    expect((await cli.json(['show', apiKey.id])).apiKey.createdBy).toBe(owner.slice(5))
  })
})

describe('migrate', () => {
  it('has nothing to do twice', async () => {
    expect(await cli.json(['migrate'])).toEqual({ applied: [] })
    expect((await cli.run(['migrate'])).stdout).toMatch(/^sqlite:.*keys\.db is up to date\.\n$/)
  })

  it('prints its SQL, and needs no store for that', async () => {
    const { code, stdout } = await cli.run(['migrate', '--print', 'postgres'], { env: {} })
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining('create table') })
    expect(await cli.run(['migrate', '--print', 'oracle'])).toMatchObject({ code: 2 })
  })
})

describe('secret-scanning', () => {
  it('asks for a prefix where none is configured', async () => {
    expect(await cli.run(['secret-scanning'], { env: {} })).toMatchObject({ code: 2, stdout: '' })
    expect(await cli.run(['secret-scanning', '--prefix', '-'], { env: {} })).toMatchObject({
      code: 2,
      stdout: '',
    })
  })

  it('prints what finds keys', async () => {
    const { stdout } = await cli.run(['secret-scanning'])
    const { key } = await issue(newOwner())
    expect(new RegExp(stdout.trim()).test(`token = "${key}"`)).toBe(true)
    const rule = await cli.run(['secret-scanning', '--prefix', 'acme_live', '--format', 'gitleaks'])
    expect(rule.stdout).toBe(
      [
        '[[rules]]',
        'id = "acme-live-api-key"',
        'description = "API key acme_live_…"',
        "regex = '''\\bacme_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\\b'''",
        'keywords = ["acme_live_"]',
        '',
      ].join('\n'),
    )
  })
})

it('writes ids as ids', async () => {
  expect((await issue(newOwner())).apiKey.id).toMatch(ID)
})
