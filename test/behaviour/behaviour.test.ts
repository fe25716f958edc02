import { describe, expect, it } from 'vitest'
import type { Adapter } from './adapters/adapter.ts'
import { ADAPTERS } from './adapters/index.ts'
import { DIFFERENCES } from './differences.ts'
import type { Outcome, Row } from './row.ts'
import { SECTIONS } from './rows/index.ts'
import { runRow } from './run-row.ts'

const ROWS = SECTIONS.flatMap(({ rows }) => rows)

describe.each(ADAPTERS.map((adapter) => [adapter.name, adapter] as const))('%s', (_name, adapter) => {
  it.each(ROWS.map((row) => [row.title, row] as const))('%s', async (_title, row) => {
    expect(await runRow(row, adapter)).toEqual(expected(row, adapter))
  })
})

describe('the table', () => {
  it('has a title for every row', () => {
    const titles = ROWS.map(({ title }) => title)
    expect(new Set(titles).size).toBe(titles.length)
  })

  it.each(
    DIFFERENCES.flatMap(({ name, adapters, change }) =>
      adapters.map((adapter) => [name, adapter, change] as const),
    ),
  )('needs the difference "%s" of %s', (_name, _adapter, change) => {
    expect(ROWS.some(({ steps }) => steps.some((step) => change(step.expect)))).toBe(true)
  })
})

function expected({ steps }: Row, { name }: Adapter): Outcome[] {
  return steps.map((step) =>
    DIFFERENCES.filter(({ adapters }) => adapters.includes(name)).reduce(
      (outcome, { change }) => change(outcome) ?? outcome,
      step.expect,
    ),
  )
}
