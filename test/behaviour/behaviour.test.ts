import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Adapter, AdapterName } from './adapters/adapter.ts'
import { ADAPTERS, TRIED } from './adapters/index.ts'
import { DIFFERENCES } from './differences.ts'
import { renderPage } from './render-page.ts'
import type { Outcome, Row } from './row.ts'
import { SECTIONS } from './rows/index.ts'
import { BAD_KEYS } from './rows/verifying.ts'
import { runRow } from './run-row.ts'

const PAGE = new URL('../../docs/behaviour.md', import.meta.url)
const ROWS = SECTIONS.flatMap(({ rows }) => rows)

const REASONS = [
  'malformed',
  'prefix_not_accepted',
  'unknown',
  'wrong_secret',
  'revoked',
  'disabled',
  'expired',
  'idle',
  'owner_inactive',
  'no_user',
]

/** What was answered so far. */
const answers = new Map(ROWS.map((row) => [row, new Map<AdapterName, Outcome[]>()]))

describe.each(TRIED.map((adapter) => [adapter.name, adapter] as const))('%s', (_name, adapter) => {
  it.each(ROWS.map((row) => [row.title, row] as const))('%s', async (_title, row) => {
    const outcomes = await runRow(row, adapter)
    answers.get(row)?.set(adapter.name, outcomes)
    expect(outcomes).toEqual(expected(row, adapter))
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

  it.each(TRIED.map((adapter) => [adapter.name, adapter] as const))(
    'has one answer for every kind of bad key, to the byte: %s',
    async (_name, adapter) => {
      const texts = new Map<string, string>()
      for (const row of BAD_KEYS.filter(({ app }) => !app?.reads?.realm)) {
        for (const { status, fields, body, events } of await answerOf(row, adapter)) {
          texts.set(events.join(), JSON.stringify([status, Object.entries(fields).sort(), body]))
        }
      }
      expect([...texts.keys()]).toEqual(
        expect.arrayContaining(REASONS.map((reason) => `key.refused invalid_key ${reason}`)),
      )
      expect(new Set(texts.values()).size).toBe(1)
    },
  )

  it('is what docs/behaviour.md shows', { timeout: 120_000 }, async () => {
    for (const row of ROWS) for (const adapter of ADAPTERS) await answerOf(row, adapter)
    const page = renderPage(SECTIONS, answers)
    if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page)
    expect(readFileSync(PAGE, 'utf8')).toBe(page)
  })
})

/** What was answered, or is now where a filter has left it out; what is expected of those that another run tries. */
async function answerOf(row: Row, adapter: Adapter): Promise<Outcome[]> {
  const byAdapter = answers.get(row)
  const ask = () => (TRIED.includes(adapter) ? runRow(row, adapter) : expected(row, adapter))
  const outcomes = byAdapter?.get(adapter.name) ?? (await ask())
  byAdapter?.set(adapter.name, outcomes)
  return outcomes
}

function expected({ steps }: Row, { name }: Adapter): Outcome[] {
  const differences = DIFFERENCES.filter(({ adapters }) => adapters.includes(name))
  return steps.map((step) =>
    differences.reduce((outcome, { change }) => change(outcome) ?? outcome, step.expect),
  )
}
