import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createApp } from './app.ts'
import { curlLines } from './curl-lines.ts'
import { createKeys, type Plan } from './keys.ts'
import { echo } from './model.ts'

const HOST = '127.0.0.1'
const CUSTOMERS: Readonly<Record<string, Plan>> = { acme: 'free', globex: 'pro' }

const keys = createKeys(({ id }) => CUSTOMERS[id] ?? 'free')
const server = createServer(createApp({ keys, model: echo }))

try {
  await once(server.listen(readPort(process.env.PORT || '3000'), HOST), 'listening')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  const issue = (id: string) => keys.issue({ owner: { type: 'organization', id }, name: 'first key' })
  const [free, pro] = [await issue('acme'), await issue('globex')]
  const url = `http://${HOST}:${(server.address() as AddressInfo).port}`
  console.log(`Listening on ${url}; Ctrl-C stops it. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(url, free.key, pro.key)) {
    console.log(`\n${title} → ${expect}\n${command}`)
  }
  console.log()
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  await close()
}

function readPort(given: string): number {
  if (!/^\d+$/.test(given) || Number(given) > 65_535) throw new Error('PORT must be a number from 0 to 65535')
  return Number(given)
}

/** Lets requests in progress finish first: their tokens are settled at the end of the response. */
async function close(): Promise<void> {
  const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
  await new Promise((resolve) => server.close(resolve))
  clearTimeout(impatience)
  await keys.close()
}
