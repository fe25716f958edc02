import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { findFreePort } from '../support/free-port.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'
import { RUNTIME_NAMES, type RuntimeName, serveCommand } from '../support/runtimes.ts'

let packed: PackedPackage

beforeAll(() => {
  packed = packPackage()
})
afterAll(() => packed.remove())

const guide = readFileSync(new URL('../../docs/fetch.md', import.meta.url), 'utf8')
const [program] = readCodeBlocks(guide).filter(({ heading }) => heading === 'Bun and Deno')

/** Serves the program of the guide, and answers with the key that it has issued. */
async function start(name: RuntimeName): Promise<{ url: string; key: string }> {
  const consumer = packed.createConsumer()
  consumer.write('package.json', '{ "private": true, "type": "module" }')
  consumer.write('server.js', String(program?.text))
  const port = await findFreePort()
  const [binary, ...args] = serveCommand(name, 'server.js', port)
  const child = spawn(binary, args, { cwd: consumer.folder, env: { ...process.env, PORT: String(port) } })
  onTestFinished(async () => {
    if (child.exitCode === null && child.kill()) await once(child, 'exit')
  })
  let output = ''
  const exited = once(child, 'exit').then(() => Promise.reject(new Error(`it ended: ${output}`)))
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output += chunk
    })
  const url = `http://127.0.0.1:${port}/`
  await Promise.race([isUp(url), exited])
  return { url, key: /acme_\w+/.exec(output)?.[0] ?? '' }
}

async function isUp(url: string): Promise<void> {
  for (;;) {
    const response = await fetch(url).catch(() => null)
    if (response) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

describe.each(RUNTIME_NAMES)('the program of the guide under %s', (name) => {
  it('lets its key in, and nobody else', async () => {
    const { url, key } = await start(name)
    const ask = (headers: Record<string, string> = {}) => fetch(url, { headers })
    const admitted = await ask({ 'X-Api-Key': key })
    expect([admitted.status, admitted.headers.get('RateLimit')]).toEqual([200, '"minute";r=59;t=60'])
    expect(await admitted.json()).toEqual({ type: 'user', id: 'u_1' })
    expect((await ask({ Authorization: `Bearer ${key}` })).status).toBe(200)
    for (const [headers, status] of [
      [{}, 401],
      [{ 'X-Api-Key': `${key}x` }, 401],
      [{ 'X-Api-Key': `${key}, ${key}` }, 400],
      [{ 'X-Api-Key': key, Authorization: `Bearer ${key}` }, 400],
    ] as [Record<string, string>, number][]) {
      const refused = await ask(headers)
      expect([refused.status, refused.headers.get('Content-Type')]).toEqual([
        status,
        'application/problem+json',
      ])
    }
  })
})
