import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { killAlso } from './cleaner.ts'
import type { TestDatabase } from './sql-databases.ts'

const script = fileURLToPath(new URL('./sql-worker.ts', import.meta.url))

export interface WorkerReport {
  applied: string[]
  granted: number
}

/** Starts processes that all begin at one moment, and returns what they report. */
export async function runSqlWorkers(
  count: number,
  kind: string,
  { url }: TestDatabase,
  units = 0,
): Promise<WorkerReport[]> {
  const workers = await Promise.all(Array.from({ length: count }, () => startWorker(kind, url, units)))
  for (const { start } of workers) start()
  return Promise.all(workers.map(({ report }) => report()))
}

async function startWorker(kind: string, url: string, units: number) {
  const child = spawn(process.execPath, ['--import', 'tsx', script, kind, url, String(units)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const forget = killAlso([child.pid as number])
  let printed = ''
  child.stdout.on('data', (chunk) => {
    printed += chunk
  })
  const closed = once(child, 'close')
  await Promise.race([once(child.stdout, 'data'), closed])
  return {
    start: () => void child.stdin.end(),
    async report(): Promise<WorkerReport> {
      const [code] = await closed
      forget()
      if (code !== 0) throw new Error(`the worker ended with ${code}: ${printed}`)
      return JSON.parse(printed.replace('ready\n', ''))
    },
  }
}
