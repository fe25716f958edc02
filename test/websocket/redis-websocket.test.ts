import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Redis } from 'ioredis'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisInvalidation } from 'latchkey/redis'
import { apiKeyUpgrade } from 'latchkey/websocket'
import { expect, inject, it, onTestFinished, vi } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { issueKey } from '../support/issue-key.ts'

it('closes the WebSockets of a key that another instance revokes, by a message of Redis', async () => {
  const store = memoryStore()
  const channel = `websocket-test:${randomUUID()}`
  const start = () => {
    const client = new Redis(inject('redisUrl'))
    const keys = createApiKeys({
      store,
      rateLimiter: memoryRateLimiter(),
      invalidation: redisInvalidation(client, { channel }),
      prefix: 'acme',
      // Only a message can be the reason.
      cache: { maxAgeMs: 3_600_000 },
    })
    onTestFinished(async () => {
      await keys.close()
      client.disconnect()
    })
    return { keys, client }
  }
  const [here, there] = [start(), start()]
  await vi.waitFor(
    async () => expect(await here.client.pubsub('NUMSUB', channel)).toEqual([channel, 2]),
    10_000,
  )

  const authenticate = apiKeyUpgrade(here.keys)
  const wss = new WebSocketServer({ noServer: true })
  const server = createServer()
  server.on('upgrade', async (request, socket, head) => {
    const auth = await authenticate(request, socket, head)
    if (!auth) return
    wss.handleUpgrade(request, socket, head, (ws) => {
      ws.on(
        'close',
        here.keys.onEnd(auth.apiKey, (reason) => ws.close(4401, reason)),
      )
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const { key, apiKey } = await issueKey(here.keys)
  const other = await issueKey(here.keys)
  const open = async (sent: string) => {
    const ws = new WebSocket(`ws://127.0.0.1:${port}`, { headers: { 'X-Api-Key': sent } })
    onTestFinished(() => ws.terminate())
    await new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject))
    return ws
  }
  const sockets = await Promise.all(Array.from({ length: 20 }, () => open(key)))
  const bystander = await open(other.key)
  const closed = sockets.map(
    (ws) => new Promise((resolve) => ws.once('close', (code, reason) => resolve(`${code} ${reason}`))),
  )
  await there.keys.revoke(apiKey.id)
  expect(await Promise.all(closed)).toEqual(Array(20).fill('4401 revoked'))
  expect(bystander.readyState).toBe(WebSocket.OPEN)
})
