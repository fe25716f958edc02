import { readFileSync } from 'node:fs'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { expect, it, vi } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { codeIn, readTable } from '../support/markdown.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/upgrading.md', import.meta.url), 'utf8')

it('names what names became', () => {
  const types = readPublicTypes('latchkey')
  const known = [...types.names(), ...types.members('ApiKeyVerifier').map(({ name }) => name)]
  const renamed = readTable(page, 'name in 0.2').map((cells) => cells.flatMap(codeIn))
  expect(renamed.length).toBeGreaterThan(2)
  expect(
    renamed.filter(([before = '', after = '']) => known.includes(before) || !known.includes(after)),
  ).toEqual([])
})

it.each(readTable(page, 'option in 0.2').map((cells) => cells.flatMap(codeIn)))(
  'says what became of an option, which names it too: %s → %s',
  (before = '', after = '') => {
    const create = (option: string) =>
      createApiKeys({
        ...{ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' },
        ...new Function(`return { ${option} }`)(),
      })
    const word = /maxEntries|false/.exec(after)?.[0]
    expect(word).toBeDefined()
    expect(() => create(before)).toThrow(word)
    expect(() => create(after)).not.toThrow()
  },
)
