import { PassThrough, Writable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { confirm, readKey } from '../../lib/cli/ask.ts'
import { escapeText, toSafeJson } from '../../lib/cli/escape-text.ts'
import type { CliIo } from '../../lib/cli/io.ts'
import { maskSecrets } from '../../lib/cli/mask-secrets.ts'
import { Output } from '../../lib/cli/output.ts'
import { describeProgress, formatCount, startProgress } from '../../lib/cli/progress.ts'
import { renderTable } from '../../lib/cli/table.ts'

const plain = { width: Infinity, paintTitle: (title: string) => title }

describe('escaping', () => {
  it.each([
    ['a colour', '\u001b[31m', '\\u{1b}[31m'],
    ['a control of eight bits', '\u009b31m', '\\u{9b}31m'],
    ['a line break', 'a\nb\r', 'a\\nb\\u{d}'],
    ['a change of direction', 'a\u202eb\u2066', 'a\\u{202e}b\\u{2066}'],
    ['what cannot be seen', 'a\u200bb\ufeff', 'a\\u{200b}b\\u{feff}'],
    ['a tag', '\u{e0041}', '\\u{e0041}'],
    ['half of a character', '\ud800', '\\u{d800}'],
    ['letters of any language', 'Ünï 日本 👍 ', 'Ünï 日本 👍 '],
  ])('shows %s', (_what, text, shown) => {
    expect(escapeText(text)).toBe(shown)
  })

  it('keeps the meaning of JSON', () => {
    const value = { name: 'a\u001b\u009b\u202e\u{e0041}\u2028"\\ü' }
    const json = toSafeJson(value, 2)
    for (const hidden of '\u001b\u009b\u202e\u{e0041}\u2028') expect(json).not.toContain(hidden)
    expect(JSON.parse(json)).toEqual(value)
    expect(json.split('\n')).toHaveLength(3)
  })
})

describe('masking', () => {
  it.each([
    ['postgres://app:secret@db/app', 'postgres://app:***@db/app'],
    ['redis://:secret@db', 'redis://:***@db'],
    ['no host postgres://app:se@cr:et@db:5432/app?x=1', 'no host postgres://app:***@db:5432/app?x=1'],
    ['mysql://db/app?user=a&password=secret&ssl=1', 'mysql://db/app?user=a&password=***&ssl=1'],
    ['postgres://app@db/app', 'postgres://app@db/app'],
  ])('hides the password in %s', (text, masked) => {
    expect(maskSecrets(text)).toBe(masked)
  })

  it('hides a known password wherever it stands, and the text of a key', () => {
    expect(maskSecrets('login failed for hunter2', ['hunter2'])).toBe('login failed for ***')
    const key = 'acme_0000000000000000_0000000000000000000000000000000000000000000'
    expect(maskSecrets(`${'x'.repeat(10_000)} ${key}000000`)).not.toContain(key)
  })
})

describe('a table', () => {
  const columns = [
    { title: 'ID' },
    { title: 'NAME', mayShrink: true },
    { title: 'N', align: 'right' as const },
  ]

  it('lines up wide characters, and cuts none in half', () => {
    expect(
      renderTable(
        columns,
        [
          ['1', '日本', '7'],
          ['22', 'abc', '10'],
        ],
        plain,
      ),
    ).toBe(['ID  NAME   N', '1   日本   7', '22  abc   10'].join('\n'))
  })

  it('fits a terminal', () => {
    const rows = [['1', 'a rather long name 日本語 of a key', '7']]
    expect(renderTable(columns, rows, { ...plain, width: 20 }).split('\n')).toEqual([
      'ID  NAME           N',
      '1   a rather lon…  7',
    ])
    expect(renderTable(columns, rows, plain)).toContain('日本語 of a key')
  })
})

describe('progress', () => {
  it('has an end in sight where the total is known', () => {
    expect(describeProgress('Exporting', 420_000, 1_000_000, 20, formatCount)).toBe(
      'Exporting  420,000 of 1,000,000  42 %  21,000/s  28 s left',
    )
    expect(describeProgress('Importing', 5, null, 0, formatCount)).toBe('Importing  5')
    expect(describeProgress('Moving', 1, 601, 1, formatCount)).toBe(
      'Moving  1 of 601  0 %  1/s  10 min 0 s left',
    )
  })

  it('is silent but on a terminal, and makes room for what is said', () => {
    for (const isTTY of [false, true]) {
      const { io, shown } = fakeIo({ isTTY })
      const output = new Output(io, false)
      const progress = startProgress(io, output, 'Moving', 10)
      progress.update(5)
      output.note('a note')
      progress.end()
      const CLEAR = '\r\u001b[2K'
      const [, line = '', rest] = shown().split(CLEAR)
      if (!isTTY) expect(shown()).toBe('a note\n')
      else expect([line.slice(0, 16), rest]).toEqual(['Moving  5 of 10 ', 'a note\n'])
    }
  })
})

describe('asking', () => {
  it.each([
    ['y\n', true],
    ['Yes\n', true],
    ['n\n', false],
    ['\n', false],
    ['yesterday\n', false],
  ])('takes %j for %s', async (typed, expected) => {
    const { io, stdin } = fakeIo({ isTTY: true })
    const answer = confirm(io, 'Really?', false)
    stdin.write(typed)
    expect(await answer).toBe(expected)
  })

  it('ends when it is interrupted, or nobody is there any more', async () => {
    const controller = new AbortController()
    const { io } = fakeIo({ isTTY: true, signal: controller.signal })
    const answer = confirm(io, 'Really?', false)
    controller.abort()
    await expect(answer).rejects.toThrow('interrupted')
    const gone = fakeIo({ isTTY: true })
    const unanswered = confirm(gone.io, 'Really?', false)
    gone.stdin.end()
    await expect(unanswered).rejects.toThrow('interrupted')
  })

  it('shows no key that is typed', async () => {
    const { io, stdin, shown } = fakeIo({ isTTY: true })
    const key = readKey(io)
    stdin.write('acme_typed\n')
    expect(await key).toBe('acme_typed')
    expect(shown()).toBe('Key: \n')
  })
})

function fakeIo({ isTTY, signal = new AbortController().signal }: { isTTY: boolean; signal?: AbortSignal }) {
  let text = ''
  const screen = () =>
    Object.assign(
      new Writable({
        write(chunk, _encoding, done) {
          text += chunk
          done()
        },
      }),
      { isTTY, columns: 80 },
    )
  const stdin = Object.assign(new PassThrough(), { isTTY })
  const io: CliIo = {
    stdin,
    stdout: screen(),
    stderr: screen(),
    env: {},
    cwd: '.',
    signal,
    isOutputLost: false,
  }
  return { io, stdin, shown: () => text }
}
