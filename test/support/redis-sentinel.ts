import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { killAfterwards, temporaryFolder } from './cleaner.ts'
import { findFreePort } from './free-port.ts'

/** A Sentinel of our own that watches one primary under the name `main`, and alone decides that it is gone. */
export async function startSentinel(
  binary: string,
  primaryPort: number,
): Promise<{ port: number; stop(): void }> {
  const port = await findFreePort()
  const file = join(temporaryFolder('sentinel'), 'sentinel.conf')
  const settings = [
    `port ${port}`,
    'bind 127.0.0.1',
    `sentinel monitor main 127.0.0.1 ${primaryPort} 1`,
    'sentinel down-after-milliseconds main 500',
    'sentinel failover-timeout main 5000',
  ]
  writeFileSync(file, `${settings.join('\n')}\n`)
  const child = spawn(binary, [file, '--sentinel'], { stdio: ['ignore', 'pipe', 'ignore'] })
  killAfterwards(child)
  const watching = new Promise<void>((resolve) => {
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.includes('+slave')) resolve()
    })
  })
  await Promise.race([
    watching,
    once(child, 'close').then(() => {
      throw new Error('the Sentinel ended before it knew the replica')
    }),
  ])
  return { port, stop: () => void child.kill('SIGKILL') }
}
