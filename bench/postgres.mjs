import pg from 'pg'
import { tsImport } from 'tsx/esm/api'

/**
 * Runs `measure` with the address of a PostgreSQL server of its own on loopback, found or installed as the tests do it,
 * which ends with it, whatever came of it. Only this process compiles TypeScript: what is measured runs in others, as built.
 */
export async function withPostgres(measure) {
  const { startPostgres } = await tsImport('../test/support/postgres-server.ts', import.meta.url)
  const server = await startPostgres()
  try {
    return await measure(server.url)
  } finally {
    await server.stop()
  }
}

/** Creates a database; a pool of connections to it, as pg makes it by default. */
export async function createDatabase(url, name) {
  const admin = new pg.Client(url)
  await admin.connect()
  await admin.query(`create database ${name}`)
  await admin.end()
  const own = new URL(url)
  own.pathname = `/${name}`
  return new pg.Pool({ connectionString: own.href })
}
