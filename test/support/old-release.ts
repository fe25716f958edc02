import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { temporaryFolder } from './cleaner.ts'
import { GOLDEN_FOLDER } from './golden/releases.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const folders = new Map<string, string>()

/** Loads a door of an earlier release, such as `index` or `redis`, as it was packed. */
export function importOldRelease<Door>(version: string, door: string): Promise<Door> {
  return import(pathToFileURL(join(unpackRelease(version), `dist/${door}.mjs`)).href)
}

/** The folder of a release as it was packed, unpacked once, with the packages that it depends on beside it. */
function unpackRelease(version: string): string {
  const known = folders.get(version)
  if (known !== undefined) return known
  const modules = join(temporaryFolder(`latchkey-${version}`), 'node_modules')
  const folder = join(modules, 'latchkey')
  mkdirSync(folder, { recursive: true })
  const file = `${GOLDEN_FOLDER}${version}/package.tgz`
  execFileSync('tar', ['-xzf', file, '-C', folder, '--strip-components=1'])
  const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), join(modules, name), 'junction')
  }
  folders.set(version, folder)
  return folder
}
