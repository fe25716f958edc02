import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { AppModule } from './app.module.ts'
import { curlLines } from './curl-lines.ts'
import { createDemoUsers } from './users.ts'

const HOST = '127.0.0.1'

start().catch((error: unknown) => {
  console.error((error as Error).message)
  process.exitCode = 1
})

async function start(): Promise<void> {
  const port = process.env.PORT || '3000'
  if (!/^\d+$/.test(port) || Number(port) > 65_535) throw new Error('PORT must be a number from 0 to 65535')
  // A real application keeps its keys in a database. Here they end with the process.
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'demo',
    // Five at once, then one every two seconds.
    rateLimits: [{ name: 'burst', limit: 30, windowMs: 60_000, burst: 5 }],
  })
  const { key } = await keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'first key',
    permissions: { projects: ['read'] },
  })
  const app = await NestFactory.create<NestExpressApplication>(
    AppModule.register({ keys, users: createDemoUsers() }),
    { logger: ['error', 'warn'], abortOnError: false, forceCloseConnections: true },
  )
  app.disable('x-powered-by')
  await app.listen(Number(port), HOST)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // Last: close() stores how often the keys were used.
    process.once(signal, () => void app.close().then(() => keys.close()))
  }
  printLines(await app.getUrl(), key)
}

function printLines(url: string, key: string): void {
  console.log(`Listening on ${url}; Ctrl-C stops it. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(url, key)) {
    console.log(`\n${title} → ${expect}\n${command}`)
  }
  console.log()
}
