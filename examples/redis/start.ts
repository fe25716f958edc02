import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { connectRedis } from './connect-redis.ts'
import { curlLines } from './curl-lines.ts'
import { createSharedKeys } from './keys.ts'

const PROGRAM = fileURLToPath(new URL('server.ts', import.meta.url))

const adminToken = randomBytes(24).toString('base64url')
const children: ChildProcess[] = []

try {
  const issued = await issueKeys()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop)
  const port = Number(process.env.PORT || '3000')
  const [a, b] = await Promise.all([start(port), start(port && port + 1)])
  printLines(a, b, issued)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  stop()
}

/** Issues two keys. The processes of the application know only what they find in Redis. */
async function issueKeys() {
  const redis = await connectRedis()
  const keys = createSharedKeys(redis)
  const settings = { owner: { type: 'user', id: 'u_1' }, permissions: { projects: ['read'] } }
  const first = await keys.issue({ ...settings, name: 'first key', quota: { remaining: 1_000 } })
  const second = await keys.issue({ ...settings, name: 'second key' })
  await keys.close()
  await redis.quit()
  return { first, second }
}

/** Starts a process of the application and resolves with its address; when it ends, so do all. */
async function start(port: number): Promise<string> {
  const child = fork(PROGRAM, { env: { ...process.env, PORT: String(port), ADMIN_TOKEN: adminToken } })
  children.push(child)
  child.once('exit', (code) => {
    process.exitCode ||= code ?? 1
    stop()
  })
  const [url] = await Promise.race([
    once(child, 'message') as Promise<[string]>,
    once(child, 'exit').then(() => Promise.reject(new Error(`There is no process at port ${port}`))),
  ])
  return url
}

function stop(): void {
  for (const child of children.splice(0)) child.kill('SIGTERM')
}

function printLines(a: string, b: string, { first, second }: Awaited<ReturnType<typeof issueKeys>>): void {
  const demo = { a, b, adminToken, keys: [first.key, second.key] as const, id: first.apiKey.id }
  console.log(`\nA is ${a}, B is ${b}; Ctrl-C stops both. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(demo)) console.log(`\n${title} → ${expect}\n${command}`)
  console.log()
}
