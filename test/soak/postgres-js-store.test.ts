import assert from 'node:assert/strict'
import { migrate, postgresStore, type SqlStore } from 'latchkey/sql'
import { storeConformance } from 'latchkey/testing'
import postgres, { type Sql } from 'postgres'
import { afterAll, beforeAll, test } from 'vitest'
import { TRUNCATE_ALL } from '../support/empty-tables.ts'
import { createPostgres, type TestDatabase } from '../support/sql-databases.ts'

let database: TestDatabase
let client: Sql
let store: SqlStore
beforeAll(async () => {
  database = await createPostgres()
  client = postgres(database.url, { max: 10 })
  store = postgresStore(client)
  await migrate(store)
})
afterAll(async () => {
  await client?.end({ timeout: 1 })
  await database?.remove()
})

storeConformance({ test, assert }, async () => {
  await database.query(TRUNCATE_ALL)
  return store
})
