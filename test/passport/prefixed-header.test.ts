import { type HeaderAPIKeyConfig, HeaderAPIKeyStrategy } from 'latchkey/passport'
import { describe, expect, it } from 'vitest'
import { type MadeRequest, makeRequest } from '../support/made-request.ts'

/** What a strategy reads in a request: the keys that it asks about, and what it fails with. */
function read(config: HeaderAPIKeyConfig, request: MadeRequest) {
  const asked: string[] = []
  const failures: unknown[] = []
  const strategy = new HeaderAPIKeyStrategy(config, false, (key, done) => {
    asked.push(key)
    done(null, { key })
  })
  const actions = {
    success() {},
    fail: (challenge: unknown, status?: number) =>
      void failures.push(challenge instanceof Error ? challenge.message : (status ?? challenge)),
    error: (error: unknown) => void failures.push(error),
  }
  Object.assign(Object.create(strategy), actions).authenticate(request)
  return { asked, failures }
}

const key = (text: string) => ({ asked: [text], failures: [] })
const MISSING = { asked: [], failures: ['Missing API Key'] }
const SEVERAL = { asked: [], failures: [400] }
const malformed = (message: string) => ({ asked: [], failures: [message] })

describe('a header that is there for keys alone', () => {
  const config = { header: 'X-Key' }
  const bad = malformed('Invalid API Key in the header x-key')

  it.each<[string, [string, string][], object]>([
    [
      'two keys',
      [
        ['X-Key', 'one'],
        ['x-key', 'two'],
      ],
      SEVERAL,
    ],
    [
      'a key twice',
      [
        ['X-Key', 'one'],
        ['X-Key', 'one'],
      ],
      SEVERAL,
    ],
    [
      'a malformed key and another',
      [
        ['X-Key', 'ö'],
        ['X-Key', 'one'],
      ],
      SEVERAL,
    ],
    ['keys that a proxy has joined', [['X-Key', 'one, two']], SEVERAL],
    ['keys that were joined with a tab', [['X-Key', 'one,\ttwo']], SEVERAL],
    ['a comma in a key', [['X-Key', 'one,two']], key('one,two')],
    [
      'an empty line behind a key',
      [
        ['X-Key', 'one'],
        ['X-Key', ''],
      ],
      key('one'),
    ],
    [
      'an empty line before a key',
      [
        ['X-Key', ' \t '],
        ['X-Key', 'one'],
      ],
      key('one'),
    ],
    ['nothing but blanks', [['X-Key', ' \t ']], MISSING],
    ['blanks around a key', [['X-Key', ' \tone two\t ']], key('one two')],
    ['a beginning that is not ASCII', [['X-Key', 'öne']], bad],
    ['an end that is not ASCII', [['X-Key', 'onö']], bad],
    ['a control character', [['X-Key', 'o\x7fe']], bad],
    ['512 characters', [['X-Key', 'x'.repeat(512)]], key('x'.repeat(512))],
    ['513 characters', [['X-Key', 'x'.repeat(513)]], bad],
    [
      'a field whose name is as long',
      [
        ['X-Kez', 'two'],
        ['X-Key', 'one'],
      ],
      key('one'),
    ],
    ['a field with another name only', [['X-Kez', 'two']], MISSING],
  ])('reads %s', (_what, lines, expected) => {
    expect(read(config, makeRequest(...lines))).toEqual(expected)
  })

  it('reads what a middleware has put in the place of the one line that was sent', () => {
    expect(read(config, { headers: { 'x-key': 'put' }, rawHeaders: ['X-Key', 'sent'] })).toEqual(key('put'))
  })

  it('reads what a middleware has put where nothing was sent', () => {
    expect(read(config, { headers: { 'x-key': 'put' }, rawHeaders: ['Host', 'a'] })).toEqual(key('put'))
  })

  it('reads nothing once a middleware has taken it away', () => {
    const rawHeaders = ['X-Key', 'one', 'X-Key', 'two']
    expect(read(config, { headers: {}, rawHeaders })).toEqual(MISSING)
    expect(read(config, { headers: { 'X-KEY': 'one' }, rawHeaders })).toEqual(MISSING)
  })

  it('counts a field that came twice as what a middleware has put in its place', () => {
    const rawHeaders = ['X-Key', 'one', 'X-Key', 'two']
    expect(read(config, { headers: { 'x-key': 'put' }, rawHeaders })).toEqual(key('put'))
    expect(read(config, { headers: { 'x-key': 'one' }, rawHeaders })).toEqual(SEVERAL)
    expect(read(config, { headers: { 'x-key': '[two]' }, rawHeaders })).toEqual(SEVERAL)
    expect(read(config, { headers: { 'x-key': ['put', 'put'] }, rawHeaders })).toEqual(SEVERAL)
  })

  it('takes what is no text for a malformed key', () => {
    for (const put of [5, {}, true, Buffer.from('one')]) {
      expect(read(config, { headers: { 'x-key': put }, rawHeaders: ['X-Key', 'one'] })).toEqual(bad)
    }
  })

  it('looks at names in any case only in requests that no server made', () => {
    expect(read(config, { headers: { 'X-KEY': 'one' } })).toEqual(key('one'))
    expect(read(config, { headers: { Host: 'a', 'X-KEY': ['one'] } })).toEqual(key('one'))
    expect(read(config, { headers: { Host: 'a' } })).toEqual(MISSING)
  })
})

