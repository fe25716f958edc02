import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { migrate, sqliteStore } from 'latchkey/sql'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { killAfterwards } from '../support/cleaner.ts'
import { record } from '../support/key-records.ts'
import { type Consumer, type PackedPackage, packPackage } from '../support/packed-package.ts'

/** The command as it is installed, in a folder with a SQLite file of 100,000 keys. */
let packed: PackedPackage
let consumer: Consumer
let bin: string

const KEYS = 100_000

beforeAll(async () => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
  consumer = packed.createConsumer(['libsql'])
  bin = join(consumer.folder, 'node_modules/latchkey/dist/bin.mjs')
  const store = sqliteStore(join(consumer.folder, 'keys.db'))
  await migrate(store)
  for (let from = 0; from < KEYS; from += 5_000) {
    await store.insert(
      [...Array(5_000).keys()].map((n) =>
        record({ id: `k${from + n}`, createdAt: new Date(1_768_000_000_000 + from + n) }),
      ),
    )
  }
  await store.close()
})

afterAll(() => packed?.remove())

/** Nothing of what the test runner sets for itself. */
const environment = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  PATH: process.env.PATH,
  HOME: process.env.HOME,
  TERM: 'xterm',
  LATCHKEY_STORE: 'sqlite:keys.db',
  LATCHKEY_PREFIX: 'acme',
  ...more,
})

/** Runs a line of the shell, in which `latchkey` is the command. */
function shell(line: string, env?: NodeJS.ProcessEnv) {
  const { status, stdout, stderr } = spawnSync(
    'bash',
    ['-c', `latchkey() { "${process.execPath}" "${bin}" "$@"; }; ${line}`],
    {
      cwd: consumer.folder,
      env: environment(env),
      encoding: 'utf8',
      input: '',
    },
  )
  return { status, stdout, stderr }
}

it('fails, and says so, where nothing it waits for will ever answer', () => {
  consumer.write('latchkey.config.mjs', 'export default () => new Promise(() => {})')
  const { status, stdout, stderr } = shell('latchkey list')
  rmSync(join(consumer.folder, 'latchkey.config.mjs'))
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toBe('latchkey: the command could not finish: something that it waited for never answered\n')
})

interface Terminal {
  /** Resolves when this is on the screen. */
  see(pattern: RegExp): Promise<string>
  type(text: string): void
  ended(): Promise<{ code: number | null; screen: string }>
}

/** Runs the command in a terminal of 80 columns. */
function terminal(words: string, env?: NodeJS.ProcessEnv): Terminal {
  const child: ChildProcess = spawn(
    'script',
    ['-qec', `stty cols 80; "${process.execPath}" "${bin}" ${words}`, '/dev/null'],
    {
      cwd: consumer.folder,
      env: environment(env),
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  )
  killAfterwards(child)
  const end = once(child, 'close')
  let screen = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    screen += text
  })
  return {
    async see(pattern) {
      while (!pattern.test(screen)) {
        const next = await Promise.race([
          once(child.stdout as NodeJS.ReadableStream, 'data'),
          end.then(() => null),
        ])
        if (next === null && !pattern.test(screen)) throw new Error(`it ended without ${pattern}: ${screen}`)
      }
      return screen
    },
    type: (text) => void child.stdin?.write(text),
    async ended() {
      const [code] = await end
      return { code, screen }
    },
  }
}

