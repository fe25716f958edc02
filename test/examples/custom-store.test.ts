import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import knex from 'knex'
import { storeConformance } from 'latchkey/testing'
import { afterAll, beforeAll, describe, expect, inject, it, test } from 'vitest'
import { knexStore } from '../../examples/custom-store/knex-store.ts'
import { createTables } from '../../examples/custom-store/tables.ts'

const schema = `custom_store_${randomUUID().replaceAll('-', '')}`
const db = knex({
  client: 'pg',
  connection: inject('postgresUrl'),
  searchPath: [schema],
  pool: { min: 0, max: 10 },
})

beforeAll(async () => {
  await db.raw('create schema ??', [schema])
  await createTables(db)
})
afterAll(async () => {
  await db.raw('drop schema ?? cascade', [schema])
  await db.destroy()
})

storeConformance({ test, assert, without: ['addUsage'] }, async () => {
  await db.raw('truncate api_keys, api_key_lineages, api_key_agreements')
  return knexStore(db)
})

describe('the example', () => {
  const source = readFileSync(new URL('../../examples/custom-store/knex-store.ts', import.meta.url), 'utf8')

  it('has fewer than 140 lines of code', () => {
    const lines = source.split('\n').filter((line) => !/^\s*($|\/\/|\/\*\*|\*)/.test(line))
    expect(lines.length).toBeGreaterThan(50)
    expect(lines.length).toBeLessThan(140)
  })

  it('has an index for whatever it finds by', async () => {
    const [store, names] = [knexStore(db), ['api_keys_of_owner', 'api_keys_of_lineage', 'api_keys_in_order']]
    const used = async (run: () => Promise<unknown>) => {
      const queries: { sql: string; bindings: readonly unknown[] }[] = []
      const note = (query: (typeof queries)[number]) => void queries.push(query)
      db.on('query', note)
      await run()
      db.off('query', note)
      const [{ sql, bindings } = { sql: '', bindings: [] }] = queries
      return db.transaction(async (trx) => {
        // With so few rows the planner would read them all.
        await trx.raw('set local enable_seqscan = off')
        const plan = await trx.raw(`explain ${sql.replace(/\$\d+/g, '?')}`, [...bindings] as string[])
        return JSON.stringify(plan.rows)
      })
    }
    const page = { limit: 10 }
    expect(await used(() => store.find({ id: 'a' }))).toContain('api_keys_pkey')
    expect(await used(() => store.find({ lookups: ['a', 'b'] }))).toContain('api_keys_lookup_key')
    expect(await used(() => store.list({ owners: [{ type: 'user', id: 'u' }] }, page))).toContain(names[0])
    expect(await used(() => store.list({ lineageId: 'l' }, page))).toContain(names[1])
    expect(await used(() => store.list({}, page))).toContain(names[2])
  })
})