describe('a prefix', () => {
  const value = (text: string): MadeRequest => makeRequest(['X-Key', text])
  const refused = (prefix: string) =>
    malformed(`Invalid API Key, or no "${prefix}" before it, in the header x-key`)

  it.each<[string, string, string, object | null]>([
    ['a scheme in any case', 'Key ', 'KEY one', key('one')],
    ['a scheme and several blanks', 'Key ', 'Key \t one', key('one')],
    ['a scheme and a tab', 'Key ', 'Key\tone', key('one')],
    ['a scheme written with several blanks', 'Key   ', 'key one', key('one')],
    ['a scheme alone', 'Key ', 'key', MISSING],
    ['nothing where a scheme is asked for', 'Key ', '', MISSING],
    ['nothing where a text is asked for', 'key_', ' \t', MISSING],
    ['a scheme that only begins so', 'Key ', 'Keyone', null],
    ['a scheme that only begins so and has blanks', 'Key ', 'Keys one ', null],
    ['another scheme', 'Key ', 'Bearer one', null],
    ['none where a scheme is asked for', 'Key ', 'one', null],
    ['a scheme of 64 characters in any case', `${'k'.repeat(64)} `, `${'K'.repeat(64)} one`, key('one')],
    ['a longer one literally', `${'k'.repeat(65)} `, `${'K'.repeat(65)} one`, null],
    ['a text literally', 'key_', 'key_one', key('one')],
    ['a text in another case', 'key_', 'KEY_one', null],
    ['a text and blanks', 'key_', 'key_ one', key('one')],
    ['a text alone', 'key_', 'key_', MISSING],
    ['a text that ends in a blank', 'key: ', 'key: one', key('one')],
    ['such a text alone', 'key: ', 'key:', MISSING],
    ['such a text without its blank', 'key: ', 'key:one', null],
    ['two words', 'my key ', 'my key one', key('one')],
    ['the last of two words', 'my key ', 'key one', null],
    ['two words in another case', 'my key ', 'MY KEY one', null],
    ['a scheme with more behind it', 'key x', 'key one', null],
    ['a text that is there in the middle', 'key_', 'my_key_one', null],
  ])('reads %s', (_what, prefix, text, expected) => {
    expect(read({ header: 'X-Key', prefix }, value(text))).toEqual(expected ?? refused(prefix))
  })

  it.each(['Authorization', 'Proxy-Authorization'])('lets other schemes pass by in %s', (header) => {
    const config = { header, prefix: 'Key ' }
    expect(read(config, makeRequest([header, 'Bearer one']))).toEqual(MISSING)
    expect(read(config, makeRequest([header, 'Key one']))).toEqual(key('one'))
    expect(read(config, makeRequest([header, 'Bearer one'], [header, 'Key two']))).toEqual(key('two'))
    expect(read(config, makeRequest([header, 'Key one'], [header, 'Key two']))).toEqual(SEVERAL)
  })
})
