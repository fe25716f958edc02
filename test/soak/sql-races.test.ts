import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { migrate } from 'latchkey/sql'
import { describe, expect, it, onTestFinished } from 'vitest'
import { killAfterwards } from '../support/cleaner.ts'
import { quota, record } from '../support/key-records.ts'
import type { RaceAnswer, RaceSettings } from '../support/race-worker.ts'
import { DATABASES } from '../support/sql-databases.ts'
import { runSqlWorkers } from '../support/sql-workers.ts'

const PROGRAM = fileURLToPath(new URL('../support/race-worker.ts', import.meta.url))
const PROCESSES = 4
const ATTEMPTS = 5
const VERSIONS = 50

describe.each(DATABASES)('%s', (name, create) => {
  it('lets exactly one of 20 updates from 4 processes change each version of a record', async () => {
    const database = await create()
    onTestFinished(() => database.remove())
    const store = database.open()
    await migrate(store)
    await store.insert([record({ id: 'raced' })])
    const settings = { url: database.url, id: 'raced', attempts: ATTEMPTS }
    const racers = Array.from({ length: PROCESSES }, (_, i) =>
      startRacer({ ...settings, name: `process ${i}` }),
    )
    await Promise.all(racers.map((racer) => racer.answer()))
    const winners = new Set<string>()
    for (let version = 1; version <= VERSIONS; version += 1) {
      const answers = Promise.all(racers.map((racer) => racer.answer()))
      for (const { child } of racers) child.send(version)
      const won = (await answers).flat()
      expect(won).toHaveLength(1)
      expect(await store.find({ id: 'raced' })).toMatchObject({ version: version + 1, name: won[0] })
      winners.add(String(won[0]).replace(/ of .*/, ''))
    }
    // Otherwise they have not raced.
    expect(winners.size).toBeGreaterThan(1)
  })

  it('hands a quota out to three processes without a unit too many', async () => {
    const database = await create()
    onTestFinished(() => database.remove())
    const store = database.open()
    await migrate(store)
    await store.insert([record({ id: 'a', lineageId: 'shared', quota: quota(250) })])
    const reports = await runSqlWorkers(3, name, database, 100)
    expect(reports.reduce((sum, { granted }) => sum + granted, 0)).toBe(250)
    expect(await store.find({ id: 'a' })).toMatchObject({ quota: { remaining: 0, allotted: 250 } })
  })
})

interface Racer {
  readonly child: ChildProcess
  /** The next one. */
  answer(): Promise<RaceAnswer>
}

function startRacer(settings: RaceSettings): Racer {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...env } = process.env
  const child = fork(PROGRAM, [JSON.stringify(settings)], { env, execArgv: ['--import', 'tsx'] })
  killAfterwards(child)
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('a racer has ended')))
  // In the end each of them has.
  ended.catch(() => {})
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended.catch(() => {})
  })
  return {
    child,
    async answer() {
      const [answer] = await Promise.race([once(child, 'message'), ended])
      return answer as RaceAnswer
    },
  }
}
