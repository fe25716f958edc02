import { migrate, type SqlStore } from 'latchkey/sql'
import { afterAll, beforeAll, describe } from 'vitest'
import { describeKeyStore } from '../support/key-store-cases.ts'
import { DATABASES, type TestDatabase } from '../support/sql-databases.ts'

describe.each(DATABASES)('%s', (_name, create) => {
  let database: TestDatabase
  let store: SqlStore
  beforeAll(async () => {
    database = await create()
    store = database.open()
    await migrate(store)
  })
  afterAll(() => database?.remove())

  describeKeyStore(async () => {
    await database.query('delete from latchkey_keys_quotas')
    await database.query('delete from latchkey_keys')
    return store
  })
})
