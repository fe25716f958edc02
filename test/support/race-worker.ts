import { openStore } from './open-store.ts'

/** What a racing worker is started with, as JSON in its arguments. */
export interface RaceSettings {
  /** Where the keys are, as `openStore` takes it. */
  readonly url: string
  /** The record that all of them change. */
  readonly id: string
  /** How many changes of each version this process tries at once. */
  readonly attempts: number
  /** What the names that it gives begin with. */
  readonly name: string
}

/** The names of the record's changes that were made: the answer to a version that was sent. */
export type RaceAnswer = readonly string[]

const { url, id, attempts, name }: RaceSettings = JSON.parse(process.argv[2] ?? '')
const { store } = openStore(url)

process.on('disconnect', () => process.exit())
process.on('message', async (version: number) => {
  const names = Array.from({ length: attempts }, (_, attempt) => `${name} ${attempt} of ${version}`)
  const outcomes = await Promise.all(
    names.map((given) => store.update(id, version, { name: given, updatedAt: new Date() })),
  )
  process.send?.(names.filter((_, attempt) => outcomes[attempt] === 'updated'))
})
// Every connection is there before the race.
await Promise.all(Array.from({ length: attempts }, () => store.find({ id })))
process.send?.([])
