import { readFileSync } from 'node:fs'
import { migrate, type SqlStore } from 'latchkey/sql'
import Libsql from 'libsql'
import { describe, expect, it } from 'vitest'
import { type FrozenKeys, frozenFile, frozenReleases, readFrozen } from '../support/golden/releases.ts'
import { type GoldenStore, testGoldenKeys } from '../support/golden/store-cases.ts'
import { createMariadb, createPostgres, type TestDatabase } from '../support/sql-databases.ts'

interface Dialect {
  readonly name: 'postgres' | 'mariadb'
  create(): Promise<TestDatabase>
  /** A text, byte by byte: quoting is not what is tried here. */
  text(hex: string): string
  quote(name: string): string
}

const DIALECTS: readonly Dialect[] = [
  {
    name: 'postgres',
    create: createPostgres,
    text: (hex) => `convert_from('\\x${hex}'::bytea, 'UTF8')`,
    quote: (name) => `"${name}"`,
  },
  {
    name: 'mariadb',
    create: createMariadb,
    text: (hex) => `convert(x'${hex}' using utf8mb4)`,
    quote: (name) => `\`${name}\``,
  },
]
const FLAGS = ['enabled', 'removed']

const releases = frozenReleases().filter((release) => frozenFile(release, 'schema/postgres.sql'))

describe.each(releases)('a database by the schema of release %s', (release) => {
  const frozen = readFrozen<FrozenKeys>(release, 'keys.json')

  describe.each(DIALECTS)('of $name, upgraded', (dialect) => {
    testGoldenKeys(frozen, () => upgrade(dialect, release))

    it('is upgraded once', async () => {
      const { store, close } = await upgrade(dialect, release)
      expect(await migrate(store)).toMatchObject({ applied: [] })
      await close()
    })
  })
})

/** Tables made by the frozen SQL, with the rows of the frozen SQLite database as they are, after `migrate`. */
async function upgrade(dialect: Dialect, release: string): Promise<GoldenStore & { store: SqlStore }> {
  const database = await dialect.create()
  const schema = readFileSync(frozenFile(release, `schema/${dialect.name}.sql`) as string, 'utf8')
  for (const statement of schema.split(/;$/m).filter((text) => /\S/.test(text)))
    await database.query(statement)
  for (const [table, rows] of frozenRows(release)) {
    for (const row of rows) await database.query(insertOf(dialect, table, row))
  }
  const store = database.open()
  await migrate(store)
  return { store, close: () => database.remove() }
}

type Row = Record<string, string | number | null>

function frozenRows(release: string): [table: string, rows: Row[]][] {
  const database = new Libsql(frozenFile(release, 'keys.sqlite') as string, { readonly: true })
  try {
    return ['latchkey_keys', 'latchkey_keys_quotas'].map((table) => [
      table,
      database.prepare(`select * from ${table}`).all() as Row[],
    ])
  } finally {
    database.close()
  }
}

function insertOf({ text, quote }: Dialect, table: string, row: Row): string {
  const literal = ([column, value]: [string, Row[string]]) => {
    if (typeof value === 'string') return text(Buffer.from(value).toString('hex'))
    return FLAGS.includes(column) ? String(value === 1) : String(value)
  }
  const columns = Object.keys(row).map(quote)
  return `insert into ${quote(table)} (${columns}) values (${Object.entries(row).map(literal)})`
}
