import { migrate } from 'latchkey/sql'
import { describe } from 'vitest'
import { proveQuotas } from '../support/quota-proofs.ts'
import { DATABASES } from '../support/sql-databases.ts'

describe.each(DATABASES)('a quota in %s', (_name, create) => {
  proveQuotas(async () => {
    const database = await create()
    await migrate(database.open())
    return { open: () => database.open(), close: () => database.remove() }
  })
})
