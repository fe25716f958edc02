import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, vi } from 'vitest'
import { type CodeBlock, deadLinks, readCodeBlocks, readTable } from '../support/markdown.ts'
import { startProgram } from '../support/program.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const root = fileURLToPath(new URL('../../', import.meta.url))
const readme = readFileSync(`${root}README.md`, 'utf8')
const [install, program, ...answers] = readCodeBlocks(readme)

describe('the README', () => {
  it('is short', () => {
    expect(readme.split('\n').length).toBeLessThanOrEqual(220)
  })

  it('shows a program of twenty lines at most', () => {
    expect(install?.text).toBe('npm install latchkey\n')
    expect(program?.language).toBe('ts')
    expect(program?.text.trim().split('\n').length).toBeLessThanOrEqual(20)
  })

  it('shows what its program answers', async () => {
    const port = await findFreePort()
    const source = (program as CodeBlock).text.replace('app.listen(3000)', `app.listen(${port})`)
    expect(source).toContain(String(port))
    const running = startProgram(['--input-type=module', '--eval', source])
    try {
      const key = (await running.waitFor(/^acme_\w+\n/)).trim()
      expect(answers.map(({ language }) => language)).toEqual(['sh', 'http', 'sh', 'http'])
      await listensOn(port)
      await expectShownAnswers(answers, port, { 'acme_…': key })
    } finally {
      running.signal('SIGKILL')
      await running.ended()
    }
  })

  it('names commands that exist', () => {
    const { scripts } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))
    for (const [command = ''] of readTable(readme, 'command')) {
      const [, script = ''] = /^`npm ci && npm (\w+)`$/.exec(command) ?? []
      expect(scripts).toHaveProperty(script)
    }
  })
})

describe('the links', () => {
  it.each(['README.md', 'CHANGELOG.md', 'SECURITY.md'])('lead somewhere: %s', (page) => {
    const url = new URL(`../../${page}`, import.meta.url)
    expect(readFileSync(url, 'utf8')).toContain('](')
    expect(deadLinks(url)).toEqual([])
  })
})

async function findFreePort(): Promise<number> {
  const server = createServer()
  await once(server.listen(0), 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** The program prints its key before it listens. */
async function listensOn(port: number): Promise<void> {
  for (;;) {
    try {
      await fetch(`http://localhost:${port}/`)
      return
    } catch {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}
