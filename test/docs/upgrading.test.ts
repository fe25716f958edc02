import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { codeIn, readTable } from '../support/markdown.ts'

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
