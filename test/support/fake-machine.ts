import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from './cleaner.ts'

/** A machine whose PATH leads to these shell scripts and to nothing else: the real apt-get would change this one. */
export function fakeMachine(scripts: Record<string, string>): {
  env: NodeJS.ProcessEnv
  path(name: string): string
} {
  const folder = temporaryFolder('machine')
  const path = (name: string) => join(folder, name)
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(path(name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }
  return { env: { PATH: folder, HERE: folder }, path }
}
