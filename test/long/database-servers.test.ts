import { createConnection } from 'mysql2/promise'
import { Client } from 'pg'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { startMariadb } from '../support/mariadb-server.ts'
import { startPostgres } from '../support/postgres-server.ts'
import { childrenOf, isAlive } from '../support/process-table.ts'
import { startProgram } from '../support/program.ts'
import { isReachable } from '../support/reachable.ts'
import type { DatabaseServer } from '../support/server-process.ts'

interface Session {
  /** The first column of the first row. Gives up after a second. */
  ask(sql: string): Promise<unknown>
}

const kinds = {
  PostgreSQL: {
    sharedUrl: () => inject('postgresUrl'),
    start: (...args: string[]) => startPostgres({ binaries: inject('postgresBinaries'), args }),
    startInProgram: () => `
      import { startPostgres } from './test/support/postgres-server.ts'
      const server = await startPostgres({ binaries: ${JSON.stringify(inject('postgresBinaries'))} })`,
    badArgument: ['-c', 'no_such_setting=1'],
    complaint: /ended before it was ready:[\s\S]*unrecognized configuration parameter "no_such_setting"/,
    goodArgument: ['-c', 'max_connections=7'],
    askConnections: 'SHOW max_connections',
    askEncoding: 'SHOW server_encoding',
    encoding: 'UTF8',
    sleep: 'SELECT pg_sleep(60)',
    async connect(url: string): Promise<Session> {
      const client = new Client({
        connectionString: url,
        connectionTimeoutMillis: 1_000,
        query_timeout: 1_000,
      })
      client.on('error', expectLoss)
      await client.connect()
      onTestFinished(() => void client.end().catch(expectLoss))
      return {
        async ask(sql) {
          const { rows } = await client.query({ text: sql, rowMode: 'array' })
          return rows[0]?.[0]
        },
      }
    },
  },
  MariaDB: {
    sharedUrl: () => inject('mariadbUrl'),
    start: (...args: string[]) => startMariadb({ binary: inject('mariadbBinary'), args }),
    startInProgram: () => `
      import { startMariadb } from './test/support/mariadb-server.ts'
      const server = await startMariadb({ binary: ${JSON.stringify(inject('mariadbBinary'))} })`,
    badArgument: ['--no-such-setting=1'],
    complaint: /ended before it was ready:[\s\S]*unknown variable 'no-such-setting=1'/,
    goodArgument: ['--max-connections=17'],
    askConnections: 'SELECT @@max_connections',
    askEncoding: 'SELECT @@character_set_database',
    encoding: 'utf8mb4',
    sleep: 'SELECT sleep(60)',
    async connect(url: string): Promise<Session> {
      const connection = await createConnection({ uri: url, connectTimeout: 1_000 })
      connection.on('error', expectLoss)
      onTestFinished(() => connection.destroy())
      return {
        async ask(sql) {
          const [rows] = await connection.query({ sql, timeout: 1_000, rowsAsArray: true })
          return Array.isArray(rows) ? (rows[0] as unknown[] | undefined)?.[0] : undefined
        },
      }
    },
  },
}

/** Connections are lost here on purpose. */
function expectLoss(): void {}

describe.each(Object.entries(kinds))('%s', (_name, kind) => {
  async function own(...args: string[]): Promise<DatabaseServer> {
    const server = await kind.start(...args)
    onTestFinished(() => server.stop())
    return server
  }

  it('says what the server said where it does not start', async () => {
    await expect(kind.start(...kind.badArgument)).rejects.toThrow(kind.complaint)
  })

  it('answers nothing while it is paused, neither old connections nor new ones, and goes on when it is resumed', async () => {
    const server = await own()
    const session = await kind.connect(server.url)
    server.pause()
    await expect(session.ask('SELECT 1')).rejects.toThrow(/timeout/i)
    await expect(kind.connect(server.url)).rejects.toThrow(/timeout|ETIMEDOUT/i)
    server.resume()
    expect(Number(await (await kind.connect(server.url)).ask('SELECT 7'))).toBe(7)
  })

  it('is killed in the middle of its work, and starts again at the same port with what was committed', async () => {
    const server = await own()
    const before = server.pid
    const session = await kind.connect(server.url)
    await session.ask('CREATE TABLE kept (value VARCHAR(20))')
    await session.ask("INSERT INTO kept VALUES ('committed')")
    const other = await kind.connect(server.url)
    await other.ask('BEGIN')
    await other.ask("INSERT INTO kept VALUES ('not committed')")
    const asleep = expect((await kind.connect(server.url)).ask(kind.sleep)).rejects.toThrow()
    const children = childrenOf(before)
    await server.kill()
    await asleep
    expect(await isReachable(server.port)).toBe(false)
    expect([before, ...children].filter(isAlive)).toEqual([])
    expect(() => server.pause()).toThrow('does not run')
    expect(() => server.resume()).toThrow('does not run')

    await server.restart()
    expect(server.pid).not.toBe(before)
    const rows = (await kind.connect(server.url)).ask('SELECT count(*) FROM kept')
    expect(Number(await rows)).toBe(1)
    expect(await (await kind.connect(server.url)).ask('SELECT value FROM kept')).toBe('committed')
  })

  it('is killed and restarted while it is paused, and restarted while it runs', async () => {
    const server = await own()
    await (await kind.connect(server.url)).ask('CREATE TABLE kept (value INT)')
    server.pause()
    await server.restart()
    await (await kind.connect(server.url)).ask('INSERT INTO kept VALUES (1)')
    await server.restart()
    expect(await (await kind.connect(server.url)).ask('SELECT value FROM kept')).toBe(1)
  })

  it('keeps any text, and takes further arguments', async () => {
    const session = await kind.connect((await own(...kind.goodArgument)).url)
    expect(String(await session.ask(kind.askConnections))).toMatch(/^1?7$/)
    expect(await session.ask(kind.askEncoding)).toBe(kind.encoding)
    await session.ask('CREATE TABLE words (value VARCHAR(20))')
    await session.ask("INSERT INTO words VALUES ('naïve 🔑')")
    expect(await session.ask('SELECT value FROM words')).toBe('naïve 🔑')
  })

  it('is killed with the process that started it, even if both stand still', async () => {
    const program = startProgram([
      '--input-type=module',
      '--eval',
      `${kind.startInProgram()}
       server.pause()
       console.log(server.port + ' ' + server.pid + '!')`,
    ])
    const [port = 0, pid = 0] = (await program.waitFor(/!/)).split(/[ !]/).map(Number)
    const processes = [pid, ...childrenOf(pid)]
    expect(processes.every(isAlive)).toBe(true)
    program.signal('SIGKILL')
    await expect.poll(() => processes.filter(isAlive), { timeout: 5_000 }).toEqual([])
    await expect.poll(() => isReachable(port), { timeout: 5_000 }).toBe(false)
  })

  it('is shared by the test files', async () => {
    expect(Number(await (await kind.connect(kind.sharedUrl())).ask('SELECT 7'))).toBe(7)
  })
})
