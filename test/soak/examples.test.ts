import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { startProgram } from '../support/program.ts'

const EXAMPLES = ['either-session-or-key', 'existing-login', 'koa', 'metered', 'organisations']

describe.each(EXAMPLES)('the program of the example %s', (example) => {
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
