import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { asCommonJs } from '../support/as-common-js.ts'
import { killAfterwards } from '../support/cleaner.ts'
import { installPackages } from '../support/consumer-tools.ts'
import { longOnly } from '../support/long-run.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  packed = packPackage()
})
afterAll(() => packed.remove())

function codeOf(page: string, part: string): string {
  const blocks = readCodeBlocks(readFileSync(new URL(`../../docs/${page}.md`, import.meta.url), 'utf8'))
  const found = blocks.find(({ text }) => text.includes(part))
  if (!found) throw new Error(`${page} has no code with ${part}`)
  return found.text
}

const LATCHKEY = `import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'`

const KEYS = `
const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
const { key } = await keys.issue({
  owner: { type: 'user', id: 'u_1' },
  name: 'CI',
  permissions: { projects: ['read'], chat: ['read'] },
})`

/** Imports first, then the keys, the code of a guide, and what tries it. */
function programOf(code: string, before: string, after: string): string {
  const lines = `${LATCHKEY}\n${code}`.split('\n')
  const isImport = (line: string) => line.startsWith('import ')
  return [
    ...lines.filter(isImport),
    KEYS,
    before,
    ...lines.filter((line) => !isImport(line)),
    after,
    'process.exit()',
  ].join('\n')
}

describe.each(['ESM', 'CommonJS'])('the packed package in a fresh folder, as %s', (kind) => {
  async function run(packages: readonly string[], program: string): Promise<unknown> {
    const consumer = packed.createConsumer(packages)
    const file = kind === 'ESM' ? 'program.mjs' : 'program.cjs'
    consumer.write(file, kind === 'ESM' ? program : asCommonJs(program))
    const { status, stdout, stderr } = await consumer.run(file)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    return JSON.parse(stdout)
  }

  it('guards routes of Fastify', async () => {
    const after = `
await app.listen({ port: 0, host: '127.0.0.1' })
const url = 'http://127.0.0.1:' + app.server.address().port + '/projects'
const send = async (headers) => {
  const answer = await fetch(url, { headers })
  return [answer.status, await answer.json()]
}
const [good, none] = [await send({ 'x-api-key': key }), await send({})]
console.log(JSON.stringify([...good, none[0], none[1].code]))`
    const users = 'const users = { find: (id) => ({ id }) }'
    const answer = await run(['fastify'], programOf(codeOf('fastify', 'createFastify()'), users, after))
    expect(answer).toEqual([200, { key: 'CI', user: { id: 'u_1' } }, 401, 'missing_key'])
  })

  it('guards the upgrade of a WebSocket, and closes it when its key ends', async () => {
    const before = `const app = (_request, response) => response.end()`
    const after = `
const { once } = await import('node:events')
await once(server, 'listening')
const url = 'ws://127.0.0.1:' + server.address().port
const ws = new WebSocketClient(url, { headers: { 'X-Api-Key': key } })
const [hello] = await once(ws, 'message')
const refused = new WebSocketClient(url)
const [, answer] = await once(refused, 'unexpected-response')
const closed = once(ws, 'close')
const [listed] = (await keys.list()).apiKeys
await keys.revoke(listed.id)
const [code, reason] = await closed
console.log(JSON.stringify([String(hello), answer.statusCode, code, String(reason)]))`
    const code = codeOf('websockets-and-sse', 'wss.handleUpgrade')
      .replace(
        "import { WebSocketServer } from 'ws'",
        "import { WebSocket as WebSocketClient, WebSocketServer } from 'ws'",
      )
      .replace('server.listen(3000)', "server.listen(0, '127.0.0.1')")
    expect(await run(['ws'], programOf(code, before, after))).toEqual(['Hello CI', 401, 4401, 'revoked'])
  })
})

/** Next brings half a gigabyte, and takes half a minute to build. */
const BUILT = longOnly({ Next: guardRouteOfNext })

it.each(Object.entries(BUILT))(
  'guards a route of %s, in a server that was built',
  (_framework, run) => run(),
  600_000,
)

async function guardRouteOfNext(): Promise<void> {
  const { dependencies } = packed.manifest
  const modules = installPackages({
    ...dependencies,
    next: '16.4.6',
    react: '19.2.8',
    'react-dom': '19.2.8',
  })
  const consumer = packed.createConsumer()
  // Next follows no links out of its folder.
  for (const name of Object.keys(dependencies)) rmSync(join(consumer.folder, 'node_modules', name))
  cpSync(modules, join(consumer.folder, 'node_modules'), { recursive: true })
  consumer.write('package.json', JSON.stringify({ private: true, type: 'module' }))
  consumer.write('app/layout.js', `export default ({ children }) => <html><body>{children}</body></html>`)
  consumer.write('app/keys.js', `${LATCHKEY}\n${KEYS}\nexport { key, keys }`)
  // Next would need TypeScript installed.
  const route = codeOf('fetch', 'withApiKey(')
    .replace(/^import .*$/m, (line) => `${line}\nimport { keys } from '../../../keys.js'`)
    .replace(': { params: Promise<{ id: string }> }', '')
  consumer.write('app/api/projects/[id]/route.js', route)
  consumer.write(
    'app/key/route.js',
    `import { key } from '../keys.js'\nexport const GET = () => new Response(key)`,
  )
  const next = join(consumer.folder, 'node_modules/next/dist/bin/next')
  const built = await consumer.run(next, 'build', '--webpack')
  expect(built.status, built.stderr).toBe(0)
  const server = spawn(process.execPath, [next, 'start', '-p', '0', '-H', '127.0.0.1'], {
    cwd: consumer.folder,
  })
  killAfterwards(server)
  onTestFinished(async () => {
    server.kill()
    await once(server, 'exit')
  })
  const [port] = await new Promise<RegExpMatchArray>((resolve) => {
    let output = ''
    server.stdout.on('data', (text) => {
      output += text
      const found = /(?<=127\.0\.0\.1:)\d+/.exec(output)
      if (found) resolve(found)
    })
  })
  const url = `http://127.0.0.1:${port}`
  const key = await (await fetch(`${url}/key`)).text()
  const good = await fetch(`${url}/api/projects/7`, { headers: { 'X-Api-Key': key } })
  expect([good.status, await good.json()]).toEqual([
    200,
    { project: '7', owner: { type: 'user', id: 'u_1' } },
  ])
  const bad = await fetch(`${url}/api/projects/7`)
  expect([bad.status, ((await bad.json()) as { code: string }).code]).toEqual([401, 'missing_key'])
}
