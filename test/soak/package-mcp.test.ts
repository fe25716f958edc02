import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { asCommonJs } from '../support/as-common-js.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  packed = packPackage()
})
afterAll(() => packed.remove())

const guide = readCodeBlocks(readFileSync(new URL('../../docs/mcp.md', import.meta.url), 'utf8'))
const codeUnder = (heading: string) =>
  (guide.find((block) => block.heading === heading && block.language !== 'sh') as CodeBlock).text

/** What surrounds the code of the guide: keys before it, and a client after it that calls a tool. */
const BEFORE = `
const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
const { key } = await keys.issue({
  owner: { type: 'user', id: 'u_1' },
  name: 'CI',
  permissions: { docs: ['read'] },
})`

const after = (tool: string) => `
const server = app.listen(0, '127.0.0.1', async () => {
  const url = new URL('http://127.0.0.1:' + server.address().port + '/mcp')
  const connect = async (own) => {
    const client = new Client({ name: 'test', version: '1.0.0' })
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers: { authorization: 'Bearer ' + own } } }))
    return client
  }
  const client = await connect(key)
  const { content } = await client.callTool({ name: '${tool}', arguments: { query: 'x' } })
  const refused = await connect(key + 'x').catch((error) => /"code":"(\\w+)"/.exec(error.message)[1])
  await client.close()
  console.log(JSON.stringify([content[0].text, refused]))
  process.exit()
})`

const LATCHKEY = `import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'\n`

const SDK1 = `${LATCHKEY}import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
`
const SDK2 = `${LATCHKEY}import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
`

const OF_SDK1 = ['@modelcontextprotocol/sdk', 'express']
const OF_SDK2 = [
  '@modelcontextprotocol/client',
  '@modelcontextprotocol/node',
  '@modelcontextprotocol/server',
  'express',
]

it.each([
  ['SDK 1', 'ESM', OF_SDK1, SDK1, 'SDK 1', 'whoami', 'CI'],
  ['SDK 1', 'CommonJS', OF_SDK1, SDK1, 'SDK 1', 'whoami', 'CI'],
  ['SDK 2', 'ESM', OF_SDK2, SDK2, 'MCP servers', 'search', 'CI searches for x'],
  ['SDK 2', 'CommonJS', OF_SDK2, SDK2, 'MCP servers', 'search', 'CI searches for x'],
])('the packed guard serves clients of %s in %s', async (_sdk, kind, packages, head, heading, tool, text) => {
  const consumer = packed.createConsumer(packages)
  const code = `${head}${codeUnder(heading)}`
  const imports = code.split('\n').filter((line) => line.startsWith('import '))
  const rest = code.split('\n').filter((line) => !line.startsWith('import '))
  const program = [...imports, BEFORE, ...rest, after(tool)].join('\n')
  const file = kind === 'ESM' ? 'program.mjs' : 'program.cjs'
  consumer.write(file, kind === 'ESM' ? program : asCommonJs(program))
  const { status, stdout, stderr } = await consumer.run(file)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  expect(JSON.parse(stdout)).toEqual([text, 'invalid_key'])
})
