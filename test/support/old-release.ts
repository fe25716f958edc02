import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { onTestFinished } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Loads a door of an earlier release, `redis` or `index`, from the package as it was published. Lasts for one test. */
export async function importOldRelease<Door>(version: string, door: string): Promise<Door> {
  const tarball = join(root, 'test/golden', version, 'package.tgz')
  if (!existsSync(tarball)) throw new Error(`there is no package of ${version} in test/golden`)
  const folder = mkdtempSync(join(tmpdir(), `latchkey-${version}-`))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  execFileSync('tar', ['-xzf', tarball, '-C', folder])
  symlinkSync(join(root, 'node_modules'), join(folder, 'package/node_modules'))
  return import(pathToFileURL(join(folder, 'package/dist', `${door}.mjs`)).href)
}
