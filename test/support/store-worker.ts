import { setImmediate } from 'node:timers/promises'
import { type ApiKeys, createApiKeys, memoryRateLimiter } from 'latchkey'
import { openStore } from './open-store.ts'
import { createRandom, type Random } from './random.ts'

/** What a worker is started with, as JSON in its arguments. */
export interface StoreWorkerSettings {
  /** Where the keys are: of PostgreSQL, of MariaDB, or the name of a SQLite file. */
  readonly url: string
  readonly seed: number
  /** How many changes are under way at once. */
  readonly lanes: number
}

/** What a worker prints, a line of JSON each: what it is about to do, and what has resolved. */
export type JournalLine =
  | { readonly begins: 'issue' | 'rotate' | 'revoke'; readonly id?: string }
  | { readonly did: 'issue'; readonly id: string; readonly key: string }
  | { readonly did: 'rotate'; readonly from: string; readonly id: string; readonly key: string }
  | { readonly did: 'revoke'; readonly id: string }
  | { readonly failed: string }

const settings: StoreWorkerSettings = JSON.parse(process.argv[2] ?? '')
const { store } = openStore(settings.url)
const keys = createApiKeys({
  store,
  rateLimiter: memoryRateLimiter(),
  prefix: 'acme_test',
  // Late is not wrong here: what is tested is what has resolved.
  timeoutMs: 60_000,
})
/** Keys that nobody is changing, and that work as far as is known. */
const living: string[] = []

await Promise.all(
  Array.from({ length: settings.lanes }, (_, lane) =>
    changeForever(keys, createRandom(settings.seed + lane)),
  ),
)

async function changeForever(keys: ApiKeys, random: Random): Promise<void> {
  for (;;) {
    try {
      await change(keys, random)
    } catch (error) {
      print({ failed: String((error as { code?: unknown }).code) })
      // A database that is away refuses at once, and this would hear of nothing else.
      await setImmediate()
    }
  }
}

async function change(keys: ApiKeys, random: Random): Promise<void> {
  const [id] = random.chance(0.6) ? living.splice(random.below(living.length), 1) : []
  if (id === undefined) {
    print({ begins: 'issue' })
    const metadata = { padding: 'x'.repeat(random.below(4_000)) }
    const { key, apiKey } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI', metadata })
    print({ did: 'issue', id: apiKey.id, key })
    living.push(apiKey.id)
  } else if (random.chance(0.5)) {
    print({ begins: 'rotate', id })
    const { key, apiKey } = await keys.rotate(id)
    print({ did: 'rotate', from: id, id: apiKey.id, key })
    living.push(apiKey.id)
  } else {
    print({ begins: 'revoke', id })
    await keys.revoke(id)
    print({ did: 'revoke', id })
  }
}

/** At once: a pipe is written to before this returns, and so what was said has been said, whatever ends the process. */
function print(line: JournalLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
