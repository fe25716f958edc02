import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { KeyStore } from 'latchkey'
import { findBehaviourChanges, readBehaviourBefore } from './behaviour.ts'
import { makeGoldenKeys } from './make-keys.ts'
import { packRelease } from './pack-release.ts'
import { probeBehaviour } from './probe-behaviour.ts'
import { asJson, compareVersions, frozenReleases, GOLDEN_FOLDER } from './releases.ts'

/*
 * Freezes the release that this checkout is: `node --import tsx test/support/golden/freeze.ts [version]`. The version is
 * that of package.json where none is given. What is frozen already is never made again: its keys have to verify forever.
 */

const root = fileURLToPath(new URL('../../../', import.meta.url))
const version: string = process.argv[2] ?? JSON.parse(readFileSync(`${root}package.json`, 'utf8')).version
const folder = `${GOLDEN_FOLDER}${version}`
const later = frozenReleases().find((release) => compareVersions(release, version) > 0)

if (existsSync(folder)) {
  console.error(`test/golden/${version} is there already: what was released does not change.`)
  process.exitCode = 1
} else if (later !== undefined) {
  console.error(`test/golden/${later} holds what differs from the releases before it: freeze in their order.`)
  process.exitCode = 1
} else {
  mkdirSync(folder)
  try {
    await freeze()
    console.log(`test/golden/${version} is made. Look at it, run the tests, and commit it with the release.`)
  } catch (error) {
    rmSync(folder, { recursive: true })
    throw error
  }
}

async function freeze(): Promise<void> {
  // What is packed is this checkout, and not what was built of another.
  execFileSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  packRelease(root, `${folder}/package.tgz`)
  const hasSql = existsSync(`${root}lib/sql.ts`)
  writeJson('keys.json', hasSql ? await withSqlite(makeKeys) : await makeKeys())
  const behaviour = await probeBehaviour(version)
  const failed = Object.entries(behaviour.defaults ?? {}).filter(([, row]) =>
    Object.keys(row ?? {}).includes('failed'),
  )
  if (failed.length > 0) throw new Error(`these cannot be measured: ${JSON.stringify(failed)}`)
  const { rows, removed } = findBehaviourChanges(readBehaviourBefore(version), asJson(behaviour))
  writeJson('behaviour.json', rows)
  if (Object.keys(removed).length > 0) writeJson('removed.json', removed)
  if (hasSql) await writeSchemas()
  const isMade = /(?:^|\/)(?:data|node_modules)$/
  cpSync(`${root}examples/express`, `${folder}/example`, {
    recursive: true,
    filter: (path) => !isMade.test(path),
  })
  // It registers a user type, which must hold for this example alone.
  const config = { extends: '../../../../tsconfig.json', include: ['.'], exclude: [] }
  writeFileSync(`${folder}/example/tsconfig.json`, `${JSON.stringify(config, null, 2)}\n`)
}

function makeKeys(store?: KeyStore) {
  return makeGoldenKeys(version, store)
}

/** Makes the keys in `keys.sqlite`. A database that was opened outside keeps its rollback journal: no WAL is left beside it. */
async function withSqlite<T>(work: (store: KeyStore) => Promise<T>): Promise<T> {
  const [{ migrate, sqliteStore }, { default: Libsql }] = await Promise.all([
    import('latchkey/sql'),
    import('libsql'),
  ])
  const database = new Libsql(`${folder}/keys.sqlite`)
  const store = sqliteStore(database)
  await migrate(store)
  const result = await work(store)
  database.close()
  return result
}

/** The schema of every dialect, as teams that apply it themselves have it. */
async function writeSchemas(): Promise<void> {
  const { migrationSql } = await import('latchkey/sql')
  mkdirSync(`${folder}/schema`)
  for (const dialect of ['postgres', 'mysql', 'mariadb', 'sqlite'] as const) {
    writeFileSync(`${folder}/schema/${dialect}.sql`, migrationSql(dialect))
  }
}

function writeJson(file: string, value: unknown): void {
  writeFileSync(`${folder}/${file}`, `${JSON.stringify(value, null, 2)}\n`)
}
