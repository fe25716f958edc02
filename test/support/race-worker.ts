import { setTimeout } from 'node:timers/promises'
import { openStore } from './open-store.ts'

/** What a racing worker is started with, as JSON in its arguments. */
export interface RaceSettings {
  /** Where the keys are, as `openStore` takes it. */
  readonly url: string
  /** The record that all of them change, once it is there. */
  readonly id: string
  /** How many changes of each version this process tries at once. */
  readonly attempts: number
  /** How many versions to race for. */
  readonly versions: number
  /** What the names that it gives begin with. */
  readonly name: string
}

/** The versions, from 1 on, that each attempt has changed, as `name` of the record says: what is printed in the end. */
export type RaceResult = { readonly version: number; readonly name: string }[]

const { url, id, attempts, versions, name }: RaceSettings = JSON.parse(process.argv[2] ?? '')
const { store, close } = openStore(url)
// Every connection is there before the race.
await Promise.all(Array.from({ length: attempts }, () => store.find({ id })))
process.stdout.write('ready\n')
while (!(await store.find({ id }))) await setTimeout(1)

const won: { version: number; name: string }[] = []
for (let version = 1; version <= versions; version += 1) {
  await Promise.all(
    Array.from({ length: attempts }, async (_, attempt) => {
      const given = `${name} ${attempt} ${version}`
      const outcome = await store.update(id, version, { name: given, updatedAt: new Date() })
      if (outcome === 'updated') won.push({ version, name: given })
    }),
  )
}
process.stdout.write(`${JSON.stringify(won)}\n`)
await close()