describe('in a pipe', () => {
  it('is a program', () => {
    expect(consumer.read('dist/bin.mjs')).toMatch(/^#!\/usr\/bin\/env node\n/)
    expect(packed.files.filter((file) => /dist\/bin\./.test(file))).toEqual(['dist/bin.mjs'])
    expect(shell('latchkey --version')).toMatchObject({ status: 0, stderr: '' })
  })

  it('makes no key where standard output is closed, or goes nowhere', () => {
    const issue = 'latchkey issue --owner user:closed --name CI'
    for (const line of [`${issue} >&-`, `${issue} > /dev/null`]) {
      expect(shell(line)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining('standard output goes nowhere'),
      })
    }
    expect(JSON.parse(shell('latchkey list --owner user:closed --json').stdout).apiKeys).toEqual([])
  })

  it('revokes a key that a full disk does not take', () => {
    const { status, stderr } = shell('latchkey issue --owner user:full --name CI > /dev/full')
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(
        /^latchkey: standard output cannot be written \(.*ENOSPC.*\): the new key \w+ is lost, and was revoked\n$/,
      ),
    })
    expect(JSON.parse(shell('latchkey list --owner user:full --json').stdout).apiKeys).toMatchObject([
      { status: 'revoked' },
    ])
  })

  it('reports a full disk, and leaves no export behind', () => {
    const { status, stderr } = shell('latchkey export > /dev/full')
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/^latchkey: .*ENOSPC.*\n$/),
    })
    const small = shell('ulimit -f 100; latchkey export small.jsonl')
    expect(small).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^latchkey: small\.jsonl cannot be written: .*\n$/),
    })
    expect(readdirSync(consumer.folder).filter((name) => name.includes('small'))).toEqual([])
  })

  it('goes quietly when its reader does', () => {
    const { status, stdout, stderr } = shell('set -o pipefail; latchkey list --all --json | head -1')
    expect({ status, stdout, stderr }).toEqual({ status: 141, stdout: '{"apiKeys":[\n', stderr: '' })
  })

  it('exports, imports and moves more keys than would fit into its memory', () => {
    const little = { NODE_OPTIONS: '--max-old-space-size=96' }
    expect(shell('latchkey export all.jsonl', little)).toMatchObject({ status: 0, stderr: '' })
    const other = { ...little, LATCHKEY_STORE: 'sqlite:copy.db' }
    expect(shell('latchkey migrate', other)).toMatchObject({ status: 0 })
    const imported = shell('head -60000 all.jsonl | latchkey import --json', other)
    expect(JSON.parse(imported.stdout)).toEqual({ imported: 59_999, skipped: 0, different: 0, invalid: 0 })
    const moved = shell('latchkey move --to env:COPY --json', { ...little, COPY: 'sqlite:copy.db' })
    expect(moved).toMatchObject({ status: 0, stderr: '' })
    expect(JSON.parse(moved.stdout)).toMatchObject({ same: 59_999, complete: true })
    const again = shell('latchkey import all.jsonl --json', other)
    expect(JSON.parse(again.stdout)).toMatchObject({ imported: 0, different: 0, invalid: 0 })
  })

  it('ends with 130 on a signal, in the middle of long work', async () => {
    const child = spawn(process.execPath, [bin, 'export'], { cwd: consumer.folder, env: environment() })
    killAfterwards(child)
    const end = once(child, 'exit')
    // It waits for its reader before it has written everything.
    await once(child.stdout, 'readable')
    child.kill('SIGINT')
    await new Promise((resolve) => setTimeout(resolve, 100))
    let text = ''
    for await (const chunk of child.stdout.setEncoding('utf8')) text += chunk
    expect(await end).toEqual([130, null])
    expect(text).not.toContain('"end":true')
    expect(text.split('\n').length).toBeLessThan(KEYS)
  })

  it('reads a configuration in TypeScript, or says what to do', () => {
    writeFileSync(
      join(consumer.folder, 'latchkey.config.ts'),
      `import { defineConfig } from 'latchkey/cli'\nconst prefix: string = 'typed'\nexport default defineConfig({ store: 'sqlite:keys.db', prefix })\n`,
    )
    try {
      const { status, stdout, stderr } = shell('latchkey secret-scanning')
      if ('typescript' in process.features && process.features.typescript)
        expect({ status, stderr, stdout }).toMatchObject({ status: 0, stderr: '', stdout: /typed/ })
      else {
        expect({ status, stderr }).toEqual({
          status: 2,
          stderr: expect.stringMatching(
            /^latchkey: Node \S+ does not read latchkey\.config\.ts: run Node 22\.18 or later/,
          ),
        })
      }
    } finally {
      spawnSync('rm', [join(consumer.folder, 'latchkey.config.ts')])
    }
  })
})

describe('in a terminal', () => {
  it('has tables in colour that fit, unless no colour is asked for', async () => {
    const { code, screen } = await terminal('list --limit 3').ended()
    expect(code).toBe(0)
    expect(screen).toContain('\u001b[32mactive\u001b[39m')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the colours.
    const lines = screen.replaceAll(/\u001b\[\d+m/g, '').split('\r\n')
    expect(Math.max(...lines.slice(0, 4).map((line) => line.length))).toBeLessThanOrEqual(90)
    expect((await terminal('list --limit 3', { NO_COLOR: '1' }).ended()).screen).not.toContain('\u001b[3')
  })

  it('asks before it revokes many', async () => {
    shell('latchkey issue --owner user:asked --name CI --quiet | cat')
    const refused = terminal('revoke --owner user:asked')
    await refused.see(/Revoke 1 keys of user:asked for good\? \[y\/N\] /)
    refused.type('n\r')
    expect(await refused.ended()).toMatchObject({
      code: 1,
      screen: expect.stringContaining('nothing was revoked'),
    })
    const interrupted = terminal('revoke --owner user:asked')
    await interrupted.see(/\[y\/N\] /)
    interrupted.type('\u0003')
    expect((await interrupted.ended()).code).toBe(130)
    const agreed = terminal('revoke --owner user:asked')
    await agreed.see(/\[y\/N\] /)
    agreed.type('y\r')
    expect(await agreed.ended()).toMatchObject({
      code: 0,
      screen: expect.stringContaining('Revoked 1 keys.'),
    })
  })

  it('does not show a key that is typed', async () => {
    const { stdout } = shell('latchkey issue --owner user:typed --name CI --quiet | cat')
    const verifying = terminal('verify')
    await verifying.see(/Key: /)
    verifying.type(`${stdout.trim()}\r`)
    const { code, screen } = await verifying.ended()
    expect(code).toBe(0)
    expect(screen).toContain('The key is valid.')
    expect(screen).not.toContain(stdout.trim().slice(-43))
  })

  it('shows progress, and stops at Ctrl-C with nothing left behind', async () => {
    const exporting = terminal('export progress.jsonl')
    await exporting.see(/Exporting {2}[\d,]+ of 100,0\d\d {2}\d+ %/)
    exporting.type('\u0003')
    expect((await exporting.ended()).code).toBe(130)
    expect(readdirSync(consumer.folder).filter((name) => name.includes('progress'))).toEqual([])
    const { code, screen } = await terminal('export progress.jsonl').ended()
    expect(code).toBe(0)
    expect(screen).toMatch(/\/s {2}.* left/)
    expect(existsSync(join(consumer.folder, 'progress.jsonl'))).toBe(true)
  })
})
