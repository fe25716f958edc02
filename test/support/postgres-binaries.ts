import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { findPackagedServer, isProgram, type Machine, type PackagedServer } from './debian-package.ts'

const programs = ['initdb', 'postgres']
/** Where Debian keeps one folder for each version, none of which is on the PATH. */
const VERSIONS = 'usr/lib/postgresql'

const postgres: PackagedServer = {
  advice:
    'No PostgreSQL server was found, and these tests run against a real one. Put initdb and postgres on the PATH ' +
    '(Debian and Ubuntu: apt-get install postgresql; macOS: brew install postgresql), or name the folder that has ' +
    'both in POSTGRES_BIN_DIR.',
  variable: 'POSTGRES_BIN_DIR',
  named: 'folder with initdb and postgres',
  readNamed: findPrograms,
  findIn: findPrograms,
  foldersBelow: (root) => foldersOfVersions(root).map((folder) => join(root, folder)),
  packages: ['postgresql'],
  // Debian asks this whether it shall make a database cluster of its own and start it.
  installedWith: { pg_conftool: 'echo off' },
  async archives(missing) {
    // Neither is needed: the one compiles queries, which is off, and the locale is C.
    return (await missing(['postgresql'])).filter((name) => !/^(libllvm|locales)/.test(name))
  },
  cacheName: 'postgres',
  launchers(folder) {
    const [newest = VERSIONS] = foldersOfVersions(folder)
    return programs.map((name) => ({ name, program: join(newest, name) }))
  },
}

/**
 * The path of the folder that has `initdb` and `postgres`: the one that `POSTGRES_BIN_DIR` names, one on the PATH, or
 * that of Debian's newest version. Where there is none, Debian's package is installed, or unpacked in the cache by
 * anybody but root.
 *
 * @throws Error that says what to install, since a test without its server must not pass.
 */
export function findPostgres(machine?: Machine): Promise<string> {
  return findPackagedServer(postgres, machine)
}

function findPrograms(folder: string): string | undefined {
  return programs.every((name) => isProgram(join(folder, name))) ? folder : undefined
}

/** From `root`, the newest version first. */
function foldersOfVersions(root: string): string[] {
  return readFolder(join(root, VERSIONS))
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => join(VERSIONS, version, 'bin'))
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
