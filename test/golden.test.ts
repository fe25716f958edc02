import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { memoryStore } from 'latchkey'
import { migrate, migrationSql, type SqlStore, sqliteStore } from 'latchkey/sql'
import Libsql from 'libsql'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  changeBehaviour,
  findBehaviourChanges,
  readBehaviour,
  readBehaviourBefore,
  readBehaviourChanges,
} from './support/golden/behaviour.ts'
import { probeDefaults } from './support/golden/probe-defaults.ts'
import { probeHttp } from './support/golden/probe-http.ts'
import { readDocumentedOptions, readErrorCodes } from './support/golden/read-documented.ts'
import {
  answersToday,
  type FrozenKeys,
  frozenFile,
  frozenReleases,
  readChanged,
  readChangedTexts,
  readFrozen,
  toRecord,
  withChangedTexts,
} from './support/golden/releases.ts'
import { type GoldenStore, testGoldenKeys } from './support/golden/store-cases.ts'

const releases = frozenReleases()
const latest = releases.at(-1) as string
const changelog = readFileSync(new URL('../CHANGELOG.md', import.meta.url), 'utf8')

describe('the frozen releases', () => {
  it('are all that the changelog names', () => {
    const released = [...changelog.matchAll(/^## (\d+\.\d+\.\d+)\b/gm)].map(([, version]) => version)
    expect(released.length).toBeGreaterThan(0)
    expect(released.filter((version) => !releases.includes(version as string))).toEqual([])
  })

  it.each(releases)('store no row twice that is as it was before: %s', (release) => {
    const changes = findBehaviourChanges(readBehaviourBefore(release), readBehaviour(release))
    expect(readBehaviourChanges(release)).toEqual(changes)
  })

  it('are read with the rows that earlier ones store, without those that are gone', () => {
    const before = { options: { kept: null, changed: 1, gone: null }, errors: { gone: 1 } }
    const after = { options: { kept: null, changed: 2, new: null }, http: { new: {} } }
    const changes = findBehaviourChanges(before, after)
    expect(changes).toEqual({
      rows: { options: { changed: 2, new: null }, http: { new: {} } },
      removed: { options: ['gone'], errors: ['gone'] },
    })
    expect(changeBehaviour(before, changes)).toEqual(after)
  })

  it('hold every scheme of digests that was ever written', () => {
    const digests = releases
      .flatMap((release) => readFrozen<FrozenKeys>(release, 'keys.json').records)
      .map((record) => record.digest as string)
    const schemes = [...new Set(digests.map((digest) => digest.split('$')[1]))].sort()
    expect(schemes).toEqual([
      'bcrypt',
      'bcrypt-sha256',
      'bcrypt-sha256:after-last=2e',
      'bcrypt:after-first=2e',
      'bcrypt:after-last=2e',
      'hmac-sha256',
      'hmac-sha256:after-first=7c',
      'sha256',
      'sha256:after-first=7c',
      'sha256:after-last=5f',
      'sha512',
      'sha512:after-last=5f',
    ])
  })
})

describe.each(releases)('the keys of release %s', (release) => {
  const frozen = readFrozen<FrozenKeys>(release, 'keys.json')

  describe('from its JSON', () => {
    testGoldenKeys(frozen, async () => {
      const store = memoryStore()
      await store.insert(frozen.records.map(toRecord))
      return { store, close: async () => {} }
    })
  })

  const database = frozenFile(release, 'keys.sqlite')
  // The first release had no store that lasts.
  if (database === null) return
  describe('from its SQLite database, upgraded', () => {
    testGoldenKeys(frozen, () => upgradeCopy(database))
  })
})

describe.each(releases.filter((release) => frozenFile(release, 'keys.sqlite')))(
  'the database of release %s',
  (release) => {
    const file = frozenFile(release, 'keys.sqlite') as string

    it('is one file', () => {
      expect(['-wal', '-shm', '-journal'].filter((end) => existsSync(file + end))).toEqual([])
    })

    it('is upgraded once', async () => {
      const { store, close } = await upgradeCopy(file)
      const before = await store.list({}, { limit: 1_000 })
      expect(await migrate(store)).toMatchObject({ applied: [] })
      expect(await store.list({}, { limit: 1_000 })).toEqual(before)
      await close()
    })

    it('is upgraded to the tables that a new one has', async () => {
      const upgraded = await upgradeCopy(file)
      const made = await upgradeCopy(null)
      expect(schemaOf(upgraded.file)).toEqual(schemaOf(made.file))
      await Promise.all([upgraded.close(), made.close()])
    })
  },
)

describe.each(releases.filter((release) => frozenFile(release, 'schema')))(
  'the schema of release %s',
  (release) => {
    it.each(['postgres', 'mysql', 'mariadb', 'sqlite'] as const)('of %s is only added to', (dialect) => {
      const file = frozenFile(release, `schema/${dialect}.sql`) as string
      const frozen = readFileSync(file, 'utf8')
      expect(migrationSql(dialect).slice(0, frozen.length)).toBe(frozen)
    })
  },
)

describe('what was promised', () => {
  const today: Record<string, Readonly<Record<string, unknown>>> = {}

  // Compilers are slow where much else runs.
  beforeAll(async () => {
    today.options = readDocumentedOptions()
    today.errors = readErrorCodes()
    today.defaults = await probeDefaults(latest)
    today.http = await probeHttp(latest)
  }, 180_000)

  describe.each(releases)('by release %s', (release) => {
    // What it has left as it was, the release before has promised.
    const frozen = readBehaviourChanges(release).rows
    const changed = readChanged(release)
    const texts = readChangedTexts(release)
    const rows = Object.entries(frozen).flatMap(([section, promises]) =>
      Object.entries(promises).map(([row, promised]) => ({
        section,
        row,
        promised: withChangedTexts(promised, texts),
      })),
    )
    const answers = readFrozen<FrozenKeys>(release, 'keys.json').keys.flatMap((key) =>
      key.answers.map(({ answer }, i) => ({
        row: `${key.title}, answer ${i + 1}`,
        promised: answer,
        now: answersToday(release, key)[i],
      })),
    )
    const isChanged = ({ section, row }: { section: string; row: string }) =>
      changed.some((change) => change.section === section && change.row === row)

    it.each(rows.filter((row) => !isChanged(row)))('holds: $section, $row', ({ section, row, promised }) => {
      expect(Object.keys(today[section] ?? {})).toContain(row)
      expect(reduceTo(promised, today[section]?.[row])).toEqual(promised)
    })

    it.each(texts)('was said in other words on purpose: $was', (text) => {
      expect(withChangedTexts(frozen, [text]), 'a text that was there').not.toEqual(frozen)
      expect(changelog.replace(/\s+/g, ' ')).toContain(text.changelog)
    })

    const changedAnswers = changed.filter(({ section }) => section === 'keys')
    it.each(changedAnswers)('was changed on purpose: $section, $row', ({ row, changelog: line }) => {
      const answer = answers.find((other) => other.row === row)
      expect(answer, 'an answer that was given').toBeDefined()
      expect(answer?.now, 'not what was answered').not.toEqual(answer?.promised)
      expect(changelog.replace(/\s+/g, ' ')).toContain(line)
    })

    const changedRows = changed.filter(({ section }) => section !== 'keys')
    it.each(changedRows)(
      'was changed on purpose: $section, $row',
      ({ section, row, now, changelog: line }) => {
        const promised = rows.find((other) => other.section === section && other.row === row)
        expect(promised, 'a row that was promised').toBeDefined()
        expect(now, 'not what was promised').not.toEqual(promised?.promised)
        expect(today[section]?.[row]).toEqual(now)
        expect(changelog.replace(/\s+/g, ' ')).toContain(line)
      },
    )
  })
})

/** Of `value` what `promised` speaks of: further members are additions, which are allowed; further entries are not. */
function reduceTo(promised: unknown, value: unknown): unknown {
  if (Array.isArray(promised) && Array.isArray(value)) {
    return value.map((entry, i) => reduceTo(promised[i], entry))
  }
  if (!isObject(promised) || !isObject(value)) return value
  const kept = Object.keys(promised).filter((member) => member in value)
  return Object.fromEntries(kept.map((member) => [member, reduceTo(promised[member], value[member])]))
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A copy of a frozen database, or a new one, after `migrate`. */
async function upgradeCopy(from: string | null): Promise<GoldenStore & { store: SqlStore; file: string }> {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-golden-'))
  const file = join(folder, 'keys.sqlite')
  if (from !== null) copyFileSync(from, file)
  const store = sqliteStore(file)
  await migrate(store)
  return {
    store,
    file,
    async close() {
      await store.close()
      rmSync(folder, { recursive: true })
    },
  }
}

/** Every table, index and column, whatever the order of columns: a migration adds to the end. */
function schemaOf(file: string): unknown {
  const database = new Libsql(file)
  try {
    const parts = database.prepare('select type, name, tbl_name from sqlite_schema order by 1, 2').all()
    const columns = database.prepare(
      `select tables.name as "table", columns.name, columns.type, columns."notnull", columns.pk
      from sqlite_schema as tables, pragma_table_info(tables.name) as columns
      where tables.type = 'table' order by 1, 2`,
    )
    return { parts, columns: columns.all() }
  } finally {
    database.close()
  }
}
