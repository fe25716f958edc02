import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findPackagedServer, isProgram, type Machine, type PackagedServer } from './debian-package.ts'

const promtool: PackagedServer = {
  advice:
    'No promtool was found, and the alert rules are tested with it. Put it on the PATH (Debian and Ubuntu: apt-get install ' +
    'prometheus; macOS: brew install prometheus), or name the program in PROMTOOL_BIN.',
  variable: 'PROMTOOL_BIN',
  named: 'program',
  readNamed: (path) => (isProgram(path) ? path : undefined),
  findIn: (folder) => [join(folder, 'promtool')].find(isProgram),
  packages: ['prometheus'],
  archives: async () => ['prometheus'],
  cacheName: 'promtool',
  launchers: () => [{ name: 'promtool', program: 'usr/bin/promtool' }],
}

/**
 * The path of a `promtool`: the one that `PROMTOOL_BIN` names, or one on the PATH. Where there is neither, Debian's package is unpacked
 * in the cache, by root too: installed, it would start a Prometheus with the machine.
 *
 * @throws Error that says what to install, since a test without it must not pass.
 */
export async function findPromtool(machine: Machine = {}): Promise<string> {
  const find = () => findPackagedServer(promtool, { ...machine, isRoot: false })
  try {
    return await find()
  } catch (error) {
    if (process.getuid?.() !== 0) throw error
    // The lists of a fresh machine may be empty or old.
    await promisify(execFile)('apt-get', ['update'], { timeout: 300_000 }).catch(() => {})
    return find()
  }
}
