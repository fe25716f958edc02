import assert from 'node:assert/strict'
import { migrate, type SqlStore } from 'latchkey/sql'
import { storeConformance } from 'latchkey/testing'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { DELETE_ALL } from '../support/empty-tables.ts'
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

  storeConformance({ test, assert }, async () => {
    for (const statement of DELETE_ALL) await database.query(statement)
    return store
  })
})
