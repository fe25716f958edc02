import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { AuthStarted } from './auth.ts'
import { curlLines } from './curl-lines.ts'

const adminToken = randomBytes(24).toString('base64url')
const children: ChildProcess[] = []

try {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop)
  const port = Number(process.env.PORT || '3000')
  if (!Number.isInteger(port) || port < 0 || port > 65_534) {
    throw new Error('PORT must be a number from 0 to 65534: the consumer takes the one after it')
  }
  const { url, service, demo } = await start<AuthStarted>('auth.ts', {
    PORT: String(port),
    ADMIN_TOKEN: adminToken,
  })
  // Unlike arguments, other users of the machine cannot see the environment, and nothing prints it.
  const own = { PORT: String(port && port + 1), AUTH_URL: url, AUTH_KEY: service.key }
  const consumer = await start<string>('consumer.ts', own)
  const lines = curlLines({ auth: url, consumer, adminToken, key: demo.key, id: demo.apiKey.id })
  console.log('\nCtrl-C stops both. Paste these into another terminal:')
  for (const { title, expect, command } of lines) console.log(`\n${title} → ${expect}\n${command}`)
  console.log()
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  stop()
}

/** Starts a program and resolves with its message once it listens; when it ends, so do all. */
async function start<Told>(program: string, env: NodeJS.ProcessEnv): Promise<Told> {
  const child = fork(fileURLToPath(new URL(program, import.meta.url)), { env: { ...process.env, ...env } })
  children.push(child)
  child.once('exit', (code) => {
    process.exitCode ||= code ?? 1
    stop()
  })
  const [told] = await Promise.race([
    once(child, 'message') as Promise<[Told]>,
    once(child, 'exit').then(() => Promise.reject(new Error(`${program} has ended`))),
  ])
  return told
}

function stop(): void {
  for (const child of children.splice(0)) child.kill('SIGTERM')
}
