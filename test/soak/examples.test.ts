import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, onTestFinished } from 'vitest'
import { itAnswersItsLines, type PrintingProgram } from '../support/example.ts'
import { findFreePort } from '../support/free-port.ts'
import { startProgram } from '../support/program.ts'

const EXAMPLES: Record<string, PrintingProgram> = {
  'either-session-or-key': { count: 11, last: /"my key".*\n/ },
  'existing-login': { count: 23, last: /It no longer works.*\n.*\n/ },
  koa: { count: 9, last: /n=\[1-4\].*\n/ },
  metered: { count: 6, last: /\/usage\n/ },
  organisations: { count: 21, last: /^It no longer works.*\n.*\n/m },
}

describe.each(Object.entries(EXAMPLES))('the program of the example %s', (example, lines) => {
  itAnswersItsLines(example, lines)

  it('says that its port is none, in a line', async () => {
    const program = startProgram([`examples/${example}/server.ts`], { PORT: '70000' })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe('PORT must be a number from 0 to 65535\n')
    expect(program.stdout).toBe('')
  })

  it('says that its port is taken, in a line', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    onTestFinished(() => void taken.close())
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    const program = startProgram([`examples/${example}/server.ts`], { PORT: String(port) })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe(`listen EADDRINUSE: address already in use 127.0.0.1:${port}\n`)
    expect(program.stdout).toBe('')
  })
})

// Sends what is no key, and looks for it in what is printed.
it.each([
  ['existing-login', '/notes'],
  ['organisations', '/reports'],
])('the program of the example %s prints what happens to keys', async (example, path) => {
  const program = startProgram([`examples/${example}/server.ts`], { PORT: '0' })
  onTestFinished(() => program.signal('SIGKILL'))
  const [, url] = /Listening on (\S+);/.exec(await program.waitFor(/Listening on \S+;/)) ?? []
  await fetch(`${url}${path}`, { headers: { 'X-Api-Key': 'junk' } })
  await program.waitFor(/\nkey\.refused malformed\n$/)
  program.signal('SIGTERM')
  expect(await program.ended()).toBe(0)
})

describe('the program of npm start', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-example-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const dataFolder = () => mkdtempSync(join(folder, 'data-'))

  function start(env: NodeJS.ProcessEnv) {
    const program = startProgram(['examples/express/server.ts'], env)
    onTestFinished(() => program.signal('SIGKILL'))
    return program
  }

  it('keeps keys: after a restart the one from before still works, and its text is in no database', async () => {
    const env = { PORT: '0', DATA_DIR: dataFolder() }
    const keyOf = (output: string) => /X-Api-Key: ([^']+)/.exec(output)?.[1] as string
    const first = start(env)
    const printed = await first.waitFor(/n=\[1-8\].*\n/)
    expect(printed).not.toContain('still works')
    first.signal('SIGTERM')
    expect(await first.ended()).toBe(0)
    // It may also have been killed: nothing that was issued is lost.
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const again = start(env)
      const output = await again.waitFor(/n=\[1-8\].*\n/)
      expect(output).toContain('The key from the previous run still works.\n')
      expect(keyOf(output)).toBe(keyOf(printed))
      const url = /http:\S+(?=\/projects)/.exec(output)?.[0]
      const answer = await fetch(`${url}/projects`, { headers: { 'X-Api-Key': keyOf(output) } })
      expect(answer.status).toBe(200)
      again.signal(signal)
      await again.ended()
    }
    for (const file of readdirSync(env.DATA_DIR).filter((name) => name.startsWith('keys.db'))) {
      expect(readFileSync(join(env.DATA_DIR, file), 'latin1')).not.toContain(keyOf(printed))
    }
  })

  it('says that its port is in use', async () => {
    const other = createServer()
    await once(other.listen(0, '127.0.0.1'), 'listening')
    const { port } = other.address() as AddressInfo
    const program = start({ PORT: String(port), DATA_DIR: dataFolder() })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe(`Port ${port} is in use. Take another one: PORT=3001 npm start\n`)
    other.close()
  })

  it('says that its port is not one', async () => {
    const program = start({ PORT: 'http', DATA_DIR: dataFolder() })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe('PORT must be a number from 0 to 65535\n')
  })
})

describe('the program of the example prometheus', () => {
  it('answers the commands that it prints, and serves what it has counted', async () => {
    const port = await findFreePort()
    const program = startProgram(['examples/prometheus/server.ts'], { PORT: '0', METRICS_PORT: String(port) })
    onTestFinished(() => program.signal('SIGKILL'))
    const printed = await program.waitFor(/grep \^latchkey\n/)
    const [, url = '', key = ''] = /(http:\S+)\/projects -H 'X-Api-Key: (acme\w+)'/.exec(printed) ?? []
    const statuses = [key, 'nope'].map(
      async (one) => (await fetch(`${url}/projects`, { headers: { 'X-Api-Key': one } })).status,
    )
    expect(await Promise.all(statuses)).toEqual([200, 401])
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    expect(metrics).toContain('latchkey_verify_duration_count{latchkey_verify_outcome="admitted"} 1\n')
    expect(metrics).not.toContain(key)
    program.signal('SIGTERM')
    expect(await program.ended()).toBe(0)
  })

  it.each([
    ['PORT', 0],
    ['METRICS_PORT', 1],
  ])('says that its %s is none, in a line', async (name, min) => {
    const program = startProgram(['examples/prometheus/server.ts'], { [name]: '70000' })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe(`${name} must be a number from ${min} to 65535\n`)
  })
})

it('the program of the example nest says that its port is not one', async () => {
  const program = startProgram(['examples/nest/server.ts'], { PORT: 'http' })
  expect(await program.ended()).toBe(1)
  expect(program.stderr).toBe('PORT must be a number from 0 to 65535\n')
})
