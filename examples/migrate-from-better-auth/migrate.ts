import { parseArgs } from 'node:util'
import { createApiKeys, memoryRateLimiter } from 'latchkey'
import { betterAuthFormat } from 'latchkey/import'
import { migrate, sqliteStore } from 'latchkey/sql'
import { openBetterAuth } from './better-auth-table.ts'
import { followChanges, migrateKeys } from './migrate-keys.ts'

const USAGE = `node --import tsx examples/migrate-from-better-auth/migrate.ts <better-auth.sqlite> <latchkey.sqlite>

  --disable-key-hashing  better-auth was set up with disableKeyHashing: its table holds the keys themselves
  --follow               also stop the keys imported before that better-auth has deleted or disabled since

KEY=... checks a key afterwards: not on the command line, where every user of the machine can read it.`

try {
  await main()
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      'disable-key-hashing': { type: 'boolean', default: false },
      follow: { type: 'boolean', default: false },
    },
  })
  const [source, target, ...more] = positionals
  if (source === undefined || target === undefined || more.length > 0) throw new Error(USAGE)

  const table = openBetterAuth(source)
  const format = betterAuthFormat({
    owner: table.ownerOf,
    disableKeyHashing: values['disable-key-hashing'],
  })
  const store = sqliteStore(target)
  await migrate(store)
  // Give the application the same `formats`, or it does not recognise its imported keys.
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme_live',
    formats: [format],
  })
  try {
    const { imported, duplicates, invalid } = await migrateKeys(table, format, keys, {
      onProgress: (progress) => console.log(`${progress.imported} imported so far`),
      onInvalid: ({ index, error }) => console.error(`row ${index}: ${error.message}`),
    })
    console.log(`${imported} imported, ${duplicates} were there already, ${invalid} could not be imported`)
    if (invalid > 0) process.exitCode = 1
    if (values.follow) {
      const { revoked, disabled } = await followChanges(table, keys)
      console.log(`${revoked} revoked and ${disabled} disabled, as better-auth has done since`)
    }
    if (process.env.KEY) await check(process.env.KEY)
  } finally {
    await keys.close()
    await store.close()
    table.close()
  }

  async function check(key: string): Promise<void> {
    const result = await keys.verify(key)
    if (result.ok) {
      const { name, owner } = result.apiKey
      console.log(`KEY is "${name}" of the ${owner.type} ${owner.id}`)
      return
    }
    console.log(`KEY is refused: ${result.code === 'invalid_key' ? result.reason : result.code}`)
    process.exitCode = 1
  }
}
